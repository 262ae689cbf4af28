"""com.microsoft's own spellings of ONNX operators, distances and inverses."""

from __future__ import annotations

from tinyinfer.frontend.onnx.blocks import attention as att
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, EXACT, onnx_op
from tinyinfer.frontend.onnx.ops import constant as ops_constant
from tinyinfer.frontend.onnx.ops import index as ops_index
from tinyinfer.frontend.onnx.ops import shape as ops_shape
from tinyinfer.frontend.onnx.ops.elementwise import is_float, like
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.index import Slot, index
from tinyinfer.ir.node import Node, output_axis

DOMAIN = "com.microsoft"

# the same as ONNX's
onnx_op("Trilu", domain=DOMAIN, tolerance=EXACT)(ops_constant.triangle)


@onnx_op("Range", domain=DOMAIN, tolerance=EXACT)
def range_(ctx: NodeContext, start: Node, limit: Node, delta: Node | None = None) -> Node:
    """start, start + delta, … below limit; steps of 1 by default."""
    return ops_constant.range_(ctx, start, limit, build.scalar(1, start.dtype) if delta is None else delta)


@onnx_op("Pad", domain=DOMAIN, tolerance=EXACT)
def pad(ctx: NodeContext, x: Node, pads: Node, value: Node | None = None) -> Node:
    """The input with padding around it; amounts and value from inputs."""
    return ops_shape.pad(ctx, x, pads, value)


@onnx_op("GatherND", domain=DOMAIN, tolerance=EXACT)
def gather_nd(ctx: NodeContext, x: Node, indices: Node) -> Node:
    """Slices of x at index tuples, which stand along the last axis of `indices`."""
    ctx.require(indices.dtype in ("int32", "int64"), f"'indices' must hold integers, not {indices.dtype}")
    return ops_index.gather_nd(ctx, x, build.cast(indices, "int64"))


@onnx_op("ExpandDims", domain=DOMAIN, tolerance=EXACT)
def expand_dims(ctx: NodeContext, x: Node, axis: Node) -> Node:
    """The input with one more dimension, of size 1."""
    place = ctx.axis(int(ctx.constant_scalar(axis, "axis")), len(x.shape) + 1)
    return build.reshape(x, [*x.shape[:place], 1, *x.shape[place:]])


# ---- distances


@onnx_op("CDist", domain=DOMAIN, tolerance=ACCUMULATED)
def distances(ctx: NodeContext, a: Node, b: Node) -> Node:
    """The (squared) Euclidean distance of every row of A from every row of B."""
    ctx.same_dtype(a, b)
    ctx.require(
        is_float(a) and len(a.shape) == len(b.shape) == 2 and a.shape[1] == b.shape[1],
        f"{list(a.shape)} and {list(b.shape)} are not two matrices of rows of one length",
    )
    metric = ctx.string("metric", "sqeuclidean", ("euclidean", "sqeuclidean"))
    (m, k), n = a.shape, b.shape[0]
    shape = (m, n, k)
    left, right = build.reshape(a, [m, 1, k]), build.reshape(b, [1, n, k])
    gap = elementwise("SUB", build.expand(left, shape), build.expand(right, shape))
    square = build.reduce("SUM", elementwise("MUL", gap, gap), [2])
    return elementwise("SQRT", square) if metric == "euclidean" else square


# ---- inverse


@onnx_op("Inverse", domain=DOMAIN, tolerance=ACCUMULATED)
def inverse(ctx: NodeContext, x: Node) -> Node:
    """The inverse of each matrix of a batch, by elimination with the largest pivot of each column."""
    ctx.require(
        is_float(x) and len(x.shape) >= 2 and x.shape[-1] == x.shape[-2],
        f"expected square matrices of floats, not {x.dtype} {list(x.shape)}",
    )
    n = x.shape[-1]
    limit = ctx.importer.limits.max_inverse
    ctx.require(n <= limit, f"matrices of {n} rows are over the limit of {limit}")
    if not x.size:
        return x
    batch = x.size // (n * n)
    wide = att.wide(x.dtype)
    square = build.cast(build.reshape(x, [batch, n, n]), wide)
    diagonal = build.position(index(output_axis(1, n)) - index(output_axis(2, n)), [batch, n, n], "int32")
    identity = build.cast(elementwise("CMPEQ", diagonal, like(0, diagonal)), wide)
    rows = build.concat([square, identity], 2)
    for step in range(n):
        rows = _eliminated(rows, step)
    result = build.shrink(rows, [0, 0, n], [batch, n, 2 * n])
    return build.cast(build.reshape(result, x.shape), x.dtype)


def _eliminated(rows: Node, step: int) -> Node:
    """`rows` [batch, n, columns] with the pivot of column `step` in row `step` and zeros in the others."""
    batch, n, columns = rows.shape
    column = build.reshape(build.shrink(rows, [0, 0, step], [batch, n, step + 1]), [batch, n])
    place = build.iota([batch, n], 1, "int32")
    size = elementwise("ABS", column)
    free = elementwise("WHERE", att.at_least(place, step), size, like(-1, size))
    largest = build.expand(build.reduce("MAX", free, [1], keepdims=True), [batch, n])
    last = like(n - 1, place)
    where = elementwise("WHERE", elementwise("CMPEQ", free, largest), place, last)
    chosen = build.reduce("MIN", where, [1])  # [batch]
    reads = [index(output_axis(0, batch)), index(Slot(0, 0, n - 1)), index(output_axis(1, columns))]
    spread = build.expand(build.reshape(chosen, [batch, 1]), [batch, columns])
    found = build.indexed_view(rows, reads, [batch, columns], [spread])
    pivot = build.shrink(found, [0, step], [batch, step + 1])
    pivot_row = build.reshape(build.apply("DIV", found, pivot), [batch, 1, columns])
    # the row that stood at `step` takes the place of the pivot's
    here = build.expand(build.reshape(place, [batch, n, 1]), rows.shape)
    taken = elementwise("CMPEQ", here, build.expand(build.reshape(chosen, [batch, 1, 1]), rows.shape))
    displaced = build.expand(build.shrink(rows, [0, step, 0], [batch, step + 1, columns]), rows.shape)
    others = elementwise("WHERE", taken, displaced, rows)
    factor = build.expand(build.shrink(others, [0, 0, step], [batch, n, step + 1]), rows.shape)
    row = build.expand(pivot_row, rows.shape)
    left = elementwise("SUB", others, elementwise("MUL", factor, row))
    return elementwise("WHERE", elementwise("CMPEQ", here, like(step, here)), row, left)
