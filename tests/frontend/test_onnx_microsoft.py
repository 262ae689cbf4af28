"""Operators of com.microsoft against onnxruntime, which defines them; without a CPU kernel there, numpy."""

import math

import numpy as np
import pytest
from onnx import ValueInfoProto, helper, numpy_helper
from onnx_models import run, value_info

from tinyinfer.frontend.onnx import import_graph, load_model

ort = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(11)
HALF = 4e-3


def normal(*shape, dtype="float32"):
    return RNG.standard_normal(shape).astype(dtype)


def flags(*shape):
    return (RNG.random(shape) < 0.7).astype(np.int32)


def model_of(op, inputs, outputs, constants, domain, attributes):
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    while not names[-1]:
        names.pop()
    results = [f"y{i}" for i in range(outputs)] if isinstance(outputs, int) else outputs
    fed = [value_info(n, x) for i, (n, x) in enumerate(zip(names, inputs)) if n and i not in constants]
    # no type is inferred for the scores of an attention, which are of the type of the query
    declared = [
        ValueInfoProto(name=r)
        if i != 3
        else helper.make_tensor_value_info(r, fed[0].type.tensor_type.elem_type, None)
        for i, r in enumerate(results)
        if r
    ]
    graph = helper.make_graph(
        [helper.make_node(op, names, results, name="the_node", domain=domain, **attributes)],
        "test",
        fed,
        declared,
        [numpy_helper.from_array(inputs[i], names[i]) for i in constants],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def compare(
    op, inputs, outputs=1, tolerance=2e-5, constants=(), domain="com.microsoft", expected=None, **attributes
):
    """The oracle's outputs equal onnxruntime's, or `expected`."""
    inputs = [None if x is None else np.asarray(x) for x in inputs]
    model = model_of(op, inputs, outputs, constants, domain, attributes)
    feeds = {v.name: inputs[int(v.name[1:])] for v in model.graph.input}
    if expected is None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        expected = session.run(None, feeds)
    got = run(model, feeds)
    for a, b in zip(expected, got, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        scale = float(np.abs(a).max(initial=1e-3))
        np.testing.assert_allclose(b.astype(np.float64), a.astype(np.float64), tolerance, tolerance * scale)


# ---- attention

# a query all of whose keys are padding is left with the 10 bits of scores near -10000
PADDED = 2e-3


def key_mask(kind, batch, queries, keys):
    if kind == "lengths":
        return RNG.integers(1, keys + 1, batch).astype(np.int32)
    if kind == "ends and starts":
        return np.concatenate([RNG.integers(keys - 1, keys + 1, batch), RNG.integers(0, 2, batch)]).astype(
            np.int32
        )
    if kind == "offsets":
        ends = RNG.integers(1, keys + 1, batch)
        return np.concatenate([ends, np.arange(batch + 1) * queries, np.arange(batch + 1) * keys]).astype(
            np.int32
        )
    return {None: None, "keys": flags(batch, keys), "queries": flags(batch, queries, keys)}[kind]


@pytest.mark.parametrize("kind", [None, "lengths", "ends and starts", "offsets", "keys", "queries"])
@pytest.mark.parametrize("past", [0, 3])
@pytest.mark.parametrize("unidirectional", [0, 1])
def test_attention(kind, past, unidirectional):
    batch, queries, size, heads, width = 2, 4, 3, 2, 5
    hidden = heads * size
    inputs = [normal(batch, queries, width), normal(width, 3 * hidden), normal(3 * hidden)]
    inputs.append(key_mask(kind, batch, queries, past + queries))
    if past:
        inputs.append(normal(2, batch, heads, past, size))
    else:  # onnxruntime takes only one of the two
        inputs += [None, normal(1, heads, queries, queries)]
    attributes = {"num_heads": heads, "unidirectional": unidirectional}
    compare("Attention", inputs, 2, PADDED if kind else 2e-5, (1,), **attributes)
    compare(
        "Attention", inputs[:4], 1, PADDED if kind else 2e-5, (1,), scale=0.4, **attributes
    ) if not past else None


def test_attention_with_values_of_another_size():
    inputs = [normal(2, 3, 5), normal(5, 4 + 4 + 6), normal(14)]
    compare("Attention", inputs, 1, num_heads=2, qkv_hidden_sizes=[4, 4, 6])


@pytest.mark.parametrize("kind", [None, "lengths", "keys", "queries"])
@pytest.mark.parametrize("form", ["separate", "biased", "by heads", "past"])
@pytest.mark.parametrize("unidirectional", [0, 1])
def test_multi_head_attention(kind, form, unidirectional):
    batch, heads, size, queries, past = 2, 3, 4, 3, 2 if form == "past" else 0
    keys = queries if past else 5
    hidden, value_hidden = heads * size, heads * (4 if past else 2)
    query, key, value = (
        normal(batch, queries, hidden),
        normal(batch, keys, hidden),
        normal(batch, keys, value_hidden),
    )
    if form == "by heads":
        key, value = normal(batch, heads, keys, size), normal(batch, heads, keys, size)
    inputs = [query, key, value, normal(2 * hidden + value_hidden) if form == "biased" else None]
    inputs += [key_mask(kind, batch, queries, past + keys), normal(batch, 1, queries, past + keys)]
    if past:
        inputs += [normal(batch, heads, past, size), normal(batch, heads, past, size)]
    attributes = {"num_heads": heads, "unidirectional": unidirectional}
    compare("MultiHeadAttention", inputs, 4 if past else 1, PADDED if kind else 2e-5, **attributes)


def test_packed_multi_head_attention_equals_the_separate_one():
    batch, heads, size, keys = 2, 3, 4, 5
    q, k, v = (normal(batch, keys, heads, size) for _ in range(3))
    flat = [x.reshape(batch, keys, -1) for x in (q, k, v)]
    expected = run(
        model_of("MultiHeadAttention", flat, 1, (), "com.microsoft", {"num_heads": heads}),
        dict(x0=flat[0], x1=flat[1], x2=flat[2]),
    )
    compare("MultiHeadAttention", [np.stack([q, k, v], 3)], expected=expected, num_heads=heads)
    compare("MultiHeadAttention", [flat[0], np.stack([k, v], 3)], expected=expected, num_heads=heads)


def test_decoder_masked_attention_writes_into_its_cache():
    batch, heads, size, past, room = 2, 3, 4, 3, 6
    inputs = [normal(batch, 1, heads * size) for _ in range(3)]
    inputs += [flags(batch, past + 1), normal(1, heads, 1, past + 1)]
    inputs += [normal(batch, heads, room, size), normal(batch, heads, room, size), np.array([past], np.int32)]
    inputs += [None, None, normal(3 * heads * size)]
    compare(
        "DecoderMaskedMultiHeadAttention", inputs, 3, PADDED, num_heads=heads, past_present_share_buffer=1
    )


GROUP_CASES = [
    {},
    {"local_window_size": 2},
    {"softcap": 1.5, "scale": 0.4},
    {"smooth_softmax": 1},
    {"do_rotary": 1},
    {"do_rotary": 1, "rotary_interleaved": 1, "packed": True},
    {"do_rotary": 1, "partial": True},
    {"do_rotary": 1, "places": True},
    {"bias": True, "softcap": 1.5},
    {"sink": True},
    {"qk_output": 1, "bias": True},
    {"qk_output": 2},
    {"causal": 0},
]


@pytest.mark.parametrize("case", GROUP_CASES, ids=str)
@pytest.mark.parametrize(
    "batch,queries,past,room",
    [(1, 4, 0, 0), (2, 4, 0, 6), (1, 3, 5, 5), (1, 3, 5, 9), (3, 1, 5, 9), (3, 1, 5, 5)],
)
def test_group_query_attention(case, batch, queries, past, room):
    heads, groups, size, total = 4, 2, 32, past + queries
    case = dict(case)
    dtype = "float16" if room == 9 else "float32"
    packed, bias, sink, places = (case.pop(n, False) for n in ("packed", "bias", "sink", "places"))
    half = 8 if case.pop("partial", False) else size // 2
    inputs = [normal(batch, queries, (heads + 2 * groups if packed else heads) * size, dtype=dtype)]
    inputs += [None if packed else normal(batch, queries, groups * size, dtype=dtype) for _ in range(2)]
    inputs += [normal(batch, groups, room, size, dtype=dtype) for _ in range(2)]
    lengths = np.full(batch, total)
    if past:
        lengths[1:] = RNG.integers(queries, total + 1, batch - 1)
    inputs += [(lengths - 1).astype(np.int32), np.array(total, np.int32)]
    inputs += [normal(20, half, dtype=dtype) if "do_rotary" in case else None for _ in range(2)]
    inputs.append(RNG.integers(0, 16, (batch, queries)) if places else None)
    inputs.append(normal(1, heads, queries, total, dtype=dtype) if bias else None)
    inputs.append(normal(heads, dtype=dtype) if sink else None)
    tolerance = HALF if dtype == "float16" else 2e-5
    outputs = 4 if "qk_output" in case else 3
    compare(
        "GroupQueryAttention", inputs, outputs, tolerance, (6,), num_heads=heads, kv_num_heads=groups, **case
    )


def test_lengths_of_a_cache_are_no_reason_to_compile_again():
    """Only the largest length, which decides the shape of the cache, must be known."""
    inputs = [normal(2, 1, 64), normal(2, 1, 32), normal(2, 1, 32), *(normal(2, 2, 8, 16) for _ in range(2))]
    inputs += [np.array([3, 5], np.int32), np.array(6, np.int32)]
    model = model_of(
        "GroupQueryAttention", inputs, 3, (6,), "com.microsoft", {"num_heads": 4, "kv_num_heads": 2}
    )
    import_graph(load_model(model), {v.name: inputs[int(v.name[1:])].shape for v in model.graph.input})


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rotary_embedding(interleaved, dtype):
    tables = [normal(12, 4, dtype=dtype) for _ in range(2)]
    tolerance = HALF if dtype == "float16" else 2e-5
    for x in (normal(2, 3, 24, dtype=dtype), normal(2, 5, 3, 8, dtype=dtype)):
        for places in (RNG.integers(0, 12, (2, 3)), np.array([7])):
            compare("RotaryEmbedding", [x, places, *tables], 1, tolerance, interleaved=interleaved)
    tables = [normal(12, 2, dtype=dtype) for _ in range(2)]
    x = normal(2, 3, 24, dtype=dtype)
    attributes = {"num_heads": 3, "rotary_embedding_dim": 4, "interleaved": interleaved}
    compare("RotaryEmbedding", [x, np.array([7]), *tables], 1, tolerance, **attributes)


# ---- normalisations and activations


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_normalisations(dtype):
    tolerance = HALF if dtype == "float16" else 2e-5
    x, (scale, shift, bias) = normal(2, 3, 6, dtype=dtype), (normal(6, dtype=dtype) for _ in range(3))
    for skip in (x[::-1].copy(), x[:1], x[1]):
        inputs = [x, skip, scale, shift, bias]
        for given in (inputs, inputs[:3], [*inputs[:3], None, bias]):
            compare("SkipLayerNormalization", given, ["y0", "", "", "y3"], tolerance, epsilon=1e-5)
        simple = [x, skip, scale, bias]
        compare("SkipSimplifiedLayerNormalization", simple, ["y0", "", "", "y3"], tolerance, epsilon=1e-5)
    compare("SimplifiedLayerNormalization", [x, scale], 1, tolerance, domain="", epsilon=1e-5)
    compare("SimplifiedLayerNormalization", [x, normal(3, 6, dtype=dtype)], 1, tolerance, domain="", axis=1)


def test_embeddings():
    ids, kinds, mask = RNG.integers(0, 10, (2, 3)).astype(np.int32), flags(2, 3), flags(2, 3)
    tables = [normal(10, 6), normal(20, 6), normal(2, 6)]
    scale, shift = normal(6), normal(6)
    places = RNG.integers(0, 20, (2, 3)).astype(np.int32)
    for kind in (kinds, None):
        start = [ids, kind, *tables[:2], tables[2] if kind is not None else None, scale, shift]
        for end in ([], [mask], [mask, places], [None, places[:1]]):
            compare("EmbedLayerNormalization", [*start, *end], 3, epsilon=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_activations(dtype):
    x, bias = normal(2, 3, 6, dtype=dtype), normal(6, dtype=dtype)
    tolerance = HALF if dtype == "float16" else 2e-5
    for op in ("Gelu", "FastGelu", "QuickGelu"):
        compare(op, [x], 1, tolerance)
    for op in ("BiasGelu", "FastGelu"):
        compare(op, [x, bias], 1, tolerance)
    compare("QuickGelu", [x], 1, tolerance, alpha=1.3)


def test_fusions_of_diffusion_models():
    """onnxruntime has no CPU kernels for these."""
    x, bias = normal(2, 3, 8), normal(8)
    erf = np.vectorize(math.erf)
    total = x + bias
    right = total[..., 4:]
    expected = total[..., :4] * (0.5 * right * (1 + erf(right / math.sqrt(2))))
    compare("BiasSplitGelu", [x, bias], expected=[expected.astype(np.float32)])
    compare("BiasAdd", [x, bias, x], expected=[x + bias + x])
    picture, scale, shift, skip, bias = normal(2, 4, 5, 6), normal(6), normal(6), normal(2, 6), normal(6)

    def group_norm(x, activation):
        split = x.reshape(2, 4, 5, 3, 2).astype(np.float64)
        mean, variance = split.mean((1, 2, 4), keepdims=True), split.var((1, 2, 4), keepdims=True)
        y = ((split - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape) * scale + shift
        return (y / (1 + np.exp(-y)) if activation else y).astype(np.float32)

    expected = group_norm(picture, 0)
    compare("GroupNorm", [picture, scale, shift], expected=[expected], groups=3, activation=0)
    first = picture.transpose(0, 3, 1, 2)
    attributes = {"groups": 3, "activation": 0, "channels_last": 0}
    compare("GroupNorm", [first, scale, shift], expected=[expected.transpose(0, 3, 1, 2)], **attributes)
    total = picture + skip[:, None, None] + bias
    expected = [group_norm(total, 1), total]
    compare(
        "SkipGroupNorm", [picture, scale, shift, skip, bias], 2, expected=expected, groups=3, activation=1
    )


# ---- products and movement


@pytest.mark.parametrize("side", ["A", "B"])
@pytest.mark.parametrize("trans", [0, 1])
@pytest.mark.parametrize("batch", [0, 1])
def test_fused_matmul(side, trans, batch):
    shapes = {"A": [2, 3, 4], "B": [2, 4, 5]}
    shape = shapes[side]
    if trans:
        shape[1:] = shape[:0:-1]
    if batch:
        shape[:2] = shape[1::-1]
    attributes = {f"trans{side}": trans, f"transBatch{side}": batch, "alpha": 0.5}
    compare("FusedMatMul", [normal(*shapes["A"]), normal(*shapes["B"])], **attributes)
    if not batch:
        attributes.pop(f"transBatch{side}")
        compare("TransposeMatMul", [normal(*shapes["A"]), normal(*shapes["B"])], **attributes)


def test_fused_matmul_of_vectors():
    compare("FusedMatMul", [normal(4), normal(4, 3)], transA=1)
    compare("FusedMatMul", [normal(2, 3, 4), normal(4)], transB=1)
    compare("FusedMatMul", [normal(4, 2, 3, 5), normal(2, 3, 5, 2)], transBatchA=1)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_inverse(n):
    compare("Inverse", [normal(3, n, n)], 1, 2e-3)
    compare("Inverse", [normal(n, n, dtype="float64")], 1, 1e-8)
    # every pivot stands in another row
    compare("Inverse", [np.roll(np.eye(n, dtype=np.float32), 1, 0)])


def test_movement():
    x, whole = normal(3, 4), np.int64
    compare("Pad", [x, np.array([[0, 1, 1, 2]]), np.array([1.5], np.float32)], constants=(1,))
    compare("Pad", [x, np.array([0, 1, 1, 2])], constants=(1,), mode="reflect")
    compare("Range", [np.array(v, np.float32) for v in (1, 5)], constants=(0, 1))
    compare("Range", [np.array([v], whole) for v in (1, 9, 3)], constants=(0, 1, 2))
    compare("GatherND", [normal(3, 4, 5), RNG.integers(0, 3, (2, 2)).astype(np.int32)])
    compare("ExpandDims", [x, np.array(-1, np.int32)], constants=(1,))
    for upper in (0, 1):
        compare("Trilu", [normal(2, 4, 5), np.array(1)], constants=(1,), upper=upper)
    for metric in ("euclidean", "sqeuclidean"):
        compare("CDist", [x, normal(5, 4)], 1, 1e-4, metric=metric)


def test_transposed_convolution_with_pads_as_input():
    x, weights, pads = normal(1, 2, 4, 4), normal(2, 3, 3, 3), np.array([1, 0, 1, 0])
    compare("ConvTransposeWithDynamicPads", [x, weights, pads, normal(3)], constants=(2,), strides=[2, 2])


# ---- experts and linear attention


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "identity", "swiglu"])
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("normalise", [0, 1])
def test_mixture_of_experts(activation, k, normalise):
    tokens, size, inner, experts = 5, 8, 6, 4
    made = 2 * inner if activation == "swiglu" else inner
    inputs = [
        normal(tokens, size),
        normal(tokens, experts),
        normal(experts, made, size),
        normal(experts, made),
    ]
    inputs += [normal(experts, size, inner), normal(experts, size)]
    attributes = {"k": k, "activation_type": activation, "normalize_routing_weights": normalise}
    if activation == "swiglu":
        attributes |= {
            "swiglu_fusion": 1,
            "activation_alpha": 1.7,
            "activation_beta": 1.0,
            "swiglu_limit": 1.0,
        }
    compare("MoE", inputs, **attributes)


@pytest.mark.parametrize("rule", ["linear", "gated", "delta", "gated_delta"])
def test_linear_attention(rule):
    batch, steps, heads, groups, size = 2, 3, 2, 2, 4
    inputs = [normal(batch, steps, n * size) for n in (heads * groups, heads, heads)]
    inputs.append(normal(batch, heads, size, size))
    inputs.append(-np.abs(normal(batch, steps, heads)) if "gated" in rule else None)
    inputs.append(np.abs(normal(batch, steps, heads)) if "delta" in rule else None)
    attributes = {"q_num_heads": heads * groups, "kv_num_heads": heads, "update_rule": rule}
    compare("LinearAttention", inputs, 2, 1e-4, **attributes)


def test_causal_convolution():
    inputs = [normal(2, 3, 6), normal(3, 1, 4), normal(3), normal(2, 3, 3)]
    compare("CausalConvWithState", inputs, 2, activation="silu")
    compare("CausalConvWithState", inputs[:2], 2)


def test_unique_in_the_order_of_first_occurrence():
    compare("Unique", [np.array([3, 1, 3, 2, 1, 7], np.float32)], 3)
