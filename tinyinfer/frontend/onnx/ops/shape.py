"""Movement: operators that only change where values stand. All of them are views, and none copies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tinyinfer.frontend.onnx.blocks.places import read_places
from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import EXACT, onnx_op
from tinyinfer.frontend.onnx.values import Value
from tinyinfer.ir import build
from tinyinfer.ir.index import index
from tinyinfer.ir.node import Node, output_axis


@onnx_op("Identity", tolerance=EXACT, values=True)
def identity(ctx: NodeContext, x: Value) -> Value:
    """The input."""
    return x


# ---- reshape


def reshape_to(ctx: NodeContext, x: Node, wanted: Sequence[int], allow_zero: bool) -> Node:
    """ONNX Reshape: 0 keeps a dimension (unless `allow_zero`), one -1 takes what is left."""
    wanted = list(wanted)
    shape = []
    for i, d in enumerate(wanted):
        if d == 0 and not allow_zero:
            ctx.require(
                i < len(x.shape),
                f"the shape {wanted} keeps dimension {i} of {list(x.shape)}, which is not there",
            )
            d = x.shape[i]
        ctx.require(d >= -1, f"the shape {wanted} holds {d}")
        shape.append(d)
    if -1 in shape:
        ctx.require(shape.count(-1) == 1, f"the shape {wanted} holds more than one -1")
        rest = math.prod(d for d in shape if d != -1)
        ctx.require(rest != 0 and x.size % rest == 0, f"{list(x.shape)} cannot be reshaped to {wanted}")
        shape[shape.index(-1)] = x.size // rest
    ctx.require(math.prod(shape) == x.size, f"{list(x.shape)} cannot be reshaped to {wanted}")
    return build.reshape(x, shape)


@onnx_op("Reshape", until=4, tolerance=EXACT)
def reshape_by_attribute(ctx: NodeContext, x: Node) -> Node:
    """The same elements in the shape of an attribute."""
    return reshape_to(ctx, x, ctx.integers("shape", REQUIRED), False)


@onnx_op("Reshape", since=5, tolerance=EXACT)
def reshape(ctx: NodeContext, x: Node, shape: Node) -> Node:
    """The same elements in the shape of an input."""
    return reshape_to(ctx, x, ctx.constant_ints(shape, "shape"), ctx.flag("allowzero"))


@onnx_op("Flatten", tolerance=EXACT)
def flatten(ctx: NodeContext, x: Node) -> Node:
    """A matrix: the dimensions before `axis` by those from it on."""
    axis = ctx.integer("axis", 1)
    axis = axis if axis == len(x.shape) else ctx.axis(axis, len(x.shape))
    return build.reshape(x, [math.prod(x.shape[:axis]), math.prod(x.shape[axis:])])


@onnx_op("Transpose", tolerance=EXACT)
def transpose(ctx: NodeContext, x: Node) -> Node:
    """Axes in another order; reversed where none is given."""
    rank = len(x.shape)
    order = ctx.integers("perm", list(reversed(range(rank))), rank)
    ctx.require(
        sorted(order) == list(range(rank)), f"the attribute 'perm' {order} is no permutation of {rank} axes"
    )
    return build.permute(x, order)


def squeeze_axes(ctx: NodeContext, x: Node, axes: Sequence[int] | None) -> Node:
    """`x` without the axes named, or without all of size 1."""
    if axes is None:
        return build.reshape(x, [d for d in x.shape if d != 1])
    gone = ctx.axes(axes, len(x.shape))
    ctx.require(
        all(x.shape[a] == 1 for a in gone), f"the axes {gone} of {list(x.shape)} are not all of size 1"
    )
    return build.reshape(x, [d for i, d in enumerate(x.shape) if i not in gone])


@onnx_op("Squeeze", until=12, tolerance=EXACT)
def squeeze_by_attribute(ctx: NodeContext, x: Node) -> Node:
    """Axes of size 1 dropped; named by an attribute."""
    return squeeze_axes(ctx, x, ctx.integers("axes", None))


@onnx_op("Squeeze", since=13, tolerance=EXACT)
def squeeze(ctx: NodeContext, x: Node, axes: Node | None = None) -> Node:
    """Axes of size 1 dropped; named by an input."""
    return squeeze_axes(ctx, x, None if axes is None else ctx.constant_ints(axes, "axes"))


def unsqueeze_axes(ctx: NodeContext, x: Node, axes: Sequence[int]) -> Node:
    """`x` with axes of size 1 at the places `axes` of the result."""
    rank = len(x.shape) + len(axes)
    new = ctx.axes(axes, rank)
    rest = iter(x.shape)
    return build.reshape(x, [1 if i in new else next(rest) for i in range(rank)])


@onnx_op("Unsqueeze", until=12, tolerance=EXACT)
def unsqueeze_by_attribute(ctx: NodeContext, x: Node) -> Node:
    """Axes of size 1 inserted; named by an attribute."""
    return unsqueeze_axes(ctx, x, ctx.integers("axes", REQUIRED))


@onnx_op("Unsqueeze", since=13, tolerance=EXACT)
def unsqueeze(ctx: NodeContext, x: Node, axes: Node) -> Node:
    """Axes of size 1 inserted; named by an input."""
    return unsqueeze_axes(ctx, x, ctx.constant_ints(axes, "axes"))


@onnx_op("Expand", since=8, tolerance=EXACT)
def expand(ctx: NodeContext, x: Node, shape: Node) -> Node:
    """Broadcast to a shape, which may hold ones where the input is larger."""
    wanted = ctx.constant_ints(shape, "shape")
    ctx.require(all(d >= 0 for d in wanted), f"the shape {wanted} holds a negative size")
    return build.expand(x, build.broadcast_shape(x.shape, wanted))


@onnx_op("Tile", until=5, tolerance=EXACT)
def tile_one_axis(ctx: NodeContext, x: Node, tiles: Node, axis: Node) -> Node:
    """The input repeated along one axis."""
    repeats = [1] * len(x.shape)
    repeats[ctx.axis(int(ctx.constant_scalar(axis, "axis")), len(x.shape))] = int(
        ctx.constant_scalar(tiles, "tiles")
    )
    return _tiled(ctx, x, repeats)


@onnx_op("Tile", since=6, tolerance=EXACT)
def tile(ctx: NodeContext, x: Node, repeats: Node) -> Node:
    """The input repeated along every axis."""
    return _tiled(ctx, x, ctx.constant_ints(repeats, "repeats", len(x.shape)))


def _tiled(ctx: NodeContext, x: Node, repeats: Sequence[int]) -> Node:
    ctx.require(all(r >= 0 for r in repeats), f"the repeats {list(repeats)} hold a negative number")
    shape = [d * r for d, r in zip(x.shape, repeats)]
    return build.view(
        x,
        [
            index(output_axis(i, n)) % max(d, 1) if d != n else index(output_axis(i, n))
            for i, (n, d) in enumerate(zip(shape, x.shape))
        ],
        shape,
    )


# ---- concat, split, slice


@onnx_op("Concat", tolerance=EXACT)
def concat(ctx: NodeContext, *inputs: Node) -> Node:
    """The inputs side by side along an axis."""
    ctx.all_given(inputs)
    ctx.same_dtype(*inputs)
    rank = len(inputs[0].shape)
    ctx.require(
        all(len(x.shape) == rank for x in inputs),
        f"its inputs must be of one rank, not {[list(x.shape) for x in inputs]}",
    )
    axis = ctx.axis(ctx.integer("axis", 1 if ctx.opset < 4 else REQUIRED), rank)
    return build.concat(inputs, axis)


def _split(ctx: NodeContext, x: Node, sizes: Sequence[int], axis: int) -> list[Node]:
    ctx.require(
        all(s >= 0 for s in sizes) and sum(sizes) == x.shape[axis],
        f"the parts {list(sizes)} do not add up to {x.shape[axis]}, the size of axis {axis}",
    )
    ctx.require(len(sizes) >= ctx.outputs, f"there are {ctx.outputs} outputs for {len(sizes)} parts")
    parts, start = [], 0
    for size in sizes:
        starts, stops = [0] * len(x.shape), list(x.shape)
        starts[axis], stops[axis] = start, start + size
        parts.append(build.shrink(x, starts, stops))
        start += size
    return parts


def _even_parts(ctx: NodeContext, total: int, count: int, ragged: bool) -> list[int]:
    ctx.require(count == ctx.outputs, f"{count} parts are asked for, but there are {ctx.outputs} outputs")
    if not ragged:
        ctx.require(total % count == 0, f"{total} does not divide into {count} equal parts")
    size = -(-total // count)
    return [max(min(size, total - i * size), 0) for i in range(count)]


@onnx_op("Split", since=1, until=1, tolerance=EXACT)
def split_1(ctx: NodeContext, x: Node, sizes: Node | None = None) -> list[Node]:
    """Parts along an axis; sizes from an input or an attribute."""
    axis = ctx.axis(ctx.integer("axis", 0), len(x.shape))
    given = ctx.integers("split", None) if sizes is None else ctx.constant_ints(sizes, "split")
    return _split(ctx, x, given or _even_parts(ctx, x.shape[axis], ctx.outputs, False), axis)


@onnx_op("Split", since=2, until=12, tolerance=EXACT)
def split_by_attribute(ctx: NodeContext, x: Node) -> list[Node]:
    """Parts along an axis; sizes from an attribute, else equal ones."""
    axis = ctx.axis(ctx.integer("axis", 0), len(x.shape))
    return _split(
        ctx, x, ctx.integers("split", None) or _even_parts(ctx, x.shape[axis], ctx.outputs, False), axis
    )


@onnx_op("Split", since=13, tolerance=EXACT)
def split(ctx: NodeContext, x: Node, sizes: Node | None = None) -> list[Node]:
    """Parts along an axis; sizes from an input, else equal ones (the last smaller since opset 18)."""
    axis = ctx.axis(ctx.integer("axis", 0), len(x.shape))
    if sizes is not None:
        return _split(ctx, x, ctx.constant_ints(sizes, "split"), axis)
    count = ctx.integer("num_outputs", ctx.outputs)
    return _split(ctx, x, _even_parts(ctx, x.shape[axis], count, ctx.opset >= 18), axis)


def sliced(
    ctx: NodeContext,
    x: Node,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None,
    steps: Sequence[int] | None,
) -> Node:
    """numpy slicing with ONNX's clamping."""
    rank = len(x.shape)
    ctx.require(len(starts) == len(ends), f"{len(starts)} starts for {len(ends)} ends")
    where = ctx.axes(axes if axes is not None else range(len(starts)), rank)
    by = list(steps) if steps is not None else [1] * len(starts)
    ctx.require(
        len(where) == len(starts) and len(by) == len(starts),
        f"{len(starts)} starts need as many axes and steps",
    )
    ctx.require(all(by), "a step must not be 0")
    first, last, step = [0] * rank, list(x.shape), [1] * rank
    for start, end, axis, s in zip(starts, ends, where, by):
        first[axis], last[axis], step[axis] = slice(start, end, s).indices(x.shape[axis])
    return build.shrink(x, first, last, step)


