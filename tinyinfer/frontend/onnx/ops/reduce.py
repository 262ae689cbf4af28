"""Reductions over axes: sums, means, norms, extremes and their positions, running sums."""

from __future__ import annotations

import math
from collections.abc import Callable

from tinyinfer.frontend.onnx.blocks.scan import running
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import (
    ACCUMULATED,
    EXACT,
    LAST_OPSET,
    TRANSCENDENTAL,
    Tolerance,
    onnx_op,
)
from tinyinfer.frontend.onnx.ops.elementwise import is_float, like
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.index import index
from tinyinfer.ir.node import Node, output_axis

Reducer = Callable[[Node, list[int]], Node]
"""Reduces a node over axes that stay in the shape with size 1."""


def _sum(x: Node, axes: list[int]) -> Node:
    return build.reduce("SUM", x, axes, keepdims=True)


def _count(x: Node, axes: list[int]) -> int:
    return math.prod(x.shape[a] for a in axes)


def reduce_mean(x: Node, axes: list[int]) -> Node:
    """Mean over axes, kept with size 1; integers divide towards zero."""
    total, n = _sum(x, axes), _count(x, axes)
    if not is_float(x):
        return elementwise("IDIV", total, like(n, total))
    # a mean of nothing is 0 / 0, as in numpy
    return elementwise("MUL", total, like(1 / n if n else math.nan, total))


def _square(x: Node, axes: list[int]) -> Node:
    return _sum(elementwise("MUL", x, x), axes)


def _log(x: Node) -> Node:
    return (
        elementwise("LOG", x)
        if is_float(x)
        else build.cast(elementwise("LOG", build.cast(x, "float64")), x.dtype)
    )


def _root(x: Node) -> Node:
    return (
        elementwise("SQRT", x)
        if is_float(x)
        else build.cast(elementwise("SQRT", build.cast(x, "float64")), x.dtype)
    )


def _log_sum_exp(x: Node, axes: list[int]) -> Node:
    if not is_float(x):
        return build.cast(_log_sum_exp(build.cast(x, "float64"), axes), x.dtype)
    largest = build.reduce("MAX", x, axes, keepdims=True)
    # an infinite maximum would give inf - inf
    finite = elementwise("CMPLT", elementwise("ABS", largest), like(math.inf, largest))
    shift = elementwise("WHERE", finite, largest, like(0, largest))
    shifted = elementwise("EXP", elementwise("SUB", x, build.expand(shift, x.shape)))
    return elementwise("ADD", elementwise("LOG", _sum(shifted, axes)), shift)


def _extreme(op: str) -> Reducer:
    def reducer(x: Node, axes: list[int]) -> Node:
        return build.reduce(op, x, axes, keepdims=True)

    return reducer


def _absolute(x: Node) -> Node:
    return x if x.dtype.startswith("uint") else elementwise("ABS", x)


# ONNX op, reducer, first opset whose axes are an input, tolerance
_REDUCTIONS: tuple[tuple[str, Reducer, int, Tolerance], ...] = (
    ("ReduceSum", _sum, 13, ACCUMULATED),
    ("ReduceMean", reduce_mean, 18, ACCUMULATED),
    ("ReduceMax", _extreme("MAX"), 18, EXACT),
    ("ReduceMin", _extreme("MIN"), 18, EXACT),
    ("ReduceProd", _extreme("PROD"), 18, ACCUMULATED),
    ("ReduceL1", lambda x, axes: _sum(_absolute(x), axes), 18, ACCUMULATED),
    ("ReduceL2", lambda x, axes: _root(_square(x, axes)), 18, ACCUMULATED),
    ("ReduceSumSquare", _square, 18, ACCUMULATED),
    ("ReduceLogSum", lambda x, axes: _log(_sum(x, axes)), 18, TRANSCENDENTAL),
    ("ReduceLogSumExp", _log_sum_exp, 18, TRANSCENDENTAL),
)


def drop_axes(x: Node, axes: list[int]) -> Node:
    """`x` without axes of size 1."""
    return build.reshape(x, [d for i, d in enumerate(x.shape) if i not in axes])


def _reduced(ctx: NodeContext, x: Node, axes: list[int] | None, reducer: Reducer) -> Node:
    rank = len(x.shape)
    if axes is not None and not axes and ctx.flag("noop_with_empty_axes"):
        # the reduction of single elements: |x| for L1, x² for SumSquare
        return reducer(x, [])
    wanted = ctx.axes(axes, rank) if axes else list(range(rank))
    boolean = x.dtype == "bool"  # opset 20: extremes of bool
    result = reducer(x, wanted) if not boolean else reducer(build.cast(x, "uint8"), wanted)
    result = build.cast(result, "bool") if boolean else result
    return result if ctx.flag("keepdims", True) else drop_axes(result, wanted)


