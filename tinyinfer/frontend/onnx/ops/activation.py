"""Activation functions of neural networks, composed of elementwise nodes."""

from __future__ import annotations

import math

from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import EXACT, ROUNDED, TRANSCENDENTAL, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import is_float, like, log_one_plus
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.node import Node


def relu(x: Node) -> Node:
    """max(x, 0)."""
    return elementwise("MAX", x, like(0, x))


@onnx_op("Relu", tolerance=EXACT)
def _relu(ctx: NodeContext, x: Node) -> Node:
    """max(x, 0)."""
    return relu(x)


def leaky_relu(x: Node, alpha: float) -> Node:
    """x where positive, alpha x elsewhere; one MAX where 0 <= alpha <= 1."""
    if alpha == 0:
        return relu(x)
    scaled = elementwise("MUL", x, like(alpha, x))
    if 0 < alpha <= 1:
        return elementwise("MAX", x, scaled)
    return elementwise("WHERE", elementwise("CMPLT", x, like(0, x)), scaled, x)


@onnx_op("LeakyRelu")
def _leaky_relu(ctx: NodeContext, x: Node) -> Node:
    """x where positive, alpha x elsewhere."""
    ctx.floating(x)
    return leaky_relu(x, ctx.number("alpha", 0.01))


@onnx_op("PRelu")
def parametric_relu(ctx: NodeContext, x: Node, slope: Node) -> Node:
    """x where positive, slope x elsewhere; slope is broadcast to x."""
    ctx.same_dtype(x, slope)
    if ctx.opset < 7 and len(slope.shape) == 1 and slope.size > 1:
        # opset 1 to 6: one slope per channel
        ctx.require(
            len(x.shape) >= 2 and slope.shape[0] == x.shape[1],
            f"a slope for each of the channels of {list(x.shape)} is expected, not {list(slope.shape)}",
        )
        slope = build.reshape(slope, [slope.shape[0], *[1] * (len(x.shape) - 2)])
    ctx.require(
        build.broadcast_shape(x.shape, slope.shape) == x.shape,
        f"the slope of shape {list(slope.shape)} does not broadcast to {list(x.shape)}",
    )
    scaled = build.apply("MUL", x, slope)
    value = ctx.known(slope)
    if value is not None and is_float(slope) and bool(((value >= 0) & (value <= 1)).all()):
        return elementwise("MAX", x, scaled)
    return elementwise("WHERE", elementwise("CMPLT", x, like(0, x)), scaled, x)


def _exp_minus_one(x: Node) -> Node:
    """e^x - 1 for x <= 0, without cancellation near zero: tanh(x/2) (e^x + 1)."""
    one = like(1, x)
    return elementwise(
        "MUL",
        elementwise("TANH", elementwise("MUL", x, like(0.5, x))),
        elementwise("ADD", elementwise("EXP", x), one),
    )


def elu(x: Node, alpha: float) -> Node:
    """x where positive, alpha (e^x - 1) elsewhere."""
    # the exponent is clipped at 0, so that the branch that is not taken cannot overflow
    negative = elementwise("MUL", _exp_minus_one(elementwise("MIN", x, like(0, x))), like(alpha, x))
    return elementwise("WHERE", elementwise("CMPLT", x, like(0, x)), negative, x)


@onnx_op("Elu", tolerance=TRANSCENDENTAL)
def _elu(ctx: NodeContext, x: Node) -> Node:
    """x where positive, alpha (e^x - 1) elsewhere."""
    ctx.floating(x)
    return elu(x, ctx.number("alpha", 1.0))


@onnx_op("Selu", tolerance=TRANSCENDENTAL)
def selu(ctx: NodeContext, x: Node) -> Node:
    """gamma times elu with alpha."""
    ctx.floating(x)
    legacy = ctx.opset < 6
    alpha = ctx.number("alpha", 1.6732 if legacy else 1.67326319217681884765625)
    gamma = ctx.number("gamma", 1.0507 if legacy else 1.05070102214813232421875)
    return elementwise("MUL", elu(x, alpha), like(gamma, x))


@onnx_op("Celu", since=12, tolerance=TRANSCENDENTAL)
def celu(ctx: NodeContext, x: Node) -> Node:
    """max(x, 0) + min(0, alpha (e^(x / alpha) - 1))."""
    ctx.floating(x)
    alpha = ctx.number("alpha", 1.0)
    ctx.require(alpha != 0, "the attribute 'alpha' must not be 0")
    scaled = elementwise("MUL", x, like(1 / alpha, x))
    below = elementwise("MUL", _exp_minus_one(elementwise("MIN", scaled, like(0, x))), like(alpha, x))
    return elementwise("ADD", relu(x), elementwise("MIN", below, like(0, x)))


