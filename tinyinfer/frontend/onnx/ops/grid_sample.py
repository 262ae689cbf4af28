"""Sampling at the positions of a grid, and affine grids."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tinyinfer.frontend.onnx.blocks.sampling import Place, Tap, cubic_weights, interpolate
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, ROUNDED, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import is_float
from tinyinfer.ir import build
from tinyinfer.ir.build import apply, elementwise
from tinyinfer.ir.index import Index, index
from tinyinfer.ir.node import Node, output_axis

CUBIC = -0.75

_MODES = {"bilinear": "linear", "bicubic": "cubic"}
"""Names that opset 16 had for modes."""


@onnx_op("GridSample", since=16, tolerance=ROUNDED)
def grid_sample(ctx: NodeContext, x: Node, grid: Node) -> Node:
    """Values of x, interpolated at the normalised positions of a grid."""
    if ctx.opset < 20:
        mode = ctx.string("mode", "bilinear", ("bilinear", "nearest", "bicubic"))
    else:
        mode = ctx.string("mode", "linear", ("linear", "nearest", "cubic"))
    mode = _MODES.get(mode, mode)
    padding = ctx.string("padding_mode", "zeros", ("zeros", "border", "reflection"))
    align = ctx.flag("align_corners")
    rank = len(x.shape) - 2
    ctx.require(rank >= 1, f"the input must be [N, C, spatial …], not of rank {len(x.shape)}")
    ctx.require(
        len(grid.shape) == rank + 2 and grid.shape[-1] == rank and grid.shape[0] == x.shape[0],
        f"the grid must be [{x.shape[0]}, outputs …, {rank}], not {list(grid.shape)}",
    )
    ctx.require(is_float(grid), f"the grid must hold floats, not {grid.dtype}")
    shape = [x.shape[0], x.shape[1], *grid.shape[1:-1]]
    if 0 in x.shape:
        ctx.require(0 in shape, f"nothing can be sampled from an input of shape {list(x.shape)}")
        return build.full(0, shape, x.dtype)
    wide = "float64" if "float64" in (x.dtype, grid.dtype) else "float32"
    # a grid names the innermost axis first; the axes come first here, so that what varies stands together
    by_axis = build.permute(build.flip(grid, [rank + 1]), [rank + 1, *range(rank + 1)])
    positions = _positions(build.cast(by_axis, wide), x.shape[2:], align)
    source = x if mode == "nearest" or x.dtype == wide else build.cast(x, wide)
    taps = _taps(positions, x.shape[2:], mode, padding, align)
    axes = [index(output_axis(i, d)) for i, d in enumerate(shape)]
    spread = [[_shared(t, axes, shape, i) for t in axis] for i, axis in enumerate(taps)]
    return build.cast(interpolate(source, axes[:2], spread, shape), x.dtype)


def _per_axis(values: Sequence[float], x: Node, axis: int = 0) -> Node:
    """Constants that differ along one axis of `x`."""
    shape = [len(values) if i == axis else 1 for i in range(len(x.shape))]
    return build.expand(build.reshape(build.constant(values, x.dtype), shape), x.shape)


def _positions(grid: Node, sizes: tuple[int, ...], align: bool) -> Node:
    """From -1 … 1 to positions along each axis, on which 0 is the first element."""
    lengths = [(d - 1 if align else d) / 2 for d in sizes]
    scaled = elementwise("MUL", apply("ADD", grid, build.scalar(1, grid.dtype)), _per_axis(lengths, grid))
    return scaled if align else apply("SUB", scaled, build.scalar(0.5, grid.dtype))


def _reflected(x: Node, sizes: tuple[int, ...], align: bool) -> Node:
    """Positions mirrored at the borders until they lie within: the triangle wave of period 2 · length."""
    start = 0.0 if align else -0.5
    # an axis of one element with aligned corners has no length: everything is at 0
    lengths = [float(max(d - 1, 1) if align else d) for d in sizes]
    period = _per_axis([2 * n for n in lengths], x)
    within = elementwise("MOD", apply("SUB", x, build.scalar(start, x.dtype)), period)
    folded = elementwise("MIN", within, elementwise("SUB", period, within))
    result = apply("ADD", folded, build.scalar(start, x.dtype))
    return elementwise("MIN", result, _per_axis([d - 1.0 if align else d - 0.5 for d in sizes], x))


def _clamped(x: Node, sizes: tuple[int, ...], margin: int = 0) -> Node:
    low, high = build.full(-margin, x.shape, x.dtype), _per_axis([d - 1.0 + margin for d in sizes], x)
    return elementwise("MIN", elementwise("MAX", x, low), high)


def _taps(
    x: Node, sizes: tuple[int, ...], mode: str, padding: str, align: bool
) -> list[list[tuple[Node, int, Node | None]]]:
    """For each axis, the integer place, its offset and the weight of every tap: [N, outputs …].

    `x` is [axes, N, outputs …], and all axes are computed together.
    """
    rank = len(sizes)
    if mode == "nearest":
        x = elementwise("ROUND", x)
    if padding == "reflection":
        x = _reflected(x, sizes, align)
    # a far position becomes one that fits an int32 and whose taps are all still outside; between the border
    # and the first element everything is that element, but for a cubic, which bends there (as in PyTorch)
    x = _clamped(x, sizes, margin=4 if padding == "zeros" or mode == "cubic" else 0)
    floor = elementwise("FLOOR", x)
    base = build.cast(floor, "int32")
    places = [_first(base, i) for i in range(rank)]
    if mode == "nearest":
        return [[(p, 0, None)] for p in places]
    fraction = elementwise("SUB", x, floor)
    if mode == "linear":
        rest = apply("SUB", build.scalar(1, x.dtype), fraction)
        return [[(p, 0, _first(rest, i)), (p, 1, _first(fraction, i))] for i, p in enumerate(places)]
    weights = cubic_weights(fraction, CUBIC)
    by_axis = [[_first(_first(weights, k), i) for k in range(4)] for i in range(rank)]
    if padding == "zeros":
        return [[(p, k - 1, w[k]) for k in range(4)] for p, w in zip(places, by_axis)]
    table = _bounded(base, sizes, padding, align)
    return [[(_first(_first(table, k), i), 0, w[k]) for k in range(4)] for i, w in enumerate(by_axis)]


def _bounded(base: Node, sizes: tuple[int, ...], padding: str, align: bool) -> Node:
    """The places base - 1 … base + 2 along a new first axis, clamped to the axis or mirrored at its ends."""
    shape = (4, *base.shape)
    spread = build.expand(base, shape)
    here = elementwise("ADD", spread, _per_axis(range(-1, 3), spread))
    last = _per_axis([d - 1 for d in sizes], here, 1)
    if padding == "reflection":
        # the element beside the border is repeated unless the border lies on it
        period = _per_axis([max(2 * (d - 1), 1) if align else 2 * d for d in sizes], here, 1)
        edge = _per_axis([max(2 * (d - 1), 1) if align else 2 * d - 1 for d in sizes], here, 1)
        within = elementwise("MOD", here, period)
        here = elementwise("MIN", within, elementwise("SUB", edge, within))
    return elementwise("MIN", elementwise("MAX", here, build.full(0, shape, "int32")), last)


def _first(x: Node, place: int) -> Node:
    """`x` at one place of its first axis."""
    _, *inner = x.shape
    axes = [index(output_axis(i, d)) for i, d in enumerate(inner)]
    return build.view(x, [index(place), *axes], inner)


def _shared(tap: tuple[Node, int, Node | None], axes: list[Index], shape: list[int], axis: int) -> Tap:
    """A tap [N, outputs …] for every channel."""
    place, offset, weight = tap
    where = [axes[0], *axes[2:]]
    return Tap(
        Place(build.view(place, where, shape), offset),
        None if weight is None else build.view(weight, where, shape),
    )


# ---- affine grids


@onnx_op("AffineGrid", since=20, tolerance=ACCUMULATED)
def affine_grid(ctx: NodeContext, theta: Node, size: Node) -> Node:
    """The grid that GridSample needs for an affine map of positions."""
    wanted = ctx.constant_ints(size, "size")
    ctx.require(len(wanted) in (4, 5), f"'size' must hold 4 or 5 numbers, not {wanted}")
    n, _, *sizes = wanted
    rank = len(sizes)
    ctx.require(is_float(theta), f"'theta' must hold floats, not {theta.dtype}")
    ctx.require(
        theta.shape == (n, rank, rank + 1),
        f"'theta' must be [{n}, {rank}, {rank + 1}] for the size {wanted}, not {list(theta.shape)}",
    )
    ctx.require(all(d >= 1 for d in sizes), f"'size' must hold positive numbers, not {wanted}")
    ctx.table_size(math.prod(sizes), "the number of positions")
    align = ctx.flag("align_corners")
    steps = [_centres(d, align) for d in sizes]
    wide = theta.dtype if theta.dtype in ("float32", "float64") else "float32"
    # [x, y (, z), 1] at every position: columns of a constant matrix
    columns = [*reversed(np.meshgrid(*steps, indexing="ij")), np.ones(sizes)]
    places = build.constant(np.stack(columns, 0).reshape(rank + 1, -1), wide)
    product = build.matmul(build.cast(theta, wide), places)
    grid = build.reshape(build.permute(product, [0, 2, 1]), [n, *sizes, rank])
    return build.cast(grid, theta.dtype)


def _centres(size: int, align: bool) -> np.ndarray:
    """Evenly spaced positions within -1 … 1, to the ends if `align`."""
    if align:
        return np.linspace(-1, 1, size) if size > 1 else np.zeros(1)
    return (2 * np.arange(size) + 1) / size - 1
