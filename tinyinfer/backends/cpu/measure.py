"""Times of kernels on this machine: the same kernel with several schedules, on one thread.

The schedules run in turn, again and again, each on memory of the kernel's own sizes: a change of the clock or
another program meets all of them. Constants that the heuristic takes to lie beyond the second-level cache do
so here: each launch reads another copy of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from tinyinfer.backends.cpu.compile import driver_source, link_sources
from tinyinfer.backends.cpu.device import LlvmPrinter
from tinyinfer.backends.cpu.executable import CpuExecutable
from tinyinfer.backends.cpu.loader import map_image
from tinyinfer.backends.cpu.machine import choose
from tinyinfer.backends.cpu.target import CpuTarget, host_target
from tinyinfer.config import CompileOptions
from tinyinfer.ir.dtypes import numpy_dtype
from tinyinfer.ir.node import Graph
from tinyinfer.kernels.physical import PackedConstant
from tinyinfer.kernels.plan import contraction_chunks, contraction_source, map_source
from tinyinfer.kernels.schedule import COLD_BYTES, L2_BYTES, ContractionSchedule
from tinyinfer.kernels.schedule_map import MapSchedule
from tinyinfer.kernels.schedule_map_space import MapChoice
from tinyinfer.kernels.schedule_space import ContractionChoice
from tinyinfer.kernels.tune import Progress, known_schedules, tune_kernels
from tinyinfer.kernels.tuning import Tuning
from tinyinfer.runtime.plan import BufferRef, KernelSource, Launch, Plan, TensorSpec

FOUND = "measured"
"""How schedules are found, in a word."""

ALIGNMENT = 64
MOST_COPIES = 16
SECONDS_EACH = 0.02
"""How long a schedule runs until its time is known, about."""

FEWEST_RUNS, MOST_RUNS = 5, 400
HOPELESS = 1.3
"""A schedule whose best time is this many times that of the fastest one is not measured any further; the
first one, which the others are to beat, always is."""


def cannot_tune(target: CpuTarget) -> str | None:
    """Why kernels of a target cannot be measured here, or None."""
    chosen, reasons = choose([target.needs])
    return None if chosen is not None else reasons[0]


def tune(
    graph: Graph,
    target: CpuTarget,
    options: CompileOptions,
    seconds: float = float("inf"),
    progress: Progress = lambda done, total: None,
) -> tuple[Tuning, int]:
    """Schedules for the kernels of `graph`, a graph before any pass, as measured on this machine in about
    `seconds` at most, and the number of kernels that there was no time for. What `options.tuning` has is not
    measured again. Raises ValueError for a target whose code does not run here."""
    reason = cannot_tune(target)
    if reason is not None:
        raise ValueError(reason)
    timer = KernelTimer(target)
    machine = timer.printer.machine
    return tune_kernels(_ready(graph), machine, options, timer, host_target().cpu, seconds, progress)


def applicable(graph: Graph, target: CpuTarget, options: CompileOptions) -> Tuning:
    """The part of `options.tuning` that kernels of `graph`, a graph before any pass, would take."""
    if not options.tuning:
        return Tuning()
    return known_schedules(_ready(graph), LlvmPrinter(target).machine, options)


def _ready(graph: Graph) -> Graph:
    from tinyinfer.ir.passes import optimize
    from tinyinfer.ir.passes.storage_types import use_storage_types

    return optimize(use_storage_types(graph))


class KernelTimer:
    """`kernels.tune.Measure` for code of a target that this machine runs."""

    def __init__(self, target: CpuTarget):
        self.target = target
        self.printer = LlvmPrinter(target)

    def __call__(
        self,
        choice: ContractionChoice | MapChoice,
        schedules: Sequence[ContractionSchedule | MapSchedule],
    ) -> list[float]:
        """Median seconds of a run with each schedule; the least of a few, for hopeless ones."""
        kernels = [_Kernel.make(choice, s, self.printer) for s in schedules]
        sources = {k.source.key: k.source for k in kernels}
        image = link_sources(sources, self.target, 1, None, None, driver_source(self.target))
        code = map_image(image)
        memory = _Memory(kernels)

        def run(some: Sequence[int], runs: int, passes: int = 1) -> list[dict[int, float]]:
            plan = Plan(memory.specs, [], memory.launches([kernels[i] for i in some]), [], 0)
            executable = CpuExecutable(plan, code, 1)
            found = []
            try:
                for _ in range(passes):
                    # the first launch follows what Python did, the others follow each other
                    _, *times = (t.seconds for t in executable.profile(memory.arrays, runs))
                    found.append({i: statistics.median(times[at :: len(some)]) for at, i in enumerate(some)})
            finally:
                executable.close()
            return found

        first = run(range(len(kernels)), 1, FEWEST_RUNS)
        times = {i: min(found[i] for found in first) for i in range(len(kernels))}
        least = min(times.values())
        hopeful = [i for i, seconds in times.items() if i == 0 or seconds <= HOPELESS * least]
        if len(hopeful) > 1:
            runs = int(SECONDS_EACH / max(least, 1e-9) / memory.copies)
            times |= run(hopeful, min(MOST_RUNS, max(FEWEST_RUNS, runs)))[0]
        return [times[i] for i in range(len(kernels))]


@dataclass(frozen=True)
class _Kernel:
    """A kernel to measure: dtypes, elements and offsets of its arguments, and which are constants."""

    source: KernelSource
    chunks: int
    dtypes: tuple[np.dtype, ...]
    sizes: tuple[int, ...]
    offsets: tuple[int, ...]
    constant: tuple[bool, ...]

    @classmethod
    def make(
        cls,
        choice: ContractionChoice | MapChoice,
        schedule: ContractionSchedule | MapSchedule,
        printer: LlvmPrinter,
    ) -> _Kernel:
        if isinstance(choice, MapChoice):
            assert isinstance(schedule, MapSchedule)
            source, _ = map_source(choice.nest, schedule, printer)
            physical, chunks = choice.physical, schedule.chunks
        else:
            assert isinstance(schedule, ContractionSchedule)
            source, _ = contraction_source(choice, schedule, printer)
            nest = choice.nest(schedule.vectors)
            physical, chunks = nest.physical, contraction_chunks(nest, schedule)
        dtypes = tuple(numpy_dtype(d) for d in physical.nest.dtypes)
        constant = tuple(isinstance(a, PackedConstant) for a in physical.arguments)
        sizes = tuple(
            prod(a.shape) if isinstance(a, PackedConstant) else -(-a.nbytes // dtype.itemsize)
            for a, dtype in zip(physical.arguments, dtypes)
        )
        return cls(source, chunks, dtypes, sizes, physical.offsets or (0,) * len(sizes), constant)


class _Memory:
    """Arrays that any of some schedules of one kernel can run on: its arguments, and where the constants are
    large, `copies` of each of those."""

    def __init__(self, kernels: Sequence[_Kernel]):
        first = kernels[0]
        sizes = [max(column) for column in zip(*(k.sizes for k in kernels))]
        cold = [
            constant and size * dtype.itemsize >= COLD_BYTES
            for constant, size, dtype in zip(first.constant, sizes, first.dtypes)
        ]
        least = sum(s * d.itemsize for s, d, c in zip(sizes, first.dtypes, cold) if c)
        self.copies = min(MOST_COPIES, -(-4 * L2_BYTES // least)) if least else 1
        self.arrays: list[np.ndarray] = []
        self.places: list[list[int]] = []
        for size, dtype, many in zip(sizes, first.dtypes, cold):
            count = self.copies if many else 1
            self.places.append(list(range(len(self.arrays), len(self.arrays) + count)))
            self.arrays += [_synthetic(size, dtype, seed) for seed in range(count)]
        self.specs = [TensorSpec(f"a{i}", a.shape, a.dtype.name) for i, a in enumerate(self.arrays)]

    def launches(self, kernels: Sequence[_Kernel]) -> list[Launch]:
        """The last kernel, then all in turn, `copies` times; each launch reads the copy after the one before
        it."""
        made = []
        for number in range(-1, self.copies * len(kernels)):
            kernel = kernels[number % len(kernels)]
            refs = tuple(
                BufferRef("input", place[number % len(place)], offset * dtype.itemsize)
                for place, offset, dtype in zip(self.places, kernel.offsets, kernel.dtypes)
            )
            made.append(Launch(kernel.source, refs, kernel.chunks, True))
        return made


def _synthetic(size: int, dtype: np.dtype, seed: int) -> np.ndarray:
    """Written memory on a cache line: floats between 0.5 and 1, other types zero."""
    raw = np.zeros(size * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -raw.__array_interface__["data"][0] % ALIGNMENT
    array = raw[start : start + size * dtype.itemsize].view(dtype)
    if dtype.kind == "f":
        array[...] = np.random.default_rng(seed).uniform(0.5, 1.0, size)
    else:
        array.fill(0)
    return array
