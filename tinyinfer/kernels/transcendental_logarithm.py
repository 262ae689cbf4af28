"""LOG and POW as plain elementwise expressions, branch-free.

Method: x = 2^e · m with m in [sqrt(1/2), sqrt(2)), by integer arithmetic on the bits; then a polynomial in m
- 1, or for the power of doubles the series of atanh in double-double arithmetic (Muller, Elementary
Functions, 3rd edition, chapters 4 and 11; Dekker 1971 for the pairs). Coefficients are minimax in the stated
interval and measure, found by the Remez algorithm and rounded to the format one after another; `error` is the
measure after rounding.
"""

from __future__ import annotations

import math

from tinyinfer.kernels.expression import Expr, apply
from tinyinfer.kernels.transcendental_exponential import COEFFICIENTS, LN2
from tinyinfer.kernels.transcendental_float import (
    FLOAT32,
    FLOAT64,
    FORMATS,
    Pair,
    add,
    bits_of,
    clamp,
    from_bits,
    fused,
    multiply,
    pair_product,
    polynomial,
    power_of_two,
    quick_two_sum,
    round_shifted,
    subtract,
    where,
    with_sign_of,
)

# (log(1 + f) - f) / f² for sqrt(1/2) <= 1 + f <= sqrt(2); relative to log(1 + f).
LOG = {
    # error 2^-25.0
    "float32": (
        -0.49999991059303284,
        0.33333954215049744,
        -0.25001826882362366,
        0.1996196061372757,
        -0.16568423807621002,
        0.1491691917181015,
        -0.14324115216732025,
        0.08760359138250351,
    ),
    # error 2^-55.8
    "float64": (
        -0.5000000000000003,
        0.3333333333333202,
        -0.2499999999997614,
        0.20000000000424148,
        -0.16666666671405736,
        0.1428571424051227,
        -0.12499999572234528,
        0.11111113278886277,
        -0.10000020916207805,
        0.09090860529884708,
        -0.08332738985888842,
        0.07692612177172954,
        -0.0715276324945185,
        0.06674411377948265,
        -0.06158917900345541,
        0.05710486585321487,
        -0.05910910497727715,
        0.06528808488445244,
        -0.053812986597482564,
        0.02073353858282115,
    ),
}

# log2(1 + f) / f over the same interval, in double for the power of floats; relative, error 2^-34.8.
LOG2_SHORT = (
    1.442695040868706,
    -0.7213475213597307,
    0.48089836100121996,
    -0.3606736717510272,
    0.28853705528944207,
    -0.24045079184508017,
    0.20618695419521701,
    -0.1804024610826408,
    0.15864585886406193,
    -0.141639223278179,
    0.14417310699677013,
    -0.1504323050640149,
    0.08711709197587376,
)

# 2^f for |f| <= 1/2, in double for the power of floats; relative, error 2^-29.0.
EXP2_SHORT = (
    1.0000000005550442,
    0.6931472057672979,
    0.24022646886228707,
    0.055503287110940984,
    0.009618489303430603,
    0.0013399958096986801,
    0.000153457644278853,
)

# With s = (m - 1) / (m + 1): log2(m) / s = TWO_LOG2_E + s²·(THIRD + s²·TAIL(s²)), the first two as exact
# pairs.
TWO_LOG2_E = (2.8853900817779268, 4.0710547481862066e-17)
TWO_LOG2_E_THIRD = (0.9617966939259756, 5.0577616648125907e-17)
# |s| <= 3 - sqrt(8); its term's error relative to log2(m) / s is 2^-73.5.
LOG2_TAIL = (
    0.5770780163555851,
    0.4121985831113457,
    0.32059889791278007,
    0.2623081986590836,
    0.22195227022955602,
    0.19240132916964436,
    0.16845133438388085,
    0.172819118461195,
)

SQRT_HALF = math.sqrt(0.5)


