"""The expansions against double and extended references, compiled by LLVM; numpy as a second opinion."""

import math

import numpy as np
import pytest
from transcendental_harness import Compiled, argument, evaluate

from tinyinfer.ir.ops import TRANSCENDENTAL
from tinyinfer.kernels.expression import apply, const, expression, walk
from tinyinfer.kernels.transcendental import EXPANSIONS, expand, expand_all

UNARY = ("EXP", "LOG", "SIN", "COS", "TANH", "ERF", "SIGMOID")
LIMIT_ULP = {"float32": 2.0, "float64": 2.5}
EXTENDED = np.finfo(np.longdouble).nmant >= 63
needs_extended = pytest.mark.skipif(not EXTENDED, reason="long double is no wider than double here")


def compiled(op, dtype="float32"):
    args = [argument(name, dtype) for name in ("x", "y")[: 2 if op == "POW" else 1]]
    return Compiled(expand(op, *args), args, 16 if dtype == "float32" else 8)


def reference(op, x):
    """The function of `x` in the precision of `x`, which must be wider than what is tested."""
    with np.errstate(all="ignore"):
        if op == "ERF":
            return np.array([math.erf(v) for v in x.tolist()]).astype(x.dtype)
        if op == "SIGMOID":
            e = np.exp(-np.abs(x))
            return np.where(x >= 0, 1 / (1 + e), e / (1 + e))
        return getattr(np, op.lower())(x)


def ulp_errors(got, want):
    """Errors in units of the last place of `want` in the format of `got`; of the smallest for subnormals.

    Infinity stands for a wrong infinity, NaN or sign of zero.
    """
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        rounded = want.astype(got.dtype)
        finite = np.isfinite(got) & np.isfinite(rounded)
        exponent = np.maximum(np.frexp(np.where(finite, want, 1))[1] - 1, info.minexp)
        error = np.abs(got.astype(want.dtype) - want) / np.ldexp(np.ones_like(want), exponent - info.nmant)
        error = np.where(finite, error, np.inf)
        error[~finite & ((got == rounded) | (np.isnan(got) & np.isnan(rounded)))] = 0
        zeros = (got == 0) & (rounded == 0)
    error[zeros & (np.signbit(got) != np.signbit(rounded))] = np.inf
    return error


def assert_accurate(op, function, x, wide=np.float64):
    for part in np.array_split(x, max(1, len(x) >> 20)):
        with np.errstate(invalid="ignore"):  # signalling NaNs among the bits
            argument_wide = part.astype(wide)
        error = ulp_errors(function(part), reference(op, argument_wide))
        worst = int(np.argmax(error))
        assert error[worst] <= LIMIT_ULP[x.dtype.name], (op, part[worst], error[worst])


def every_float(lo, hi, step=1):
    """All float32 from lo to hi (of one sign), or every `step`-th."""
    first, last = sorted(np.array([lo, hi], np.float32).view(np.uint32).astype(np.int64))
    return np.arange(first, last + 1, step, dtype=np.int64).astype(np.uint32).view(np.float32)


SPECIAL = np.array(
    [
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        1,
        -1,
        1e-45,
        -1e-45,
        1.1754942e-38,
        1.1754944e-38,
        -1e-40,
        3.4028235e38,
        -3.4028235e38,
    ],
    np.float32,
)


@pytest.mark.parametrize("op", UNARY)
def test_float32_over_the_whole_range(op):
    """Every exponent and both signs, some two million arguments."""
    bits = np.arange(0, 1 << 32, 2003, dtype=np.int64).astype(np.uint32)
    assert_accurate(op, compiled(op), np.concatenate([bits.view(np.float32), SPECIAL]))


