"""One compilation for a range of sizes: what a program does when the sizes of its inputs keep changing.

A session compiles for the shapes that it sees. When a third set of shapes comes in which the same dimensions
have changed by the same amount (the cache of a language model grows by one a step), the graphs of three
sizes are made one (`ir.capacity`) whose dimensions are those of a capacity, and which takes the true size as
a number. It is compared with an exact compilation before it is used, and dropped for good if it cannot be
made.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from tinyinfer.backends.base import Executable
from tinyinfer.errors import TinyInferError
from tinyinfer.ir.capacity import CapacityGraph, NotAffine, capacity_graph
from tinyinfer.ir.node import Graph
from tinyinfer.ir.work import work_of
from tinyinfer.runtime.signature import numpy_dtype

KEPT = 8
"""Capacities that one program keeps compiled."""

LEAST, USUAL = 7, 63
"""The smallest capacity, and the smallest where a larger one costs next to nothing. All are one less than a
power of two, so that what is one longer is one."""

CHEAP = 1.3
"""A capacity costs next to nothing more where its work is at most so many times that of the size itself."""

LITTLE = 1 << 20
"""Work, in elements, that takes no time worth saving."""

DEAR = 2.0
"""A capacity is not used for sizes whose own work is less than its work by more than this factor."""

PATIENCE = 3
"""Runs in a row of one set of shapes after which it is compiled exactly, if its work is then clearly less."""

REMEMBERED = 8
"""Sets of shapes that are remembered to see what changes."""

TOLERANCE = 1e-3
"""Largest difference from an exact compilation, as a part of the range of an output."""

Key = Any
Place = tuple[int, int]
"""An axis of an input: its number and the axis."""


@dataclass(frozen=True)
class Pattern:
    """The dimensions that change together: their places, and by how much each exceeds the first."""

    places: tuple[Place, ...]
    offsets: tuple[int, ...]
    rest: Key
    """The key with these dimensions removed."""


@dataclass(frozen=True)
class Cost:
    """The work of a model at size n, about `base + step · n` elements."""

    base: float
    step: float

    def ratio(self, capacity: int, n: int) -> float:
        """How many times the work of size n that of the capacity is; 1 where it is little altogether."""
        whole = self.base + self.step * capacity
        return 1.0 if whole <= LITTLE else whole / max(self.base + self.step * n, 1.0)


@runtime_checkable
class RunsInto(Protocol):
    """An executable that can write its outputs into arrays that it is given."""

    def run_into(self, feeds: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None: ...


class Range:
    """A capacity graph compiled, with padded copies of its inputs."""

    def __init__(self, made: CapacityGraph, executable: Executable):
        self.made, self.executable = made, executable
        self._names = list(made.inputs)
        specs = {spec.name: spec for spec in executable.inputs}
        self._buffers = {
            name: np.zeros(specs[name].shape, numpy_dtype(specs[name].dtype))
            for name, sizes in made.inputs.items()
            if any(s.slope for s in sizes)
        }
        self._order = [spec.name for spec in executable.inputs]
        # memory that is written again and again costs no page faults
        self._results = [np.empty(s.shape, numpy_dtype(s.dtype)) for s in executable.outputs]
        self._last = 0
        self._lock = threading.Lock()
        self._closed = False

    def run(self, n: int, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray] | None:
        """The outputs for inputs of size n, or None where this was closed meanwhile."""
        with self._lock:
            if self._closed:
                return None
            feeds = dict(inputs)
            for name, buffer in self._buffers.items():
                given = inputs[name]
                if n < self._last:
                    buffer.fill(0)
                buffer[tuple(slice(0, d) for d in given.shape)] = given
                feeds[name] = buffer
            self._last = n
            feeds[self.made.symbol] = np.array(n, np.int64)
            ordered = [feeds[name] for name in self._order]
            if isinstance(self.executable, RunsInto):
                self.executable.run_into(ordered, self._results)
                results = self._results
            else:
                results = self.executable.run(ordered)
            return [
                np.array(result[tuple(slice(0, s.at(n)) for s in sizes)], order="C")
                for result, sizes in zip(results, self.made.outputs.values())
            ]

    def close(self) -> None:
        """Free the executable, after the run that may be using it."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self.executable.close()


