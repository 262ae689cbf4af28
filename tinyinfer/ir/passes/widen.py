"""Sums of narrow floats accumulate in float32.

A running sum in float16 has 11 bits: after a few thousand equal terms it ignores what is added. The result is
rounded once, to the dtype that the sum had. Products lose nothing: those of two 11-bit numbers are exact.
"""

from __future__ import annotations

from tinyinfer.ir import build
from tinyinfer.ir.dtypes import FLOAT_FORMATS
from tinyinfer.ir.node import Graph, Node
from tinyinfer.ir.passes.rewrite import Users, inherit, rewrite

NARROW = frozenset(("float16", *FLOAT_FORMATS))
WIDE = "float32"


def widen_sums(graph: Graph) -> Graph:
    """The graph with every SUM and PROD of narrow floats computed in float32."""
    return rewrite(graph, {"SUM": (wide_sum,), "PROD": (wide_sum,)})


def wide_sum(x: Node, users: Users) -> Node | None:
    """sum(y) = cast(sum(wide y)), where wide (a · b) = wide a · wide b."""
    if x.dtype not in NARROW or not x.is_reduce:
        return None
    terms = x.inputs[0]
    if terms.op == "MUL":
        body = build.elementwise("MUL", *map(_wide, terms.inputs), origin=terms.origin)
    else:
        body = _wide(terms)
    return build.cast(build.reduce(x.op, body, x.attrs, origin=x.origin), x.dtype)


def _wide(x: Node) -> Node:
    """`x` in float32; below a view, so that what is read many times is converted once."""
    if x.op == "VIEW" and len(x.inputs) == 1:
        made = build.view(_wide(x.inputs[0]), x.attrs.indices, x.shape, x.attrs.guards, x.attrs.fill)
        inherit(made, x)
        return made
    return build.elementwise("CAST", x, dtype=WIDE, origin=x.origin if x.op not in ("INPUT", "CONST") else ())
