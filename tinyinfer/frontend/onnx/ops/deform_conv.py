"""Deformable convolution: patches interpolated at shifted positions, then a convolution's contraction."""

from __future__ import annotations

from math import prod

from tinyinfer.frontend.onnx.blocks.sampling import Tap, expanded, interpolate, linear_taps
from tinyinfer.frontend.onnx.blocks.spatial import window_of
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, onnx_op
from tinyinfer.frontend.onnx.ops.conv import channel_bias
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.index import index
from tinyinfer.ir.node import Node, output_axis


@onnx_op("DeformConv", since=19, tolerance=ACCUMULATED)
def deformable_convolution(
    ctx: NodeContext, x: Node, w: Node, offset: Node, bias: Node | None = None, mask: Node | None = None
) -> Node:
    """Convolution whose taps are shifted by data and interpolated linearly, and weighted by a mask."""
    ctx.floating(x)
    ctx.same_dtype(x, w, offset, bias, mask)
    rank = len(x.shape) - 2
    ctx.require(rank >= 1, f"the input must be [N, C, spatial …], not of rank {len(x.shape)}")
    ctx.require(len(w.shape) == rank + 2, f"the weights must be of rank {rank + 2}, not {list(w.shape)}")
    n, channels, *sizes = x.shape
    out, per_group, *kernel = w.shape
    given = ctx.integers("kernel_shape", None, rank, 1)
    ctx.require(given is None or given == kernel, f"'kernel_shape' {given} differs from {list(w.shape)}")
    group = ctx.integer("group", 1, minimum=1)
    parts = ctx.integer("offset_group", 1, minimum=1)
    ctx.require(
        channels == per_group * group and out % group == 0,
        f"{channels} channels and weights {list(w.shape)} do not divide into {group} groups",
    )
    ctx.require(channels % parts == 0, f"{channels} channels do not divide into {parts} offset groups")
    ctx.require(bias is None or bias.shape == (out,), f"the bias must be of shape [{out}]")
    ctx.require(all(k > 0 for k in kernel), f"the weights {list(w.shape)} have an empty kernel")
    window = window_of(ctx, sizes, kernel)
    outputs = [
        (d + b + a - e) // s + 1
        for d, b, a, e, s in zip(sizes, window.before, window.after, window.extents, window.strides)
    ]
    taps = prod(kernel)
    ctx.require(
        offset.shape == (n, parts * taps * rank, *outputs),
        f"the offsets must be {[n, parts * taps * rank, *outputs]}, not {list(offset.shape)}",
    )
    ctx.require(
        mask is None or mask.shape == (n, parts * taps, *outputs),
        f"the mask must be {[n, parts * taps, *outputs]}, not {list(mask.shape) if mask else None}",
    )
    if 0 in (n, channels, *sizes):
        empty = build.full(0, [n, out, *outputs], x.dtype)
        return channel_bias(empty, bias)
    wide = x.dtype if x.dtype in ("float32", "float64") else "float32"
    shifts = build.reshape(build.cast(offset, wide), [n, parts, *kernel, rank, *outputs])
    # positions and weights: [n, offset group, kernel …, outputs …]
    places = [n, parts, *kernel, *outputs]
    here = [index(output_axis(i, d)) for i, d in enumerate(places)]
    shape = [n, parts, channels // parts, *kernel, *outputs]
    axes = [index(output_axis(i, d)) for i, d in enumerate(shape)]
    shared = [*axes[:2], *axes[3:]]
    all_taps: list[list[Tap]] = []
    for a in range(rank):
        kept = [*here[: 2 + rank], index(a), *here[2 + rank :]]
        start = here[2 + rank + a] * window.strides[a] - window.before[a]
        regular = build.position(start + here[2 + a] * window.dilations[a], places)
        position = elementwise("ADD", build.cast(regular, wide), build.view(shifts, kept, places))
        all_taps.append([expanded(t, shared, shape) for t in linear_taps(position, sizes[a])])
    channel = axes[1] * (channels // parts) + axes[2]
    patches = interpolate(build.cast(x, wide), [axes[0], channel], all_taps, shape)
    if mask is not None:
        weights = build.reshape(build.cast(mask, wide), [n, parts, *kernel, *outputs])
        patches = elementwise("MUL", patches, build.view(weights, shared, shape))
    patches = build.reshape(patches, [n, channels, *kernel, *outputs])
    # the contraction, as in build.convolution
    full = [n, group, out // group, *outputs, per_group, *kernel]
    full_axes = [index(output_axis(i, d)) for i, d in enumerate(full)]
    batch, g, o, ys = full_axes[0], full_axes[1], full_axes[2], full_axes[3 : 3 + rank]
    c, ks = full_axes[3 + rank], full_axes[4 + rank :]
    left = build.view(patches, [batch, g * per_group + c, *ks, *ys], full)
    right = build.view(build.cast(w, wide), [g * (out // group) + o, c, *ks], full)
    total = build.reduce("SUM", elementwise("MUL", left, right), range(3 + rank, len(full)))
    return channel_bias(build.cast(build.reshape(total, [n, out, *outputs]), x.dtype), bias)
