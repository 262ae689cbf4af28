"""Reverse-mode differentiation of the IR: one table of rules, one walk against the order of the graph.

A rule takes a node and the gradient of the loss by it, and gives the gradient by each of its inputs (None
where the node does not depend on it smoothly). Conventions at points without a derivative: of two equal
inputs of MAX and MIN the second takes all (so that relu, MAX(x, 0), has slope 0 at 0), equal extremes of a
reduction share, ABS has slope 0 at 0, and rounding has slope 0 everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tinyinfer.errors import NotImplemented as NotSupported
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.node import Node, topological_order
from tinyinfer.training.loops import gradients_of_loop
from tinyinfer.training.transpose import spread_over, transposed_scatter, transposed_view

Rule = Callable[[Node, Node], Sequence[Node | None]]


def gradients(outputs: Sequence[Node], inputs: Sequence[Node], seeds: Sequence[Node]) -> list[Node]:
    """The gradient of Σ seeds · outputs by each of `inputs`, of its shape and dtype; zeros where none flows.

    `inputs` are any float nodes; the gradient by one goes through it to those that it depends on. Raises
    NotImplemented, with the op's name, where a value that matters has no rule.
    """
    order = topological_order(outputs)
    depends = {id(x) for x in inputs}
    for node in order:
        if id(node) not in depends and any(id(x) in depends for x in node.inputs):
            depends.add(id(node))
    flowing: dict[int, Node] = {}
    out_of_loops: dict[int, dict[int, Node]] = {}

    def join(node: Node, gradient: Node) -> None:
        before = flowing.get(id(node))
        flowing[id(node)] = gradient if before is None else elementwise("ADD", before, gradient)

    for output, seed in zip(outputs, seeds, strict=True):
        if seed.shape != output.shape or seed.dtype != output.dtype:
            raise ValueError(f"the seed {seed!r} does not fit the output {output!r}")
        join(output, seed)
    for node in reversed(order):
        if node.op == "LOOP" and id(node) in depends and id(node) in out_of_loops:
            for source, part in zip(node.inputs, gradients_of_loop(node, out_of_loops[id(node)])):
                if part is not None and id(source) in depends:
                    join(source, part)
            continue
        gradient = flowing.get(id(node))
        if gradient is None or id(node) not in depends or not node.inputs or not is_float(node.dtype):
            continue
        if node.op == "LOOP_OUTPUT":
            out_of_loops.setdefault(id(node.inputs[0]), {})[node.attrs] = gradient
            continue
        for source, part in zip(node.inputs, gradients_of_inputs(node, gradient)):
            if part is not None and id(source) in depends and is_float(source.dtype):
                join(source, part)
    return [flowing.get(id(x)) or build.full(0, x.shape, x.dtype) for x in inputs]


def gradients_of_inputs(node: Node, gradient: Node) -> Sequence[Node | None]:
    """The rule of one node, applied."""
    rule = REDUCE_RULES.get(node.op) if node.is_reduce else RULES.get(node.op)
    if rule is None:
        raise NotSupported(f"{node.op} has no gradient")
    return rule(node, gradient)


def is_float(dtype: str) -> bool:
    """Whether values of a dtype can have a gradient."""
    return dtype.startswith(("float", "bfloat"))


# ---- shorthands


def _fill(value: float, x: Node) -> Node:
    return build.full(value, x.shape, x.dtype)


def _add(a: Node, b: Node) -> Node:
    return elementwise("ADD", a, b)


def _sub(a: Node, b: Node) -> Node:
    return elementwise("SUB", a, b)


def _mul(a: Node, b: Node) -> Node:
    return elementwise("MUL", a, b)


def _div(a: Node, b: Node) -> Node:
    return elementwise("DIV", a, b)


def _neg(a: Node) -> Node:
    return elementwise("NEG", a)


def _where(condition: Node, a: Node, b: Node) -> Node:
    return elementwise("WHERE", condition, a, b)


def _less(a: Node, b: Node) -> Node:
    return elementwise("CMPLT", a, b)


def _equal(a: Node, b: Node) -> Node:
    return elementwise("CMPEQ", a, b)


# ---- elementwise


def _none(node: Node, g: Node) -> Sequence[Node | None]:
    return [None] * len(node.inputs)


def _abs(y: Node, g: Node) -> Sequence[Node | None]:
    x, zero = y.inputs[0], _fill(0, y)
    return [_where(_less(x, zero), _neg(g), _where(_less(zero, x), g, zero))]


def _erf(y: Node, g: Node) -> Sequence[Node | None]:
    x = y.inputs[0]
    bell = elementwise("EXP", _neg(_mul(x, x)))
    return [_mul(g, _mul(bell, _fill(2 / math.sqrt(math.pi), x)))]


def _divide(y: Node, g: Node) -> Sequence[Node | None]:
    b = y.inputs[1]
    part = _div(g, b)
    return [part, _neg(_mul(part, y))]


def _remainder(rounding: str) -> Rule:
    def rule(y: Node, g: Node) -> Sequence[Node | None]:
        a, b = y.inputs
        return [g, _neg(_mul(g, elementwise(rounding, _div(a, b))))]

    return rule


def _larger(y: Node, g: Node) -> Sequence[Node | None]:
    a, b = y.inputs
    zero = _fill(0, g)
    first = _less(b, a) if y.op == "MAX" else _less(a, b)
    return [_where(first, g, zero), _where(first, zero, g)]


def _power(y: Node, g: Node) -> Sequence[Node | None]:
    a, b = y.inputs
    zero, one = _fill(0, a), _fill(1, a)
    # where b is 0 the slope is 0, though a^(b - 1) is infinite at a = 0
    lower = _where(_equal(b, zero), zero, _mul(b, elementwise("POW", a, _sub(b, one))))
    # a^b log a goes to 0 with a
    logarithm = elementwise("LOG", _where(_equal(a, zero), one, a))
    return [_mul(g, lower), _mul(g, _mul(y, logarithm))]


def _choice(y: Node, g: Node) -> Sequence[Node | None]:
    condition, zero = y.inputs[0], _fill(0, g)
    return [None, _where(condition, g, zero), _where(condition, zero, g)]


def _cast(y: Node, g: Node) -> Sequence[Node | None]:
    source = y.inputs[0]
    return [build.cast(g, source.dtype) if is_float(source.dtype) else None]


# ---- reductions


def _sum(y: Node, g: Node) -> Sequence[Node | None]:
    x = y.inputs[0]
    return [spread_over(g, x.shape, y.attrs)]


def _extreme(y: Node, g: Node) -> Sequence[Node | None]:
    x = y.inputs[0]
    best = build.cast(_equal(x, spread_over(y, x.shape, y.attrs)), x.dtype)
    share = _div(g, build.reduce("SUM", best, y.attrs))
    return [_mul(best, spread_over(share, x.shape, y.attrs))]


def _product(y: Node, g: Node) -> Sequence[Node | None]:
    """Each element's slope is the product of the others: also where one of them, or itself, is 0."""
    x = y.inputs[0]
    zero, one = _fill(0, x), _fill(1, x)
    empty = _equal(x, zero)
    count = spread_over(build.reduce("SUM", build.cast(empty, x.dtype), y.attrs), x.shape, y.attrs)
    filled = _where(empty, one, x)
    whole = spread_over(build.reduce("PROD", filled, y.attrs), x.shape, y.attrs)
    others = _where(_equal(count, zero), _div(whole, filled), zero)
    only = elementwise("AND", empty, _equal(count, one))
    return [_mul(_where(only, whole, others), spread_over(g, x.shape, y.attrs))]


