"""The constants of a plan as C: arrays in a source file, or one binary file with an assembler file that links
it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinyinfer.backends.clike.dialect import NumberType

ALIGNMENT = 16
"""Of each tensor in a binary file, in bytes."""

LINE = 100


@dataclass(frozen=True)
class Stored:
    """One stored tensor: the C type of its elements, and its place in the binary file."""

    name: str
    array: np.ndarray
    offset: int


class Weights:
    """The tensors of a plan, equal ones once. `prefix` begins the names of all arrays."""

    def __init__(self, parameters: Sequence[np.ndarray], types: Mapping[str, NumberType], prefix: str):
        self.types, self.prefix = types, prefix
        self.tensors: list[Stored] = []
        self.of_parameter: list[Stored] = []
        known: dict[tuple[str, bytes], Stored] = {}
        end = 0
        for parameter in parameters:
            array = np.ascontiguousarray(parameter).reshape(-1)
            key = (array.dtype.name, array.tobytes())
            if key not in known:
                start = -(-end // ALIGNMENT) * ALIGNMENT
                known[key] = Stored(f"{prefix}_w{len(known)}", array, start)
                end = start + array.nbytes
                self.tensors.append(known[key])
            self.of_parameter.append(known[key])
        self.total = sum(t.array.nbytes for t in self.tensors)

    def declarations(self) -> list[str]:
        """Declarations of the arrays that `source` defines."""
        return [f"extern {self._head(t)};" for t in self.tensors]

    def _head(self, t: Stored) -> str:
        return f"const {self.types[t.array.dtype.name].memory} {t.name}[{max(t.array.size, 1)}]"

    def source(self) -> str:
        """Definitions of all arrays."""
        parts = ["#include <math.h>\n#include <stdint.h>\n", *self.declarations(), ""]
        for t in self.tensors:
            elements = numbers(t.array) or ["0"]
            parts.append(f"{self._head(t)} = {{\n{_filled(elements)}\n}};\n")
        return "\n".join(parts)

    def binary(self) -> bytes:
        """All tensors at their offsets."""
        result = bytearray()
        for t in self.tensors:
            result += bytes(t.offset - len(result)) + t.array.tobytes()
        return bytes(result) or bytes(1)

    def assembly(self, file: str) -> str:
        """An assembler file for GNU as and clang that links the binary file as a symbol."""
        symbol = f"{self.prefix}_weights"
        return f"""\
/* Links {file} as the read-only symbol {symbol}. Compile with -I<folder of {file}> if it lies elsewhere. */
#if defined(__APPLE__)
    .section __TEXT,__const
    .globl _{symbol}
    .balign 64
_{symbol}:
    .incbin "{file}"
#else
    .section .rodata.{symbol}, "a"
    .globl {symbol}
    .balign 64
{symbol}:
    .incbin "{file}"
#if defined(__ELF__)
    .type {symbol}, %object
    .size {symbol}, . - {symbol}
    .section .note.GNU-stack, "", %progbits
#endif
#endif
"""


def numbers(array: np.ndarray) -> list[str]:
    """Each element as a C literal that has its very bits, as far as C can spell them."""
    if array.dtype == np.float16:
        return [str(x) for x in array.view(np.uint16).tolist()]
    if array.dtype.kind == "f":
        digits, suffix = (9, "f") if array.dtype == np.float32 else (17, "")
        return [_float(x, digits, suffix) for x in array.tolist()]
    if array.dtype.kind == "b":
        return [str(x) for x in array.view(np.uint8).tolist()]
    if array.dtype.itemsize == 8:
        macro, least = ("UINT64_C", None) if array.dtype.kind == "u" else ("INT64_C", -(1 << 63))
        return ["INT64_MIN" if x == least else f"{macro}({x})" for x in array.tolist()]
    if array.dtype == np.int32:
        return ["INT32_MIN" if x == -(1 << 31) else str(x) for x in array.tolist()]
    return [f"{x}u" if array.dtype == np.uint32 else str(x) for x in array.tolist()]


def _float(x: float, digits: int, suffix: str) -> str:
    if x != x:
        return "NAN" if suffix else "(double)NAN"
    if x in (float("inf"), float("-inf")):
        return f"{'-' if x < 0 else ''}{'' if suffix else '(double)'}INFINITY"
    text = f"{x:.{digits}g}"
    return f"{text}{'' if '.' in text or 'e' in text else '.0'}{suffix}"


def _filled(elements: list[str]) -> str:
    """Numbers with commas, in lines of bounded length."""
    lines: list[str] = []
    line: list[str] = []
    length = 0
    for number in elements:
        if length + len(number) + 2 > LINE and line:
            lines.append("    " + ", ".join(line) + ",")
            line, length = [], 0
        line.append(number)
        length += len(number) + 2
    lines.append("    " + ", ".join(line))
    return "\n".join(lines)
