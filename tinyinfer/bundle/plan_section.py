"""`PLAN`: what a target runs, as tables (`docs/bundle.md`, "Plan"); `plan_reader` reads them back.

A `PlanSection` is a `runtime.plan.Plan` with what the plan itself does not say: which machine the code is
for, where each kernel lies in `CODE`, and how the parameters are stored. To write one, code and weights come
first:

    store = WeightStore()
    tensors = [store.add(parameter) for parameter in plan.parameters]
    data = write_plan(PlanSection("x86_64", 8, features, plan, tensors, image.entries))

What `PLAN` does not hold: stages and kept values of the plan, the kernels' source, and the launches'
origins, which `provenance` keeps.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from tinyinfer.bundle import types
from tinyinfer.bundle.weights import PlanTensor
from tinyinfer.runtime.plan import BufferRef, Launch, LoopLaunch, Moving, Plan, TensorSpec, kernel_sources


@dataclass(frozen=True)
class ProgramNeeds:
    """How to build an OpenCL program, and what it needs of a device besides features: bytes of local memory,
    work-items of a group, and a part of its name ("": any). Of several targets, a device takes the one that
    is `best_for` it: one of these words stands in its name or version."""

    options: str
    local_bytes: int
    largest_group: int
    device: str = ""
    best_for: str = ""


@dataclass
class PlanSection:
    """A plan for a machine. `offsets` says where in `CODE` the kernel of each key begins (wasm32: the number
    of the exported function), and the executor's functions by their names. `tensors` are the plan's
    parameters as they are stored, and after them those that only `fixed` names: by the number of an input,
    the tensor with the only value that it may have.

    `program` is there where `CODE` is the source of an OpenCL program. `tolerances` are those of outputs, by
    number, in which this target may differ by more than the golden vectors allow any.

    A section that was read has no parameters in its plan yet: `Weights.load(tensors)` makes them.
    """

    architecture: str
    pointer_bytes: int
    features: int
    plan: Plan
    tensors: Sequence[PlanTensor]
    offsets: Mapping[str, int]
    fixed: Mapping[int, int] = field(default_factory=dict)
    program: ProgramNeeds | None = None
    tolerances: Mapping[int, float] = field(default_factory=dict)


def launches_in_order(launches: Sequence[Launch]) -> list[Launch]:
    """Every launch as the table has them: those of the plan, then the bodies of loops, outer ones first."""
    order = list(launches)
    for launch in order:  # grows while it is walked
        if launch.loop is not None:
            order.extend(launch.loop.launches)
    return order


def write_plan(section: PlanSection) -> bytes:
    """The bytes of `PLAN`. ValueError where the plan does not fit the format, KeyError for a kernel without
    an offset."""
    return _Writer(section).bytes()


class _Writer:
    def __init__(self, section: PlanSection):
        self.section = section
        self.layout = types.tables_of(section.architecture, section.features)
        self.tables: list[list[tuple]] = [[] for _ in self.layout]
        self.text = bytearray()
        self.places: dict[str, tuple[int, int]] = {}
        plan = section.plan
        for direction, specs in enumerate((plan.inputs, plan.outputs)):
            for number, spec in enumerate(specs):
                fixed = section.fixed.get(number, -1) + 1 if direction == 0 else 0
                tolerance = section.tolerances.get(number, 0.0) if direction == 1 else 0.0
                self._value(spec, direction, fixed, tolerance)
        for tensor in section.tensors:
            self._tensor(tensor)
        sources = kernel_sources(plan.launches)
        self.kernels = {key: number for number, key in enumerate(sources)}
        for key, source in sources.items():
            self._add(types.KERNELS, section.offsets[key], *self._string(source.name))
        for name, offset in section.offsets.items():
            if name not in sources:
                self._add(types.KERNELS, offset, *self._string(name))
        self._launches()
        if section.program is not None:
            self._program(section.program)

    def bytes(self) -> bytes:
        section = self.section
        try:
            packed = [
                b"".join(table.record.pack(*record) for record in records)
                for table, records in zip(self.layout, self.tables)
            ]
            packed[types.STRINGS] = bytes(self.text)
            head = types.PLAN_HEADER.pack(
                types.ARCHITECTURES[section.architecture],
                section.pointer_bytes,
                section.features,
                section.plan.arena_bytes,
                len(self.layout),
                0,
                len(section.plan.launches),
            )
            directory, position = b"", len(head) + types.DIRECTORY.size * len(self.layout)
            for table, content in zip(self.layout, packed):
                size = table.record.size
                directory += types.DIRECTORY.pack(position, len(content) // size, size)
                position += len(content) + -len(content) % 8
        except struct.error as error:
            raise ValueError(f"a number of the plan does not fit the bundle format: {error}") from None
        return head + directory + b"".join(content + bytes(-len(content) % 8) for content in packed)

    def _add(self, table: int, *record: float) -> int:
        self.tables[table].append(record)
        return len(self.tables[table]) - 1

    def _string(self, text: str) -> tuple[int, int]:
        if text not in self.places:
            encoded = text.encode("utf-8")
            self.places[text] = len(self.text), len(encoded)
            self.text += encoded
        return self.places[text]

    def _value(self, spec: TensorSpec, direction: int, fixed: int, tolerance: float) -> None:
        if spec.dtype not in types.TYPES:
            raise ValueError(f"{spec.name!r}: a bundle cannot hold values of type {spec.dtype}")
        first = len(self.tables[types.DIMS])
        for size in spec.shape:
            self._add(types.DIMS, size)
        nbytes = prod(spec.shape) * types.width(spec.dtype)
        self._add(
            types.VALUES,
            *self._string(spec.name),
            types.TYPES[spec.dtype],
            len(spec.shape),
            first,
            direction,
            nbytes,
            fixed,
            tolerance,
        )

    def _tensor(self, tensor: PlanTensor) -> None:
        first = len(self.tables[types.RUNS])
        for run in tensor.runs:
            self._add(types.RUNS, *run)
        self._add(
            types.TENSORS,
            tensor.stored,
            types.EXPANDED if tensor.expanded else types.RAW,
            tensor.nbytes,
            types.TYPES[tensor.dtype],
            types.TYPES[tensor.stored_dtype],
            tensor.added,
            first,
            len(tensor.runs),
        )

    def _launches(self) -> None:
        order = launches_in_order(self.section.plan.launches)
        bodies = len(self.section.plan.launches)
        depth = [0] * len(order)
        for position, launch in enumerate(order):
            loop = 0
            if launch.loop is not None:
                body = len(launch.loop.launches)
                depth[bodies : bodies + body] = [depth[position] + 1] * body
                if depth[position] >= types.MOST_NESTED_LOOPS:
                    raise ValueError(f"loops are nested more than {types.MOST_NESTED_LOOPS} deep")
                loop = self._loop(launch.loop, bodies) + 1
                bodies += body
            first = len(self.tables[types.REFERENCES])
            for ref in launch.arguments:
                self._argument(ref)
            self._add(
                types.LAUNCHES,
                self.kernels[launch.kernel.key],
                first,
                len(launch.arguments),
                types.WAITS if launch.waits else 0,
                launch.chunks,
                loop,
                *self._string(launch.title),
                launch.flops,
                launch.bytes,
            )

    def _program(self, program: ProgramNeeds) -> None:
        """The tables of plans for work-items."""
        self._add(
            types.PROGRAMS,
            *self._string(program.options),
            program.local_bytes,
            program.largest_group,
            *self._string(program.device),
            *self._string(program.best_for),
        )
        for launch in launches_in_order(self.section.plan.launches):
            total, group = (launch.work.total, launch.work.group) if launch.work else ((0,) * 3, (0,) * 3)
            self._add(types.WORK, *total, *group, types.ONCE if launch.once else 0)

        plan = self.section.plan
        images = [(image, 0) for image in plan.images]
        images += [(image, 1 + number) for number, image in plan.parameter_images.items()]
        for image, tensor in images:
            self._add(types.IMAGES, image.width, image.height, types.TYPES[image.dtype], tensor)

    def _argument(self, ref: BufferRef) -> None:
        """What a launch is given: a place, or an image, whose number stands where other references move."""
        plan = self.section.plan
        if ref.space == "image":
            self._reference(BufferRef("arena", 0), 1 + ref.number)
        elif ref.space == "parameter" and ref.number in plan.parameter_images:
            self._reference(ref, 1 + len(plan.images) + list(plan.parameter_images).index(ref.number))
        else:
            self._reference(ref)

    def _reference(self, ref: BufferRef | None, even: int = 0, odd: int = 0) -> int:
        if ref is None:
            return self._add(types.REFERENCES, 0, 0, 0, 0, 0)
        return self._add(types.REFERENCES, types.SPACES[ref.space], ref.number, ref.offset, even, odd)

    def _list(self, items: Sequence[Sequence[tuple[BufferRef, int, int]]]) -> tuple[int, int]:
        """First reference and number of items; an item is one reference or a pair."""
        first = len(self.tables[types.REFERENCES])
        for references in items:
            for ref, even, odd in references:
                self._reference(ref, even, odd)
        return first, len(items)

    def _loop(self, loop: LoopLaunch, body: int) -> int:
        def moving(places: Sequence[Moving]) -> tuple[int, int]:
            return self._list([[(m.ref, m.even, m.odd)] for m in places])

        return self._add(
            types.LOOPS,
            body,
            len(loop.launches),
            loop.steps,
            self._reference(loop.arena),
            *moving(loop.inputs),
            *moving(loop.outputs),
            self._reference(loop.iteration),
            *self._list([[(ref, size, 0)] for ref, size in loop.cleared]),
            *self._list([[(to, 0, size), (source, 0, 0)] for to, source, size in loop.before]),
            *self._list([[(to, 0, size), (m.ref, m.even, m.odd)] for to, m, size in loop.after]),
            *(self._reference(ref) for ref in (loop.count, loop.enter, loop.go_on, loop.done)),
        )
