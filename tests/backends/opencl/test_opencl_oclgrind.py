"""Oclgrind interprets kernels and watches memory: no data race, no access out of bounds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from c_programs import tool

MODELS = ("mnist_cntk", "go1_policy", "qlstm", "dtln_model_1", "point_history_lstm", "ppocr_v2_cls")
HERE = Path(__file__).resolve().parent
# a few LLVM intrinsics that optimisation makes are unknown to the interpreter
ENVIRONMENT = {"PYOPENCL_BUILD_OPTIONS": "-cl-opt-disable", "PYOPENCL_NO_CACHE": "1"}


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
    assert complaints(tmp_path, "graphs", 0, 2) == ""


def test_loops_have_no_races(tmp_path, opencl):
    assert complaints(tmp_path, "loops") == ""


@pytest.mark.sweep
@pytest.mark.parametrize("first", range(10, 50, 5))
def test_many_random_graphs_have_no_races(first, tmp_path, opencl):
    assert complaints(tmp_path, "graphs", first, 5) == ""


@pytest.mark.sweep
@pytest.mark.parametrize("name", MODELS)
def test_models_have_no_races(name, tmp_path, shared_models, model_feeds, opencl):
    np.savez(tmp_path / "feeds.npz", **model_feeds(name))
    assert complaints(tmp_path, "model", shared_models / f"{name}.onnx", tmp_path / "feeds.npz") == ""