@onnx_op("ThresholdedRelu", tolerance=EXACT)
def thresholded_relu(ctx: NodeContext, x: Node) -> Node:
    """x where it is above alpha, else 0."""
    ctx.floating(x)
    above = elementwise("CMPLT", like(ctx.number("alpha", 1.0), x), x)
    return elementwise("WHERE", above, x, like(0, x))


def hard_sigmoid(x: Node, alpha: float, beta: float) -> Node:
    """max(0, min(1, alpha x + beta))."""
    line = elementwise("ADD", elementwise("MUL", x, like(alpha, x)), like(beta, x))
    return elementwise("MAX", elementwise("MIN", line, like(1, x)), like(0, x))


@onnx_op("HardSigmoid")
def _hard_sigmoid(ctx: NodeContext, x: Node) -> Node:
    """max(0, min(1, alpha x + beta))."""
    ctx.floating(x)
    return hard_sigmoid(x, ctx.number("alpha", 0.2), ctx.number("beta", 0.5))


@onnx_op("HardSwish", since=14)
def hard_swish(ctx: NodeContext, x: Node) -> Node:
    """x max(0, min(1, x / 6 + 1/2))."""
    ctx.floating(x)
    return elementwise("MUL", x, hard_sigmoid(x, 1 / 6, 0.5))


def softplus(x: Node) -> Node:
    """log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), which cannot overflow."""
    small = elementwise("EXP", elementwise("NEG", elementwise("ABS", x)))
    return elementwise("ADD", relu(x), log_one_plus(small))


@onnx_op("Softplus", tolerance=TRANSCENDENTAL)
def _softplus(ctx: NodeContext, x: Node) -> Node:
    """log(1 + e^x)."""
    ctx.floating(x)
    return softplus(x)


@onnx_op("Softsign", tolerance=ROUNDED)
def softsign(ctx: NodeContext, x: Node) -> Node:
    """x / (1 + |x|)."""
    ctx.floating(x)
    return elementwise("DIV", x, elementwise("ADD", like(1, x), elementwise("ABS", x)))


def gelu(x: Node, tanh: bool) -> Node:
    """x Φ(x), by the error function or by its tanh approximation."""
    half = elementwise("MUL", x, like(0.5, x))
    if tanh:
        cube = elementwise("MUL", elementwise("MUL", x, x), x)
        inner = elementwise("ADD", x, elementwise("MUL", cube, like(0.044715, x)))
        curve = elementwise("TANH", elementwise("MUL", inner, like(math.sqrt(2 / math.pi), x)))
    else:
        curve = elementwise("ERF", elementwise("MUL", x, like(math.sqrt(0.5), x)))
    return elementwise("MUL", half, elementwise("ADD", curve, like(1, x)))


@onnx_op("Gelu", since=20, tolerance=TRANSCENDENTAL)
def _gelu(ctx: NodeContext, x: Node) -> Node:
    """x times the normal distribution function of x."""
    ctx.floating(x)
    return gelu(x, ctx.string("approximate", "none", ("none", "tanh")) == "tanh")


@onnx_op("Mish", since=18, tolerance=TRANSCENDENTAL)
def mish(ctx: NodeContext, x: Node) -> Node:
    """x tanh(softplus(x))."""
    ctx.floating(x)
    return elementwise("MUL", x, elementwise("TANH", softplus(x)))


@onnx_op("Swish", since=24, tolerance=TRANSCENDENTAL)
def swish(ctx: NodeContext, x: Node) -> Node:
    """x sigmoid(alpha x)."""
    ctx.floating(x)
    alpha = ctx.number("alpha", 1.0)
    inner = x if alpha == 1 else elementwise("MUL", x, like(alpha, x))
    return elementwise("MUL", x, elementwise("SIGMOID", inner))


@onnx_op("SwiGLU", since=28, tolerance=TRANSCENDENTAL)
def swish_gated_linear_unit(ctx: NodeContext, gate: Node, x: Node) -> Node:
    """gate sigmoid(alpha gate) x."""
    ctx.floating(gate, x)
    ctx.same_dtype(gate, x)
    ctx.require(gate.shape == x.shape, f"shapes {list(gate.shape)} and {list(x.shape)} differ")
    return elementwise("MUL", swish(ctx, gate), x)


@onnx_op("Shrink", since=9)
def shrink(ctx: NodeContext, x: Node) -> Node:
    """x + bias below -lambd, x - bias above lambd, 0 between."""
    if not is_float(x):  # the attributes are floats, and the result is truncated
        return build.cast(shrink(ctx, build.cast(x, "float64")), x.dtype)
    bias, bound = ctx.number("bias", 0.0), ctx.number("lambd", 0.5)
    zero = like(0, x)
    above = elementwise(
        "WHERE", elementwise("CMPLT", like(bound, x), x), elementwise("SUB", x, like(bias, x)), zero
    )
    return elementwise(
        "WHERE", elementwise("CMPLT", x, like(-bound, x)), elementwise("ADD", x, like(bias, x)), above
    )
