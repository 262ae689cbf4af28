"""QCOM targets in bundles: what they hold, what takes them, and that nothing else does unasked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from c_tools import REPOSITORY, RUNTIME, compiled, run
from opencl_tools import needed_opencl

from tinyinfer import InferenceSession, config
from tinyinfer.backends.opencl import capabilities
from tinyinfer.backends.opencl.capabilities import Capabilities
from tinyinfer.bundle import build as building
from tinyinfer.bundle import devices, kernel_check, types
from tinyinfer.bundle.build import BuildOptions, build_bundle
from tinyinfer.bundle.container import Container
from tinyinfer.bundle.describe import describe_bundle
from tinyinfer.bundle.devices import NoTarget, OpenclTargetDevice
from tinyinfer.bundle.load import BundleModel
from tinyinfer.bundle.plan_reader import read_plan, read_program
from tinyinfer.bundle.targets import find_targets
from tinyinfer.bundle.verify import verify_bundle
from tinyinfer.bundle.weights import Weights
from tinyinfer.errors import EPFail, InvalidArgument, InvalidBundle

DIGITS = REPOSITORY / "models" / "digits" / "digits.onnx"
NAMES = ["OPENCL", "qcom:a630", "qcom:a660", "CPU"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two Adreno targets between others, made where no compiler for those GPUs is."""
    path = tmp_path_factory.mktemp("qcom") / "digits.tinf"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(config.MESA_VARIABLE, raising=False)
        build_bundle(DIGITS, find_targets(NAMES), path)
    return path


def test_golden_vectors_on_another_device_that_is_asked_for(bundle: Path):
    needed_opencl()
    for target in ("qcom:a630", "qcom:a660"):
        report = verify_bundle(bundle, devices=["opencl:0"], target=target)
        assert report.passed and report.target == target
        assert report.outputs[0].worst > 0  # halves were stored
    exact = verify_bundle(bundle)
    other = Container.open(bundle).all("PLAN")[-1].name
    assert verify_bundle(bundle, target=other).target == other
    assert exact.outputs[0].absolute * 5 < report.outputs[0].absolute
    plain = verify_bundle(bundle, devices=["OPENCL"])
    assert plain.target == "opencl" and plain.outputs[0].absolute == exact.outputs[0].absolute


def test_nothing_takes_them_unasked(bundle: Path, tmp_path: Path):
    build_bundle(DIGITS, find_targets(["qcom:a630"]), tmp_path / "q.tinf", BuildOptions(golden=False))
    with pytest.raises(NoTarget, match="qcom:a630: is for OpenCL devices"):
        InferenceSession(tmp_path / "q.tinf")
    with pytest.raises(ValueError, match="device QCOM cannot be used: "):
        InferenceSession(bundle, providers=["QCOM"])
    with pytest.raises(NoTarget, match="holds no target 'qcom:a740', only opencl, qcom:a630, qcom:a660, "):
        BundleModel(bundle, target="qcom:a740")
    needed_opencl()
    with pytest.raises(NoTarget, match="qcom:a630: is for Adreno"):
        InferenceSession(tmp_path / "q.tinf", providers=["OPENCL"])
    assert BundleModel(bundle, devices=["OPENCL"]).target == "opencl"


def _adreno(monkeypatch: pytest.MonkeyPatch, version: str, local_bytes: int = 32768) -> None:
    sizes = (1024, 1024, 1024)
    said = Capabilities(
        *("QUALCOMM Adreno(TM)", True, 1024, sizes, local_bytes, 2, 64, True, False, True, True, False, True),
        *(1 << 28, version),
    )
    monkeypatch.setattr(devices, "_opencl_device", lambda name: None)
    monkeypatch.setattr(capabilities, "capabilities_of", lambda device: said)


@pytest.mark.parametrize(
    "version,taken",
    [
        ("OpenCL 2.0 Adreno(TM) 630", "qcom:a630"),
        ("OpenCL 2.0 Adreno(TM) 660", "qcom:a660"),
        ("OpenCL 3.0 Adreno(TM) 740", "qcom:a630"),
        ("OpenCL 2.0 Adreno(TM) 650", "qcom:a660"),
        ("OpenCL 3.0 Adreno(TM) 999", "opencl"),
    ],
)
def test_an_adreno_takes_the_target_that_is_nearest(
    version: str, taken: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
):
    _adreno(monkeypatch, version)
    assert OpenclTargetDevice(Container.open(bundle), "QCOM").entry.name == taken


