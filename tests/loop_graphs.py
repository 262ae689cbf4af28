"""Graphs with loops for tests of several folders."""

from __future__ import annotations

import numpy as np

from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.loop import BodyResults, loop
from tinyinfer.ir.node import Graph, Node


def recurrent(backwards: bool) -> Graph:
    """A recurrent layer over nine rows, forwards or backwards."""
    weights = build.constant((np.random.default_rng(5).normal(size=(7, 7)) / 7).astype(np.float32))
    x, start = build.input_node("x", (9, 2, 7), "float32"), build.input_node("start", (2, 7), "float32")

    def body(number: Node, carried: list[Node], rows: list[Node]) -> BodyResults:
        state = elementwise("TANH", elementwise("ADD", rows[0], build.matmul(carried[0], weights)))
        return BodyResults([state], [state, carried[0]])

    made = loop(body, [start], 9, [(x, backwards)], lambda i: backwards)
    outputs = {"y": made.stacked[0], "before": made.stacked[1], "last": made.final[0], "n": made.done}
    return Graph({"start": start, "x": x}, outputs)


def normalised() -> Graph:
    """Rows are mixed by 64 x 64 weights and normalised by a softmax, five times: sums that groups share."""
    weights = build.constant(np.random.default_rng(5).normal(size=(64, 64)).astype(np.float32))
    x, start = build.input_node("x", (5, 2, 64), "float32"), build.input_node("start", (2, 64), "float32")

    def body(number: Node, carried: list[Node], rows: list[Node]) -> BodyResults:
        mixed = elementwise("ADD", rows[0], build.matmul(carried[0], weights))
        largest = build.expand(build.reshape(build.reduce("MAX", mixed, [1]), (2, 1)), (2, 64))
        powers = elementwise("EXP", elementwise("SUB", mixed, largest))
        total = build.expand(build.reshape(build.reduce("SUM", powers, [1]), (2, 1)), (2, 64))
        return BodyResults([elementwise("DIV", powers, total)], [mixed])

    made = loop(body, [start], 5, [(x, True)], lambda i: True)
    return Graph({"x": x, "start": start}, {"y": made.stacked[0], "last": made.final[0]})


def counted() -> Graph:
    """Adds the iteration's number; another loop inside doubles as often as the iteration's number says."""
    count, start = build.input_node("count", (), "int64"), build.input_node("start", (3,), "float32")

    def double(number: Node, carried: list[Node], rows: list[Node]) -> BodyResults:
        return BodyResults([elementwise("ADD", carried[0], carried[0])])

    def body(number: Node, carried: list[Node], rows: list[Node]) -> BodyResults:
        inner = loop(double, [carried[0]], 4, count=number).final[0]
        total = elementwise("ADD", inner, build.expand(build.cast(number, "float32"), (3,)))
        return BodyResults([total], [carried[0]])

    made = loop(body, [start], 6, count=count)
    outputs = {"last": made.final[0], "n": made.done, "y": made.stacked[0]}
    return Graph({"count": count, "start": start}, outputs)
