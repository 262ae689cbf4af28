"""Arithmetic, one element at a time: ONNX operators as elementwise nodes with numpy broadcasting."""

from __future__ import annotations

import math
from collections.abc import Callable

from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import EXACT, ROUNDED, TRANSCENDENTAL, Tolerance, onnx_op
from tinyinfer.ir import build
from tinyinfer.ir.node import Node


def is_float(x: Node) -> bool:
    """Whether a node holds floats."""
    return x.dtype.startswith(("float", "bfloat"))


def is_signed(x: Node) -> bool:
    """Whether a node holds signed integers."""
    return x.dtype.startswith("int")


def like(value: float | int | bool, x: Node) -> Node:
    """A constant of the shape and dtype of `x`."""
    return build.full(value, x.shape, x.dtype)


# ---- unary

# ONNX op, IR op, tolerance
_UNARY: tuple[tuple[str, str, Tolerance], ...] = (
    ("Exp", "EXP", TRANSCENDENTAL),
    ("Log", "LOG", TRANSCENDENTAL),
    ("Sqrt", "SQRT", ROUNDED),
    ("Reciprocal", "RECIP", ROUNDED),
    ("Sin", "SIN", TRANSCENDENTAL),
    ("Cos", "COS", TRANSCENDENTAL),
    ("Tanh", "TANH", TRANSCENDENTAL),
    ("Erf", "ERF", TRANSCENDENTAL),
    ("Floor", "FLOOR", EXACT),
    ("Ceil", "CEIL", EXACT),
    ("Round", "ROUND", EXACT),
    ("Sigmoid", "SIGMOID", TRANSCENDENTAL),
)


def _register_unary(name: str, op: str, tolerance: Tolerance) -> None:
    def function(ctx: NodeContext, x: Node) -> Node:
        ctx.floating(x)
        return build.elementwise(op, x)

    function.__doc__ = f"{name} of floats: {op} of each element."
    onnx_op(name, tolerance=tolerance)(function)


for _name, _op, _tolerance in _UNARY:
    _register_unary(_name, _op, _tolerance)


@onnx_op("Abs", tolerance=EXACT)
def absolute(ctx: NodeContext, x: Node) -> Node:
    """Magnitude of numbers; unsigned ones as they are."""
    return build.elementwise("ABS", x) if is_float(x) or is_signed(x) else x


@onnx_op("Neg", tolerance=EXACT)
def negative(ctx: NodeContext, x: Node) -> Node:
    """The number with the other sign."""
    return build.elementwise("NEG", x)


@onnx_op("Sign", tolerance=EXACT)
def sign(ctx: NodeContext, x: Node) -> Node:
    """-1, 0 or 1; NaN stays NaN."""
    zero = like(0, x)
    positive = build.cast(build.elementwise("CMPLT", zero, x), x.dtype)
    if not is_float(x) and not is_signed(x):
        return positive
    result = build.elementwise("SUB", positive, build.cast(build.elementwise("CMPLT", x, zero), x.dtype))
    return build.elementwise("WHERE", build.elementwise("CMPNE", x, x), x, result) if is_float(x) else result


@onnx_op("Tan", tolerance=TRANSCENDENTAL)
def tangent(ctx: NodeContext, x: Node) -> Node:
    """sin / cos."""
    ctx.floating(x)
    return build.elementwise("DIV", build.elementwise("SIN", x), build.elementwise("COS", x))


def _half(x: Node) -> Node:
    return build.elementwise("MUL", x, like(0.5, x))


@onnx_op("Sinh", tolerance=TRANSCENDENTAL)
def hyperbolic_sine(ctx: NodeContext, x: Node) -> Node:
    """(e^x - e^-x) / 2; near zero by tanh, which does not cancel: tanh(x) * cosh(x)."""
    ctx.floating(x)
    return build.elementwise("MUL", build.elementwise("TANH", x), hyperbolic_cosine(ctx, x))


@onnx_op("Cosh", tolerance=TRANSCENDENTAL)
def hyperbolic_cosine(ctx: NodeContext, x: Node) -> Node:
    """(e^x + e^-x) / 2, each power as a square: e^x overflows before half of it does."""
    ctx.floating(x)
    root = build.elementwise("EXP", _half(build.elementwise("ABS", x)))
    inverse = build.elementwise("RECIP", root)
    return build.elementwise(
        "ADD",
        build.elementwise("MUL", _half(root), root),
        build.elementwise("MUL", _half(inverse), inverse),
    )


