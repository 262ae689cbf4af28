"""Products of dequantised values as integer sums: the scales leave the sum, where they may."""

import numpy as np
import pytest
from rules import ops, rewritten

from tinyinfer.ir import build
from tinyinfer.ir.build import apply, cast, constant, input_node, scalar
from tinyinfer.ir.passes import optimize
from tinyinfer.ir.passes.integer_sums import sum_integers

RNG = np.random.default_rng(5)


def dequantised(x, zero, scale):
    """(x - zero) · scale as the importer makes it."""
    centred = apply("SUB", cast(x, "int32"), scalar(zero, "int32"))
    return build.elementwise("MUL", cast(centred, "float32"), build.expand(scale, x.shape))


def weights(*shape):
    return constant(RNG.integers(-128, 128, shape).astype(np.int8))


def scales(*shape):
    return constant((RNG.random(shape) / 50 + 0.01).astype(np.float32))


X = dequantised(input_node("x", (2, 8, 7, 6), "uint8"), 7, scales())


def integer_sums(result):
    """The dtypes of the sums below `result`."""
    return {x.dtype for x in build_nodes(result) if x.op == "SUM"}


def build_nodes(result):
    from tinyinfer.ir.node import topological_order

    return topological_order([result])


@pytest.mark.parametrize("group", [1, 2, 8])
def test_convolutions_with_a_scale_for_each_channel(group):
    w = dequantised(weights(8, 8 // group, 3, 3), 0, scales(8, 1, 1, 1))
    y = build.convolution(X, w, (1, 2), (1, 1), (1, 1), (1, 0), group)
    (result,) = rewritten(sum_integers, y, tolerance=1e-6)
    assert integer_sums(result) == {"int32"}


def test_matrix_products():
    a = dequantised(input_node("a", (5, 9), "int8"), -3, scales())
    b = dequantised(input_node("b", (9, 4), "uint8"), 100, scales())
    (result,) = rewritten(sum_integers, build.matmul(a, b), tolerance=1e-6)
    assert integer_sums(result) == {"int32"}
    (result,) = rewritten(optimize, build.matmul(a, b), tolerance=1e-6)
    assert integer_sums(result) == {"float32"} and ops(result).count("MUL") == 2


def test_scales_along_what_is_summed_stay():
    a = dequantised(input_node("a", (5, 9), "int8"), 0, scales())
    b = dequantised(weights(9, 4), 0, scales(9, 1))
    y = build.matmul(a, b)
    assert rewritten(sum_integers, y) == [y]


def test_padding_with_another_value_stays():
    padded = build.pad(X, (0, 0, 1, 1), (0, 0, 1, 1), 1.0)
    y = build.convolution(
        padded, dequantised(weights(4, 8, 3, 3), 0, scales()), (1, 1), (1, 1), (0, 0), (0, 0)
    )
    assert rewritten(sum_integers, y) == [y]


def test_float_operands_stay():
    y = build.matmul(input_node("f", (5, 9), "float32"), dequantised(weights(9, 4), 0, scales()))
    assert rewritten(sum_integers, y) == [y]


def test_sums_that_might_overflow_stay():
    a = dequantised(input_node("a", (2, 9), "uint16"), 0, scales())
    b = dequantised(constant(RNG.integers(0, 65536, (9, 4)).astype(np.uint16)), 0, scales())
    y = build.matmul(a, b)
    assert rewritten(sum_integers, y) == [y]


def test_infinite_scales_stay():
    a = dequantised(input_node("a", (2, 9), "uint8"), 0, scalar(np.inf, "float32"))
    y = build.matmul(a, dequantised(weights(9, 4), 0, scales()))
    assert sum_integers(graph_with(y)).outputs["y0"] is y


def graph_with(y):
    from rules import graph_of

    return graph_of(y)
