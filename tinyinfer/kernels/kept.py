"""Values of a row that are kept in the row's result instead of being computed twice."""

from __future__ import annotations

from tinyinfer.ir.index import Atom, Axis, Index, index, substitute
from tinyinfer.kernels.access import Access, rebuild, walk_with_indices
from tinyinfer.kernels.expression import Expr, expression
from tinyinfer.kernels.nest import LoopNest, map_indices
from tinyinfer.kernels.schedule_map import MapSchedule, expression_weight

DEAR = 10
"""Vector operations from which on a value is kept rather than computed twice."""


def keep_in_result(nest: LoopNest, schedule: MapSchedule) -> tuple[LoopNest, dict[int, Index]]:
    """Let a row statistic that sums something dear (exp, in a softmax) keep it where the row's result will
    go.

    Returns the nest whose result reads it back from there instead of computing it again, and for each such
    reduction (by id) the address that its elements are kept at.
    """
    if len(schedule.columns) != 1 or schedule.vector is not schedule.columns[0]:
        return nest, {}
    column = schedule.columns[0]
    for e in walk_with_indices(nest.body):
        if e.op != "REDUCE" or len(e.attrs[1]) != 1 or e.dtype != nest.dtypes[0]:
            continue
        along = e.attrs[1][0]
        if along.size != column.size or expression_weight(e.args[0]) < DEAR:
            continue
        twin = _along_another(e.args[0], along, column)
        if twin is e.args[0] or all(x is not twin for x in walk_with_indices(nest.body)):
            continue
        stored = expression("LOAD", (), e.dtype, Access(0, nest.store))
        body = _replaced(nest.body, twin, stored)
        back: dict[Atom, Index] = {column: index(along)}
        return LoopNest(nest.axes, nest.store, body, nest.dtypes), {id(e): substitute(nest.store, back)}
    return nest, {}


def _along_another(body: Expr, old: Axis, new: Axis) -> Expr:
    """`body` where `new` stands for `old`."""
    table: dict[Atom, Index] = {old: index(new)}
    return map_indices(body, lambda i: substitute(i, table), lambda axes: axes)


def _replaced(root: Expr, old: Expr, new: Expr) -> Expr:
    return rebuild(root, lambda x: new if x is old else None)
