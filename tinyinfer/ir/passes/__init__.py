"""Named rewrites, Graph → Graph. They know the three kinds of op and no ONNX operator, device or schedule."""

from __future__ import annotations

from collections.abc import Callable

from tinyinfer.budget import check_time
from tinyinfer.config import verify_each_stage
from tinyinfer.ir.node import Graph
from tinyinfer.ir.passes.affine import fold_affine
from tinyinfer.ir.passes.empty import remove_empty
from tinyinfer.ir.passes.exact_sums import exact_sums_as_floats
from tinyinfer.ir.passes.fold import fold_constants
from tinyinfer.ir.passes.integer_sums import sum_integers
from tinyinfer.ir.passes.loops import finish_bodies, simplify_loops
from tinyinfer.ir.passes.multiply_add import fuse_multiply_add
from tinyinfer.ir.passes.reciprocal import multiply_by_reciprocal
from tinyinfer.ir.passes.simplify import simplify
from tinyinfer.ir.passes.widen import widen_sums

PASSES: dict[str, Callable[[Graph], Graph]] = {
    "remove_empty": remove_empty,
    "sum_integers": sum_integers,
    "fold_constants": fold_constants,
    "simplify": simplify,
    "fold_affine": fold_affine,
    "widen_sums": widen_sums,
    "simplify_loops": lambda graph: simplify_loops(graph, settle),
}
"""Passes that run in this order until none of them changes the graph."""

LAST_PASSES: dict[str, Callable[[Graph], Graph]] = {
    "exact_sums_as_floats": exact_sums_as_floats,
    "multiply_by_reciprocal": multiply_by_reciprocal,
    "fuse_multiply_add": fuse_multiply_add,
    "finish_bodies": lambda graph: finish_bodies(graph, finish),
}
"""Passes whose results the others do not look into; they run once."""

MAX_ROUNDS = 8


def optimize(graph: Graph) -> Graph:
    """The graph after all passes: the same values up to the rounding that each rule states, fewer nodes.

    Inputs, output names, shapes and dtypes stay; origins of replaced nodes are joined.
    """
    return finish(settle(graph))


def settle(graph: Graph) -> Graph:
    """The graph after `PASSES`; a graph that they leave alone is returned itself."""
    settled: dict[str, Graph] = {}
    for _ in range(MAX_ROUNDS):
        for name, run in PASSES.items():
            if settled.get(name) is not graph:
                graph = settled[name] = _checked(name, run(graph))
        if all(x is graph for x in settled.values()):
            break
    return graph


def finish(graph: Graph) -> Graph:
    """The graph after `LAST_PASSES`."""
    for name, run in LAST_PASSES.items():
        graph = _checked(name, run(graph))
    return graph


def _checked(name: str, graph: Graph) -> Graph:
    check_time()
    if verify_each_stage():
        from tinyinfer.ir.verify import verify

        verify(graph, stage=name)
    return graph
