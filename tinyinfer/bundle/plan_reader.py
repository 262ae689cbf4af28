"""Reading `PLAN`: every number is checked before it is used, so that what comes out can be run.

Kernels lie in `CODE`, tensors among the stored ones, and every argument points into its buffer (or to its
end) in every iteration of the loops around it; what a loop itself copies, clears and writes lies in the
buffer to its last byte. How far a kernel reaches from its arguments is its code's matter, as all of it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, prod
from typing import NamedTuple, NoReturn

import numpy as np

from tinyinfer.bundle import types
from tinyinfer.bundle.plan_section import PlanSection, ProgramNeeds
from tinyinfer.bundle.weights import PlanTensor, StoredTensor, check_tensor
from tinyinfer.errors import Fail, InvalidBundle
from tinyinfer.kernels.image import Image
from tinyinfer.runtime.plan import (
    BufferRef,
    KernelSource,
    Launch,
    LoopLaunch,
    Moving,
    Plan,
    TensorSpec,
    WorkSizes,
)


@dataclass(frozen=True)
class Machine:
    """What a target's code needs; `architecture` is "number 9" where this version knows no name for it."""

    architecture: str
    pointer_bytes: int
    features: int


def read_machine(data: np.ndarray, where: str) -> Machine:
    """The machine that a `PLAN` is for, before anything else in it is looked at. InvalidBundle."""
    if data.size < types.PLAN_HEADER.size:
        raise InvalidBundle(f"{where}: {data.size} bytes are too few for a plan")
    number, pointer_bytes, features = types.PLAN_HEADER.unpack_from(data.data)[:3]
    return Machine(types.ARCHITECTURE_NAMES.get(number, f"number {number}"), pointer_bytes, features)


def read_plan(data: np.ndarray, code_bytes: int, stored: Sequence[StoredTensor], where: str) -> PlanSection:
    """The plan in a section's bytes. `code_bytes` is the size of the target's `CODE`, `stored` what `WIDX`
    lists; `where` begins messages. Raises InvalidBundle; the plan's parameters are still to be loaded."""
    return _Reader(data, code_bytes, stored, where).section()


def read_program(data: np.ndarray, where: str) -> ProgramNeeds:
    """What the program of an OpenCL target needs, before the rest of its plan is looked at. InvalidBundle."""
    program = _Reader(data, 0, [], where).program()
    if program is None:
        raise InvalidBundle(f"{where}: no plan for OpenCL devices")
    return program


def no_source() -> str:
    """What the kernels of a bundle have in place of a printer."""
    raise Fail("the kernels of a bundle have no source: compile the model to see it")


class _Place(NamedTuple):
    """Where something may lie: bytes `low` … `high` of a buffer of `limit` bytes."""

    low: int
    high: int
    limit: int
    writable: bool


_Scope = dict[tuple[str, int], _Place]
"""Where the buffers lie that references name, by space and number; in a loop's body, they are the loop's."""
_Reference = tuple[int, int, int, int, int]


def _bytes(spec: TensorSpec) -> int:
    return prod(spec.shape) * types.width(spec.dtype)


def _whole(space: str, sizes: Sequence[int], writable: bool = False) -> _Scope:
    """Buffers of these sizes, each at its beginning."""
    return {(space, number): _Place(0, 0, size, writable) for number, size in enumerate(sizes)}


