"""Division by a constant as multiplication by its reciprocal: a tenth of the time, at most one rounding more.

Divisions whose value reaches a rounding, a comparison or an integer stay as they are: there one rounding more
could become a whole step.
"""

from __future__ import annotations

import numpy as np

from tinyinfer.ir import build
from tinyinfer.ir.node import Graph, Node
from tinyinfer.ir.passes.constants import uniform_value
from tinyinfer.ir.passes.rewrite import inherit, transform
from tinyinfer.ir.passes.steps import JUMPING, deciding


def multiply_by_reciprocal(graph: Graph) -> Graph:
    """`x / c` as `x · (1 / c)` for a uniform float constant with a normal reciprocal, where no jump depends
    on it."""
    order = graph.nodes()
    watched = deciding(order, JUMPING)

    def replaced(old: Node, x: Node) -> Node:
        if x.op != "DIV" or id(old) in watched or x.dtype not in ("float32", "float64"):
            return x
        divisor = uniform_value(x.inputs[1])
        if not divisor or not np.isfinite(divisor):
            return x
        with np.errstate(all="ignore"):
            scale = np.dtype(x.dtype).type(1.0 / divisor)
        if not np.isfinite(scale) or abs(scale) < np.finfo(x.dtype).tiny:
            return x
        product = build.elementwise("MUL", x.inputs[0], build.full(scale, x.shape, x.dtype))
        inherit(product, x)
        return product

    return transform(graph, order, replaced)
