"""Integer contractions in float32: where they fit, and where they must not."""

import numpy as np
from rules import ops, rewritten

from tinyinfer.ir import build
from tinyinfer.ir.build import apply, cast, constant, input_node, scalar
from tinyinfer.ir.passes.exact_sums import exact_sums_as_floats
from tinyinfer.ir.passes.steps import ROUNDING, deciding

RNG = np.random.default_rng(3)


def activations(rows, length, zero=7):
    return apply("SUB", cast(input_node("a", (rows, length), "uint8"), "int32"), scalar(zero, "int32"))


def weights(length, columns, largest=127):
    return constant(RNG.integers(-largest, largest + 1, (length, columns)).astype(np.int32))


def dtype_of_sum(result):
    return result.inputs[0].dtype if result.op == "CAST" else result.dtype


def test_short_sums_are_floats():
    result, = rewritten(exact_sums_as_floats, build.matmul(activations(4, 32), weights(32, 8)))
    assert dtype_of_sum(result) == "float32"


def test_long_sums_stay_integers():
    total = build.matmul(activations(2, 1024), constant(np.full((1024, 3), 127, np.int32)))
    result, = rewritten(exact_sums_as_floats, total)
    assert result is total


def test_the_bound_is_that_of_the_weights_themselves():
    total = build.matmul(activations(2, 4096), weights(4096, 3, largest=8))
    result, = rewritten(exact_sums_as_floats, total)
    assert dtype_of_sum(result) == "float32"


def test_sums_of_unknown_integers_stay():
    a, b = input_node("a", (3, 5), "int32"), input_node("b", (5, 4), "int32")
    total = build.matmul(a, b)
    result, = rewritten(exact_sums_as_floats, total)
    assert result is total


def test_nothing_is_converted_between_two_layers():
    def layer(x, w, zero):
        value = apply("MUL", cast(build.matmul(x, w), "float32"), scalar(0.013, "float32"))
        value = apply("ADD", build.elementwise("ROUND", value), scalar(zero, "float32"))
        return apply("SUB", cast(cast(value, "uint8"), "int32"), scalar(zero, "int32"))

    first = layer(activations(6, 16), weights(16, 8), 120)
    total = cast(build.matmul(first, weights(8, 5)), "float32")
    result, = rewritten(exact_sums_as_floats, total)
    assert ops(result).count("CAST") == 1
    assert "MAX" in ops(result) and "MIN" in ops(result)


def test_a_bias_is_added_in_float():
    bias = constant(RNG.integers(-5000, 5000, (8,)).astype(np.int32))
    total = apply("ADD", build.matmul(activations(4, 32), weights(32, 8)), bias)
    result, = rewritten(exact_sums_as_floats, cast(total, "float32"))
    assert ops(result).count("CAST") == 1
    large = apply("ADD", build.matmul(activations(4, 32), weights(32, 8)), scalar(1 << 25, "int32"))
    result, = rewritten(exact_sums_as_floats, cast(large, "float32"))
    assert result.op == "CAST" and result.inputs[0].dtype == "int32"


def test_a_float_that_may_be_nan_keeps_its_conversion():
    q = cast(build.elementwise("ROUND", input_node("x", (4, 8), "float32")), "uint8")
    total = build.matmul(cast(q, "int32"), weights(8, 5))
    feeds = {"x": np.array([[np.nan, np.inf, -np.inf, 300, -5, 2.5, 3.5, 0]] * 4, np.float32)}
    result, = rewritten(exact_sums_as_floats, total, feeds=feeds)
    assert dtype_of_sum(result) == "float32"


def test_what_decides_a_step():
    x = input_node("x", (4,), "float32")
    scaled = apply("MUL", x, scalar(3, "float32"))
    shifted = apply("ADD", scaled, scalar(1, "float32"))
    stepped = build.elementwise("ROUND", shifted)
    after = apply("MUL", stepped, scalar(2, "float32"))
    total = build.reduce("SUM", after, [0])
    order = [x, scaled, shifted, stepped, after, total]
    found = deciding(order, ROUNDING)
    assert [id(n) in found for n in order] == [True, True, True, False, False, False]
    assert id(x) in deciding([x, q := cast(x, "int8"), cast(q, "float32")], ROUNDING)
