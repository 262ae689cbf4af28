"""Quantised counterparts of float operators (com.microsoft): what the float operator gives, quantised anew.

Each follows the order in which onnxruntime rounds, so that results agree but for values that its own fast
exponentials put on the other side of a tie.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from tinyinfer.frontend.onnx.blocks.quantised import (
    centred,
    check_bytes,
    check_scale,
    dequantised,
    quantised,
    required,
    rounded,
    scalar_parameter,
)
from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import EXACT, Tolerance, onnx_op
from tinyinfer.frontend.onnx.ops.integer import channels_first, channels_last
from tinyinfer.frontend.onnx.ops.pool import average
from tinyinfer.frontend.onnx.ops.quantise import MICROSOFT
from tinyinfer.ir import build
from tinyinfer.ir.node import Node

ONE_STEP = Tolerance({"int8": 1, "uint8": 1}, "a step where a float function lies within its error of a tie")


class _Quantised:
    """One 8-bit operand with its scale and zero point, checked, each a scalar."""

    def __init__(self, ctx: NodeContext, x: Node, scale: Node, zero: Node | None, what: str):
        check_bytes(ctx, x, zero, what)
        check_scale(ctx, scale)
        self.x = x
        self.scale = scalar_parameter(ctx, scale, f"the scale of {what}")
        self.zero = None if zero is None else scalar_parameter(ctx, zero, f"the zero point of {what}")

    @property
    def value(self) -> Node:
        """The floats that the operand stands for."""
        return dequantised(self.x, self.scale, self.zero)

    @property
    def float_zero(self) -> Node:
        """The zero point as float32, a scalar."""
        return build.scalar(0, "float32") if self.zero is None else build.cast(self.zero, "float32")


class _Target:
    """Scale and zero point of a result of type `dtype`."""

    def __init__(self, ctx: NodeContext, scale: Node, zero: Node | None, dtype: str):
        check_scale(ctx, scale)
        ctx.require(
            zero is None or zero.dtype == dtype,
            f"the zero point of the output must be {dtype}, not {zero.dtype if zero is not None else ''}",
        )
        self.dtype = dtype
        self.scale = scalar_parameter(ctx, scale, "the scale of the output")
        self.zero = None if zero is None else scalar_parameter(ctx, zero, "the zero point of the output")

    def of(self, x: Node) -> Node:
        """`x` quantised."""
        return quantised(x, self.scale, self.zero, self.dtype)

    def of_ratio(self, ratio: Node) -> Node:
        """What has been divided by the scale already, rounded and shifted."""
        return rounded(ratio, self.zero, self.dtype)

    def of_shifted(self, value: Node) -> Node:
        """What has been divided by the scale and shifted already, rounded: ties go to even results."""
        return rounded(value, None, self.dtype)

    @property
    def float_zero(self) -> Node:
        """The zero point as float32, a scalar."""
        return build.scalar(0, "float32") if self.zero is None else build.cast(self.zero, "float32")


# ---- two operands


@onnx_op("QLinearAdd", domain=MICROSOFT, tolerance=EXACT)
def add(
    ctx: NodeContext,
    a: Node,
    a_scale: Node,
    a_zero: Node | None = None,
    b: Node | None = None,
    b_scale: Node | None = None,
    b_zero: Node | None = None,
    c_scale: Node | None = None,
    c_zero: Node | None = None,
) -> Node:
    """Sum of quantised values with broadcasting, quantised.

    Ratios of scales first, then A · ratio + (B · ratio + what the zero points come to), each rounded once.
    """
    b, b_scale, c_scale = required(ctx, B=b, B_scale=b_scale, C_scale=c_scale)
    left, right = _Quantised(ctx, a, a_scale, a_zero, "A"), _Quantised(ctx, b, b_scale, b_zero, "B")
    ctx.same_dtype(a, b)
    target = _Target(ctx, c_scale, c_zero, a.dtype)
    to_a = build.elementwise("DIV", left.scale, target.scale)
    to_b = build.elementwise("DIV", right.scale, target.scale)
    zeros = build.elementwise("MUL", to_b, right.float_zero)
    zeros = build.elementwise("MULACC", to_a, left.float_zero, zeros)
    shift = build.elementwise("SUB", target.float_zero, zeros)
    total = build.apply("MULACC", build.cast(b, "float32"), to_b, shift)
    return target.of_shifted(build.apply("MULACC", build.cast(a, "float32"), to_a, total))


@onnx_op("QLinearMul", domain=MICROSOFT, tolerance=EXACT)
def multiply(
    ctx: NodeContext,
    a: Node,
    a_scale: Node,
    a_zero: Node | None = None,
    b: Node | None = None,
    b_scale: Node | None = None,
    b_zero: Node | None = None,
    c_scale: Node | None = None,
    c_zero: Node | None = None,
) -> Node:
    """Product of quantised values with broadcasting, quantised; rounded after the zero point is added."""
    b, b_scale, c_scale = required(ctx, B=b, B_scale=b_scale, C_scale=c_scale)
    left, right = _Quantised(ctx, a, a_scale, a_zero, "A"), _Quantised(ctx, b, b_scale, b_zero, "B")
    ctx.same_dtype(a, b)
    target = _Target(ctx, c_scale, c_zero, a.dtype)
    product = build.apply("MUL", centred(a, left.zero), centred(b, right.zero))
    scale = build.elementwise("DIV", build.elementwise("MUL", left.scale, right.scale), target.scale)
    ratio = build.apply("MUL", build.cast(product, "float32"), scale)
    return target.of_shifted(build.apply("ADD", ratio, target.float_zero))


@onnx_op("QLinearWhere", domain=MICROSOFT, tolerance=EXACT)
def where(
    ctx: NodeContext,
    condition: Node,
    x: Node,
    x_scale: Node,
    x_zero: Node | None = None,
    y: Node | None = None,
    y_scale: Node | None = None,
    y_zero: Node | None = None,
    z_scale: Node | None = None,
    z_zero: Node | None = None,
) -> Node:
    """One of two quantised values by a condition, quantised."""
    y, y_scale, z_scale = required(ctx, Y=y, y_scale=y_scale, z_scale=z_scale)
    ctx.require(condition.dtype == "bool", f"the condition must be bool, not {condition.dtype}")
    ctx.same_dtype(x, y)
    yes, no = _Quantised(ctx, x, x_scale, x_zero, "X"), _Quantised(ctx, y, y_scale, y_zero, "Y")
    target = _Target(ctx, z_scale, z_zero, x.dtype)
    return build.apply("WHERE", condition, target.of(yes.value), target.of(no.value))


@onnx_op("QLinearConcat", domain=MICROSOFT, tolerance=EXACT)
def concat(ctx: NodeContext, y_scale: Node, y_zero: Node | None, *inputs: Node | None) -> Node:
    """Quantised values side by side, each quantised anew; inputs are triples of value, scale, zero point."""
    ctx.require(len(inputs) >= 2, "takes a value and its scale at least")
    triples = [(*inputs[i : i + 3], None)[:3] for i in range(0, len(inputs), 3)]
    first = triples[0][0]
    if first is None:
        ctx.fail("the first value is missing")
    target = _Target(ctx, y_scale, y_zero, first.dtype)
    axis = ctx.axis(ctx.integer("axis", REQUIRED), len(first.shape))
    parts = []
    for number, (x, scale, zero) in enumerate(triples):
        if x is None or scale is None:
            ctx.fail(f"value {number} or its scale is missing")
        ctx.same_dtype(first, x)
        parts.append(target.of(_Quantised(ctx, x, scale, zero, f"value {number}").value))
    return build.concat(parts, axis)


# ---- functions of one operand


def _register_function(
    name: str, function: Callable[[NodeContext, Node], Node], doc: str, tolerance: Tolerance
) -> None:
    def imported(
        ctx: NodeContext,
        x: Node,
        x_scale: Node,
        x_zero: Node | None = None,
        y_scale: Node | None = None,
        y_zero: Node | None = None,
    ) -> Node:
        (y_scale,) = required(ctx, Y_scale=y_scale)
        source = _Quantised(ctx, x, x_scale, x_zero, "X")
        return _Target(ctx, y_scale, y_zero, x.dtype).of(function(ctx, source.value))

    imported.__doc__ = doc
    onnx_op(name, domain=MICROSOFT, tolerance=tolerance)(imported)


def _leaky(ctx: NodeContext, x: Node) -> Node:
    scaled = build.apply("MUL", x, build.scalar(ctx.number("alpha", 0.01), "float32"))
    negative = build.apply("CMPLT", x, build.scalar(0, "float32"))
    return build.elementwise("WHERE", negative, scaled, x)


def _mean(ctx: NodeContext, x: Node) -> Node:
    given = ctx.integers("axes", None)
    axes = list(range(len(x.shape))) if not given else ctx.axes(given, len(x.shape))
    total = build.reduce("SUM", x, axes, keepdims=ctx.flag("keepdims", True))
    count = prod(x.shape[a] for a in axes)
    return build.apply("DIV", total, build.scalar(max(count, 1), "float32"))


_register_function(
    "QLinearSigmoid",
    lambda ctx, x: build.elementwise("SIGMOID", x),
    "Logistic function of quantised values, quantised.",
    ONE_STEP,
)
_register_function(
    "QLinearLeakyRelu", _leaky, "Quantised values, those below 0 times alpha, quantised.", EXACT
)
_register_function("QLinearReduceMean", _mean, "Mean of quantised values over axes, quantised.", ONE_STEP)


@onnx_op("QLinearAveragePool", domain=MICROSOFT, tolerance=ONE_STEP)
def average_pool(
    ctx: NodeContext,
    x: Node,
    x_scale: Node,
    x_zero: Node | None = None,
    y_scale: Node | None = None,
    y_zero: Node | None = None,
) -> Node:
    """Mean of quantised values over windows, quantised; rounded after the zero point is added."""
    (y_scale,) = required(ctx, y_scale=y_scale)
    value = _Quantised(ctx, x, x_scale, x_zero, "X").value
    target = _Target(ctx, y_scale, y_zero, x.dtype)
    if ctx.flag("channels_last"):
        mean = channels_last(average(ctx, channels_first(ctx, value), divide=True))
    else:
        mean = average(ctx, value, divide=True)
    ratio = build.apply("DIV", mean, target.scale)
    return target.of_shifted(build.apply("ADD", ratio, target.float_zero))


@onnx_op("QLinearGlobalAveragePool", domain=MICROSOFT, tolerance=EXACT)
def global_average_pool(
    ctx: NodeContext,
    x: Node,
    x_scale: Node,
    x_zero: Node | None = None,
    y_scale: Node | None = None,
    y_zero: Node | None = None,
) -> Node:
    """Mean of quantised values over all spatial positions, quantised: an exact int32 sum, scaled once."""
    (y_scale,) = required(ctx, y_scale=y_scale)
    source = _Quantised(ctx, x, x_scale, x_zero, "X")
    target = _Target(ctx, y_scale, y_zero, x.dtype)
    last = ctx.flag("channels_last")
    rank = len(x.shape)
    ctx.require(rank >= 3, f"the input must be [N, C, spatial …], not of rank {rank}")
    axes = range(1, rank - 1) if last else range(2, rank)
    total = build.reduce("SUM", centred(x, source.zero), axes, keepdims=True)
    count = build.scalar(max(prod(x.shape[a] for a in axes), 1), "float32")
    scale = build.elementwise("DIV", source.scale, build.elementwise("MUL", target.scale, count))
    return target.of_ratio(build.apply("MUL", build.cast(total, "float32"), scale))


@onnx_op("QLinearSoftmax", domain=MICROSOFT, tolerance=ONE_STEP)
def softmax(
    ctx: NodeContext,
    x: Node,
    x_scale: Node,
    x_zero: Node | None = None,
    y_scale: Node | None = None,
    y_zero: Node | None = None,
) -> Node:
    """Softmax of quantised values, quantised; over one axis from opset 13 on, over all from it before."""
    (y_scale,) = required(ctx, y_scale=y_scale)
    source = _Quantised(ctx, x, x_scale, x_zero, "X")
    target = _Target(ctx, y_scale, y_zero, x.dtype)
    axis = ctx.axis(ctx.integer("axis", -1), len(x.shape))
    axes = [axis] if ctx.integer("opset", REQUIRED) >= 13 else list(range(axis, len(x.shape)))
    value = source.value
    largest = build.reduce("MAX", value, axes, keepdims=True)
    powers = build.elementwise("EXP", build.apply("SUB", value, largest))
    total = build.reduce("SUM", powers, axes, keepdims=True)
    return target.of(build.apply("DIV", powers, total))
