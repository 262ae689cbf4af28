"""Object code into executable memory.

On Linux x86-64 the few relocations that LLVM emits for position-independent kernels are applied here, all
objects in one mapping: that is much faster than a JIT linker for many small objects. Anything unexpected, and
every other system, goes through LLVM's MCJIT. Source of the format: System V ABI, "ELF-64 Object File
Format", and its x86-64 supplement (table of relocation types).
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tinyinfer.backends.cpu.target import CpuTarget
from tinyinfer.errors import EPFail

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QIIq")

_PROGBITS, _SYMTAB, _RELA, _NOBITS = 1, 2, 4, 8
_WRITE, _ALLOC = 1, 2
_UNDEFINED, _ABSOLUTE = 0, 0xFFF1
_R_64, _R_PC32, _R_PLT32, _R_GOTPCREL, _R_PC64 = 1, 2, 4, 9, 24
_R_GOTPCRELX, _R_REX_GOTPCRELX = 41, 42
_VIA_TABLE = (_R_GOTPCREL, _R_GOTPCRELX, _R_REX_GOTPCRELX)
_GLOBAL_FUNCTION = 0x12
_SLOT = 16
"""Bytes of a slot for an outside symbol: its address (the GOT entry), then `jmp *-14(%rip)` to it (the PLT
entry)."""


class Unsupported(Exception):
    """An object holds something that the loader of this module does not know."""


class MissingFunction(Unsupported, EPFail):
    """Generated code calls a function that no library of this system has; no other loader would find it."""


@dataclass
class Loaded:
    """Code in memory for as long as this object lives: one symbol table an object, in the order given."""

    symbols: Sequence[dict[str, int]]
    owner: Any

    def address(self, number: int, name: str) -> int:
        """Address of function `name` of object `number`; an object's only function answers to every name."""
        table = self.symbols[number]
        found = table.get(name)
        if found is None:
            if len(table) != 1:
                raise KeyError(f"object {number} defines {sorted(table)}, not {name!r}")
            found = next(iter(table.values()))
        return found


def load(objects: Sequence[bytes], names: Sequence[Sequence[str]], target: CpuTarget) -> Loaded:
    """Make relocatable `objects` of `target` executable. `names[i]` are the functions wanted of object i."""
    if sys.platform == "linux" and platform.machine() == "x86_64":
        try:
            return load_elf(objects)
        except MissingFunction:
            raise
        except (Unsupported, OSError):
            pass
    return load_mcjit(objects, names, target)


def outside_address(name: str) -> int:
    """Address of a library function that generated code calls: of the C library, or of the compiler's own
    library, which converts half precision for CPUs that cannot. Raises MissingFunction where no library has
    it."""
    for library in (None, "libm.so.6", "libgcc_s.so.1"):
        try:
            address = ctypes.cast(getattr(ctypes.CDLL(library), name), ctypes.c_void_p).value
        except (OSError, AttributeError):
            continue
        if address:
            return address
    raise MissingFunction(f"generated code for this CPU calls {name}, which no library of this system has")


class _Object:
    """The parts of one ELF object that matter here."""

    def __init__(self, data: bytes):
        if len(data) < _HEADER.size:
            raise Unsupported("no ELF header")
        header = _HEADER.unpack_from(data)
        if header[0][:6] != b"\x7fELF\x02\x01" or header[1] != 1 or header[2] != 62:
            raise Unsupported("not an x86-64 ELF relocatable object")
        start, size, count = header[6], header[11], header[12]
        if size != _SECTION.size or start + size * count > len(data):
            raise Unsupported("section table")
        self.data = data
        self.sections = list(_SECTION.iter_unpack(data[start : start + size * count]))
        self.strings = data[self.sections[header[13]][4] :]
        self.symbols: list[tuple[int, int, int, int, int, int]] = []
        self.names = b""
        for section in self.sections:
            if section[1] == _SYMTAB:
                self.symbols = list(_SYMBOL.iter_unpack(data[section[4] : section[4] + section[5]]))
                names = self.sections[section[6]]
                self.names = data[names[4] : names[4] + names[5]]

    def placed(self) -> list[int]:
        """Numbers of the sections that go into memory."""
        result = []
        for number, section in enumerate(self.sections):
            kind, flags, size = section[1], section[2], section[5]
            if not flags & _ALLOC or not size or kind not in (_PROGBITS, _NOBITS):
                continue
            name = _text(self.strings, section[0])
            if name == ".eh_frame":
                continue
            # written by relocation only; true variables need memory that stays writable
            if flags & _WRITE and not name.startswith(".data.rel.ro"):
                raise Unsupported(f"writable section {name}")
            result.append(number)
        return result

    def relocations(self) -> Iterator[tuple[int, int, int, int, int]]:
        """(section, offset in it, type, symbol, addend) of every relocation."""
        for section in self.sections:
            if section[1] == _RELA:
                table = self.data[section[4] : section[4] + section[5]]
                for offset, kind, symbol, addend in _RELOCATION.iter_unpack(table):
                    yield section[7], offset, kind, symbol, addend

    def through_table(self) -> list[int]:
        """Symbols that code reaches through a slot: calls out of the object, and table (GOT) references."""
        found: dict[int, None] = {}
        for _, _, kind, symbol, _ in self.relocations():
            if kind in _VIA_TABLE or (kind == _R_PLT32 and self.symbols[symbol][3] == _UNDEFINED):
                found[symbol] = None
        return list(found)

    def values(self, place: dict[int, int], base: int, outside: dict[str, int]) -> list[int | None]:
        """The address of every symbol, or None for one that has none in memory."""
        result: list[int | None] = []
        for name, _, _, section, value, _ in self.symbols:
            if section == _ABSOLUTE:
                result.append(value)
            elif section in place:
                result.append(base + place[section] + value)
            else:
                result.append(outside.get(_text(self.names, name)) if section == _UNDEFINED else None)
        return result


