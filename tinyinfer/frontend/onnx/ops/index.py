"""Indexed reads: Gather and its relatives. Evenly spaced constant indices become plain views."""

from __future__ import annotations

import numpy as np

from tinyinfer.frontend.onnx.blocks.places import pick, read_places
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import EXACT, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import like
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.index import Slot, index
from tinyinfer.ir.node import Node, output_axis

MAX_RUNS = 4
"""Constant indices of at most this many evenly spaced runs are views; others go through an index table."""


def wrapped(ctx: NodeContext, indices: Node, size: int, what: str = "indices") -> Node:
    """Indices with negative ones counted from the end; constant ones are checked against `size`."""
    ctx.require(indices.dtype in ("int32", "int64"), f"'{what}' must be int32 or int64, not {indices.dtype}")
    known = ctx.known(indices)
    if known is not None:
        if known.size and (int(known.min()) < -size or int(known.max()) >= size):
            bad = int(known.min()) if int(known.min()) < -size else int(known.max())
            ctx.fail(f"'{what}' holds {bad}, which is out of range for an axis of size {size}")
        return build.constant(np.where(known < 0, known + size, known).astype(indices.dtype))
    negative = elementwise("CMPLT", indices, like(0, indices))
    return elementwise("WHERE", negative, elementwise("ADD", indices, like(size, indices)), indices)


def _runs(places: np.ndarray) -> int:
    """How many evenly spaced runs a list of positions consists of, at most."""
    if places.size < 3:
        return 1
    return 1 + int(np.count_nonzero(np.diff(np.diff(places))))


@onnx_op("Gather", tolerance=EXACT)
def gather(ctx: NodeContext, x: Node, indices: Node) -> Node:
    """Slices of x along an axis at the given positions."""
    ctx.require(len(x.shape) >= 1, "its first input must not be a scalar")
    axis = ctx.axis(ctx.integer("axis", 0), len(x.shape))
    places = wrapped(ctx, indices, x.shape[axis])
    known = ctx.known(places)
    if known is None:
        return build.gather(x, places, axis)
    flat = known.reshape(-1)
    few = 1 < _runs(flat) <= MAX_RUNS
    picked = pick(x, axis, flat.tolist()) if few else read_places(x, {axis: flat})
    return build.reshape(picked, [*x.shape[:axis], *known.shape, *x.shape[axis + 1 :]])


@onnx_op("GatherElements", since=11, tolerance=EXACT)
def gather_elements(ctx: NodeContext, x: Node, indices: Node) -> Node:
    """One element of x for each index, at its own position on the other axes."""
    rank = len(x.shape)
    ctx.require(
        rank >= 1 and len(indices.shape) == rank,
        f"its inputs must be of one rank, not {list(x.shape)} and {list(indices.shape)}",
    )
    axis = ctx.axis(ctx.integer("axis", 0), rank)
    ctx.require(
        all(i == axis or a <= b for i, (a, b) in enumerate(zip(indices.shape, x.shape))),
        f"indices of shape {list(indices.shape)} reach outside of {list(x.shape)}",
    )
    places = wrapped(ctx, indices, x.shape[axis])
    shape = indices.shape
    reads = [index(output_axis(i, d)) for i, d in enumerate(shape)]
    reads[axis] = index(Slot(0, 0, x.shape[axis] - 1))
    return build.indexed_view(x, reads, shape, [places])


