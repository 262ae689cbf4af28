"""Sequences and optionals. They are structures of the import: what their ops do costs nothing at run time.

The length of a sequence and the presence of an optional's element are known while a model is imported, as its
shapes are; a position that depends on data is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.errors import NeedsHost, NeedsValue
from tinyinfer.frontend.onnx.op_table import EXACT, onnx_op
from tinyinfer.frontend.onnx.tensors import element_name
from tinyinfer.frontend.onnx.values import Absent, HostCall, HostValue, SequenceValue, Value, describe
from tinyinfer.ir import build
from tinyinfer.ir.node import Node


def sequence(ctx: NodeContext, value: Value) -> SequenceValue:
    """`value` as a sequence; fails if it is none."""
    if not isinstance(value, SequenceValue):
        ctx.fail(f"takes a sequence, not a {describe(value)}")
    return value


def _position(ctx: NodeContext, place: Value, length: int, end: int) -> int:
    """A position that counts from the end where it is negative, within 0 … `end` - 1."""
    if not isinstance(place, Node) or place.dtype not in ("int32", "int64") or place.size != 1:
        ctx.fail("the position must be one int32 or int64")
    number = int(ctx.constant_scalar(place, "position"))
    if not -length <= number < end:
        ctx.fail(f"the position {number} is outside of a sequence of {length}")
    return number + length if number < 0 else number


@onnx_op("SequenceEmpty", since=11, tolerance=EXACT, values=True)
def sequence_empty(ctx: NodeContext) -> SequenceValue:
    """A sequence without elements."""
    kind = ctx.integer("dtype", 1)
    return SequenceValue((), "string" if kind == 8 else element_name(kind, f"{ctx.label}: attribute 'dtype'"))


@onnx_op("SequenceConstruct", since=11, tolerance=EXACT, values=True)
def sequence_construct(ctx: NodeContext, *elements: Value) -> SequenceValue:
    """The inputs as a sequence."""
    ctx.all_given(elements)
    ctx.require(bool(elements), "takes at least one input")
    return SequenceValue(elements)


@onnx_op("SequenceInsert", since=11, tolerance=EXACT, values=True)
def sequence_insert(ctx: NodeContext, s: Value, x: Value, place: Value | None = None) -> SequenceValue:
    """The sequence with x before a position, or at its end."""
    elements = sequence(ctx, s).elements
    at = len(elements) if place is None else _position(ctx, place, len(elements), len(elements) + 1)
    return SequenceValue((*elements[:at], x, *elements[at:]))


@onnx_op("SequenceErase", since=11, tolerance=EXACT, values=True)
def sequence_erase(ctx: NodeContext, s: Value, place: Value | None = None) -> SequenceValue:
    """The sequence without the element at a position, or without its last one."""
    held = sequence(ctx, s)
    elements = held.elements
    ctx.require(bool(elements), "the sequence is empty")
    at = len(elements) - 1 if place is None else _position(ctx, place, len(elements), len(elements))
    kind = elements[0].dtype if isinstance(elements[0], (Node, HostValue)) else held.dtype
    return SequenceValue((*elements[:at], *elements[at + 1 :]), kind)


@onnx_op("SequenceAt", since=11, tolerance=EXACT, values=True)
def sequence_at(ctx: NodeContext, s: Value, place: Value) -> Value:
    """The element at a position."""
    elements = sequence(ctx, s).elements
    return elements[_position(ctx, place, len(elements), len(elements))]


@onnx_op("SequenceLength", since=11, tolerance=EXACT, values=True)
def sequence_length(ctx: NodeContext, s: Value) -> Node:
    """The number of elements."""
    return build.scalar(len(sequence(ctx, s).elements), "int64")


@onnx_op("SplitToSequence", since=11, tolerance=EXACT)
def split_to_sequence(ctx: NodeContext, x: Node, split: Node | None = None) -> SequenceValue:
    """Slices of x along an axis: of the sizes given, of one size (the last may be smaller), or of size 1."""
    ctx.require(len(x.shape) >= 1, "its input must not be a scalar")
    axis = ctx.axis(ctx.integer("axis", 0), len(x.shape))
    size = x.shape[axis]
    keep = True
    if split is None:
        keep = ctx.flag("keepdims", True)
        sizes = [1] * size
    else:
        given = ctx.constant_ints(split, "split")
        if split.shape == ():
            ctx.require(given[0] > 0, f"the size of a part must be positive, not {given[0]}")
            sizes = [min(given[0], size - start) for start in range(0, size, given[0])]
        else:
            ctx.require(all(s >= 0 for s in given), f"'split' holds a negative size: {given}")
            ctx.require(sum(given) == size, f"'split' {given} does not sum to the size {size} of axis {axis}")
            sizes = given
    ctx.table_size(len(sizes), "the number of parts")
    parts = []
    start = 0
    for part in sizes:
        starts, stops = [0] * len(x.shape), list(x.shape)
        starts[axis], stops[axis] = start, start + part
        made = build.shrink(x, starts, stops)
        parts.append(made if keep else build.reshape(made, x.shape[:axis] + x.shape[axis + 1 :]))
        start += part
    return SequenceValue(tuple(parts), x.dtype)


@onnx_op("ConcatFromSequence", since=11, tolerance=EXACT, values=True)
def concat_from_sequence(ctx: NodeContext, s: Value) -> Node | HostCall:
    """The elements side by side along an axis, or stacked along a new one."""
    elements = sequence(ctx, s).elements
    ctx.require(bool(elements), "the sequence is empty")
    new = ctx.flag("new_axis")
    wanted = ctx.integer("axis")
    ctx.require(wanted is not None, "the attribute 'axis' is missing")
    if any(isinstance(e, HostValue) for e in elements):
        join = np.stack if new else np.concatenate
        return ctx.host_call(lambda *parts: (join(parts, axis=wanted),), elements)
    parts = [e for e in elements if isinstance(e, Node)]
    ctx.require(len(parts) == len(elements), "its elements must be tensors")
    ctx.same_dtype(*parts)
    rank = len(parts[0].shape)
    axis = ctx.axis(wanted, rank + new)
    if new:
        parts = [build.reshape(p, (*p.shape[:axis], 1, *p.shape[axis:])) for p in parts]
    for part in parts:
        ctx.require(
            len(part.shape) == len(parts[0].shape)
            and all(i == axis or a == b for i, (a, b) in enumerate(zip(part.shape, parts[0].shape))),
            f"its elements have shapes that do not fit: {[list(p.shape) for p in parts]}",
        )
    return build.concat(parts, axis)


@onnx_op("SequenceMap", since=17, tolerance=EXACT, values=True)
def sequence_map(ctx: NodeContext, first: Value, *others: Value) -> Any:
    """A subgraph applied to each element of a sequence."""
    ctx.all_given([first, *others])
    graph = ctx.graph("body")
    length = len(sequence(ctx, first).elements)
    inputs = (first, *others)
    for other in others:
        ctx.require(
            not isinstance(other, SequenceValue) or len(other.elements) == length,
            "its sequences have different lengths",
        )

    def arguments(number: int) -> list[Value]:
        return [x.elements[number] if isinstance(x, SequenceValue) else x for x in inputs]

    try:
        rows = [ctx.importer.subgraph(ctx, graph, arguments(i)) for i in range(length)]
    except (NeedsHost, NeedsValue):
        return _map_on_host(ctx, inputs)
    return [SequenceValue(tuple(row[i] for row in rows)) for i in range(ctx.outputs)]


def _map_on_host(ctx: NodeContext, inputs: Sequence[Value]) -> HostCall:
    from tinyinfer.frontend.onnx.trace import Body

    body = Body(ctx.importer.model, ctx.graph("body"), ctx.scope, ctx.name)
    count, outputs = len(inputs), ctx.outputs

    def run(step: Callable[[Sequence[Any]], list[Any]], *values: Any) -> tuple[Any, ...]:
        own, outer = values[:count], values[count:]
        rows = []
        for number in range(len(own[0])):
            row = [v[number] if isinstance(v, list) else v for v in own]
            rows.append(step([*row, *outer]))
        return tuple([row[i] for row in rows] for i in range(outputs))

    return HostCall(run, (*inputs, *body.outer), outputs, (body,))


@onnx_op("Optional", since=15, tolerance=EXACT, values=True)
def optional(ctx: NodeContext, x: Value | None = None) -> Value:
    """An optional that holds x, or nothing."""
    return Absent() if x is None else x


@onnx_op("OptionalHasElement", since=15, tolerance=EXACT, values=True)
def optional_has_element(ctx: NodeContext, x: Value | None = None) -> Node:
    """Whether an optional holds something."""
    return build.scalar(x is not None and not isinstance(x, Absent), "bool")


@onnx_op("OptionalGetElement", since=15, tolerance=EXACT, values=True)
def optional_get_element(ctx: NodeContext, x: Value) -> Value:
    """What an optional holds."""
    ctx.require(not isinstance(x, Absent), "the optional has no element")
    return x
