"""Ops whose result shapes depend on data: the host computes them between kernels."""

from __future__ import annotations

import numpy as np

from tinyinfer.frontend.onnx.blocks.boxes import non_max_suppression
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import EXACT, onnx_op
from tinyinfer.frontend.onnx.values import HostCall, HostValue, Value, describe
from tinyinfer.ir import build
from tinyinfer.ir.node import Node


def _tensor(ctx: NodeContext, x: Value) -> Node | HostValue:
    """`x` if it is a tensor of numbers or strings; fails otherwise."""
    if isinstance(x, Node) or (isinstance(x, HostValue) and x.kind == "string"):
        return x
    ctx.fail(f"takes a tensor, not a {describe(x)}")


@onnx_op("NonZero", since=9, tolerance=EXACT, values=True)
def non_zero(ctx: NodeContext, x: Value) -> HostCall:
    """The positions of what is not zero, one column each, in row-major order."""

    def positions(array: np.ndarray) -> tuple[np.ndarray]:
        found = np.nonzero(np.atleast_1d(array != "" if array.dtype == object else array))
        return (np.array(found, np.int64),)

    return ctx.host_call(positions, [_tensor(ctx, x)])


@onnx_op("Compress", since=9, tolerance=EXACT, values=True)
def compress(ctx: NodeContext, x: Value, condition: Value) -> HostCall:
    """The slices of x along an axis (or elements of the flattened x) for which a condition holds."""
    source = _tensor(ctx, x)
    ctx.require(
        isinstance(condition, Node) and condition.dtype == "bool" and len(condition.shape) == 1,
        "the condition must be a list of bools",
    )
    axis = ctx.integer("axis")
    if axis is not None:
        axis = ctx.axis(axis, len(source.shape))

    def chosen(array: np.ndarray, holds: np.ndarray) -> tuple[np.ndarray]:
        size = array.size if axis is None else array.shape[axis]
        return (np.compress(holds[:size], array, axis),)

    return ctx.host_call(chosen, [source, condition])


@onnx_op("Unique", since=11, tolerance=EXACT, values=True)
def unique(ctx: NodeContext, x: Value) -> HostCall:
    """The distinct elements or slices, where each is first, what became of each, and how often each is
    there.
    """
    source = _tensor(ctx, x)
    ordered = ctx.flag("sorted", True)
    axis = ctx.integer("axis")
    if axis is not None:
        axis = ctx.axis(axis, len(source.shape))

    return ctx.host_call(lambda array: _distinct(array, axis, ordered), [source], 4)


@onnx_op("Unique", domain="com.microsoft", tolerance=EXACT)
def unique_in_order(ctx: NodeContext, x: Node) -> HostCall:
    """The distinct elements in the order of their first occurrence, what became of each, and how often each
    is there.
    """
    ctx.require(len(x.shape) == 1, f"takes a list, not {list(x.shape)}")

    def distinct(array: np.ndarray) -> tuple[np.ndarray, ...]:
        values, _, inverse, counts = _distinct(array, None, False)
        return values, inverse, counts

    return ctx.host_call(distinct, [x], 3)


def _distinct(array: np.ndarray, axis: int | None, ordered: bool) -> tuple[np.ndarray, ...]:
    """Values, places of the first of each, the number of each element's value, counts; in ONNX's order."""
    rows = array.reshape(-1) if axis is None else np.moveaxis(array, axis, 0)
    keys = rows.reshape(rows.shape[0], -1)
    if rows.shape[0] == 0 or (axis is not None and keys.shape[1] == 0):
        empty = np.zeros(0, np.int64)
        count = min(1, rows.shape[0])
        one = np.zeros(count, np.int64)
        back = np.zeros(rows.shape[0], np.int64) if count else empty
        kept = array if axis is None else np.take(array, one, axis)
        return kept, one, back, np.full(count, rows.shape[0], np.int64)
    codes = np.unique(keys, return_inverse=True)[1].reshape(keys.shape)
    _, first, inverse, counts = np.unique(
        codes, return_index=True, return_inverse=True, return_counts=True, axis=0
    )
    inverse = inverse.reshape(-1)
    if not ordered:
        order = np.argsort(first, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(order.size)
        first, counts, inverse = first[order], counts[order], rank[inverse]
    values = array.reshape(-1)[first] if axis is None else np.take(array, first, axis)
    return values, first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64)


@onnx_op("NonMaxSuppression", since=10, tolerance=EXACT)
def non_max_suppression_(
    ctx: NodeContext,
    boxes: Node,
    scores: Node,
    most: Node | None = None,
    overlap: Node | None = None,
    score: Node | None = None,
) -> HostCall:
    """The boxes of each class that no better one overlaps too much, as [batch, class, box]."""
    ctx.require(
        len(boxes.shape) == 3 and len(scores.shape) == 3 and boxes.shape[2] == 4,
        "boxes must be [batches, boxes, 4] and scores [batches, classes, boxes], not "
        f"{list(boxes.shape)} and {list(scores.shape)}",
    )
    ctx.require(
        boxes.shape[0] == scores.shape[0] and boxes.shape[1] == scores.shape[2],
        f"boxes {list(boxes.shape)} do not fit scores {list(scores.shape)}",
    )
    for limit in (most, overlap, score):
        ctx.require(limit is None or limit.size == 1, "its limits must be single numbers")
    centered = bool(ctx.integer("center_point_box", 0, choices=(0, 1)))
    none = build.scalar(0, "int64"), build.scalar(0, "float32"), build.scalar(-np.inf, "float32")
    limits = [given if given is not None else default for given, default in zip((most, overlap, score), none)]

    def select(
        corners: np.ndarray, weights: np.ndarray, count: np.ndarray, iou: np.ndarray, least: np.ndarray
    ) -> tuple[np.ndarray]:
        numbers = count.reshape(-1)[0], iou.reshape(-1)[0], least.reshape(-1)[0]
        return (non_max_suppression(corners, weights, int(numbers[0]), *numbers[1:], centered),)

    return ctx.host_call(select, [boxes, scores, *limits])
