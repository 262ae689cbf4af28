"""Which values of a plan must be float32 where all others are halves, found by computing as the plan does.

A processor runs the graph with every stored value rounded as a half image rounds it (`kernels.halves`), on
golden inputs. What comes near the end of the range of halves is widened. If outputs are then off by more than
BOUND, each value is rounded alone: what costs the outputs most for its bytes is widened first, and no more
than it takes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyinfer.backends.clike.item_printer import ItemPrinter
from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.config import CompileOptions, cache_directory
from tinyinfer.ir.node import Graph, Node
from tinyinfer.kernels.halves import (
    LARGEST,
    SWITCH,
    WEIGHTS,
    StoredHalves,
    simulation,
    stored_halves,
    weights_of,
)
from tinyinfer.runtime.plan import Launch, Plan

if TYPE_CHECKING:
    from tinyinfer.backends.opencl.target import OpenclTarget

BOUND = 0.01
"""What stored halves may change in an output on the golden inputs, as a part of its range; of integers, as a
part of their number."""

LARGEST_HALF = 65504.0
ROOM = 4.0
"""Values of other inputs may be larger than those of golden ones by this factor."""

MEASURED_WORK = 5e11
"""Operations that may be spent on rounding values one by one; of a larger model, neighbours go together."""

FEWEST_PARTS = 16
TRIED_BACK = 8
"""Of what was widened, the largest images that are tried as halves again at the end."""


@dataclass(frozen=True)
class Islands:
    """What is float32 among halves: nodes of the optimised graph, and in words the images that hold them.
    `before` is what outputs were off by with no island, `after` with these: by parts of the range.
    `stored` counts what is stored in images altogether."""

    nodes: frozenset[Node] = frozenset()
    titles: tuple[str, ...] = ()
    before: float = 0.0
    after: float = 0.0
    stored: int = 0

    def as_dict(self) -> dict[str, Any]:
        """All but the nodes as plain data; what is infinite is None."""
        before = self.before if isfinite(self.before) else None
        return {
            "stored_in_images": self.stored,
            "float32": list(self.titles),
            "error_in_halves": before,
            "error": self.after,
        }


@dataclass
class IslandFinder:
    """Finds the islands of one model, for targets whose schedules differ: those that store the same values
    have the same islands. `feeds` gives golden inputs, and is called only where something is stored in
    halves. What was found for equal kernels, weights and inputs is kept in the user's cache."""

    feeds: Callable[[], Sequence[Mapping[str, np.ndarray]]]
    threads: int = 0
    _known: dict[tuple[tuple[Any, ...], ...], _Found] = field(default_factory=dict)

    def find(self, graph: Graph, target: OpenclTarget, options: CompileOptions) -> Islands:
        """The islands of a graph, whose passes have run, on a target that stores halves."""
        stored = stored_halves(graph, ItemPrinter(target.model, target.dialect), options)
        if not stored:
            return Islands()
        key = tuple((x.names, x.nbytes, tuple((n.op, n.shape) for n in x.nodes)) for x in stored)
        if key not in self._known:
            self._known[key] = self._search(graph, stored)
        found = self._known[key]
        chosen = [stored[number] for number in sorted(found.wide)]
        nodes = frozenset(node for item in chosen for node in item.nodes)
        return Islands(nodes, tuple(x.title for x in chosen), found.before, found.after, len(stored))

    def _search(self, graph: Graph, stored: Sequence[StoredHalves]) -> _Found:
        from tinyinfer.backends.cpu.device import CpuDevice

        plan, feeds = CpuDevice().plan(simulation(graph, stored), CompileOptions()), self.feeds()
        cache, key = KernelCache(cache_directory()), _digest(plan, stored, feeds)
        kept = cache.get(key)
        if kept is not None:
            return _Found.read(kept)
        trial = _Trial(plan, graph, stored, feeds, self.threads)
        try:
            found = _Search(stored, trial).run()
        finally:
            trial.close()
        cache.put(key, found.written())
        return found


@dataclass(frozen=True)
class _Found:
    """The numbers of what is float32, and what outputs are off by without and with it."""

    wide: frozenset[int]
    before: float
    after: float

    def written(self) -> bytes:
        return json.dumps([sorted(self.wide), self.before, self.after]).encode("ascii")

    @classmethod
    def read(cls, data: bytes) -> _Found:
        wide, before, after = json.loads(data)
        return cls(frozenset(wide), before, after)


