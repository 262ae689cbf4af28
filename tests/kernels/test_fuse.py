"""Which values get a kernel of their own, and which live inside their reader's."""

import numpy as np
import pytest
from compiled import graph_of
from random_graphs import log_softmax, normalize, softmax

from tinyinfer.ir import build
from tinyinfer.kernels.fuse import fuse, is_contraction, is_free


def image(channels=8, size=6, name="x"):
    return build.input_node(name, (1, channels, size, size), "float32")


def weights(*shape):
    return build.constant(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def convolve(x, outputs=16, kernel=3, group=1):
    w = weights(outputs, x.shape[1] // group, kernel, kernel)
    pad = [kernel // 2] * 2
    return build.convolution(x, w, [1, 1], [1, 1], pad, pad, group)


def relu(x):
    return build.elementwise("MAX", x, build.full(0.0, x.shape, x.dtype))


def roots(*outputs, enabled=True):
    return [k.root for k in fuse(graph_of(*outputs), enabled).kernels]


def test_convolution_bias_and_relu_are_one_kernel():
    y = relu(build.apply("ADD", convolve(image()), weights(16, 1, 1)))
    fusion = fuse(graph_of(y))
    assert [k.root for k in fusion.kernels] == [y]
    total = fusion.kernels[0].contraction
    assert total is not None and is_contraction(total)


def test_a_residual_sum_lands_in_the_epilogue():
    x = image(16)
    y = relu(build.elementwise("ADD", convolve(x), x))
    assert roots(y) == [y]


@pytest.mark.parametrize("rows", [softmax, log_softmax, lambda x, axis: normalize(x, [axis])])
@pytest.mark.parametrize("axis", [0, 1])
def test_row_operations_are_one_kernel(rows, axis):
    y = rows(build.input_node("x", (20, 30), "float32"), axis)
    (kernel,) = fuse(graph_of(y)).kernels
    assert kernel.root is y and len(kernel.row_reduces) == 2 and not kernel.full_reduces


def test_pooling_and_its_epilogue_are_one_kernel():
    windows = build.window(image(), [2, 2], [2, 2], [1, 1], [0, 0], [0, 0])
    y = relu(build.reduce("SUM", windows, [4, 5]))
    (kernel,) = fuse(graph_of(y)).kernels
    assert kernel.root is y and len(kernel.full_reduces) == 1


def test_the_operand_of_a_contraction_is_stored():
    x = build.elementwise("TANH", image())
    y = convolve(x)
    assert roots(y)[0] is x and len(roots(y)) == 2


def test_two_contractions_are_two_kernels():
    first = relu(convolve(image()))
    second = convolve(first)
    assert len(roots(second)) == 2 and first in roots(second)


def test_a_value_that_two_kernels_read_is_stored_once():
    x = build.elementwise("EXP", build.input_node("x", (20, 30), "float32"))
    rows, columns = build.reduce("SUM", x, [1]), build.reduce("SUM", x, [0])
    assert roots(rows, columns).count(x) == 1 and len(roots(rows, columns)) == 3


def test_a_free_value_is_never_stored():
    ramp = build.cast(build.iota((20, 30), 1), "float32")
    assert is_free(ramp)
    x, y = (build.input_node(n, (20, 30), "float32") for n in "xy")
    outputs = [build.elementwise("ADD", x, ramp), build.elementwise("MUL", y, ramp)]
    assert roots(*outputs) in (outputs, outputs[::-1])


def test_what_would_be_computed_more_often_than_it_has_elements_is_stored():
    row = build.elementwise("EXP", build.input_node("r", (30,), "float32"))
    x = build.input_node("x", (20, 30), "float32")
    y = build.apply("MUL", x, row)
    assert roots(y) == [row, y]


def test_parts_of_a_concatenation_are_kernels_and_the_whole_is_none():
    x, y = (build.input_node(n, (4, 5), "float32") for n in "xy")
    parts = [build.elementwise("EXP", x), build.elementwise("TANH", y)]
    whole = build.concat(parts, 1)
    fusion = fuse(graph_of(whole))
    assert {k.root for k in fusion.kernels} == set(parts) and fusion.concats == [whole]
    assert whole in fusion.materialised


def test_inputs_and_constants_are_no_kernels():
    x = build.input_node("x", (4, 5), "float32")
    assert roots(x, weights(100), build.concat([x, x], 0)) == []


def test_kernels_come_in_execution_order():
    x = build.elementwise("TANH", image())
    y = convolve(x)
    z = convolve(relu(y), 8)
    order = roots(z, y)
    assert order.index(x) < order.index(y) < order.index(z)


def test_unfused_every_arithmetic_value_is_a_kernel():
    x = build.input_node("x", (20, 30), "float32")
    a = build.elementwise("EXP", x)
    b = build.elementwise("TANH", a)
    total = build.reduce("SUM", b, [1])
    y = build.elementwise("SQRT", total)
    assert roots(y, enabled=False) == [a, b, total, y]
    assert roots(y) == [y]


def test_forced_values_are_stored():
    x = build.input_node("x", (20, 30), "float32")
    a = build.elementwise("EXP", x)
    y = build.elementwise("TANH", a)
    assert [k.root for k in fuse(graph_of(y), also={a}).kernels] == [a, y]


def test_depth_does_not_matter():
    x = build.input_node("x", (4,), "float32")
    for _ in range(3000):
        x = build.elementwise("SIN", x)
    assert roots(x) == [x]


def test_paths_that_meet_again_do_not_multiply_uses():
    """Each step reads the one before it three times: followed path by path, 3 ** 60 uses."""
    x = build.input_node("x", [8], "uint32")
    y = x
    for _ in range(60):
        y = build.elementwise("XOR", build.elementwise("ADD", y, x), build.elementwise("MUL", y, y))
    assert len(fuse(graph_of(y)).kernels) == 1


def test_a_stored_value_is_computed_once_where_fusion_would_repeat_it():
    x = build.input_node("x", (8, 16), "float32")
    dear = build.stored(build.elementwise("EXP", x))
    graph = graph_of(build.elementwise("NEG", dear))
    assert [k.root.op for k in fuse(graph).kernels] == ["EXP", "NEG"]
    assert build.stored(x) is x and build.stored(dear) is dear
