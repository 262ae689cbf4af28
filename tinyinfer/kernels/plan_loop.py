"""Loops in the plan: a body planned like a graph of its own, run by one launch.

A carried value has two places in the loop's scratch memory, and iterations read from one what they write to
the other in turn, so that no iteration copies it. Scanned and stacked values move by one row. A value that is
carried and stacked, such as a recurrent layer's state, has a place for each row, and all rows are copied at
once after the last iteration. The body's own arena is part of the scratch memory too: nothing else in it
outlives an iteration.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from tinyinfer.config import CompileOptions
from tinyinfer.ir.dtypes import numpy_dtype
from tinyinfer.ir.node import Graph, LoopBody, Node, node
from tinyinfer.kernels.assign import LoopKernel
from tinyinfer.kernels.layout import Buffer
from tinyinfer.kernels.physical import PackedConstant
from tinyinfer.kernels.plan import (
    KernelPrinter,
    Parameters,
    Step,
    build_steps,
    halo_step,
    launches_text,
    place_steps,
    source_of,
    steps_text,
    title_of,
)
from tinyinfer.kernels.whole_loop import (
    WholeLoop,
    host_cost,
    kernel_cost,
    may_be_whole,
    meeting_place,
    whole_loop_key,
    with_parameters,
)
from tinyinfer.runtime.plan import BufferRef, KernelSource, Launch, LoopLaunch, Moving, WorkSizes

ALIGNMENT = 64


def loop_steps(
    kernel: LoopKernel,
    buffers: dict[Node, Buffer],
    printer: KernelPrinter,
    options: CompileOptions,
    parameters: Parameters,
) -> list[Step]:
    """The launch of a LOOP, its body planned and placed: one kernel, after what that needs, where the
    device can run it and that is faster than launches of the host."""
    body: LoopBody = kernel.root.attrs
    rows = _stacked_states(body, set(kernel.outputs))
    graph = _without(body, set(rows.values()))
    _, steps = build_steps(graph, printer, options, parameters)
    _name_steps(steps, kernel)
    numbers = list(kernel.outputs)
    results: list[Buffer | PackedConstant] = [buffers[x] for x in kernel.outputs.values()]
    operands = [buffers[x] for x in kernel.operands]
    whole = _whole_loop(kernel, rows, graph, steps, results, operands, printer, options)
    if whole is not None:
        return whole
    launches, _, arena_bytes = place_steps(steps, parameters)
    scratch = _Scratch(body, rows, arena_bytes)
    arguments = [*results, scratch.buffer(kernel.root), *operands]
    writes = len(results) + 1

    def place(refs: tuple[BufferRef, ...]) -> LoopLaunch:
        outputs = dict(zip(numbers, refs))
        return _launch(body, launches, scratch, outputs, refs[writes - 1], refs[writes:])

    heading = f"loop of {body.steps} steps at most, {len(launches)} launches each"
    source = source_of("loop", "loop", printer.loop)
    return [_step(source, kernel, arguments, writes, steps, launches, heading, loop=place)]


def _whole_loop(
    kernel: LoopKernel,
    rows: dict[int, int],
    graph: Graph,
    hosted: list[Step],
    results: list[Buffer | PackedConstant],
    operands: list[Buffer],
    printer: KernelPrinter,
    options: CompileOptions,
) -> list[Step] | None:
    """A LOOP as one kernel; None where launches of the host, the `hosted` steps for each iteration, are
    faster."""
    body, whole = kernel.root.attrs, printer.whole_loops
    if whole is None or not may_be_whole(body):
        return None
    nbytes, flops = (sum(getattr(x, what) for x in hosted) for what in ("bytes", "flops"))
    costs = {n: kernel_cost(whole.costs, body, n, len(hosted), nbytes, flops) for n in whole.choices}
    groups = min(costs, key=lambda n: costs[n])
    if costs[groups] >= host_cost(whole.costs, body, len(hosted)):
        return None
    own = Parameters()
    _, steps = build_steps(graph, whole.body(groups), options, own)
    _name_steps(steps, kernel)
    launches, _, arena_bytes = place_steps(steps, own)
    if not whole.fits(tuple(launches), groups):
        return None
    scratch = _Scratch(body, rows, arena_bytes)
    arguments = [*results, scratch.buffer(kernel.root)]
    before: list[Step] = []
    meeting = None
    if groups > 1:
        place, region = meeting_place(kernel.root)
        before, meeting = [halo_step(place, (region,), printer)], len(arguments)
        arguments.append(place)
    writes, constants = len(arguments), list(own.numbers)
    arguments += [*operands, *constants]
    refs = tuple(BufferRef("argument", i) for i in range(len(arguments)))
    loop = _launch(
        body,
        with_parameters(launches, len(arguments) - len(constants)),
        scratch,
        dict(zip(kernel.outputs, refs)),
        refs[len(results)],
        refs[writes : writes + len(operands)],
    )
    made = WholeLoop(loop, len(arguments), groups, whole.size(groups), meeting)
    source = source_of("loop", whole_loop_key(made), lambda name: whole.text(name, made))
    heading = f"loop of {body.steps} steps at most on {groups} groups, {len(launches)} phases each"
    size = (whole.size(groups), 1, 1)
    work = WorkSizes((groups * size[0], 1, 1), size)
    step = _step(source, kernel, arguments, writes, steps, launches, heading, work=work, meets=groups > 1)
    return [*before, step]


def _name_steps(steps: list[Step], kernel: LoopKernel) -> None:
    """Steps that come from no ONNX node come from the loop's."""
    for step in steps:
        step.origin = step.origin or tuple(sorted(kernel.root.origin))


