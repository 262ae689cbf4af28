"""From a graph to a plan: assignment of buffers, loop nests, schedules, launches, and the arena.

A device hands in a `KernelPrinter`, which turns scheduled nests into its own source text; all else is common.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tinyinfer.budget import check_time
from tinyinfer.config import CompileOptions
from tinyinfer.ir.index import Axis
from tinyinfer.ir.node import Graph, Node
from tinyinfer.kernels.assign import Assigned, LoopKernel, assign
from tinyinfer.kernels.contraction import Contraction
from tinyinfer.kernels.expression import walk
from tinyinfer.kernels.halo import HaloRegion, halo_regions
from tinyinfer.kernels.image import Image, ImageLimits, share_images, writes_texels
from tinyinfer.kernels.image_storage import place_buffers
from tinyinfer.kernels.layout import Buffer
from tinyinfer.kernels.lower import LoweredKernel
from tinyinfer.kernels.nest import LoopNest, free_axes, merge_axes
from tinyinfer.kernels.physical import (
    ContractionNest,
    PackedConstant,
    PhysicalKernel,
    pack_constants,
    rebase,
    to_physical,
)
from tinyinfer.kernels.schedule_map import expression_weight, reduce_steps
from tinyinfer.kernels.schedule_scatter import independent_axes, merge_scatter, pick_vector
from tinyinfer.kernels.tuning import Tuning
from tinyinfer.kernels.whole_loop import WholeLoopPrinter
from tinyinfer.runtime.memory import pack
from tinyinfer.runtime.plan import (
    BufferRef,
    KeptValue,
    KernelSource,
    Launch,
    LoopLaunch,
    Plan,
    TensorSpec,
    WorkSizes,
    kernel_sources,
)


class Choice(Protocol):
    """A contraction whose schedule is to be chosen: the nest for panels of any number of vectors."""

    @property
    def work(self) -> int:
        """Multiply-adds."""

    def nest(self, vectors: int) -> ContractionNest: ...

    def pick(self, tuning: Tuning) -> Any:
        """The schedule that was recorded for this kernel, or else the heuristic one."""


class Machine(Protocol):
    """A kind of device: how kernels are cut for it."""

    @property
    def halo_bytes(self) -> int:
        """Memory that may be spent on buffers whose halo is then written once, not in each run."""

    @property
    def images(self) -> ImageLimits | None:
        """The images that values may be stored in; None: there are buffers only."""

    def choice(self, physical: PhysicalKernel, roles: Contraction) -> Choice:
        """A contraction whose schedule is to be chosen."""

    def vector_axis(self, nest: LoopNest) -> Axis | None:
        """The axis along which a map kernel's elements are computed side by side."""

    def map(self, physical: PhysicalKernel, tuning: Tuning) -> Any:
        """The schedule of a map kernel: what was recorded for it, or else the heuristic one."""

    def scatter(self, nest: LoopNest, independent: frozenset[Axis]) -> Any: ...

    def halo(self, regions: tuple[HaloRegion, ...]) -> WorkSizes | None: ...


class KernelPrinter(Protocol):
    """What a device adds: source text for each kind of scheduled kernel. The printed symbol is `name`. The
    schedules are those of `machine`."""

    @property
    def machine(self) -> Machine: ...

    def contraction(self, name: str, nest: ContractionNest, schedule: Any) -> str: ...

    def map(self, name: str, nest: LoopNest, schedule: Any) -> str: ...

    def scatter(self, name: str, nest: LoopNest, schedule: Any) -> str: ...

    def halo(
        self, name: str, regions: tuple[HaloRegion, ...], dtype: str, fill: float | int | bool
    ) -> str: ...

    def loop(self, name: str) -> str: ...

    @property
    def whole_loops(self) -> WholeLoopPrinter | None:
        """What prints loops as one kernel, on devices that may run them so."""


@dataclass
class Step:
    """A launch before the arena has offsets. It writes the first `writes` of its arguments."""

    source: KernelSource
    arguments: list[Buffer | PackedConstant]
    offsets: tuple[int, ...]
    chunks: int
    title: str
    origin: tuple[str, ...]
    flops: int
    bytes: int
    stage: Callable[[], str]
    updates: bool = False
    """Whether the result is read as well: what is in it already must be complete."""
    writes: int = 1
    loop: Callable[[tuple[BufferRef, ...]], LoopLaunch] | None = None
    """What a loop's launch repeats, given where its arguments lie."""
    work: WorkSizes | None = None
    halo: bool = False
    """Whether it writes the halo of its argument, which nothing else does."""
    meets: bool = False
    """Whether its groups wait for each other."""