def log_one_plus(x: Node) -> Node:
    """log(1 + x) without losing small x: log(u) * x / (u - 1) with u = 1 + x rounded (Kahan)."""
    one = like(1, x)
    u = build.elementwise("ADD", one, x)
    rest = build.elementwise("SUB", u, one)
    exact = build.elementwise("CMPEQ", rest, like(0, x))
    safe = build.elementwise("WHERE", exact, one, rest)
    infinite = build.elementwise("CMPEQ", x, like(math.inf, x))
    scaled = build.elementwise("MUL", build.elementwise("LOG", u), build.elementwise("DIV", x, safe))
    return build.elementwise("WHERE", infinite, x, build.elementwise("WHERE", exact, x, scaled))


@onnx_op("Asinh", tolerance=TRANSCENDENTAL)
def inverse_hyperbolic_sine(ctx: NodeContext, x: Node) -> Node:
    """sign(x) log(1 + |x| + x² / (1 + sqrt(x² + 1))); log(2 |x|) where x² would overflow."""
    ctx.floating(x)
    a, one = build.elementwise("ABS", x), like(1, x)
    square = build.elementwise("MUL", a, a)
    root = build.elementwise("SQRT", build.elementwise("ADD", square, one))
    inner = build.elementwise("ADD", a, build.elementwise("DIV", square, build.elementwise("ADD", one, root)))
    result = _log_of_twice_if_large(a, log_one_plus(inner))
    return build.elementwise(
        "WHERE", build.elementwise("CMPLT", x, like(0, x)), build.elementwise("NEG", result), result
    )


@onnx_op("Acosh", tolerance=TRANSCENDENTAL)
def inverse_hyperbolic_cosine(ctx: NodeContext, x: Node) -> Node:
    """log(1 + t + sqrt(t) sqrt(t + 2)) with t = x - 1, NaN below 1; log(2 x) for large x, as asinh."""
    ctx.floating(x)
    t = build.elementwise("SUB", x, like(1, x))
    roots = [build.elementwise("SQRT", y) for y in (t, build.elementwise("ADD", t, like(2, t)))]
    result = log_one_plus(build.elementwise("ADD", t, build.elementwise("MUL", *roots)))
    return _log_of_twice_if_large(x, result)


def _log_of_twice_if_large(x: Node, otherwise: Node) -> Node:
    """log(2 x) where x is so large that asinh and acosh differ from it by less than their rounding."""
    large = build.elementwise("CMPLT", like({"float16": 1e2, "float32": 1e5}.get(x.dtype, 1e9), x), x)
    logarithm = build.elementwise("ADD", build.elementwise("LOG", x), like(math.log(2), x))
    return build.elementwise("WHERE", large, logarithm, otherwise)


@onnx_op("Atanh", tolerance=TRANSCENDENTAL)
def inverse_hyperbolic_tangent(ctx: NodeContext, x: Node) -> Node:
    """log(1 + 2 x / (1 - x)) / 2."""
    ctx.floating(x)
    ratio = build.elementwise("DIV", build.elementwise("ADD", x, x), build.elementwise("SUB", like(1, x), x))
    return _half(log_one_plus(ratio))


# Chebyshev-like fit of atan(z) / z in z² on |z| <= tan(pi/8) (Cephes atan, double precision P/Q)
_ATAN_P = (
    -8.750608600031904122785e-1,
    -1.615753718733365076637e1,
    -7.500855792314704667340e1,
    -1.228866684490136173410e2,
    -6.485021904942025371773e1,
)
_ATAN_Q = (
    1.0,
    2.485846490142306297962e1,
    1.650270098316988542046e2,
    4.328810604912902668951e2,
    4.853903996359136964868e2,
    1.945506571482613964425e2,
)


def _polynomial(x: Node, coefficients: tuple[float, ...]) -> Node:
    result = like(coefficients[0], x)
    for c in coefficients[1:]:
        result = build.elementwise("MULACC", result, x, like(c, x))
    return result