@onnx_op("GatherND", since=11, tolerance=EXACT)
def gather_nd(ctx: NodeContext, x: Node, indices: Node) -> Node:
    """Slices of x at index tuples, which stand along the last axis of `indices`."""
    batch = ctx.integer("batch_dims", 0, minimum=0)
    ctx.require(indices.dtype == "int64", f"'indices' must be int64, not {indices.dtype}")
    ctx.require(
        len(indices.shape) >= 1 and batch < min(len(x.shape), len(indices.shape)),
        f"batch_dims {batch} does not fit {list(x.shape)} and {list(indices.shape)}",
    )
    ctx.require(x.shape[:batch] == indices.shape[:batch], "the batch dimensions of its inputs differ")
    depth = indices.shape[-1]
    ctx.require(1 <= depth <= len(x.shape) - batch, f"index tuples of {depth} do not fit {list(x.shape)}")
    outer, inner = indices.shape[:-1], x.shape[batch + depth :]
    shape = (*outer, *inner)
    reads = [index(output_axis(i, d)) for i, d in enumerate(outer[:batch])]
    slots = []
    for i in range(depth):
        column = build.shrink(indices, [0] * len(outer) + [i], [*outer, i + 1])
        places = wrapped(ctx, build.reshape(column, outer), x.shape[batch + i])
        slots.append(build.view(places, [index(output_axis(a, d)) for a, d in enumerate(outer)], shape))
        reads.append(index(Slot(i, 0, x.shape[batch + i] - 1)))
    reads += [index(output_axis(len(outer) + i, d)) for i, d in enumerate(inner)]
    return build.indexed_view(x, reads, shape, slots)


@onnx_op("ReverseSequence", since=10, tolerance=EXACT)
def reverse_sequence(ctx: NodeContext, x: Node, lengths: Node) -> Node:
    """The first elements of each sequence backwards, as many as its length; the rest as they are."""
    ctx.require(len(x.shape) >= 2, f"the input must be of rank 2 or more, not {list(x.shape)}")
    time, batch = ctx.integer("time_axis", 0, choices=(0, 1)), ctx.integer("batch_axis", 1, choices=(0, 1))
    ctx.require(time != batch, f"the time axis and the batch axis are both {time}")
    steps, count = x.shape[time], x.shape[batch]
    ctx.require(
        lengths.dtype == "int64" and lengths.shape == (count,),
        f"'sequence_lens' must be int64 of shape [{count}], not {lengths.dtype}{list(lengths.shape)}",
    )
    known = ctx.known(lengths)
    if known is not None and known.size:
        low, high = int(known.min()), int(known.max())
        ctx.require(0 <= low and high <= steps, f"'sequence_lens' holds {low} to {high}, beyond 0 to {steps}")
    # the place of every time step in every sequence, shared by whatever else x holds
    shape = (count, steps)
    here = build.iota(shape, 1)
    length = build.view(lengths, [index(output_axis(0, count))], shape)
    mirrored = elementwise("SUB", elementwise("SUB", length, like(1, length)), here)
    place = elementwise("WHERE", elementwise("CMPLT", here, length), mirrored, here)
    reads = [index(output_axis(i, d)) for i, d in enumerate(x.shape)]
    spread = build.view(place, [reads[batch], reads[time]], x.shape)
    reads[time] = index(Slot(0, 0, max(steps - 1, 0)))
    return build.indexed_view(x, reads, x.shape, [spread])


def _one_hot_depth(ctx: NodeContext, depth: Node) -> int:
    value = int(ctx.constant_scalar(depth, "depth"))
    limit = ctx.importer.limits.max_elements
    ctx.require(value > 0, f"'depth' must be positive, not {value}")
    ctx.require(value <= limit, f"'depth' {value} is over the limit of {limit}")
    return value


@onnx_op("OneHot", since=9, tolerance=EXACT)
def one_hot(ctx: NodeContext, indices: Node, depth: Node, values: Node) -> Node:
    """values[1] where the position along a new axis equals the index, values[0] elsewhere."""
    size = _one_hot_depth(ctx, depth)
    ctx.require(values.shape == (2,), f"'values' must hold two numbers, not {list(values.shape)}")
    rank = len(indices.shape) + 1
    axis = ctx.axis(ctx.integer("axis", -1), rank)
    shape = (*indices.shape[:axis], size, *indices.shape[axis:])
    at = build.cast(indices, "int64")
    at = elementwise(
        "WHERE", elementwise("CMPLT", at, like(0, at)), elementwise("ADD", at, like(size, at)), at
    )
    spread = build.expand(build.reshape(at, [*indices.shape[:axis], 1, *indices.shape[axis:]]), shape)
    here = build.position(index(output_axis(axis, size)), shape, "int64")
    off = build.reshape(build.shrink(values, [0], [1]), ())
    on = build.reshape(build.shrink(values, [1], [2]), ())
    return build.apply("WHERE", elementwise("CMPEQ", spread, here), on, off)
