"""Constants, shapes as values, and what is computed from a position alone."""

from __future__ import annotations

import numpy as np

from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import EXACT, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import is_float
from tinyinfer.frontend.onnx.values import HostValue
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.index import index
from tinyinfer.ir.node import Node, output_axis


@onnx_op("Constant", tolerance=EXACT)
def constant(ctx: NodeContext) -> Node | HostValue:
    """A value from one of the attributes value, value_float(s), value_int(s), value_string(s), sparse_value.
    """
    texts = ctx.texts("value")
    if texts is not None:
        return HostValue("string", "", texts.shape, texts)
    value = ctx.tensor("value")
    if value is not None:
        return build.constant(value)
    if ctx.has("value_float"):
        return build.constant(np.float32(ctx.number("value_float")))
    if ctx.has("value_int"):
        return build.constant(np.int64(ctx.integer("value_int")))
    if ctx.has("value_floats"):
        return build.constant(np.array(ctx.numbers("value_floats"), np.float32))
    if ctx.has("value_ints"):
        return build.constant(np.array(ctx.integers("value_ints"), np.int64))
    if ctx.has("sparse_value"):
        return build.constant(ctx.sparse_tensor("sparse_value"))
    if ctx.has("value_string"):
        return HostValue("string", "", (), np.array(ctx.string("value_string"), object))
    if ctx.has("value_strings"):
        items = ctx.strings("value_strings")
        return HostValue("string", "", (len(items),), np.array(items, object))
    ctx.fail("one of the attributes value, value_float, value_int, … is expected")


@onnx_op("Shape", tolerance=EXACT)
def shape(ctx: NodeContext, x: Node) -> Node:
    """The shape as int64, or the part of it from `start` to `end`."""
    return build.constant(np.array(x.shape[ctx.integer("start", 0) : ctx.integer("end", None)], np.int64))


@onnx_op("Size", tolerance=EXACT)
def size(ctx: NodeContext, x: Node) -> Node:
    """The number of elements as int64."""
    return build.constant(np.int64(x.size))


@onnx_op("ConstantOfShape", since=9, tolerance=EXACT)
def constant_of_shape(ctx: NodeContext, shape_: Node) -> Node:
    """One value repeated over a shape."""
    wanted = ctx.constant_ints(shape_, "input")
    ctx.require(all(d >= 0 for d in wanted), f"the shape {wanted} holds a negative size")
    value = ctx.tensor("value")
    if value is None:
        return build.full(0.0, wanted, "float32")
    ctx.require(value.size == 1, f"the attribute 'value' must hold one number, not {list(value.shape)}")
    return build.full(value.array.reshape(-1)[0].item(), wanted, value.dtype)


@onnx_op("Range", since=11, tolerance=EXACT)
def range_(ctx: NodeContext, start: Node, limit: Node, delta: Node) -> Node:
    """start, start + delta, … below limit."""
    dtype = ctx.same_dtype(start, limit, delta)
    first, last, step = (
        ctx.constant_scalar(x, n) for x, n in ((start, "start"), (limit, "limit"), (delta, "delta"))
    )
    ctx.require(step != 0, "'delta' must not be 0")
    ctx.require(all(np.isfinite(v) for v in (first, last, step)), "start, limit and delta must be finite")
    count = max(int(np.ceil((last - first) / step)), 0)
    ctx.require(count <= ctx.importer.limits.max_elements, f"{count} elements are over the limit")
    if is_float(start):
        place = build.cast(build.iota([count], 0), dtype)
        scaled = elementwise("MUL", place, build.full(step, [count], dtype))
        return elementwise("ADD", scaled, build.full(first, [count], dtype))
    return build.position(index(output_axis(0, count)) * int(step) + int(first), [count], dtype)


@onnx_op("EyeLike", since=9, tolerance=EXACT)
def eye_like(ctx: NodeContext, x: Node) -> Node:
    """Ones on the diagonal `k`, zeros elsewhere, in the shape of a matrix."""
    ctx.require(len(x.shape) == 2, f"the input must be a matrix, not of shape {list(x.shape)}")
    rows, columns = (index(output_axis(i, d)) for i, d in enumerate(x.shape))
    distance = build.position(columns - rows, x.shape, "int64")
    here = elementwise("CMPEQ", distance, build.full(ctx.integer("k", 0), x.shape, "int64"))
    return build.cast(here, ctx.dtype("dtype", x.dtype) or x.dtype)


@onnx_op("Trilu", since=14, tolerance=EXACT)
def triangle(ctx: NodeContext, x: Node, k: Node | None = None) -> Node:
    """The upper or lower triangle of matrices, zeros elsewhere."""
    rank = len(x.shape)
    ctx.require(rank >= 2, f"the input must be of rank 2 or more, not {list(x.shape)}")
    diagonal = 0 if k is None else int(ctx.constant_scalar(k, "k"))
    rows, columns = (index(output_axis(i, x.shape[i])) for i in (rank - 2, rank - 1))
    distance = build.position(columns - rows, x.shape, "int64")
    bound = build.full(diagonal, x.shape, "int64")
    kept = (
        elementwise("CMPLE", bound, distance)
        if ctx.flag("upper", True)
        else elementwise("CMPLE", distance, bound)
    )
    return elementwise("WHERE", kept, x, build.full(0, x.shape, x.dtype))
