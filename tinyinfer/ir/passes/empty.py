"""Values without elements: nothing computes them, and what reads only them is known.

After this pass only inputs and literals are empty, and nothing computes from them.
"""

from __future__ import annotations

import numpy as np

from tinyinfer.ir import build
from tinyinfer.ir.dtypes import numpy_dtype
from tinyinfer.ir.node import Graph, Node
from tinyinfer.ir.ops import reduce_identity
from tinyinfer.ir.passes.rewrite import inherit, transform


def remove_empty(graph: Graph) -> Graph:
    """The graph with every empty value a literal, and what is read from one as its identity or fill."""
    order = graph.nodes()
    if all(x.size for x in order):
        return graph

    def replaced(old: Node, current: Node) -> Node:
        found = _replacement(current)
        if found is None:
            return current
        inherit(found, current)
        return found

    return transform(graph, order, replaced)


def _replacement(x: Node) -> Node | None:
    if not x.size:
        if x.op in ("INPUT", "CONST"):
            return None
        return build.constant(np.zeros(x.shape, numpy_dtype(x.dtype)))
    if x.op == "SCATTER" and not x.inputs[1].size:
        return x.inputs[0]
    if not x.inputs or x.inputs[0].size:
        return None
    if x.is_reduce:
        return build.full(reduce_identity(x.op, x.dtype), x.shape, x.dtype)
    # every position of a view of nothing is outside of it
    return build.full(x.attrs.fill, x.shape, x.dtype) if x.op == "VIEW" else None
