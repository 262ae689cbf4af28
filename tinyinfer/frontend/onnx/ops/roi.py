"""Regions of interest: average and maximum over the bins of rectangles that are data.

A bin's average over points on a grid is separable: one weight per (bin, row) and one per (bin, column). With
a given number of points the few taps are read one by one. Where the number depends on a region's size, the
weights of all rows and columns are computed instead, and the average is two contractions: the shapes stay
static whatever is fed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyinfer.frontend.onnx.blocks.sampling import Place, Tap, clamped, interpolate, linear_taps, read_at
from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, EXACT, ROUNDED, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import is_float, like
from tinyinfer.ir import build
from tinyinfer.ir.build import apply, elementwise
from tinyinfer.ir.index import Index, index
from tinyinfer.ir.node import Node, output_axis

NEIGHBOURS = 7
"""Grid points of a bin that may touch one row: those of distance 1/2 or more within an interval of 2, and
room for rounding."""


@dataclass(frozen=True)
class _Side:
    """One axis of every region [regions, 1]: where it starts, a bin's length and its number of points."""

    size: int
    bins: int
    start: Node
    bin: Node
    points: Node


def _check(ctx: NodeContext, x: Node, rois: Node, columns: int) -> None:
    ctx.require(len(x.shape) == 4, f"the input must be [N, C, H, W], not {list(x.shape)}")
    ctx.require(is_float(x) and is_float(rois), f"takes floats, not {x.dtype} and {rois.dtype}")
    ctx.require(
        len(rois.shape) == 2 and rois.shape[1] == columns,
        f"'rois' must be [regions, {columns}], not {list(rois.shape)}",
    )


def _check_batch(ctx: NodeContext, batch: Node, regions: int, name: str = "batch_indices") -> None:
    ctx.require(
        batch.dtype in ("int32", "int64") and batch.shape == (regions,),
        f"'{name}' must be integers of shape [{regions}], not {batch.dtype}{list(batch.shape)}",
    )


def _column(rois: Node, place: int) -> Node:
    """One column of a matrix, as [regions, 1]."""
    return build.shrink(rois, [0, place], [rois.shape[0], place + 1])


def _over(x: Node, places: list[Index], shape: list[int]) -> Node:
    return build.view(x, places, shape)


def _counted(shape: tuple[int, ...], axis: int, dtype: str) -> Node:
    """The position along an axis as a float."""
    return build.cast(build.iota(shape, axis), dtype)


@onnx_op("RoiAlign", since=10, tolerance=ACCUMULATED)
def roi_align(ctx: NodeContext, x: Node, rois: Node, batch: Node) -> Node:
    """Average (or maximum) of interpolated points in the bins of each region."""
    _check(ctx, x, rois, 4)
    _check_batch(ctx, batch, rois.shape[0])
    mode = ctx.string("mode", "avg", ("avg", "max"))
    default = "half_pixel" if ctx.opset >= 16 else "output_half_pixel"
    half = ctx.string("coordinate_transformation_mode", default, ("half_pixel", "output_half_pixel"))
    height, width = ctx.integer("output_height", 1, minimum=1), ctx.integer("output_width", 1, minimum=1)
    ratio = ctx.integer("sampling_ratio", 0, minimum=0)
    scale = ctx.number("spatial_scale", 1.0)
    shape = [rois.shape[0], x.shape[1], height, width]
    if 0 in shape or 0 in x.shape:
        return build.full(0, shape, x.dtype)
    wide = x.dtype if x.dtype in ("float32", "float64") else "float32"
    source, regions = build.cast(x, wide), build.cast(rois, wide)
    sides = []
    for axis, bins in ((1, height), (0, width)):
        start, end = (
            apply(
                "SUB",
                apply("MUL", _column(regions, place), build.scalar(scale, wide)),
                build.scalar(0.5 if half == "half_pixel" else 0.0, wide),
            )
            for place in (axis, axis + 2)
        )
        length = elementwise("SUB", end, start)
        if half != "half_pixel":  # malformed regions count as one pixel
            length = elementwise("MAX", length, like(1, length))
        step = apply("DIV", length, build.scalar(bins, wide))
        points = like(ratio, step) if ratio else elementwise("CEIL", step)
        sides.append(_Side(x.shape[3 - axis], bins, start, step, points))
    if mode == "avg" and not ratio:
        result = _adaptive_average(source, batch, sides)
    else:
        most = [ratio, ratio] if ratio else [_most_points(ctx, side) for side in sides]
        result = _by_points(source, batch, sides, most, mode)
    return build.cast(result, x.dtype)


