"""SIN and COS as plain elementwise expressions, branch-free.

Method: the argument in quarter turns, y·(2/pi), computed in double with an exact product (fused multiply-add)
and 2/pi as a pair of doubles; the integer part gives the quadrant, the rest one of two short polynomials.
Large floats are integers, x = y·2^k, and only 2^k·(2/pi) mod 4 matters for the quadrant: five such constants,
chosen by magnitude, take the place of the stored bits of Payne and Hanek (Muller, Elementary Functions, 3rd
edition, chapter 11). Coefficients are minimax in the stated interval and measure, found by the Remez
algorithm and rounded to the format one after another; `error` is the measure after rounding.
"""

from __future__ import annotations

import math

from tinyinfer.kernels.expression import Expr, apply
from tinyinfer.kernels.transcendental_float import (
    FLOAT32,
    FLOAT64,
    FORMATS,
    add,
    bits_of,
    from_bits,
    fused,
    multiply,
    pair_product,
    polynomial,
    quick_two_sum,
    subtract,
    two_sum,
    where,
)

# (sin(r) / r - 1) / r² in powers of r² for |r| <= 1.02·pi/4; relative to sin(r) / r.
SIN = {
    # error 2^-27.7
    "float32": (-0.16666653752326965, 0.008332093246281147, -0.00019505145610310137),
    # error 2^-57.5
    "float64": (
        -0.1666666666666662,
        0.008333333333319702,
        -0.00019841269827607718,
        2.7557312921227666e-06,
        -2.505063657435221e-08,
        1.588971299069563e-10,
    ),
}

# (cos(r) - 1 + r²/2) / r⁴ in powers of r² for |r| <= 1.02·pi/4; relative to cos(r).
COS = {
    # error 2^-32.6
    "float32": (0.04166664183139801, -0.0013887130189687014, 2.4412078346358612e-05),
    # error 2^-63.5
    "float64": (
        0.041666666666666574,
        -0.0013888888888869719,
        2.4801587286729083e-05,
        -2.755731355802405e-07,
        2.087561557620671e-09,
        -1.1354090370802845e-11,
    ),
}

# 2^(21·i) · 2/pi mod 4, as the nearest double and the rest.
QUARTER_TURNS = (
    (0.6366197723675814, -3.935735335036497e-17),
    (0.42886021794879353, 1.2738156800822154e-17),
    (1.063791748279411, 1.0868183711658421e-16),
    (0.9924876636310758, -1.5589282983320628e-17),
    (1.4887592377745509, 8.550831001313827e-17),
)
FOLD = 21
# Floats from 2^45 on are multiples of 2^22, so that 2^-21 times them is an integer; and so on every 21
# powers. Below 2^45 a product's last bit is worth at most 2^-7 quarter turns: the rest stays within
# 1.02·pi/4.
FIRST_FOLD = 45

HALF_PI = (1.5707963267948966, 6.123233995736766e-17)


def fold(x: Expr) -> tuple[Expr, Expr, Expr]:
    """For a float x >= 0: (y, high, low), y·(high + low) = x·(2/pi) mod 4, y below 2^45 or infinite."""
    scale: Expr = FLOAT32.real(1.0)
    high, low = (FLOAT64.real(part) for part in QUARTER_TURNS[0])
    for i in range(1, len(QUARTER_TURNS)):
        large = apply("CMPLE", FLOAT32.real(2.0 ** (FIRST_FOLD + FOLD * (i - 1))), x)
        scale = where(large, FLOAT32.real(2.0 ** (-FOLD * i)), scale)
        high = where(large, FLOAT64.real(QUARTER_TURNS[i][0]), high)
        low = where(large, FLOAT64.real(QUARTER_TURNS[i][1]), low)
    return apply("CAST", multiply(x, scale), dtype="float64"), high, low


def quarter_turns(y: Expr, high: Expr) -> tuple[Expr, Expr, Expr]:
    """y·high as (an integer with the quadrant in its low bits, fraction, rounding error of the product)."""
    product = multiply(y, high)
    magic = FLOAT64.real(FLOAT64.round_magic)
    shifted = add(product, magic)
    fraction = subtract(product, subtract(shifted, magic))
    return bits_of(shifted), fraction, fused(y, high, apply("NEG", product))


def sin_cos(x: Expr, quadrant: Expr, r: Expr, r_low: Expr | None, shift: int) -> Expr:
    """sin of `quadrant + shift` quarter turns plus `r + r_low` radians; `x` gives the sign if shift is 0."""
    form = FORMATS[r.dtype]
    square = multiply(r, r)
    cube = multiply(square, r)
    sine = polynomial(square, SIN[form.dtype])
    sine = fused(sine, cube, r) if r_low is None else add(r, fused(sine, cube, r_low))
    cosine = polynomial(square, (1.0, -0.5, *COS[form.dtype]))
    if r_low is not None:
        cosine = fused(apply("NEG", r), r_low, cosine)
    turned = add(quadrant, form.whole(shift)) if shift else quadrant
    odd = apply("CMPNE", apply("AND", turned, form.whole(1)), form.whole(0))
    value = where(odd, cosine, sine)
    sign = apply("SHL", apply("AND", turned, form.whole(2)), form.whole(form.bits - 2))
    if not shift:
        sign = apply("XOR", sign, apply("AND", bits_of(x), form.whole(form.sign_mask)))
    return from_bits(apply("XOR", bits_of(value), sign), form)


def circular(x: Expr, shift: int) -> Expr:
    """sin(|x| + shift·pi/2), with the sign of x where shift is 0."""
    size = apply("ABS", x)
    if x.dtype == "float32":
        y, high, low = fold(size)
        quadrant, fraction, error = quarter_turns(y, high)
        r = multiply(add(fraction, fused(y, low, error)), FLOAT64.real(HALF_PI[0]))
        quadrant = apply("CAST", quadrant, dtype="int32")
        return sin_cos(x, quadrant, apply("CAST", r, dtype="float32"), None, shift)
    bounded = apply("MIN", size, FLOAT64.real(2.0**FIRST_FOLD))
    y = where(apply("CMPLT", size, FLOAT64.real(math.inf)), bounded, subtract(size, size))
    high, low = (FLOAT64.real(part) for part in QUARTER_TURNS[0])
    quadrant, fraction, error = quarter_turns(y, high)
    total, rest = two_sum(fraction, error)
    turn, turn_low = quick_two_sum(total, fused(y, low, rest))
    r, r_low = pair_product((turn, turn_low), (FLOAT64.real(HALF_PI[0]), FLOAT64.real(HALF_PI[1])))
    return sin_cos(x, quadrant, r, r_low, shift)


def sin(x: Expr) -> Expr:
    """Sine in radians; odd, signed zeros kept, NaN for infinities.

    float32: within 2 ulp for every float, about 45 operations, half of them in double. float64: accurate to
    about 1e-15 for |x| below 2^30 and the result bounded beyond; above 2^45 the phase is that of 2^45.
    """
    return circular(x, 0)


def cos(x: Expr) -> Expr:
    """Cosine in radians; the same ranges and accuracy as `sin`."""
    return circular(x, 1)