def _digest(plan: Plan, stored: Sequence[StoredHalves], feeds: Sequence[Mapping[str, np.ndarray]]) -> str:
    """What a search depends on: the simulation's kernels, weights and inputs, and its own constants."""
    from tinyinfer import __version__

    digest = hashlib.sha256()
    limits = (__version__, BOUND, LARGEST_HALF, ROOM, MEASURED_WORK, FEWEST_PARTS, TRIED_BACK)
    for part in (limits, plan.inputs, plan.outputs, *_described(plan.launches)):
        digest.update(f"{part!r}\n".encode())
    digest.update(repr([(x.nbytes, len(x.nodes)) for x in stored]).encode())
    fed = [array for feed in feeds for _, array in sorted(feed.items())]
    for array in (*plan.parameters, *(weights_of(x, False) for x in stored if x.is_constant), *fed):
        digest.update(repr((array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _described(launches: Sequence[Launch]) -> Iterator[tuple[object, ...]]:
    for launch in launches:
        yield launch.kernel.key, launch.arguments, launch.chunks
        if launch.loop is not None:
            yield launch.loop.steps, launch.loop.inputs, launch.loop.outputs
            yield from _described(launch.loop.launches)


class _Trial:
    """The simulation of a graph, whose plan is given, on the processor."""

    def __init__(
        self,
        plan: Plan,
        graph: Graph,
        stored: Sequence[StoredHalves],
        feeds: Sequence[Mapping[str, np.ndarray]],
        threads: int,
    ):
        from tinyinfer.backends.cpu.device import compile_plan
        from tinyinfer.backends.cpu.target import host_target

        self.work = max(1, sum(launch.flops for launch in plan.launches))
        self._executable = compile_plan(plan, host_target(), threads)
        self._stored, self._feeds, self._outputs = stored, feeds, list(graph.outputs)
        self._weights = {
            number: (weights_of(item, False), weights_of(item, True))
            for number, item in enumerate(stored)
            if item.is_constant
        }
        self._exact = [self._run(feed, ()) for feed in feeds]

    def close(self) -> None:
        self._executable.close()

    def too_large(self) -> set[int]:
        """The numbers of the values that halves have no room for, or that are no numbers at all."""
        found = set()
        for results in self._exact:
            for name, value in results.items():
                if name.startswith(LARGEST) and not float(value) * ROOM <= LARGEST_HALF:
                    found.add(int(name.removeprefix(LARGEST)))
        return found

    def errors(self, rounded: Collection[int], feeds: int | None = None) -> tuple[float, float]:
        """How far outputs are off with the stored values of these numbers in halves: at most, and on average
        (root mean square), as parts of the range; the worst output of the first `feeds` counts."""
        most = average = 0.0
        for feed, exact in list(zip(self._feeds, self._exact, strict=True))[:feeds]:
            results = self._run(feed, rounded)
            for name in self._outputs:
                a, b = output_error(results[name], exact[name])
                most, average = max(most, a), max(average, b)
        return most, average

    def _run(self, feed: Mapping[str, np.ndarray], rounded: Collection[int]) -> dict[str, np.ndarray]:
        arrays = []
        for spec in self._executable.inputs:
            if spec.name.startswith(SWITCH):
                arrays.append(np.array(int(spec.name.removeprefix(SWITCH)) in rounded))
            elif spec.name.startswith(WEIGHTS):
                number = int(spec.name.removeprefix(WEIGHTS))
                arrays.append(self._weights[number][number in rounded])
            else:
                arrays.append(np.ascontiguousarray(feed[spec.name]))
        results = self._executable.run(arrays)
        return dict(zip((x.name for x in self._executable.outputs), results, strict=True))


class _Search:
    def __init__(self, stored: Sequence[StoredHalves], trial: _Trial):
        self._stored, self._trial = stored, trial
        self._every = frozenset(range(len(stored)))

    def run(self) -> _Found:
        too_large = self._trial.too_large()
        before, _ = self._trial.errors(self._every)
        after = self._error(too_large) if too_large else before
        if after <= BOUND:
            return _Found(frozenset(too_large), before, after)
        parts = self._by_worth(too_large)

        def first(count: int) -> set[int]:
            return too_large.union(*parts[:count])

        low, high = 0, len(parts)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._error(first(middle)) <= BOUND else (middle, high)
        wide = self._narrowed(first(high), too_large)
        return _Found(frozenset(wide), before, self._error(wide))

    def _error(self, wide: Collection[int]) -> float:
        return self._trial.errors(self._every.difference(wide))[0]

    def _by_worth(self, settled: Collection[int]) -> list[set[int]]:
        """What may be widened, by what that gains for its bytes, the best first. Errors of many roundings add
        up as their squares do."""
        left = sorted(self._every.difference(settled))
        count = min(len(left), max(FEWEST_PARTS, int(MEASURED_WORK // self._trial.work)))
        parts = [set(part.tolist()) for part in np.array_split(np.array(left), count)]

        def worth(part: set[int]) -> float:
            return self._trial.errors(part, feeds=1)[1] ** 2 / sum(self._stored[n].nbytes for n in part)

        return [part for _, part in sorted(((-worth(p), p) for p in parts), key=lambda pair: pair[0])]

    def _narrowed(self, wide: set[int], settled: Collection[int]) -> set[int]:
        """Without the large ones that are not needed after all."""
        for number in sorted(wide.difference(settled), key=lambda n: -self._stored[n].nbytes)[:TRIED_BACK]:
            if self._error(wide - {number}) <= BOUND:
                wide = wide - {number}
        return wide


def output_error(got: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """How far an output is off at most, and on average (root mean square), as parts of its range."""
    if not exact.size:
        return 0.0, 0.0
    if exact.dtype.kind not in "fc":
        share = float(np.mean(got != exact))
        return share, share
    a, b = got.astype(np.float64), exact.astype(np.float64)
    with np.errstate(all="ignore"):
        error = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    finite = b[np.isfinite(b)]
    extent = float(np.ptp(finite)) or float(np.abs(finite).max()) if finite.size else 1.0
    error = np.where(np.isfinite(error), error, np.inf) / (extent or 1.0)
    return float(error.max()), float(np.sqrt(np.mean(error**2)))
