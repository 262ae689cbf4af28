"""Loops as one kernel, for devices of work-items, where a launch costs more than a short iteration.

One group of work-items, or several that wait for each other, runs all iterations. The launches of the body
become phases between barriers; what a loop's launch does around them (copies, counting, conditions) stands in
the kernel too. Whether that is faster than launches of the host is decided by what both cost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Protocol

from tinyinfer.ir.node import LoopBody, Node, node
from tinyinfer.kernels.halo import HaloRegion
from tinyinfer.kernels.layout import Buffer
from tinyinfer.runtime.plan import BufferRef, Launch, LoopLaunch

if TYPE_CHECKING:
    from tinyinfer.kernels.plan import KernelPrinter
    from tinyinfer.kernels.schedule_gpu import LoopCosts

LONGEST = 50e3
"""Microseconds that one kernel may take: drivers end kernels that hang, and screens wait for long ones."""


@dataclass(frozen=True)
class WholeLoop:
    """A loop whose every iteration one kernel runs.

    References of `loop`, and of the launches in it, that lead out of the loop are of space "argument": to
    arguments of the kernel, of which there are `arguments`. It runs on `groups` groups of `size` work-items,
    which, where they are several, meet at argument `meeting`: two uint, zero before the kernel and after it.
    """

    loop: LoopLaunch
    arguments: int
    groups: int
    size: int
    meeting: int | None


class WholeLoopPrinter(Protocol):
    """What a device that can run loops as one kernel adds to a KernelPrinter."""

    @property
    def costs(self) -> LoopCosts:
        """What iterations cost on the device."""

    @property
    def choices(self) -> tuple[int, ...]:
        """The numbers of groups that a loop may run on."""

    def body(self, groups: int) -> KernelPrinter:
        """The KernelPrinter of a loop's body: kernels with barriers have groups of exactly `size(groups)`."""

    def size(self, groups: int) -> int:
        """Work-items of each of so many groups."""

    def fits(self, launches: tuple[Launch, ...], groups: int) -> bool:
        """Whether a body's kernels, as they were printed, can be phases."""

    def text(self, name: str, loop: WholeLoop) -> str:
        """The kernel."""


def may_be_whole(body: LoopBody) -> bool:
    """Whether a loop is of a kind that one kernel may run: without loops inside it."""
    return all(x.op not in ("LOOP", "LOOP_OUTPUT") for x in body.graph.nodes())


def host_cost(costs: LoopCosts, body: LoopBody, launches: int) -> float:
    """Microseconds of an iteration whose launches are the host's."""
    return launches * costs.launch + (costs.read if body.conditional else 0.0)


def kernel_cost(
    costs: LoopCosts, body: LoopBody, groups: int, phases: int, nbytes: float, flops: float
) -> float:
    """Microseconds of an iteration that is part of a kernel; infinite where that would take too long."""
    one = phases * (costs.phase if groups == 1 else costs.meeting)
    one += (nbytes / costs.nbytes + flops / costs.flops) / groups
    return one if one * body.steps <= LONGEST else float("inf")


def meeting_place(owner: Node) -> tuple[Buffer, HaloRegion]:
    """Where groups count who has come, and the region of it that is zero before the first kernel."""
    made = node("MEETING", (owner,), None, (2,), "int32")
    buffer = Buffer(made, "arena", dense=True)
    buffer.place()
    return buffer, HaloRegion(0, (), 2)


def with_parameters(launches: list[Launch], first: int) -> list[Launch]:
    """The launches with parameters as arguments of the kernel, number 0 being argument `first`."""

    def local(ref: BufferRef) -> BufferRef:
        return BufferRef("argument", first + ref.number, ref.offset) if ref.space == "parameter" else ref

    return [replace(x, arguments=tuple(map(local, x.arguments))) for x in launches]


def whole_loop_key(loop: WholeLoop) -> str:
    """A text that equal kernels share."""
    body = replace(loop.loop, launches=())
    lines = [f"{x.kernel.key} {x.work} {x.waits} {x.arguments}" for x in loop.loop.launches]
    return "\n".join([f"{loop.arguments} {loop.groups} {loop.size} {loop.meeting} {body}", *lines])


def items_of(launch: Launch) -> int:
    """Work-items of a phase."""
    assert launch.work is not None
    return prod(launch.work.total)
