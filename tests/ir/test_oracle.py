"""The oracle's own behaviour: contractions, conversions, memory, errors."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyinfer.ir import build, oracle_contraction, oracle_view
from tinyinfer.ir.index import index
from tinyinfer.ir.node import Graph, node, output_axis
from tinyinfer.ir.ops import ELEMENTWISE
from tinyinfer.ir.oracle import evaluate
from tinyinfer.ir.special import erf

RNG = np.random.default_rng(2)


def _one(result, **feeds):
    return evaluate([result], feeds)[0]


# ---- special functions


def test_erf_agrees_with_the_c_library():
    x = np.concatenate([np.linspace(-7, 7, 20001), [0.46875, 4.0, 6.0, 1e-300, -0.0]])
    np.testing.assert_allclose(erf(x), [math.erf(v) for v in x], rtol=5e-16)
    np.testing.assert_array_equal(erf(np.array([np.inf, -np.inf, np.nan])), [1, -1, np.nan])
    assert erf(np.zeros(2, np.float32)).dtype == np.float32


# ---- elementwise

FLOAT_CASES: dict[str, Any] = {
    "RECIP": lambda a: 1 / a, "SQRT": np.sqrt, "EXP": np.exp, "LOG": np.log, "SIN": np.sin, "COS": np.cos,
    "TANH": np.tanh, "SIGMOID": lambda a: 1 / (1 + np.exp(-a)), "FLOOR": np.floor, "CEIL": np.ceil,
    "ROUND": np.round, "TRUNC": np.trunc, "NEG": lambda a: -a, "ABS": np.abs,
    "ERF": np.vectorize(math.erf),
}


@pytest.mark.parametrize("op", FLOAT_CASES)
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-14), ("float32", 3e-7), ("float16", 2e-3)])
def test_unary_floats(op, dtype, tolerance):
    values = np.array([0.1, 0.5, 1.0, 1.5, 2.5, 3.75, 7.0]).astype(dtype)
    x = build.input_node("x", values.shape, dtype)
    expected = FLOAT_CASES[op](values.astype(np.float64))
    np.testing.assert_allclose(_one(build.elementwise(op, x), x=values), expected, rtol=tolerance, atol=1e-7)


UNARY = [op for op, rule in ELEMENTWISE.items() if rule.arity == 1 and rule.result == "same"]


@pytest.mark.parametrize("op", UNARY)
def test_scalars_stay_arrays(op):
    dtype = "bool" if op == "NOT" else "float32"
    x = build.input_node("x", (), dtype)
    value = _one(build.elementwise(op, x), x=np.asarray(1).astype(dtype))
    assert isinstance(value, np.ndarray) and value.shape == () and value.dtype == dtype


def test_integer_division_and_remainders():
    a, b = (v.reshape(-1) for v in np.meshgrid(np.arange(-7, 8), [-3, -1, 1, 2, 5], indexing="ij"))
    x, y = (build.input_node(n, a.shape, "int64") for n in "xy")
    np.testing.assert_array_equal(_one(build.elementwise("IDIV", x, y), x=a, y=b), np.trunc(a / b))
    np.testing.assert_array_equal(_one(build.elementwise("MOD", x, y), x=a, y=b), a % b)
    np.testing.assert_array_equal(_one(build.elementwise("FMOD", x, y), x=a, y=b), np.fmod(a, b))
    assert (_one(build.elementwise("IDIV", x, y), x=a, y=np.zeros_like(b)) == 0).all()


def test_minimum_and_maximum_keep_nan():
    a, b = np.array([1, np.nan, 3], np.float32), np.array([2, 1, np.nan], np.float32)
    x, y = (build.input_node(n, (3,), "float32") for n in "xy")
    np.testing.assert_array_equal(_one(build.elementwise("MAX", x, y), x=a, y=b), [2, np.nan, np.nan])
    np.testing.assert_array_equal(_one(build.reduce("MAX", x, (0,)), x=a), np.nan)


def test_multiply_add_rounds_once():
    a = np.array([1 + 2**-12], np.float32)
    x, y = (build.input_node(n, (1,), "float32") for n in "xy")
    fused = _one(build.elementwise("MULACC", x, x, y), x=a, y=np.array([-1 - 2**-11], np.float32))
    assert fused[0] == 2.0**-24


def test_casts():
    values = np.array([1.9, -1.9, 300, -300, np.nan, np.inf, -np.inf, 1e30], np.float32)
    x = build.input_node("x", values.shape, "float32")
    expected = {
        "int8": [1, -1, 127, -128, 0, 127, -128, 127],
        "uint8": [1, 0, 255, 0, 0, 255, 0, 255],
        "int32": [1, -1, 300, -300, 0, 2**31 - 1, -2**31, 2**31 - 1],
        "int64": [1, -1, 300, -300, 0, 2**63 - 1, -2**63, 2**63 - 1],
        "bool": [True] * 8,
    }
    for dtype, result in expected.items():
        np.testing.assert_array_equal(_one(build.cast(x, dtype), x=values), np.array(result, dtype))
    wide = np.array([300, -1, 0], np.int32)
    y = build.input_node("x", (3,), "int32")
    np.testing.assert_array_equal(_one(build.cast(y, "uint8"), x=wide), np.array([44, 255, 0], np.uint8))
    np.testing.assert_array_equal(_one(build.cast(y, "bool"), x=wide), [True, True, False])


def test_bitcast_and_bfloat16():
    values = np.array([1.0, -2.0, 0.15625], np.float32)
    x = build.input_node("x", (3,), "float32")
    bits = build.elementwise("BITCAST", x, dtype="int32")
    np.testing.assert_array_equal(_one(bits, x=values), values.view(np.int32))
    narrow = build.cast(build.elementwise("SIGMOID", build.cast(x, "bfloat16")), "float32")
    np.testing.assert_allclose(_one(narrow, x=values), 1 / (1 + np.exp(-values)), rtol=1e-2)


def test_elementwise_on_repeated_operands_is_computed_once():
    small = build.input_node("x", (3,), "float32")
    big = build.elementwise("EXP", build.expand(small, (1 << 20, 1 << 10, 3)))
    again = build.shrink(big, (0, 0, 0), (1, 2, 3))
    np.testing.assert_allclose(_one(build.reduce("MAX", again, (0,)), x=np.arange(3, dtype=np.float32)),
                               np.broadcast_to(np.exp(np.arange(3)), (2, 3)), rtol=1e-6)


# ---- reductions


def test_empty_reductions_give_the_identity():
    x = build.input_node("x", (0, 2), "float32")
    empty = np.zeros((0, 2), np.float32)
    for op, identity in (("SUM", 0), ("PROD", 1), ("MAX", -np.inf), ("MIN", np.inf)):
        np.testing.assert_array_equal(_one(build.reduce(op, x, (0,)), x=empty), [identity] * 2)
    y = build.input_node("x", (0, 2), "int8")
    np.testing.assert_array_equal(_one(build.reduce("MAX", y, (0,)), x=empty.astype(np.int8)), [-128] * 2)


def test_integer_sums_wrap_and_float_sums_round_once():
    x = build.input_node("x", (3,), "int8")
    assert _one(build.reduce("SUM", x, (0,)), x=np.array([100, 100, 100], np.int8)) == np.int8(44)
    many = np.full(1 << 20, 0.1, np.float16)
    y = build.input_node("x", many.shape, "float16")
    mean = build.elementwise("DIV", build.reduce("SUM", y, (0,)), build.scalar(1, "float16"))
    assert _one(mean, x=many) == np.inf
    z = build.input_node("x", many.shape, "float32")
    total = _one(build.reduce("SUM", z, (0,)), x=many.astype(np.float32))
    assert total == np.float32(many.astype(np.float64).sum())


# ---- contractions


def _random(shape, dtype):
    return RNG.integers(-4, 5, shape).astype(dtype)


@st.composite
def _contractions(draw):
    """Two operands over up to four axes, each of which may ignore some, and the axes to sum."""
    rank = draw(st.integers(1, 4))
    shape = [draw(st.integers(1, 4)) for _ in range(rank)]
    uses = [[draw(st.booleans()) for _ in range(rank)] for _ in range(2)]
    axes = sorted(draw(st.sets(st.integers(0, rank - 1), min_size=1)))
    return shape, uses, axes, draw(st.sampled_from(("float32", "float16", "int8", "int32", "uint8", "int64")))


@settings(max_examples=300, deadline=None)
@given(_contractions(), st.sampled_from((1, 7, 1 << 23)))
def test_contractions(case, chunk):
    shape, uses, axes, dtype = case
    arrays, nodes = [], []
    for name, used in zip("xy", uses):
        small = [d if u else 1 for d, u in zip(shape, used)]
        arrays.append(_random(small, dtype))
        nodes.append(build.expand(build.input_node(name, small, dtype), shape))
    made = build.reduce("SUM", build.elementwise("MUL", *nodes), axes)
    before = oracle_contraction.CHUNK
    oracle_contraction.CHUNK = chunk
    try:
        value = _one(made, x=arrays[0], y=arrays[1])
    finally:
        oracle_contraction.CHUNK = before
    wide = np.broadcast_to(arrays[0], shape).astype(np.int64) * np.broadcast_to(arrays[1], shape)
    np.testing.assert_array_equal(value, wide.sum(tuple(axes)).astype(dtype))


def test_a_large_integer_contraction_wraps_like_its_dtype():
    a, b = np.array([2**31 - 1, 2**31 - 1, 5], np.int64) * 2**20, np.array([2**30, 3, 7], np.int64) * 2**10
    x, y = (build.input_node(n, (3,), "int64") for n in "xy")
    made = build.reduce("SUM", build.elementwise("MUL", x, y), (0,))
    with np.errstate(over="ignore"):
        assert _one(made, x=a, y=b) == (a * b).sum()


def test_a_contraction_needs_no_product():
    x, y = build.input_node("x", (2000, 3000), "float32"), build.input_node("y", (3000, 2000), "float32")
    a, b = np.ones(x.shape, np.float32), np.full(y.shape, 2, np.float32)
    made = build.matmul(x, y)  # its product has 12 · 10^9 elements
    assert (_one(made, x=a, y=b) == 6000).all()


def test_a_product_with_other_users_is_kept():
    x = build.input_node("x", (4,), "float32")
    product = build.elementwise("MUL", x, x)
    feeds = {"x": np.arange(4, dtype=np.float32)}
    total, squares = evaluate([build.reduce("SUM", product, (0,)), product], feeds)
    assert total == 14
    np.testing.assert_array_equal(squares, [0, 1, 4, 9])


def test_a_sum_of_bools_is_any():
    x = build.input_node("x", (2, 2), "bool")
    made = build.reduce("SUM", build.elementwise("MUL", x, x), (1,))
    np.testing.assert_array_equal(_one(made, x=np.array([[True, True], [False, False]])), [True, False])


# ---- views


def test_views_by_index_arrays_agree_with_strided_ones(monkeypatch):
    x = build.input_node("x", (4, 6), "int64")
    array = np.arange(24).reshape(4, 6)
    cases = [build.pad(build.flip(x, (0,)), (1, 2), (2, 1), -3),
             build.reshape(build.permute(x, (1, 0)), (3, 8)),
             build.window(x, (2,), (2,), (2,), (1,), (3,), 9), build.shrink(x, (3, 0), (0, 6), (-1, 2))]
    strided = [_one(case, x=array) for case in cases]
    monkeypatch.setattr(oracle_view, "_strided", lambda *arguments: None)
    monkeypatch.setattr(oracle_view, "CHUNK", 5)
    for case, expected in zip(cases, strided):
        np.testing.assert_array_equal(_one(case, x=array), expected)


def test_guards_that_are_no_source_index():
    x = build.input_node("x", (5,), "float32")
    o0, o1 = (index(output_axis(i, 5)) for i in range(2))
    lower = build.view(x, [o1], (5, 5), [(o0 - o1, 5)], -1)  # only where o1 <= o0
    expected = np.where(np.tri(5, dtype=bool), np.arange(5), -1)
    np.testing.assert_array_equal(_one(lower, x=np.arange(5, dtype=np.float32)), expected)


def test_a_view_outside_its_source_is_an_error():
    x = build.input_node("x", (4,), "float32")
    outside = build.view(x, [index(output_axis(0, 4)) + 1], (4,))
    divided = build.view(x, [(index(output_axis(0, 9)) + index(output_axis(1, 5))) // 2], (9, 5))
    for made in (outside, divided):
        with pytest.raises(IndexError, match="axis of 4"):
            _one(made, x=np.zeros(4, np.float32))


def test_a_view_of_nothing_and_to_nothing():
    x = build.input_node("x", (0, 3), "float32")
    assert _one(build.permute(x, (1, 0)), x=np.zeros((0, 3), np.float32)).shape == (3, 0)
    padded = build.pad(x, (1, 0), (1, 0), 4)
    np.testing.assert_array_equal(_one(padded, x=np.zeros((0, 3), np.float32)), np.full((2, 3), 4))


# ---- evaluation


def test_results_are_fresh_and_contiguous():
    x = build.input_node("x", (2, 3), "float32")
    array = np.ones((2, 3), np.float32)
    for made in (x, build.permute(x, (1, 0)), build.expand(x, (4, 2, 3)), build.constant(array)):
        value = _one(made, x=array)
        assert value.flags.c_contiguous and value.flags.writeable and not np.shares_memory(value, array)


def test_feeds_are_checked():
    x = build.input_node("x", (2,), "float32")
    with pytest.raises(KeyError, match="x"):
        evaluate([x], {})
    for wrong in (np.zeros(3, np.float32), np.zeros(2)):
        with pytest.raises(ValueError, match="takes float32"):
            evaluate([x], {"x": wrong})


def test_depth_does_not_matter():
    x = build.input_node("x", (1,), "int64")
    deep = x
    for _ in range(5000):
        deep = build.elementwise("ADD", deep, x)
    assert _one(deep, x=np.array([1])) == 5001
    assert Graph({"x": x}, {"y": deep}).nodes()[0] is x


def test_unknown_ops_are_refused():
    with pytest.raises(ValueError, match="no op"):
        evaluate([node("FROBNICATE", (), None, (1,))], {})


def test_where_and_logic_over_all_cases():
    table = np.array(list(itertools.product([False, True], repeat=3)))
    c, a, b = (build.input_node(n, (8,), "bool") for n in "cab")
    feeds = dict(zip("cab", table.T))
    np.testing.assert_array_equal(_one(build.elementwise("WHERE", c, a, b), **feeds), np.where(*table.T))
    np.testing.assert_array_equal(_one(build.elementwise("XOR", a, b), **feeds), feeds["a"] != feeds["b"])