# ---- movement


def _concat(y: Node, g: Node) -> Sequence[Node | None]:
    parts, start = [], 0
    for x in y.inputs:
        first, last = [0] * len(y.shape), list(y.shape)
        first[y.attrs], last[y.attrs] = start, start + x.shape[y.attrs]
        parts.append(build.shrink(g, first, last))
        start = last[y.attrs]
    return parts


RULES: dict[str, Rule] = {
    "NEG": lambda y, g: [_neg(g)],
    "ABS": _abs,
    "RECIP": lambda y, g: [_neg(_mul(g, _mul(y, y)))],
    "SQRT": lambda y, g: [_div(_mul(g, _fill(0.5, g)), y)],
    "EXP": lambda y, g: [_mul(g, y)],
    "LOG": lambda y, g: [_div(g, y.inputs[0])],
    "SIN": lambda y, g: [_mul(g, elementwise("COS", y.inputs[0]))],
    "COS": lambda y, g: [_neg(_mul(g, elementwise("SIN", y.inputs[0])))],
    "TANH": lambda y, g: [_mul(g, _sub(_fill(1, y), _mul(y, y)))],
    "ERF": _erf,
    "SIGMOID": lambda y, g: [_mul(g, _mul(y, _sub(_fill(1, y), y)))],
    "FLOOR": _none,
    "CEIL": _none,
    "ROUND": _none,
    "TRUNC": _none,
    "BITCAST": _none,
    "CAST": _cast,
    "ADD": lambda y, g: [g, g],
    "SUB": lambda y, g: [g, _neg(g)],
    "MUL": lambda y, g: [_mul(g, y.inputs[1]), _mul(g, y.inputs[0])],
    "DIV": _divide,
    "MOD": _remainder("FLOOR"),
    "FMOD": _remainder("TRUNC"),
    "MAX": _larger,
    "MIN": _larger,
    "POW": _power,
    "WHERE": _choice,
    "MULACC": lambda y, g: [_mul(g, y.inputs[1]), _mul(g, y.inputs[0]), g],
    "VIEW": lambda y, g: [transposed_view(y, g), *[None] * (len(y.inputs) - 1)],
    "SCATTER": transposed_scatter,
    "CONCAT": _concat,
}
"""Gradients by the inputs of elementwise and movement ops."""

REDUCE_RULES: dict[str, Rule] = {"SUM": _sum, "MAX": _extreme, "MIN": _extreme, "PROD": _product}
"""Gradients by the input of a reduction. MAX and MIN name elementwise ops too."""
