"""How much a graph computes, in elements: what decides whether to interpret, to compute twice, or to cut."""

from __future__ import annotations

from collections.abc import Iterable

from tinyinfer.ir.node import Node, topological_order

FREE = frozenset(("INPUT", "CONST", "VIEW"))


def work_of(nodes: Iterable[Node]) -> int:
    """Elements that `nodes` compute: sums by their terms, loops by all their iterations; leaves and views
    cost nothing.
    """
    work = 0
    for current in nodes:
        if current.op == "LOOP":
            body = current.attrs
            work += body.steps * (1 + work_of(topological_order(body.outputs)))
        elif current.op not in FREE:
            work += current.inputs[0].size if current.is_reduce else current.size
    return work
