"""Contractions of dequantised values as contractions of the integers behind them, scaled afterwards.

SUM(a·s · b·t) = SUM(a · b) · s·t, where a and b are integers as floats, and s and t constants that do not
vary along what is summed. The sum is exact, and so is closer to what the model means than float products are.
Runs before constants are folded: a folded weight has forgotten its scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyinfer.ir import build
from tinyinfer.ir.index import Index, index
from tinyinfer.ir.node import Graph, Node
from tinyinfer.ir.oracle import is_contraction, is_float
from tinyinfer.ir.passes.constants import compact_value, is_constant, used_axes
from tinyinfer.ir.passes.exact_sums import largest_sum
from tinyinfer.ir.passes.ranges import Ranges
from tinyinfer.ir.passes.rewrite import inherit, joined, transform

LARGEST = 1 << 31
"""What int32 sums must stay below."""


@dataclass(frozen=True)
class _Scaled:
    """An operand of a product as int32 values and the scale of each, both of the product's shape."""

    integers: Node
    scale: Node


def sum_integers(graph: Graph) -> Graph:
    """Every SUM of a MUL of two dequantised operands with constant scales as an int32 sum, scaled once."""
    ranges = Ranges()

    def replaced(old: Node, x: Node) -> Node:
        made = _contraction(x, ranges) if x.op == "SUM" and x.dtype == "float32" else None
        if made is None:
            return x
        inherit(made, x)
        return made

    return transform(graph, graph.nodes(), replaced)


def _contraction(x: Node, ranges: Ranges) -> Node | None:
    if not is_contraction(x):
        return None
    product = x.inputs[0]
    left, right = (_scaled(y) for y in product.inputs)
    if left is None or right is None:
        return None
    if any(used_axes(y.scale) & set(x.attrs) for y in (left, right)):
        return None
    integers = build.elementwise("MUL", left.integers, right.integers, origin=joined(product))
    if largest_sum(integers, x.attrs, ranges) >= LARGEST:
        return None
    total = build.reduce("SUM", integers, x.attrs, origin=joined(x))
    scale = build.elementwise("MUL", _at_sum(left.scale, x), _at_sum(right.scale, x))
    return build.elementwise("MUL", build.cast(total, "float32"), scale)


def _scaled(operand: Node) -> _Scaled | None:
    """The parts of `view(float32(integers) · constant)`; None for anything else."""
    value, movement = operand, None
    if operand.op == "VIEW" and len(operand.inputs) == 1:
        value, movement = operand.inputs[0], operand.attrs
    if value.op != "MUL":
        return None
    for cast, scale in (value.inputs, value.inputs[::-1]):
        source = cast.inputs[0] if cast.op == "CAST" else None
        if source is None or is_float(source.dtype) or source.dtype != "int32" or not is_constant(scale):
            continue
        if not np.isfinite(compact_value(scale)).all():
            return None
        if movement is None:
            return _Scaled(source, scale)
        if movement.guards and (movement.fill != 0 or used_axes(scale)):
            return None
        if not used_axes(scale):
            single = compact_value(scale).reshape(-1)[:1]
            spread = build.expand(build.constant(single.reshape(())), operand.shape)
        else:
            spread = build.view(scale, movement.indices, operand.shape)
        moved = build.view(source, movement.indices, operand.shape, movement.guards, 0)
        return _Scaled(moved, spread)
    return None


def _at_sum(scale: Node, total: Node) -> Node:
    """A scale of the product's shape that does not vary along the summed axes, in the shape of the sum."""
    kept = iter(index(a) for a in total.axes)
    places: list[Index] = [index(0) if i in total.attrs else next(kept) for i in range(len(scale.shape))]
    return build.view(scale, places, total.shape)
