"""One flat image of machine code, and the linker that joins kernels' objects into it.

An image is text and constants, with every reference already resolved as a distance: it is mapped at any
multiple of `ALIGNMENT`, read and executed, and needs no loader. It holds no address, no variable and no
import; whatever would need one is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from tinyinfer.backends.cpu.code_image import ALIGNMENT, CodeImage
from tinyinfer.backends.cpu.elf import ElfObject, InvalidObject
from tinyinfer.backends.cpu.relocations import MACHINES, Machine, OutOfReach, Places, Relocation
from tinyinfer.errors import EPFail

_FUNCTION = 16
"""Alignment of every part."""


class LinkError(EPFail):
    """Code that cannot be part of an image; the message names the kernel and what it refers to."""


@dataclass(frozen=True)
class Part:
    """An object to link: what errors call it, and its functions' names by the key that `CodeImage.entries`
    has them under. An object of a single function has it whatever the name."""

    title: str
    object: ElfObject
    functions: Mapping[str, str]
    shared: bool = False
    """Whether other parts may call its functions by their names."""


def read_object(data: bytes, title: str, architecture: str) -> ElfObject:
    """The object, which must be of this architecture. Raises LinkError."""
    try:
        found = ElfObject(data)
    except InvalidObject as error:
        raise LinkError(f"{title}: {error}") from error
    if found.machine != _machine(architecture).number:
        raise LinkError(f"{title}: an object of ELF machine {found.machine}, not of {architecture}")
    return found


def link(parts: Sequence[Part], architecture: str) -> CodeImage:
    """The image of all parts, in their order. Raises LinkError."""
    machine = _machine(architecture)
    end = 0
    chunks: list[bytes] = []
    places: list[dict[int, int]] = []
    for part in parts:
        place: dict[int, int] = {}
        for section in part.object.sections:
            if section.writable:
                raise LinkError(f"{part.title}: section {section.name} is data that code writes or addresses")
            alignment = max(section.alignment, _FUNCTION)
            if alignment > ALIGNMENT:
                raise LinkError(f"{part.title}: section {section.name} is aligned to {alignment} bytes")
            padding = -end % alignment
            chunks += (bytes(padding), section.data)
            place[section.number] = end + padding
            end += padding + len(section.data)
        places.append(place)
    code = np.frombuffer(bytearray(b"".join(chunks)), np.uint8)
    shared: dict[str, int] = {}
    entries: dict[str, int] = {}
    for part, place in zip(parts, places):
        functions = {name: place[s] + at for name, (s, at) in part.object.functions().items()}
        if part.shared:
            shared |= functions
        for key, name in part.functions.items():
            if name in functions:
                entries[key] = functions[name]
            elif len(functions) == 1:
                (entries[key],) = functions.values()
            else:
                raise LinkError(f"{part.title}: defines {', '.join(sorted(functions))}, not {name}")
    referring = [(part, place) for part, place in zip(parts, places) if part.object.relocations]
    _Patcher(code, machine, [_References(part, place, shared) for part, place in referring]).run()
    return CodeImage(code.tobytes(), entries)


def _machine(architecture: str) -> Machine:
    if architecture not in MACHINES:
        raise LinkError(f"code for {architecture} cannot be linked here")
    return MACHINES[architecture]


class _References:
    """Everything in one part that refers to something: arrays of where, what kind, and what, as offsets of
    the image."""

    def __init__(self, part: Part, place: Mapping[int, int], shared: Mapping[str, int]):
        self.part = part
        tables = part.object.relocations
        self.at = _joined([table.offset + place[table.section] for table in tables])
        self.kind = _joined([table.kind for table in tables])
        self.symbol = _joined([table.symbol for table in tables])
        addends = [table.addend for table in tables if table.addend is not None]
        self.addend = _joined(addends) if len(addends) == len(tables) else None
        # special sections have numbers beyond all others
        starts = np.full(part.object.section_count + 1, -1, np.int64)
        starts[list(place)] = list(place.values())
        start = starts.take(part.object.symbols["section"], mode="clip")
        self.values = np.where(start >= 0, start + part.object.symbols["value"], -1)
        for number, name in part.object.undefined().items():
            self.values[number] = shared.get(name, -1)

    def name(self, symbol: int) -> str:
        return self.part.object.name(symbol)


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    if len(arrays) == 1:
        return arrays[0]
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int64)


class _Patcher:
    """Resolves the references of all parts, those of one kind together."""

    def __init__(self, code: np.ndarray, machine: Machine, references: Sequence[_References]):
        self.code, self.machine, self.references = code, machine, references
        self.owner = np.repeat(np.arange(len(references)), [r.at.size for r in references])
        self.at = _joined([r.at for r in references])
        self.kind = _joined([r.kind for r in references])
        self.symbol = _joined([r.symbol for r in references])
        self.value = _joined([r.values[r.symbol] for r in references])
        given = [r.addend for r in references if r.addend is not None]
        self.addend = _joined(given) if len(given) == len(references) else None

    def run(self) -> None:
        machine = self.machine
        pairs = machine.pairs or {}
        kinds = np.unique(self.kind).tolist()
        for kind in kinds:
            if kind not in machine.relocations and kind not in pairs and kind not in machine.ignored:
                name = machine.absolute.get(kind, f"of type {kind}")
                why = "needs an address" if kind in machine.absolute else "is not known here"
                self._fail(int(np.argmax(self.kind == kind)), f"relocation {name}", why)
        distances: dict[int, int] = {}
        for kind in kinds:
            relocation = machine.relocations.get(kind)
            if relocation is not None:
                chosen = np.flatnonzero(self.kind == kind)
                places = self._places(relocation, chosen)
                if kind in machine.highs:
                    distances |= zip(places.at.tolist(), places.distance.tolist())
                self._write(relocation, places, chosen)
        for kind, relocation in pairs.items():
            chosen = np.flatnonzero(self.kind == kind)
            self._known(relocation, chosen)
            for number, high in zip(chosen.tolist(), self.value[chosen].tolist()):
                if high not in distances:
                    self._fail(number, f"{relocation.name}", "belongs to no upper half")
            at = self.at[chosen]
            distance = np.array([distances[high] for high in self.value[chosen].tolist()], np.int64)
            self._write(relocation, Places(self.code, at, at + distance), chosen)

    def _known(self, relocation: Relocation, chosen: np.ndarray) -> None:
        unknown = self.value[chosen] < 0
        if unknown.any():
            self._fail(int(chosen[np.argmax(unknown)]), relocation.name, "is to nothing in the image")

    def _places(self, relocation: Relocation, chosen: np.ndarray) -> Places:
        self._known(relocation, chosen)
        at, target = self.at[chosen], self.value[chosen]
        addend = self.addend[chosen] if self.addend is not None else None
        if addend is None:
            addend = relocation.addend(Places(self.code, at, target))
        return Places(self.code, at, target + addend)

    def _write(self, relocation: Relocation, places: Places, chosen: np.ndarray) -> None:
        try:
            relocation.write(places)
        except OutOfReach as error:
            self._fail(int(chosen[error.number]), relocation.name, str(error))

    def _fail(self, number: int, kind: str, why: str) -> NoReturn:
        reference = self.references[self.owner[number]]
        name = reference.name(int(self.symbol[number])) or "a constant"
        raise LinkError(f"{reference.part.title}: {kind} to {name}: {why}")
