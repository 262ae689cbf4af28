"""The largest or smallest elements along an axis: TopK."""

from __future__ import annotations

from math import prod

import numpy as np

from tinyinfer.frontend.onnx.blocks.sorting import row_elements, sort_keys, top_positions
from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import EXACT, onnx_op
from tinyinfer.ir import build
from tinyinfer.ir.node import Node


def _top(ctx: NodeContext, x: Node, k: int, largest: bool, in_order: bool) -> tuple[Node, Node]:
    rank = len(x.shape)
    ctx.require(rank >= 1, "does not take a scalar")
    ctx.require(x.dtype not in ("bool", "string"), f"cannot order {x.dtype}")
    axis = ctx.axis(ctx.integer("axis", -1), rank)
    n = x.shape[axis]
    ctx.require(0 <= k <= n, f"k is {k}, but the axis {axis} of {list(x.shape)} has {n} elements")
    shape = [k if i == axis else d for i, d in enumerate(x.shape)]
    if 0 in shape:
        return build.full(0, shape, x.dtype), build.full(0, shape, "int64")
    ctx.require(n < 1 << 30, f"an axis of {n} elements is too long to sort")
    order = [i for i in range(rank) if i != axis] + [axis]
    moved = build.permute(x, order)
    rows = build.reshape(moved, [prod(moved.shape[:-1]), n])
    positions = top_positions(sort_keys(rows, largest), k, in_order)
    back = [order.index(i) for i in range(rank)]
    parts = (row_elements(rows, positions), positions)
    values, indices = (
        build.permute(build.reshape(part, [*moved.shape[:-1], k]), back) for part in parts
    )
    return values, indices


def _count(ctx: NodeContext, k: Node) -> int:
    value = ctx.constant(k, "K")
    ctx.require(
        value.size == 1 and value.dtype == np.int64,
        f"'K' must be one int64 number, not {value.dtype}{list(value.shape)}",
    )
    return int(value.reshape(-1)[0])


@onnx_op("TopK", until=9, tolerance=EXACT)
def top_k_by_attribute(ctx: NodeContext, x: Node) -> tuple[Node, Node]:
    """The k largest elements along an axis, largest first, and their positions; k is an attribute."""
    return _top(ctx, x, ctx.integer("k", REQUIRED), True, True)


@onnx_op("TopK", since=10, until=10, tolerance=EXACT)
def top_k_largest(ctx: NodeContext, x: Node, k: Node) -> tuple[Node, Node]:
    """The k largest elements along an axis, largest first, and their positions."""
    return _top(ctx, x, _count(ctx, k), True, True)


@onnx_op("TopK", since=11, tolerance=EXACT)
def top_k(ctx: NodeContext, x: Node, k: Node) -> tuple[Node, Node]:
    """The k largest or smallest elements along an axis, and their positions; of equal ones the first."""
    return _top(ctx, x, _count(ctx, k), ctx.flag("largest", True), ctx.flag("sorted", True))
