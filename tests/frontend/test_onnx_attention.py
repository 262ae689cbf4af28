"""ONNX's attention family against the reference evaluator: random shapes and attributes, and fed lengths."""

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx_models import feeds_of, one_op, run

import tinyinfer
from tinyinfer.frontend.onnx import import_graph, load_model

RNG = np.random.default_rng(23)


def normal(*shape, dtype="float32"):
    return RNG.standard_normal(shape).astype(dtype)


def compare(op, inputs, outputs=1, opset=25, tolerance=2e-5, constants=(), **attributes):
    """The oracle's outputs equal the reference evaluator's."""
    model = one_op(op, inputs, outputs, opset, constants, **attributes)
    feeds = feeds_of(model, inputs)
    with np.errstate(all="ignore"):
        expected = ReferenceEvaluator(model).run(None, feeds)
        got = run(model, feeds)
    assert_close(got, expected, tolerance)


def assert_close(got, expected, tolerance=2e-5):
    for a, b in zip(expected, got, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        scale = float(np.abs(np.where(np.isfinite(a), a, 0)).max(initial=1e-3))
        np.testing.assert_allclose(b.astype(np.float64), a.astype(np.float64), tolerance, tolerance * scale)


# ---- Attention

MASKS = [None, "bool", "float", "short bool", "short float", "heads", "batch", "row"]


def attention_mask(kind, batch, heads, queries, keys, dtype):
    if kind is None:
        return None
    shape = {
        "heads": (heads, queries, keys),
        "batch": (batch, 1, queries, keys),
        "row": (keys,),
        "short bool": (queries, keys - 1),
        "short float": (batch, 1, queries, keys - 1),
    }.get(kind, (queries, keys))
    if "bool" in kind or kind == "row":
        return RNG.random(shape) < 0.6
    mask = normal(*shape, dtype=dtype)
    mask[RNG.random(shape) < 0.3] = -np.inf
    return mask


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("cache", ["none", "past", "lengths"])
@pytest.mark.parametrize("case", range(3))
def test_attention(mask, cache, case):
    batch, heads, groups = int(RNG.integers(1, 4)), int(RNG.integers(1, 3)), int(RNG.integers(1, 4))
    queries, keys, size, value_size, past = (int(n) for n in RNG.integers(1, 6, 5))
    keys += 1
    dtype = ("float32", "float64", "float16")[case]
    q = normal(batch, heads * groups, queries, size, dtype=dtype)
    k, v = normal(batch, heads, keys, size, dtype=dtype), normal(batch, heads, keys, value_size, dtype=dtype)
    total = keys + (past if cache == "past" else 0)
    inputs = [q, k, v, attention_mask(mask, batch, heads * groups, queries, total, dtype), None, None, None]
    if cache == "past":
        inputs[4] = normal(batch, heads, past, size, dtype=dtype)
        inputs[5] = normal(batch, heads, past, value_size, dtype=dtype)
    if cache == "lengths":
        inputs[6] = RNG.integers(1, keys + 1, batch)
    attributes = {
        "is_causal": int(RNG.integers(0, 2)),
        "softcap": float(RNG.choice([0, 2.5])),
        "left_window_size": int(RNG.integers(-1, 3)),
        "right_window_size": int(RNG.integers(-1, 3)),
        "qk_matmul_output_mode": int(RNG.choice([0, 2, 3])),
    }
    if attributes["qk_matmul_output_mode"] == 0:
        attributes["softcap"] = (
            0.0  # the reference evaluator shows the capped scores, against the specification
        )
    if case == 2:
        attributes["softmax_precision"] = 1
    if RNG.random() < 0.5:
        attributes["scale"] = 0.3
    while inputs[-1] is None:
        inputs.pop()
    compare("Attention", inputs, 4, tolerance=4e-3 if dtype == "float16" else 2e-5, **attributes)


def test_flat_attention_splits_heads():
    q, k, v = normal(2, 3, 24), normal(2, 5, 12), normal(2, 5, 9)
    for opset in (23, 24, 25):
        compare("Attention", [q, k, v], 3, opset, q_num_heads=6, kv_num_heads=3, is_causal=1)


def test_hidden_keys_may_hold_anything():
    """A row without a visible key is zero, and what is not visible cannot spoil the others."""
    q, k, v = normal(1, 1, 3, 4), normal(1, 1, 4, 4), normal(1, 1, 4, 4)
    visible = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0]], bool)
    clean = run(one_op("Attention", [q, k, v, visible], 1, 24), {"x0": q, "x1": k, "x2": v, "x3": visible})[0]
    k[0, 0, 3] = np.inf
    with np.errstate(all="ignore"):
        spoilt = run(
            one_op("Attention", [q, k, v, visible], 1, 24), {"x0": q, "x1": k, "x2": v, "x3": visible}
        )
    np.testing.assert_array_equal(clean, spoilt[0])
    assert not clean[0, 0, 1].any()


