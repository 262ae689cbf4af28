"""Every kernel of real models against the oracle: each stored value, where it lies, in the layout it was
given."""

from __future__ import annotations

import numpy as np
import pytest

from tinyinfer.backends.cpu.device import LlvmPrinter, compile_plan
from tinyinfer.backends.cpu.target import host_target
from tinyinfer.config import CompileOptions
from tinyinfer.frontend.onnx import import_graph, load_model
from tinyinfer.ir.oracle import evaluate
from tinyinfer.ir.passes import optimize
from tinyinfer.kernels.plan import build_plan

SKELETONS = ("kws_dscnn_l", "tv_mobilenet_v3_small", "tv_shufflenet_v2_x1_0", "timm_convnext_atto")
FILES = (
    "mnist_cntk", "mnist_external", "go1_policy", "mp_face_landmark", "mp_face_det_short", "ppocr_v2_cls",
    "oww_embedding", "oww_melspectrogram", "magika_standard_v3_3", "person_reid_0288", "fastestdet",
    "ultraface_rfb_320",
)
LARGE_SKELETONS = (
    "tv_resnet50", "tv_mobilenet_v2", "tv_efficientnet_b0", "tv_squeezenet1_1", "timm_vit_tiny",
    "timm_mobilevit_xs", "u2netp_320", "whisper_tiny_encoder", "driving_like_gru",
)
LARGE_FILES = (
    "mobilenetv2_fp32_real_b", "yolox_nano", "nanodet_m_320", "mp_palm_detection_lite", "yunet_n_640",
    "road_seg_adas_0001", "super_resolution_espcn_op11",
)
# A value may differ by this much of its own largest magnitude: some hundred roundings of float32 in a row.
# Networks with random weights and large activations amplify the roundings of earlier layers beyond it.
TOLERANCE = {"u2netp_320": 5e-3, "tv_efficientnet_b0": 5e-3, "oww_melspectrogram": 1e-3, "yolox_nano": 1e-3}


def check_model(path, feeds: dict[str, np.ndarray], tolerance: float) -> None:
    model = load_model(path)
    graph = optimize(import_graph(model, {name: value.shape for name, value in feeds.items()}))
    options = CompileOptions(keep_values=True)
    executable = compile_plan(build_plan(graph, LlvmPrinter(host_target()), options), host_target(), 2)
    try:
        outputs = executable.run([np.ascontiguousarray(feeds[spec.name]) for spec in executable.inputs])
        stored = executable.kept_values()
        assert stored or len(graph.nodes()) < 40
        names = [*(f"value of {sorted(node.origin)[:2]}" for node, _ in stored), *graph.outputs]
        wanted = evaluate([*(node for node, _ in stored), *graph.outputs.values()], feeds)
        arrays = [*(array for _, array in stored), *outputs]
        for name, got, expected in zip(names, arrays, wanted, strict=True):
            assert got.shape == expected.shape, name
            scale = float(np.abs(expected).max()) if expected.size else 0.0
            error = float(np.abs(got.astype(np.float64) - expected).max()) if expected.size else 0.0
            assert error <= tolerance * max(scale, 1e-30) + 1e-35, f"{name}: {error} of {scale}"
    finally:
        executable.close()


@pytest.mark.parametrize("name", FILES)
def test_kernels_of_files(name, shared_models, model_feeds):
    check_model(shared_models / f"{name}.onnx", model_feeds(name), TOLERANCE.get(name, 1e-4))


@pytest.mark.parametrize("name", SKELETONS)
def test_kernels_of_skeletons(name, filled_model, model_feeds):
    check_model(filled_model(name), model_feeds(name), TOLERANCE.get(name, 1e-4))


@pytest.mark.sweep
@pytest.mark.parametrize("name", LARGE_FILES)
def test_kernels_of_large_files(name, shared_models, model_feeds):
    check_model(shared_models / f"{name}.onnx", model_feeds(name), TOLERANCE.get(name, 1e-4))


@pytest.mark.sweep
@pytest.mark.parametrize("name", LARGE_SKELETONS)
def test_kernels_of_large_skeletons(name, filled_model, model_feeds):
    check_model(filled_model(name), model_feeds(name), TOLERANCE.get(name, 1e-4))
