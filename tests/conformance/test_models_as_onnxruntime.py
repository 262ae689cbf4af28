"""Every model of the collection that both engines run: a session on the compiled CPU against onnxruntime.

`-m sweep` runs all of them, also with one thread, without graph optimisation, and with other sizes of the
open dimensions on the same session; CI runs a few small ones.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

import tinyinfer
from tinyinfer import GraphOptimizationLevel, SessionOptions

INDEX = Path(__file__).resolve().parents[3] / "shared" / "models" / "index.json"
NAMES = [e["name"] for e in json.loads(INDEX.read_text()) if e["ort_ok"]] if INDEX.is_file() else []

QUICK = frozenset(("mnist_cntk", "go1_policy", "silero_vad_v5", "super_resolution_espcn_op11", "if_branch"))

RELATIVE = 2e-4
"""Largest error relative to the largest magnitude of an output: float32 networks of some hundred layers."""

HALF = 5e-3
"""The same for models with float16 weights, whose every layer rounds to 11 bits."""

SENSITIVE = {
    "u2netp_320": 2e-3,
    "basic_pitch": 1e-3,
    "minilm_l6_v2_int8_dyn": 0.1,
    "mobilenetv2_int8_real_b": 0.05,
    "yolox_nano_qdq_u8s8": 0.2,
}
"""The same for networks that multiply rounding errors: onnxruntime unoptimised differs so from itself.

Where activations are quantised, one value on the other side of a tie moves later ones by steps
(docs/numerics.md).
"""

ABSOLUTE = 2e-6
"""Errors below this count as none: onnxruntime's own sigmoid is no closer to the truth there."""


def session_options(variant):
    options = SessionOptions()
    if variant == "one thread":
        options.intra_op_num_threads = 1
    if variant == "not optimised":
        options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def tolerance(name):
    return HALF if "fp16" in name else SENSITIVE.get(name, RELATIVE)


def assert_close(ours, theirs, relative):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        if isinstance(b, list):
            assert_close(a, b, relative)
            continue
        if isinstance(b, dict):
            assert list(a) == list(b)
            np.testing.assert_allclose(list(a.values()), list(b.values()), 0, relative)
            continue
        assert a.shape == b.shape and a.dtype == b.dtype
        if b.dtype.kind != "f":
            np.testing.assert_array_equal(a, b)
        elif b.size:
            wanted = b.astype(np.float64)
            largest = np.abs(wanted[np.isfinite(wanted)]).max(initial=0)
            limit = max(ABSOLUTE, relative * largest)
            np.testing.assert_allclose(a.astype(np.float64), wanted, 0, limit)


def other_sizes(entry):
    """Shapes with every open dimension larger, equal symbols alike; None where no dimension is open."""
    sizes: dict = {}
    shapes = {}
    for value in entry["inputs"]:
        if value["name"] not in entry["test_feeds"]:
            continue
        shape = list(entry["test_feeds"][value["name"]][1])
        for axis, dimension in enumerate(value["shape"]):
            if isinstance(dimension, int) and dimension >= 0:
                continue
            key = dimension if dimension not in ("", "?", None) else (value["name"], axis)
            more = shape[axis] + (2 if axis == 0 else min(shape[axis], 32))
            shape[axis] = sizes.setdefault(key, more)
        shapes[value["name"]] = shape
    return shapes if sizes else None


def other_feeds(entry, feeds, shapes):
    """Feeds of other shapes from the range of the usual ones."""
    generator = np.random.default_rng(zlib.crc32(entry["name"].encode()) + 1)
    return {name: generator.choice(x.reshape(-1), shapes[name]) for name, x in feeds.items()}


def check(name, variant, shared_models, model_index, filled_model, model_feeds):
    onnxruntime = pytest.importorskip("onnxruntime")
    entry = model_index[name]
    path = filled_model(name) if entry["file"].startswith("skeletons") else shared_models / entry["file"]
    session = tinyinfer.InferenceSession(path, session_options(variant), providers=["CPU"])
    feeds = model_feeds(name)
    ours = session.run(None, feeds)
    theirs = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert_close(ours, theirs.run(None, feeds), tolerance(name))
    shapes = other_sizes(entry)
    if variant != "other sizes":
        return
    if shapes is None:
        pytest.skip("no open dimension")
    changed = other_feeds(entry, feeds, shapes)
    try:
        expected = theirs.run(None, changed)
    except Exception as error:  # the dimensions of some models are open in name only
        pytest.skip(f"onnxruntime refuses {shapes}: {type(error).__name__}")
    assert_close(session.run(None, changed), expected, tolerance(name))
    for a, b in zip(session.run(None, feeds), ours):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", sorted(QUICK))
def test_small_model(name, shared_models, model_index, filled_model, model_feeds):
    variant = "other sizes" if name == "if_branch" else "one thread"
    check(name, variant, shared_models, model_index, filled_model, model_feeds)


@pytest.mark.sweep
@pytest.mark.parametrize("variant", ["one thread", "not optimised", "other sizes"])
@pytest.mark.parametrize("name", NAMES)
def test_model(name, variant, shared_models, model_index, filled_model, model_feeds):
    check(name, variant, shared_models, model_index, filled_model, model_feeds)


@pytest.mark.parametrize("batch,new,past", [(1, 1, 3), (2, 4, 0), (1, 1, 4), (2, 3, 5)])
def test_decoder_with_a_cache(batch, new, past, shared_models, model_index):
    """Prompts, continued prompts and single tokens after caches of several lengths, partly masked."""
    onnxruntime = pytest.importorskip("onnxruntime")
    entry = model_index["tiny_gpt2_past_fp32"]
    path = shared_models / entry["file"]
    sizes = {"batch_size": batch, "seq_len": new, "past_seq_len": past, "total_seq_len": new + past}
    generator = np.random.default_rng(past)
    feeds = {}
    for value in entry["inputs"]:
        shape = [sizes.get(d, d) for d in value["shape"]]
        if value["dtype"] == "float":
            feeds[value["name"]] = generator.standard_normal(shape).astype(np.float32)
        elif value["name"] == "attention_mask":
            feeds["attention_mask"] = (generator.random(shape) < 0.8).astype(np.int32)
        else:
            feeds[value["name"]] = generator.integers(0, 12, shape).astype(np.int32)
    expected = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)
    session = tinyinfer.InferenceSession(path, providers=["CPU"])
    assert_close(session.run(None, feeds), expected, RELATIVE)
