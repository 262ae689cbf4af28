"""Division by constants: before and after."""

import numpy as np
import pytest

from tinyinfer.ir import build
from tinyinfer.ir.node import Graph
from tinyinfer.ir.oracle import evaluate
from tinyinfer.ir.passes.reciprocal import multiply_by_reciprocal

X = build.input_node("x", (5,), "float32")


def rewritten(node):
    graph = multiply_by_reciprocal(Graph({"x": X}, {"y": node}))
    return graph.outputs["y"]


def test_division_by_a_constant_becomes_a_multiplication():
    before = build.apply("DIV", X, build.scalar(3.0, "float32"))
    after = rewritten(before)
    assert after == build.apply("MUL", X, build.scalar(np.float32(1 / 3), "float32"))
    feeds = {"x": np.array([1, -2, 1e30, 0, np.inf], np.float32)}
    got, wanted = evaluate([after], feeds)[0], evaluate([before], feeds)[0]
    np.testing.assert_allclose(got, wanted, rtol=2e-7)


@pytest.mark.parametrize("op", ["ROUND", "FLOOR", "CEIL", "TRUNC"])
def test_divisions_that_are_rounded_stay(op):
    quotient = build.apply("DIV", X, build.scalar(3.0, "float32"))
    shifted = build.apply("ADD", quotient, build.scalar(1.0, "float32"))
    node = build.elementwise(op, shifted)
    assert rewritten(node) is node


def test_divisions_cast_to_integers_or_compared_stay():
    quotient = build.apply("DIV", X, build.scalar(3.0, "float32"))
    for node in (build.cast(quotient, "int32"), build.apply("CMPLT", quotient, X)):
        assert rewritten(node) is node


@pytest.mark.parametrize("divisor", [0.0, np.inf, 1e-45, 3e38])
def test_divisors_without_a_normal_reciprocal_stay(divisor):
    node = build.apply("DIV", X, build.scalar(np.float32(divisor), "float32"))
    assert rewritten(node) is node


def test_divisions_that_are_rounded_stay_over_changed_operands():
    mean = build.reduce("SUM", build.apply("DIV", X, build.scalar(3.0, "float32")), [0], keepdims=True)
    quotient = build.apply("DIV", mean, build.scalar(7.0, "float32"))
    after = rewritten(build.elementwise("ROUND", quotient))
    assert after.inputs[0].op == "DIV"
    assert after.inputs[0].inputs[0] is not mean