def split_exponent(x: Expr) -> tuple[Expr, Expr]:
    """(e, m) with x = 2^e · m and m in [sqrt(1/2), sqrt(2)), for positive normal x; anything for others.

    e comes as a float, for float32 times 2^23: the exponent's bits are converted where they stand.
    """
    form = FORMATS[x.dtype]
    bits = bits_of(x)
    offset = subtract(bits, form.whole(form.pattern(SQRT_HALF)))
    field = apply("AND", offset, form.whole(-(1 << form.mantissa)))
    fraction = from_bits(subtract(bits, field), form)
    if form is FLOAT32:
        return apply("CAST", field, dtype="float32"), fraction
    # Few machines convert vectors of 64-bit integers: place e in the low bits of a float instead.
    exponent = apply("SHR", offset, form.whole(form.mantissa))
    shifted = from_bits(add(exponent, form.whole(form.pattern(form.round_magic))), form)
    return subtract(shifted, form.real(form.round_magic)), fraction


def normalised(x: Expr) -> tuple[Expr, Expr]:
    """(subnormal, x scaled by 2^mantissa where it is): the first says where the scale applies."""
    form = FORMATS[x.dtype]
    subnormal = apply("CMPLT", x, form.real(form.smallest_normal))
    return subnormal, where(subnormal, multiply(x, form.real(2.0**form.mantissa)), x)


def log(x: Expr) -> Expr:
    """Natural logarithm: 27 operations for float32, no division; -inf at ±0, NaN below."""
    form = FORMATS[x.dtype]
    unit = 2.0**23 if form is FLOAT32 else 1.0
    subnormal, scaled = normalised(x)
    exponent, fraction = split_exponent(scaled)
    exponent = add(exponent, where(subnormal, form.real(-form.mantissa * unit), form.real(0.0)))
    f = subtract(fraction, form.real(1.0))
    high, low = LN2[x.dtype]
    # Where e = 0 this is f + f²·P with one rounding; elsewhere e·ln 2 dominates.
    total = fused(multiply(f, f), polynomial(f, LOG[x.dtype]), fused(exponent, form.real(low / unit), f))
    total = fused(exponent, form.real(high / unit), total)
    below = where(apply("CMPEQ", x, form.real(0.0)), form.real(-math.inf), form.real(math.nan))
    total = where(apply("CMPLT", form.real(0.0), x), total, below)
    return where(apply("CMPEQ", x, form.real(math.inf)), form.real(math.inf), total)


def power(x: Expr, y: Expr) -> Expr:
    """x^y with the special cases of C99 (F.10.4.4); constant exponents 0, 1, 2, 3, -1 and 1/2 become
    arithmetic.

    float32 goes through double, whose 53 bits hold y·log2(x) with room to spare, and whose range makes
    overflow and the subnormals of the result a matter of the final conversion. float64 takes the logarithm as
    a pair of doubles.
    """
    form = FORMATS[x.dtype]
    if y.op == "CONST":
        simple = power_by_constant(x, float(y.attrs))
        if simple is not None:
            return simple
    size = magnitude32(x, y) if form is FLOAT32 else magnitude64(x, y)
    one = form.real(1.0)
    zero = form.real(0.0)
    half = multiply(y, form.real(0.5))
    fractional = apply("CMPNE", y, apply("TRUNC", y))
    # The half of an odd integer ends in .5. Huge y and infinities count as even integers, as C99 has it.
    half_fractional = apply("CMPNE", half, apply("TRUNC", half))
    negative_finite = apply("AND", apply("CMPLT", x, zero), apply("CMPLT", form.real(-math.inf), x))
    result = where(fractional, size, where(half_fractional, with_sign_of(size, x), size))
    result = where(apply("AND", negative_finite, fractional), form.real(math.nan), result)
    return where(apply("OR", apply("CMPEQ", y, zero), apply("CMPEQ", x, one)), one, result)


def power_by_constant(x: Expr, y: float) -> Expr | None:
    """x^y by arithmetic where that is within 2 ulp and right in every special case, else None."""
    form = FORMATS[x.dtype]
    if y == 0.0:
        return form.real(1.0)
    if y == 1.0:
        return x
    if y == 2.0:
        return multiply(x, x)
    if y == 3.0:
        return multiply(multiply(x, x), x)
    if y == -1.0:
        return apply("RECIP", x)
    if y == 0.5:
        # Unlike the square root, the power of -0 is +0 and that of -inf is +inf.
        root = apply("SQRT", add(x, form.real(0.0)))
        return where(apply("CMPEQ", x, form.real(-math.inf)), form.real(math.inf), root)
    return None


