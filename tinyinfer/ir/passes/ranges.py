"""Intervals that values lie in whatever is fed: what integer arithmetic and casts give for free."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tinyinfer.ir.node import Node
from tinyinfer.ir.oracle import is_float

LARGEST = 3.0e38
"""Floats that may grow beyond this count as unknown: they may be infinite."""

DEPTH = 64
"""Nodes that one question looks below; what it did not reach counts as unknown."""


@dataclass(frozen=True)
class Range:
    """`low` to `high`, both included; never NaN or infinite. `integral`: integers only."""

    low: float
    high: float
    integral: bool

    @property
    def magnitude(self) -> float:
        return max(abs(self.low), abs(self.high))


def of_dtype(dtype: str) -> Range | None:
    """All values of an integer dtype or bool; None for floats and types that numpy lacks."""
    if dtype == "bool":
        return Range(0, 1, True)
    try:
        kind = np.dtype(dtype)
    except TypeError:
        return None
    if kind.kind not in "iu":
        return None
    limits = np.iinfo(kind)
    return Range(int(limits.min), int(limits.max), True)


class Ranges:
    """Answers for the nodes of one graph, remembered."""

    def __init__(self) -> None:
        self._known: dict[int, Range | None] = {}
        self._alive: list[Node] = []

    def of(self, x: Node, depth: int = DEPTH) -> Range | None:
        """The range of `x`; None for a float that may be anything."""
        if id(x) not in self._known:
            if not depth:
                return of_dtype(x.dtype)
            found = self._compute(x, depth - 1)
            everything = of_dtype(x.dtype)
            if everything is not None:
                # integers that leave their type wrap around
                outside = found is None or found.low < everything.low or found.high > everything.high
                found = everything if outside else found
            elif found is not None and found.magnitude > LARGEST:
                found = None
            self._known[id(x)] = found
            self._alive.append(x)
        return self._known[id(x)]

    def _compute(self, x: Node, depth: int) -> Range | None:
        if x.op == "CONST":
            return _of_literal(x)
        if x.op == "VIEW":
            found = self.of(x.inputs[0], depth)
            return _union([found, _point(x.attrs.fill)]) if x.attrs.guards else found
        if x.op == "CONCAT" or (x.is_reduce and x.op in ("MAX", "MIN") and x.inputs[0].size):
            return _union([self.of(y, depth) for y in x.inputs])
        if x.is_reduce and x.op == "SUM":
            length = x.inputs[0].size // max(x.size, 1)
            return _scaled(self.of(x.inputs[0], depth), length, x.dtype)
        if x.op == "CAST":
            return _cast(self.of(x.inputs[0], depth), x)
        if x.is_elementwise and x.op in _RULES:
            found_all = [self.of(y, depth) for y in x.inputs]
            known = [y for y in found_all if y is not None]
            if len(known) < len(found_all):
                return None
            return _outward(_RULES[x.op](*known), x.dtype)
        return None


def _of_literal(x: Node) -> Range | None:
    array = x.attrs.array
    if not array.size or array.dtype.kind not in "iufb":
        return None
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    integral = array.dtype.kind != "f" or bool((array == np.trunc(array)).all())
    return Range(low, high, integral)


def _point(value: float) -> Range | None:
    return Range(value, value, float(value).is_integer()) if math.isfinite(value) else None


def _union(ranges: Sequence[Range | None]) -> Range | None:
    known = [r for r in ranges if r is not None]
    if len(known) < len(ranges) or not known:
        return None
    return Range(min(r.low for r in known), max(r.high for r in known), all(r.integral for r in known))


def _scaled(x: Range | None, length: int, dtype: str) -> Range | None:
    """A sum of `length` values; in any order, each addition of floats rounding."""
    if x is None:
        return None
    total = Range(min(x.low * length, 0), max(x.high * length, 0), x.integral)
    if not is_float(dtype):
        return total
    slack = total.magnitude * length * 2.0**-23
    return Range(total.low - slack, total.high + slack, x.integral)


def _outward(x: Range | None, dtype: str) -> Range | None:
    """The range with what one rounding of a float adds."""
    if x is None or not is_float(dtype):
        return x
    if dtype not in ("float32", "float64"):
        return None
    slack = 0.0 if x.integral and x.magnitude < 1 << 24 else x.magnitude * 2.0**-23
    return Range(x.low - slack, x.high + slack, x.integral)


def _cast(source: Range | None, x: Node) -> Range | None:
    target = of_dtype(x.dtype)
    if x.dtype == "bool" or source is None:
        return target
    if target is None:
        return _outward(source, x.dtype)
    if not is_float(x.inputs[0].dtype):
        return source
    # floats saturate
    low, high = (min(max(math.trunc(v), target.low), target.high) for v in (source.low, source.high))
    return Range(low, high, True)


def _multiply(a: Range, b: Range) -> Range:
    corners = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    return Range(min(corners), max(corners), a.integral and b.integral)


def _divide(a: Range, b: Range) -> Range | None:
    if b.low <= 0 <= b.high:
        return None
    corners = [x / y for x in (a.low, a.high) for y in (b.low, b.high)]
    return Range(min(corners), max(corners), False)


def _rounded(a: Range) -> Range:
    return Range(math.floor(a.low), math.ceil(a.high), True)


_RULES: dict[str, Callable[..., Range | None]] = {
    "SIGMOID": lambda a: Range(0, 1, False),
    "TANH": lambda a: Range(-1, 1, False),
    "ADD": lambda a, b: Range(a.low + b.low, a.high + b.high, a.integral and b.integral),
    "SUB": lambda a, b: Range(a.low - b.high, a.high - b.low, a.integral and b.integral),
    "MUL": _multiply,
    "DIV": _divide,
    "NEG": lambda a: Range(-a.high, -a.low, a.integral),
    "ABS": lambda a: Range(0, a.magnitude, a.integral),
    "MAX": lambda a, b: Range(max(a.low, b.low), max(a.high, b.high), a.integral and b.integral),
    "MIN": lambda a, b: Range(min(a.low, b.low), min(a.high, b.high), a.integral and b.integral),
    "WHERE": lambda c, a, b: Range(min(a.low, b.low), max(a.high, b.high), a.integral and b.integral),
    "ROUND": _rounded,
    "FLOOR": _rounded,
    "CEIL": _rounded,
    "TRUNC": _rounded,
}
