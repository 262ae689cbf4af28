"""Writing LLVM IR text: names, blocks, counted loops, and typed values that are the same in all lanes or one
a lane.

llvmlite's own builder objects are slow to print for unrolled tiles, so the text is written directly.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

LLVM_TYPES = {
    "float32": "float",
    "float64": "double",
    "float16": "half",
    "bfloat16": "bfloat",
    "bool": "i1",
    "int8": "i8",
    "uint8": "i8",
    "int16": "i16",
    "uint16": "i16",
    "int32": "i32",
    "uint32": "i32",
    "int64": "i64",
    "uint64": "i64",
}
"""Type of a value in a register. A bool in memory is one byte (`memory_type`)."""

ITEM_BYTES = {
    "float32": 4,
    "float64": 8,
    "float16": 2,
    "bfloat16": 2,
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "int64": 8,
    "uint64": 8,
}


def memory_type(dtype: str) -> str:
    """Type of one element in memory."""
    return "i8" if dtype == "bool" else LLVM_TYPES[dtype]


def is_float(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat"))


def is_signed(dtype: str) -> bool:
    return dtype.startswith("int")


def literal(value: float | int | bool, dtype: str) -> str:
    """A number as LLVM text of this dtype; floats bit-exact."""
    if dtype == "bool":
        return "true" if value else "false"
    if not is_float(dtype):
        return str(int(value))
    if dtype == "float32":
        value = struct.unpack("<f", struct.pack("<f", _in_range(float(value), "<f")))[0]
    if dtype == "float16":
        return f"0xH{struct.unpack('<H', struct.pack('<e', _in_range(float(value), '<e')))[0]:04X}"
    if dtype == "bfloat16":
        return f"0xR{struct.unpack('<I', struct.pack('<f', _in_range(float(value), '<f')))[0] >> 16:04X}"
    return f"0x{struct.unpack('<Q', struct.pack('<d', float(value)))[0]:016X}"


def _in_range(value: float, form: str) -> float:
    """The number, or infinity where the format of `struct` has nothing as large."""
    try:
        struct.pack(form, value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
    return value


@dataclass(frozen=True)
class Value:
    """A register or literal: `text`, its element dtype, and whether it has one element a lane."""

    text: str
    dtype: str
    vector: bool


class Writer:
    """Lines of one function; unique names; knows the block that is being written."""

    def __init__(self, lanes: int):
        self.lanes = lanes
        self.lines: list[str] = []
        self.allocas: list[str] = []
        self.count = 0
        self.block = "entry"
        self.declarations: set[str] = set()

    def name(self) -> str:
        self.count += 1
        return f"%v{self.count}"

    def emit(self, text: str) -> str:
        """Write `%new = text`; returns the name."""
        name = self.name()
        self.lines.append(f"  {name} = {text}")
        return name

    def do(self, text: str) -> None:
        self.lines.append("  " + text)

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")
        self.block = name

    def type(self, dtype: str, vector: bool) -> str:
        scalar = LLVM_TYPES[dtype]
        return f"<{self.lanes} x {scalar}>" if vector else scalar

    def typed(self, value: Value) -> str:
        return f"{self.type(value.dtype, value.vector)} {value.text}"

    def call(self, name: str, result: str, *arguments: str) -> str:
        """Call an intrinsic; `arguments` are typed operands."""
        types = ", ".join(
            a.rsplit(" ", 1)[0] if not a.startswith("<") else a[: a.index(">") + 1] for a in arguments
        )
        self.declarations.add(f"declare {result} @{name}({types})")
        return self.emit(f"call {result} @{name}({', '.join(arguments)})")

    def splat_literal(self, value: float | int | bool, dtype: str) -> str:
        """A vector literal with one value in all lanes."""
        return f"splat ({LLVM_TYPES[dtype]} {literal(value, dtype)})"

    def splat(self, value: Value) -> Value:
        """The value in every lane."""
        if value.vector:
            return value
        if not value.text.startswith("%"):
            return Value(f"splat ({LLVM_TYPES[value.dtype]} {value.text})", value.dtype, True)
        vector = self.type(value.dtype, True)
        first = self.emit(
            f"insertelement {vector} poison, {self.type(value.dtype, False)} {value.text}, i32 0"
        )
        return Value(
            self.emit(
                f"shufflevector {vector} {first}, {vector} poison, <{self.lanes} x i32> zeroinitializer"
            ),
            value.dtype,
            True,
        )

    def alloca(self, type_text: str, align: int = 64) -> str:
        self.count += 1
        name = f"%slot{self.count}"
        self.allocas.append(f"  {name} = alloca {type_text}, align {align}")
        return name

    @contextmanager
    def loop(self, start: str | int, stop: str | int, step: int = 1) -> Iterator[str]:
        """A counted loop from `start` below `stop`. Literal bounds must give at least one round."""
        self.count += 1
        tag = self.count
        known = isinstance(start, int) and isinstance(stop, int)
        before = self.block
        counter, following = f"%i{tag}", f"%n{tag}"
        if not known:
            enter = self.emit(f"icmp slt i64 {start}, {stop}")
            self.do(f"br i1 {enter}, label %loop{tag}, label %end{tag}")
        else:
            self.do(f"br label %loop{tag}")
        self.label(f"loop{tag}")
        place = len(self.lines)
        self.lines.append("")
        yield counter
        self.do(f"{following} = add nuw nsw i64 {counter}, {step}")
        more = self.emit(f"icmp slt i64 {following}, {stop}")
        self.do(f"br i1 {more}, label %loop{tag}, label %end{tag}")
        self.lines[place] = f"  {counter} = phi i64 [{start}, %{before}], [{following}, %{self.block}]"
        self.label(f"end{tag}")

    def function(self, header: str) -> str:
        """The finished function: `header` is everything before the opening brace."""
        return "\n".join([header + " {", "entry:", *self.allocas, *self.lines, "  ret void", "}"])