def _text(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode()


def load_elf(objects: Sequence[bytes]) -> Loaded:
    """All objects in one mapping, readable and executable. Raises Unsupported or OSError."""
    parsed = [_Object(data) for data in objects]
    places: list[dict[int, int]] = []
    offset = 0
    for item in parsed:
        place: dict[int, int] = {}
        for number in item.placed():
            section = item.sections[number]
            alignment = max(section[8], 1)
            offset = -(-offset // alignment) * alignment
            place[number] = offset
            offset += section[5]
        places.append(place)
    table = -(-offset // _SLOT) * _SLOT
    outside: dict[str, int] = {}
    slots: list[dict[int, int]] = []
    count = 0
    for item in parsed:
        slot: dict[int, int] = {}
        for number in item.through_table():
            symbol = item.symbols[number]
            name = _text(item.names, symbol[0]) if symbol[3] == _UNDEFINED else ""
            if name and name in outside:
                slot[number] = outside[name]
                continue
            slot[number] = table + _SLOT * count
            count += 1
            if name:
                outside[name] = slot[number]
        slots.append(slot)
    size = max(table + _SLOT * count, 1)

    mapping = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE)
    image = (ctypes.c_char * size).from_buffer(mapping)
    base = ctypes.addressof(image)
    addresses = {name: outside_address(name) for name in outside}
    symbols = []
    for item, place, slot in zip(parsed, places, slots):
        for number, start in place.items():
            section = item.sections[number]
            if section[1] == _PROGBITS:
                mapping[start : start + section[5]] = item.data[section[4] : section[4] + section[5]]
        values = item.values(place, base, addresses)
        for number, start in slot.items():
            value = values[number]
            if value is None:
                raise Unsupported("symbol outside of memory")
            struct.pack_into("<QHi", mapping, start, value, 0x25FF, -14)
        _relocate(item, place, slot, values, mapping, base)
        symbols.append(
            {
                _text(item.names, symbol[0]): value
                for symbol, value in zip(item.symbols, values)
                if symbol[1] == _GLOBAL_FUNCTION and symbol[3] != _UNDEFINED and value is not None
            }
        )
    _make_executable(base, size)
    return Loaded(symbols, (mapping, image))


def _relocate(
    item: _Object,
    place: dict[int, int],
    slots: dict[int, int],
    values: Sequence[int | None],
    mapping: mmap.mmap,
    base: int,
) -> None:
    """Apply an object's relocations to its sections in `mapping`."""
    for target_section, offset, kind, symbol, addend in item.relocations():
        if target_section not in place:
            continue
        at = place[target_section] + offset
        here = base + at
        value = values[symbol]
        if kind in _VIA_TABLE:
            struct.pack_into("<i", mapping, at, base + slots[symbol] + addend - here)
            continue
        if value is None:
            raise Unsupported("symbol outside of memory")
        if kind == _R_PLT32 and symbol in slots:
            struct.pack_into("<i", mapping, at, base + slots[symbol] + 8 + addend - here)
        elif kind in (_R_PC32, _R_PLT32) and abs(value + addend - here) < 1 << 31:
            struct.pack_into("<i", mapping, at, value + addend - here)
        elif kind == _R_64:
            struct.pack_into("<Q", mapping, at, (value + addend) & ((1 << 64) - 1))
        elif kind == _R_PC64:
            struct.pack_into("<q", mapping, at, value + addend - here)
        else:
            raise Unsupported(f"relocation type {kind}")


def _make_executable(base: int, size: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    protect = libc.mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if protect(base, size, mmap.PROT_READ | mmap.PROT_EXEC):
        raise OSError(ctypes.get_errno(), "memory for code cannot be made executable")


def load_mcjit(objects: Sequence[bytes], names: Sequence[Sequence[str]], target: CpuTarget) -> Loaded:
    """The same through LLVM's MCJIT, on any system that it knows."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    engines = []
    symbols = []
    for data, wanted in zip(objects, names):
        # an engine an object: names may repeat, and each object's sections stay close together;
        # every engine becomes the owner of its target machine
        machine = llvm.Target.from_triple(target.triple).create_target_machine(
            cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small", jit=True
        )
        module = llvm.parse_assembly("", llvm.create_context())
        engine = llvm.create_mcjit_compiler(module, machine)
        engine.add_object_file(llvm.ObjectFileRef.from_data(data))
        engine.finalize_object()
        found = {name: engine.get_function_address(name) for name in wanted}
        if not all(found.values()):
            raise RuntimeError(f"MCJIT finds not all of {', '.join(wanted)}")
        symbols.append(found)
        engines.append(engine)
    return Loaded(symbols, engines)
