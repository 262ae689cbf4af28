"""The launches of a plan as what the direct route does in order: dispatches, and between them, where a loop
needs it, copies by the host.

Loops of a known number of iterations are written out: each iteration has dispatches of its own, whose
addresses are where its moving places then are. The number of an iteration is read from a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tinyinfer.backends.qcom.kgsl.arguments import (
    Access,
    Argument,
    BufferArgument,
    ImageArgument,
    ScalarArgument,
)
from tinyinfer.backends.qcom.kgsl.mesa_kernel import MesaKernel
from tinyinfer.backends.qcom.kgsl.plan_memory import Place, PlanMemory, Span
from tinyinfer.backends.qcom.kgsl.plan_stream import Dispatch
from tinyinfer.backends.qcom.kgsl.shader import ImageSlot
from tinyinfer.errors import EPFail
from tinyinfer.runtime.plan import BufferRef, Launch, LoopLaunch, Moving


@dataclass(frozen=True)
class HostCopy:
    """`size` bytes that the host puts at `target` when all before is done: those at `source`, or `content`
    again and again."""

    target: Span
    size: int
    source: Span | None = None
    content: bytes = b"\0"

    def run(self) -> None:
        """Copy, both sides being what the GPU sees."""
        memory = self.target.buffer.view(self.target.offset, (self.size,), np.uint8)
        if self.source is not None:
            self.source.buffer.sync_from_gpu(self.source.offset, self.size)
            memory[:] = self.source.buffer.view(self.source.offset, (self.size,), np.uint8)
        else:
            memory[:] = np.frombuffer(self.content * (self.size // len(self.content)), np.uint8)
        self.target.buffer.sync_to_gpu(self.target.offset, self.size)


@dataclass(frozen=True)
class Run:
    """A dispatch, and the number of the plan's launch that it belongs to."""

    dispatch: Dispatch
    launch: int


Step = Run | HostCopy


def check_loops(launches: Sequence[Launch]) -> None:
    """EPFail naming a loop whose end only its data know."""
    for launch in launches:
        loop = launch.loop
        if loop is not None:
            if not (loop.count is loop.enter is loop.go_on is None):
                raise EPFail(f"the direct route has no loops that end by a condition: {launch.title}")
            check_loops(loop.launches)


def plan_steps(
    launches: Sequence[Launch], kernels: Mapping[str, MesaKernel], memory: PlanMemory
) -> list[Step]:
    """Everything that a run does. The loops are such as `check_loops` lets pass."""
    steps: list[Step] = []
    for number, launch in enumerate(launches):
        _append(steps, launch, number, launch.waits, kernels, memory, memory.place)
    return steps


def _append(
    steps: list[Step],
    launch: Launch,
    number: int,
    waits: bool,
    kernels: Mapping[str, MesaKernel],
    memory: PlanMemory,
    place: Callable[[BufferRef], Place],
) -> None:
    if launch.loop is None:
        steps.append(Run(_dispatch(launch, waits, kernels[launch.kernel.key], place), number))
        return
    loop = launch.loop
    steps += [HostCopy(_span(place(ref)), size) for ref, size in loop.cleared if size]
    steps += [HostCopy(_span(place(to)), n, _span(place(source))) for to, source, n in loop.before if n]
    for iteration in range(loop.steps):
        inner = _inside(loop, iteration, memory, place)
        for position, body in enumerate(loop.launches):
            # the first one needs what the last iteration left
            _append(steps, body, number, body.waits or not position, kernels, memory, inner)
    for target, moving, size in loop.after:
        if size:
            source = _moved(place(moving.ref), moving, loop.steps)
            steps.append(HostCopy(_span(place(target)), size, _span(source)))
    if loop.done is not None:
        steps.append(HostCopy(_span(place(loop.done)), 8, content=np.int64(loop.steps).tobytes()))


def _inside(
    loop: LoopLaunch, iteration: int, memory: PlanMemory, place: Callable[[BufferRef], Place]
) -> Callable[[BufferRef], Place]:
    """Where references of the body lead in one iteration."""

    def inner(ref: BufferRef) -> Place:
        if ref.space == "arena":
            return _span(place(loop.arena)).moved(ref.offset)
        if ref.space not in ("input", "output"):
            return place(ref)
        moving = (loop.inputs if ref.space == "input" else loop.outputs)[ref.number]
        if ref.space == "input" and moving.ref == loop.iteration:
            return memory.numbers(loop.steps).moved(8 * iteration + ref.offset)
        found = _moved(place(moving.ref), moving, iteration)
        return found.moved(ref.offset) if isinstance(found, Span) else found

    return inner


def _moved(place: Place, moving: Moving, iterations: int) -> Place:
    """A place after so many iterations."""
    distance = moving.even * ((iterations + 1) // 2) + moving.odd * (iterations // 2)
    return place.moved(distance) if isinstance(place, Span) else place


def _span(place: Place) -> Span:
    assert isinstance(place, Span)
    return place


def _dispatch(
    launch: Launch, waits: bool, kernel: MesaKernel, place: Callable[[BufferRef], Place]
) -> Dispatch:
    assert launch.work is not None
    # a buffer is two parameters of the kernel, itself and where to begin in it; an image is one
    given: list[Argument] = []
    for ref in launch.arguments:
        found = place(ref)
        if isinstance(found, Span):
            given += [BufferArgument(found.buffer), ScalarArgument(np.uint64(found.offset))]
        else:
            given.append(found)
    arguments = [
        _read_only(given[number]) if isinstance(slot, ImageSlot) else given[number]
        for slot, number in zip(kernel.shader.slots, kernel.takes)
    ]
    sizes = launch.work
    x, y, z = (total // group for total, group in zip(sizes.total, sizes.group))
    return Dispatch(kernel.shader, arguments, (x, y, z), sizes.group, waits)


def _read_only(argument: Argument) -> Argument:
    assert isinstance(argument, ImageArgument)
    return replace(argument, access=Access.READ)
