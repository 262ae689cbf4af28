"""Quantising and dequantising: float to integer and back, per tensor, per axis and in blocks."""

from __future__ import annotations

from tinyinfer.frontend.onnx.blocks.quantised import (
    INTEGER_RANGES,
    SCALES,
    Granularity,
    check_scale,
    dequantised,
    dynamic_parameters,
    granularity,
    quantised,
    spread,
)
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import EXACT, ROUNDED, onnx_op
from tinyinfer.frontend.onnx.ops.cast import convert
from tinyinfer.ir import build
from tinyinfer.ir.node import Node

MICROSOFT = "com.microsoft"
NARROW_FLOATS = ("float8", "float6", "float4")
"""How the names of the float types begin that have no zero point."""

AXIS_SINCE, FLOAT8_SINCE, BLOCK_SINCE, PRECISION_SINCE = 13, 19, 21, 23


def _grain(ctx: NodeContext, x: Node, scale: Node, zero: Node | None) -> Granularity:
    """How the parameters lie along `x`, from the attributes of this opset."""
    block = ctx.integer("block_size", 0, minimum=0) if ctx.opset >= BLOCK_SINCE else 0
    if ctx.domain == MICROSOFT:
        block = ctx.integer("block_size", 0, minimum=0)
    axis = ctx.integer("axis", 1)
    grain = granularity(ctx, x.shape, scale, axis, block)
    ctx.require(
        ctx.opset >= AXIS_SINCE or ctx.domain == MICROSOFT or grain.axis is None,
        f"the scale must be a scalar before opset {AXIS_SINCE}, not of shape {list(scale.shape)}",
    )
    ctx.require(
        zero is None or zero.shape == scale.shape or (zero.size == 1 and grain.axis is None),
        f"the zero point must be of the shape of the scale {list(scale.shape)}, not "
        f"{list(zero.shape) if zero is not None else ''}",
    )
    return grain


def _is_narrow_float(dtype: str) -> bool:
    return dtype.startswith(NARROW_FLOATS)


def _quantize(ctx: NodeContext, x: Node, scale: Node, zero: Node | None) -> Node:
    ctx.require(x.dtype in (*SCALES, "int32"), f"quantises floats and int32, not {x.dtype}")
    grain = _grain(ctx, x, scale, zero)
    wanted = ctx.dtype("output_dtype") if ctx.integer("output_dtype", 0) else None
    dtype = zero.dtype if zero is not None else wanted or "uint8"
    ctx.require(
        wanted in (None, dtype), f"the attribute 'output_dtype' is {wanted}, but the zero point is {dtype}"
    )
    precision = ctx.dtype("precision") if ctx.integer("precision", 0) else None
    if precision is None:
        precision = scale.dtype if scale.dtype in SCALES else x.dtype
    # integers over integers are divided as floats
    precision = precision if precision in SCALES else "float32"
    value = build.cast(x, precision)
    if dtype in INTEGER_RANGES:
        return quantised(value, scale, zero, dtype, grain)
    ctx.require(_is_narrow_float(dtype), f"does not quantise to {dtype}")
    ratio = build.elementwise("DIV", value, build.cast(spread(scale, x.shape, grain), precision))
    if zero is not None and not dtype.startswith("float8"):
        # the zero point of 8-bit floats gives nothing but their type
        ratio = build.elementwise("ADD", ratio, build.cast(spread(zero, x.shape, grain), precision))
    return convert(ratio, dtype, ctx.flag("saturate", True))


@onnx_op("QuantizeLinear", since=10, tolerance=EXACT)
def quantize_linear(ctx: NodeContext, x: Node, scale: Node, zero: Node | None = None) -> Node:
    """x / scale rounded half to even, plus the zero point, saturated; per tensor, per axis or in blocks."""
    return _quantize(ctx, x, scale, zero)


def _dequantize(ctx: NodeContext, x: Node, scale: Node, zero: Node | None) -> Node:
    known = x.dtype in INTEGER_RANGES or x.dtype == "int32" or _is_narrow_float(x.dtype)
    ctx.require(known, f"dequantises integers of up to 32 bits and floats of up to 8, not {x.dtype}")
    ctx.require(
        zero is None or zero.dtype == x.dtype,
        f"the zero point must be {x.dtype}, not {zero.dtype if zero is not None else ''}",
    )
    grain = _grain(ctx, x, scale, zero)
    wanted = ctx.dtype("output_dtype") if ctx.integer("output_dtype", 0) else None
    dtype = wanted or (scale.dtype if scale.dtype in SCALES else "float32")
    ctx.require(dtype in SCALES, f"does not dequantise to {dtype}")
    # the passes turn products with these integers into integer products: a float forgets what it came from
    ctx.folds = False
    return build.cast(dequantised(x, scale, zero, grain), dtype)


@onnx_op("DequantizeLinear", since=10, tolerance=ROUNDED)
def dequantize_linear(ctx: NodeContext, x: Node, scale: Node, zero: Node | None = None) -> Node:
    """(x - zero point) · scale; per tensor, per axis or in blocks."""
    return _dequantize(ctx, x, scale, zero)


@onnx_op("QuantizeLinear", domain=MICROSOFT, tolerance=EXACT)
def microsoft_quantize_linear(ctx: NodeContext, x: Node, scale: Node, zero: Node | None = None) -> Node:
    """x / scale rounded half to even, plus the zero point, saturated; 16 bits and float16 in old opsets."""
    return _quantize(ctx, x, scale, zero)


@onnx_op("DequantizeLinear", domain=MICROSOFT, tolerance=ROUNDED)
def microsoft_dequantize_linear(ctx: NodeContext, x: Node, scale: Node, zero: Node | None = None) -> Node:
    """(x - zero point) · scale; 16 bits and float16 in old opsets."""
    return _dequantize(ctx, x, scale, zero)


@onnx_op("DynamicQuantizeLinear", since=11, tolerance=EXACT)
def dynamic_quantize_linear(ctx: NodeContext, x: Node) -> tuple[Node, Node, Node]:
    """x quantised to uint8 by a scale and a zero point that its own range gives; all three."""
    check_scale(ctx, x)
    scale, zero = dynamic_parameters(x)
    return quantised(x, scale, zero, "uint8"), scale, zero
