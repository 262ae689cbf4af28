"""Oclgrind interprets kernels and watches memory: no data race, no access out of bounds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from c_programs import tool

MODELS: dict[str, dict[str, tuple[int, ...]]] = {
    "go1_policy": {},
    "ppocr_v2_cls": {},
    # recurrent, the second quantised
    "dtln_model_1": {},
    "qlstm": {},
    # a network of depthwise convolutions, and a quantised one
    "mobilenetv2_fp32_real_b": {"input": (1, 3, 64, 64)},
    "mobilenetv2_int8_real_b": {"image": (1, 3, 32, 32)},
    # a detector
    "yunet_n_dynamic": {"input": (1, 3, 64, 64)},
    # a transformer
    "tiny_gpt2_past_fp32": {},
}
"""Models of every kind, with the shapes of inputs that are smaller than usual: an interpreter is slow."""

HERE = Path(__file__).resolve().parent
# a few LLVM intrinsics that optimisation makes are unknown to the interpreter, and so is the write_imageh of
# the extension that it claims to have
OPTIONS = "-cl-opt-disable -Ucl_khr_fp16"
ENVIRONMENT = {"PYOPENCL_BUILD_OPTIONS": OPTIONS, "PYOPENCL_NO_CACHE": "1"}


def complaints(folder: Path, *arguments: object) -> str:
    """What Oclgrind finds wrong with a run of oclgrind_run.py."""
    log = folder / "oclgrind.log"
    command = [tool("oclgrind"), "--data-races", "--max-errors", "20", "--log", str(log)]
    command += [sys.executable, str(HERE / "oclgrind_run.py"), *map(str, arguments)]
    environment = {**os.environ, **ENVIRONMENT, "TINYINFER_CACHE": str(folder / "cache")}
    environment["PYTHONPATH"] = str(HERE.parents[2])
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout.endswith("ran\n"), done.stdout[-2000:] + done.stderr[-4000:]
    return log.read_text() if log.exists() else ""


def test_oclgrind_finds_races_and_wild_writes(tmp_path, opencl):
    found = complaints(tmp_path, "mistakes")
    assert "data race" in found and "Invalid write" in found


def test_random_graphs_have_no_races(tmp_path, opencl):
    assert complaints(tmp_path, "graphs", 0, 1) == ""


def test_loops_have_no_races(tmp_path, opencl):
    assert complaints(tmp_path, "loops") == ""


@pytest.mark.sweep
@pytest.mark.parametrize("first", range(10, 50, 5))
def test_many_random_graphs_have_no_races(first, tmp_path, opencl):
    assert complaints(tmp_path, "graphs", first, 5) == ""


def test_images_have_no_races(tmp_path, opencl):
    assert complaints(tmp_path, "images", "QCOM-float16", 0, 1) == ""


@pytest.mark.sweep
@pytest.mark.parametrize("device", ["QCOM-float32", "QCOM-float16"])
@pytest.mark.parametrize("first", range(10, 30, 4))
def test_many_images_have_no_races(first, device, tmp_path, opencl):
    assert complaints(tmp_path, "images", device, first, 4) == ""


def resized(path: Path, shapes: dict[str, tuple[int, ...]], folder: Path) -> Path:
    """A copy of the model whose inputs have these shapes."""
    model = onnx.load(path)
    for value in model.graph.input:
        for dimension, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ())):
            dimension.dim_value = size
    onnx.save(model, folder / path.name)
    return folder / path.name


@pytest.mark.sweep
@pytest.mark.parametrize("device", ["OPENCL", "QCOM-float16"])
@pytest.mark.parametrize("name", MODELS)
def test_models_have_no_races(name, device, tmp_path, shared_models, model_feeds, opencl):
    rng, shapes = np.random.default_rng(0), MODELS[name]
    feeds = model_feeds(name)
    feeds |= {feed: rng.integers(0, 2, shape).astype(feeds[feed].dtype) for feed, shape in shapes.items()}
    np.savez(tmp_path / "feeds.npz", **feeds)
    path = resized(shared_models / f"{name}.onnx", shapes, tmp_path)
    assert complaints(tmp_path, "model", device, path, tmp_path / "feeds.npz") == ""
