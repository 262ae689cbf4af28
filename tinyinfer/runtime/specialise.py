"""Compiling a model for the shapes that a session sees, and keeping what was compiled.

A compiled model has fixed shapes. `Specialiser` holds one executable per set of input shapes, the least
recently used one leaving when there are too many. Where a shape inside the model depends on the value of an
input (a Reshape driven by one), the executable is made for that value too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tinyinfer.backends.base import Device, Executable, LaunchTime
from tinyinfer.config import CompileOptions
from tinyinfer.ir.node import Graph
from tinyinfer.runtime.debug import show_compile

LIMIT = 16
"""How many sets of shapes one session keeps compiled."""

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""The shapes of the fed inputs, by name, in the model's order."""

Key = tuple[Shapes, tuple[bytes, ...]]
"""Shapes, and the content of the inputs whose values decide shapes."""

MakeGraph = Callable[[Mapping[str, tuple[int, ...]], Mapping[str, np.ndarray]], Graph]
"""(shapes by input, known values by input) to the graph to compile."""


class Specialisation:
    """An executable with a lock, since its arena serves one run at a time.

    `names` are the inputs that it takes, in order; `by_value` says that it holds for some values of inputs
    only.
    """

    __slots__ = ("executable", "names", "by_value", "_lock", "_closed")

    def __init__(self, executable: Executable, by_value: bool = False):
        self.executable = executable
        self.by_value = by_value
        self.names = [spec.name for spec in executable.inputs]
        self._lock = threading.Lock()
        self._closed = False

    def run(self, feeds: Sequence[np.ndarray]) -> list[np.ndarray] | None:
        """The outputs, or None where the executable was closed meanwhile (it left the cache)."""
        with self._lock:
            return None if self._closed else self.executable.run(feeds)

    def profile(self, feeds: Sequence[np.ndarray], runs: int) -> list[LaunchTime]:
        """Median time of each launch; empty where the executable was closed meanwhile."""
        with self._lock:
            return [] if self._closed else self.executable.profile(feeds, runs)

    def close(self) -> None:
        """Free the executable, after the run that may be using it."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self.executable.close()


class Specialiser:
    """Compiles the graphs that `make_graph` gives, at most `limit` of them kept. Safe to call from several
    threads.
    """

    def __init__(
        self,
        make_graph: MakeGraph,
        device: Device,
        options: CompileOptions,
        threads: int,
        title: str,
        logger: logging.Logger,
        limit: int = LIMIT,
    ):
        self._make_graph, self._device, self._options, self._threads = make_graph, device, options, threads
        self._title, self._logger, self._limit = title, logger, limit
        self._kept: OrderedDict[Key, Specialisation] = OrderedDict()
        self._deciding: dict[Shapes, tuple[str, ...]] = {}
        self._lock = threading.Lock()
        self._compiling = threading.Lock()

    def get(self, shapes: Shapes, values: Mapping[str, np.ndarray] | None = None) -> Specialisation:
        """The compiled model for these shapes, compiled now if it is not kept.

        `values` are the feeds, if there are any. Raises what import and compile raise: NeedsValue where a
        value decides a shape and is not in `values`.
        """
        values = values or {}
        found = self._find(shapes, values)
        if found is not None:
            return found
        with self._compiling:
            found = self._find(shapes, values)
            if found is not None:
                return found
            made = self._compile(shapes, values)
            with self._lock:
                self._kept[self._key(shapes, values)] = made
                dropped = self._kept.popitem(last=False)[1] if len(self._kept) > self._limit else None
                if dropped is not None:
                    kept = {key[0] for key in self._kept}
                    self._deciding = {s: names for s, names in self._deciding.items() if s in kept}
        if dropped is not None:
            dropped.close()
        return made

    def close(self) -> None:
        """Free everything that is kept."""
        with self._lock:
            kept = list(self._kept.values())
            self._kept.clear()
        for specialisation in kept:
            specialisation.close()

    def __len__(self) -> int:
        return len(self._kept)

    def _key(self, shapes: Shapes, values: Mapping[str, np.ndarray]) -> Key:
        return shapes, tuple(
            values[name].tobytes() for name in self._deciding.get(shapes, ()) if name in values
        )

    def _find(self, shapes: Shapes, values: Mapping[str, np.ndarray]) -> Specialisation | None:
        with self._lock:
            key = self._key(shapes, values)
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def _graph(self, shapes: Shapes, values: Mapping[str, np.ndarray]) -> Graph:
        from tinyinfer.frontend.onnx import NeedsValue

        while True:
            deciding = self._deciding.get(shapes, ())
            known = {name: values[name] for name in deciding if name in values}
            try:
                return self._make_graph(dict(shapes), known)
            except NeedsValue as error:
                wanted = set(error.inputs) - set(deciding)
                if not wanted or not wanted <= set(values):
                    raise
                self._deciding[shapes] = (*deciding, *sorted(wanted))

    def _compile(self, shapes: Shapes, values: Mapping[str, np.ndarray]) -> Specialisation:
        start = time.perf_counter()
        graph = self._graph(shapes, values)
        executable = self._device.compile(graph, self._options, self._threads)
        seconds = time.perf_counter() - start
        described = " ".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes)
        self._logger.info("%s compiled for %s in %.0f ms", self._title, described, seconds * 1e3)
        show_compile(f"{self._title} [{described}] on {self._device.name}", graph, executable, seconds)
        return Specialisation(executable, shapes in self._deciding)