def _most_points(ctx: NodeContext, side: _Side) -> int:
    """The largest number of points of any region, which must be known."""
    counts = ctx.constant(side.points, "rois")
    most = max(int(np.nan_to_num(counts).max(initial=0)), 1)
    ctx.table_size(most, "the number of points of a region")
    return most


def _samples(side: _Side, shape: tuple[int, ...], number: Node) -> Node:
    """Positions [regions, bins, …] of the points `number` (floats of `shape`)."""
    spread = [index(output_axis(0, shape[0])), index(0)]
    start, step, points = (_over(n, spread, list(shape)) for n in (side.start, side.bin, side.points))
    bins = elementwise("MUL", _counted(shape, 1, start.dtype), step)
    within = elementwise(
        "DIV", elementwise("MUL", elementwise("ADD", number, like(0.5, number)), step), points
    )
    return elementwise("ADD", elementwise("ADD", start, bins), within)


def _by_points(x: Node, batch: Node, sides: list[_Side], most: list[int], mode: str) -> Node:
    """Every point of every bin is read, [regions, C, height, width, points, points], and reduced."""
    regions, dtype = batch.shape[0], x.dtype
    shape = [regions, x.shape[1], sides[0].bins, sides[1].bins, *most]
    axes = [index(output_axis(i, d)) for i, d in enumerate(shape)]
    taps, counted = [], []
    for number, side in enumerate(sides):
        here = (regions, side.bins, most[number])
        points = _counted(here, 2, dtype)
        position = _samples(side, here, points)
        # a point up to one pixel outside counts as on the border, one further out as 0
        beyond = elementwise("CMPLT", like(side.size, position), position)
        outside = elementwise("OR", elementwise("CMPLT", position, like(-1, position)), beyond)
        inside = build.cast(elementwise("NOT", outside), dtype)
        places = [axes[0], axes[2 + number], axes[4 + number]]
        pair = []
        for tap in linear_taps(clamped(position, 0, side.size - 1), side.size):
            assert tap.weight is not None
            weight = elementwise("MUL", tap.weight, inside)
            place = Place(_over(tap.place.data, places, shape), tap.place.offset)
            pair.append(Tap(place, _over(weight, places, shape)))
        taps.append(pair)
        count = _over(side.points, [index(output_axis(0, regions)), index(0)], list(here))
        counted.append(_over(elementwise("CMPLT", points, count), places, shape))
    lead: list[Place | Index] = [Place(_over(batch, [axes[0]], shape)), axes[1]]
    if mode == "avg":
        total = build.reduce("SUM", interpolate(x, lead, taps, shape), [4, 5])
        return apply("MUL", total, build.scalar(1 / (most[0] * most[1]), dtype))
    # the largest single product of a value and its weight, not the largest interpolated value
    best: Node | None = None
    for row in taps[0]:
        for column in taps[1]:
            assert row.weight is not None and column.weight is not None
            value = read_at(x, [*lead, row.place, column.place], shape)
            value = elementwise("MUL", value, elementwise("MUL", row.weight, column.weight))
            best = value if best is None else elementwise("MAX", best, value)
    assert best is not None
    valid = elementwise("AND", *counted)
    largest = build.reduce("MAX", elementwise("WHERE", valid, best, like(-np.inf, best)), [4, 5])
    return elementwise(
        "WHERE", elementwise("CMPEQ", largest, like(-np.inf, largest)), like(0, largest), largest
    )


def _adaptive_average(x: Node, batch: Node, sides: list[_Side]) -> Node:
    """Weights of all rows and columns, and two contractions."""
    rows, columns = (_weights(side, batch.shape[0]) for side in sides)
    regions, (_, channels, height, width) = batch.shape[0], x.shape
    shape = [regions, channels, width, sides[0].bins, height]
    r, c, w, p, h = (index(output_axis(i, d)) for i, d in enumerate(shape))
    values = read_at(x, [Place(_over(batch, [r], shape)), c, h, w], shape)
    product = elementwise("MUL", values, build.view(rows, [r, p, h], shape))
    bands = build.reduce("SUM", product, [4])  # [regions, C, W, height of the output]
    shape = [regions, channels, sides[0].bins, sides[1].bins, width]
    r, c, p, q, w = (index(output_axis(i, d)) for i, d in enumerate(shape))
    product = elementwise(
        "MUL", build.view(bands, [r, c, w, p], shape), build.view(columns, [r, q, w], shape)
    )
    return build.reduce("SUM", product, [4])