@onnx_op("Slice", until=9, tolerance=EXACT)
def slice_by_attributes(ctx: NodeContext, x: Node) -> Node:
    """Part of the input; bounds from attributes."""
    starts = ctx.integers("starts", REQUIRED)
    return sliced(
        ctx, x, starts, ctx.integers("ends", REQUIRED, len(starts)), ctx.integers("axes", None), None
    )


@onnx_op("Slice", since=10, tolerance=EXACT)
def slice_by_inputs(
    ctx: NodeContext, x: Node, starts: Node, ends: Node, axes: Node | None = None, steps: Node | None = None
) -> Node:
    """Part of the input; bounds, axes and steps from inputs."""
    return sliced(
        ctx,
        x,
        ctx.constant_ints(starts, "starts"),
        ctx.constant_ints(ends, "ends"),
        None if axes is None else ctx.constant_ints(axes, "axes"),
        None if steps is None else ctx.constant_ints(steps, "steps"),
    )


# ---- pad


_PAD_MODES = ("constant", "reflect", "edge", "wrap")


def padded(ctx: NodeContext, x: Node, pads: Sequence[int], mode: str, value: float | int | bool) -> Node:
    """`x` with `pads` (before of each axis, then after) around it; negative ones cut off."""
    rank = len(x.shape)
    before, after = list(pads[:rank]), list(pads[rank:])
    shape = [b + d + a for b, d, a in zip(before, x.shape, after)]
    ctx.require(all(d >= 0 for d in shape), f"pads {list(pads)} leave nothing of {list(x.shape)}")
    if mode == "constant":
        return build.pad(x, before, after, value)
    places: dict[int, np.ndarray] = {}
    for axis in range(rank):
        if before[axis] or after[axis]:
            places[axis] = _mirrored(ctx, x.shape[axis], before[axis], after[axis], mode)
    return read_places(x, places)


