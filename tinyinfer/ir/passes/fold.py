"""Constant folding: what no input reaches is computed once, by the oracle."""

from __future__ import annotations

from math import prod

from tinyinfer.ir.index import atoms_of
from tinyinfer.ir.node import Graph, Node
from tinyinfer.ir.oracle import evaluate_virtual, is_contraction
from tinyinfer.ir.passes.constants import SMALL, literal
from tinyinfer.ir.passes.rewrite import transform

LARGEST = 1 << 24
"""Elements up to which arithmetic may make a literal larger than the literals that it is computed from."""


def fold_constants(graph: Graph) -> Graph:
    """The graph with every known value that something unknown uses as a literal.

    Views of literals stay views: they are free where they are read. Positions (IOTA) and what is computed
    from them alone become literals only while small, for a kernel computes them at no cost.
    """
    order = graph.nodes()
    known = _known(order)
    wanted: dict[int, Node] = {}
    for current in [*graph.outputs.values(), *(x for c in order if id(c) not in known for x in c.inputs)]:
        while id(current) in known and current.op == "VIEW" and len(current.inputs) == 1:
            current = current.inputs[0]
        if id(current) in known and current.op not in ("CONST", "IOTA"):
            wanted[id(current)] = current
    if not wanted:
        return graph
    values = evaluate_virtual(list(wanted.values()), {})
    literals = dict(zip(wanted, map(literal, values)))
    return transform(graph, order, lambda old, current: literals.get(id(old), current))


def _known(order: list[Node]) -> dict[int, int]:
    """Nodes whose values are known and small enough to keep, each with the literal elements behind it."""
    known: dict[int, int] = {}
    products: dict[int, int] = {}
    extents: dict[int, list[bool]] = {}
    for current in order:
        # the oracle computes a contraction without its product, so the product may be of any size
        usable = known | products if is_contraction(current) and id(current.inputs[0]) in products else known
        if current.op in ("INPUT", "LOOP") or any(id(x) not in usable for x in current.inputs):
            continue
        extents[id(current)] = extent = _extent(current, extents)
        elements = prod(d for d, varies in zip(current.shape, extent) if varies)
        total = sum(usable[id(x)] for x in current.inputs)
        if current.op == "CONST" and current.size > 1:
            total = current.size
        gathers = current.op == "VIEW" and len(current.inputs) > 1
        # scalars and positions alone have no elements to read, and a kernel computes them as well as it loads
        limit = max(SMALL, total) if gathers or not total else max(LARGEST, total)
        if elements <= limit or current.op == "CONST" or (current.op == "VIEW" and not gathers):
            known[id(current)] = total
        elif current.op == "MUL":
            products[id(current)] = total
    return known


def _extent(current: Node, extents: dict[int, list[bool]]) -> list[bool]:
    """For each dimension, whether the value varies along it."""
    inputs = [extents[id(x)] for x in current.inputs]
    if current.op == "CONST":
        return [d > 1 for d in current.shape]
    if current.op == "IOTA":
        atoms = atoms_of(current.attrs)
        return [axis in atoms for axis in current.axes]
    if current.op == "VIEW":
        read = [i for i, varies in zip(current.attrs.indices, inputs[0]) if varies]
        atoms = set().union(*(atoms_of(e) for e in (*read, *(g for g, _ in current.attrs.guards))), ())
        return [axis in atoms or any(slot[i] for slot in inputs[1:]) for i, axis in enumerate(current.axes)]
    if current.is_reduce:
        return [varies for i, varies in enumerate(inputs[0]) if i not in current.attrs]
    varies = [any(column) for column in zip(*inputs)]
    if current.op == "SCATTER":
        return [d > 1 for d in current.shape]
    if current.op == "CONCAT":
        varies[current.attrs] = True
    return varies
