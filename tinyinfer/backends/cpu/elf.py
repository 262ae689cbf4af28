"""Relocatable ELF objects of LLVM, as far as linking them needs it.

Sources of the format: System V ABI, "Object Files"; ELF-64 Object File Format. 32-bit objects (armv7) differ
in the layout of every record and keep addends in the relocated places (REL) instead of beside them (RELA).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

PROGBITS, SYMTAB, RELA, NOBITS, REL = 1, 2, 4, 8, 9
WRITE, ALLOC = 1, 2
UNDEFINED, ABSOLUTE = 0, 0xFFF1
FUNCTION = 2
GLOBAL = 1


class InvalidObject(ValueError):
    """The bytes are no relocatable object of the kind that is linked here."""


@dataclass(frozen=True)
class _Layout:
    """The records of one class of ELF files."""

    header: struct.Struct
    section: struct.Struct
    symbol: struct.Struct
    relocation: struct.Struct
    symbol_fields: tuple[int, ...]
    """Where a symbol record has its name, info, section and value."""
    symbol_shift: int
    """Bits that a relocation's symbol is shifted by in its info word."""


_LAYOUTS = {
    1: _Layout(
        struct.Struct("<16sHHIIIIIHHHHHH"),
        struct.Struct("<10I"),
        struct.Struct("<IIIBBH"),
        struct.Struct("<II"),
        (0, 3, 5, 1),
        8,
    ),
    2: _Layout(
        struct.Struct("<16sHHIQQQIHHHHHH"),
        struct.Struct("<IIQQQQIIQQ"),
        struct.Struct("<IBBHQQ"),
        struct.Struct("<QQq"),
        (0, 1, 3, 4),
        32,
    ),
}


@dataclass(frozen=True)
class Section:
    """A section that goes into memory: its number, name, bytes and alignment."""

    number: int
    name: str
    data: bytes
    alignment: int
    writable: bool


@dataclass(frozen=True)
class Symbol:
    """A name for a place in a section. `section` is UNDEFINED where another object has it."""

    name: str
    section: int
    value: int
    function: bool
    visible: bool


@dataclass
class ElfObject:
    """What an object's bytes say. `relocations` are (section, offset, kind, symbol, addend); the addend is
    None where it lies in the relocated place."""

    data: bytes
    machine: int = 0
    sections: list[Section] = field(default_factory=list)
    symbols: list[Symbol] = field(default_factory=list)
    relocations: list[tuple[int, int, int, int, int | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        try:
            self._read()
        except (struct.error, ValueError, IndexError, KeyError) as error:
            raise InvalidObject(f"not a relocatable ELF object: {error}") from error

    def _read(self) -> None:
        data = self.data
        if data[:4] != b"\x7fELF" or data[5] != 1:
            raise ValueError("no ELF header of a little-endian machine")
        layout = _LAYOUTS[data[4]]
        header = layout.header.unpack_from(data)
        if header[1] != 1 or header[11] != layout.section.size:
            raise ValueError("not relocatable")
        self.machine = header[2]
        start, count = header[6], header[12]
        table = list(layout.section.iter_unpack(data[start : start + layout.section.size * count]))
        names = table[header[13]][4]
        relocated = []
        kept = set()
        for number, (name, kind, flags, _, offset, size, link, info, alignment, _) in enumerate(table):
            if kind == SYMTAB:
                self.symbols = list(self._symbols(layout, offset, size, table[link][4]))
            elif kind in (RELA, REL):
                relocated.append((info, kind, offset, size))
            elif flags & ALLOC and size and kind in (PROGBITS, NOBITS):
                title = _text(data, names + name)
                # unwinding tables: kernels do not unwind
                if title == ".eh_frame":
                    continue
                body = data[offset : offset + size] if kind == PROGBITS else bytes(size)
                if len(body) != size:
                    raise ValueError("cut short")
                kept.add(number)
                self.sections.append(Section(number, title, body, max(alignment, 1), bool(flags & WRITE)))
        for info, kind, offset, size in relocated:
            if info in kept:
                self.relocations += self._relocations(layout, info, kind, data[offset : offset + size])

    def _symbols(self, layout: _Layout, offset: int, size: int, names: int) -> Iterator[Symbol]:
        name, info, section, value = layout.symbol_fields
        for record in layout.symbol.iter_unpack(self.data[offset : offset + size]):
            kind, binding = record[info] & 15, record[info] >> 4
            title = _text(self.data, names + record[name]) if record[name] else ""
            yield Symbol(title, record[section], record[value], kind == FUNCTION, binding >= GLOBAL)

    @staticmethod
    def _relocations(
        layout: _Layout, section: int, kind: int, table: bytes
    ) -> Iterator[tuple[int, int, int, int, int | None]]:
        shift = layout.symbol_shift
        mask = (1 << shift) - 1
        if kind == RELA:
            for offset, info, addend in layout.relocation.iter_unpack(table):
                yield section, offset, info & mask, info >> shift, addend
        else:
            for offset, info in layout.relocation.iter_unpack(table):
                yield section, offset, info & mask, info >> shift, None

    def undefined(self) -> list[str]:
        """Names that relocations want and this object does not define, in order of their first use."""
        names = {s: self.symbols[s].name for _, _, _, s, _ in self.relocations if s}
        return list(dict.fromkeys(n for s, n in names.items() if self.symbols[s].section == UNDEFINED))

    def functions(self) -> dict[str, tuple[int, int]]:
        """(section, offset) of every function that others may call."""
        return {
            s.name: (s.section, s.value)
            for s in self.symbols
            if s.function and s.visible and s.section not in (UNDEFINED, ABSOLUTE)
        }


def _text(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode()
