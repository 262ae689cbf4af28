"""Real models as C: compiled without a warning, and compared with the session's results."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from c_programs import STRICT, Program, command, tool, write

import tinyinfer
from tinyinfer.backends.clike.printer import GENERAL, MICROCONTROLLER
from tinyinfer.config import CompileOptions
from tinyinfer.emit.c_source import COptions, emit_c, plan_for_c
from tinyinfer.frontend.onnx import import_graph, load_model
from tinyinfer.kernels.schedule import MachineModel
from tinyinfer.runtime.plan import Plan

Feeds = Callable[[str], dict[str, np.ndarray]]

MODELS = {
    "dtln_model_1": 1e-5,
    "mobilenetv2_qop_u8s8": 0.0,
    "tiny_gpt2_past_fp32": 1e-5,
    "lstm_gru_lm_dyn": 1e-5,
    "squeezenet_fp16": 5e-3,
}
"""Differences allowed, relative to the range of each output."""


def plan_of_model(path: Path, feeds: dict[str, np.ndarray], machine: MachineModel = GENERAL) -> Plan:
    graph = import_graph(load_model(str(path)), {n: x.shape for n, x in feeds.items()})
    return plan_for_c(graph, CompileOptions(), machine)


def check(
    plan: Plan, path: Path, feeds: dict[str, np.ndarray], tolerance: float, folder: Path, compiler: str
) -> None:
    """Compile a plan with binary weights and compare every output with the session's."""
    files, library = write(emit_c(plan, "model", COptions("binary")), folder), folder / "model.so"
    flags = [*STRICT, "-O2", "-shared", "-fPIC", f"-Wa,-I{folder}", f"-I{folder}"]
    command([tool(compiler), *flags, "-o", library, *files, "-lm"])
    program = Program(ctypes.CDLL(str(library)), "model", plan.inputs, plan.outputs)
    wanted = tinyinfer.InferenceSession(str(path)).run(None, feeds)
    for _ in range(2):  # the second run finds what the first one left
        for spec, got, value in zip(plan.outputs, program.run(feeds), wanted, strict=True):
            reach = float(np.abs(value.astype(np.float64)).max(initial=0.0))
            error = float(np.abs(got.astype(np.float64) - value.astype(np.float64)).max(initial=0.0))
            assert error <= tolerance * reach, f"{spec.name}: off by {error} of {reach}"


@pytest.mark.parametrize("name", MODELS)
def test_models_as_c(name, shared_models, model_index, filled_model, model_feeds: Feeds, tmp_path):
    file, feeds = shared_models / model_index[name]["file"], model_feeds(name)
    path = filled_model(name) if file.parent.name == "skeletons" else file
    check(plan_of_model(path, feeds), path, feeds, MODELS[name], tmp_path, "gcc")


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("machine", [GENERAL, MICROCONTROLLER], ids=["general", "microcontroller"])
def test_keyword_spotting_as_c(compiler, machine, filled_model, model_feeds: Feeds, tmp_path):
    path, feeds = filled_model("kws_dscnn_l"), model_feeds("kws_dscnn_l")
    check(plan_of_model(path, feeds, machine), path, feeds, 1e-5, tmp_path, compiler)
