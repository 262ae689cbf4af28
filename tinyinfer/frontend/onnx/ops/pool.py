"""Pooling: reductions over sliding windows, or over all spatial axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tinyinfer.frontend.onnx.blocks.spatial import Window, window_of
from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, EXACT, TRANSCENDENTAL, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import is_float, is_signed, like
from tinyinfer.ir import build
from tinyinfer.ir.index import index, row_major_strides
from tinyinfer.ir.node import Node, output_axis
from tinyinfer.ir.ops import reduce_identity


def _window(ctx: NodeContext, x: Node) -> Window:
    rank = len(x.shape) - 2
    ctx.require(rank >= 1, f"the input must be [N, C, spatial …], not of rank {len(x.shape)}")
    kernel = ctx.integers("kernel_shape", REQUIRED, rank, 1)
    return window_of(ctx, x.shape[2:], kernel, ceil_mode=ctx.flag("ceil_mode"))


def _pooled(op: str, x: Node, window: Window, fill: float | int | bool) -> Node:
    """Reduce over each window; the padding holds `fill`."""
    patches = build.window(
        x, window.kernel, window.strides, window.dilations, window.before, window.after, fill
    )
    rank = len(window.kernel)
    return build.reduce(op, patches, range(len(patches.shape) - rank, len(patches.shape)))


@onnx_op("MaxPool", tolerance=EXACT)
def max_pool(ctx: NodeContext, x: Node) -> Node | tuple[Node, Node]:
    """Largest value of each window, and its place in the input; padding never wins."""
    column_major = ctx.integer("storage_order", 0, choices=(0, 1)) == 1
    ctx.require(is_float(x) or x.dtype in ("int8", "uint8") or is_signed(x), f"does not take {x.dtype}")
    window = _window(ctx, x)
    largest = _pooled("MAX", x, window, reduce_identity("MAX", x.dtype))
    return largest if ctx.outputs < 2 else (largest, _places(x, largest, window, column_major))


def _places(x: Node, largest: Node, window: Window, column_major: bool) -> Node:
    """The first place of each window that holds its largest value (NaN, if there is one).

    Places count through the whole input, but through the axes of a plane backwards if `column_major`.
    """
    rank, sizes = len(window.kernel), window.sizes
    plane = math.prod(sizes)
    here = build.reshape(build.iota([plane], 0), sizes)
    geometry = (window.kernel, window.strides, window.dilations, window.before, window.after)
    positions = build.window(here, *geometry, plane)
    patches = build.window(x, *geometry, reduce_identity("MAX", x.dtype))
    shape = patches.shape
    outer = [index(output_axis(i, d)) for i, d in enumerate(shape)]
    best = build.view(largest, outer[: 2 + rank], shape)
    found = build.elementwise("CMPEQ", patches, best)
    if is_float(x):
        found = build.elementwise("OR", found, build.elementwise("CMPNE", patches, patches))
    spread = build.view(positions, outer[2:], shape)
    nowhere = build.full(plane, shape, "int64")
    chosen = build.elementwise("WHERE", found, spread, nowhere)
    first = build.reduce("MIN", chosen, range(2 + rank, len(shape)))
    first = build.elementwise("MIN", first, like(max(plane - 1, 0), first))
    if column_major:
        first = _transposed(first, sizes)
    n, c = (index(output_axis(i, first.shape[i])) for i in range(2))
    start = build.position((n * x.shape[1] + c) * plane, first.shape)
    return build.elementwise("ADD", first, start)


def _transposed(place: Node, sizes: Sequence[int]) -> Node:
    """Row-major places in a plane as column-major ones."""
    result, step = like(0, place), 1
    strides = row_major_strides(sizes)
    for size, stride in zip(sizes, strides):
        along = build.elementwise("IDIV", place, like(stride, place))
        place = build.elementwise("SUB", place, build.elementwise("MUL", along, like(stride, along)))
        result = build.elementwise("ADD", result, build.elementwise("MUL", along, like(step, along)))
        step *= size
    return result


@onnx_op("AveragePool", tolerance=ACCUMULATED)
def average_pool(ctx: NodeContext, x: Node) -> Node:
    """Mean of each window; padding counts only with count_include_pad, and what ceil_mode adds never."""
    ctx.floating(x)
    return average(ctx, x)


def average(ctx: NodeContext, x: Node, divide: bool = False) -> Node:
    """The mean of each window that the attributes describe; `divide`: by one division, not by products with
    reciprocals."""
    window = _window(ctx, x)
    total = _pooled("SUM", x, window, 0)
    counts = [_counts(ctx, window, i, ctx.flag("count_include_pad")) for i in range(len(window.kernel))]
    if not window.padded:
        counts = [[k] for k in window.kernel]
    if all(len(set(c)) == 1 for c in counts):
        count = math.prod(c[0] for c in counts)
        if divide:
            return build.elementwise("DIV", total, like(count, total))
        return build.elementwise("MUL", total, like(1 / count, total))
    shapes = [[-1 if i == axis else 1 for i in range(len(counts))] for axis in range(len(counts))]
    if divide:
        table = math.prod(np.reshape(c, shape) for c, shape in zip(counts, shapes))
        return build.apply("DIV", total, build.constant(table, x.dtype))
    result = total
    for count_list, shape in zip(counts, shapes):
        factor = build.constant(np.reshape([1 / c for c in count_list], shape), x.dtype)
        result = build.apply("MUL", result, factor)
    return result


def _counts(ctx: NodeContext, window: Window, axis: int, include_pad: bool) -> list[int]:
    """How many taps count at each output position along one axis."""
    size, before, after = window.sizes[axis], window.before[axis], window.after[axis]
    kernel, stride, dilation = window.kernel[axis], window.strides[axis], window.dilations[axis]
    outputs = (size + before + after - window.extents[axis]) // stride + 1
    low, high = 0, size
    if include_pad:
        # the padding that the model names counts, the one that ceil_mode added does not
        named = ctx.integers("pads", None)
        automatic = ctx.string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        behind = after if automatic else named[len(window.kernel) + axis] if named is not None else 0
        low, high = -before, size + behind
    starts = np.arange(outputs) * stride - before
    first = np.maximum(-((starts - low) // dilation), 0)
    last = np.minimum((high - 1 - starts) // dilation, kernel - 1)
    return np.maximum(last - first + 1, 1).tolist()


@onnx_op("LpPool", tolerance=TRANSCENDENTAL)
def lp_pool(ctx: NodeContext, x: Node) -> Node:
    """p-norm of each window."""
    ctx.floating(x)
    p = _exponent(ctx)
    return _root(_pooled("SUM", _powered(x, p), _window(ctx, x), 0), p)


def _exponent(ctx: NodeContext) -> float:
    p = ctx.number("p", 2.0) if ctx.opset < 2 else ctx.integer("p", 2)
    ctx.require(p > 0, f"the attribute 'p' must be positive, not {p}")
    return float(p)


def _powered(x: Node, p: float) -> Node:
    if p == 2:
        return build.elementwise("MUL", x, x)
    magnitude = build.elementwise("ABS", x)
    return magnitude if p == 1 else build.elementwise("POW", magnitude, like(p, x))


def _root(x: Node, p: float) -> Node:
    if p == 1:
        return x
    return build.elementwise("SQRT", x) if p == 2 else build.elementwise("POW", x, like(1 / p, x))


def _spatial(ctx: NodeContext, x: Node) -> range:
    ctx.require(len(x.shape) >= 3, f"the input must be [N, C, spatial …], not of rank {len(x.shape)}")
    return range(2, len(x.shape))


@onnx_op("GlobalAveragePool", tolerance=ACCUMULATED)
def global_average_pool(ctx: NodeContext, x: Node) -> Node:
    """Mean over all spatial positions."""
    ctx.floating(x)
    axes = _spatial(ctx, x)
    total = build.reduce("SUM", x, axes, keepdims=True)
    return build.elementwise("MUL", total, like(1 / max(math.prod(x.shape[2:]), 1), total))


@onnx_op("GlobalMaxPool", tolerance=EXACT)
def global_max_pool(ctx: NodeContext, x: Node) -> Node:
    """Largest value of all spatial positions."""
    return build.reduce("MAX", x, _spatial(ctx, x), keepdims=True)


@onnx_op("GlobalLpPool", tolerance=TRANSCENDENTAL)
def global_lp_pool(ctx: NodeContext, x: Node) -> Node:
    """p-norm of all spatial positions."""
    ctx.floating(x)
    p = _exponent(ctx)
    return _root(build.reduce("SUM", _powered(x, p), _spatial(ctx, x), keepdims=True), p)
