"""Compiling and running small graphs in this process, and comparing them with the oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.backends.cpu.device import LlvmPrinter, compile_plan
from tinyinfer.backends.cpu.target import CpuTarget, host_target
from tinyinfer.config import CompileOptions
from tinyinfer.ir.node import Graph, Node, topological_order
from tinyinfer.ir.oracle import evaluate
from tinyinfer.ir.verify import verify
from tinyinfer.kernels.plan import build_plan
from tinyinfer.runtime.plan import Plan

Feeds = Mapping[str, np.ndarray]

RELATIVE = {"float16": 4e-3, "float32": 2e-5, "float64": 1e-12}
"""Tolerance by dtype: a few roundings of that format in another order than the oracle's."""


class MemoryCache(KernelCache):
    """Objects of this process only, so that tests neither meet nor leave kernels on disk."""

    def __init__(self) -> None:
        super().__init__("unused")
        self.objects: dict[str, bytes] = {}

    def get_many(self, keys):
        return {key: self.objects[key] for key in keys if key in self.objects}

    def put_many(self, entries) -> None:
        self.objects.update(entries)


CACHE = MemoryCache()


def graph_of(*outputs: Node) -> Graph:
    """A graph with these outputs; its inputs are the INPUT nodes that they need, in order of names."""
    inputs = {n.attrs: n for n in topological_order(outputs) if n.op == "INPUT"}
    return Graph(dict(sorted(inputs.items())), {f"y{i}": n for i, n in enumerate(outputs)})


def plan_of(graph: Graph, options: CompileOptions | None = None, target: CpuTarget | None = None) -> Plan:
    """The plan of a graph without passes, for this machine unless another target is given."""
    return build_plan(graph, LlvmPrinter(target or host_target()), options or CompileOptions())


def run(
    graph: Graph,
    feeds: Feeds,
    fuse: bool = True,
    threads: int = 1,
    target: CpuTarget | None = None,
    repeats: int = 1,
) -> list[np.ndarray]:
    """The outputs of a compiled graph; with `repeats`, every run must give the same bits."""
    chosen = target or host_target()
    plan = plan_of(graph, CompileOptions(fuse=fuse), chosen)
    executable = compile_plan(plan, chosen, threads, CACHE)
    try:
        arrays = [np.ascontiguousarray(feeds[name]).reshape(n.shape) for name, n in graph.inputs.items()]
        results = executable.run(arrays)
        for _ in range(repeats - 1):
            for first, again in zip(results, executable.run(arrays), strict=True):
                assert first.tobytes() == again.tobytes()
        return results
    finally:
        executable.close()


def assert_close(
    got: np.ndarray, wanted: np.ndarray, scale: float | None = None, factor: float = 1.0
) -> None:
    """Equal integers; floats within the tolerance of their dtype, relative to each value and to `scale`."""
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    if wanted.dtype.kind != "f":
        np.testing.assert_array_equal(got, wanted)
        return
    tolerance = RELATIVE[wanted.dtype.name] * factor
    tiny = float(np.finfo(wanted.dtype).tiny)
    wide, expected = got.astype(np.float64), wanted.astype(np.float64)
    np.testing.assert_allclose(wide, expected, rtol=tolerance, atol=tolerance * (scale or 0.0) + tiny)


def check(
    outputs: Sequence[Node],
    feeds: Feeds,
    fuse: bool = True,
    threads: int = 1,
    target: CpuTarget | None = None,
    scales: Sequence[float | None] | None = None,
    factor: float = 1.0,
) -> list[np.ndarray]:
    """Compile, run twice, and compare with the oracle; returns the compiled results."""
    graph = graph_of(*outputs)
    verify(graph)
    wanted = evaluate(outputs, feeds)
    got = run(graph, feeds, fuse, threads, target, repeats=2)
    for number, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert_close(a, b, scales[number] if scales else None, factor)
    return got
