"""What the tests of rewrites share: graphs by one output, and a check that values stay."""

import numpy as np

from tinyinfer.ir.node import Graph, Node
from tinyinfer.ir.oracle import evaluate
from tinyinfer.ir.verify import verify


def graph_of(*outputs: Node) -> Graph:
    """A graph with these outputs and the inputs that they need."""
    graph = Graph({}, {f"y{i}": x for i, x in enumerate(outputs)})
    graph.inputs.update({x.attrs: x for x in graph.nodes() if x.op == "INPUT"})
    return graph


def feeds_of(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """Random feeds: floats of both signs about 1, small integers."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for name, x in graph.inputs.items():
        kind = np.dtype(x.dtype).kind
        lowest = 0 if kind in "ub" else -5
        values = rng.standard_normal(x.shape) * 2 if kind == "f" else rng.integers(lowest, 6, x.shape)
        feeds[name] = np.asarray(values).astype(x.dtype)
    return feeds


def rewritten(run, *outputs: Node, tolerance: float = 0.0, feeds=None) -> list[Node]:
    """The outputs after `run`, sound, and with the values of before within a relative `tolerance`."""
    before = graph_of(*outputs)
    verify(before)
    after = run(before)
    verify(after)
    assert list(after.outputs) == list(before.outputs) and after.inputs == before.inputs
    feeds = feeds_of(before) if feeds is None else feeds
    results = (evaluate(list(graph.outputs.values()), feeds) for graph in (before, after))
    for old, new in zip(*results):
        assert new.dtype == old.dtype and new.shape == old.shape
        if tolerance:
            scale = np.abs(old[np.isfinite(old)]).max(initial=1)
            np.testing.assert_allclose(new, old, rtol=tolerance, atol=tolerance * float(scale))
        else:
            np.testing.assert_array_equal(new, old)
    return list(after.outputs.values())


def ops(*outputs: Node) -> list[str]:
    """The names of the arithmetic ops of a graph, sorted; movement and leaves left out."""
    return sorted(x.op for x in graph_of(*outputs).nodes() if x.op not in ("VIEW", "CONST", "INPUT", "IOTA"))
