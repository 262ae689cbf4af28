"""Linear quantisation as IR nodes, which every quantised operator is built from.

A quantised value q stands for `(q - zero point) · scale`. Quantising divides by the scale, rounds half to
even, adds the zero point and saturates: the division is one, and not a product with a reciprocal, for that
would move ties. Integer sums are int32 and exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.ir import build
from tinyinfer.ir.index import index
from tinyinfer.ir.node import Node, output_axis

INTEGER_RANGES: dict[str, tuple[int, int]] = {
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
    "uint16": (0, 65535),
    "int4": (-8, 7),
    "uint4": (0, 15),
    "int2": (-2, 1),
    "uint2": (0, 3),
}
"""What each quantised integer type saturates at."""

NARROW_INTEGERS = frozenset(("int4", "uint4", "int2", "uint2"))
BYTES = ("int8", "uint8")
SCALES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Granularity:
    """How parameters lie along a tensor: one for all, one a position of `axis`, or one a `block`."""

    axis: int | None = None
    block: int = 0


PER_TENSOR = Granularity()


def granularity(ctx: NodeContext, shape: tuple[int, ...], scale: Node, axis: int, block: int) -> Granularity:
    """Which of the three a scale of this shape means for a tensor of `shape`; fails where it is none.

    A scale of one element is per tensor, whatever its rank.
    """
    if scale.size == 1 and len(scale.shape) <= 1:
        return PER_TENSOR
    axis = ctx.axis(axis, len(shape))
    if not block:
        ctx.require(
            scale.shape == (shape[axis],),
            f"the scale must be a scalar or of shape [{shape[axis]}] for axis {axis}, "
            f"not {list(scale.shape)}",
        )
        return Granularity(axis)
    wanted = tuple(ceil(d / block) if i == axis else d for i, d in enumerate(shape))
    ctx.require(
        scale.shape == wanted,
        f"the scale must be of shape {list(wanted)} for blocks of {block} along axis {axis}, "
        f"not {list(scale.shape)}",
    )
    return Granularity(axis, block)


def spread(parameter: Node, shape: tuple[int, ...], grain: Granularity) -> Node:
    """A scale or zero point at every position of a tensor of `shape`."""
    if grain.axis is None:
        return build.expand(build.reshape(parameter, ()), shape)
    axes = [index(output_axis(i, d)) for i, d in enumerate(shape)]
    if not grain.block:
        return build.view(parameter, [axes[grain.axis]], shape)
    axes[grain.axis] = axes[grain.axis] // grain.block
    return build.view(parameter, axes, shape)


def scalar_parameter(ctx: NodeContext, x: Node, what: str) -> Node:
    """A scale or zero point of one element as a scalar."""
    ctx.require(x.size == 1, f"{what} must be one number, not of shape {list(x.shape)}")
    return build.reshape(x, ())


def required(ctx: NodeContext, **inputs: Node | None) -> tuple[Node, ...]:
    """The inputs given by name, none of which may be missing: for those that stand behind optional ones."""
    for name, x in inputs.items():
        ctx.require(x is not None, f"the input '{name}' is missing")
    return tuple(x for x in inputs.values() if x is not None)


def check_scale(ctx: NodeContext, *scales: Node | None, dtypes: tuple[str, ...] = ("float32",)) -> None:
    """Fail unless the scales given are of one of `dtypes`."""
    for scale in scales:
        ctx.require(
            scale is None or scale.dtype in dtypes,
            f"a scale must be of type {' or '.join(dtypes)}, not {scale.dtype if scale is not None else ''}",
        )


def check_bytes(ctx: NodeContext, x: Node, zero: Node | None, what: str) -> None:
    """Fail unless `x` is int8 or uint8 and its zero point of the same type."""
    ctx.require(x.dtype in BYTES, f"{what} must be int8 or uint8, not {x.dtype}")
    ctx.require(
        zero is None or zero.dtype == x.dtype,
        f"the zero point of {what} must be {x.dtype}, not {zero.dtype if zero is not None else ''}",
    )


def centred(x: Node, zero: Node | None, grain: Granularity = PER_TENSOR) -> Node:
    """`x` minus its zero point as int32."""
    wide = build.cast(x, "int32")
    if zero is None:
        return wide
    return build.elementwise("SUB", wide, build.cast(spread(zero, x.shape, grain), "int32"))


def dequantised(x: Node, scale: Node, zero: Node | None = None, grain: Granularity = PER_TENSOR) -> Node:
    """(x - zero point) · scale in float32; a zero point of floats counts for nothing but its type."""
    if x.dtype in INTEGER_RANGES or x.dtype == "int32":
        value = build.cast(centred(x, zero, grain), "float32")
    else:
        value = build.cast(x, "float32")
    return build.elementwise("MUL", value, build.cast(spread(scale, x.shape, grain), "float32"))


def rounded(ratio: Node, zero: Node | None, dtype: str, grain: Granularity = PER_TENSOR) -> Node:
    """`ratio` rounded half to even, plus the zero point, saturated to the integer `dtype`."""
    # whatever float32 cannot hold exactly saturates anyway
    value = build.cast(build.elementwise("ROUND", ratio), "float32")
    if zero is not None:
        value = build.elementwise("ADD", value, build.cast(spread(zero, ratio.shape, grain), "float32"))
    if dtype not in NARROW_INTEGERS:
        return build.cast(value, dtype)
    low, high = INTEGER_RANGES[dtype]
    value = build.apply("MAX", value, build.scalar(low, "float32"))
    value = build.apply("MIN", value, build.scalar(high, "float32"))
    return build.cast(build.cast(value, "int8"), dtype)


def quantised(x: Node, scale: Node, zero: Node | None, dtype: str, grain: Granularity = PER_TENSOR) -> Node:
    """`x` divided by `scale` in the type of `x`, rounded, shifted and saturated to the integer `dtype`."""
    divisor = build.cast(spread(scale, x.shape, grain), x.dtype)
    return rounded(build.elementwise("DIV", x, divisor), zero, dtype, grain)


def requantised(
    total: Node, multiplier: Node, zero: Node | None, dtype: str, grain: Granularity = PER_TENSOR
) -> Node:
    """An int32 sum times a float32 multiplier, rounded, shifted and saturated. `zero` is one number."""
    value = build.elementwise("MUL", build.cast(total, "float32"), spread(multiplier, total.shape, grain))
    return rounded(value, zero, dtype)


def dynamic_parameters(x: Node) -> tuple[Node, Node]:
    """Scale (float32) and zero point (uint8) that spread the range of `x`, zero included, over 0 … 255.

    Where every element is zero the scale is 1, as in onnxruntime.
    """
    zero = build.scalar(0, "float32")
    axes = range(len(x.shape))
    low = build.apply("MIN", build.reduce("MIN", x, axes), zero) if x.size else zero
    high = build.apply("MAX", build.reduce("MAX", x, axes), zero) if x.size else zero
    extent = build.elementwise("SUB", high, low)
    flat = build.elementwise("CMPEQ", high, low)
    steps = build.elementwise("DIV", extent, build.scalar(255, "float32"))
    scale = build.elementwise("WHERE", flat, build.scalar(1, "float32"), steps)
    below = build.elementwise("SUB", zero, build.elementwise("DIV", low, scale))
    return scale, build.cast(build.elementwise("ROUND", below), "uint8")
