"""Roles of axes: matrix products, convolutions, groups and attention fall out of one classification."""

import numpy as np
import pytest
from compiled import graph_of

from tinyinfer.ir import build
from tinyinfer.kernels.assign import assign
from tinyinfer.kernels.contraction import find_contraction, has_columns
from tinyinfer.kernels.fuse import fuse
from tinyinfer.kernels.lower import lower


def array(*shape):
    return build.constant(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def value(*shape, name="x"):
    return build.input_node(name, shape, "float32")


def roles(output):
    """The contraction of the kernel that stores `output`."""
    fusion = fuse(graph_of(output))
    return find_contraction(lower(output, fusion.materialised))


def sizes(axes):
    return sorted(a.size for a in axes)


def test_matrix_product():
    c = roles(build.matmul(value(30, 20), array(20, 40)))
    assert (c.vector.size, sizes(c.m), sizes(c.k)) == (40, [30], [20])
    assert not c.n_outer and not c.batch
    assert c.b.attrs.value.op == "CONST" and c.a.attrs.value.op == "INPUT"


def test_constants_are_the_vectorised_operand_on_either_side():
    c = roles(build.matmul(array(30, 20), value(20, 40)))
    assert (c.vector.size, sizes(c.m), c.b.attrs.value.op) == (30, [40], "CONST")


def test_batched_matrix_product():
    c = roles(build.matmul(value(3, 5, 30, 20), value(3, 5, 20, 40, name="y")))
    assert (c.vector.size, sizes(c.m), sizes(c.k), sizes(c.batch)) == (40, [30], [20], [3, 5])


def test_a_shared_operand_makes_the_batch_rows():
    c = roles(build.matmul(value(3, 30, 20), array(20, 40)))
    assert (c.vector.size, sizes(c.m), sizes(c.batch)) == (40, [3, 30], [])


def test_convolution():
    c = roles(build.convolution(value(2, 16, 9, 10), array(32, 16, 3, 3), [1, 1], [1, 1], [0, 0], [0, 0]))
    assert (c.vector.size, sizes(c.m), sizes(c.k)) == (32, [2, 7, 8], [3, 3, 16])


def test_grouped_convolution():
    c = roles(
        build.convolution(value(1, 24, 9, 9), array(48, 8, 3, 3), [1, 1], [1, 1], [0, 0], [0, 0], group=3)
    )
    assert (c.vector.size, sizes(c.m), sizes(c.k), sizes(c.batch)) == (16, [7, 7], [3, 3, 8], [3])


def test_depthwise_convolution_over_channels_is_a_map():
    x = build.convolution(value(1, 8, 9, 9), array(24, 8, 1, 1), [1, 1], [1, 1], [0, 0], [0, 0])
    y = build.convolution(x, array(24, 1, 3, 3), [1, 1], [1, 1], [0, 0], [0, 0], 24)
    first, *others = assign(graph_of(y)).contractions
    assert first is not None and others and not any(others)


def test_attention():
    q, k = value(2, 4, 17, 8, name="q"), value(2, 4, 33, 8, name="k")
    c = roles(build.matmul(q, build.permute(k, [0, 1, 3, 2])))
    assert (c.vector.size, sizes(c.m), sizes(c.k), sizes(c.batch)) == (33, [17], [8], [2, 4])


def test_one_column_is_a_map():
    assert (
        roles(build.matmul(value(30, 20), array(20, 1))) is None
        or roles(build.matmul(value(30, 20), array(20, 1))).vector.size == 30
    )


def test_epilogues_do_not_hide_the_contraction():
    y = build.apply("ADD", build.matmul(value(30, 20), array(20, 40)), array(40))
    c = roles(build.elementwise("TANH", y))
    assert c.vector.size == 40


@pytest.mark.parametrize("dtype", ["float64", "int64", "float16"])
def test_other_dtypes_are_maps(dtype):
    x, y = (build.input_node(n, (20, 20), dtype) for n in "xy")
    assert roles(build.matmul(x, y)) is None


def test_other_reductions_are_maps():
    x = value(30, 20)
    assert roles(build.reduce("SUM", x, [1])) is None
    assert roles(build.reduce("MAX", build.elementwise("MUL", x, x), [1])) is None


def test_a_sum_of_squares_is_no_contraction():
    x = value(30, 20)
    assert roles(build.reduce("SUM", build.elementwise("MUL", x, x), [1])) is None


def test_indices_read_from_the_contraction_itself_make_it_a_map():
    y = build.matmul(value(30, 20), array(20, 40))
    picked = build.gather(array(50), build.cast(build.elementwise("ABS", y), "int32"), 0)
    assert roles(build.elementwise("ADD", y, picked)) is None


def test_has_columns():
    assert has_columns(build.matmul(value(30, 20), array(20, 40)), 40)
    assert not has_columns(build.matmul(value(30, 20), array(20, 40)), 41)


def test_integers_are_contracted_like_floats():
    a = build.cast(build.input_node("a", (30, 20), "uint8"), "int32")
    c = roles(build.matmul(a, build.constant(np.ones((20, 40), np.int32))))
    assert (c.vector.size, sizes(c.m), sizes(c.k)) == (40, [30], [20])