def _mirrored(ctx: NodeContext, size: int, before: int, after: int, mode: str) -> np.ndarray:
    """Which positions of an axis stand in its padded form; what is cut off is not mirrored either."""
    first, kept = max(-before, 0), size - max(-before, 0) - max(-after, 0)
    ctx.table_size(kept + max(before, 0) + max(after, 0), "the padded size")
    ctx.require(kept > 0, f"pads {before} and {after} leave nothing of an axis of size {size} to repeat")
    places = np.arange(-max(before, 0), kept + max(after, 0))
    if mode == "edge":
        places = places.clip(0, kept - 1)
    elif mode == "wrap":
        places %= kept
    elif kept == 1:
        places[:] = 0
    else:
        period = 2 * (kept - 1)
        places %= period
        places = np.where(places < kept, places, period - places)
    return places + first


@onnx_op("Pad", until=10, tolerance=EXACT)
def pad_by_attributes(ctx: NodeContext, x: Node) -> Node:
    """The input with padding around it; amounts from an attribute."""
    name = "paddings" if ctx.opset < 2 and ctx.has("paddings") else "pads"
    pads = ctx.integers(name, REQUIRED, 2 * len(x.shape))
    return padded(ctx, x, pads, ctx.string("mode", "constant", _PAD_MODES[:3]), ctx.number("value", 0.0))