class Ranges:
    """The ranges of one program. `graph_of` gives the graph for a key, or None where it is no single
    graph.
    """

    def __init__(
        self,
        graph_of: Callable[[Key], Graph | None],
        compile_graph: Callable[[Graph], Executable],
        logger: logging.Logger,
        title: str,
    ):
        self._graph_of, self._compile = graph_of, compile_graph
        self._logger, self._title = logger, title
        self._seen: deque[Key] = deque(maxlen=REMEMBERED)
        self._kept: OrderedDict[tuple[Pattern, int], Range] = OrderedDict()
        self._patterns: dict[Pattern, bool] = {}
        self._costs: dict[Pattern, Cost] = {}
        self._repeated: tuple[Key, int] = (None, 0)
        self._lock = threading.Lock()
        self._making = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: Key) -> tuple[Range, int] | None:
        """The kept range that covers a key with little more work than its own, with the key's size."""
        with self._lock:
            fitting = []
            for (pattern, capacity), kept in self._kept.items():
                n = _fits(pattern, key)
                if n is not None and n <= capacity:
                    ratio = self._costs[pattern].ratio(capacity, n)
                    if ratio <= DEAR:
                        fitting.append((ratio, kept, n))
            if not fitting:
                return None
            ratio, kept, n = min(fitting, key=lambda f: f[0])
            last, count = self._repeated
            self._repeated = (key, count + 1 if key == last else 1)
            return None if self._repeated[1] > PATIENCE and ratio > CHEAP else (kept, n)

    def wants_exact(self, key: Key) -> bool:
        """Whether a key was run so often in a row that it is worth a compilation of its own."""
        return self._repeated[0] == key and self._repeated[1] > PATIENCE

    def consider(
        self, key: Key, inputs: Mapping[str, np.ndarray], exact: Callable[[Key], Any]
    ) -> tuple[Range, int] | None:
        """A range for a key that nothing covers, if what was seen before shows what changes.

        `exact` gives the runnable of an exact compilation that is kept, or None.
        """
        with self._making:
            if self.wants_exact(key):
                return None
            found = self.find(key)
            if found is not None:
                return found
            pattern = self._pattern(key)
            if key not in self._seen:
                self._seen.append(key)
            if pattern is None or self._patterns.get(pattern) is False:
                return None
            n = _fits(pattern, key)
            assert n is not None
            capacity = _capacity(n, LEAST)
            try:
                cost = self._costs.get(pattern) or self._cost(pattern, key, capacity)
                self._costs[pattern] = cost
                if cost.ratio(_capacity(n, USUAL), n) <= CHEAP:
                    capacity = _capacity(n, USUAL)
                if cost.ratio(capacity, n) > DEAR:
                    return None
                made = self._make(pattern, key, capacity)
                trusted = self._patterns.get(pattern) or self._agrees(made, pattern, inputs, exact)
            except (NotAffine, TinyInferError, ValueError) as error:
                self._logger.info("%s: no one graph for all sizes: %s", self._title, error)
                self._patterns[pattern] = False
                return None
            self._patterns[pattern] = trusted
            if not trusted:
                made.close()
                return None
            with self._lock:
                self._kept[pattern, capacity] = made
                dropped = self._kept.popitem(last=False)[1] if len(self._kept) > KEPT else None
        if dropped is not None:
            dropped.close()
        return made, n

    def close(self) -> None:
        """Free everything that is kept."""
        with self._lock:
            kept = list(self._kept.values())
            self._kept.clear()
        for item in kept:
            item.close()

    def _pattern(self, key: Key) -> Pattern | None:
        """What changed between this key and two others seen before, if it is one size."""
        found = None
        for other in self._seen:
            places = _changed(key, other)
            if not places:
                continue
            sizes = [_dimension(key, p) for p in places]
            offsets = tuple(s - sizes[0] for s in sizes)
            if any(_dimension(other, p) - _dimension(other, places[0]) != o for p, o in zip(places, offsets)):
                continue
            pattern = Pattern(tuple(places), offsets, _without(key, places))
            if found == pattern:
                return pattern
            found = found or pattern
        return None

    def _cost(self, pattern: Pattern, key: Key, capacity: int) -> Cost:
        """The work at two sizes gives that at all."""
        works = []
        for n in (capacity, capacity - 1):
            graph = self._graph_of(_with(key, pattern, n))
            if graph is None:
                raise NotAffine("the model is cut into segments")
            works.append(work_of(graph.nodes()))
        step = works[0] - works[1]
        return Cost(works[0] - step * capacity, step)

    def _make(self, pattern: Pattern, key: Key, capacity: int) -> Range:
        graphs = []
        for n in (capacity, capacity - 1, capacity - 2):
            graph = self._graph_of(_with(key, pattern, n))
            if graph is None:
                raise NotAffine("the model is cut into segments")
            graphs.append(graph)
        symbol = "#n"
        while symbol in graphs[0].inputs:
            symbol += "#"
        made = capacity_graph(capacity, graphs, symbol)
        for number, axis in pattern.places:
            if not list(made.inputs.values())[number][axis].slope:
                raise NotAffine("an input does not grow as it should")
        return Range(made, self._compile(made.graph))

    def _agrees(
        self,
        made: Range,
        pattern: Pattern,
        inputs: Mapping[str, np.ndarray],
        exact: Callable[[Key], Any],
    ) -> bool:
        """Whether a range gives what an exact compilation gives, on the inputs cut or repeated to its
        sizes.
        """
        for other in self._seen:
            n = _fits(pattern, other)
            runnable = exact(other) if n is not None and n <= made.made.capacity else None
            if n is None or runnable is None:
                continue
            feeds = {}
            for name, described in other:
                feeds[name] = _resized(inputs[name], described[1])
            expected = runnable.run([feeds[name] for name in runnable.names])
            if expected is None:
                continue
            results = made.run(n, feeds)
            if results is not None and all(map(_close, results, expected)):
                return True
            self._logger.warning("%s: the graph for all sizes differs and is not used", self._title)
            return False
        return False