# Where errors are largest or the method changes: (op, from, to).
CRITICAL = [
    ("EXP", 88.0, 89.5),
    ("EXP", -86.0, -104.5),
    ("EXP", -0.0, -1e-44),
    ("EXP", 10.39, 11.75),
    ("LOG", 0.7, 1.42),
    ("LOG", 0.0, 1e-41),
    ("LOG", 1.17e-38, 1.2e-38),
    ("SIN", 2.3, 2.4),
    ("SIN", 9.4e4, 1e5),
    ("COS", 0.78, 0.8),
    ("COS", 3.5e13, 3.52e13),
    ("TANH", 0.45, 0.56),
    ("TANH", 0.19, 0.21),
    ("TANH", 8.0, 10.5),
    ("TANH", -0.0, -1e-41),
    ("ERF", 0.9, 1.1),
    ("ERF", -3.8, -4.1),
    ("ERF", -0.0, -1e-42),
    ("SIGMOID", -1.0, -1.3),
    ("SIGMOID", -16.0, -17.5),
    ("SIGMOID", -86.0, -104.5),
    ("SIGMOID", 6.9, 7.0),
]


@pytest.mark.parametrize("op, lo, hi", CRITICAL)
def test_every_float32_of_a_critical_range(op, lo, hi):
    x = every_float(lo, hi)
    step = 7 if op == "ERF" and len(x) > 1 << 19 else 1
    assert_accurate(op, compiled(op), x[::step])


@needs_extended
@pytest.mark.parametrize("op", ["SIN", "COS"])
def test_circular_functions_near_their_zeros(op):
    """The floats around multiples of a quarter turn, and the one nearest to such a multiple of all floats."""
    turns = np.concatenate([np.arange(1, 200_000), np.arange(1, 1 << 30, 9973)]).astype(np.longdouble)
    x = (turns * (np.arctan(np.longdouble(1)) * 2)).astype(np.float32)
    near = np.concatenate([x, np.nextafter(x, np.float32(0)), np.nextafter(x, np.float32(np.inf))])
    hardest = np.ldexp(np.float32(16367173), 72).astype(np.float32).reshape(1)
    assert_accurate(op, compiled(op), np.concatenate([near, hardest, -near]), np.longdouble)


def test_special_values():
    inf, nan = math.inf, math.nan
    x = np.array([0.0, -0.0, inf, -inf, nan, -1e-45], np.float32)
    expected = {
        "EXP": [1, 1, inf, 0, nan, 1],
        "LOG": [-inf, -inf, inf, nan, nan, nan],
        "SIN": [0.0, -0.0, nan, nan, nan, -1e-45],
        "COS": [1, 1, nan, nan, nan, 1],
        "TANH": [0.0, -0.0, 1, -1, nan, -1e-45],
        "ERF": [0.0, -0.0, 1, -1, nan, -1e-45],
        "SIGMOID": [0.5, 0.5, 1, 0, nan, 0.5],
    }
    for op, values in expected.items():
        for dtype in ("float32", "float64"):
            if dtype == "float64" and op in ("SIN", "TANH", "ERF"):
                values = [*values[:5], np.float64(np.float32(-1e-45))]
            got = compiled(op, dtype)(x.astype(dtype))
            if dtype == "float64" or op == "ERF":
                assert op not in ("ERF", "TANH", "SIGMOID") or list(got[2:4]) == values[2:4]
                np.testing.assert_allclose(got, np.array(values, dtype), rtol=0.15)
            else:
                np.testing.assert_array_equal(got, np.array(values, dtype))
            assert np.array_equal(np.signbit(got[:2]), np.signbit(np.array(values[:2]))), op


@pytest.mark.parametrize("op", ["SIN", "TANH", "ERF", "COS"])
def test_symmetry_is_exact(op):
    x = np.random.default_rng(3).uniform(-12, 12, 1 << 16).astype(np.float32)
    function = compiled(op)
    mirrored = function(-x)
    np.testing.assert_array_equal(function(x), mirrored if op == "COS" else -mirrored)


