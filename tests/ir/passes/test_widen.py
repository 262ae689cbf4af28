"""Sums of narrow floats: accumulated in float32, rounded once."""

import numpy as np
import pytest
from rules import graph_of, ops, rewritten

from tinyinfer.ir import build
from tinyinfer.ir.build import constant, elementwise, input_node
from tinyinfer.ir.oracle import evaluate
from tinyinfer.ir.passes import optimize
from tinyinfer.ir.passes.widen import widen_sums

X = input_node("x", (4, 3000), "float16")


def test_sums_of_float32_stay():
    graph = graph_of(build.reduce("SUM", input_node("x", (4, 3), "float32"), (1,)))
    assert widen_sums(graph) is graph


@pytest.mark.parametrize("op", ["SUM", "PROD"])
def test_a_sum_is_computed_in_float32_and_has_its_old_dtype(op):
    result, = rewritten(widen_sums, build.reduce(op, X, (1,)), tolerance=2e-2)
    assert result.dtype == "float16" and ops(result) == ["CAST", "CAST", op]
    assert result.inputs[0].dtype == "float32"


def test_a_maximum_rounds_nothing_and_stays():
    graph = graph_of(build.reduce("MAX", X, (1,)))
    assert widen_sums(graph) is graph


def test_ones_add_up_past_the_bits_of_float16():
    result, = optimize(graph_of(build.reduce("SUM", X, (1,)))).outputs.values()
    assert evaluate([result], {"x": np.ones((4, 3000), np.float16)})[0].tolist() == [3000] * 4


def test_operands_of_a_product_are_converted_where_they_lie():
    weights = constant(np.linspace(-1, 1, 3000 * 5).astype(np.float16).reshape(3000, 5))
    graph = optimize(graph_of(elementwise("NEG", build.matmul(X, weights))))
    product = next(n for n in graph.nodes() if n.op == "MUL")
    assert product.dtype == "float32" and [x.op for x in product.inputs] == ["VIEW", "VIEW"]
    assert product.inputs[1].inputs[0].op == "CONST"
    assert product.inputs[0].inputs[0].op == "CAST" and product.inputs[0].inputs[0].shape == X.shape
