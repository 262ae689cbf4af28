"""Comparisons, logic, bits and choice."""

from __future__ import annotations

import math

from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import EXACT, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import binary, is_float, legacy_broadcast, like
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.node import Node


def _register_comparison(name: str, op: str, swapped: bool, since: int) -> None:
    def function(ctx: NodeContext, a: Node, b: Node) -> Node:
        ctx.same_dtype(a, b)
        if ctx.opset < 7:
            b = legacy_broadcast(ctx, a, b)
        return build.apply(op, b, a) if swapped else build.apply(op, a, b)

    function.__doc__ = f"{name} of two tensors, broadcast, as bool."
    onnx_op(name, since=since, tolerance=EXACT)(function)


for _name, _op, _swapped, _since in (
    ("Equal", "CMPEQ", False, 1),
    ("Less", "CMPLT", False, 1),
    ("Greater", "CMPLT", True, 1),
    ("LessOrEqual", "CMPLE", False, 12),
    ("GreaterOrEqual", "CMPLE", True, 12),
):
    _register_comparison(_name, _op, _swapped, _since)


def _register_logic(name: str, op: str, bitwise: bool, since: int) -> None:
    def function(ctx: NodeContext, a: Node, b: Node) -> Node:
        ctx.require(not is_float(a) and (a.dtype == "bool") != bitwise, f"does not take {a.dtype}")
        return binary(op, ctx, a, b)

    function.__doc__ = f"{'Bitwise' if bitwise else 'Logical'} {op} of two tensors, broadcast."
    onnx_op(name, since=since, tolerance=EXACT)(function)


for _name, _op, _bitwise, _since in (
    ("And", "AND", False, 1),
    ("Or", "OR", False, 1),
    ("Xor", "XOR", False, 1),
    ("BitwiseAnd", "AND", True, 18),
    ("BitwiseOr", "OR", True, 18),
    ("BitwiseXor", "XOR", True, 18),
):
    _register_logic(_name, _op, _bitwise, _since)


@onnx_op("Not", tolerance=EXACT)
def logical_not(ctx: NodeContext, x: Node) -> Node:
    """The other truth value."""
    ctx.require(x.dtype == "bool", f"takes bool, not {x.dtype}")
    return elementwise("NOT", x)


@onnx_op("BitwiseNot", since=18, tolerance=EXACT)
def bitwise_not(ctx: NodeContext, x: Node) -> Node:
    """Every bit flipped."""
    ctx.require(not is_float(x) and x.dtype != "bool", f"takes integers, not {x.dtype}")
    return elementwise("NOT", x)


@onnx_op("BitShift", since=11, tolerance=EXACT)
def bit_shift(ctx: NodeContext, x: Node, count: Node) -> Node:
    """Integers (signed ones since 28) shifted left or right; counts outside of the width shift all out."""
    signed = x.dtype.startswith("int") and ctx.opset >= 28
    ctx.require(
        (signed or x.dtype.startswith("uint")) and count.dtype == x.dtype,
        f"takes two unsigned integers of one type, not {x.dtype} and {count.dtype}",
    )
    left = ctx.string("direction", REQUIRED, ("LEFT", "RIGHT")) == "LEFT"
    x, count = build.broadcast(x, count)
    bits = int(x.dtype.lstrip("uint"))
    # a count within the width; negative ones shift everything out like large ones
    inside = elementwise("CMPLT", count, like(bits, count))
    if signed:
        inside = elementwise("AND", inside, elementwise("CMPLE", like(0, count), count))
    last = like(bits - 1, count)
    shift = elementwise("WHERE", inside, count, last)
    if not left and signed:
        return elementwise("SHR", x, shift)
    return elementwise("WHERE", inside, elementwise("SHL" if left else "SHR", x, shift), like(0, x))


@onnx_op("Where", since=9, tolerance=EXACT)
def where(ctx: NodeContext, condition: Node, a: Node, b: Node) -> Node:
    """a where the condition holds, else b, all three broadcast."""
    ctx.require(condition.dtype == "bool", f"the condition must be bool, not {condition.dtype}")
    ctx.same_dtype(a, b)
    value = ctx.known(condition)
    if value is not None and value.size and bool((value == value.reshape(-1)[0]).all()):
        shape = build.broadcast_shape(condition.shape, a.shape, b.shape)
        return build.expand(a if bool(value.reshape(-1)[0]) else b, shape)
    return build.apply("WHERE", condition, a, b)


@onnx_op("IsNaN", since=9, tolerance=EXACT)
def is_nan(ctx: NodeContext, x: Node) -> Node:
    """True for NaN."""
    ctx.floating(x)
    return elementwise("CMPNE", x, x)


@onnx_op("IsInf", since=10, tolerance=EXACT)
def is_infinite(ctx: NodeContext, x: Node) -> Node:
    """True for the infinities that the attributes ask for."""
    ctx.floating(x)
    positive, negative = ctx.flag("detect_positive", True), ctx.flag("detect_negative", True)
    up = elementwise("CMPEQ", x, like(math.inf, x))
    down = elementwise("CMPEQ", x, like(-math.inf, x))
    if positive and negative:
        return elementwise("OR", up, down)
    return up if positive else down if negative else build.full(False, x.shape, "bool")
