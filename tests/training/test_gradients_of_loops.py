"""Gradients through loops equal numeric differentiation."""

import pytest
from test_gradients import check, values

from tinyinfer.errors import NotImplemented as NotSupported
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.loop import BodyResults, loop
from tinyinfer.ir.node import UNBOUNDED, Node
from tinyinfer.training.gradients import gradients


def _recurrent(x: Node, start: Node, weights: Node, backwards: bool = False) -> Node:
    """Outputs and final states of a recurrence whose weights are fed, side by side."""

    def body(number: Node, carried: list[Node], rows: list[Node]) -> BodyResults:
        state, steps = carried
        moved = elementwise("MUL", build.matmul(state, weights), rows[0])
        scale = build.expand(build.cast(steps, "float64"), moved.shape)
        state = elementwise("TANH", elementwise("ADD", moved, scale))
        counted = elementwise("ADD", steps, build.scalar(1, "int64"))
        return BodyResults([state, counted], [elementwise("MUL", state, carried[0])])

    made = loop(
        body, [start, build.scalar(0, "int64")], x.shape[0], [(x, backwards)], lambda _: not backwards
    )
    final = build.reshape(made.final[0], (1, *made.final[0].shape))
    return build.concat([made.stacked[0], final], 0)


@pytest.mark.parametrize("backwards", [False, True])
def test_recurrences(backwards):
    x, start, weights = values((3, 2, 4), seed=1), values((2, 4), seed=2), values((4, 4), -0.5, 0.5, seed=3)
    check(lambda *nodes: _recurrent(*nodes, backwards), x, start, weights)


def test_what_flows_in_may_come_from_a_loop():
    def function(x: Node, start: Node) -> Node:
        first = _recurrent(x, start, build.constant(values((3, 3), -0.5, 0.5)))
        return _recurrent(first, start, build.constant(values((3, 3), -0.5, 0.5, seed=4)))

    check(function, values((2, 2, 3), seed=1), values((2, 3), seed=2))


def test_loops_in_loops():
    def function(x: Node, start: Node) -> Node:
        def outer(number: Node, carried: list[Node], rows: list[Node]) -> BodyResults:
            def inner(n: Node, c: list[Node], r: list[Node]) -> BodyResults:
                return BodyResults([elementwise("SIN", elementwise("MUL", c[0], rows[0]))])

            return BodyResults([loop(inner, carried, 2).final[0]])

        return loop(outer, [start], x.shape[0], [(x, False)]).final[0]

    check(function, values((3, 4), seed=1), values((4,), seed=2))


def test_a_loop_that_data_ends_has_none():
    start, count = build.input_node("start", (2,), "float32"), build.input_node("count", (), "int64")
    made = loop(lambda n, c, r: BodyResults([elementwise("NEG", c[0])]), [start], UNBOUNDED, count=count)
    with pytest.raises(NotSupported, match="data ends"):
        gradients(made.final, [start], [build.full(1, (2,), "float32")])
