"""Determinants, by elimination with row exchanges in a loop over the columns."""

from __future__ import annotations

from math import prod

from tinyinfer.frontend.onnx.blocks.sampling import Place, read_at
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import like
from tinyinfer.frontend.onnx.ops.reduce import position_of_extreme
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.index import Index, index
from tinyinfer.ir.loop import BodyResults, loop
from tinyinfer.ir.node import Node, output_axis


@onnx_op("Det", since=11, tolerance=ACCUMULATED)
def determinant(ctx: NodeContext, x: Node) -> Node:
    """Determinants of square matrices."""
    ctx.floating(x)
    ctx.require(
        len(x.shape) >= 2 and x.shape[-1] == x.shape[-2],
        f"the input must be square matrices, not of shape {list(x.shape)}",
    )
    *lead, size, _ = x.shape
    count = prod(lead)
    wide = build.cast(x, x.dtype if x.dtype in ("float32", "float64") else "float32")
    matrices = build.reshape(wide, [count, size, size])
    if size == 0 or count == 0:
        result = build.full(1, [count], wide.dtype)
    elif size <= 3:
        result = _expanded(matrices, list(range(size)), list(range(size)))
    else:
        result = _eliminated(matrices)
    return build.cast(build.reshape(result, lead), x.dtype)


def _expanded(x: Node, rows: list[int], columns: list[int]) -> Node:
    """By the first row, for matrices so small that this is little work."""
    count = x.shape[0]

    def element(row: int, column: int) -> Node:
        return build.view(x, [index(output_axis(0, count)), index(row), index(column)], [count])

    if len(rows) == 1:
        return element(rows[0], columns[0])
    total: Node | None = None
    for i, column in enumerate(columns):
        minor = _expanded(x, rows[1:], [c for c in columns if c != column])
        term = elementwise("MUL", element(rows[0], column), minor)
        total = term if total is None else elementwise("SUB" if i % 2 else "ADD", total, term)
    assert total is not None
    return total


def _eliminated(x: Node) -> Node:
    """The product of the pivots; each step takes the largest one left, so that no quotient exceeds 1."""
    count, size, _ = x.shape
    vector, square = (count, size), (count, size, size)
    b, i = (index(output_axis(a, d)) for a, d in enumerate(vector))
    rows: list[Index] = [index(output_axis(a, d)) for a, d in enumerate(square)]

    def step(number: Node, carried: list[Node], _: list[Node]) -> BodyResults:
        matrix, product = carried
        here = build.expand(number, vector)
        row = build.iota(vector, 1)
        column = read_at(matrix, [b, i, Place(here)], vector)
        left = elementwise("CMPLE", here, row)
        magnitude = elementwise("WHERE", left, elementwise("ABS", column), like(-1, column))
        chosen = position_of_extreme(magnitude, 1, "MAX", last=False)
        chosen = build.reshape(elementwise("MIN", chosen, like(size - 1, chosen)), [count])
        pivots = read_at(matrix, [b, Place(build.view(chosen, [b], vector)), i], vector)
        pivot = read_at(pivots, [index(output_axis(0, count)), Place(build.expand(number, [count]))], [count])
        same = elementwise("CMPEQ", chosen, build.expand(number, [count]))
        signed = elementwise("WHERE", same, pivot, elementwise("NEG", pivot))
        # the row that stood first takes the pivot's place; rows above are done and never read again
        full_row = build.iota(square, 1)
        taken = elementwise("CMPEQ", full_row, build.view(chosen, [rows[0]], square))
        first = read_at(matrix, [rows[0], Place(build.expand(number, square)), rows[2]], square)
        exchanged = elementwise("WHERE", taken, first, matrix)
        factor = read_at(exchanged, [b, i, Place(here)], vector)
        spread = build.view(pivot, [b], vector)
        zero = elementwise("CMPEQ", spread, like(0, spread))
        factor = elementwise("WHERE", zero, like(0, factor), elementwise("DIV", factor, spread))
        removed = elementwise(
            "MUL", build.view(factor, rows[:2], square), build.view(pivots, [rows[0], rows[2]], square)
        )
        return BodyResults([elementwise("SUB", exchanged, removed), elementwise("MUL", product, signed)])

    return loop(step, [x, build.full(1, [count], x.dtype)], size).final[1]
