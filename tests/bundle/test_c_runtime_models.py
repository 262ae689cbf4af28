"""Bundles that the package builds, run by the C runtime: as the session, in C++, and on other processors."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from c_tools import MACHINES, REPOSITORY, RUNTIME, STRICT, Machine, compiled, needed, run
from small_models import affine

from tinyinfer import InferenceSession
from tinyinfer.bundle.build import BuildOptions, build_bundle
from tinyinfer.bundle.targets import find_targets

SOURCE = RUNTIME / "tinyinfer.c"
EXAMPLES = REPOSITORY / "examples"
VALUES = {"silero_vad_op18_ifless": {"sr": np.array(16000)}}
"""The only values of inputs, where a model's code depends on them."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("c_models")


@pytest.fixture(scope="module")
def runner(folder: Path) -> Path:
    return compiled(folder / "run_bundle", "gcc", [EXAMPLES / "run_bundle.c", SOURCE], "-O2", *STRICT)


def built(name: str, models: Path, feeds: dict[str, np.ndarray], target: str, folder: Path) -> Path:
    made = folder / f"{name}.tinf"
    shapes = {key: value.shape for key, value in feeds.items()}
    options = BuildOptions(shapes=shapes, values=VALUES.get(name, {}))
    build_bundle(models / f"{name}.onnx", find_targets([target]), made, options)
    return made


MODELS = ["silero_vad_op18_ifless", "dtln_model_1", "ultraface_rfb_320", "tiny_gpt2_past_fp32"]


@pytest.mark.parametrize("name", MODELS)
def test_as_the_session(
    name: str,
    shared_models: Path,
    model_feeds: Callable[[str], dict[str, np.ndarray]],
    runner: Path,
    tmp_path: Path,
):
    feeds = {**model_feeds(name), **VALUES.get(name, {})}
    bundle = built(name, shared_models, feeds, "CPU", tmp_path)
    session = InferenceSession(bundle)
    wanted = session.run(None, feeds)
    given, made = tmp_path / "in.bin", tmp_path / "out.bin"
    arrays = [np.ascontiguousarray(feeds[x.name]).astype(numpy_type(x.type)) for x in session.get_inputs()]
    given.write_bytes(b"".join(array.tobytes() for array in arrays))
    for threads in ("1", "3"):
        verified = run(runner, bundle, "verify", "--threads", threads)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        done = run(runner, bundle, "run", given, made, "--threads", threads)
        assert done.returncode == 0, done.stderr
        assert made.read_bytes() == b"".join(np.ascontiguousarray(array).tobytes() for array in wanted)


def numpy_type(text: str) -> str:
    """numpy's name of "tensor(float)"."""
    return {"float": "float32", "double": "float64"}.get(text[7:-1], text[7:-1])


TARGETS = {"aarch64": "cpu:aarch64", "armv7": "cpu:armv7", "riscv64": "cpu:riscv64"}


@pytest.mark.parametrize("machine", MACHINES[1:], ids=lambda m: m.architecture)
def test_under_emulation(
    machine: Machine,
    shared_models: Path,
    model_feeds: Callable[[str], dict[str, np.ndarray]],
    tmp_path: Path,
):
    needed(*machine.runner[:1])
    sources = [EXAMPLES / "run_bundle.c", SOURCE]
    program = compiled(tmp_path / "run_bundle", machine.compiler, sources, "-O2", "-static")
    for name in ("silero_vad_op18_ifless", "dtln_model_1"):
        feeds = {**model_feeds(name), **VALUES.get(name, {})}
        bundle = built(name, shared_models, feeds, TARGETS[machine.architecture], tmp_path)
        for threads in ("1", "2"):
            done = run(*machine.runner, program, bundle, "verify", "--threads", threads)
            assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_in_cpp(folder: Path):
    needed("gcc", "g++")
    bundle, compiled_runtime = folder / "affine.tinf", folder / "tinyinfer.o"
    build_bundle(affine(), find_targets(["CPU"]), bundle)
    subprocess.run(["gcc", "-std=c11", "-O2", "-c", str(SOURCE), "-o", str(compiled_runtime)], check=True)
    flags = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    sources = [EXAMPLES / "two_contexts.cpp", compiled_runtime]
    program = compiled(folder / "two_contexts", "g++", sources, *flags)
    done = run(program, bundle)
    assert done.returncode == 0, done.stderr
    wanted = InferenceSession(bundle).run(None, {"x": np.ones((1, 3), np.float32)})
    printed = [[float(word) for word in line.split()[1:]] for line in done.stdout.splitlines()]
    np.testing.assert_allclose(printed, [array.reshape(-1)[:5] for array in wanted], rtol=1e-5)
    missing = run(program, folder / "none.tinf")
    assert missing.returncode == 2 and missing.stderr.endswith("none.tinf: No such file or directory\n")
