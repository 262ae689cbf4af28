"""Resize and Upsample: each axis separately becomes taps (positions and weights), known during the import.

Nearest is one tap, linear two, cubic four, antialiasing as many as the shrunken filter spans.
Coordinates are computed in float32, as onnxruntime does, so that ties fall to the same side.
Source: ONNX Resize 10, 11, 13, 18, 19 and Upsample 7, 9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tinyinfer.frontend.onnx.blocks.places import read_places
from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import ROUNDED, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import is_float
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.node import Node

MAX_DIRECT_TAPS = 8
"""With at most this many taps in all, they are read at once; with more, one axis is done after the other."""

NEARLY = 1e-6
"""A coordinate so near the middle of two pixels is in the middle, as onnxruntime has it: 7 / 2 computed in
float32 from the scale 2 / 7 is not."""


@dataclass(frozen=True)
class AxisResize:
    """One axis: from `size` to `output`, by `scale`, within the region `start … end` (fractions)."""

    axis: int
    size: int
    output: int
    scale: float
    start: float = 0.0
    end: float = 1.0

    @property
    def length(self) -> float:
        """`scale · size`, of which `output` is the whole part; whole if it is so but for rounding."""
        wide = self.scale * self.size
        return float(round(wide)) if abs(wide - round(wide)) < 1e-4 else wide


@dataclass(frozen=True)
class Method:
    """How to resize, in ONNX's words."""

    mode: str
    coordinates: str
    nearest: str
    cubic: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    extrapolation: float = 0.0


@dataclass(frozen=True)
class Taps:
    """Positions and weights of one axis, both [taps, output]; `outside` marks extrapolated positions."""

    axis: int
    places: np.ndarray
    weights: np.ndarray
    outside: np.ndarray


def original_coordinates(job: AxisResize, how: str) -> np.ndarray:
    """Where each output position lies in the input (float32), by ONNX's coordinate_transformation_mode."""
    f = np.float32
    x = np.arange(job.output, dtype=f)
    scale, size, output = f(job.scale), job.size, job.output
    if how == "asymmetric":
        return x / scale
    if how == "align_corners":
        # ONNX defines scale = length_resized / length_original, and its tests divide by that length, which
        # may be fractional; onnxruntime by that of the output. They are one for sizes and whole lengths.
        return x * f(size - 1) / f(job.length - 1) if output > 1 else x * 0
    if how == "tf_half_pixel_for_nn":
        return (x + f(0.5)) / scale
    if how == "tf_crop_and_resize":
        if output > 1:
            return f(job.start) * f(size - 1) + x * f(job.end - job.start) * f(size - 1) / f(output - 1)
        return x * 0 + f(0.5) * f(job.start + job.end) * f(size - 1)
    if how == "half_pixel_symmetric":  # the one that onnxruntime computes in double precision
        adjustment = float(f(output) / (scale * f(size)))
        wide = size / 2 * (1 - adjustment) + (np.arange(output) + 0.5) / float(scale) - 0.5
        return wide.astype(f)
    if how == "pytorch_half_pixel" and output == 1:
        return x * 0
    return (x + f(0.5)) / scale - f(0.5)


def _nearest(x: np.ndarray, how: str, shrinking: bool) -> np.ndarray:
    if how == "simple":  # before opset 11
        return np.ceil(x) if shrinking else np.floor(x)
    if how == "floor":
        return np.floor(x)
    if how == "ceil":
        return np.ceil(x)
    floor, half = np.floor(x), np.float32(0.5)
    tie = np.abs(x - floor - half) < NEARLY
    return np.where(tie, floor + (how == "round_prefer_ceil"), np.floor(x + half))


def _linear_filter(distance: np.ndarray, a: float) -> np.ndarray:
    return np.clip(1 - np.abs(distance), 0, 1)


