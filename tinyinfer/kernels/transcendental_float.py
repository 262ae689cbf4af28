"""What the expansions of transcendental functions share: the layout of float formats, and small expression
builders.

Everything here relies on IEEE arithmetic: a device that flushes subnormals or reassociates `(x + c) - c` must
be told not to. A MULACC is taken as fused (rounded once) unless it is LOOSE.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from tinyinfer.kernels.expression import LOOSE, Expr, apply, const, expression


@dataclass(frozen=True)
class FloatFormat:
    """An IEEE binary format and the integer type of its size."""

    dtype: str
    integer: str
    mantissa: int
    """Stored mantissa bits."""
    bias: int
    """Exponent field of 1.0."""
    smallest_normal: float
    largest: float

    @property
    def round_magic(self) -> float:
        """1.5 · 2^mantissa: adding it rounds to an integer, which then lies in the low bits of the sum."""
        return 1.5 * 2.0**self.mantissa

    @property
    def bits(self) -> int:
        """The format's size."""
        return 32 if self.integer == "int32" else 64

    @property
    def sign_mask(self) -> int:
        """The sign bit, as the signed integer of the format's size."""
        return -(1 << (self.bits - 1))

    def real(self, value: float) -> Expr:
        """A literal of this format."""
        return const(float(value), self.dtype)

    def whole(self, value: int) -> Expr:
        """A literal of the integer type."""
        return const(int(value), self.integer)

    def pattern(self, value: float) -> int:
        """The bits of `value` in this format as a signed integer."""
        float_code, integer_code = ("<f", "<i") if self.dtype == "float32" else ("<d", "<q")
        (bits,) = struct.unpack(integer_code, struct.pack(float_code, value))
        return int(bits)


FLOAT32 = FloatFormat("float32", "int32", 23, 127, 2.0**-126, 2.0**128 - 2.0**104)
FLOAT64 = FloatFormat("float64", "int64", 52, 1023, 2.0**-1022, float.fromhex("0x1.fffffffffffffp+1023"))
FORMATS = {"float32": FLOAT32, "float64": FLOAT64}

Pair = tuple[Expr, Expr]
"""An unevaluated sum of two floats, the second below half a unit in the last place of the first."""


def add(a: Expr, b: Expr) -> Expr:
    """a + b."""
    return apply("ADD", a, b)


def subtract(a: Expr, b: Expr) -> Expr:
    """a - b."""
    return apply("SUB", a, b)


def multiply(a: Expr, b: Expr) -> Expr:
    """a · b."""
    return apply("MUL", a, b)


def multiply_add(a: Expr, b: Expr, c: Expr) -> Expr:
    """a · b + c, where it does not matter whether the product is rounded before the sum."""
    return expression("MULACC", (a, b, c), c.dtype, LOOSE)


def fused(a: Expr, b: Expr, c: Expr) -> Expr:
    """a · b + c, rounded once."""
    return apply("MULACC", a, b, c)


def where(condition: Expr, a: Expr, b: Expr) -> Expr:
    """`a` where the condition holds, else `b`."""
    return apply("WHERE", condition, a, b)


def bits_of(x: Expr) -> Expr:
    """The bits of a float as the signed integer of its size."""
    return apply("BITCAST", x, dtype=FORMATS[x.dtype].integer)


def from_bits(x: Expr, form: FloatFormat) -> Expr:
    """The float whose bits are `x`."""
    return apply("BITCAST", x, dtype=form.dtype)


def clamp(x: Expr, lo: float, hi: float) -> Expr:
    """`x` limited to `[lo, hi]`; NaN stays NaN."""
    form = FORMATS[x.dtype]
    return apply("MAX", apply("MIN", x, form.real(hi)), form.real(lo))


def polynomial(x: Expr, coefficients: Sequence[float], last: Expr | None = None) -> Expr:
    """Horner's scheme, lowest power first. `last`, where given, is put before the lowest."""
    form = FORMATS[x.dtype]
    terms: list[Expr] = [form.real(c) for c in coefficients]
    if last is not None:
        terms.insert(0, last)
    total = terms[-1]
    for term in reversed(terms[:-1]):
        total = multiply_add(total, x, term)
    return total


def round_shifted(x: Expr, factor: float, bias: int) -> tuple[Expr, Expr]:
    """The integer nearest to `factor · x`: (as a float, as the low bits of an integer that has `bias` added).

    `|factor · x| + |bias|` must stay below 2^(mantissa - 1). Two operations, against four for round, convert,
    add.
    """
    form = FORMATS[x.dtype]
    magic = form.real(form.round_magic + bias)
    shifted = multiply_add(x, form.real(factor), magic)
    return subtract(shifted, magic), bits_of(shifted)


def power_of_two(biased: Expr, form: FloatFormat) -> Expr:
    """2^n from an integer whose low bits hold n + bias, an exponent field, with a 0 above it for the sign."""
    return from_bits(apply("SHL", biased, form.whole(form.mantissa)), form)


def with_sign_of(magnitude: Expr, x: Expr) -> Expr:
    """`magnitude`, which must not be negative, with the sign bit of `x`."""
    form = FORMATS[x.dtype]
    sign = apply("AND", bits_of(x), form.whole(form.sign_mask))
    return from_bits(apply("OR", bits_of(magnitude), sign), form)


def two_sum(a: Expr, b: Expr) -> Pair:
    """a + b as an exact pair (Knuth)."""
    total = add(a, b)
    virtual = subtract(total, a)
    return total, add(subtract(a, subtract(total, virtual)), subtract(b, virtual))


def quick_two_sum(a: Expr, b: Expr) -> Pair:
    """a + b as a pair, exact where |a| >= |b| or a is 0."""
    total = add(a, b)
    return total, subtract(b, subtract(total, a))


def pair_product(a: Pair, b: Pair) -> Pair:
    """a · b of pairs; relative error about 2^-102."""
    high = multiply(a[0], b[0])
    low = fused(a[0], b[0], apply("NEG", high))
    return high, fused(a[0], b[1], fused(a[1], b[0], low))
