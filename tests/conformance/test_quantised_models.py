"""Models of narrow numbers: as close to onnxruntime as docs/numerics.md promises, and seeing what is there.

Where the sums are integers, ours are exact on every CPU. onnxruntime's own u8·s8 sums saturate at 16 bits on
x86 CPUs without VNNI, so that bits can be compared only where it has such instructions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tinyinfer

ort = pytest.importorskip("onnxruntime")

INTEGER = ("qtdnn", "qlstm", "mobilenetv2_qop_u8s8")
"""Every step but float arithmetic in one fixed order is an integer: the same bits, whatever is optimised."""

# model -> largest error relative to the range of the output, measured: see docs/numerics.md
DYNAMIC = {"mobilenetv2_int8_real": 1e-6, "minilm_l6_v2_int8_dyn": 2e-6}
QDQ = {"mobilenetv2_int8_real_b": 0.05, "yolox_nano_qdq_u8s8": 1e-6}
HALF = {"mobilenetv2_fp16": 5e-3, "squeezenet_fp16": 5e-3}

CPUINFO = Path("/proc/cpuinfo")
HAS_VNNI = not CPUINFO.is_file() or any(word in CPUINFO.read_text() for word in ("vnni", "asimddp"))
exact_in_onnxruntime = pytest.mark.skipif(not HAS_VNNI, reason="onnxruntime saturates 16-bit sums here")


def outputs_of(path, feeds, optimised=True):
    """What onnxruntime gives, with all of its graph optimisation or with none."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, ["CPUExecutionProvider"]).run(None, feeds)


def ours(path, feeds):
    return tinyinfer.InferenceSession(path, providers=["CPU"]).run(None, feeds)


def assert_within(got, wanted, limit):
    for a, b in zip(got, wanted, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        wide = b.astype(np.float64)
        extent = float(np.ptp(wide)) or float(np.abs(wide).max())
        np.testing.assert_allclose(a.astype(np.float64), wide, 0, limit * extent)


@exact_in_onnxruntime
@pytest.mark.parametrize("optimised", [True, False])
@pytest.mark.parametrize("name", INTEGER)
def test_integer_models_have_onnxruntimes_bits(name, optimised, shared_models, model_index, model_feeds):
    path, feeds = shared_models / model_index[name]["file"], model_feeds(name)
    for a, b in zip(ours(path, feeds), outputs_of(path, feeds, optimised), strict=True):
        np.testing.assert_array_equal(a, b)


@exact_in_onnxruntime
@pytest.mark.parametrize("name", [*DYNAMIC, *QDQ])
def test_models_that_quantise_as_they_go(name, shared_models, model_index, model_feeds):
    path, feeds = shared_models / model_index[name]["file"], model_feeds(name)
    assert_within(ours(path, feeds), outputs_of(path, feeds), {**DYNAMIC, **QDQ}[name])


@pytest.mark.parametrize("name", HALF)
def test_half_precision_models(name, shared_models, model_index, model_feeds):
    path, feeds = shared_models / model_index[name]["file"], model_feeds(name)
    assert_within(ours(path, feeds), outputs_of(path, feeds), HALF[name])


# ---- meaning


def photograph(path, caffe):
    """A picture as networks of ImageNet take it: [1, 3, 224, 224], normalised, or in BGR minus a mean."""
    image = pytest.importorskip("PIL.Image")
    picture = image.open(path).convert("RGB")
    factor = 256 / min(picture.size)
    picture = picture.resize([round(d * factor) for d in picture.size], image.Resampling.BILINEAR)
    left, top = ((d - 224) // 2 for d in picture.size)
    pixels = np.asarray(picture.crop((left, top, left + 224, top + 224))).astype(np.float32)
    if caffe:
        pixels = pixels[..., ::-1] - np.array([104, 117, 123], np.float32)
    else:
        pixels = (pixels / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    return pixels.transpose(2, 0, 1)[None]


SEEN = [
    (name, file, word)
    for name in ("mobilenetv2_int8_real", "mobilenetv2_qop_u8s8", *HALF)
    for file, word in (("goldfish.jpg", "goldfish"), ("pelican.jpeg", "pelican"))
] + [("mobilenetv2_int8_real_b", "pelican.jpeg", "pelican")]
"""mobilenetv2_int8_real_b sees a tench in the goldfish, by onnxruntime as well."""


@pytest.mark.parametrize("name, file, word", SEEN)
def test_photographs_are_recognised(name, file, word, shared_models):
    samples = shared_models.parent / "samples"
    labels = (samples / "imagenet_labels.txt").read_text().splitlines()
    session = tinyinfer.InferenceSession(shared_models / f"{name}.onnx", providers=["CPU"])
    value = session.get_inputs()[0]
    dtype = np.float16 if "float16" in value.type else np.float32
    x = photograph(samples / file, caffe=name.startswith("squeezenet")).astype(dtype)
    scores = session.run(None, {value.name: x})[0].reshape(-1)
    assert word in labels[int(scores.argmax())]
