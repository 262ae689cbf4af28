"""EXP, SIGMOID, TANH and ERF as plain elementwise expressions, branch-free.

Method: additive range reduction in the manner of Cody and Waite (Software Manual for the Elementary
Functions, 1980) with fused multiply-adds (Muller, Elementary Functions, 3rd edition, chapter 11), then a
polynomial. Coefficients are minimax in the stated interval and measure, found by the Remez algorithm and
rounded to the format one after another, lowest power first, the rest fitted anew after each; `error` is the
measure after rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinyinfer.kernels.expression import Expr, apply
from tinyinfer.kernels.transcendental_float import (
    FORMATS,
    add,
    bits_of,
    clamp,
    from_bits,
    fused,
    multiply,
    multiply_add,
    polynomial,
    power_of_two,
    round_shifted,
    subtract,
    where,
    with_sign_of,
)

LOG2_E = 1.4426950408889634

# ln 2 as the format's nearest value and the rest. Times an integer of up to 11 bits and taken from an
# argument near it, the first part leaves no rounding error: the difference has no bit below the last one of
# the product.
LN2 = {
    "float32": (0.6931471824645996, -1.9046542121259336e-09),
    "float64": (0.6931471805599453, 2.3190468138462996e-17),
}


@dataclass(frozen=True)
class Coefficients:
    """Polynomials of one format, lowest power first."""

    exp: tuple[float, ...]
    """exp(r) for |r| <= ln 2; relative."""
    exp_half: tuple[float, ...]
    """exp(r) for |r| <= ln(2) / 2; relative."""
    expm1: tuple[float, ...]
    """(expm1(2r) / 2 - r) / r² for |r| <= ln(2) / 4; relative to expm1(2r) / 2."""
    erf: tuple[float, ...]
    """erf(x) / x - 1 in powers of x² for |x| <= `erf_split`; relative to erf(x) / x."""
    erfc_root: tuple[float, ...]
    """erfc(x)^(1 / 2^erfc_squarings) for erf_split <= x <= erf_one; the power's error relative to erf(x)."""
    erfc_squarings: int
    erf_split: float
    erf_one: float
    """From here on erf(x) rounds to 1."""


COEFFICIENTS = {
    "float32": Coefficients(
        # error 2^-26.0
        exp=(
            1.0,
            1.0,
            0.5000003576278687,
            0.1666661649942398,
            0.04166118800640106,
            0.008335947059094906,
            0.0014105667360126972,
            0.00019633842748589814,
        ),
        # error 2^-28.2
        exp_half=(
            1.0,
            1.0,
            0.4999999403953552,
            0.16666516661643982,
            0.04166810214519501,
            0.008369198068976402,
            0.00138390576466918,
        ),
        # error 2^-26.0
        expm1=(
            0.9999999403953552,
            0.6666615605354309,
            0.333342045545578,
            0.13387399911880493,
            0.0442744605243206,
        ),
        # error 2^-24.5
        erf=(
            0.12837912142276764,
            -0.37612318992614746,
            0.11280113458633423,
            -0.026709208264946938,
            0.004914883058518171,
            -0.0005619699950329959,
        ),
        # error 2^-25.1; the weight grows to threefold from 3.6 to 4, so that the end comes out below 2^-25
        erfc_root=(
            1.004072666168213,
            -0.3030267357826233,
            -0.07317690551280975,
            -0.041517820209264755,
            0.06129898130893707,
            -0.020695092156529427,
            0.0029755705036222935,
            -0.0001611269690329209,
        ),
        erfc_squarings=2,
        erf_split=1.0,
        erf_one=4.0,
    ),
    "float64": Coefficients(
        # error 2^-56.3
        exp=(
            1.0,
            1.0,
            0.4999999999999993,
            0.1666666666666696,
            0.04166666666670231,
            0.008333333333268378,
            0.0013888888883504512,
            0.00019841269891735164,
            2.480159088433601e-05,
            2.7557301763177135e-06,
            2.755614313025328e-07,
            2.5054725685884363e-08,
            2.106370113689808e-09,
            1.5962976282647746e-10,
        ),
        # error 2^-57.9
        exp_half=(
            1.0,
            1.0,
            0.5000000000000011,
            0.1666666666666643,
            0.04166666666652566,
            0.008333333333479518,
            0.0013888888944926109,
            0.00019841269548065887,
            2.4801491647916025e-05,
            2.7557541075087695e-06,
            2.7630801753235266e-07,
            2.501698138490349e-08,
        ),
        # error 2^-61.6
        expm1=(
            1.0,
            0.6666666666666671,
            0.3333333333333335,
            0.13333333333314865,
            0.044444444444459816,
            0.012698412726639751,
            0.0031746031717166372,
            0.0007054654746737729,
            0.00014109352664504546,
            2.5711316949495764e-05,
            4.27908492389583e-06,
        ),
        # error 2^-56.0
        erf=(
            0.12837916709551256,
            -0.37612638903183343,
            0.1128379167093695,
            -0.026866170641959057,
            0.005223977596732663,
            -0.0008548325484578641,
            0.00012055280470451096,
            -1.4924464754931263e-05,
            1.6444133379586106e-06,
            -1.6183800380418402e-07,
            1.3615576734341962e-08,
            -7.605099844912059e-10,
        ),
        # error 2^-57.5
        erfc_root=(
            0.9999999728170642,
            -0.14104712850058346,
            -0.0696315007704533,
            -0.002086703942251722,
            0.006587996463390654,
            0.00018169661429293994,
            -0.0004989453885677181,
            6.871356089332754e-05,
            1.4559043453835916e-05,
            -1.2924225023967635e-05,
            6.0595869529564955e-06,
            -2.019896383006268e-06,
            4.897644964577324e-07,
            -8.86487834537071e-08,
            1.210879617733368e-08,
            -1.227045454048942e-09,
            8.742075652676068e-11,
            -3.905273175513369e-12,
            8.207974332107915e-14,
        ),
        erfc_squarings=3,
        erf_split=1.0,
        erf_one=5.93,
    ),
}