def _step(
    source: KernelSource,
    kernel: LoopKernel,
    arguments: list[Buffer | PackedConstant],
    writes: int,
    steps: list[Step],
    launches: list[Launch],
    heading: str,
    loop: Callable[[tuple[BufferRef, ...]], LoopLaunch] | None = None,
    work: WorkSizes | None = None,
    meets: bool = False,
) -> Step:
    """The step of a loop whose body has these steps."""
    count = min(kernel.root.attrs.steps, ENDLESS_GUESS)
    title, names = title_of(kernel.root.origin.union(*(x.origin for x in steps), frozenset()), "loop")
    kernels = steps_text(steps)
    return Step(
        source,
        arguments,
        (),
        1,
        f"loop of {title}",
        names,
        count * sum(x.flops for x in steps),
        count * sum(x.bytes for x in steps),
        lambda: f"{heading}\n{launches_text(launches)}\n\n{kernels()}\n; end of loop",
        writes=writes,
        loop=loop,
        work=work,
        meets=meets,
    )


def bring_loops_together(steps: list[Step]) -> list[Step]:
    """The steps with loops side by side where the later one does not need the earlier one.

    A loop runs on one thread; two side by side, such as the directions of a recurrent layer, run on two.
    """
    order = list(steps)
    for position in range(len(order) - 2, -1, -1):
        if order[position].loop is None:
            continue
        following = next((i for i in range(position + 1, len(order)) if order[i].loop is not None), None)
        if following is None:
            continue
        after = [order[position]]
        before: list[Step] = []
        for step in order[position + 1 : following + 1]:
            (after if any(_depends(earlier, step) for earlier in after) else before).append(step)
        if before and before[-1] is order[following]:
            both = [order[position], order[following]]
            order[position : following + 1] = [*before[:-1], *both, *after[1:]]
    return order


def _depends(step: Step, later: Step) -> bool:
    """Whether one of two steps writes what the other one touches."""
    mine, theirs = (
        [(a.storage, i < s.writes) for i, a in enumerate(s.arguments) if isinstance(a, Buffer)]
        for s in (step, later)
    )
    return any(a is b and (written or other) for a, written in mine for b, other in theirs)


ENDLESS_GUESS = 1 << 10
"""Iterations that a loop without a known number of them is taken to run, where its work is estimated."""


def _bytes(x: Node) -> int:
    return max(1, prod(x.shape)) * numpy_dtype(x.dtype).itemsize


MOST_STATES = 4 << 20
"""Bytes of all rows of a state above which each iteration copies its own."""


def _stacked_states(body: LoopBody, read: set[int]) -> dict[int, int]:
    """By the number of a carried value: that of a stacked one whose row it is in each iteration."""
    found: dict[int, int] = {}
    for number in range(body.carried, body.carried + len(body.stacked)):
        row = body.outputs[number]
        if number in read and row.size and body.steps * _bytes(row) <= MOST_STATES:
            same = (i for i in range(body.carried) if body.outputs[i] is row and i not in found)
            state = next(same, None)
            if state is not None:
                found[state] = number
    return found


def _without(body: LoopBody, numbers: set[int]) -> Graph:
    """The body's graph without these results."""
    whole = body.graph
    return Graph(whole.inputs, {n: x for n, x in whole.outputs.items() if int(n) not in numbers}, whole.name)