def test_a_fed_length_is_no_reason_to_compile_again():
    """Decoding with a cache of fixed size: TensorScatter and Attention, one plan for every length."""
    heads, longest, size = 2, 8, 4
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("TensorScatter", ["cache", "k", "at"], ["present"]),
            helper.make_node(
                "Attention", ["q", "present", "present", "", "", "", "length"], ["y"], is_causal=1
            ),
        ],
        "step",
        [
            value("cache", 1, [2, heads, longest, size]),
            value("k", 1, [2, heads, 1, size]),
            value("q", 1, [2, heads, 1, size]),
            value("at", 7, [2]),
            value("length", 7, [2]),
        ],
        [value("y", 1, None), value("present", 1, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11)
    session = tinyinfer.InferenceSession(model, providers=["CPU"])
    reference = ReferenceEvaluator(model)
    cache = np.zeros((2, heads, longest, size), np.float32)
    for step in range(4):
        at = np.array([step, step + 2])
        q, k = normal(2, heads, 1, size), normal(2, heads, 1, size)
        feeds = {"cache": cache, "k": k, "q": q, "at": at, "length": at + 1}
        got = session.run(None, feeds)
        assert_close(got, reference.run(None, feeds))
        cache = got[1]
    # raises NeedsValue if a value decided anything
    import_graph(load_model(model), {name: x.shape for name, x in feeds.items()})


@pytest.mark.parametrize(
    "shapes,attributes,message",
    [
        (((1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 3, 4)), {}, "do not fit together"),
        (((1, 3, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4)), {}, "no multiple"),
        (((1, 3, 8), (1, 3, 8), (1, 3, 8)), {}, "q_num_heads"),
        (((1, 3, 8), (1, 3, 8), (1, 3, 8)), {"q_num_heads": 3, "kv_num_heads": 3}, "no multiple of 3 heads"),
        (((1, 2, 3, 4),) * 3, {"qk_matmul_output_mode": 7}, "qk_matmul_output_mode"),
        (((1, 2, 3, 4),) * 3, {"softmax_precision": 7}, "softmax_precision"),
    ],
)
def test_attention_refuses_in_words(shapes, attributes, message):
    inputs = [normal(*s) for s in shapes]
    with pytest.raises(Exception, match=message):
        run(one_op("Attention", inputs, 1, 25, **attributes), {f"x{i}": x for i, x in enumerate(inputs)})


# ---- RotaryEmbedding


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("turned", [0, 4])
@pytest.mark.parametrize("flat", [False, True])
def test_rotary_embedding(interleaved, turned, flat):
    half = (turned or 8) // 2
    x = normal(2, 3, 24) if flat else normal(2, 3, 5, 8)
    sequence = 3 if flat else 5
    attributes = {"interleaved": interleaved, "rotary_embedding_dim": turned}
    if flat:
        attributes["num_heads"] = 3
    tables = [normal(10, half), normal(10, half)]
    places = RNG.integers(0, 10, (2, sequence))
    compare("RotaryEmbedding", [x, *tables, places], opset=23, **attributes)
    tables = [normal(2, sequence, half), normal(2, sequence, half)]
    compare("RotaryEmbedding", [x, *tables], opset=23, **attributes)


# ---- TensorScatter


@pytest.mark.parametrize("mode", ["linear", "circular"])
@pytest.mark.parametrize("axis", [-2, 1, -1])
def test_tensor_scatter(mode, axis):
    shape = [3, 4, 5, 6]
    length = 3
    update = list(shape)
    update[axis] = length
    last = shape[axis] - length if mode == "linear" else 20
    for dtype in ("float32", "int8", "bool"):
        cache, new = (RNG.integers(0, 2, s).astype(dtype) for s in (shape, update))
        starts = RNG.integers(0, last + 1, 3)
        compare("TensorScatter", [cache, new, starts], opset=24, axis=axis, mode=mode)
        compare("TensorScatter", [cache, new], opset=24, axis=axis, mode=mode)


# ---- linear attention


@pytest.mark.parametrize("rule", ["linear", "gated", "delta", "gated_delta"])
@pytest.mark.parametrize("past", [False, True])
def test_linear_attention(rule, past):
    batch, steps, heads, groups, size, value_size = 2, 4, 2, 3, 3, 5
    q = normal(batch, steps, heads * groups * size)
    k, v = normal(batch, steps, heads * size) * 0.5, normal(batch, steps, heads * value_size)
    wide = size if past else 1
    inputs = [
        q,
        k,
        v,
        normal(batch, heads, size, value_size) if past else None,
        -np.abs(normal(batch, steps, heads * wide)) if "gated" in rule else None,
        RNG.random((batch, steps, heads if past else 1)).astype(np.float32) if "delta" in rule else None,
    ]
    while inputs[-1] is None:
        inputs.pop()
    compare(
        "LinearAttention",
        inputs,
        2,
        27,
        q_num_heads=heads * groups,
        kv_num_heads=heads,
        update_rule=rule,
        scale=0.7 if past else 0.0,
    )


@pytest.mark.parametrize("activation", ["none", "silu"])
@pytest.mark.parametrize("width,length", [(1, 3), (4, 6), (4, 2)])
def test_causal_convolution(activation, width, length):
    x, w, b, past = normal(2, 3, length), normal(3, 1, width), normal(3), normal(2, 3, width - 1)
    for inputs in ([x, w], [x, w, b], [x, w, b, past], [x, w, None, past]):
        compare("CausalConvWithState", inputs, 2, 27, activation=activation)