@dataclass
class Parameters:
    """The constants that the kernels of a plan read, each once, their numbers, and those in images."""

    arrays: list[np.ndarray] = field(default_factory=list)
    numbers: dict[PackedConstant, int] = field(default_factory=dict)
    images: dict[int, Image] = field(default_factory=dict)

    def number(self, constant: PackedConstant) -> int:
        if constant not in self.numbers:
            self.numbers[constant] = len(self.arrays)
            self.arrays.append(constant.array())
            if constant.image is not None:
                self.images[self.numbers[constant]] = constant.image
        return self.numbers[constant]


def build_plan(
    graph: Graph, printer: KernelPrinter, options: CompileOptions, wide: Collection[Node] = ()
) -> Plan:
    """The plan of a graph whose passes have run. `wide` values and constants are float32 wherever they are
    stored."""
    parameters = Parameters()
    buffers, steps = build_steps(graph, printer, options, parameters, printer.machine.images, wide)
    return _finish(graph, buffers, steps, options, parameters, printer.machine.halo_bytes)


def build_steps(
    graph: Graph,
    printer: KernelPrinter,
    options: CompileOptions,
    parameters: Parameters,
    images: ImageLimits | None = None,
    wide: Collection[Node] = (),
) -> tuple[dict[Node, Buffer], list[Step]]:
    """Where the values of a graph lie, and its launches in order; those of bodies of loops are complete.

    Values may lie in `images`; those that are `wide` are float32 there.
    """
    from tinyinfer.kernels.plan_loop import bring_loops_together, loop_steps

    assigned = assign(graph, options.fuse, images is not None)
    _widen(assigned, wide)
    place_values(assigned, printer.machine, images, options.tuning)
    steps: list[Step] = []
    haloed: set[Buffer] = set()
    for lowered, contraction in zip(assigned.kernels, assigned.contractions):
        check_time()
        if isinstance(lowered, LoopKernel):
            steps += loop_steps(lowered, assigned.buffers, printer, options, parameters)
            continue
        if not lowered.root.size:
            continue
        owner = assigned.buffers[lowered.root].storage
        if owner.has_halo and owner not in haloed:
            haloed.add(owner)
            steps.append(halo_step(owner, tuple(halo_regions(owner)), printer))
        physical = to_physical(lowered, assigned.buffers)
        if contraction is not None:
            choice = printer.machine.choice(physical, contraction)
            steps.append(_contraction_step(choice, choice.pick(options.tuning), printer))
        elif lowered.root.op == "SCATTER":
            steps.append(_scatter_step(physical, lowered, printer))
        else:
            steps.append(_map_step(physical, printer, options.tuning))
    return assigned.buffers, bring_loops_together(steps)


def _widen(assigned: Assigned, wide: Collection[Node]) -> None:
    """Mark what must not be stored in halves."""
    for value in wide:
        if value.op == "CONST" and value not in assigned.buffers:
            assigned.buffers[value] = Buffer(value, "parameter")
    for value, buffer in assigned.buffers.items():
        if held_value(value) in wide:
            buffer.wide = buffer.storage.wide = True


def held_value(stored: Node) -> Node:
    """The value of the graph that a stored one holds: copies hold that of their source."""
    while stored.op == "COPY":
        stored = stored.inputs[0]
    return stored


def place_values(assigned: Assigned, machine: Machine, images: ImageLimits | None, tuning: Tuning) -> None:
    """Fix where every value lies. Those whose kernels do not write whole texels leave their images."""
    refused: set[Buffer] = set()
    while True:
        place_buffers(assigned, images, refused)
        failed = set()
        for lowered, contraction in zip(assigned.kernels, assigned.contractions):
            if isinstance(lowered, LoopKernel) or not lowered.root.size:
                continue
            owner = assigned.buffers[lowered.root].storage
            if owner.image is None:
                continue
            physical = to_physical(lowered, assigned.buffers)
            if contraction is not None:
                nest = machine.choice(physical, contraction).nest(1)
                fits = writes_texels(nest.physical.nest.store, nest.panels.lane)
                fits = fits and nest.panels.columns % nest.panels.lane.size == 0
            else:
                based = prepare_map(physical, machine)
                schedule = machine.map(based, tuning)
                fits = schedule.lanes > 1 and writes_texels(based.nest.store, schedule.contiguous)
            if not fits:
                failed.add(owner)
        if not failed:
            return
        refused |= failed