@needs_extended
@pytest.mark.parametrize(
    "op, lo, hi",
    [
        ("EXP", -746, 711),
        ("EXP", -1, 1),
        ("LOG", 0, 2),
        ("LOG", 0, 1e300),
        ("LOG", 0, 1e-310),
        ("SIN", -4, 4),
        ("SIN", -1e9, 1e9),
        ("COS", -4, 4),
        ("COS", -1e9, 1e9),
        ("TANH", -1, 1),
        ("TANH", -22, 22),
        ("SIGMOID", -2, 2),
        ("SIGMOID", -746, 40),
    ],
)
def test_float64(op, lo, hi):
    x = np.random.default_rng(4).uniform(lo, hi, 1 << 17)
    assert_accurate(op, compiled(op, "float64"), x, np.longdouble)


def test_float64_erf():
    """Against the C library, itself within 1 ulp."""
    x = np.random.default_rng(4).uniform(-6.5, 6.5, 1 << 16)
    error = ulp_errors(compiled("ERF", "float64")(x), reference("ERF", x))
    assert error.max() <= LIMIT_ULP["float64"] + 1


def test_large_doubles_have_bounded_sines():
    x = np.array([1e15, 1e300, -1e18])
    for op in ("SIN", "COS"):
        assert np.all(np.abs(compiled(op, "float64")(x)) <= 1)


POWER_SPECIAL = [
    0,
    -0.0,
    np.inf,
    -np.inf,
    np.nan,
    1,
    -1,
    2,
    -2,
    0.5,
    -0.5,
    3,
    -3,
    2.5,
    -2.5,
    1e-45,
    -1e-45,
    3.4e38,
    -3.4e38,
    16777215,
    16777216,
    16777217,
    8388607.5,
    -8388607,
    1e10,
    -1e10,
    1.0000001,
    0.9999999,
    -1.0000001,
]


@needs_extended
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_power_has_the_special_cases_of_c99(dtype):
    x, y = (a.ravel().astype(dtype) for a in np.meshgrid(POWER_SPECIAL, POWER_SPECIAL))
    with np.errstate(all="ignore"):
        want = np.power(x.astype(np.longdouble), y.astype(np.longdouble))
    error = ulp_errors(compiled("POW", dtype)(x, y), want)
    worst = int(np.argmax(error))
    assert error[worst] <= 1, (x[worst], y[worst])


@needs_extended
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", ["usual", "near one", "wide", "negative", "any bits"])
def test_power(dtype, case):
    rng, count = np.random.default_rng(5), 1 << 17
    lowest, highest = (-104, 89) if dtype == "float32" else (-746, 711)
    base = np.exp(rng.uniform(lowest + 16, highest - 2, count)).astype(dtype)
    exponent = rng.uniform(lowest, highest, count) / np.log(base.astype(np.float64))
    if case == "usual":
        base, exponent = rng.uniform(0, 10, count), rng.uniform(-10, 10, count)
    elif case == "near one":
        base, exponent = 1 + rng.uniform(-1e-3, 1e-3, count), rng.uniform(highest, highest * 1000, count)
    elif case == "negative":
        base, exponent = -base, np.round(exponent)
    elif case == "any bits":
        kind = np.uint32 if dtype == "float32" else np.uint64
        base, exponent = rng.integers(0, np.iinfo(kind).max, (2, count), dtype=kind).view(dtype)
    x, y = base.astype(dtype), exponent.astype(dtype)
    with np.errstate(all="ignore"):
        want = np.power(x.astype(np.longdouble), y.astype(np.longdouble))
    error = ulp_errors(compiled("POW", dtype)(x, y), want)
    worst = int(np.argmax(error))
    assert error[worst] <= 1, (x[worst], y[worst])


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0, -1.0, 0.5])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_constant_exponents_become_arithmetic(exponent, dtype):
    x = argument("x", dtype)
    root = expand("POW", x, const(exponent, dtype))
    assert len(list(walk(root))) <= 12
    values = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 0.3, -0.3, 7.7, -7.7], dtype)
    with np.errstate(all="ignore"):
        want = np.power(values.astype(np.float64), np.full(len(values), exponent))
    assert ulp_errors(evaluate(root, {"x": values}), want).max() <= 2


