"""Scales and shifts: folded into weights or joined, and left alone where that would lose something."""

import numpy as np
import pytest
from rules import graph_of, ops, rewritten

from tinyinfer.ir import build
from tinyinfer.ir.build import apply, constant, elementwise, full, input_node, scalar
from tinyinfer.ir.node import Node
from tinyinfer.ir.passes import optimize
from tinyinfer.ir.passes.affine import fold_affine

RNG = np.random.default_rng(4)
X = input_node("x", (2, 4, 6, 6), "float32")
V = input_node("v", (5, 8), "float32")


def _literal(*shape, dtype="float32"):
    return constant((RNG.random(shape) + 0.5).astype(dtype))


def _conv(o=6, group=1, x=X, w=None, dtype="float32") -> Node:
    w = w if w is not None else _literal(o, x.shape[1] // group, 3, 3, dtype=dtype)
    return build.convolution(x, w, (1, 1), (1, 1), (1, 1), (1, 1), group, origin=["conv"])


def _channels(n, rank=4):
    return build.reshape(_literal(n), (1, n, *[1] * (rank - 2)))


# ---- into weights


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("op", ["MUL", "DIV"])
def test_channel_scales_move_into_convolution_weights(group, op):
    o = 8
    result, = rewritten(fold_affine, apply(op, _conv(o, group), _channels(o)), tolerance=1e-6)
    assert ops(result) == ["MUL", "SUM"]
    literal, = (x for x in graph_of(result).nodes() if x.op == "CONST")
    assert literal.size == o * 4 // group * 9


def test_scalars_move_into_the_weights_of_a_matmul():
    result, = rewritten(fold_affine, apply("MUL", build.matmul(V, _literal(8, 3)), scalar(0.3, "float32")),
                        tolerance=1e-6)
    assert ops(result) == ["MUL", "SUM"]


def test_weights_on_the_left_and_a_permuted_result():
    left = build.matmul(_literal(3, 5), V)
    result, = rewritten(fold_affine, apply("MUL", build.permute(left, (1, 0)), _literal(3)), tolerance=1e-6)
    assert ops(result) == ["MUL", "SUM"]


def test_a_transposed_reshaped_result():
    heads = build.reshape(build.matmul(V, _literal(8, 6)), (5, 2, 3))
    result, = rewritten(fold_affine, apply("MUL", heads, _literal(2, 1)), tolerance=1e-6)
    assert ops(result) == ["MUL", "SUM"]


def test_batch_normalisation_disappears():
    mean, variance, scale, shift = (_channels(6) for _ in range(4))
    deviation = apply("SQRT", apply("ADD", variance, scalar(1e-5, "float32")))
    normal = apply("DIV", apply("SUB", apply("ADD", _conv(), _channels(6)), mean), deviation)
    result, = rewritten(optimize, apply("ADD", apply("MUL", normal, scale), shift), tolerance=1e-6)
    assert ops(result) == ["ADD", "MUL", "SUM"]
    assert "conv" in next(x for x in graph_of(result).nodes() if x.op == "SUM").origin


def test_rows_do_not_move_into_column_weights():
    graph = graph_of(apply("MUL", build.matmul(V, _literal(8, 3)), _literal(5, 1)))
    assert fold_affine(graph) is graph


def test_scales_of_the_feature_map_stay():
    graph = graph_of(apply("MUL", _conv(), _literal(6, 6)))
    assert fold_affine(graph) is graph


def test_a_contraction_of_two_inputs_keeps_its_scale():
    graph = graph_of(apply("MUL", build.matmul(V, build.permute(V, (1, 0))), scalar(0.3, "float32")))
    assert fold_affine(graph) is graph


def test_a_contraction_with_other_users_keeps_its_scale():
    conv = _conv()
    scaled = apply("MUL", conv, _channels(6))
    graph = graph_of(scaled, conv)
    assert fold_affine(graph) is graph


def test_large_shared_weights_are_not_duplicated():
    w = constant(np.ones((400, 400), np.float32))
    x = input_node("x", (2, 400), "float32")
    graph = graph_of(apply("MUL", build.matmul(x, w), scalar(0.3, "float32")),
                     build.matmul(x, build.permute(w, (1, 0))))
    assert fold_affine(graph) is graph


def test_a_scale_that_overflows_or_empties_the_weights_stays():
    for weight, scale in ((1e30, 1e20), (1e-30, 1e-20)):
        w = constant(np.full((8, 3), weight, np.float32))
        graph = graph_of(apply("MUL", build.matmul(V, w), scalar(scale, "float32")))
        assert fold_affine(graph) is graph


def test_zero_scales_and_tiny_weights_fold():
    weights = (RNG.random((8, 3)) + 0.5).astype(np.float32)
    weights[0, 0] = 1e-42
    scale = constant(np.array([0, 1, 2], np.float32))
    result, = rewritten(fold_affine, apply("MUL", build.matmul(V, constant(weights)), scale), tolerance=1e-6)
    assert ops(result) == ["MUL", "SUM"]


def test_integers_keep_their_scale():
    x = input_node("x", (5, 8), "int32")
    w = constant(RNG.integers(-9, 9, (8, 3)).astype(np.int32))
    graph = graph_of(apply("MUL", build.matmul(x, w), scalar(3, "int32")))
    assert fold_affine(graph) is graph


# ---- chains


def _c(value, dtype="float32"):
    return full(value, V.shape, dtype)


def _v(op, *inputs):
    return elementwise(op, *inputs)


CHAINS = {
    "v + a + b": (_v("ADD", _v("ADD", V, _c(0.25)), _c(0.5)), _v("ADD", V, _c(0.75))),
    "v * a * b": (_v("MUL", _v("MUL", V, _c(3)), _c(5)), _v("MUL", V, _c(15))),
    "v / a * b": (_v("MUL", _v("DIV", V, _c(3)), _c(6)), _v("MUL", V, _c(2))),
    "v * a / b": (_v("DIV", _v("MUL", V, _c(6)), _c(3)), _v("MUL", V, _c(2))),
    "v / a / b": (_v("DIV", _v("DIV", V, _c(3)), _c(5)), _v("DIV", V, _c(15))),
    "v - a": (_v("SUB", V, _c(3)), _v("ADD", V, _c(-3))),
    "v - a + b": (_v("ADD", _v("SUB", V, _c(3)), _c(5)), _v("ADD", V, _c(2))),
    "v / 4": (_v("DIV", V, _c(4)), _v("MUL", V, _c(0.25))),
    "v / 3 stays": (_v("DIV", V, _c(3)), _v("DIV", V, _c(3))),
    "-(v * a)": (_v("NEG", _v("MUL", V, _c(3))), _v("MUL", V, _c(-3))),
    "(v * a + b) * c": (_v("MUL", _v("ADD", _v("MUL", V, _c(3)), _c(5)), _c(7)),
                        _v("ADD", _v("MUL", V, _c(21)), _c(35))),
    "(v + b) * c stays": (_v("MUL", _v("ADD", V, _c(5)), _c(7)), _v("MUL", _v("ADD", V, _c(5)), _c(7))),
    "rounding by a large term stays": (_v("ADD", _v("ADD", V, _c(1.5 * 2**23)), _c(-1.5 * 2**23)),
                                       _v("ADD", _v("ADD", V, _c(1.5 * 2**23)), _c(-1.5 * 2**23))),
    "factors that vanish together stay": (_v("MUL", _v("MUL", V, _c(1e-30)), _c(1e-30)),
                                          _v("MUL", _v("MUL", V, _c(1e-30)), _c(1e-30))),
}


@pytest.mark.parametrize("name", CHAINS)
def test_chain(name):
    before, after = CHAINS[name]
    result, = rewritten(fold_affine, before, tolerance=5e-7)
    assert result is after


def test_a_power_of_two_divides_exactly_and_half_precision_knows_its_range():
    x = input_node("x", (4,), "float16")
    kept = elementwise("DIV", x, full(2.0**15, (4,), "float16"))
    assert rewritten(fold_affine, kept) == [kept]
    moved, = rewritten(fold_affine, elementwise("DIV", x, full(8, (4,), "float16")))
    assert moved.op == "MUL"


def test_integer_chains_wrap():
    i = input_node("i", (4,), "int8")
    made = elementwise("MUL", elementwise("MUL", i, full(100, (4,), "int8")), full(3, (4,), "int8"))
    result, = rewritten(fold_affine, made)
    assert result is elementwise("MUL", i, full(44, (4,), "int8"))
    shifted = elementwise("SUB", elementwise("ADD", i, full(100, (4,), "int8")), full(-100, (4,), "int8"))
    assert rewritten(fold_affine, shifted) == [elementwise("ADD", i, full(-56, (4,), "int8"))]


def test_constants_stay_as_small_as_they_are():
    x = input_node("x", (1, 16, 500, 500), "float32")
    made = apply("ADD", apply("ADD", x, _channels(16)), _literal(16, 1, 1))
    graph = fold_affine(graph_of(made))
    assert max(c.size for c in graph.nodes() if c.op == "CONST") == 16


def test_an_inner_value_with_other_users_stays():
    inner = _v("ADD", V, _c(0.25))
    graph = graph_of(_v("ADD", inner, _c(0.5)), inner)
    assert fold_affine(graph) is graph


def test_scales_before_a_rounding_stay_as_they_are():
    x = input_node("steps", (4, 3), "float32")
    product = apply("MUL", x, scalar(0.1, "float32"))
    for made in (
        apply("DIV", product, scalar(0.3, "float32")),
        apply("DIV", apply("ADD", product, scalar(0.7, "float32")), scalar(0.3, "float32")),
    ):
        rounded = build.elementwise("ROUND", made)
        assert rewritten(fold_affine, rounded) == [rounded]


def test_plain_sums_before_a_rounding_keep_their_scale():
    x = input_node("steps", (4, 3), "float32")
    total = build.reduce("SUM", apply("MUL", x, scalar(0.1, "float32")), [1])
    rounded = build.elementwise("ROUND", apply("DIV", total, scalar(0.3, "float32")))
    assert rewritten(fold_affine, rounded) == [rounded]