@onnx_op("Pad", since=11, tolerance=EXACT)
def pad(ctx: NodeContext, x: Node, pads: Node, value: Node | None = None, axes: Node | None = None) -> Node:
    """The input with padding around it; amounts, value and axes from inputs."""
    rank = len(x.shape)
    mode = ctx.string("mode", "constant", _PAD_MODES)
    where = list(range(rank)) if axes is None else ctx.axes(ctx.constant_ints(axes, "axes"), rank)
    # some exporters write pads as a matrix of one row
    amounts = ctx.constant_ints(build.reshape(pads, [pads.size]), "pads", 2 * len(where))
    complete = [0] * (2 * rank)
    for i, axis in enumerate(where):
        complete[axis], complete[rank + axis] = amounts[i], amounts[len(where) + i]
    if value is not None and mode == "constant":
        ctx.same_dtype(x, value)
        known = ctx.known(value)
        if known is None:
            return _padded_by_input(ctx, x, complete, build.reshape(value, ()))
        return padded(ctx, x, complete, mode, ctx.constant_scalar(value, "constant_value"))
    return padded(ctx, x, complete, mode, 0)


def _padded_by_input(ctx: NodeContext, x: Node, pads: list[int], value: Node) -> Node:
    """Constant padding whose value is fed at run time."""
    inside = padded(ctx, build.full(True, x.shape, "bool"), pads, "constant", False)
    return build.apply("WHERE", inside, padded(ctx, x, pads, "constant", 0), value)


@onnx_op("CenterCropPad", since=18, tolerance=EXACT)
def center_crop_pad(ctx: NodeContext, x: Node, shape: Node) -> Node:
    """Axes cut or filled with zeros to given sizes, evenly on both sides."""
    rank = len(x.shape)
    given = ctx.integers("axes", None)
    axes = list(range(rank)) if given is None else ctx.axes(given, rank)
    sizes = ctx.constant_ints(shape, "shape", len(axes))
    ctx.require(all(d >= 0 for d in sizes), f"the shape {sizes} holds a negative size")
    before, after = [0] * rank, [0] * rank
    for axis, size in zip(axes, sizes):
        # of an odd number, one more is cut off or added behind
        extra = size - x.shape[axis]
        before[axis] = extra // 2 if extra >= 0 else -(-extra // 2)
        after[axis] = extra - before[axis]
    return build.pad(x, before, after)


# ---- blocks


@onnx_op("DepthToSpace", tolerance=EXACT)
def depth_to_space(ctx: NodeContext, x: Node) -> Node:
    """Blocks of channels laid out as squares of pixels."""
    n, c, h, w, b = _blocks(ctx, x)
    ctx.require(c % (b * b) == 0, f"{c} channels do not divide into blocks of {b} x {b}")
    if ctx.string("mode", "DCR", ("DCR", "CRD")) == "DCR":
        split = build.permute(build.reshape(x, [n, b, b, c // (b * b), h, w]), [0, 3, 4, 1, 5, 2])
    else:
        split = build.permute(build.reshape(x, [n, c // (b * b), b, b, h, w]), [0, 1, 4, 2, 5, 3])
    return build.reshape(split, [n, c // (b * b), h * b, w * b])


@onnx_op("SpaceToDepth", tolerance=EXACT)
def space_to_depth(ctx: NodeContext, x: Node) -> Node:
    """Squares of pixels laid out as blocks of channels."""
    column_first = ctx.string("mode", "DCR", ("DCR", "CRD")) == "CRD"
    n, c, h, w, b = _blocks(ctx, x)
    ctx.require(h % b == 0 and w % b == 0, f"{h} x {w} does not divide into blocks of {b}")
    split = build.permute(
        build.reshape(x, [n, c, h // b, b, w // b, b]),
        [0, 1, 3, 5, 2, 4] if column_first else [0, 3, 5, 1, 2, 4],
    )
    return build.reshape(split, [n, c * b * b, h // b, w // b])


def _blocks(ctx: NodeContext, x: Node) -> tuple[int, int, int, int, int]:
    ctx.require(len(x.shape) == 4, f"the input must be [N, C, H, W], not {list(x.shape)}")
    n, c, h, w = x.shape
    return n, c, h, w, ctx.integer("blocksize", REQUIRED, minimum=1)
