"""Kernels of graphs with their addresses, and the memory that they read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from compiled import graph_of
from interpreter import memory_of
from random_graphs import case

from tinyinfer.ir.node import Graph
from tinyinfer.ir.oracle import evaluate
from tinyinfer.kernels.assign import assign
from tinyinfer.kernels.physical import PhysicalKernel, to_physical


def physical_kernels(graph: Graph) -> list[PhysicalKernel]:
    """Every kernel of a graph with addresses."""
    assigned = assign(graph)
    for buffer in assigned.buffers.values():
        buffer.place()
    return [to_physical(k, assigned.buffers) for k in assigned.kernels if k.root.size]


def random_kernels(name: str, count: int = 20) -> Iterator[tuple[int, PhysicalKernel, list[np.ndarray]]]:
    """Kernels of random graphs with the memory that they read; none that reads a concatenation."""
    for seed in range(count):
        chosen = case(name, seed)
        graph = graph_of(*chosen.outputs)
        known = [n for n in graph.nodes() if n.op != "VIEW" or n.size < 10_000]
        values = dict(zip(known, evaluate(known, chosen.feeds), strict=True))
        for kernel in physical_kernels(graph):
            reads = [a.value for a in kernel.arguments[1:] if not hasattr(a, "literal")]
            if all(r in values or r.op == "CONST" for r in reads) and not any(
                r.op == "CONCAT" for r in reads
            ):
                yield seed, kernel, memory_of(kernel.arguments, values)


def same(first: dict[int, object], second: dict[int, object]) -> bool:
    """Equal stored values by address; NaN equals NaN."""
    return first.keys() == second.keys() and all(repr(first[k]) == repr(second[k]) for k in first)
