"""Indexed writes: ScatterND, ScatterElements and Scatter.

Constant indices that make up a block of the data, the form in which slice assignment is exported, are pure
movement: views, selections and concatenations, which fuse. All else is a SCATTER.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, EXACT, onnx_op
from tinyinfer.frontend.onnx.ops.index import wrapped
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.index import Index, Slot, index
from tinyinfer.ir.node import Node, output_axis
from tinyinfer.ir.ops import reduce_identity

COMBINE = {"none": "SET", "add": "SUM", "mul": "PROD", "max": "MAX", "min": "MIN"}
JOIN = {"SUM": "ADD", "PROD": "MUL", "MAX": "MAX", "MIN": "MIN"}


def _combination(ctx: NodeContext) -> str:
    if ctx.opset < 16:
        return "SET"
    choices = list(COMBINE) if ctx.opset >= 18 else ["none", "add", "mul"]
    return COMBINE[ctx.string("reduction", "none", choices)]


def _here(shape: Sequence[int]) -> list[Index]:
    return [index(output_axis(i, d)) for i, d in enumerate(shape)]


# ---- blocks


@dataclass(frozen=True)
class Block:
    """Evenly spaced places along every axis: `start + step · i` for i below `count`."""

    start: tuple[int, ...]
    step: tuple[int, ...]
    count: tuple[int, ...]

    def partial(self, shape: Sequence[int]) -> list[int]:
        """The axes of `shape` that the block does not fill."""
        return [i for i, d in enumerate(shape) if self.count[i] != d]


def _even(places: np.ndarray) -> tuple[int, int] | None:
    """(start, step) of increasing, evenly spaced places, or None."""
    steps = np.diff(places)
    if not len(steps):
        return int(places[0]), 1
    return (int(places[0]), int(steps[0])) if steps[0] > 0 and (steps == steps[0]).all() else None


def find_block(tuples: np.ndarray) -> Block | None:
    """The block whose places, in row-major order, are the index tuples [count, depth]; None if there is none.
    """
    axes = [np.unique(column) for column in tuples.T]
    if prod(len(a) for a in axes) != len(tuples):
        return None
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(tuples.shape)
    if not (grid == tuples).all():
        return None
    even = [_even(a) for a in axes]
    if any(e is None for e in even):
        return None
    found = [e for e in even if e is not None]
    return Block(tuple(s for s, _ in found), tuple(d for _, d in found), tuple(map(len, axes)))


def put_block(data: Node, updates: Node, block: Block, combine: str) -> Node:
    """`data` with `updates`, whose shape is the block's, put into its block or joined to what is there."""
    partial = block.partial(data.shape)
    if combine == "SET":
        if not partial:
            return updates
        if len(partial) == 1 and block.step[partial[0]] == 1:
            axis = partial[0]
            start, stop = block.start[axis], block.start[axis] + block.count[axis]
            after = cut(data, axis, stop, data.shape[axis])
            return build.concat([*cut(data, axis, 0, start), updates, *after], axis)
    reads: list[Index] = []
    guards: list[tuple[Index, int]] = []
    for here, start, step, count in zip(_here(data.shape), block.start, block.step, block.count):
        reads.append((here - start) // step)
        guards.append((here - start, (count - 1) * step + 1))
        if step > 1:
            guards.append(((here - start) % step, 1))
    if combine != "SET":
        spread = build.view(updates, reads, data.shape, guards, _nothing(combine, data.dtype))
        return elementwise(JOIN[combine], data, spread)
    inside = build.view(build.scalar(True, "bool"), [], data.shape, guards, False)
    return elementwise("WHERE", inside, build.view(updates, reads, data.shape, guards), data)


def _nothing(combine: str, dtype: str) -> float | int | bool:
    """What changes nothing, not even the sign of a zero, when it is joined."""
    return -0.0 if combine == "SUM" and "float" in dtype else reduce_identity(combine, dtype)


def cut(x: Node, axis: int, start: int, stop: int) -> list[Node]:
    """The parts of `x` that lie at `start` to `stop` along an axis; those of a CONCAT by themselves."""
    if start >= stop:
        return []
    if x.op != "CONCAT" or x.attrs != axis:
        starts, stops = [0] * len(x.shape), list(x.shape)
        starts[axis], stops[axis] = start, stop
        return [build.shrink(x, starts, stops)]
    parts, offset = [], 0
    for part in x.inputs:
        size = part.shape[axis]
        parts += cut(part, axis, max(0, start - offset), min(size, stop - offset))
        offset += size
    return parts


# ---- the operators


def put_rows(data: Node, rows: np.ndarray, updates: Node, combine: str) -> Node:
    """`updates` [count, *inner] put at constant index tuples [count, depth], all within `data`."""
    depth = rows.shape[1]
    outer, inner = data.shape[:depth], data.shape[depth:]
    block = find_block(rows)
    if block is not None:
        whole = Block(
            (*block.start, *(0 for _ in inner)), (*block.step, *(1 for _ in inner)), (*block.count, *inner)
        )
        return put_block(data, build.reshape(updates, whole.count), whole, combine)
    total = prod(outer)
    table = np.ravel_multi_index(tuple(rows.T), outer).astype(np.int64)
    flat = build.reshape(data, (total, *inner))
    if combine == "SET" and 2 * len(table) >= total:
        # most is replaced: reading is faster than writing, and fuses
        source = np.full(total, -1, np.int64)
        source[table] = np.arange(len(table))
        return build.reshape(_read_rows(flat, source, updates), data.shape)
    spread = build.view(build.constant(table), _here(updates.shape)[:1], updates.shape)
    places = [index(Slot(0, 0, total - 1)), *_here(updates.shape)[1:]]
    return build.reshape(build.scatter(flat, updates, places, [spread], combine), data.shape)


def _read_rows(data: Node, source: np.ndarray, updates: Node) -> Node:
    """Row i of `updates` at `source[i]`, or that of `data` where that is -1."""
    here = _here(data.shape)
    table = build.view(build.constant(np.maximum(source, 0)), here[:1], data.shape)
    places = [index(Slot(0, 0, len(updates.shape) and updates.shape[0] - 1)), *here[1:]]
    read = build.indexed_view(updates, places, data.shape, [table])
    if (source >= 0).all():
        return read
    return elementwise(
        "WHERE", build.view(build.constant(source >= 0), here[:1], data.shape), read, data
    )


def _scatter_nd(ctx: NodeContext, data: Node, indices: Node, updates: Node) -> Node:
    ctx.require(indices.dtype == "int64", f"'indices' must be int64, not {indices.dtype}")
    ctx.require(
        len(data.shape) >= 1 and len(indices.shape) >= 1,
        f"takes no scalars: {list(data.shape)}, {list(indices.shape)}",
    )
    ctx.same_dtype(data, updates)
    depth, outer = indices.shape[-1], indices.shape[:-1]
    ctx.require(1 <= depth <= len(data.shape), f"index tuples of {depth} do not fit {list(data.shape)}")
    shape = (*outer, *data.shape[depth:])
    ctx.require(
        updates.shape == shape,
        f"updates of shape {list(updates.shape)}, where indices {list(indices.shape)} into "
        f"{list(data.shape)} need {list(shape)}",
    )
    combine = _combination(ctx)
    columns = []
    for i in range(depth):
        column = build.shrink(indices, [0] * len(outer) + [i], [*outer, i + 1])
        columns.append(wrapped(ctx, build.reshape(column, outer), data.shape[i]))
    if not updates.size or not data.size:
        return data
    known = [ctx.known(c) for c in columns]
    if all(k is not None for k in known):
        rows = np.stack([np.asarray(k).reshape(-1) for k in known], -1)
        return put_rows(
            data, rows, build.reshape(updates, (len(rows), *data.shape[depth:])), combine
        )
    slots = [build.view(c, _here(shape)[: len(outer)], shape) for c in columns]
    places = [index(Slot(i, 0, data.shape[i] - 1)) for i in range(depth)]
    return build.scatter(data, updates, [*places, *_here(shape)[len(outer) :]], slots, combine)


def _scatter_elements(ctx: NodeContext, data: Node, indices: Node, updates: Node) -> Node:
    rank = len(data.shape)
    ctx.require(
        rank >= 1 and len(indices.shape) == rank,
        f"its inputs must be of one rank of at least 1, not {list(data.shape)} and {list(indices.shape)}",
    )
    ctx.require(
        updates.shape == indices.shape,
        f"updates of shape {list(updates.shape)} for indices of shape {list(indices.shape)}",
    )
    ctx.same_dtype(data, updates)
    axis = ctx.axis(ctx.integer("axis", 0), rank)
    ctx.require(
        all(i == axis or a <= b for i, (a, b) in enumerate(zip(indices.shape, data.shape))),
        f"indices of shape {list(indices.shape)} reach outside of {list(data.shape)}",
    )
    combine = _combination(ctx)
    at = wrapped(ctx, indices, data.shape[axis])
    if not updates.size or not data.size:
        return data
    places = _here(updates.shape)
    known = ctx.known(at)
    if known is not None:
        first = known[tuple(slice(None) if i == axis else slice(1) for i in range(rank))]
        if (known == first).all():
            line = first.reshape(-1)
            even = _even(line) if len(np.unique(line)) == len(line) else None
            if even is not None:
                start, step = ([v if i == axis else d for i in range(rank)] for v, d in zip(even, (0, 1)))
                return put_block(data, updates, Block(tuple(start), tuple(step), updates.shape), combine)
            at = build.view(build.constant(line), [places[axis]], updates.shape)
    places[axis] = index(Slot(0, 0, data.shape[axis] - 1))
    return build.scatter(data, updates, places, [at], combine)


@onnx_op("ScatterND", since=11, until=15, tolerance=EXACT)
def scatter_nd_set(ctx: NodeContext, data: Node, indices: Node, updates: Node) -> Node:
    """The data with slices replaced at index tuples, which stand along the last axis of `indices`."""
    return _scatter_nd(ctx, data, indices, updates)


@onnx_op("ScatterND", since=16, tolerance=ACCUMULATED)
def scatter_nd(ctx: NodeContext, data: Node, indices: Node, updates: Node) -> Node:
    """The data with slices replaced, or joined by `reduction`, at index tuples."""
    return _scatter_nd(ctx, data, indices, updates)


@onnx_op("Scatter", since=9, until=10, tolerance=EXACT)
def scatter(ctx: NodeContext, data: Node, indices: Node, updates: Node) -> Node:
    """The data with elements replaced; each index replaces the update's own position along one axis."""
    return _scatter_elements(ctx, data, indices, updates)


@onnx_op("ScatterElements", since=11, until=15, tolerance=EXACT)
def scatter_elements_set(ctx: NodeContext, data: Node, indices: Node, updates: Node) -> Node:
    """The data with elements replaced; each index replaces the update's own position along one axis."""
    return _scatter_elements(ctx, data, indices, updates)


@onnx_op("ScatterElements", since=16, tolerance=ACCUMULATED)
def scatter_elements(ctx: NodeContext, data: Node, indices: Node, updates: Node) -> Node:
    """The data with elements replaced, or joined by `reduction`, at indices along one axis."""
    return _scatter_elements(ctx, data, indices, updates)