def _cubic_filter(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel with coefficient a."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def axis_taps(job: AxisResize, method: Method) -> Taps:
    """Positions (clamped to the axis) and weights that make each output position."""
    x = original_coordinates(job, method.coordinates)
    last = job.size - 1
    outside = np.zeros(job.output, bool)
    if method.coordinates == "tf_crop_and_resize":
        outside = (x < 0) | (x > last)
    if method.mode == "nearest":
        places = _nearest(x, method.nearest, job.scale < 1).clip(0, last).astype(np.int64)
        return Taps(job.axis, places[None], np.ones((1, job.output)), outside)
    kernel, reach = (_linear_filter, 1) if method.mode == "linear" else (_cubic_filter, 2)
    shrink = min(float(job.scale), 1.0) if method.antialias else 1.0
    x = x.astype(np.float64)
    # the tap left of x is the last one strictly below it
    left = np.ceil(x) - 1
    first = math.floor(-reach / shrink) + 1
    offsets = np.arange(first, 2 - first)
    places = left + offsets[:, None]
    weights = kernel((places - x) * shrink, method.cubic)
    if method.exclude_outside:
        weights = np.where((places < 0) | (places > last), 0.0, weights)
    total = weights.sum(0)
    weights = weights / np.where(total == 0, 1, total)
    return Taps(job.axis, places.clip(0, last).astype(np.int64), weights, outside)


def _weighted(x: Node, taps: Sequence[Taps]) -> Node:
    """The sum over the taps of all the given axes, nested axis by axis, each tap one view."""

    def level(depth: int, places: dict[int, np.ndarray]) -> Node:
        if depth == len(taps):
            return read_places(x, places)
        here = taps[depth]
        total: Node | None = None
        for place, weight in zip(here.places, here.weights):
            if not weight.any():
                continue
            part = level(depth + 1, {**places, here.axis: place})
            if not (weight == 1).all():
                shape = [len(weight) if i == here.axis else 1 for i in range(len(part.shape))]
                factor = build.constant(weight.astype(x.dtype).reshape(shape))
                part = elementwise("MUL", part, build.expand(factor, part.shape))
            total = part if total is None else elementwise("ADD", total, part)
        return total if total is not None else build.full(0, _output_shape(x, taps), x.dtype)

    return level(0, {})


def _output_shape(x: Node, taps: Sequence[Taps]) -> list[int]:
    shape = list(x.shape)
    for t in taps:
        shape[t.axis] = t.places.shape[1]
    return shape


def resize(x: Node, jobs: Sequence[AxisResize], method: Method) -> Node:
    """`x` with the given axes resized; integers are computed in float32 and truncated back."""
    if not jobs or x.size == 0:
        return (
            build.full(
                0, [next((j.output for j in jobs if j.axis == i), d) for i, d in enumerate(x.shape)], x.dtype
            )
            if x.size == 0
            else x
        )
    if method.mode != "nearest" and not is_float(x):
        return _resized_integers(x, jobs, method)
    taps = [axis_taps(job, method) for job in jobs]
    result = x
    if math.prod(len(t.places) for t in taps) <= MAX_DIRECT_TAPS:
        result = _weighted(result, taps)
    else:
        for t in taps:
            result = _weighted(result, [t])
    for t in taps:
        if t.outside.any():
            shape = [len(t.outside) if i == t.axis else 1 for i in range(len(x.shape))]
            mask = build.constant(t.outside.reshape(shape))
            result = build.apply("WHERE", mask, build.scalar(method.extrapolation, x.dtype), result)
    return result


def _resized_integers(x: Node, jobs: Sequence[AxisResize], method: Method) -> Node:
    """In single precision; as onnxruntime, truncated back, or with antialiasing rounded after each axis.

    The last axis comes first then, as in Pillow, after which that kernel is made.
    """
    if not method.antialias:
        wide = resize(build.cast(x, "float32"), jobs, method)
        return build.cast(_within(wide, x.dtype), x.dtype)
    for job in sorted(jobs, key=lambda j: -j.axis):
        wide = resize(build.cast(x, "float32"), [job], method)
        near = elementwise("FLOOR", build.apply("ADD", wide, build.scalar(0.5, "float32")))
        x = build.cast(_within(near, x.dtype), x.dtype)
    return x


def _within(x: Node, dtype: str) -> Node:
    """`x` limited to what `dtype` holds; the cubic kernel overshoots."""
    if dtype == "bool":
        return x
    limits = np.iinfo(dtype)
    low, high = build.scalar(limits.min, x.dtype), build.scalar(limits.max, x.dtype)
    return build.apply("MIN", build.apply("MAX", x, low), high)


# ---- ONNX signatures


def _by_scales(ctx: NodeContext, x: Node, scales: Sequence[float], axes: Sequence[int]) -> list[AxisResize]:
    ctx.require(len(scales) == len(axes), f"{len(scales)} scales for {len(axes)} axes of {list(x.shape)}")
    ctx.require(
        all(math.isfinite(s) and s > 0 for s in scales), f"the scales {list(scales)} must be positive"
    )
    jobs = []
    for axis, scale in zip(axes, scales):
        size = x.shape[axis]
        with np.errstate(over="ignore"):
            wide = float(np.float32(size) * np.float32(scale))
        ctx.require(math.isfinite(wide), f"the scale {scale} is too large")
        output = math.floor(wide)
        jobs.append(AxisResize(axis, size, output, scale))
    return jobs


def _by_sizes(ctx: NodeContext, x: Node, sizes: Sequence[int], axes: Sequence[int]) -> list[AxisResize]:
    ctx.require(len(sizes) == len(axes), f"{len(sizes)} sizes for {len(axes)} axes of {list(x.shape)}")
    ctx.require(all(s >= 0 for s in sizes), f"the sizes {list(sizes)} must not be negative")
    ctx.require(all(x.shape[a] > 0 for a in axes), f"an axis of {list(x.shape)} is empty")
    policy = ctx.string("keep_aspect_ratio_policy", "stretch", ("stretch", "not_larger", "not_smaller"))
    scales = [s / x.shape[a] for a, s in zip(axes, sizes)]
    if policy == "stretch":
        return [AxisResize(a, x.shape[a], s, f) for a, s, f in zip(axes, sizes, scales)]
    scale = min(scales) if policy == "not_larger" else max(scales)
    return [AxisResize(a, x.shape[a], math.floor(scale * x.shape[a] + 0.5), scale) for a in axes]


def _changed(ctx: NodeContext, jobs: Sequence[AxisResize], method: Method) -> list[AxisResize]:
    """The axes that are not left as they are."""
    for j in jobs:
        spread = math.ceil(1 / j.scale) if method.antialias and 0 < j.scale < 1 else 1
        ctx.table_size(max(j.output, 1) * spread, "the table of size")
    crop = method.coordinates == "tf_crop_and_resize"
    return [j for j in jobs if j.output != j.size or j.scale != 1 or (crop and (j.start, j.end) != (0, 1))]


_LEGACY = Method("nearest", "asymmetric", "simple")


def _legacy(ctx: NodeContext, x: Node, scales: Sequence[float]) -> Node:
    mode = ctx.string("mode", "nearest", ("nearest", "linear", "bilinear"))
    method = replace(_LEGACY, mode="linear" if mode == "bilinear" else mode)
    return resize(x, _changed(ctx, _by_scales(ctx, x, scales, range(len(x.shape))), method), method)


@onnx_op("Upsample", since=1, until=6, tolerance=ROUNDED)
def upsample_1(ctx: NodeContext, x: Node) -> Node:
    """Height and width enlarged by attributes."""
    ctx.require(len(x.shape) == 4, f"the input must be [N, C, H, W], not {list(x.shape)}")
    return _legacy(
        ctx, x, [1.0, 1.0, ctx.number("height_scale", REQUIRED), ctx.number("width_scale", REQUIRED)]
    )


@onnx_op("Upsample", since=7, until=8, tolerance=ROUNDED)
def upsample_by_attribute(ctx: NodeContext, x: Node) -> Node:
    """Every axis enlarged by scales from an attribute."""
    return _legacy(ctx, x, ctx.numbers("scales", REQUIRED))


@onnx_op("Upsample", since=9, tolerance=ROUNDED)
def upsample(ctx: NodeContext, x: Node, scales: Node) -> Node:
    """Every axis enlarged by scales from an input."""
    return _legacy(ctx, x, _floats(ctx, scales, "scales"))


@onnx_op("Resize", since=10, until=10, tolerance=ROUNDED)
def resize_10(ctx: NodeContext, x: Node, scales: Node) -> Node:
    """Every axis resized by scales from an input, coordinates from the corner."""
    return _legacy(ctx, x, _floats(ctx, scales, "scales"))


def _floats(ctx: NodeContext, x: Node, what: str) -> list[float]:
    return [float(v) for v in ctx.constant(x, what).reshape(-1)]


_COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)
_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@onnx_op("Resize", since=11, tolerance=ROUNDED)
def resize_11(
    ctx: NodeContext, x: Node, roi: Node | None = None, scales: Node | None = None, sizes: Node | None = None
) -> Node:
    """Axes resized by scales or to sizes, in any of ONNX's modes."""
    rank = len(x.shape)
    method = Method(
        mode=ctx.string("mode", "nearest", ("nearest", "linear", "cubic")),
        coordinates=ctx.string("coordinate_transformation_mode", "half_pixel", _COORDINATES),
        nearest=ctx.string("nearest_mode", "round_prefer_floor", _NEAREST),
        cubic=ctx.number("cubic_coeff_a", -0.75),
        exclude_outside=ctx.flag("exclude_outside"),
        antialias=ctx.flag("antialias"),
        extrapolation=ctx.number("extrapolation_value", 0.0),
    )
    axes = ctx.integers("axes", None)
    axes = list(range(rank)) if axes is None else ctx.axes(axes, rank)
    given_scales = scales is not None and scales.size > 0
    given_sizes = sizes is not None and sizes.size > 0
    ctx.require(given_scales != given_sizes, "exactly one of 'scales' and 'sizes' is expected")
    if given_sizes and sizes is not None:
        jobs = _by_sizes(ctx, x, ctx.constant_ints(sizes, "sizes"), axes)
    else:
        assert scales is not None
        jobs = _by_scales(ctx, x, _floats(ctx, scales, "scales"), axes)
    if method.coordinates == "tf_crop_and_resize":
        ctx.require(roi is not None, "the input 'roi' is missing")
        region = _floats(ctx, roi, "roi") if roi is not None else []
        ctx.require(
            len(region) == 2 * len(axes), f"'roi' must hold {2 * len(axes)} numbers, not {len(region)}"
        )
        jobs = [replace(j, start=region[i], end=region[len(axes) + i]) for i, j in enumerate(jobs)]
    return resize(x, _changed(ctx, jobs, method), method)
