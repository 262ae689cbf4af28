"""The float32 models that the project promises to run: sessions on the compiled CPU against onnxruntime.

An output may differ by 1e-4 of its range. There are two exceptions, both measured on onnxruntime against
itself with and without its graph optimisation: u2netp_320 (random weights, saturating sigmoids) differs from
itself by up to 1e-3, and the object scores of yunet_n_640 span 1e-5 on a random picture, where onnxruntime's
sigmoid is off by 1.3e-7.
"""

from __future__ import annotations

import numpy as np
import pytest

import tinyinfer

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


@pytest.mark.parametrize("name", NAMES)
def test_float_model(name, shared_models, model_index, filled_model, model_feeds):
    onnxruntime = pytest.importorskip("onnxruntime")
    entry = model_index[name]
    path = filled_model(name) if entry["file"].startswith("skeletons") else shared_models / entry["file"]
    feeds = model_feeds(name)
    ours = tinyinfer.InferenceSession(path, providers=["CPU"]).run(None, feeds)
    theirs = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)
    assert len(ours) == len(theirs)
    for got, wanted in zip(ours, theirs):
        assert got.shape == wanted.shape and got.dtype == wanted.dtype
        wide = wanted.astype(np.float64)
        extent = np.ptp(wide) if wide.size > 1 else np.abs(wide).max()
        limit = max(OF_RANGE.get(name, 1e-4) * extent, ABSOLUTE.get(name, 0))
        np.testing.assert_allclose(got.astype(np.float64), wide, 0, limit)