def _register_reduction(name: str, reducer: Reducer, input_since: int, tolerance: Tolerance) -> None:
    def by_attribute(ctx: NodeContext, x: Node) -> Node:
        return _reduced(ctx, x, ctx.integers("axes", None), reducer)

    def by_input(ctx: NodeContext, x: Node, axes: Node | None = None) -> Node:
        wanted = [] if axes is None else ctx.constant_ints(axes, "axes")
        return _reduced(ctx, x, wanted, reducer)

    by_attribute.__doc__ = f"{name} over the axes of an attribute."
    by_input.__doc__ = f"{name} over the axes of an input."
    onnx_op(name, 1, input_since - 1, tolerance=tolerance)(by_attribute)
    onnx_op(name, input_since, LAST_OPSET, tolerance=tolerance)(by_input)


for _name, _reducer, _since, _tolerance in _REDUCTIONS:
    _register_reduction(_name, _reducer, _since, _tolerance)


# ---- positions of extremes


def _positions_along(shape: tuple[int, ...], axis: int) -> Node:
    return build.position(index(output_axis(axis, shape[axis])), shape, "int64")


def position_of_extreme(x: Node, axis: int, op: str, last: bool) -> Node:
    """int64 position of the largest (MAX) or smallest (MIN) value along `axis`, kept with size 1.

    Of equal values the first, or the last if `last`.
    """
    best = build.expand(build.reduce(op, x, [axis], keepdims=True), x.shape)
    here = _positions_along(x.shape, axis)
    nowhere = like(-1 if last else x.shape[axis], here)
    chosen = elementwise("WHERE", elementwise("CMPEQ", x, best), here, nowhere)
    return build.reduce("MAX" if last else "MIN", chosen, [axis], keepdims=True)


def _register_position(name: str, op: str) -> None:
    def function(ctx: NodeContext, x: Node) -> Node:
        ctx.require(len(x.shape) >= 1, "does not take a scalar")
        axis = ctx.axis(ctx.integer("axis", 0), len(x.shape))
        ctx.require(x.shape[axis] > 0, f"axis {axis} of {list(x.shape)} is empty")
        result = position_of_extreme(x, axis, op, ctx.flag("select_last_index"))
        return result if ctx.flag("keepdims", True) else drop_axes(result, [axis])

    function.__doc__ = f"Position of the {op} along an axis."
    onnx_op(name, tolerance=EXACT)(function)


_register_position("ArgMax", "MAX")
_register_position("ArgMin", "MIN")


@onnx_op("Hardmax", until=12, tolerance=EXACT)
def hardmax_flattened(ctx: NodeContext, x: Node) -> Node:
    """1 at the first largest value of all axes from `axis` on, 0 elsewhere."""
    axis = ctx.integer("axis", 1)
    axis = axis if axis == len(x.shape) else ctx.axis(axis, len(x.shape))
    flat = build.reshape(x, [math.prod(x.shape[:axis]), math.prod(x.shape[axis:])])
    return build.reshape(_hardmax(flat, 1), x.shape)


@onnx_op("Hardmax", since=13, tolerance=EXACT)
def hardmax(ctx: NodeContext, x: Node) -> Node:
    """1 at the first largest value along `axis`, 0 elsewhere."""
    return _hardmax(x, ctx.axis(ctx.integer("axis", -1), len(x.shape)))


def _hardmax(x: Node, axis: int) -> Node:
    best = position_of_extreme(x, axis, "MAX", last=False)
    here = _positions_along(x.shape, axis)
    return build.cast(elementwise("CMPEQ", build.expand(best, x.shape), here), x.dtype)


# ---- running sums


@onnx_op("CumSum", since=11, tolerance=ACCUMULATED)
def cumulative_sum(ctx: NodeContext, x: Node, axis: Node) -> Node:
    """Running sum along an axis."""
    where = ctx.axis(int(ctx.constant_scalar(axis, "axis")), len(x.shape))
    return running("SUM", x, where, ctx.flag("exclusive"), ctx.flag("reverse"))


@onnx_op("CumProd", since=26, tolerance=ACCUMULATED)
def cumulative_product(ctx: NodeContext, x: Node, axis: Node) -> Node:
    """Running product along an axis."""
    where = ctx.axis(int(ctx.constant_scalar(axis, "axis")), len(x.shape))
    return running("PROD", x, where, ctx.flag("exclusive"), ctx.flag("reverse"))