def _weights(side: _Side, regions: int) -> Node:
    """How much each position of an axis counts in each bin: [regions, bins, size]."""
    dtype = side.start.dtype
    shape = (regions, side.bins, side.size, NEIGHBOURS)
    flat = [index(output_axis(0, regions)), index(0)]
    step, points = (_over(n, flat, list(shape)) for n in (side.bin, side.points))
    single = elementwise("CMPLE", points, like(1, points))
    distance = elementwise("WHERE", single, like(1, step), elementwise("DIV", step, points))
    first = _samples(side, shape, like(0, step))
    here = _counted(shape, 2, dtype)
    before = elementwise("SUB", elementwise("SUB", here, like(1, here)), first)
    lowest = elementwise("FLOOR", elementwise("DIV", before, distance))
    number = elementwise("ADD", lowest, _counted(shape, 3, dtype))
    position = _samples(side, shape, number)
    near = clamped(position, 0, side.size - 1)
    weight = elementwise("SUB", like(1, near), elementwise("ABS", elementwise("SUB", here, near)))
    weight = elementwise("MAX", weight, like(0, weight))
    counts = [
        elementwise("CMPLE", like(0, number), number),
        elementwise("CMPLT", number, points),
        elementwise("CMPLE", like(-1, position), position),
        elementwise("CMPLE", position, like(side.size, position)),
    ]
    valid = elementwise("AND", elementwise("AND", *counts[:2]), elementwise("AND", *counts[2:]))
    total = build.reduce("SUM", elementwise("WHERE", valid, weight, like(0, weight)), [3])
    several = elementwise("MAX", side.points, like(1, side.points))
    return elementwise("DIV", total, _over(several, flat, list(total.shape)))


# ---- maximum over whole pixels


@onnx_op("MaxRoiPool", tolerance=EXACT)
def max_roi_pool(ctx: NodeContext, x: Node, rois: Node) -> Node:
    """Largest pixel in the bins of each region, whose first number is its image."""
    _check(ctx, x, rois, 5)
    height, width = ctx.integers("pooled_shape", REQUIRED, 2, 1)
    scale = ctx.number("spatial_scale", 1.0)
    regions = rois.shape[0]
    shape = [regions, x.shape[1], height, width]
    if 0 in shape or 0 in x.shape:
        return build.full(0, shape, x.dtype)
    wide = build.cast(rois, "float64" if rois.dtype == "float64" else "float32")
    batch = build.reshape(build.cast(clamped(_column(wide, 0), -1, x.shape[0]), "int32"), [regions])
    rows, columns = (
        _pixels(_column(wide, axis), _column(wide, axis + 2), scale, bins, x.shape[4 - axis])
        for axis, bins in ((2, height), (1, width))
    )
    # the largest of each row of a band first, then of its columns
    full = [regions, x.shape[1], height, x.shape[3], x.shape[2]]
    r, c, p, w, h = (index(output_axis(i, d)) for i, d in enumerate(full))
    values = read_at(x, [Place(_over(batch, [r], full)), c, h, w], full)
    nothing = like(-np.inf, values)
    bands = build.reduce("MAX", elementwise("WHERE", build.view(rows, [r, p, h], full), values, nothing), [4])
    full = [*shape, x.shape[3]]
    r, c, p, q, w = (index(output_axis(i, d)) for i, d in enumerate(full))
    values = build.view(bands, [r, c, p, w], full)
    inside = build.view(columns, [r, q, w], full)
    largest = build.reduce("MAX", elementwise("WHERE", inside, values, like(-np.inf, values)), [4])
    some = (
        build.reduce("MAX", build.cast(rows, "uint8"), [2]),
        build.reduce("MAX", build.cast(columns, "uint8"), [2]),
    )
    r, c, p, q = (index(output_axis(i, d)) for i, d in enumerate(shape))
    filled = elementwise("AND", build.view(some[0], [r, p], shape), build.view(some[1], [r, q], shape))
    return elementwise("WHERE", build.cast(filled, "bool"), largest, like(0, largest))