class _Reader:
    def __init__(self, data: np.ndarray, code_bytes: int, stored: Sequence[StoredTensor], where: str):
        self.where = where
        self.data = data
        self.machine = read_machine(data, where)
        if self.machine.architecture not in types.ARCHITECTURES:
            self.fail(f"unknown architecture ({self.machine.architecture})")
        if self.machine.pointer_bytes not in (4, 8):
            self.fail(f"pointers of {self.machine.pointer_bytes} bytes")
        _, _, _, self.arena_bytes, tables, self.main_first, self.main_count = types.PLAN_HEADER.unpack_from(
            data.data
        )
        self.size("the arena", self.arena_bytes)
        self.layout = types.tables_of(self.machine.architecture, self.machine.features)
        self.tables = self._tables(tables)
        self.dims: list[int] = [size for (size,) in self.tables[types.DIMS]]
        self.code_bytes, self.stored = code_bytes, stored
        self.references: list[_Reference] = self.tables[types.REFERENCES]
        self.used = [0] * len(self.layout)
        self.free_launches = [True] * len(self.tables[types.LAUNCHES])
        self.free_loops = [True] * len(self.tables[types.LOOPS])

    def fail(self, message: str) -> NoReturn:
        raise InvalidBundle(f"{self.where}: {message}")

    def size(self, what: str, value: int) -> int:
        if not 0 <= value <= types.MOST_BYTES:
            self.fail(f"{what} has an impossible size ({value})")
        return value

    def span(self, table: int, first: int, count: int, what: str) -> range:
        have = len(self.tables[table])
        if first + count > have:
            self.fail(f"{what} refers to {self.layout[table].name} {first} to {first + count} of {have}")
        if table in (types.RUNS, types.REFERENCES):
            # records are not shared, so that work is bounded by the size of the section
            self.used[table] += count
            if self.used[table] > have:
                self.fail(f"{what} refers to {self.layout[table].name} that others have already used")
        return range(first, first + count)

    def _tables(self, count: int) -> list[list]:
        """The records of every table; bytes in place of a list for the strings."""
        start = types.PLAN_HEADER.size
        end = start + types.DIRECTORY.size * count
        if count < len(self.layout) or end > self.data.size:
            self.fail(f"a directory of {count} tables")
        directory = list(types.DIRECTORY.iter_unpack(self.data[start:end].tobytes()))
        places = []
        for number, (offset, records, size) in enumerate(directory):
            name = self.layout[number].name if number < len(self.layout) else f"table {number}"
            if offset % 8 or offset < end or offset + records * size > self.data.size:
                self.fail(f"the table of {name} lies outside of the section or is not aligned")
            if records and size:
                places.append((offset, offset + records * size, name))
        places.sort()
        for (_, before, first), (after, _, second) in zip(places, places[1:]):
            if after < before:
                self.fail(f"the tables of {first} and {second} overlap")
        result: list = []
        for table, (offset, records, size) in zip(self.layout, directory):
            least = table.record.size
            if size != least and (size < least or size % 8):
                self.fail(f"records of {size} bytes in the table of {table.name}")
            content = self.data[offset : offset + records * size].tobytes()
            if table.name == "strings":
                if size != 1:
                    self.fail(f"strings of {size} bytes an element")
                result.append(content)
            elif size == least:
                result.append(list(table.record.iter_unpack(content)))
            else:
                places_in = range(0, len(content), size)
                result.append([table.record.unpack_from(content, at) for at in places_in])
        return result

    def string(self, offset: int, size: int) -> str:
        text = self.tables[types.STRINGS]
        if offset + size > len(text):
            self.fail(f"a string lies outside of the table of strings ({offset}, {size})")
        try:
            return text[offset : offset + size].decode("utf-8")  # type: ignore[attr-defined]
        except UnicodeDecodeError:
            self.fail(f"the string at {offset} is not UTF-8")

    def type_name(self, number: int, what: str) -> str:
        if number not in types.TYPE_NAMES:
            self.fail(f"{what} is of an unknown type ({number})")
        return types.TYPE_NAMES[number]

    # ---- values, tensors, kernels

    def section(self) -> PlanSection:
        tensors = [self._tensor(number, *r) for number, r in enumerate(self.tables[types.TENSORS])]
        inputs, outputs, fixed, tolerances = self._values(tensors)
        kernels, offsets = self._kernels()
        self.work = self._work_sizes()
        self.images, in_images = self._images(tensors)
        self.kernels = kernels
        self.parameters = _whole("parameter", [tensor.nbytes for tensor in tensors])
        scope = {
            **_whole("arena", [self.arena_bytes], writable=True),
            **_whole("input", [_bytes(spec) for spec in inputs]),
            **_whole("output", [_bytes(spec) for spec in outputs], writable=True),
        }
        launches = self._launches(self.main_first, self.main_count, scope, 0)
        if any(self.free_launches):
            self.fail(f"launch {self.free_launches.index(True)} belongs to no loop")
        plan = Plan(inputs, outputs, launches, [], self.arena_bytes)
        plan.images = [image for image, tensor in self.images if not tensor]
        plan.parameter_images = in_images
        machine = self.machine
        return PlanSection(
            machine.architecture,
            machine.pointer_bytes,
            machine.features,
            plan,
            tensors,
            offsets,
            fixed,
            self.program(),
            tolerances,
        )

    def _tensor(
        self,
        number: int,
        stored: int,
        encoding: int,
        nbytes: int,
        dtype: int,
        kept: int,
        added: int,
        first: int,
        runs: int,
    ) -> PlanTensor:
        what = f"tensor {number}"
        if encoding not in (types.RAW, types.EXPANDED):
            self.fail(f"{what} has an unknown encoding ({encoding})")
        tensor = PlanTensor(
            stored,
            encoding == types.EXPANDED,
            self.size(what, nbytes),
            self.type_name(dtype, what),
            self.type_name(kept, what),
            added,
            tuple(self.tables[types.RUNS][i] for i in self.span(types.RUNS, first, runs, what)),
        )
        wrong = check_tensor(tensor, self.stored)
        if wrong is not None:
            self.fail(f"{what} {wrong}")
        return tensor

    def _values(
        self, tensors: Sequence[PlanTensor]
    ) -> tuple[list[TensorSpec], list[TensorSpec], dict[int, int], dict[int, float]]:
        found: tuple[list[TensorSpec], list[TensorSpec]] = ([], [])
        fixed: dict[int, int] = {}
        tolerances: dict[int, float] = {}
        for record in self.tables[types.VALUES]:
            name_at, name_size, number, rank, first, direction, nbytes, tensor, tolerance = record
            name = self.string(name_at, name_size)
            if direction > 1 or direction == 0 and found[1]:
                self.fail(f"{name!r} is neither an input nor an output, or an input after outputs")
            specs = found[direction]
            if any(spec.name == name for spec in specs):
                self.fail(f"two values are named {name!r}")
            if rank > types.MOST_DIMENSIONS:
                self.fail(f"{name!r} has {rank} dimensions")
            shape = tuple(self.dims[i] for i in self.span(types.DIMS, first, rank, repr(name)))
            if any(size < 0 for size in shape):
                self.fail(f"{name!r} has a negative dimension")
            spec = TensorSpec(name, shape, self.type_name(number, repr(name)))
            if self.size(repr(name), _bytes(spec)) != nbytes:
                self.fail(f"{name!r} of shape {list(shape)} and type {spec.dtype} cannot have {nbytes} bytes")
            if tensor:
                if direction or tensor > len(tensors) or tensors[tensor - 1].nbytes != nbytes:
                    self.fail(f"the value that {name!r} must have is no tensor of its size")
                fixed[len(specs)] = tensor - 1
            if not 0 <= tolerance < inf or tolerance and not direction:
                self.fail(f"{name!r} has an impossible tolerance ({tolerance})")
            if tolerance:
                tolerances[len(specs)] = tolerance
            specs.append(spec)
        return *found, fixed, tolerances

    def _kernels(self) -> tuple[list[KernelSource], dict[str, int]]:
        kernels, offsets = [], {}
        used = {record[0] for record in self.tables[types.LAUNCHES]}
        for number, (offset, *name) in enumerate(self.tables[types.KERNELS]):
            if offset >= self.code_bytes and self.machine.architecture != "wasm32":
                self.fail(f"kernel {number} lies outside of the code")
            source = KernelSource(f"{number}/{offset}", self.string(*name), no_source)
            kernels.append(source)
            offsets[source.key] = offset
            if number not in used:
                offsets[source.name] = offset
        return kernels, offsets

    # ---- work-items

    def program(self) -> ProgramNeeds | None:
        """What the program needs; None where the code is a machine's."""
        if self.machine.architecture != types.OPENCL:
            return None
        if len(self.tables[types.PROGRAMS]) != 1:
            self.fail(f"{len(self.tables[types.PROGRAMS])} programs, not one")
        options, options_size, local_bytes, group, *texts = self.tables[types.PROGRAMS][0]
        return ProgramNeeds(
            self.string(options, options_size),
            local_bytes,
            group,
            self.string(*texts[:2]),
            self.string(*texts[2:]),
        )

    def _images(self, tensors: Sequence[PlanTensor]) -> tuple[list[tuple[Image, int]], dict[int, Image]]:
        """Each image with 1 + the number of its tensor (0: it holds values), and those of tensors by number;
        those of values come first."""
        if len(self.layout) <= types.IMAGES:
            return [], {}
        found: list[tuple[Image, int]] = []
        in_images: dict[int, Image] = {}
        for number, (width, height, dtype, tensor) in enumerate(self.tables[types.IMAGES]):
            image = Image(width, height, self.type_name(dtype, f"image {number}"))
            if image.dtype not in ("float16", "float32") or not 0 < width * height <= types.MOST_BYTES >> 4:
                self.fail(f"image {number} is {width} by {height} of {image.dtype}")
            if tensor:
                held = tensors[tensor - 1] if tensor <= len(tensors) and tensor - 1 not in in_images else None
                if held is None or (held.nbytes, held.dtype) != (image.nbytes, image.dtype):
                    self.fail(f"image {number} does not hold tensor {tensor - 1}")
                in_images[tensor - 1] = image
            elif in_images:
                self.fail(f"image {number} is one of values after those of tensors")
            found.append((image, tensor))
        return found, in_images

    def _work_sizes(self) -> list[tuple[WorkSizes | None, bool]]:
        """For each launch its work-items (None for a loop's) and whether it is run once."""
        launches = self.tables[types.LAUNCHES]
        if self.machine.architecture != types.OPENCL:
            return [(None, False)] * len(launches)
        found: list[tuple[WorkSizes | None, bool]] = []
        if len(self.tables[types.WORK]) != len(launches):
            self.fail(f"{len(self.tables[types.WORK])} work sizes for {len(launches)} launches")
        for number, (x, y, z, a, b, c, flags) in enumerate(self.tables[types.WORK]):
            loop, chunks = launches[number][5], launches[number][4]
            fits = all(g and total and total % g == 0 for total, g in ((x, a), (y, b), (z, c)))
            if not loop and (not fits or self.size("a launch", x * y * z) == 0 or chunks != 1):
                self.fail(f"launch {number} has impossible work sizes ({x} {y} {z} in groups of {a} {b} {c})")
            found.append((None if loop else WorkSizes((x, y, z), (a, b, c)), bool(flags & types.ONCE)))
        return found

    # ---- launches and loops

    def _launches(self, first: int, count: int, scope: _Scope, depth: int) -> list[Launch]:
        result = []
        total = 0
        for number in self.span(types.LAUNCHES, first, count, "a sequence of launches"):
            if not self.free_launches[number]:
                self.fail(f"launch {number} belongs to two sequences")
            self.free_launches[number] = False
            record = self.tables[types.LAUNCHES][number]
            kernel, argument, arguments, flags, chunks, loop, title, title_size, flops, nbytes = record
            what = f"launch {number}"
            total += self.size(what, chunks)
            self.size(what, total)
            self.span(types.KERNELS, kernel, 1, what)
            refs = [
                self._argument(i, scope, what)
                for i in self.span(types.REFERENCES, argument, arguments, what)
            ]
            result.append(
                Launch(
                    self.kernels[kernel],
                    tuple(refs),
                    chunks,
                    bool(flags & types.WAITS),
                    self.string(title, title_size),
                    (),
                    flops,
                    nbytes,
                    self._loop(loop - 1, chunks, scope, depth + 1) if loop else None,
                    *self.work[number],
                )
            )
        return result

    def _argument(self, number: int, scope: _Scope, what: str) -> BufferRef:
        """What a launch is given: a place, or an image."""
        ref = self._reference(number, scope, what)
        image = self.references[number][3] - 1
        if image < 0 or not self.images:
            return ref
        if image >= len(self.images) or ref.offset:
            self.fail(f"{what} refers to image {image} of {len(self.images)}, or into one")
        tensor = self.images[image][1]
        if tensor and (ref.space, ref.number) != ("parameter", tensor - 1):
            self.fail(f"{what} refers to image {image} as something that it does not hold")
        return ref if tensor else BufferRef("image", image)

    def _place(self, number: int, scope: _Scope, what: str) -> tuple[BufferRef, _Place]:
        """A reference and where it lies before anything moves."""
        space, index, offset, _, _ = self.references[number]
        ref = BufferRef(types.SPACE_NAMES.get(space, ""), index, offset)
        base = (self.parameters if ref.space == "parameter" else scope).get((ref.space, index))
        if base is None:
            self.fail(f"{what} refers to buffer {index} of space {space}, which is not there")
        return ref, _Place(base.low + offset, base.high + offset, base.limit, base.writable)

    def _inside(self, place: _Place, nbytes: int, what: str) -> _Place:
        if place.low < 0 or place.high + nbytes > place.limit:
            end = place.high + nbytes
            self.fail(f"{what} reaches bytes {place.low} to {end} of a buffer of {place.limit} bytes")
        return place

    def _reference(
        self, number: int, scope: _Scope, what: str, nbytes: int = 0, write: bool = False
    ) -> BufferRef:
        """A reference to `nbytes` bytes that does not move by itself."""
        ref, place = self._place(number, scope, what)
        if write and not place.writable:
            self.fail(f"{what} writes to a buffer that is only read")
        self._inside(place, nbytes, what)
        return ref

    def _optional(
        self, number: int, scope: _Scope, what: str, nbytes: int, write: bool = False
    ) -> BufferRef | None:
        self.span(types.REFERENCES, number, 1, what)
        return self._reference(number, scope, what, nbytes, write) if self.references[number][0] else None

    def _moving(
        self, number: int, scope: _Scope, what: str, iterations: int, nbytes: int = 0
    ) -> tuple[Moving, _Place]:
        """A reference that moves: where it lies after 0 to `iterations` iterations."""
        ref, place = self._place(number, scope, what)
        even, odd = self.references[number][3:]
        # after 2 i iterations it has moved by i (even + odd), after 2 i + 1 by another even
        pairs = iterations // 2 * (even + odd)
        last = (iterations - 1) // 2 * (even + odd) + even
        reached = [0, pairs] + ([even, last] if iterations else [])
        place = _Place(place.low + min(reached), place.high + max(reached), place.limit, place.writable)
        return Moving(ref, even, odd), self._inside(place, nbytes, what)

    def _loop(self, number: int, chunks: int, scope: _Scope, depth: int) -> LoopLaunch:
        what = f"loop {number}"
        self.span(types.LOOPS, number, 1, "a launch")
        if not self.free_loops[number]:
            self.fail(f"{what} belongs to two launches")
        self.free_loops[number] = False
        if depth > types.MOST_NESTED_LOOPS:
            self.fail(f"loops are nested more than {types.MOST_NESTED_LOOPS} deep")
        if chunks != 1:
            self.fail(f"{what} is a launch of {chunks} chunks, not of one")
        (first, count, steps, arena, inputs, input_count, outputs, output_count, iteration, cleared) = (
            self.tables[types.LOOPS][number][:10]
        )
        cleared_count, before, before_count, after, after_count, trips, enter, go_on, done = self.tables[
            types.LOOPS
        ][number][10:]
        self.size(what, steps)
        last = max(steps - 1, 0)

        def one(at: int) -> int:
            return self.span(types.REFERENCES, at, 1, what)[0]

        def pairs(at: int, items: int) -> list[tuple[int, int]]:
            self.span(types.REFERENCES, at, 2 * items, what)
            return [(at + 2 * i, at + 2 * i + 1) for i in range(items)]

        body: _Scope = {}
        arena_ref, arena_place = self._place(one(arena), scope, what)
        body["arena", 0] = self._inside(arena_place, 0, what)
        moved: tuple[list[Moving], list[Moving]] = ([], [])
        for space, at_first, places, found in (
            ("input", inputs, input_count, moved[0]),
            ("output", outputs, output_count, moved[1]),
        ):
            for i, at in enumerate(self.span(types.REFERENCES, at_first, places, what)):
                moving, body[space, i] = self._moving(at, scope, f"{space} {i} of {what}", last)
                found.append(moving)
        zeroed, copied, left = [], [], []
        for at in self.span(types.REFERENCES, cleared, cleared_count, what):
            size = self.size(what, self.references[at][3])
            zeroed.append((self._reference(at, scope, what, size, write=True), size))
        for to, source in pairs(before, before_count):
            size = self.size(what, self.references[to][4])
            target = self._reference(to, scope, what, size, write=True)
            copied.append((target, self._reference(source, scope, what, size), size))
        for to, source in pairs(after, after_count):
            size = self.size(what, self.references[to][4])
            target = self._reference(to, scope, what, size, write=True)
            left.append((target, self._moving(source, scope, what, steps, size)[0], size))
        return LoopLaunch(
            tuple(self._launches(first, count, body, depth)),
            steps,
            arena_ref,
            tuple(moved[0]),
            tuple(moved[1]),
            self._reference(one(iteration), scope, what, 8, write=True),
            tuple(zeroed),
            tuple(copied),
            tuple(left),
            self._optional(trips, scope, what, 8),
            self._optional(enter, scope, what, 1),
            self._optional(go_on, scope, what, 1),
            self._optional(done, scope, what, 8, write=True),
        )
