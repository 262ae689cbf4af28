"""Which integers an input may hold: those with which every indexed read and write stays where it belongs."""

from __future__ import annotations

from collections.abc import Iterator

from tinyinfer.ir.dtypes import is_float
from tinyinfer.ir.index import Slot, atoms_of
from tinyinfer.ir.node import Graph, Node


def index_ranges(graph: Graph) -> dict[str, tuple[int, int]]:
    """The least and the greatest position, for each input whose integers are positions (ids of an embedding,
    places of a scatter), so that they are right wherever they are used. Positions counted from the end are
    left out, and what bodies of loops do with an input is not looked at.
    """
    found: dict[str, tuple[int, int]] = {}
    for node in graph.nodes():
        for index_input, slot in _positions(node):
            for name in _integer_inputs(index_input):
                low, high = found.get(name, (0, slot.hi))
                found[name] = (max(low, slot.lo), min(high, slot.hi))
    return {name: (low, high) for name, (low, high) in found.items() if low <= high}


def _positions(node: Node) -> Iterator[tuple[Node, Slot]]:
    """The index inputs of a node that is read or written by index, each with what it may be."""
    if node.op not in ("VIEW", "SCATTER"):
        return
    first = 1 if node.op == "VIEW" else 2
    for atom in {atom for expression in node.attrs.indices for atom in atoms_of(expression)}:
        if isinstance(atom, Slot):
            yield node.inputs[first + atom.number], atom


def _integer_inputs(node: Node) -> Iterator[str]:
    """The integer inputs that reach `node` through arithmetic and views of integers."""
    pending, seen = [node], {id(node)}
    while pending:
        current = pending.pop()
        if current.op == "INPUT":
            yield current.attrs
        for below in current.inputs[:1] if current.op == "VIEW" else current.inputs:
            if id(below) not in seen and below.dtype != "bool" and not is_float(below.dtype):
                seen.add(id(below))
                pending.append(below)
