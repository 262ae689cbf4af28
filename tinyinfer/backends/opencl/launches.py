"""Launches on an OpenCL queue: kernels with their arguments, and loops, which the host repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyinfer.backends.opencl.driver import Kernel, queue_handle
from tinyinfer.backends.opencl.memory import Place
from tinyinfer.backends.opencl.platforms import opencl
from tinyinfer.runtime.plan import BufferRef, Launch, LoopLaunch, Moving

if TYPE_CHECKING:
    import pyopencl


@dataclass
class Scope:
    """Where references of launches lead, at the time of a run."""

    arena: Place
    parameters: Sequence[Place]
    inputs: list[Place]
    outputs: list[Place]
    images: Sequence[Place] = ()

    def place(self, ref: BufferRef) -> Place:
        if ref.space == "arena":
            return self.arena.moved(ref.offset)
        spaces = {
            "parameter": self.parameters,
            "input": self.inputs,
            "output": self.outputs,
            "image": self.images,
        }
        return spaces[ref.space][ref.number].moved(ref.offset)


class Queue:
    """A command queue, and its handle for launches."""

    def __init__(self, queue: pyopencl.CommandQueue):
        self.queue, self.handle = queue, queue_handle(queue)


class KernelLaunch:
    """A kernel and its arguments. The arena and parameters stay where they are; other arguments are set again
    where they have moved since the last launch."""

    def __init__(self, launch: Launch, program: Any):
        assert launch.work is not None
        self.launch = launch
        self.kernel = Kernel(program, launch.kernel.name, launch.work.total, launch.work.group)
        self.bound: list[Place | None] = [None] * len(launch.arguments)
        # an image is one parameter of the kernel, a buffer and where to begin in it two
        self.positions = [0] * (len(launch.arguments) + 1)
        self.unbound = list(enumerate(launch.arguments))
        self.moving = [(i, ref) for i, ref in self.unbound if ref.space in ("input", "output")]

    def run(self, queue: Queue, scope: Scope) -> None:
        """Enqueue it."""
        self.bind(scope)
        self.kernel.launch(queue.handle)

    def timed(self, queue: Queue, scope: Scope) -> Any:
        """Enqueue it; gives the event, which a queue with profiling puts times into."""
        self.bind(scope)
        kernel = self.kernel
        return opencl().enqueue_nd_range_kernel(queue.queue, kernel.kernel, kernel.total, kernel.group)

    def bind(self, scope: Scope) -> None:
        kernel = self.kernel
        for number, ref in self.unbound:
            place, last = scope.place(ref), self.bound[number]
            if last is None:
                self.positions[number + 1] = self.positions[number] + (1 if place.is_image else 2)
            if last is None or place.buffer is not last.buffer:
                kernel.set_memory(self.positions[number], place.buffer)
            if not place.is_image and (last is None or place.offset != last.offset):
                kernel.set_offset(self.positions[number] + 1, place.offset)
            self.bound[number] = place
        self.unbound = self.moving


class HostLoop:
    """A loop whose iterations the host enqueues. It waits for the device only where a condition decides
    whether to go on."""

    def __init__(self, launch: Launch, program: Any):
        assert launch.loop is not None
        self.launch = launch
        self.loop: LoopLaunch = launch.loop
        self.launches = bind_launches(self.loop.launches, program)
        self.counts = any(
            ref.space == "input" and ref.number == 0 for x in self.loop.launches for ref in x.arguments
        )

    def run(self, queue: Queue, scope: Scope) -> None:
        """Enqueue all iterations."""
        cl, loop = opencl(), self.loop
        steps, going = loop.steps, True
        if loop.count is not None:
            steps = min(steps, int(_read(queue, scope.place(loop.count), np.int64)))
        if loop.enter is not None:
            going = bool(_read(queue, scope.place(loop.enter), np.uint8))
        for ref, size in loop.cleared:
            at = scope.place(ref)
            cl.enqueue_fill_buffer(queue.queue, at.buffer, np.uint8(0), at.offset, size)
        for target, source, size in loop.before:
            _copy(queue, scope.place(target), scope.place(source), size)
        inner = Scope(
            scope.place(loop.arena),
            scope.parameters,
            [scope.place(m.ref) for m in loop.inputs],
            [scope.place(m.ref) for m in loop.outputs],
            scope.images,
        )
        number = 0
        while going and number < steps:
            if self.counts:
                _write(queue, scope.place(loop.iteration), np.int64(number))
            for launch in self.launches:
                launch.run(queue, inner)
            for places, moving in ((inner.inputs, loop.inputs), (inner.outputs, loop.outputs)):
                for i, m in enumerate(moving):
                    places[i] = places[i].moved(m.odd if number % 2 else m.even)
            number += 1
            if loop.go_on is not None:
                going = bool(_read(queue, scope.place(loop.go_on), np.uint8))
        for target, moved, size in loop.after:
            _copy(queue, scope.place(target), scope.place(moved.ref).moved(_distance(moved, number)), size)
        if loop.done is not None:
            _write(queue, scope.place(loop.done), np.int64(number))


def bind_launches(launches: Sequence[Launch], program: Any) -> list[KernelLaunch | HostLoop]:
    """The launches of a plan, or of a loop's body, ready to run."""
    return [
        HostLoop(launch, program) if launch.loop is not None else KernelLaunch(launch, program)
        for launch in launches
    ]


def _distance(moving: Moving, iterations: int) -> int:
    """Bytes that a place has moved after so many iterations."""
    return moving.even * ((iterations + 1) // 2) + moving.odd * (iterations // 2)


def _read(queue: Queue, place: Place, dtype: type) -> Any:
    """One number, once all that was enqueued before is done."""
    result: np.ndarray = np.empty(1, dtype)
    opencl().enqueue_copy(queue.queue, result, place.buffer, src_offset=place.offset, is_blocking=True)
    return result[0]


def _write(queue: Queue, place: Place, value: np.generic) -> None:
    opencl().enqueue_fill_buffer(queue.queue, place.buffer, value, place.offset, value.nbytes)


def _copy(queue: Queue, target: Place, source: Place, size: int) -> None:
    if size:
        opencl().enqueue_copy(
            queue.queue,
            target.buffer,
            source.buffer,
            byte_count=size,
            src_offset=source.offset,
            dst_offset=target.offset,
        )
