"""Real models on an OpenCL device: every stored value against the oracle, sessions against REFERENCE."""

from __future__ import annotations

import numpy as np
import pytest
from opencl_runs import executable

from tinyinfer import InferenceSession
from tinyinfer.backends.cpu.device import CpuDevice
from tinyinfer.config import CompileOptions
from tinyinfer.frontend.onnx import import_graph, load_model
from tinyinfer.ir.oracle import evaluate
from tinyinfer.ir.passes import optimize
from tinyinfer.ir.passes.storage_types import use_storage_types

FILES = (
    "ultraface_rfb_320", "mobilenetv2_fp32_real_b", "yolox_nano", "minilm_l6_v2_int8_dyn", "squeezenet_fp16",
    "mobilenetv2_int8_real_b", "road_seg_adas_0001", "mp_face_landmark", "super_resolution_espcn_op11",
)  # fmt: skip
SKELETONS = (
    "driving_like_gru", "timm_vit_tiny", "kws_dscnn_l", "tv_resnet50", "tv_shufflenet_v2_x1_0",
    "whisper_tiny_encoder",
)  # fmt: skip
SESSIONS = ("silero_vad_op18_ifless", "loop_greedy_gru", "byte_sb_bidi_lstm", "tiny_gpt2_past_fp32")
TOLERANCE = {"squeezenet_fp16": 2e-2}
"""Of a value's own largest magnitude; for others 3e-4: some hundred roundings of float32 in a row."""

MORE_LAUNCHES = 1.2


def check_model(path, feeds: dict[str, np.ndarray], device) -> None:
    tolerance = TOLERANCE.get(path.stem, 3e-4)
    graph = import_graph(load_model(path), {name: value.shape for name, value in feeds.items()})
    graph = optimize(use_storage_types(graph))
    made = executable(graph, device, keep_values=True)
    try:
        outputs = made.run([np.ascontiguousarray(feeds[spec.name]) for spec in made.inputs])
        stored = made.kept_values()
        names = [*(f"value of {sorted(node.origin)[:2]}" for node, _ in stored), *graph.outputs]
        wanted = evaluate([*(node for node, _ in stored), *graph.outputs.values()], feeds)
        arrays = [*(array for _, array in stored), *outputs]
        for name, got, expected in zip(names, arrays, wanted, strict=True):
            assert got.shape == expected.shape, name
            scale = float(np.abs(expected.astype(np.float64)).max()) if expected.size else 0.0
            error = float(np.abs(got.astype(np.float64) - expected).max()) if expected.size else 0.0
            assert error <= tolerance * max(scale, 1e-30) + 1e-35, f"{name}: {error} of {scale}"
        on_the_cpu = len(CpuDevice().plan(graph, CompileOptions()).launches)
        assert len(made.launches) <= MORE_LAUNCHES * on_the_cpu
    finally:
        made.close()


@pytest.mark.parametrize("name", ["mnist_cntk", "dtln_model_1"])
def test_small_models_on_opencl(name, shared_models, model_feeds, opencl):
    check_model(shared_models / f"{name}.onnx", model_feeds(name), opencl)


@pytest.mark.sweep
@pytest.mark.parametrize("name", FILES)
def test_models_on_opencl(name, shared_models, model_feeds, opencl):
    check_model(shared_models / f"{name}.onnx", model_feeds(name), opencl)


@pytest.mark.sweep
@pytest.mark.parametrize("name", SKELETONS)
def test_skeletons_on_opencl(name, filled_model, model_feeds, opencl):
    check_model(filled_model(name), model_feeds(name), opencl)


def check_session(path, feeds: dict[str, np.ndarray]) -> None:
    session, wanted = (
        InferenceSession(str(path), providers=[device]).run(None, feeds) for device in ("OPENCL", "REFERENCE")
    )
    for got, expected in zip(session, wanted, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_a_model_that_is_cut_on_opencl(shared_models, model_feeds, opencl):
    check_session(shared_models / "if_branch.onnx", model_feeds("if_branch"))


@pytest.mark.sweep
@pytest.mark.parametrize("name", SESSIONS)
def test_models_that_are_cut_on_opencl(name, shared_models, model_feeds, opencl):
    check_session(shared_models / f"{name}.onnx", model_feeds(name))
