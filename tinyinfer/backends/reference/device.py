"""REFERENCE runs a graph with the numpy oracle: what every other device is checked against."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np

from tinyinfer.backends.base import LaunchTime
from tinyinfer.config import CompileOptions
from tinyinfer.errors import RuntimeException
from tinyinfer.ir.node import Graph
from tinyinfer.runtime.plan import TensorSpec
from tinyinfer.runtime.signature import numpy_dtype


class ReferenceDevice:
    """The numpy oracle as a device. Always available; options and threads change nothing."""

    name = "REFERENCE"

    def available(self) -> str | None:
        return None

    def compile(self, graph: Graph, options: CompileOptions, threads: int) -> ReferenceExecutable:
        return ReferenceExecutable(graph)


class ReferenceExecutable:
    """A graph that is interpreted node by node.

    `peak_bytes` counts every value once but inputs, views, and products that a SUM consumes, which are not
    stored.
    """

    def __init__(self, graph: Graph):
        self._graph: Graph | None = graph
        self.inputs = [TensorSpec(name, node.shape, node.dtype) for name, node in graph.inputs.items()]
        self.outputs = [TensorSpec(name, node.shape, node.dtype) for name, node in graph.outputs.items()]
        products = {x.inputs[0] for x in graph.nodes() if x.op == "SUM" and x.inputs[0].op == "MUL"}
        self.peak_bytes = sum(
            x.size * numpy_dtype(x.dtype).itemsize
            for x in graph.nodes()
            if x.op not in ("INPUT", "VIEW") and x not in products
        )

    def run(self, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
        from tinyinfer.ir import oracle

        graph = self._open_graph()
        named = {spec.name: array for spec, array in zip(self.inputs, feeds, strict=True)}
        results = oracle.evaluate(list(graph.outputs.values()), named)
        return [np.array(value, order="C") for value in results]

    def profile(self, feeds: Sequence[np.ndarray], runs: int) -> list[LaunchTime]:
        seconds = []
        for _ in range(runs):
            start = time.perf_counter()
            self.run(feeds)
            seconds.append(time.perf_counter() - start)
        graph = self._open_graph()
        origin = sorted({name for node in graph.nodes() if node.op != "INPUT" for name in node.origin})
        moved = sum(a.nbytes for a in feeds)
        return [LaunchTime("oracle", tuple(origin), statistics.median(seconds), 0, moved)]

    def stages(self) -> dict[str, str]:
        from tinyinfer.ir.text import print_graph

        return {"graph": print_graph(self._open_graph())}

    def close(self) -> None:
        self._graph = None

    def _open_graph(self) -> Graph:
        if self._graph is None:
            raise RuntimeException("this executable was closed")
        return self._graph