# Outside, exp is 0 or infinite; inside, the exponents that the reduction makes fit their fields.
EXP_RANGE = {"float32": (-104.0, 100.0), "float64": (-746.0, 720.0)}
# Outside, the sigmoid is 0 or 1.
SIGMOID_RANGE = {"float32": (-104.0, 30.0), "float64": (-746.0, 50.0)}
# Scale that keeps both terms of the sigmoid's denominator normal over that range.
SIGMOID_SCALE = {"float32": -32, "float64": -64}
# From here on tanh is 1.
TANH_ONE = {"float32": 10.0, "float64": 20.0}


def reduce_by(x: Expr, n: Expr, step: float) -> Expr:
    """x - n · step · ln 2, where `step` is a power of two of either sign."""
    form = FORMATS[x.dtype]
    high, low = LN2[x.dtype]
    # the first product is far larger than the difference
    return multiply_add(n, form.real(-low * step), fused(n, form.real(-high * step), x))


def exp(x: Expr) -> Expr:
    """e^x: 16 operations. Overflow gives infinity, underflow rounds through the subnormals to 0.

    x = 2m·ln 2 + r, so e^x = (e^r · 2^m) · 2^m: neither factor leaves the normal range, and only the last
    product rounds to a subnormal. The wider r costs one or two coefficients; two different factors would cost
    more.
    """
    form = FORMATS[x.dtype]
    x = clamp(x, *EXP_RANGE[x.dtype])
    m, biased = round_shifted(x, LOG2_E / 2, form.bias)
    scale = power_of_two(biased, form)
    value = polynomial(reduce_by(x, m, 2.0), COEFFICIENTS[x.dtype].exp)
    return multiply(multiply(value, scale), scale)


def sigmoid(x: Expr) -> Expr:
    """1 / (1 + e^-x): 19 operations, one of them a division; relatively accurate down to the last subnormal.

    x = n·ln 2 + r, so the sigmoid is p / (p + 2^-n) with p = e^r. Both terms carry the factor
    2^`SIGMOID_SCALE`, which keeps 2^-n finite where the quotient is subnormal. What the last rounding of p
    lost, `rest`, goes into the denominator: p + rest over d is p over d·(1 - rest) where p is near 1, and
    there it matters.
    """
    form = FORMATS[x.dtype]
    x = clamp(x, *SIGMOID_RANGE[x.dtype])
    scale = SIGMOID_SCALE[x.dtype]
    minus_n, biased = round_shifted(x, -LOG2_E, form.bias + scale)
    r = reduce_by(x, minus_n, -1.0)
    other = power_of_two(biased, form)
    one = form.real(1.0)
    slope = polynomial(r, COEFFICIENTS[x.dtype].exp_half[1:])
    value = multiply_add(slope, r, one)
    rest = multiply_add(slope, r, subtract(one, value))
    value = multiply(value, form.real(2.0**scale))
    return apply("DIV", value, add(other, multiply_add(apply("NEG", other), rest, value)))


def tanh(x: Expr) -> Expr:
    """Hyperbolic tangent: 20 operations, one of them a division; odd, signed zeros and subnormals kept.

    With F = -expm1(-2|x|) / 2 it is F / (1 - F). -2|x| = n·ln 2 + 2r and q = expm1(2r) / 2 give F = (1 - 2^n)
    / 2 - 2^n·q, which is -q itself for small x and so loses nothing there. F is below tanh and 1 - F below 1,
    so that their rounding errors are no larger than the result's own.
    """
    form = FORMATS[x.dtype]
    below = from_bits(apply("OR", bits_of(x), form.whole(form.sign_mask)), form)
    below = apply("MAX", below, form.real(-TANH_ONE[x.dtype]))
    n, biased = round_shifted(below, 2 * LOG2_E, form.bias)
    scale = power_of_two(biased, form)
    r = reduce_by(below, n, 0.5)
    q = multiply_add(polynomial(r, COEFFICIENTS[x.dtype].expm1), multiply(r, r), r)
    half = form.real(0.5)
    numerator = multiply_add(apply("NEG", scale), q, multiply_add(scale, form.real(-0.5), half))
    denominator = multiply_add(scale, q, multiply_add(scale, half, half))
    return with_sign_of(apply("DIV", numerator, denominator), x)


def erf(x: Expr) -> Expr:
    """Error function: 22 operations for float32, no division; odd, signed zeros and subnormals kept.

    Near 0 it is x + x·P(x²). Farther out it is 1 - p(|x|)^4 with p near erfc^(1/4), for float64 with the 8th
    root: the root is smooth enough for a short polynomial (the idea of Abramowitz and Stegun 7.1.28), and
    erfc < 0.18 there damps the errors of the power.
    """
    form = FORMATS[x.dtype]
    table = COEFFICIENTS[x.dtype]
    near = multiply_add(x, polynomial(multiply(x, x), table.erf), x)
    size = apply("ABS", x)
    root = polynomial(apply("MIN", size, form.real(table.erf_one)), table.erfc_root)
    for _ in range(table.erfc_squarings - 1):
        root = multiply(root, root)
    far = multiply_add(apply("NEG", root), root, form.real(1.0))
    return where(apply("CMPLT", size, form.real(table.erf_split)), near, with_sign_of(far, x))
