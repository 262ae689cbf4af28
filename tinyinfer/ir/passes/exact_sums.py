"""Integer contractions as float ones where every partial sum is exact: integers below 2²⁴ are floats.

A float multiply-add is one instruction where an integer one is two, and quantised networks then need no
conversion between layers: their epilogues round, clamp and shift floats that hold integers. Sums that may
grow larger stay int32. Runs last: nothing else looks into its results.
"""

from __future__ import annotations

from math import prod

import numpy as np

from tinyinfer.ir import build
from tinyinfer.ir.node import Graph, Node
from tinyinfer.ir.oracle import is_contraction, is_float
from tinyinfer.ir.passes.constants import compact_value, is_constant
from tinyinfer.ir.passes.ranges import Ranges, of_dtype
from tinyinfer.ir.passes.rewrite import inherit, joined, transform

EXACT = 1 << 24
"""Integers up to this magnitude are float32 numbers."""

DEPTH = 16
"""Elementwise integer nodes in a row that are computed as floats instead."""

SAME_OPS = frozenset(("ADD", "SUB", "MUL", "MAX", "MIN", "NEG", "ABS"))
"""Elementwise ops that mean the same for integers and for floats that hold them."""


def exact_sums_as_floats(graph: Graph) -> Graph:
    """Contractions of integers whose sums stay below 2²⁴ in float32, and the casts around them as nothing."""
    order = graph.nodes()
    if not any(is_contraction(x) and x.dtype == "int32" for x in order):
        return graph
    ranges = Ranges()

    def replaced(old: Node, x: Node) -> Node:
        found = x
        if x.op == "SUM" and x.dtype == "int32" and is_contraction(x):
            found = _contraction(x, ranges)
        elif x.op == "CAST" and x.dtype == "float32" and not is_float(x.inputs[0].dtype):
            found = _as_float(x.inputs[0], ranges)
        if found is not x:
            inherit(found, x)
        return found

    return transform(graph, order, replaced)


def _contraction(x: Node, ranges: Ranges) -> Node:
    product = x.inputs[0]
    if largest_sum(product, x.attrs, ranges) >= EXACT:
        return x
    factors = [_as_float(y, ranges) for y in product.inputs]
    made = build.elementwise("MUL", *factors, origin=joined(product))
    total = build.reduce("SUM", made, x.attrs, origin=joined(x))
    return build.cast(total, "int32")


def largest_sum(product: Node, axes: tuple[int, ...], ranges: Ranges) -> float:
    """A bound on the magnitude of every partial sum."""
    left, right = product.inputs
    sizes = [ranges.of(y) for y in product.inputs]
    known = [s.magnitude for s in sizes if s is not None]
    if len(known) < 2:
        return float("inf")
    if max(known) >= EXACT:
        return float("inf")
    length = prod(product.shape[a] for a in axes)
    bound = known[0] * known[1] * length
    for weights, other in ((left, known[1]), (right, known[0])):
        if bound >= EXACT and is_constant(weights):
            value = np.abs(compact_value(weights).astype(np.float64))
            repeats = prod(product.shape[a] // value.shape[a] for a in axes)
            bound = min(bound, float(value.sum(axis=tuple(axes)).max(initial=0)) * repeats * other)
    return bound


def _as_float(x: Node, ranges: Ranges, depth: int = DEPTH) -> Node:
    """The integers `x` as float32, computed in float32 where that is exact."""
    known = ranges.of(x)
    if known is None or known.magnitude > EXACT or not depth:
        return build.cast(x, "float32")
    made = _computed_as_float(x, ranges, depth - 1)
    if made is None:
        return build.cast(x, "float32")
    if x.op != "CONST" and made.op not in ("CONST", "INPUT"):
        inherit(made, x)
    return made


def _computed_as_float(x: Node, ranges: Ranges, depth: int) -> Node | None:
    if x.op == "CONST":
        return build.constant(x.attrs.array.astype(np.float32))
    if x.op == "VIEW" and len(x.inputs) == 1:
        source = _as_float(x.inputs[0], ranges, depth)
        return build.view(source, x.attrs.indices, x.shape, x.attrs.guards, x.attrs.fill)
    if x.op == "CAST":
        return _cast_as_float(x, ranges, depth)
    if x.is_elementwise and x.op in SAME_OPS:
        parts = [ranges.of(y) for y in x.inputs]
        if all(p is not None and p.magnitude <= EXACT for p in parts):
            return build.elementwise(x.op, *(_as_float(y, ranges, depth) for y in x.inputs))
    return None


def _cast_as_float(x: Node, ranges: Ranges, depth: int) -> Node | None:
    """A cast to integers as float32: nothing, or a clamp where it saturates."""
    source, limits = x.inputs[0], of_dtype(x.dtype)
    inner = ranges.of(source)
    if limits is None or inner is None or not inner.integral or source.dtype == "bool":
        return None
    inside = limits.low <= inner.low and inner.high <= limits.high
    if not is_float(source.dtype):
        return _as_float(source, ranges, depth) if inside else None
    if source.dtype != "float32" or limits.high > EXACT:
        return source if source.dtype == "float32" and inside else None
    value = source
    if inner.low < limits.low:
        value = build.apply("MAX", value, build.scalar(limits.low, "float32"))
    if inner.high > limits.high:
        value = build.apply("MIN", value, build.scalar(limits.high, "float32"))
    return value