def test_one_that_does_not_fit_is_passed_over(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    _adreno(monkeypatch, "OpenCL 2.0 Adreno(TM) 630", 16384)
    device = OpenclTargetDevice(Container.open(bundle), "QCOM")
    assert device.entry.name == "opencl"
    with pytest.raises(NoTarget, match="qcom:a660: needs 32768 bytes of local memory"):
        OpenclTargetDevice(Container.open(bundle), "QCOM", "qcom:a660")


def test_weights_are_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(config.MESA_VARIABLE, raising=False)
    build_bundle(DIGITS, find_targets(["qcom:a630"]), tmp_path / "q.tinf", BuildOptions(golden=False))
    build_bundle(DIGITS, find_targets(["QCOM"]), tmp_path / "all.tinf", BuildOptions(golden=False))
    one, four = (Container.open(tmp_path / name) for name in ("q.tinf", "all.tinf"))
    assert len(four.all("PLAN")) == 4
    assert one.get("WGHT").sha256 == four.get("WGHT").sha256  # type: ignore[union-attr]


def test_what_a_target_says(bundle: Path):
    facts = describe_bundle(Container.open(bundle), "qcom:a660")
    target = next(t for t in facts["targets"] if t["name"] == "qcom:a660")
    assert "images" in target["features"] and not target["chosen"]
    manifest = next(t for t in facts["manifest"]["targets"] if t["name"] == "qcom:a660")
    assert manifest["cpu"] == "a660" and "check" not in manifest
    assert "in halves" in facts["manifest"]["numerics"]
    container = Container.open(bundle)
    entry = next(e for e in container.all("PLAN") if e.name == "qcom:a660")
    program = read_program(container.data(entry), "PLAN")
    assert program.device == "Adreno" and program.best_for.split() == ["643", "650", "660", "690"]


def test_impossible_tolerances(bundle: Path):
    container = Container.open(bundle)
    entry = next(e for e in container.all("PLAN") if e.name == "qcom:a630")
    stored = Weights(container).stored
    data = bytearray(container.data(entry).tobytes())
    start = types.DIRECTORY.unpack_from(data, types.PLAN_HEADER.size + types.DIRECTORY.size * types.VALUES)[0]
    size = types.TABLES[types.VALUES].record.size
    for place, value in ((1, np.inf), (1, np.nan), (1, -1.0), (0, 0.5)):
        changed = bytearray(data)
        at = start + size * place + 40
        changed[at : at + 8] = np.float64(value).tobytes()
        with pytest.raises(InvalidBundle, match="impossible tolerance"):
            read_plan(np.frombuffer(changed, np.uint8), 1 << 30, stored, "PLAN")


# ---- the check of kernels


@pytest.mark.skipif(config.mesa_tree() is None, reason="no Mesa tree (TINYINFER_MESA)")
def test_the_check_is_recorded(tmp_path: Path):
    targets = find_targets(["qcom:a630", "qcom:a640"])
    report = build_bundle(DIGITS, targets, tmp_path / "c.tinf", BuildOptions(golden=False))
    checked, unknown = (target.check for target in report.targets)
    assert checked is not None and checked.made and checked.summary["spilling"] == 0
    assert unknown is not None and "does not know a640" in unknown.reason
    first, second = describe_bundle(Container.open(tmp_path / "c.tinf"))["manifest"]["targets"]
    assert first["check"] == checked.summary and "check" not in second
    kernels = report.as_dict()["targets"][0]["check"]["by_kernel"]
    assert len(kernels) == checked.summary["kernels"] and any("/conv1" in k["computes"] for k in kernels)


def test_a_kernel_that_does_not_compile_makes_no_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Compiler:
        version = "none"

        def close(self) -> None:
            pass

    def refuse(plan: object, gpu: object) -> None:
        raise EPFail("kernel of /conv1 does not compile for a630")

    monkeypatch.setattr(kernel_check, "find_compiler", lambda gpu: (Compiler(), ""))
    monkeypatch.setattr(kernel_check, "compile_check", refuse)
    with pytest.raises(EPFail, match="/conv1 does not compile for a630"):
        build_bundle(DIGITS, find_targets(["CPU", "qcom:a630"]), tmp_path / "c.tinf")
    assert not list(tmp_path.iterdir())


def test_without_a_device_vectors_allow_what_halves_may_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(building, "unavailable_reason", lambda name: "none here")
    monkeypatch.delenv(config.MESA_VARIABLE, raising=False)
    report = build_bundle(DIGITS, find_targets(["qcom:a630"]), tmp_path / "q.tinf")
    assert report.targets[0].replayed_on == ""
    (error,) = report.in_halves["qcom:a630"]
    assert error.seen == 0 and error.allowed == pytest.approx(0.01 * error.scale)
    with pytest.MonkeyPatch.context() as patch:
        patch.undo()
        needed_opencl()
        assert verify_bundle(tmp_path / "q.tinf", devices=["OPENCL"], target="qcom:a630").passed


# ---- the C launcher


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources = [REPOSITORY / "examples" / "run_bundle.c", RUNTIME / "tinyinfer_opencl.c"]
    flags = ["-std=gnu11", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    folder = tmp_path_factory.mktemp("qcom_c")
    return compiled(folder / "run_bundle", "gcc", sources, *flags, "-DWITH_OPENCL", "-ldl")


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fake")
    source = Path(__file__).parent / "c" / "fake_opencl.c"
    return compiled(folder / "libfake.so", "gcc", [source], "-O1", "-g", "-shared", "-fPIC")


def test_the_launcher_runs_a_named_target_anywhere(bundle: Path, runner: Path):
    needed_opencl()
    leaks = {"ASAN_OPTIONS": "detect_leaks=0"}  # a driver's own, until the process ends
    done = run(runner, bundle, "verify", "--opencl", "0", "--target", "qcom:a660", **leaks)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "target opencl\n" in run(runner, bundle, "info", "--opencl", "0", **leaks).stdout


@pytest.mark.parametrize(
    "number,taken",
    [("630", "qcom:a630"), ("650", "qcom:a660"), ("6300", "opencl"), ("999", "opencl"), ("830", "qcom:a630")],
)
def test_the_launcher_takes_the_nearest_target(
    number: str, taken: str, bundle: Path, runner: Path, fake: Path
):
    names = {"FAKE_NAME": "QUALCOMM Adreno(TM)", "FAKE_VERSION": f"OpenCL 3.0 Adreno(TM) {number}"}
    done = run(runner, bundle, "info", "--opencl", "", "--library", str(fake), **names)
    assert done.returncode == 0, done.stderr
    assert f"target {taken}\n" in done.stdout


def test_the_launcher_refuses_other_devices(tmp_path: Path, runner: Path, fake: Path):
    path = tmp_path / "q.tinf"
    build_bundle(DIGITS, find_targets(["qcom:a630"]), path, BuildOptions(golden=False))
    done = run(runner, path, "info", "--opencl", "", "--library", str(fake))
    assert done.returncode == 2 and "qcom:a630 is for Adreno" in done.stderr


def test_islands_are_in_the_manifest_and_a_precision_without_them_is_kept(bundle: Path, tmp_path: Path):
    said = {t["name"]: t for t in describe_bundle(Container.open(bundle))["manifest"]["targets"]}
    islands = said["qcom:a630"]["islands"]
    assert said["qcom:a630"]["storage"] == "float16" and "storage" not in said["opencl"]
    assert islands["stored_in_images"] > 0 and islands["error"] <= 0.01
    path, options = tmp_path / "wide.tinf", BuildOptions(golden=False, precision="fp32")
    report = build_bundle(DIGITS, find_targets(["qcom:a630"], "float32"), path, options)
    manifest = describe_bundle(Container.open(path))["manifest"]
    assert manifest["options"]["precision"] == "fp32" and manifest["targets"][0]["storage"] == "float32"
    assert "islands" not in manifest["targets"][0] and report.targets[0].islands is None
    with pytest.raises(InvalidArgument, match="precision that it was compiled with"):
        devices.QcomTargetDevice.with_options(object.__new__(devices.QcomTargetDevice), {"precision": "fp16"})
