"""The OpenCL launcher of the C runtime: on a device, and on a library that checks it and fails on purpose."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from c_tools import REPOSITORY, RUNTIME, STRICT, compiled, needed, run
from opencl_tools import needed_opencl, save_graph
from small_models import affine

from tinyinfer.backends.opencl.target import OpenclTarget
from tinyinfer.backends.qcom.capabilities import find_gpu
from tinyinfer.backends.qcom.model import adreno_model
from tinyinfer.bundle.build import BuildOptions, build_bundle
from tinyinfer.bundle.container import Container, Section, write_bundle
from tinyinfer.bundle.targets import find_targets
from tinyinfer.bundle.verify import verify_bundle
from tinyinfer.ir.oracle import evaluate

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent / "kernels"))

from compiled import graph_of  # noqa: E402
from random_graphs import case  # noqa: E402

SOURCE = RUNTIME / "tinyinfer_opencl.c"
SOURCES = [REPOSITORY / "examples" / "run_bundle.c", SOURCE]
WITH = ["-DWITH_OPENCL", "-ldl"]
SANITIZED = ["-std=gnu11", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
KINDS = ["convolution", "matmul", "rows", "pooling", "gathers", "concats", "reductions", "chains"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("opencl_c")


@pytest.fixture(scope="module")
def runner(folder: Path) -> Path:
    return compiled(folder / "run_bundle", "gcc", SOURCES, "-O2", *STRICT, *WITH)


@pytest.fixture(scope="module")
def sanitized(folder: Path) -> Path:
    return compiled(folder / "sanitized", "gcc", SOURCES, *SANITIZED, *WITH)


@pytest.fixture(scope="module")
def fake(folder: Path) -> Path:
    return compiled(
        folder / "libfake.so", "gcc", [FOLDER / "c" / "fake_opencl.c"], "-O1", "-g", "-shared", "-fPIC"
    )


@pytest.fixture(scope="module")
def small(folder: Path) -> Path:
    path = folder / "affine.tinf"
    build_bundle(affine(), find_targets(["OPENCL"]), path)
    return path


def _recurrent(path: Path, loop_groups: int) -> Path:
    """A bundle with a loop, weights stored small, and an input of one value."""
    spec = importlib.util.spec_from_file_location("make_released", FOLDER / "released" / "make.py")
    assert spec is not None and spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    (target,) = find_targets(["OPENCL"])
    target = replace(target, model=replace(target.model, loop_groups=loop_groups))
    build_bundle(make.model(), [target], path, BuildOptions(values={"mode": 1}))
    return path


@pytest.fixture(scope="module")
def recurrent(folder: Path) -> Path:
    """Its loop is repeated by the host."""
    return _recurrent(folder / "recurrent.tinf", 0)


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """Its loop is one kernel."""
    return _recurrent(folder / "whole.tinf", 1)


@pytest.mark.parametrize("compiler", ["gcc", "clang-14", "aarch64-linux-gnu-gcc", "arm-linux-gnueabihf-gcc"])
def test_the_launcher_compiles_without_a_warning(compiler: str, tmp_path: Path):
    needed(compiler)
    done = run(compiler, *STRICT, "-O2", "-c", SOURCE, "-o", tmp_path / "tinyinfer.o")
    assert done.returncode == 0, done.stderr
    for name in ("tinyinfer_opencl.h", "tinyinfer_opencl.c", "tinyinfer_qcom.c"):
        assert max(map(len, (RUNTIME / name).read_text().splitlines())) <= 120


def test_nothing_of_opencl_is_linked(runner: Path):
    listed = subprocess.run(["ldd", str(runner)], capture_output=True, text=True, check=True).stdout
    assert "OpenCL" not in listed


# ---- on a device


@pytest.mark.parametrize("bundle", ["small", "recurrent", "whole"])
def test_golden_vectors_on_a_device(bundle: str, sanitized: Path, request: pytest.FixtureRequest):
    needed_opencl()
    # drivers keep memory until the process ends, which is no matter of the launcher
    done = run(
        sanitized, request.getfixturevalue(bundle), "verify", "--opencl", "", ASAN_OPTIONS="detect_leaks=0"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout and "on " in done.stderr


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.sweep) for seed in range(2, 12))])
@pytest.mark.parametrize("kind", KINDS)
def test_random_graphs_on_a_device(kind: str, seed: int, runner: Path, tmp_path: Path):
    needed_opencl()
    done = run(runner, _random_bundle(tmp_path, kind, seed), "verify", "--opencl", "")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module", params=["float32", "float16"])
def in_images(folder: Path, request: pytest.FixtureRequest) -> Path:
    """A bundle whose values and weights lie in images."""
    path = folder / f"images_{request.param}.tinf"
    target = OpenclTarget("images", adreno_model(find_gpu("a630"), request.param))
    build_bundle(REPOSITORY / "models" / "digits" / "digits.onnx", [target], path)
    return path


@pytest.fixture(scope="module")
def adreno(folder: Path) -> tuple[Path, dict[str, str]]:
    """A bundle for an Adreno GPU, and the variables with which PoCL pretends to be one."""
    needed_opencl()
    drivers = [path.read_text().strip() for path in Path("/etc/OpenCL/vendors").glob("pocl*.icd")]
    if not drivers:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no PoCL in /etc/OpenCL/vendors")
    source = FOLDER.parent / "backends" / "qcom" / "vendor" / "fake_adreno.c"
    library = compiled(folder / "libfake_adreno.so", "gcc", [source], "-O1", "-shared", "-fPIC", "-ldl")
    bundle = folder / "adreno.tinf"
    build_bundle(REPOSITORY / "models" / "digits" / "digits.onnx", find_targets(["qcom:a630"]), bundle)
    return bundle, {"FAKE_DRIVER": drivers[0], "OCL_ICD_VENDORS": str(library)}


def test_images_on_a_device(in_images: Path, runner: Path):
    needed_opencl()
    assert verify_bundle(in_images, devices=["OPENCL"]).passed
    done = run(runner, in_images, "verify", "--opencl", "")
    assert done.returncode == 0, done.stdout + done.stderr


def test_images_on_the_library_of_the_tests(in_images: Path, sanitized: Path, fake: Path):
    words = ["verify", "--opencl", "", "--library", str(fake)]
    for environment in ({}, {"FAKE_FAIL": "clCreateImage:2"}, {"FAKE_FAIL": "clEnqueueWriteImage:1"}):
        done = run(sanitized, in_images, *words, **environment)
        wanted = "failed on Fake GPU" if environment else "golden vectors failed"
        assert done.returncode in (1, 2) and wanted in done.stderr.splitlines()[-1], done.stderr


@pytest.mark.parametrize("kind", ["matmul", "rows"])
def test_oclgrind_finds_nothing(kind: str, runner: Path, tmp_path: Path):
    needed("oclgrind")
    # a few LLVM intrinsics that optimisation makes are unknown to the interpreter
    path, log = _random_bundle(tmp_path, kind, 3, " -cl-opt-disable"), tmp_path / "oclgrind.log"
    command = ["oclgrind", "--data-races", "--log", log, runner, path, "verify", "--opencl", "oclgrind"]
    done = run(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not log.exists() or log.read_text() == ""


def _random_bundle(folder: Path, kind: str, seed: int, more_options: str = "") -> Path:
    one = case(kind, seed)
    graph = graph_of(*one.outputs)
    feeds = {name: one.feeds[name].reshape(node.shape) for name, node in graph.inputs.items()}
    wanted = evaluate(one.outputs, one.feeds)
    path = folder / "random.tinf"
    save_graph(path, graph, feeds, wanted, [_tolerance(array) for array in wanted], more_options)
    return path


def _tolerance(wanted: np.ndarray) -> float:
    """What rounding may do, as a part of the greatest value."""
    if wanted.dtype.kind not in "f":
        return 0.0
    finite = np.abs(wanted[np.isfinite(wanted)].astype(np.float64))
    return (1e-2 if wanted.dtype == np.float16 else 1e-4) * max(1.0, float(finite.max(initial=0)))


@pytest.mark.parametrize(
    "name",
    [
        "dtln_model_1",
        "silero_vad_op18_ifless",
        pytest.param("ultraface_rfb_320", marks=pytest.mark.sweep),
        pytest.param("mobilenetv2_fp32_real_b", marks=pytest.mark.sweep),
    ],
)
def test_real_models_on_a_device(
    name: str,
    shared_models: Path,
    model_feeds: Callable[[str], dict[str, np.ndarray]],
    runner: Path,
    tmp_path: Path,
):
    needed_opencl()
    values = {"silero_vad_op18_ifless": {"sr": np.array(16000)}}.get(name, {})
    options = BuildOptions(shapes={k: v.shape for k, v in model_feeds(name).items()}, values=values)
    build_bundle(shared_models / f"{name}.onnx", find_targets(["OPENCL"]), tmp_path / "a.tinf", options)
    done = run(runner, tmp_path / "a.tinf", "verify", "--opencl", "0")
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_said_where_there_is_no_device(runner: Path, small: Path, tmp_path: Path):
    def said(*options: str, **environment: str) -> str:
        done = run(runner, small, "verify", *options, **environment)
        assert done.returncode == 2
        return done.stderr.splitlines()[-1].rpartition("affine.tinf: ")[2]

    assert said("--opencl", "", "--library", "/none.so").startswith("no OpenCL library /none.so: ")
    assert "opencl is for a newer runtime" in said()
    needed_opencl()
    assert said("--opencl", "", OCL_ICD_VENDORS=str(tmp_path)).startswith("no OpenCL device: install")
    assert said("--opencl", "adreno").startswith("no OpenCL device is 'adreno'; there are ")


def test_what_is_said_of_a_program_that_does_not_compile(runner: Path, small: Path, tmp_path: Path):
    needed_opencl()
    path = tmp_path / "broken.tinf"
    path.write_bytes(_changed_code(small, lambda code: code.replace(b"__kernel ", b"__kernel nonsense ", 1)))
    done = run(runner, path, "verify", "--opencl", "")
    assert done.returncode == 2
    assert "nonsense" in done.stderr  # the log, whole
    assert "broken.tinf: the compiler of " in done.stderr.splitlines()[-1]


def _changed_code(path: Path, change: Callable[[bytes], bytes]) -> bytes:
    container = Container.open(path)
    sections = []
    for entry in container.entries:
        data = container.data(entry).tobytes()
        sections.append(
            Section(entry.kind, change(data) if entry.kind == "CODE" else data, entry.group, entry.name)
        )
    return write_bundle(sections, minor=1)


# ---- on the library of the tests

MADE = """clGetPlatformIDs clGetDeviceIDs clCreateContext clCreateCommandQueue clCreateProgramWithSource
clBuildProgram clCreateKernel clCreateBuffer clEnqueueWriteBuffer clSetKernelArg clEnqueueNDRangeKernel
clEnqueueFillBuffer clEnqueueCopyBuffer clEnqueueReadBuffer clFinish""".split()


@pytest.mark.parametrize("call", MADE)
def test_every_call_may_fail(call: str, sanitized: Path, fake: Path, recurrent: Path):
    failed = 0
    for number in (1, 2, 3, 7):
        done = run(
            sanitized,
            recurrent,
            "verify",
            "--opencl",
            "",
            "--library",
            str(fake),
            FAKE_FAIL=f"{call}:{number}",
        )
        message = done.stderr.splitlines()[-1]
        assert done.returncode in (1, 2) and "recurrent.tinf: " in message, done.stderr
        wrong = ("failed on Fake GPU", "no OpenCL device", "refused the program")
        failed += done.returncode == 2 and any(text in message for text in wrong)
        # kernels that do nothing compute nothing right
        assert done.returncode == 2 or "golden vectors failed" in message
    assert failed >= 1


def test_the_built_program_is_kept(sanitized: Path, fake: Path, recurrent: Path, tmp_path: Path):
    cache = tmp_path / "program.bin"

    def built() -> str:
        words = ["--opencl", "", "--library", str(fake), "--cache", str(cache)]
        done = run(sanitized, recurrent, "info", *words, FAKE_TELL="1")
        assert done.returncode == 0, done.stderr
        return next(line for line in done.stderr.splitlines() if line.startswith("built"))

    options = "-cl-std=CL1.2 -cl-fp32-correctly-rounded-divide-sqrt"
    assert built() == f"built source: {options}"
    assert [built(), built()] == [f"built a binary: {options}"] * 2
    kept = cache.read_bytes()
    flipped = [bytes([kept[0] ^ 1]) + kept[1:], kept[:-1] + bytes([kept[-1] ^ 1])]
    for damaged in (b"", kept[:-1], kept[:40], *flipped):
        cache.write_bytes(damaged)
        assert built() == f"built source: {options}"
        assert cache.read_bytes() == kept
    assert [path.name for path in tmp_path.iterdir()] == ["program.bin"]


QUALCOMM = "cl_qcom_perf_hint cl_qcom_priority_hint cl_qcom_recordable_queues"


@pytest.mark.parametrize(
    "failing, launched, replayed",
    [
        # two launches when the model is opened, six in each run; both runs are compared with a replay
        ("", 14, 2),
        ("clCreateContext:1", 14, 2),
        ("clCreateCommandQueue:2", 14, 0),
        ("clNewRecordingQCOM:1", 14, 0),
        ("clEndRecordingQCOM:1", 14, 0),
        ("clEnqueueRecordingQCOM:1", 20, 0),
        ("clEnqueueRecordingQCOM:2", 20, 1),
        ("clGetExtensionFunctionAddressForPlatform:3", 14, 0),
    ],
)
def test_extensions_that_are_refused_are_done_without(
    failing: str, launched: int, replayed: int, sanitized: Path, fake: Path, in_images: Path
):
    words = ["verify", "--opencl", "", "--library", str(fake), "--performance", "normal", "--priority", "low"]
    environment = {"FAKE_TELL": "1", "FAKE_EXTENSIONS": QUALCOMM, "FAKE_FAIL": failing}
    done = run(sanitized, in_images, *words, **environment)
    # kernels that do nothing compute nothing right
    assert done.returncode == 1 and "golden vectors failed" in done.stderr, done.stderr
    told = [line.split()[0] for line in done.stderr.splitlines()]
    assert (told.count("launched"), told.count("replayed")) == (launched, replayed)


def test_launches_are_not_recorded_where_that_is_not_wanted(sanitized: Path, fake: Path, in_images: Path):
    words = ["verify", "--opencl", "", "--library", str(fake)]
    for more, extensions in (["--recording", "off"], QUALCOMM), ([], "cl_khr_other"):
        done = run(sanitized, in_images, *words, *more, FAKE_TELL="1", FAKE_EXTENSIONS=extensions)
        told = done.stderr.splitlines()
        assert not any(line.startswith(("recorded", "replayed")) for line in told), told


@pytest.mark.parametrize(
    "environment, words, context, told",
    [
        ({}, [], "context performance=40c3 priority=0", ["recorded 6", *["replayed 6 updates=0"] * 2]),
        (
            {"FAKE_MOST": "5"},
            ["--performance", "driver", "--priority", "high"],
            "context performance=0 priority=40ca",
            ["recorded 5", *["replayed 5 updates=0"] * 2],
        ),
        (
            {"FAKE_LEAVES_OUT": "1"},
            ["--performance", "low", "--priority", "low"],
            "context performance=40c5 priority=40cc",
            ["recorded 6", "replayed 6 updates=0"],
        ),
    ],
)
def test_recordings_on_a_driver_that_executes_them(
    environment: dict[str, str],
    words: list[str],
    context: str,
    told: list[str],
    runner: Path,
    adreno: tuple[Path, dict[str, str]],
    tmp_path: Path,
):
    """What leaves out a launch is not used again, and golden vectors pass all the same."""
    bundle, driver = adreno
    log = tmp_path / "log"
    done = run(runner, bundle, "verify", "--opencl", "", *words, FAKE_LOG=str(log), **driver, **environment)
    assert done.returncode == 0 and "on QUALCOMM Adreno" in done.stderr, done.stdout + done.stderr
    released = told[0].replace("recorded", "released")
    assert log.read_text().splitlines() == [context, *told, released]


@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_numbers_for_the_launcher(seed: int, folder: Path, fake: Path, recurrent: Path):
    sources = [FOLDER / "c" / "hostile.c"]
    library = f'-DOPENCL_LIBRARY="{fake}"'
    flags = [*SANITIZED, "-I", str(FOLDER / "c"), library, "-ldl"]
    program = compiled(folder / f"hostile{seed}", "gcc", sources, *flags)
    extensions = {1: "cl_khr_other", 2: QUALCOMM}[seed]
    limits = {"ASAN_OPTIONS": "allocator_may_return_null=1", "FAKE_EXTENSIONS": extensions}
    done = run(program, "mutants", recurrent, str(seed), "1500", **limits)
    assert done.returncode == 0, done.stderr[-3000:]
    tried, ran = (int(word) for word in done.stdout.split() if word.isdigit())
    assert tried == 1500 and tried // 10 < ran < tried