@pytest.mark.parametrize("op", sorted(TRANSCENDENTAL))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_llvm_and_numpy_agree_bit_for_bit(op, dtype):
    """float64 over moderate arguments only: there numpy's emulated fused multiply-add is exact."""
    rng, count = np.random.default_rng(6), 1 << 15
    if dtype == "float32":
        x, y = rng.integers(0, 1 << 32, (2, count), dtype=np.uint32).view(np.float32)
        x[::2] = rng.uniform(-10, 10, count // 2)
        y[::2] = rng.uniform(-10, 10, count // 2)
    else:
        x, y = rng.uniform(-10, 10, (2, count))
    args = [argument(name, dtype) for name in ("x", "y")[: 2 if op == "POW" else 1]]
    root = expand(op, *args)
    got = Compiled(root, args, 16)(*(x, y)[: len(args)])
    np.testing.assert_array_equal(got, evaluate(root, {"x": x, "y": y}))


@pytest.mark.parametrize("op", UNARY)
def test_float16_is_the_rounded_float32(op):
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    got = evaluate(expand(op, argument("x", "float16")), {"x": x})
    assert ulp_errors(got, reference(op, x.astype(np.float64))).max() <= 0.51


def test_bfloat16_goes_through_float32():
    root = expand("TANH", argument("x", "bfloat16"))
    assert root.op == "CAST" and root.dtype == "bfloat16" and root.args[0].dtype == "float32"


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="EXP of int32"):
        expand("EXP", argument("x", "int32"))
    with pytest.raises(KeyError):
        expand("ADD", argument("x", "float32"))


@pytest.mark.parametrize(
    "op, most, divisions",
    [
        ("EXP", 16, 0),
        ("SIGMOID", 19, 1),
        ("TANH", 20, 1),
        ("ERF", 22, 0),
        ("LOG", 27, 0),
        ("SIN", 50, 0),
        ("COS", 50, 0),
        ("POW", 65, 0),
    ],
)
def test_operation_counts_stay_low(op, most, divisions):
    args = [argument(name, "float32") for name in ("x", "y")[: 2 if op == "POW" else 1]]
    free = {"SLOT", "CONST", "BITCAST", "NEG"}
    ops = [e.op for e in walk(expand(op, *args)) if e.op not in free]
    assert len(ops) <= most
    assert sum(o in ("DIV", "RECIP", "SQRT") for o in ops) == divisions
    assert not TRANSCENDENTAL & set(ops)


def test_expand_all_leaves_nothing_and_shares():
    x = argument("x", "float32")
    e = apply("EXP", x)
    root = apply("ADD", apply("MUL", e, apply("TANH", e)), apply("POW", e, const(2.0, "float32")))
    expanded = expand_all(root)
    assert not any(part.op in TRANSCENDENTAL for part in walk(expanded))
    assert expand("EXP", x) in list(walk(expanded))
    values = np.linspace(-3, 3, 1001).astype(np.float32)
    wide = np.exp(values.astype(np.float64))
    np.testing.assert_allclose(evaluate(expanded, {"x": values}), wide * np.tanh(wide) + wide**2, rtol=1e-6)


def test_expand_all_keeps_what_needs_nothing():
    x = argument("x", "float32")
    plain = apply("MAX", apply("MUL", x, x), const(0.0, "float32"))
    assert expand_all(plain) is plain
    whole = apply("POW", argument("i", "int32"), argument("j", "int32"))
    assert expand_all(whole) is whole


def test_expand_all_of_a_deep_expression():
    root = argument("x", "float32")
    for _ in range(3000):
        root = apply("ADD", root, const(1.0, "float32"))
    reduced = expression("REDUCE", (apply("EXP", root),), "float32", ("SUM", ()))
    assert not any(part.op == "EXP" for part in walk(expand_all(reduced)))


def test_every_transcendental_has_an_expansion():
    assert set(EXPANSIONS) == set(TRANSCENDENTAL)
