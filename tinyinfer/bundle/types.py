"""Numbers and names of the plan format: element types (ONNX's numbers), architectures, and tables."""

from __future__ import annotations

import struct
from dataclasses import dataclass

TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "uint32": 12,
    "uint64": 13,
    "complex64": 14,
    "complex128": 15,
    "bfloat16": 16,
    "float8_e4m3fn": 17,
    "float8_e4m3fnuz": 18,
    "float8_e5m2": 19,
    "float8_e5m2fnuz": 20,
    "uint4": 21,
    "int4": 22,
    "float4_e2m1fn": 23,
    "float8_e8m0fnu": 24,
    "uint2": 25,
    "int2": 26,
    "float6_e2m3fn": 27,
    "float6_e3m2fn": 28,
}
TYPE_NAMES = {number: name for name, number in TYPES.items()}

_WIDTHS = {
    "float32": 4,
    "uint16": 2,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "float16": 2,
    "float64": 8,
    "uint32": 4,
    "uint64": 8,
    "complex64": 8,
    "complex128": 16,
    "bfloat16": 2,
}


def width(dtype: str) -> int:
    """Bytes of an element; what is narrower than a byte takes one."""
    return _WIDTHS.get(dtype, 1)


OPENCL = "opencl"
ARCHITECTURES = {"x86_64": 1, "aarch64": 2, "armv7": 3, "riscv64": 4, "wasm32": 5, OPENCL: 16}
ARCHITECTURE_NAMES = {number: name for name, number in ARCHITECTURES.items()}

SPACES = {"arena": 1, "parameter": 2, "input": 3, "output": 4}
"""Spaces of `BufferRef`; the format's 0 is none."""
SPACE_NAMES = {number: name for name, number in SPACES.items()}

MOST_BYTES = (1 << 63) - 1
MOST_DIMENSIONS = 32
MOST_NESTED_LOOPS = 16


@dataclass(frozen=True)
class Table:
    """A table of `PLAN`: its name in messages and the record of version 1.0, which may grow at its end."""

    name: str
    record: struct.Struct


PLAN_HEADER = struct.Struct("<IIQQIII28x")
DIRECTORY = struct.Struct("<III4x")
TABLES = (
    Table("strings", struct.Struct("<B")),
    Table("dims", struct.Struct("<q")),
    # name, type, rank, first dim, direction, bytes, fixed, tolerance
    Table("values", struct.Struct("<IIIIIIQI4xd")),
    # stored, encoding, bytes, type in memory, type stored, added, first run, runs
    Table("tensors", struct.Struct("<IIQIIqII16x")),
    # copied, zero, times
    Table("runs", struct.Struct("<QQQ")),
    # offset, name
    Table("kernels", struct.Struct("<QII")),
    # kernel, first argument, arguments, flags, chunks, loop, title, flops, bytes
    Table("launches", struct.Struct("<IIIIQI4xII8xQQ")),
    # space, number, offset, even, odd
    Table("references", struct.Struct("<IIQqq")),
    # launches, steps, arena, inputs, outputs, iteration, cleared, before, after, count, enter, go_on, done
    Table("loops", struct.Struct("<IIQIIIIIIIIIIIIIIII16x")),
)
ITEM_TABLES = (
    # total and group along three dimensions, flags
    Table("work sizes", struct.Struct("<QQQIIII")),
    # options, local bytes, largest group, part of the device's name, words that it is best for
    Table("programs", struct.Struct("<IIQI4xIIII")),
)
"""What plans for work-items have besides."""
# width, height, type, 1 + tensor
IMAGE_TABLE = Table("images", struct.Struct("<IIII8x"))
"""Of plans for work-items that need the feature IMAGES."""
IMAGES_BIT = 1 << 2
STRINGS, DIMS, VALUES, TENSORS, RUNS, KERNELS, LAUNCHES, REFERENCES, LOOPS = range(len(TABLES))
WORK, PROGRAMS, IMAGES = range(len(TABLES), len(TABLES) + 3)
WAITS = 1
"""Bit of a launch's flags."""
ONCE = 1
"""Bit of the flags of work sizes."""
RAW, EXPANDED = 0, 1
"""Encodings of a tensor."""


def tables_of(architecture: str, features: int) -> tuple[Table, ...]:
    """The tables of a plan, in order."""
    if architecture != OPENCL:
        return TABLES
    return (*TABLES, *ITEM_TABLES, *([IMAGE_TABLE] if features & IMAGES_BIT else []))
