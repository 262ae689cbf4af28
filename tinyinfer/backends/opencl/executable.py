"""A plan made runnable on an OpenCL device."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyinfer.backends.base import LaunchTime
from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.backends.opencl.capabilities import Capabilities
from tinyinfer.backends.opencl.launches import HostLoop, KernelLaunch, Queue, Scope, bind_launches
from tinyinfer.backends.opencl.memory import DeviceMemory
from tinyinfer.backends.opencl.platforms import opencl
from tinyinfer.backends.opencl.programs import PrintedProgram, all_launches, build_program
from tinyinfer.backends.opencl.stepping import Look, step_through
from tinyinfer.backends.opencl.transfers import Transfers
from tinyinfer.backends.opencl.vendor import Steps, Vendor
from tinyinfer.ir.node import Node
from tinyinfer.runtime.plan import Plan, StageTexts, TensorSpec
from tinyinfer.runtime.signature import numpy_dtype

if TYPE_CHECKING:
    import pyopencl

RUNS_COMPARED = 2
"""What an earlier run with other feeds left in memory is a wrong result in the second one."""

_MEETING = threading.Lock()
"""Held by runs with kernels whose groups wait for each other: two at the same time could wait for ever."""


class OpenclExecutable:
    """`backends.base.Executable` for an OpenCL device.

    `printed` is the program of a plan whose kernels were printed before.
    `vendor` is what the context's device can do besides. What it replays is compared with the launches
    themselves in the first runs, bit by bit, and not used again where that differs.
    Raises ProgramError where the driver's compiler refuses a kernel, EPFail where memory does not suffice.
    """

    def __init__(
        self,
        plan: Plan,
        context: pyopencl.Context,
        capabilities: Capabilities,
        cache: KernelCache | None = None,
        printed: PrintedProgram | None = None,
        vendor: Vendor | None = None,
    ):
        cl = opencl()
        self.inputs: list[TensorSpec] = list(plan.inputs)
        self.outputs: list[TensorSpec] = list(plan.outputs)
        self.peak_bytes: int = plan.peak_bytes
        self._plan_stages, self._kept = dict(plan.stages), plan.kept
        self._arena_bytes, self._images = plan.arena_bytes, plan.images
        self._context, self._queue = context, cl.CommandQueue(context)
        program = build_program(context, capabilities, plan.launches, cache, printed)
        self.program = program
        """As pyopencl has it."""
        self.launches = bind_launches([x for x in plan.launches if not x.once], program)
        self._memory: DeviceMemory | None = DeviceMemory(
            context,
            self._queue,
            capabilities,
            plan.arena_bytes,
            plan.parameters,
            plan.images,
            plan.parameter_images,
        )
        scope = Scope(self._memory.arena, self._memory.parameters, [], [], self._memory.images)
        for launch in bind_launches([x for x in plan.launches if x.once], program):
            launch.run(Queue(self._queue), scope)
        self._queue.finish()
        self._transfers: Transfers | None = Transfers(self._memory, self.inputs, self.outputs, vendor)
        self._replay = vendor.replay(self.launches) if vendor is not None else None
        self._unproved = RUNS_COMPARED
        self._meets = any(x.meets for x in all_launches(plan.launches))
        self._lock = threading.Lock()

    def run(self, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
        """New outputs for feeds with exactly the shapes and dtypes of `inputs`, C-contiguous, in that order.

        Callers on several threads take turns. Raises ValueError for a feed of another size or layout and
        RuntimeError after `close`.
        """
        with self._lock, _MEETING if self._meets else nullcontext():
            if self._replay is None:
                return self._run(feeds, self._launch)
            if self._unproved == 0:
                return self._run(feeds, self._replay.run)
            return self._compared(feeds, self._replay)

    def profile(self, feeds: Sequence[np.ndarray], runs: int = 10) -> list[LaunchTime]:
        """Median seconds of each launch over `runs` runs: the device's own time of kernels; of loops, that
        of the host."""
        cl = opencl()
        queue = cl.CommandQueue(self._context, properties=cl.command_queue_properties.PROFILING_ENABLE)
        times: list[list[float]] = [[] for _ in self.launches]
        with self._lock, _MEETING if self._meets else nullcontext():
            for _ in range(max(1, runs)):
                self._run(feeds, partial(self._timed, times), queue)
        return [
            LaunchTime(
                x.launch.title or x.launch.kernel.name,
                x.launch.origin,
                statistics.median(seconds),
                x.launch.flops,
                x.launch.bytes,
            )
            for x, seconds in zip(self.launches, times)
        ]

    def step(self, feeds: Sequence[np.ndarray], look: Look) -> list[np.ndarray]:
        """As `run`, one launch after the other, each under `look` (`stepping`)."""
        with self._lock, _MEETING if self._meets else nullcontext():
            return self._run(feeds, step_through(self.launches, self._images, look))

    def kept_values(self) -> list[tuple[Node, np.ndarray]]:
        """Each value that the last run stored, copied from the arena (CompileOptions.keep_values)."""
        memory, _ = self._open()
        arena = np.empty(max(1, self._arena_bytes), np.uint8)
        opencl().enqueue_copy(self._queue, arena, memory.arena.buffer, is_blocking=True)
        result = []
        for value in self._kept:
            dtype = numpy_dtype(value.node.dtype)
            whole = arena[value.offset :]
            start = whole[: len(whole) // dtype.itemsize * dtype.itemsize].view(dtype)
            result.append(
                (value.node, np.lib.stride_tricks.as_strided(start, value.node.shape, value.strides))
            )
        return result

    def stages(self) -> Mapping[str, str]:
        """The text of every compiler stage, by name, in order: each is made when it is looked at."""
        return StageTexts(self._plan_stages)

    def close(self) -> None:
        """Give up the device's memory; later runs raise RuntimeError."""
        with self._lock:
            self._memory = self._transfers = self._replay = None
            self.launches = []

    # ---- one run

    def _open(self) -> tuple[DeviceMemory, Transfers]:
        if self._memory is None or self._transfers is None:
            raise RuntimeError("the executable is closed")
        return self._memory, self._transfers

    def _run(
        self,
        feeds: Sequence[np.ndarray],
        enqueue: Callable[[Queue, Scope], None],
        queue: pyopencl.CommandQueue | None = None,
    ) -> list[np.ndarray]:
        memory, transfers = self._open()
        self._check(feeds)
        queue = queue if queue is not None else self._queue
        inputs = [transfers.feed(queue, i, feed) for i, feed in enumerate(feeds)]
        results = [transfers.result(i) for i in range(len(self.outputs))]
        scope = Scope(memory.arena, memory.parameters, inputs, [place for _, place in results], memory.images)
        enqueue(Queue(queue), scope)
        transfers.finish(queue, results)
        return [array for array, _ in results]

    def _compared(self, feeds: Sequence[np.ndarray], replay: Steps) -> list[np.ndarray]:
        """The launches' own results. A replay that makes others of the same feeds is not used again."""

        def enqueue(queue: Queue, scope: Scope) -> None:
            for spec, place in zip(self.outputs, scope.outputs):
                # so that a launch that is left out is not made up for by what lies there
                size = max(1, int(np.prod(spec.shape)) * numpy_dtype(spec.dtype).itemsize)
                opencl().enqueue_fill_buffer(queue.queue, place.buffer, np.uint8(0xA5), place.offset, size)
            replay.run(queue, scope)

        replayed, results = self._run(feeds, enqueue), self._run(feeds, self._launch)
        self._unproved -= 1
        if any(a.tobytes() != b.tobytes() for a, b in zip(replayed, results)):
            self._replay = None
        return results

    def _launch(self, queue: Queue, scope: Scope) -> None:
        for launch in self.launches:
            launch.run(queue, scope)

    def _timed(self, times: list[list[float]], queue: Queue, scope: Scope) -> None:
        events: list[tuple[int, Any]] = []
        for number, launch in enumerate(self.launches):
            if isinstance(launch, KernelLaunch):
                events.append((number, launch.timed(queue, scope)))
                continue
            times[number].append(_loop_seconds(queue, scope, launch))
        queue.queue.finish()
        for number, event in events:
            times[number].append((event.profile.end - event.profile.start) * 1e-9)

    def _check(self, feeds: Sequence[np.ndarray]) -> None:
        if len(feeds) != len(self.inputs):
            raise ValueError(f"{len(self.inputs)} inputs are needed, not {len(feeds)}")
        for spec, feed in zip(self.inputs, feeds):
            size = int(np.prod(spec.shape, dtype=np.int64)) * numpy_dtype(spec.dtype).itemsize
            # kernels read exactly this many bytes from the array's start
            if not isinstance(feed, np.ndarray) or feed.nbytes != size or not feed.flags.c_contiguous:
                raise ValueError(f"input {spec.name!r} must be a C-contiguous array of {size} bytes")


def _loop_seconds(queue: Queue, scope: Scope, loop: HostLoop) -> float:
    queue.queue.finish()
    start = time.perf_counter()
    loop.run(queue, scope)
    queue.queue.finish()
    return time.perf_counter() - start
