"""Larger graphs of the device suite: loops, and values that the QCOM device keeps in images."""

from __future__ import annotations

import numpy as np
from device_cases import Cases, defined, select, spread
from image_graphs import GRAPHS, image_case
from loop_graphs import counted, normalised, recurrent
from random_graphs import Case

from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.loop import BodyResults, loop
from tinyinfer.ir.node import Graph, Node
from tinyinfer.ir.ops import ELEMENTWISE, REDUCE

# ---- loops


def _case(graph: Graph, **feeds: np.ndarray) -> Case:
    """A graph, fed with these arrays and else with random numbers."""
    rng = np.random.default_rng(0)
    numbers = {n: np.asarray(rng.standard_normal(x.shape)).astype(x.dtype) for n, x in graph.inputs.items()}
    return Case(list(graph.outputs.values()), numbers | feeds, scale=1.0, factor=4.0)


def _number(number: Node, shape: tuple[int, ...]) -> Node:
    return build.expand(build.cast(number, "float32"), shape)


def _until(limit: float) -> Graph:
    """Adds the iteration's number until the least sum reaches `limit`; "enter" decides whether to begin."""
    start, enter = build.input_node("start", (3,), "float32"), build.input_node("enter", (), "bool")

    def body(number: Node, carried: list[Node], rows: list[Node]) -> BodyResults:
        total = elementwise("ADD", carried[0], _number(number, (3,)))
        least = build.reduce("MIN", total, [0])
        return BodyResults([total], condition=elementwise("CMPLT", least, build.scalar(limit, "float32")))

    made = loop(body, [start], condition=enter)
    return Graph({"start": start, "enter": enter}, {"last": made.final[0], "n": made.done})


def _nested(inner_steps: int, outer_steps: int) -> Graph:
    """A loop over rows in a loop over rows, both backwards; the inner one reads what the outer carries."""
    x = build.input_node("x", (outer_steps, inner_steps, 2, 5), "float32")
    start = build.input_node("start", (2, 5), "float32")

    def outer(number: Node, carried: list[Node], rows: list[Node]) -> BodyResults:
        def inner(n: Node, c: list[Node], r: list[Node]) -> BodyResults:
            product = elementwise("MUL", c[0], r[0])
            mixed = elementwise("ADD", elementwise("ADD", product, carried[1]), _number(n, (2, 5)))
            return BodyResults([elementwise("TANH", mixed)], [product])

        made = loop(inner, [carried[0]], inner_steps, [(rows[0], True)], lambda i: True)
        total = build.reduce("SUM", made.stacked[0], [0])
        return BodyResults([made.final[0], total], [made.stacked[0], elementwise("NEG", carried[1])])

    made = loop(outer, [start, start], outer_steps, [(x, True)], lambda i: i == 1)
    return Graph({"x": x, "start": start}, dict(zip("abcd", [*made.final, *made.stacked], strict=True)))


def _swapped() -> Graph:
    """Two carried values that change places."""
    start = [build.input_node(name, (2, 3), "float32") for name in "ab"]
    made = loop(lambda n, c, r: BodyResults([c[1], c[0]], [c[0]]), start, 3)
    return Graph(dict(zip("ab", start)), {"a": made.final[0], "b": made.final[1], "y": made.stacked[0]})


def loops() -> Cases:
    """Loops over rows, loops that a number or a condition from data ends, at once too, and loops in loops."""
    made = {"forwards": _case(recurrent(False)), "backwards": _case(recurrent(True))}
    made["normalised"] = _case(normalised())
    for count in (-1, 0, 5, 9):
        made[f"count {count}"] = _case(counted(), count=np.array(count))
    for limit, enter in ((0.0, True), (11.0, True), (11.0, False)):
        start = np.zeros(3, np.float32)
        made[f"until {limit} {enter}"] = _case(_until(limit), start=start, enter=np.array(enter))
    return made | {"nested": _case(_nested(3, 4)), "once": _case(_nested(1, 3)), "swapped": _case(_swapped())}


# ---- images


_STEPS = ("FLOOR", "CEIL", "ROUND", "TRUNC", "MOD", "FMOD")
"""Ops that turn a rounding into a difference of 1."""

_POSITIVE = ("LOG", "SQRT", "RECIP", "POW")


def image_arithmetic() -> Case:
    """Every continuous op of floats, every reduction, and movements of 7 x 5 pixels of 12 channels, some of
    them infinite or NaN."""
    rng = np.random.default_rng(4)
    first = build.input_node("x", (1, 3, 7, 5), "float32")
    w = build.constant((rng.standard_normal((12, 3, 1, 1)) / 2).astype(np.float32))
    x = build.stored(build.convolution(first, w, [1, 1], [1, 1], [0, 0], [0, 0]))
    floats = [op for op in ELEMENTWISE if defined(op, "float32") and ELEMENTWISE[op].result == "same"]
    ops = [op for op in floats if op not in _STEPS]
    many = spread(x, len(ops))
    positive = elementwise("ADD", elementwise("ABS", many), build.full(0.5, many.shape, "float32"))
    operands = [many, positive, many]
    results = []
    for op in ops:
        inputs = [positive, many, many] if op in _POSITIVE else operands
        if op == "WHERE":
            inputs = [elementwise("CMPLT", many, build.full(0.25, many.shape, "float32")), *operands]
        results.append(elementwise(op, *inputs[: ELEMENTWISE[op].arity]))
    outputs = [select(results)]
    outputs += [build.reduce(op, x, axes) for op, axes in zip(REDUCE, ([2, 3], [1], [1, 2], [3]))]
    outputs.append(build.pad(build.flip(x, [3]), [0, 0, 1, 0], [0, 0, 0, 2], 2.0))
    outputs.append(build.permute(x, [0, 3, 1, 2]))
    outputs.append(build.reshape(build.expand(x, (2, *x.shape[1:])), (24, 35)))
    feed = rng.standard_normal(first.shape).astype(np.float32)
    feed[0, 0, 0, 1], feed[0, 1, 3, 2], feed[0, 2, 6, 4] = np.inf, np.nan, -np.inf
    return Case(outputs, {"x": feed}, scale=10.0, factor=2.0)


IMAGE_SEEDS = 2


def image_program(name: str, first: int = 0, count: int = IMAGE_SEEDS) -> Cases:
    """Random graphs of one kind whose values fill texels."""
    made = {f"{name} {seed}": image_case(name, seed) for seed in range(first, first + count)}
    for chosen in made.values():
        chosen.scale = 1.0
    return made


IMAGE_PROGRAMS = {name: (lambda name=name: image_program(name)) for name in GRAPHS}
IMAGE_PROGRAMS["arithmetic"] = lambda: {"arithmetic": image_arithmetic()}
