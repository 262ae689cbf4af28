"""Constant folding: what becomes a literal, how large, and what stays."""

import numpy as np
from rules import graph_of, ops, rewritten

from tinyinfer.ir import build
from tinyinfer.ir.build import apply, constant, elementwise, full, input_node, scalar
from tinyinfer.ir.passes.constants import combine, is_constant, uniform_value, used_axes
from tinyinfer.ir.passes.fold import fold_constants

X = input_node("x", (2, 3, 4), "float32")
RNG = np.random.default_rng(3)


def _literal(*shape, dtype="float32"):
    return constant(RNG.standard_normal(shape).astype(dtype))


def _literals(*outputs):
    return [x for x in graph_of(*outputs).nodes() if x.op == "CONST"]


def test_arithmetic_on_constants_becomes_one_literal():
    scale = apply("SQRT", apply("ADD", apply("ABS", _literal(3, 1)), scalar(1e-5, "float32")))
    result, = rewritten(fold_constants, apply("DIV", X, scale))
    assert ops(result) == ["DIV"] and len(_literals(result)) == 1


def test_repeated_axes_are_not_materialised():
    scale = elementwise("EXP", build.expand(_literal(3, 1), (2, 3, 4)))
    result, = rewritten(fold_constants, elementwise("MUL", X, scale))
    assert [c.size for c in _literals(result)] == [3]
    assert used_axes(result.inputs[1]) == {1}


def test_an_expanded_scalar_stays_recognisable():
    two = elementwise("ADD", full(1, (2, 3, 4), "float32"), full(1, (2, 3, 4), "float32"))
    result, = rewritten(fold_constants, elementwise("MUL", X, two))
    assert result.inputs[1] is full(2, (2, 3, 4), "float32")
    assert uniform_value(result.inputs[1]) == 2


def test_views_of_literals_stay_views():
    weights = build.permute(build.reshape(_literal(24), (4, 3, 2)), (2, 1, 0))
    graph = graph_of(elementwise("ADD", X, weights))
    assert fold_constants(graph) is graph


def test_a_movement_output_stays_a_view():
    result, = rewritten(fold_constants, build.expand(elementwise("NEG", _literal(3)), (100, 3)))
    assert result.op == "VIEW" and result.inputs[0].op == "CONST" and result.inputs[0].size == 3


def test_reductions_concatenations_gathers_and_casts_of_constants():
    table = _literal(5, 4)
    rows = build.gather(table, constant(np.array([[0, 4, 2], [1, 1, 3]])), 0)
    joined = build.concat([rows, build.cast(_literal(2, 3, 4, dtype="float64"), "float32")], 1)
    total = build.expand(build.reduce("SUM", joined, (1,), keepdims=True), (2, 3, 4))
    result, = rewritten(fold_constants, elementwise("MUL", X, total))
    assert ops(result) == ["MUL"]


def test_a_gather_is_not_folded_into_something_much_larger():
    table, index_ = _literal(8, 4), build.constant(RNG.integers(0, 8, 9000))
    result, = rewritten(fold_constants, build.gather(table, index_, 0))
    assert len(result.inputs) == 2


def test_small_positions_fold_and_large_ones_are_computed_where_they_are_used():
    def mask(n):
        rows, columns = build.iota((n, n), 0), build.iota((n, n), 1)
        scores = input_node("s", (n, n), "float32")
        hidden = full(-np.inf, (n, n), "float32")
        return elementwise("WHERE", elementwise("CMPLE", columns, rows), scores, hidden)

    small, = rewritten(fold_constants, mask(16))
    assert ops(small) == ["WHERE"]
    large = graph_of(mask(200))
    assert fold_constants(large) is large


def test_outer_sums_of_literals_fold():
    bias = apply("ADD", _literal(200, 1), _literal(200))
    result, = rewritten(fold_constants, apply("ADD", input_node("x", (200, 200), "float32"), bias))
    assert ops(result) == ["ADD"]


def test_arithmetic_that_grows_without_bound_stays():
    left, right = _literal(6000, 1), _literal(6000)
    graph = graph_of(build.shrink(apply("ADD", left, right), (0, 0), (2, 2)))
    assert fold_constants(graph) is graph


def test_a_contraction_of_constants_folds_without_its_product():
    left, right = _literal(300, 300), _literal(300, 300)  # a product of 27 million elements
    x = input_node("x", (300, 300), "float32")
    result, = rewritten(fold_constants, apply("ADD", x, build.matmul(left, right)))
    assert ops(result) == ["ADD"]


def test_known_outputs_and_shared_subexpressions():
    shared = elementwise("EXP", _literal(4))
    first, second, third = rewritten(fold_constants, shared, elementwise("NEG", shared),
                                     apply("MUL", X, elementwise("NEG", shared)))
    assert first.op == second.op == "CONST" and third.op == "MUL"


def test_combine_broadcasts_and_stays_small():
    rows, columns = (build.expand(c, (1000, 3, 5)) for c in (_literal(3, 1), _literal(5)))
    made = combine("ADD", rows, columns)
    assert is_constant(made) and made.shape == (1000, 3, 5) and made.inputs[0].shape == (3, 5)
    compared = combine("CMPLE", rows, rows)
    assert compared.dtype == "bool" and uniform_value(compared) is True
    permuted = combine("NEG", build.permute(_literal(3, 5), (1, 0)))
    assert permuted.op == "CONST" and permuted.shape == (5, 3)
