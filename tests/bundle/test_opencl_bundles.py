"""OpenCL targets in bundles: what chooses them, what they need, and what a reader refuses."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from c_tools import REPOSITORY, RUNTIME, compiled, run
from opencl_tools import needed_opencl, opencl_section
from small_models import affine

from tinyinfer import InferenceSession
from tinyinfer.backends.cpu.features import Needs
from tinyinfer.backends.opencl.capabilities import Capabilities
from tinyinfer.backends.opencl.target import OpenclTarget, obstacles
from tinyinfer.bundle import types
from tinyinfer.bundle.build import BuildOptions, build_bundle
from tinyinfer.bundle.container import Container
from tinyinfer.bundle.describe import describe_bundle
from tinyinfer.bundle.devices import NoTarget
from tinyinfer.bundle.plan_reader import read_plan
from tinyinfer.bundle.plan_section import launches_in_order, write_plan
from tinyinfer.bundle.targets import find_targets
from tinyinfer.bundle.tuned import TuneOptions
from tinyinfer.bundle.verify import verify_bundle
from tinyinfer.bundle.weights import WeightStore
from tinyinfer.errors import InvalidBundle
from tinyinfer.ir import build
from tinyinfer.ir.node import Graph

X = {"x": np.array([[1, 2, 3]], np.float32)}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the OpenCL target before those of this machine."""
    made = tmp_path_factory.mktemp("opencl") / "both.tinf"
    build_bundle(affine(), find_targets(["OPENCL", "CPU"]), made)
    return made


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the OpenCL target only."""
    made = tmp_path_factory.mktemp("opencl") / "alone.tinf"
    build_bundle(affine(), find_targets(["OPENCL"]), made)
    return made


def test_the_device_chooses_the_target(both: Path):
    needed_opencl()
    wanted = InferenceSession(affine()).run(None, X)
    session = InferenceSession(both)
    assert session.get_providers() == ["CPU"]
    session.set_providers(["OPENCL"])
    assert session.get_providers() == ["OPENCL"]
    for made in (session, InferenceSession(both, providers=["opencl:0", "CPU"]), InferenceSession(both)):
        for got, want in zip(made.run(None, X), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6)
    report = verify_bundle(both, devices=["OPENCL"])
    assert report.passed and report.target == "opencl" and report.rejected == []
    assert verify_bundle(both).rejected[0].startswith("opencl: is for OpenCL devices")


def test_what_is_said_of_devices(both: Path, alone: Path, tmp_path: Path):
    with pytest.raises(NoTarget, match="opencl: is for OpenCL devices: it runs where"):
        InferenceSession(alone)
    with pytest.raises(ValueError, match="unknown device 'OPENGL'; bundles run on the CPU and on OPENCL"):
        InferenceSession(both, providers=["OPENGL"])
    needed_opencl()
    with pytest.raises(ValueError, match="device OPENCL:77 cannot be used: no OpenCL device is '77'"):
        InferenceSession(both, providers=["OPENCL:77"])
    assert InferenceSession(both, providers=["OPENCL:77", "CPU"]).get_providers() == ["CPU"]
    build_bundle(affine(), find_targets(["CPU"]), tmp_path / "cpu.tinf")
    with pytest.raises(NoTarget, match="no target in this bundle runs on .*: .*: is for processors"):
        InferenceSession(tmp_path / "cpu.tinf", providers=["OPENCL"])
    assert InferenceSession(alone, providers=["CPU", "OPENCL"]).get_providers() == ["OPENCL"]


def test_versions(both: Path, tmp_path: Path):
    build_bundle(affine(), find_targets(["CPU"]), tmp_path / "cpu.tinf")
    assert Container.open(tmp_path / "cpu.tinf").minor == 0
    assert Container.open(both).minor == 1


def test_a_runtime_for_processors_passes_over_it(both: Path, alone: Path, tmp_path: Path):
    sources = [REPOSITORY / "examples" / "run_bundle.c", RUNTIME / "tinyinfer.c"]
    program = compiled(tmp_path / "run_bundle", "gcc", sources, "-O1")
    done = run(program, both, "verify")
    assert done.returncode == 0, done.stderr
    refused = run(program, alone, "verify")
    assert refused.returncode == 2 and "opencl is for a newer runtime" in refused.stderr


def test_it_is_described(both: Path):
    facts = describe_bundle(Container.open(both), "opencl")
    target = next(t for t in facts["targets"] if t["name"] == "opencl")
    assert target["architecture"] == "opencl" and not target["runs_here"] and not target["chosen"]
    assert {node for launch in facts["launches"] for node in launch["nodes"]} == {"gemm", "negate"}
    code = sum(launch["code_bytes"] for launch in facts["launches"])
    assert 0 < code < target["code_bytes"]
    manifest = next(t for t in facts["manifest"]["targets"] if t["name"] == "opencl")
    assert (manifest["triple"], manifest["cpu"], manifest["features"]) == ("opencl", "any", [])
    assert "OpenCL" in facts["manifest"]["numerics"]


_WITHOUT = """
import sys
for name in sys.argv[2].split():
    sys.modules[name] = None
import numpy as np
from tinyinfer import InferenceSession
if sys.argv[3] == "build":
    from tinyinfer.bundle.build import build_bundle
    from tinyinfer.bundle.targets import find_targets
    report = build_bundle(sys.argv[4], find_targets(["OPENCL"]), sys.argv[1])
    print([target.replayed_on for target in report.targets])