@lru_cache(maxsize=1)
def compiler_version() -> str:
    """A digest of the compiler's own source: a changed compiler cannot meet a kernel that an older one
    made."""
    digest = hashlib.sha256()
    package = Path(__file__).resolve().parent.parent
    for folder in ("kernels", "ir", "backends/cpu"):
        for path in sorted((package / folder).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def source_of(kind: str, description: str, make: Callable[[str], str]) -> KernelSource:
    digest = hashlib.sha256(f"{compiler_version()}\n{description}".encode()).hexdigest()[:24]
    name = f"{kind}_{digest[:12]}"
    return KernelSource(digest, name, lambda: make(name))


def title_of(origin: frozenset[str], fallback: str) -> tuple[str, tuple[str, ...]]:
    names = tuple(sorted(origin))
    return (names[0] if len(names) == 1 else f"{names[0]} (+{len(names) - 1})") if names else fallback, names


def _touched(arguments: list[Buffer | PackedConstant]) -> int:
    """Bytes of all arguments once: the least traffic of a kernel."""
    total = 0
    for a in arguments:
        if isinstance(a, Buffer):
            total += a.nbytes
        else:
            total += prod(a.shape) * np.dtype(a.literal.dtype).itemsize
    return total


def _contraction_step(choice: Choice, schedule: Any, printer: KernelPrinter) -> Step:
    source, description = contraction_source(choice, schedule, printer)
    nest = choice.nest(schedule.vectors)
    based = nest.physical
    title, origin = title_of(based.origin, "contraction")
    return Step(
        source,
        based.arguments,
        based.offsets,
        contraction_chunks(nest, schedule),
        title,
        origin,
        2 * choice.work,
        _touched(based.arguments),
        lambda: description,
        work=schedule.work,
    )


def contraction_source(choice: Choice, schedule: Any, printer: KernelPrinter) -> tuple[KernelSource, str]:
    """A contraction's kernel with this schedule, and the text that it is named by."""
    nest = choice.nest(schedule.vectors)
    description = f"{nest.text()}\n{schedule}"
    bare = replace(nest, physical=_without_values(nest.physical))
    source = source_of(
        f"contract_{schedule.name}", description, lambda name: printer.contraction(name, bare, schedule)
    )
    return source, description


def contraction_chunks(nest: ContractionNest, schedule: Any) -> int:
    """Chunks of a contraction's launch."""
    return schedule.chunks_of(prod(a.size for a in nest.groups))


def _without_values(kernel: PhysicalKernel) -> PhysicalKernel:
    """The kernel as printers need it: holding no graph and no weights, which outlive compilation
    otherwise."""
    return PhysicalKernel(kernel.origin, kernel.nest, [], kernel.offsets)


def sorted_for_constants(nest: LoopNest, vector: Axis | None) -> list[Axis]:
    """Axes in the order in which constants are laid out: root axes, reduce axes, the vectorised one last."""
    reduced: list[Axis] = []
    for e in walk(nest.body):
        if e.op == "REDUCE":
            reduced += [a for a in e.attrs[1] if a not in reduced]
    order = [a for a in nest.axes if a is not vector] + reduced
    return order if vector is None else [*order, vector]


def prepare_map(physical: PhysicalKernel, machine: Machine) -> PhysicalKernel:
    """A map kernel as it is scheduled: constants packed, axes merged and by the stride of the store."""
    vector = machine.vector_axis(physical.nest)
    order = sorted_for_constants(physical.nest, vector)
    packed = pack_constants(physical, order, (), machine.images, vector)
    nest = merge_axes(packed.nest)
    nest.axes = tuple(sorted(nest.axes, key=lambda a: -abs(nest.store.coefficient(a))))
    return rebase(replace(packed, nest=nest))[0]


def _map_step(physical: PhysicalKernel, printer: KernelPrinter, tuning: Tuning) -> Step:
    based = prepare_map(physical, printer.machine)
    schedule = printer.machine.map(based, tuning)
    source, description = map_source(based.nest, schedule, printer)
    title, origin = title_of(based.origin, "map")
    return Step(
        source,
        based.arguments,
        based.offsets,
        schedule.chunks,
        title,
        origin,
        _map_flops(based.nest),
        _touched(based.arguments),
        lambda: description,
        work=schedule.work,
    )


def map_source(nest: LoopNest, schedule: Any, printer: KernelPrinter) -> tuple[KernelSource, str]:
    """A map kernel with this schedule, and the text that it is named by."""
    description = f"{nest.text()}\n{schedule}"
    source = source_of(f"map_{schedule.name}", description, lambda name: printer.map(name, nest, schedule))
    return source, description


def _scatter_step(physical: PhysicalKernel, lowered: LoweredKernel, printer: KernelPrinter) -> Step:
    independent = independent_axes(lowered)
    # row-major, as lowering makes them: updates that meet follow each other in this order
    physical = replace(physical, nest=replace(physical.nest, axes=lowered.axes))
    vector = pick_vector(physical.nest, independent)
    physical = pack_constants(
        physical, [*(a for a in lowered.axes if a is not vector), *([vector] if vector is not None else [])]
    )
    nest, independent = merge_scatter(physical.nest, independent)
    based, _ = rebase(replace(physical, nest=nest))
    nest = based.nest
    schedule = printer.machine.scatter(nest, independent)
    description = f"{nest.text()}\n{schedule}"
    kind = f"scatter_{schedule.name}"
    source = source_of(kind, description, lambda name: printer.scatter(name, nest, schedule))
    title, origin = title_of(physical.origin, "scatter")
    updates = prod(a.size for a in nest.axes)
    return Step(
        source,
        based.arguments,
        based.offsets,
        schedule.chunks,
        title,
        origin,
        updates * expression_weight(nest.body.args[0]),
        _touched(based.arguments[1:]) + updates * np.dtype(nest.dtypes[0]).itemsize,
        lambda: description,
        updates=True,
        work=schedule.work,
    )


def _map_flops(nest: LoopNest) -> int:
    free = free_axes(nest.body)
    total = prod(a.size for a in nest.axes) * expression_weight(nest.body)
    for e in walk(nest.body):
        if e.op == "REDUCE":
            total += prod(a.size for a in free[id(e)]) * reduce_steps(e) * (1 + expression_weight(e.args[0]))
    return total


def halo_step(buffer: Buffer, regions: tuple[HaloRegion, ...], printer: KernelPrinter) -> Step:
    """What writes the fill value into these parts of a buffer, which nothing else does."""
    fill = buffer.fill if buffer.fill is not None else 0
    dtype = buffer.value.dtype
    description = f"halo {dtype} {fill!r} {regions}"
    source = source_of("halo", description, lambda name: printer.halo(name, regions, dtype, fill))
    size = sum(r.length * prod(c for c, _ in r.loops) for r in regions) * buffer.itemsize
    title, origin = title_of(buffer.value.origin, "halo")
    work = printer.machine.halo(regions)
    return Step(
        source,
        [buffer],
        (),
        1,
        f"halo of {title}",
        origin,
        0,
        size,
        lambda: description,
        work=work,
        halo=True,
    )


def place_steps(
    steps: list[Step], parameters: Parameters, keep: bool = False, halo_bytes: int = 0,
    images: list[Image] | None = None,
) -> tuple[list[Launch], dict[Buffer, int], int]:
    """The launches, the arena's offsets in bytes, and its size. `keep` gives every buffer memory for ever;
    `halo_bytes` is how much may be given so to buffers with a halo, which is then written once. What images
    there must be is added to `images`."""
    lifetimes: dict[Buffer, list[int]] = {}
    first = 0
    for position, step in enumerate(steps):
        # loops side by side may run at the same time: none may lie where another has been
        first = first if position and step.loop and steps[position - 1].loop else position
        for a in step.arguments:
            if isinstance(a, Buffer) and a.storage.space == "arena":
                span = lifetimes.setdefault(a.storage, [first, position])
                span[1] = position
    for position in range(len(steps) - 2, -1, -1):
        if steps[position].loop and steps[position + 1].loop:
            for span in lifetimes.values():
                span[1] = max(span[1], position + 1) if span[1] == position else span[1]
    lasting = _lasting(steps, halo_bytes)
    lifetimes = {b: [0, len(steps)] if keep or b in lasting else span for b, span in lifetimes.items()}
    linear = {b: span for b, span in lifetimes.items() if b.image is None}
    offsets, total = pack([(first, last, b.nbytes) for b, (first, last) in linear.items()])
    place = dict(zip(linear, offsets))
    in_images = {b: (first, last, b.image) for b, (first, last) in lifetimes.items() if b.image is not None}
    numbers, shared = share_images(list(in_images.values()))
    image_of = dict(zip(in_images, numbers))
    if images is not None:
        images.extend(shared)
    pending: list[tuple[Buffer, bool]] = []
    launches = []
    for step in steps:
        refs = []
        for number, a in enumerate(step.arguments):
            moved = step.offsets[number] if step.offsets else 0
            if isinstance(a, PackedConstant):
                moved *= np.dtype(a.literal.dtype).itemsize
                refs.append(BufferRef("parameter", parameters.number(a), moved))
            elif a.space == "parameter":
                whole = PackedConstant(a.value.attrs, a.value.shape, a.strides)
                refs.append(BufferRef("parameter", parameters.number(whole), moved * a.itemsize))
            elif a.image is not None:
                refs.append(BufferRef("image", image_of[a]))
            elif a.space == "arena":
                refs.append(BufferRef("arena", 0, place[a] + moved * a.itemsize))
            else:
                refs.append(BufferRef(a.space, a.number, moved * a.itemsize))
        used = [(a, i < step.writes) for i, a in enumerate(step.arguments) if isinstance(a, Buffer)]
        if step.updates:
            used.append((used[0][0], False))
        waits = any(
            _conflict(a, written, b, before, place, image_of)
            for a, written in used
            for b, before in pending
        )
        if waits:
            pending = []
        pending += used
        launches.append(
            Launch(
                step.source,
                tuple(refs),
                step.chunks,
                waits,
                step.title,
                step.origin,
                step.flops,
                step.bytes,
                step.loop(tuple(refs)) if step.loop is not None else None,
                step.work,
                step.halo and step.arguments[0] in lasting,
                step.meets,
            )
        )
    return launches, place, total


def _lasting(steps: list[Step], room: int) -> set[Buffer]:
    """The buffers with a halo that get memory for ever: as many as there is room for."""
    found: set[Buffer] = set()
    buffers = [a for step in steps if step.halo for a in step.arguments if isinstance(a, Buffer)]
    for buffer in sorted((b for b in buffers if b.space == "arena"), key=lambda b: b.nbytes):
        room -= buffer.nbytes
        if room < 0:
            break
        found.add(buffer)
    return found


def _finish(
    graph: Graph,
    buffers: dict[Node, Buffer],
    steps: list[Step],
    options: CompileOptions,
    parameters: Parameters,
    halo_bytes: int,
) -> Plan:
    images: list[Image] = []
    launches, place, total = place_steps(steps, parameters, options.keep_values, halo_bytes, images)
    kept = [
        KeptValue(n, place[b.storage] + b.offset * b.itemsize, tuple(s * b.itemsize for s in b.strides))
        for n, b in buffers.items()
        if options.keep_values and b.storage in place and n.op != "COPY" and not b.overwritten
    ]
    # the stages must not hold the steps: those hold the weights
    text = steps_text(steps)
    sources = kernel_sources(launches)
    stages = {
        "plan": lambda: f"; arena of {total} bytes\n{launches_text(launches)}",
        "kernels": text,
        "code": lambda: "\n\n".join(s.text() for s in sources.values()),
    }
    return Plan(
        [TensorSpec(name, n.shape, n.dtype) for name, n in graph.inputs.items()],
        [TensorSpec(name, n.shape, n.dtype) for name, n in graph.outputs.items()],
        launches,
        parameters.arrays,
        total,
        stages,
        kept,
        images,
        parameters.images,
    )


def steps_text(steps: list[Step]) -> Callable[[], str]:
    """The scheduled nests of all steps, printed when called; holds no weights."""
    texts = [(_heading(i, s), s.stage) for i, s in enumerate(steps)]
    return lambda: "\n\n".join(f"{head}\n{stage()}" for head, stage in texts)


def _heading(number: int, step: Step) -> str:
    names = " ".join(step.origin)
    return f"; {number}: {step.title}\n; from {names}\n; kernel {step.source.name}, {step.chunks} chunks"


def launches_text(launches: Iterable[Launch], indent: str = "") -> str:
    """One line a launch: its kernel, chunks, whether it waits, and where its arguments point; the launches of
    a loop's body stand below it."""
    lines = []
    for number, launch in enumerate(launches):
        arguments = " ".join(f"{a.space}[{a.number}]+{a.offset}" for a in launch.arguments)
        wait = "once" if launch.once else "wait" if launch.waits else "    "
        name, title = launch.kernel.name, launch.title
        lines.append(f"{indent}{number:4d} {wait} {launch.chunks:3d}x {name} {arguments}  ; {title}")
        if launch.loop is not None:
            lines.append(launches_text(launch.loop.launches, indent + "       "))
    return "\n".join(lines)


def _conflict(
    a: Buffer,
    a_written: bool,
    b: Buffer,
    b_written: bool,
    place: dict[Buffer, int],
    images: dict[Buffer, int],
) -> bool:
    """Whether a launch that uses `a` must wait for an earlier one that uses `b`.

    Two writers of one storage are parts of one concatenation, or its halo, and touch different elements.
    """
    if not (a_written or b_written):
        return False
    if a is b:
        return a_written != b_written
    if a in images and b in images:
        return images[a] == images[b]
    if a in place and b in place:
        return place[a] < place[b] + b.nbytes and place[b] < place[a] + a.nbytes
    return False
