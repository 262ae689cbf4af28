"""A plan made runnable on an OpenCL device."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyinfer.backends.base import LaunchTime
from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.backends.opencl.capabilities import Capabilities
from tinyinfer.backends.opencl.launches import HostLoop, KernelLaunch, Queue, Scope, bind_launches
from tinyinfer.backends.opencl.memory import VECTOR_BYTES, DeviceMemory, Place
from tinyinfer.backends.opencl.platforms import opencl
from tinyinfer.backends.opencl.programs import build_program
from tinyinfer.ir.node import Node
from tinyinfer.runtime.plan import Plan, StageTexts, TensorSpec
from tinyinfer.runtime.signature import numpy_dtype

if TYPE_CHECKING:
    import pyopencl


class OpenclExecutable:
    """`backends.base.Executable` for an OpenCL device.

    `program_text` is the source of a plan whose kernels were printed before.
    Feeds and results are used where they lie if the device shares the host's memory, and copied otherwise.
    Raises ProgramError where the driver's compiler refuses a kernel, EPFail where memory does not suffice.
    """

    def __init__(
        self,
        plan: Plan,
        context: pyopencl.Context,
        capabilities: Capabilities,
        cache: KernelCache | None = None,
        program_text: str | None = None,
    ):
        cl = opencl()
        self.inputs: list[TensorSpec] = list(plan.inputs)
        self.outputs: list[TensorSpec] = list(plan.outputs)
        self.peak_bytes: int = plan.peak_bytes
        self._plan_stages, self._kept = dict(plan.stages), plan.kept
        self._arena_bytes = plan.arena_bytes
        self._context, self._queue = context, cl.CommandQueue(context)
        program = build_program(context, capabilities, plan.launches, cache, program_text)
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
        self._staging: dict[tuple[str, int], Any] = {}
        self._lock = threading.Lock()

    def run(self, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
        """New outputs for feeds with exactly the shapes and dtypes of `inputs`, C-contiguous, in that order.

        Callers on several threads take turns. Raises ValueError for a feed of another size or layout and
        RuntimeError after `close`.
        """
        with self._lock:
            return self._run(feeds, self._queue, None)

    def profile(self, feeds: Sequence[np.ndarray], runs: int = 10) -> list[LaunchTime]:
        """Median seconds of each launch over `runs` runs: the device's own time of kernels; of loops, that
        of the host."""
        cl = opencl()
        queue = cl.CommandQueue(self._context, properties=cl.command_queue_properties.PROFILING_ENABLE)
        times: list[list[float]] = [[] for _ in self.launches]
        with self._lock:
            for _ in range(max(1, runs)):
                self._run(feeds, queue, times)
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

    def kept_values(self) -> list[tuple[Node, np.ndarray]]:
        """Each value that the last run stored, copied from the arena (CompileOptions.keep_values)."""
        memory = self._open()
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
            self._memory = None
            self.launches = []
            self._staging.clear()

    # ---- one run

    def _open(self) -> DeviceMemory:
        if self._memory is None:
            raise RuntimeError("the executable is closed")
        return self._memory

    def _run(
        self,
        feeds: Sequence[np.ndarray],
        queue: pyopencl.CommandQueue,
        times: list[list[float]] | None,
    ) -> list[np.ndarray]:
        memory = self._open()
        self._check(feeds)
        # to let go of a copy's event is to wait for it
        copies: list[Any] = []
        inputs = [self._input(queue, memory, i, feed, copies) for i, feed in enumerate(feeds)]
        results = [_aligned_array(spec) for spec in self.outputs]
        outputs = [self._output(memory, i, result) for i, result in enumerate(results)]
        scope = Scope(memory.arena, memory.parameters, inputs, outputs, memory.images)
        launches = Queue(queue)
        if times is None:
            for launch in self.launches:
                launch.run(launches, scope)
        else:
            self._timed(launches, scope, times)
        self._fetch(queue, results, outputs)
        return results

    def _timed(self, queue: Queue, scope: Scope, times: list[list[float]]) -> None:
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

    def _input(
        self,
        queue: pyopencl.CommandQueue,
        memory: DeviceMemory,
        number: int,
        feed: np.ndarray,
        copies: list[Any],
    ) -> Place:
        own = memory.wrap(_bytes(feed), False)
        if own is not None:
            return Place(own, 0)
        buffer = self._staged("input", number, memory, feed.nbytes)
        if feed.nbytes:
            copies.append(opencl().enqueue_copy(queue, buffer, _bytes(feed), is_blocking=False))
        return Place(buffer, 0)

    def _output(self, memory: DeviceMemory, number: int, result: np.ndarray) -> Place:
        own = memory.wrap(_bytes(result), True)
        return Place(own if own is not None else self._staged("output", number, memory, result.nbytes), 0)

    def _staged(self, space: str, number: int, memory: DeviceMemory, size: int) -> Any:
        key = (space, number)
        if key not in self._staging:
            names = self.inputs if space == "input" else self.outputs
            self._staging[key] = memory.allocate(size, f"{space} {names[number].name!r}")
        return self._staging[key]

    def _fetch(
        self, queue: pyopencl.CommandQueue, results: Sequence[np.ndarray], outputs: Sequence[Place]
    ) -> None:
        """Bring the results to the arrays, and wait for it."""
        cl = opencl()
        copies = []
        for number, (result, place) in enumerate(zip(results, outputs)):
            if not result.nbytes:
                continue
            if place.buffer is self._staging.get(("output", number)):
                copies.append(cl.enqueue_copy(queue, _bytes(result), place.buffer, is_blocking=False))
                continue
            # mapping is what makes the device's writes visible in the array
            flags = cl.map_flags.READ
            mapped, _ = cl.enqueue_map_buffer(
                queue, place.buffer, flags, 0, result.nbytes, np.uint8, is_blocking=False
            )
            mapped.base.release(queue)
        queue.finish()


def _bytes(array: np.ndarray) -> np.ndarray:
    """The memory of a C-contiguous array of any dtype as bytes."""
    return array.reshape(-1).view(np.uint8)


def _aligned_array(spec: TensorSpec) -> np.ndarray:
    """A new array whose memory kernels can use."""
    dtype = numpy_dtype(spec.dtype)
    size = int(np.prod(spec.shape, dtype=np.int64)) * dtype.itemsize
    whole = np.empty(size + VECTOR_BYTES, np.uint8)
    start = -whole.__array_interface__["data"][0] % VECTOR_BYTES
    return whole[start : start + size].view(dtype).reshape(spec.shape)


def _loop_seconds(queue: Queue, scope: Scope, loop: HostLoop) -> float:
    queue.queue.finish()
    start = time.perf_counter()
    loop.run(queue, scope)
    queue.queue.finish()
    return time.perf_counter() - start
