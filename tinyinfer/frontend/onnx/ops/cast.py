"""Conversion between element types: by value (Cast, CastLike) and by bits (BitCast)."""

from __future__ import annotations

from typing import Any

from onnx import TensorProto

from tinyinfer.frontend.onnx.blocks.text_numbers import as_text, from_text
from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import EXACT, ROUNDED, onnx_op
from tinyinfer.frontend.onnx.tensors import element_bits
from tinyinfer.frontend.onnx.values import HostValue, Value, describe
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.dtypes import COMPLEX, NUMERIC, SCALE_FORMAT, numpy_dtype
from tinyinfer.ir.node import Node

SATURATING = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")


def convert(x: Node, dtype: str, saturate: bool = True, round_mode: str = "up") -> Node:
    """`x` as `dtype` by the rules of ONNX's Cast.

    `saturate` is for the float8 types: what is out of range becomes their largest number, else NaN or
    infinity. `round_mode` ("up", "down", "nearest") is for float8_e8m0fnu.
    """
    if dtype == x.dtype:
        return x
    if dtype == SCALE_FORMAT:
        return _as_scale(build.cast(x, "float32"), saturate, round_mode)
    if dtype in SATURATING and saturate:
        return build.cast(_clamped(build.cast(x, "float32"), largest(dtype)), dtype)
    return build.cast(x, dtype)


def largest(dtype: str) -> float:
    """The largest finite number of a float type."""
    import ml_dtypes

    return float(ml_dtypes.finfo(numpy_dtype(dtype)).max)


def _clamped(x: Node, bound: float) -> Node:
    low, high = (build.full(b, x.shape, x.dtype) for b in (-bound, bound))
    return elementwise("MIN", elementwise("MAX", x, low), high)


def _as_scale(x: Node, saturate: bool, round_mode: str) -> Node:
    """Float8 E8M0 of float32: the exponent's field, one more where the rest of the bits asks for it.

    The sign is ignored, as in the reference of ONNX, which leaves negative numbers open.
    """
    bits = elementwise("BITCAST", x, dtype="uint32")

    def number(value: int) -> Node:
        return build.full(value, bits.shape, "uint32")

    magnitude = elementwise("AND", bits, number(0x7FFFFFFF))
    exponent = elementwise("SHR", magnitude, number(23))
    rest = elementwise("AND", magnitude, number(0x7FFFFF))
    if round_mode == "up":
        upward = elementwise("CMPLT", number(0), rest)
    elif round_mode == "nearest":
        # ties go up; below the smallest power they go to it
        tie = elementwise("CMPEQ", exponent, number(0))
        half = elementwise("ADD", number(0x400000), build.cast(tie, "uint32"))
        upward = elementwise("CMPLE", half, rest)
    else:
        upward = build.full(False, bits.shape, "bool")
    if saturate:
        upward = elementwise("AND", upward, elementwise("CMPNE", exponent, number(0xFE)))
    rounded = elementwise("ADD", exponent, build.cast(upward, "uint32"))
    # infinity and NaN, and what was rounded beyond the largest, are NaN
    code = elementwise("MIN", rounded, number(0xFF))
    return elementwise("BITCAST", build.cast(code, "uint8"), dtype=SCALE_FORMAT)


def _of_values(ctx: NodeContext, x: Value, dtype: str) -> Any:
    """The conversion of a tensor of numbers or strings."""
    if isinstance(x, HostValue) and x.kind == "string":
        return x if dtype == "string" else ctx.host_call(lambda texts: (from_text(texts, dtype),), [x])
    if not isinstance(x, Node):
        ctx.fail(f"takes a tensor, not a {describe(x)}")
    if dtype == "string":
        ctx.require(x.dtype not in COMPLEX, f"does not convert {x.dtype} to strings")
        return ctx.host_call(lambda numbers: (as_text(numbers),), [x])
    return _checked(ctx, x, dtype)


def _checked(ctx: NodeContext, x: Node, dtype: str) -> Node:
    if dtype in COMPLEX or x.dtype in COMPLEX:
        ctx.fail(f"does not convert {x.dtype} to {dtype}: complex numbers are not among its types")
    saturate = ctx.flag("saturate", True)
    round_mode = ctx.string("round_mode", "up", ("up", "down", "nearest"))
    return convert(x, dtype, saturate, round_mode)


@onnx_op("Cast", since=1, until=5, tolerance=ROUNDED, values=True)
def cast_by_name(ctx: NodeContext, x: Value) -> Any:
    """x as the element type that the attribute `to` names in words."""
    names = {"FLOAT": "float32", "DOUBLE": "float64", "INT": "int32"}
    text = ctx.string("to", REQUIRED).upper()
    dtype = names.get(text, text.lower())
    known = dtype in NUMERIC or dtype == "string"
    ctx.require(known, f"the attribute 'to' is '{text}', which is no supported type")
    return _of_values(ctx, x, dtype)


@onnx_op("Cast", since=6, tolerance=ROUNDED, values=True)
def cast(ctx: NodeContext, x: Value) -> Any:
    """x as another element type; floats are truncated to integers."""
    to = ctx.integer("to", REQUIRED)
    return _of_values(ctx, x, "string" if to == TensorProto.STRING else ctx.dtype("to") or "")


@onnx_op("CastLike", since=15, tolerance=ROUNDED, values=True)
def cast_like(ctx: NodeContext, x: Value, other: Value) -> Any:
    """x in the element type of the other input."""
    ctx.require(isinstance(other, (Node, HostValue)), f"takes tensors, not a {describe(other)}")
    return _of_values(ctx, x, str(getattr(other, "dtype", "")))


@onnx_op("BitCast", since=26, tolerance=EXACT)
def bit_cast(ctx: NodeContext, x: Node) -> Node:
    """The bits of x as another element type of as many bits."""
    dtype = ctx.dtype("to") or ""
    ctx.require(bool(dtype), "the attribute 'to' is missing")
    ctx.require(
        element_bits(x.dtype) == element_bits(dtype),
        f"cannot see {x.dtype} as {dtype}, which has another number of bits",
    )
    return elementwise("BITCAST", x, dtype=dtype)