def magnitude32(x: Expr, y: Expr) -> Expr:
    """|x|^y of floats, where y is not 0 and |x| is not 1 together with a NaN."""
    wide, real = FLOAT64, FLOAT64.real
    size = apply("CAST", apply("ABS", x), dtype="float64")
    exponent, fraction = split_exponent(size)
    f = subtract(fraction, real(1.0))
    logarithm = fused(f, polynomial(f, LOG2_SHORT), exponent)
    logarithm = where(apply("CMPLT", size, real(math.inf)), logarithm, size)
    logarithm = where(apply("CMPEQ", size, real(0.0)), real(-math.inf), logarithm)
    # The largest float in place of infinity gives the same powers, and 1 where |x| is 1.
    finite = apply("CAST", clamp(y, -FLOAT32.largest, FLOAT32.largest), dtype="float64")
    product = clamp(multiply(finite, logarithm), -160.0, 160.0)
    n, biased = round_shifted(product, 1.0, wide.bias)
    value = polynomial(subtract(product, n), EXP2_SHORT)
    return apply("CAST", multiply(value, power_of_two(biased, wide)), dtype="float32")


def log2_pair(x: Expr) -> Pair:
    """log2(x) as a pair of doubles for positive finite x; relative error about 2^-66."""
    real = FLOAT64.real
    subnormal, scaled = normalised(x)
    exponent, m = split_exponent(scaled)
    exponent = add(exponent, where(subnormal, real(-52.0), real(0.0)))
    f = subtract(m, real(1.0))
    total = add(m, real(1.0))
    total_low = subtract(m, subtract(total, real(1.0)))
    inverse = apply("RECIP", total)
    s_high = multiply(f, inverse)
    minus = apply("NEG", s_high)
    s = (s_high, multiply(fused(minus, total_low, fused(minus, total, f)), inverse))
    square = pair_product(s, s)
    tail = multiply(polynomial(square[0], LOG2_TAIL), square[0])
    inner = quick_two_sum(real(TWO_LOG2_E_THIRD[0]), tail)
    inner = pair_product((inner[0], add(inner[1], real(TWO_LOG2_E_THIRD[1]))), square)
    outer = quick_two_sum(real(TWO_LOG2_E[0]), inner[0])
    fraction = pair_product((outer[0], add(outer[1], add(inner[1], real(TWO_LOG2_E[1])))), s)
    high, low = quick_two_sum(exponent, fraction[0])
    return high, add(low, fraction[1])


def magnitude64(x: Expr, y: Expr) -> Expr:
    """|x|^y of doubles, where y is not 0 and |x| is not 1 together with a NaN."""
    form, real = FLOAT64, FLOAT64.real
    size = apply("ABS", x)
    high, low = log2_pair(size)
    high = where(apply("CMPLT", size, real(math.inf)), high, size)
    high = where(apply("CMPEQ", size, real(0.0)), real(-math.inf), high)
    # No |log2 x| but 0 is below 2^-53, so 2^70 overflows and underflows as infinity does, and gives 1 where
    # |x| is 1.
    finite = clamp(y, -(2.0**70), 2.0**70)
    product = multiply(finite, high)
    rest = fused(finite, low, fused(finite, high, apply("NEG", product)))
    rest = where(apply("CMPLT", apply("ABS", product), real(1100.0)), rest, real(0.0))
    product = clamp(product, -1100.0, 1100.0)
    n, biased = round_shifted(product, 1.0, 2 * form.bias)
    f = subtract(product, n)
    ln2_high, ln2_low = LN2["float64"]
    r = fused(f, real(ln2_high), fused(f, real(ln2_low), multiply(rest, real(ln2_high))))
    value = polynomial(r, COEFFICIENTS["float64"].exp_half)
    # 2^n as a product of two halves: the first keeps the value normal, the second rounds once into the
    # subnormals.
    first = apply("SHR", biased, form.whole(1))
    second = subtract(biased, first)
    return multiply(multiply(value, power_of_two(first, form)), power_of_two(second, form))