else:
    session = InferenceSession(sys.argv[1], providers=["OPENCL"])
    print(session.run(None, {"x": np.array([[1, 2, 3]], np.float32)})[0].tolist())
"""


def _without(modules: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _WITHOUT, str(words[0]), modules, *map(str, words[1:])]
    return subprocess.run(
        command, capture_output=True, text=True, env=dict(os.environ, PYTHONPATH=str(REPOSITORY))
    )


def test_it_needs_neither_onnx_nor_a_compiler(alone: Path):
    needed_opencl()
    done = _without("onnx llvmlite google.protobuf", alone, "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(InferenceSession(affine()).run(None, X)[0].tolist())


def test_it_is_compiled_where_no_opencl_is(alone: Path, tmp_path: Path):
    model = tmp_path / "affine.onnx"
    model.write_bytes(affine().SerializeToString())
    made = _without("pyopencl", tmp_path / "a.tinf", "build", model)
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip() == "['']"
    refused = _without("pyopencl", tmp_path / "a.tinf", "run")
    assert "device OPENCL cannot be used: pyopencl is not installed" in refused.stderr
    build_bundle(model, find_targets(["OPENCL"]), tmp_path / "b.tinf", BuildOptions())
    code = [Container.open(tmp_path / name).get("CODE", 1) for name in ("a.tinf", "b.tinf")]
    assert code[0] is not None and code[1] is not None and code[0].sha256 == code[1].sha256


def test_a_target_for_one_device():
    needed_opencl()
    (target,) = find_targets(["opencl:0"])
    assert target.name.startswith("opencl:") and len(target.name) <= 32 and target.name.isascii()
    with pytest.raises(ValueError, match="no OpenCL device is '77'.*; OPENCL without a name needs no device"):
        find_targets(["opencl:77"])


POOR = Capabilities(
    "Small GPU", True, 64, (64, 64, 64), 4096, 2, 32, False, False, False, False, False, False, 1 << 20
)


def test_what_a_program_needs_of_a_device():
    needs = Needs("opencl", 16, 8, 1)
    assert obstacles(replace(needs, features=0), 4096, 64, "gpu", POOR) == []
    wanted = [
        "is for Adreno",
        "needs float64 (cl_khr_fp64), which Small GPU lacks",
        "needs work-groups of 128; those of Small GPU have at most 64",
        "needs 8192 bytes of local memory, and Small GPU has 4096",
    ]
    assert obstacles(needs, 8192, 128, "Adreno", POOR) == wanted


def test_a_target_may_ask_for_a_kind_of_device(tmp_path: Path):
    target = OpenclTarget("opencl:other", required="Adreno")
    report = build_bundle(affine(), [target], tmp_path / "other.tinf", BuildOptions(tune=TuneOptions(1.0)))
    assert report.targets[0].replayed_on == ""
    assert "opencl:other: kernels for OpenCL devices are not measured" in report.notes
    needed_opencl()
    with pytest.raises(NoTarget, match="opencl:other: is for Adreno"):
        InferenceSession(tmp_path / "other.tinf", providers=["OPENCL"])


def _doubled_rows() -> Graph:
    x = build.input_node("x", (40, 33), "float64")
    return Graph({"x": x}, {"y": build.reduce("SUM", build.elementwise("ADD", x, x), (1,))})


def test_a_plan_comes_back():
    store = WeightStore()
    section, text = opencl_section(_doubled_rows(), store)
    assert section.features == 1 and b"cl_khr_fp64" in text
    data = np.frombuffer(write_plan(section), np.uint8)
    again = read_plan(data, len(text), store.stored, "PLAN")
    assert again.program == section.program
    pairs = zip(launches_in_order(again.plan.launches), launches_in_order(section.plan.launches), strict=True)
    for got, want in pairs:
        assert (got.work, got.once, got.kernel.name) == (want.work, want.once, want.kernel.name)
        place = again.offsets[got.kernel.key]
        assert f"void {got.kernel.name}(".encode() in text[place:].split(b"{")[0]
    assert write_plan(again) == data.tobytes()


@pytest.mark.parametrize(("at", "value", "size"), [(0, 0, 8), (0, 1 << 63, 8), (24, 0, 4), (24, 7, 4)])
def test_impossible_work_sizes(at: int, value: int, size: int):
    data = bytearray(write_plan(opencl_section(_doubled_rows(), WeightStore())[0]))
    entry = types.PLAN_HEADER.size + types.DIRECTORY.size * types.WORK
    place = types.DIRECTORY.unpack_from(data, entry)[0] + at
    data[place : place + size] = value.to_bytes(size, "little")
    with pytest.raises(InvalidBundle, match="impossible"):
        read_plan(np.frombuffer(data, np.uint8), 1 << 20, [], "PLAN")


def test_tables_that_are_not_there():
    data = bytearray(write_plan(opencl_section(_doubled_rows(), WeightStore())[0]))
    for table, message in ((types.WORK, "0 work sizes for"), (types.PROGRAMS, "0 programs, not one")):
        changed = bytearray(data)
        place = types.PLAN_HEADER.size + types.DIRECTORY.size * table + 4
        changed[place : place + 4] = bytes(4)
        with pytest.raises(InvalidBundle, match=message):
            read_plan(np.frombuffer(changed, np.uint8), 1 << 20, [], "PLAN")
    data[24:28] = (9).to_bytes(4, "little")
    with pytest.raises(InvalidBundle, match="a directory of 9 tables"):
        read_plan(np.frombuffer(data, np.uint8), 1 << 20, [], "PLAN")
