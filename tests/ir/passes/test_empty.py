"""Values without elements: literals afterwards, and what is read from them is known."""

import numpy as np
import pytest
from rules import graph_of, ops, rewritten

from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise, input_node
from tinyinfer.ir.oracle import evaluate
from tinyinfer.ir.passes.empty import remove_empty

NOTHING = input_node("nothing", (2, 0, 4), "float32")


def test_a_graph_without_empty_values_stays():
    graph = graph_of(elementwise("NEG", input_node("x", (3,), "float32")))
    assert remove_empty(graph) is graph


def test_an_empty_value_is_a_literal():
    result, = rewritten(remove_empty, elementwise("EXP", elementwise("NEG", NOTHING)))
    assert result.op == "CONST" and result.shape == (2, 0, 4)


def test_an_empty_output_that_is_an_input_stays_one():
    result, = rewritten(remove_empty, NOTHING)
    assert result is NOTHING


@pytest.mark.parametrize("op", ["SUM", "MAX", "MIN", "PROD"])
@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
def test_reductions_of_nothing_are_their_identity(op, dtype):
    total = build.reduce(op, input_node("nothing", (2, 0, 4), dtype), (1,))
    result, = rewritten(remove_empty, total)
    assert "INPUT" not in ops(result)
    expected, = evaluate([total], {"nothing": np.zeros((2, 0, 4), dtype)})
    np.testing.assert_array_equal(evaluate([result], {})[0], expected)


def test_a_padded_nothing_is_its_fill():
    result, = rewritten(remove_empty, build.pad(NOTHING, (0, 1, 0), (0, 2, 0), 7.0))
    assert "INPUT" not in ops(result)
    np.testing.assert_array_equal(evaluate([result], {})[0], np.full((2, 3, 4), 7, np.float32))