def _capacity(n: int, least: int) -> int:
    """The smallest capacity for size n that is not below `least`."""
    capacity = least
    while capacity < n:
        capacity = 2 * capacity + 1
    return capacity


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.size:
        return True
    if "float" not in a.dtype.name:
        return np.array_equal(a, b)
    wide, other = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(other)
    if not np.array_equal(np.isfinite(wide), finite):
        return False
    span = np.abs(other[finite]).max(initial=0)
    return bool((np.abs(wide - other)[finite] <= TOLERANCE * span).all())


def _resized(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """`array` cut, or repeated, along every axis."""
    for axis, size in enumerate(shape):
        if array.shape[axis] != size:
            array = np.take(array, np.arange(size) % max(1, array.shape[axis]), axis)
    return np.ascontiguousarray(array)


def _dimension(key: Key, place: Place) -> int:
    return key[place[0]][1][1][place[1]]


def _changed(key: Key, other: Key) -> list[Place]:
    """The dimensions in which two keys differ; none where they differ in anything else, or have one of 0."""
    if len(key) != len(other):
        return []
    places: list[Place] = []
    for number, ((name, a), (other_name, b)) in enumerate(zip(key, other)):
        tensors = isinstance(a, tuple) and isinstance(b, tuple)
        if name != other_name or not tensors or a[0] != b[0] or a[0] in ("list", "string"):
            return []
        if len(a[1]) != len(b[1]):
            return []
        places += [(number, axis) for axis, (x, y) in enumerate(zip(a[1], b[1])) if x != y]
    return [] if any(0 in (_dimension(key, p), _dimension(other, p)) for p in places) else places


def _replaced(key: Key, sizes: Iterable[tuple[Place, int]]) -> Key:
    shapes = [list(described[1]) for _, described in key]
    for (number, axis), size in sizes:
        shapes[number][axis] = size
    return tuple((name, (kind, tuple(shape))) for (name, (kind, _)), shape in zip(key, shapes))


def _without(key: Key, places: Sequence[Place]) -> Key:
    return _replaced(key, ((p, -1) for p in places))


def _with(key: Key, pattern: Pattern, n: int) -> Key:
    return _replaced(key, ((p, n + o) for p, o in zip(pattern.places, pattern.offsets)))


def _fits(pattern: Pattern, key: Key) -> int | None:
    """The size n of a key that follows the pattern, else None."""
    rest, first = pattern.rest, pattern.places[0]
    if len(key) != len(rest):
        return None
    changed = {number for number, _ in pattern.places}
    for number, ((name, a), (other, b)) in enumerate(zip(key, rest)):
        if name != other or (number not in changed and a != b):
            return None
        if not isinstance(a, tuple) or a[0] != b[0] or len(a[1]) != len(b[1]):
            return None
    n = _dimension(key, first)
    if n < 1 or any(_dimension(key, p) - n != o for p, o in zip(pattern.places, pattern.offsets)):
        return None
    fixed = set(pattern.places)
    same = all(
        x == y or (number, axis) in fixed
        for number in changed
        for axis, (x, y) in enumerate(zip(key[number][1][1], rest[number][1][1]))
    )
    return n if same else None