class _Scratch:
    """Offsets into a loop's scratch memory. `rows` says which carried values are stacked too; those begin
    where the first iteration reads and writes them."""

    def __init__(self, body: LoopBody, rows: dict[int, int], arena_bytes: int):
        self.size = 0
        self.rows = rows
        self.arena = self._take(arena_bytes)
        self.iteration = self._take(8)
        self.go_on = self._take(1)
        self.carried = [self._places(body, i) for i in range(body.carried)]
        self.unread = self._take(max((_bytes(x) for x in body.outputs), default=1))

    def _places(self, body: LoopBody, number: int) -> tuple[int, int]:
        """Where the first iteration reads and writes a carried value."""
        size = _bytes(body.outputs[number])
        if number not in self.rows:
            return self._take(size), self._take(size)
        start = self._take((body.steps + 1) * size)
        if body.stacked[self.rows[number] - body.carried]:
            return start + body.steps * size, start + (body.steps - 1) * size
        return start, start + size

    def moving(self, number: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Of a carried value, where iterations read it and write it: offset, and bytes on after even and odd
        iterations."""
        a, b = self.carried[number]
        back = b - a if number in self.rows else a - b
        return (a, b - a, back), (b, back, b - a)

    def buffer(self, owner: Node) -> Buffer:
        """The memory, as a value of the plan."""
        made = Buffer(node("SCRATCH", (owner,), None, (self.size,), "uint8"), "arena", dense=True)
        made.place()
        return made

    def _take(self, size: int) -> int:
        start = self.size
        self.size = -(-(start + size) // ALIGNMENT) * ALIGNMENT
        return start


def _launch(
    body: LoopBody,
    launches: list[Launch],
    scratch: _Scratch,
    outputs: dict[int, BufferRef],
    memory: BufferRef,
    operands: tuple[BufferRef, ...],
) -> LoopLaunch:
    def local(offset: int) -> BufferRef:
        return _moved(memory, offset)

    given = list(operands)
    enter = given.pop() if body.conditional else None
    count = given.pop() if body.counted else None
    first, second = body.carried, body.carried + len(body.scanned)
    inputs = [Moving(local(scratch.iteration))]
    carried = [scratch.moving(i) for i in range(first)]
    inputs += [Moving(local(at), even, odd) for (at, even, odd), _ in carried]
    for ref, x, backwards in zip(given[first:second], body.inputs[1 + first :], body.scanned):
        inputs.append(_rows(ref, x, body.steps, backwards))
    inputs += [Moving(ref) for ref in given[second:]]
    results = [Moving(local(at), even, odd) for _, (at, even, odd) in carried]
    cleared, after = [], []
    for state, number in scratch.rows.items():
        size, (_, written) = _row_bytes(body.outputs[state]), scratch.carried[state]
        rows = local(written - (body.steps - 1) * size if body.stacked[number - first] else written)
        after.append((outputs[number], Moving(rows), body.steps * size))
        if body.counted or body.conditional:
            cleared.append((rows, body.steps * size))
    for number, backwards in enumerate(body.stacked, first):
        if number in scratch.rows.values():
            continue
        row, target = body.outputs[number], outputs.get(number)
        if target is None:
            results.append(Moving(local(scratch.unread)))
            continue
        results.append(_rows(target, row, body.steps, backwards))
        if body.counted or body.conditional:
            cleared.append((target, body.steps * _row_bytes(row)))
    if body.conditional:
        results.append(Moving(local(scratch.go_on)))
    sizes = [_row_bytes(x) for x in body.outputs[:first]]
    return LoopLaunch(
        tuple(launches),
        body.steps,
        local(scratch.arena),
        tuple(inputs),
        tuple(results),
        local(scratch.iteration),
        tuple(cleared),
        tuple((local(a), ref, size) for (a, _), ref, size in zip(scratch.carried, given, sizes)),
        (
            *after,
            *(
                (outputs[number], Moving(local(at), even, odd), size)
                for number, (((at, even, odd), _), size) in enumerate(zip(carried, sizes))
                if number in outputs
            ),
        ),
        count,
        enter,
        local(scratch.go_on) if body.conditional else None,
        outputs.get(-1),
    )


def _row_bytes(x: Node) -> int:
    return prod(x.shape) * np.dtype(numpy_dtype(x.dtype)).itemsize


def _rows(ref: BufferRef, row: Node, steps: int, backwards: bool) -> Moving:
    size = _row_bytes(row)
    if backwards:
        return Moving(_moved(ref, (steps - 1) * size), -size, -size)
    return Moving(ref, size, size)


def _moved(ref: BufferRef, offset: int) -> BufferRef:
    return BufferRef(ref.space, ref.number, ref.offset + offset)
