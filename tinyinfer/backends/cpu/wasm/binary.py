"""The binary format of WebAssembly modules: numbers, vectors and sections, read and written."""

from __future__ import annotations

from collections.abc import Sequence

MAGIC = b"\0asm\1\0\0\0"

CUSTOM, TYPE, IMPORT, FUNCTION, TABLE, MEMORY, GLOBAL, EXPORT = range(8)
ELEMENT, CODE, DATA = 9, 10, 11
"""Numbers of sections, which is also their order in a module (custom ones may stand anywhere)."""

FUNCTION_KIND, TABLE_KIND, MEMORY_KIND, GLOBAL_KIND = range(4)
"""Kinds of imports and exports."""

I32, FUNCREF = 0x7F, 0x70
I32_CONST, END = 0x41, 0x0B


class WasmFormatError(ValueError):
    """The bytes are no WebAssembly object of the kind that LLVM writes."""


class Reader:
    """Reads numbers and strings of `data` from `at` on. Raises WasmFormatError where they go past its end."""

    def __init__(self, data: bytes, at: int = 0):
        self.data = data
        self.at = at

    def __bool__(self) -> bool:
        return self.at < len(self.data)

    def byte(self) -> int:
        return self.bytes(1)[0]

    def bytes(self, count: int) -> bytes:
        part = self.data[self.at : self.at + count]
        if len(part) != count:
            raise WasmFormatError("a WebAssembly object ends too early")
        self.at += count
        return part

    def unsigned(self) -> int:
        """A LEB128 number without sign, of up to 64 bits."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise WasmFormatError("a number in a WebAssembly object is longer than 64 bits")

    def name(self) -> str:
        return self.bytes(self.unsigned()).decode("utf-8", "strict")

    def block(self) -> Reader:
        """A reader of what a length stands before."""
        return Reader(self.bytes(self.unsigned()))


def unsigned(value: int) -> bytes:
    """`value` as a LEB128 number without sign."""
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def signed(value: int) -> bytes:
    """`value` as a signed LEB128 number."""
    result = bytearray()
    while not -0x40 <= value < 0x40:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value & 0x7F)
    return bytes(result)


def name(text: str) -> bytes:
    data = text.encode()
    return unsigned(len(data)) + data


def block(data: bytes) -> bytes:
    """`data` with its length before it."""
    return unsigned(len(data)) + data


def vector(items: Sequence[bytes]) -> bytes:
    return unsigned(len(items)) + b"".join(items)


def section(number: int, items: Sequence[bytes]) -> bytes:
    """A section that is a vector of items; nothing where there are none."""
    return bytes([number]) + block(vector(items)) if items else b""


def constant(value: int) -> bytes:
    """The expression whose value is the 32-bit number `value`, such as an address."""
    return bytes([I32_CONST]) + signed(value - (value >> 31 << 32)) + bytes([END])