def arc_tangent(x: Node) -> Node:
    """atan by range reduction to |z| <= tan(pi/8) and a rational function (Cephes)."""
    a, one = build.elementwise("ABS", x), like(1, x)
    large = build.elementwise("CMPLT", like(2.41421356237309504880, x), a)
    medium = build.elementwise("CMPLT", like(0.66, x), a)
    inverse = build.elementwise("NEG", build.elementwise("RECIP", build.elementwise("MAX", a, one)))
    middle = build.elementwise("DIV", build.elementwise("SUB", a, one), build.elementwise("ADD", a, one))
    z = build.elementwise("WHERE", large, inverse, build.elementwise("WHERE", medium, middle, a))
    offset = build.elementwise(
        "WHERE",
        large,
        like(math.pi / 2, x),
        build.elementwise("WHERE", medium, like(math.pi / 4, x), like(0, x)),
    )
    square = build.elementwise("MUL", z, z)
    ratio = build.elementwise("DIV", _polynomial(square, _ATAN_P), _polynomial(square, _ATAN_Q))
    fit = build.elementwise("MULACC", build.elementwise("MUL", z, square), ratio, z)
    result = build.elementwise("ADD", offset, fit)
    return build.elementwise(
        "WHERE", build.elementwise("CMPLT", x, like(0, x)), build.elementwise("NEG", result), result
    )


@onnx_op("Atan", tolerance=TRANSCENDENTAL)
def inverse_tangent(ctx: NodeContext, x: Node) -> Node:
    """Angle whose tangent is x."""
    ctx.floating(x)
    return arc_tangent(x)


@onnx_op("Asin", tolerance=TRANSCENDENTAL)
def inverse_sine(ctx: NodeContext, x: Node) -> Node:
    """2 atan(x / (1 + sqrt(1 - x²)))."""
    ctx.floating(x)
    one = like(1, x)
    # (1 - x)(1 + x) keeps the digits that 1 - x² loses near 1
    inside = build.elementwise("MUL", build.elementwise("SUB", one, x), build.elementwise("ADD", one, x))
    half = arc_tangent(
        build.elementwise("DIV", x, build.elementwise("ADD", one, build.elementwise("SQRT", inside)))
    )
    return build.elementwise("ADD", half, half)


@onnx_op("Acos", tolerance=TRANSCENDENTAL)
def inverse_cosine(ctx: NodeContext, x: Node) -> Node:
    """2 atan(sqrt((1 - x) / (1 + x))), written so that x = -1 gives pi."""
    ctx.floating(x)
    one = like(1, x)
    low = build.elementwise("SQRT", build.elementwise("SUB", one, x))
    high = build.elementwise("SQRT", build.elementwise("ADD", one, x))
    half = arc_tangent(build.elementwise("DIV", low, high))
    return build.elementwise("ADD", half, half)


# ---- binary and variadic


def legacy_broadcast(ctx: NodeContext, a: Node, b: Node) -> Node:
    """`b` as opsets 1 to 6 broadcast it: equal shapes, or aligned with `a` from the attribute `axis` on."""
    if not ctx.flag("broadcast"):
        # some converters left the flag out and relied on a scalar or an equal shape
        ctx.require(
            a.shape == b.shape or b.size == 1,
            f"shapes {list(a.shape)} and {list(b.shape)} differ, and the attribute 'broadcast' is not set",
        )
    axis = ctx.integer("axis")
    if axis is None or not b.shape:
        return b
    axis = ctx.axis(axis, len(a.shape))
    ctx.require(
        axis + len(b.shape) <= len(a.shape),
        f"the second input of rank {len(b.shape)} does not fit at axis {axis} of {list(a.shape)}",
    )
    return build.reshape(b, [*b.shape, *[1] * (len(a.shape) - axis - len(b.shape))])


def binary(op: str, ctx: NodeContext, a: Node, b: Node) -> Node:
    """A binary node of one dtype, with the broadcasting of the node's opset."""
    ctx.same_dtype(a, b)
    return build.apply(op, a, legacy_broadcast(ctx, a, b) if ctx.opset < 7 else b)


def _register_binary(name: str, op: str, integer_op: str | None, tolerance: Tolerance) -> None:
    def function(ctx: NodeContext, a: Node, b: Node) -> Node:
        return binary(op if is_float(a) or integer_op is None else integer_op, ctx, a, b)

    function.__doc__ = f"{op} of two tensors, broadcast."
    onnx_op(name, tolerance=tolerance)(function)


for _name, _op, _integer in (
    ("Add", "ADD", None),
    ("Sub", "SUB", None),
    ("Mul", "MUL", None),
    ("Div", "DIV", "IDIV"),
):
    _register_binary(_name, _op, _integer, ROUNDED)


