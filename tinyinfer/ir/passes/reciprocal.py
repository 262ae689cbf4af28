"""Division by a constant as multiplication by its reciprocal: a tenth of the time, at most one rounding more.

Divisions whose value reaches a rounding, a comparison or an integer stay as they are: there one rounding more
could become a whole step.
"""

from __future__ import annotations

import numpy as np

from tinyinfer.ir import build
from tinyinfer.ir.node import Graph, Node
from tinyinfer.ir.oracle import is_float
from tinyinfer.ir.passes.constants import uniform_value
from tinyinfer.ir.passes.rewrite import Users, rewrite

EXACT = frozenset(
    ("ROUND", "FLOOR", "CEIL", "TRUNC", "MOD", "FMOD", "CMPLT", "CMPLE", "CMPEQ", "CMPNE", "BITCAST")
)
"""Ops whose result can jump when their input moves by one rounding."""


def multiply_by_reciprocal(graph: Graph) -> Graph:
    """`x / c` as `x · (1 / c)` for a uniform float constant with a normal reciprocal, where no jump depends
    on it."""
    watched = _feeding_jumps(graph)

    def rule(x: Node, users: Users) -> Node | None:
        if id(x) in watched or not is_float(x.dtype) or x.dtype not in ("float32", "float64"):
            return None
        divisor = uniform_value(x.inputs[1])
        if not divisor or not np.isfinite(divisor):
            return None
        scale = np.dtype(x.dtype).type(1.0 / divisor)
        if not np.isfinite(scale) or abs(scale) < np.finfo(x.dtype).tiny:
            return None
        return build.elementwise("MUL", x.inputs[0], build.full(scale, x.shape, x.dtype))

    return rewrite(graph, {"DIV": (rule,)})


def _feeding_jumps(graph: Graph) -> set[int]:
    """Ids of the values that reach an exact op through elementwise ops and views alone."""
    watched: set[int] = set()
    for x in reversed(graph.nodes()):
        to_integer = x.op == "CAST" and not is_float(x.dtype)
        if x.op in EXACT or to_integer or (id(x) in watched and (x.is_elementwise or x.op == "VIEW")):
            watched.update(id(y) for y in x.inputs)
    return watched
