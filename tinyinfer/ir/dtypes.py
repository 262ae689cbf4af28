"""The element types of the IR: numpy's names, those of `ml_dtypes`, and how the narrow ones are laid out.

| kind | names | one element in memory |
|---|---|---|
| plain | bool, (u)int8 … 64, float16, float32, float64 | itself |
| narrow floats | bfloat16, float8_*, float6_*, float4_e2m1fn | its bits, low ones first, in uint16 or uint8 |
| narrow integers | (u)int4, (u)int2 | its bits in a uint8, the high ones zero |
| complex | complex64, complex128 | real and imaginary part |

Devices compute in plain types only; `ir.passes.storage_types` takes the others apart for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

PLAIN = frozenset(
    (
        "float32",
        "float16",
        "float64",
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
    )
)
"""The dtypes that devices compute in."""


@dataclass(frozen=True)
class FloatFormat:
    """A float of `bits` bits: a sign, an exponent with this `bias`, a mantissa of so many bits; subnormals.

    `largest`, `overflow` and `nan` are codes without their sign: of the largest finite number, of what lies
    beyond it, and of NaN. Formats with `unsigned_zero` have no -0: its code is their NaN, which has no sign
    either.
    """

    bits: int
    mantissa: int
    bias: int
    largest: int
    overflow: int
    nan: int
    unsigned_zero: bool = False

    @property
    def sign(self) -> int:
        """The sign bit."""
        return 1 << (self.bits - 1)


FLOAT_FORMATS: dict[str, FloatFormat] = {
    "bfloat16": FloatFormat(16, 7, 127, 0x7F7F, 0x7F80, 0x7FC0),
    "float8_e4m3fn": FloatFormat(8, 3, 7, 0x7E, 0x7F, 0x7F),
    "float8_e4m3fnuz": FloatFormat(8, 3, 8, 0x7F, 0x80, 0x80, unsigned_zero=True),
    "float8_e5m2": FloatFormat(8, 2, 15, 0x7B, 0x7C, 0x7E),
    "float8_e5m2fnuz": FloatFormat(8, 2, 16, 0x7F, 0x80, 0x80, unsigned_zero=True),
    # no infinity and no NaN: what lies beyond is the largest number, and NaN becomes a zero
    "float6_e2m3fn": FloatFormat(6, 3, 1, 0x1F, 0x1F, 0x20),
    "float6_e3m2fn": FloatFormat(6, 2, 3, 0x1F, 0x1F, 0x20),
    "float4_e2m1fn": FloatFormat(4, 1, 1, 0x7, 0x7, 0x8),
}
"""Source: the ONNX pages on bfloat16, float 8 and float 4, the OCP MX specification, and `ml_dtypes`."""

SCALE_FORMAT = "float8_e8m0fnu"
"""Eight bits of exponent and nothing else: 2 to the code minus 127; code 255 is NaN."""

NARROW_INTEGERS: dict[str, int] = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2}
"""Bits of an integer that is stored in a byte of its own."""

COMPLEX: dict[str, str] = {"complex64": "float32", "complex128": "float64"}
"""The type of the two parts."""

NARROW = frozenset((*FLOAT_FORMATS, SCALE_FORMAT, *NARROW_INTEGERS))

NUMERIC = PLAIN | NARROW | frozenset(COMPLEX)
"""The dtypes that the IR holds."""


def numpy_dtype(name: str) -> np.dtype:
    """The numpy dtype of an IR dtype name. AttributeError or TypeError for a name that is none."""
    if name in NARROW:
        return np.dtype(getattr(ml_dtypes, name))
    return np.dtype(name)


def is_float(dtype: str) -> bool:
    """Whether an IR dtype name is one of the float types."""
    return "float" in dtype


def storage_dtype(dtype: str) -> str:
    """The plain dtype that holds the bits of one element of a narrow `dtype`; a plain one is its own."""
    if dtype not in NARROW:
        return dtype
    return "uint16" if numpy_dtype(dtype).itemsize == 2 else "uint8"


def computing_dtype(dtype: str) -> str:
    """The plain dtype that arithmetic on `dtype` is done in: it holds every value of the narrow one."""
    if dtype in FLOAT_FORMATS or dtype == SCALE_FORMAT:
        return "float32"
    if dtype in NARROW_INTEGERS:
        return dtype.rstrip("24") + "8"
    return dtype


def code_mask(dtype: str) -> int:
    """The bits of a narrow dtype's storage that are used."""
    if dtype in FLOAT_FORMATS:
        return (1 << FLOAT_FORMATS[dtype].bits) - 1
    return (1 << NARROW_INTEGERS.get(dtype, 8)) - 1


def codes(array: np.ndarray) -> np.ndarray:
    """The bits of an array of a narrow dtype, as its storage dtype; unused bits are zero."""
    name = array.dtype.name
    bits = array.view(storage_dtype(name))
    mask = code_mask(name)
    return bits if mask == np.iinfo(bits.dtype).max else bits & bits.dtype.type(mask)