def _pixels(start: Node, end: Node, scale: float, bins: int, size: int) -> Node:
    """Which positions of an axis belong to which bin: bool [regions, bins, size]. Bins may overlap by one."""
    regions = start.shape[0]

    def rounded(x: Node) -> Node:  # halves away from zero, as C's round
        scaled = elementwise("MUL", x, like(scale, x))
        magnitude = elementwise("FLOOR", elementwise("ADD", elementwise("ABS", scaled), like(0.5, x)))
        return elementwise(
            "WHERE", elementwise("CMPLT", scaled, like(0, x)), elementwise("NEG", magnitude), magnitude
        )

    first = rounded(start)
    length = elementwise("ADD", elementwise("SUB", rounded(end), first), like(1, first))
    step = elementwise("DIV", elementwise("MAX", length, like(1, length)), like(bins, length))
    shape = (regions, bins, size)
    flat = [index(output_axis(0, regions)), index(0)]
    begin, step = (_over(n, flat, list(shape)) for n in (first, step))
    number, here = _counted(shape, 1, begin.dtype), _counted(shape, 2, begin.dtype)
    low = elementwise("ADD", elementwise("FLOOR", elementwise("MUL", number, step)), begin)
    high = elementwise("MUL", elementwise("ADD", number, like(1, number)), step)
    high = elementwise("ADD", elementwise("CEIL", high), begin)
    return elementwise("AND", elementwise("CMPLE", low, here), elementwise("CMPLT", here, high))


# ---- crops


@onnx_op("CropAndResize", domain="com.microsoft", tolerance=ROUNDED)
def crop_and_resize(ctx: NodeContext, x: Node, rois: Node, batch: Node, size: Node) -> Node:
    """Regions [y1, x1, y2, x2] in fractions of the image, resized to one size."""
    _check(ctx, x, rois, 4)
    _check_batch(ctx, batch, rois.shape[0])
    mode = ctx.string("mode", "bilinear", ("bilinear", "nearest"))
    outside_value = ctx.number("extrapolation_value", 0.0)
    outputs = ctx.constant_ints(size, "crop_size", 2)
    ctx.require(all(d >= 1 for d in outputs), f"'crop_size' must hold positive numbers, not {outputs}")
    regions = rois.shape[0]
    shape = [regions, x.shape[1], *outputs]
    if 0 in shape or 0 in x.shape:
        return build.full(outside_value, shape, x.dtype)
    wide = x.dtype if x.dtype in ("float32", "float64") else "float32"
    boxes = build.cast(rois, wide)
    axes = [index(output_axis(i, d)) for i, d in enumerate(shape)]
    taps: list[list[Tap]] = []
    outside: Node | None = None
    for axis, count in enumerate(outputs):
        length = x.shape[2 + axis]
        here = (regions, count)
        start, end = (build.expand(_column(boxes, place), here) for place in (axis, axis + 2))
        if count > 1:
            step = elementwise("MUL", elementwise("SUB", end, start), like((length - 1) / (count - 1), start))
            first = elementwise("MUL", start, like(length - 1, start))
            position = elementwise("ADD", first, elementwise("MUL", _counted(here, 1, wide), step))
        else:
            middle = elementwise("MUL", elementwise("ADD", start, end), like(0.5, start))
            position = elementwise("MUL", middle, like(length - 1, middle))
        beyond = elementwise("CMPLT", like(length - 1, position), position)
        beyond = elementwise("OR", elementwise("CMPLT", position, like(0, position)), beyond)
        places = [axes[0], axes[2 + axis]]
        beyond = _over(beyond, places, shape)
        outside = beyond if outside is None else elementwise("OR", outside, beyond)
        if mode == "nearest":  # halves away from zero; positions that count are not negative
            position = clamped(elementwise("ADD", position, like(0.5, position)), -1, length)
            made = [Tap(Place(build.cast(elementwise("FLOOR", position), "int32")))]
        else:
            made = linear_taps(position, length)
        taps.append(
            [
                Tap(
                    Place(_over(t.place.data, places, shape), t.place.offset),
                    None if t.weight is None else _over(t.weight, places, shape),
                )
                for t in made
            ]
        )
    lead: list[Place | Index] = [Place(_over(batch, [axes[0]], shape)), axes[1]]
    sampled = interpolate(build.cast(x, wide), lead, taps, shape)
    assert outside is not None
    return build.cast(elementwise("WHERE", outside, like(outside_value, sampled), sampled), x.dtype)
