"""The float32 models that the project promises to run, and how far a device's outputs may be off.

An output may differ by 1e-4 of its range. There are two exceptions, both measured on onnxruntime against
itself with and without its graph optimisation: u2netp_320 (random weights, saturating sigmoids) differs from
itself by up to 1e-3, and the object scores of yunet_n_640 span 1e-5 on a random picture, where onnxruntime's
sigmoid is off by 1.3e-7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

NAMES = """
mnist_cntk mnist_external mobilenetv2_fp32_real_b yolox_nano nanodet_m_320 fastestdet ultraface_rfb_320
mp_face_landmark mp_face_det_short mp_palm_detection_lite yunet_n_640 person_reid_0288 road_seg_adas_0001
super_resolution_espcn_op11 go1_policy ppocr_v2_cls magika_standard_v3_3 oww_embedding oww_melspectrogram
kws_dscnn_l tv_resnet50 tv_mobilenet_v2 tv_mobilenet_v3_small tv_efficientnet_b0 tv_squeezenet1_1
tv_shufflenet_v2_x1_0
timm_vit_tiny timm_convnext_atto timm_mobilevit_xs u2netp_320 whisper_tiny_encoder driving_like_gru
""".split()

OF_RANGE = {"u2netp_320": 2e-3}
ABSOLUTE = {"yunet_n_640": 2.4e-7}


def model_path(
    name: str, index: dict[str, dict[str, Any]], folder: Path, filled: Callable[[str], Path]
) -> Path:
    """The file of a model: of the collection, or a skeleton that is filled."""
    entry = index[name]
    return filled(name) if entry["file"].startswith("skeletons") else folder / entry["file"]


def worst_errors(got: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> list[tuple[float, float]]:
    """Of each output the largest difference, and the range of what is wanted (of one number, its size)."""
    found = []
    for a, b in zip(got, wanted, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        wide = b.astype(np.float64)
        extent = np.ptp(wide) if wide.size > 1 else np.abs(wide).max(initial=0)
        difference = np.abs(a.astype(np.float64) - wide)
        assert not np.isnan(difference).any()
        found.append((float(difference.max(initial=0)), float(extent)))
    return found


def check_outputs(name: str, got: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> None:
    """Every output is within the model's limit."""
    for error, extent in worst_errors(got, wanted):
        limit = max(OF_RANGE.get(name, 1e-4) * extent, ABSOLUTE.get(name, 0))
        assert error <= limit, f"{name}: off by {error}, {error / max(extent, 1e-30)} of the range"
