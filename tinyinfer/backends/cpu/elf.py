"""Relocatable ELF objects of LLVM, as far as linking them needs it.

Sources of the format: System V ABI, "Object Files"; ELF-64 Object File Format. 32-bit objects (armv7) differ
in the layout of every record and keep addends in the relocated places (REL) instead of beside them (RELA).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

PROGBITS, SYMTAB, RELA, NOBITS, REL = 1, 2, 4, 8, 9
WRITE, ALLOC = 1, 2
UNDEFINED, ABSOLUTE = 0, 0xFFF1
FUNCTION = 2


class InvalidObject(ValueError):
    """The bytes are no relocatable object of the kind that is linked here."""


@dataclass(frozen=True)
class _Layout:
    """The records of one class of ELF files."""

    header: struct.Struct
    section: struct.Struct
    symbol: np.dtype
    rel: np.dtype
    rela: np.dtype
    symbol_shift: int
    """Bits that a relocation's symbol is shifted by in its info word."""


_SYMBOL_32 = [("name", "<u4"), ("value", "<u4"), ("size", "<u4"), ("info", "u1"), ("other", "u1")]
_SYMBOL_64 = [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<i8")]
_LAYOUTS = {
    1: _Layout(
        struct.Struct("<16sHHIIIIIHHHHHH"),
        struct.Struct("<10I"),
        np.dtype([*_SYMBOL_32, ("section", "<u2")]),
        np.dtype([("offset", "<u4"), ("info", "<u4")]),
        np.dtype([("offset", "<u4"), ("info", "<u4"), ("addend", "<i4")]),
        8,
    ),
    2: _Layout(
        struct.Struct("<16sHHIQQQIHHHHHH"),
        struct.Struct("<IIQQQQIIQQ"),
        np.dtype([*_SYMBOL_64, ("size", "<u8")]),
        np.dtype([("offset", "<i8"), ("info", "<u8")]),
        np.dtype([("offset", "<i8"), ("info", "<u8"), ("addend", "<i8")]),
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
class Relocations:
    """Places of one section that refer to symbols: one element each of equally long arrays. `addend` is None
    where addends lie in the relocated places."""

    section: int
    offset: np.ndarray
    kind: np.ndarray
    symbol: np.ndarray
    addend: np.ndarray | None


_NO_SYMBOLS = np.zeros(0, _LAYOUTS[2].symbol)


@dataclass
class ElfObject:
    """What an object's bytes say. Records of `symbols` have the fields "name" (see `name`), "info", "section"
    (of which UNDEFINED means another object) and "value"."""

    data: bytes
    machine: int = 0
    section_count: int = 0
    sections: list[Section] = field(default_factory=list)
    symbols: np.ndarray = field(default_factory=lambda: _NO_SYMBOLS)
    relocations: list[Relocations] = field(default_factory=list)
    _names: int = 0
    _first_shared: int = 0

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
        self.machine, self.section_count = header[2], header[12]
        start, count = header[6], header[12]
        table = list(layout.section.iter_unpack(data[start : start + layout.section.size * count]))
        names = table[header[13]][4]
        relocated = []
        kept = set()
        for number, (name, kind, flags, _, offset, size, link, info, alignment, _) in enumerate(table):
            if kind == SYMTAB:
                self.symbols = np.frombuffer(data[offset : offset + size], layout.symbol)
                self._names, self._first_shared = table[link][4], info
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
        for section, kind, offset, size in relocated:
            if section in kept:
                self._relocate(layout, section, kind, data[offset : offset + size])

    def _relocate(self, layout: _Layout, section: int, kind: int, table: bytes) -> None:
        records = np.frombuffer(table, layout.rela if kind == RELA else layout.rel)
        info = records["info"].astype(np.int64)
        shift = layout.symbol_shift
        symbol = info >> shift
        if symbol.size and not 0 <= symbol.max() < len(self.symbols):
            raise ValueError("a relocation of no symbol")
        addend = records["addend"].astype(np.int64) if kind == RELA else None
        self.relocations.append(
            Relocations(
                section, records["offset"].astype(np.int64), info & ((1 << shift) - 1), symbol, addend
            )
        )

    def name(self, symbol: int) -> str:
        """The name of a symbol by its number; constants have none."""
        at = int(self.symbols["name"][symbol])
        return _text(self.data, self._names + at) if at else ""

    def undefined(self) -> dict[int, str]:
        """Numbers and names of the symbols that relocations want and this object does not define."""
        outside = [n for n, section in self._shared() if section == UNDEFINED]
        if not outside:
            return {}
        wanted = {s for r in self.relocations for s in r.symbol.tolist()}
        return {n: self.name(n) for n in outside if n in wanted}

    def functions(self) -> dict[str, tuple[int, int]]:
        """(section, offset) of every function that others may call."""
        info, value = self.symbols["info"], self.symbols["value"]
        return {
            self.name(n): (section, int(value[n]))
            for n, section in self._shared()
            if section not in (UNDEFINED, ABSOLUTE) and info[n] & 15 == FUNCTION
        }

    def _shared(self) -> Iterator[tuple[int, int]]:
        """Numbers of the symbols that are not local, which are last in the table, and their sections."""
        return enumerate(self.symbols["section"][self._first_shared :].tolist(), self._first_shared)


def _text(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode()
