"""One flat image of machine code, and the linker that joins kernels' objects into it.

An image is text and constants, with every reference already resolved as a distance: it is mapped at any
multiple of `ALIGNMENT`, read and executed, and needs no loader. It holds no address, no variable and no
import; whatever would need one is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tinyinfer.backends.cpu.elf import ABSOLUTE, UNDEFINED, ElfObject, InvalidObject
from tinyinfer.backends.cpu.relocations import MACHINES, Machine, OutOfReach, Place, Relocation
from tinyinfer.errors import EPFail

ALIGNMENT = 4096
"""Where an image may be mapped: multiples of this."""

_FUNCTION = 16
"""Alignment of every part."""


class LinkError(EPFail):
    """Code that cannot be part of an image; the message names the kernel and what it refers to."""


@dataclass(frozen=True)
class CodeImage:
    """Position-independent machine code: its bytes, and where in them each kernel begins, by its key. The
    functions of the driver have their own names as keys."""

    code: bytes
    entries: dict[str, int]


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
    code = bytearray(b"".join(chunks))
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
    for part, place in zip(parts, places):
        if part.object.relocations:
            _Relocator(code, machine, part, place, shared).run()
    return CodeImage(bytes(code), entries)


def _machine(architecture: str) -> Machine:
    if architecture not in MACHINES:
        raise LinkError(f"code for {architecture} cannot be linked here")
    return MACHINES[architecture]


class _Relocator:
    """Resolves the references of one part, whose sections lie at `place`."""

    def __init__(
        self,
        code: bytearray,
        machine: Machine,
        part: Part,
        place: Mapping[int, int],
        shared: Mapping[str, int],
    ):
        self.code, self.machine, self.part, self.place, self.shared = code, machine, part, place, shared

    def run(self) -> None:
        machine = self.machine
        pairs = machine.pairs or {}
        low_halves = []
        distances: dict[int, int] = {}
        for section, offset, kind, symbol, addend in self.part.object.relocations:
            at = self.place[section] + offset
            relocation = machine.relocations.get(kind)
            if relocation is not None:
                target = self._target(symbol, relocation.name)
                place = Place(self.code, at, target)
                if addend is None:
                    addend = relocation.addend(place)
                place = Place(self.code, at, target + addend)
                if kind in machine.highs:
                    distances[at] = place.distance
                self._write(relocation, place, symbol)
            elif kind in pairs:
                low_halves.append((at, pairs[kind], symbol))
            elif kind not in machine.ignored:
                name = machine.absolute.get(kind, f"of type {kind}")
                why = "needs an address" if kind in machine.absolute else "is not known here"
                raise LinkError(f"{self.part.title}: relocation {name} to {self._name(symbol)} {why}")
        for at, relocation, symbol in low_halves:
            high = self._target(symbol, relocation.name)
            if high not in distances:
                raise LinkError(f"{self.part.title}: {relocation.name} belongs to no upper half")
            self._write(relocation, Place(self.code, at, at + distances[high]), symbol)

    def _write(self, relocation: Relocation, place: Place, symbol: int) -> None:
        try:
            relocation.write(place)
        except OutOfReach as error:
            name = self._name(symbol)
            raise LinkError(f"{self.part.title}: {relocation.name} to {name}: {error}") from error

    def _target(self, number: int, kind: str) -> int:
        symbol = self.part.object.symbols[number]
        if symbol.section in self.place:
            return self.place[symbol.section] + symbol.value
        if symbol.section == UNDEFINED and symbol.name in self.shared:
            return self.shared[symbol.name]
        what = "has a fixed address" if symbol.section == ABSOLUTE else "is not part of the image"
        raise LinkError(f"{self.part.title}: {kind} to {self._name(number)}, which {what}")

    def _name(self, number: int) -> str:
        return self.part.object.symbols[number].name or "a constant"