@onnx_op("Mod", since=10, tolerance=ROUNDED)
def modulo(ctx: NodeContext, a: Node, b: Node) -> Node:
    """Remainder with the sign of the divisor, or with `fmod` = 1 of the dividend."""
    ctx.same_dtype(a, b)
    truncating = ctx.flag("fmod")
    return build.apply("FMOD" if truncating else "MOD", a, b)


@onnx_op("Pow", tolerance=TRANSCENDENTAL)
def power(ctx: NodeContext, a: Node, b: Node) -> Node:
    """a to the b, in the type of a; constant small exponents become products and roots."""
    if ctx.opset < 7:
        b = legacy_broadcast(ctx, a, b)
    exponent = ctx.known(b)
    if exponent is not None and exponent.size and (is_float(a) or exponent.min() >= 0):
        first = exponent.reshape(-1)[0]
        if bool((exponent == first).all()):
            special = _constant_power(a, float(first))
            if special is not None:
                return build.expand(special, build.broadcast_shape(a.shape, b.shape))
    if is_float(a):
        return build.apply("POW", a, build.cast(b, a.dtype))
    wide = "float64"
    return build.cast(build.apply("POW", build.cast(a, wide), build.cast(b, wide)), a.dtype)


def _constant_power(a: Node, exponent: float) -> Node | None:
    square = build.elementwise("MUL", a, a)
    table: dict[float, Callable[[], Node]] = {
        0.0: lambda: like(1, a),
        1.0: lambda: a,
        2.0: lambda: square,
        3.0: lambda: build.elementwise("MUL", square, a),
        4.0: lambda: build.elementwise("MUL", square, square),
        -1.0: lambda: build.elementwise("RECIP", a),
    }
    make = table.get(exponent)
    return make() if make is not None else None


def variadic(op: str, ctx: NodeContext, inputs: tuple[Node, ...]) -> Node:
    """The inputs joined by a binary op, broadcast to their common shape."""
    ctx.all_given(inputs)
    ctx.same_dtype(*inputs)
    if ctx.opset < 8:
        ctx.require(len({x.shape for x in inputs}) == 1, "its inputs must be of one shape before opset 8")
    result = inputs[0]
    for x in inputs[1:]:
        result = build.apply(op, result, x)
    return result


@onnx_op("Max", tolerance=EXACT)
def maximum(ctx: NodeContext, *inputs: Node) -> Node:
    """Largest of the inputs, element by element; NaN if one is."""
    return variadic("MAX", ctx, inputs)


@onnx_op("Min", tolerance=EXACT)
def minimum(ctx: NodeContext, *inputs: Node) -> Node:
    """Smallest of the inputs, element by element; NaN if one is."""
    return variadic("MIN", ctx, inputs)


@onnx_op("Sum")
def total(ctx: NodeContext, *inputs: Node) -> Node:
    """Sum of the inputs, element by element."""
    return variadic("ADD", ctx, inputs)


@onnx_op("Mean")
def mean(ctx: NodeContext, *inputs: Node) -> Node:
    """Sum of the inputs over their number."""
    result = variadic("ADD", ctx, inputs)
    ctx.floating(result)
    return build.elementwise("DIV", result, like(len(inputs), result))


# ---- clipping


@onnx_op("Clip", since=1, until=10, tolerance=EXACT)
def clip_by_attributes(ctx: NodeContext, x: Node) -> Node:
    """MIN(MAX(x, min), max) with bounds from attributes."""
    low, high = ctx.number("min"), ctx.number("max")
    if low is not None:
        x = build.elementwise("MAX", x, like(low, x))
    return build.elementwise("MIN", x, like(high, x)) if high is not None else x


@onnx_op("Clip", since=11, tolerance=EXACT)
def clip(ctx: NodeContext, x: Node, low: Node | None = None, high: Node | None = None) -> Node:
    """MIN(MAX(x, min), max); a bound may be left out."""
    ctx.same_dtype(x, low, high)
    for op, bound, what in (("MAX", low, "min"), ("MIN", high, "max")):
        if bound is not None:
            ctx.require(bound.size == 1, f"'{what}' must be one number, not of shape {list(bound.shape)}")
            x = build.apply(op, x, build.reshape(bound, ()))
    return x
