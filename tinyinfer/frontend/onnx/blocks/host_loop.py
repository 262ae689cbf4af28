"""Loops that the host drives: bodies whose shapes change from step to step, or that no single graph can
hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import GraphProto

from tinyinfer.errors import RuntimeException
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.tensors import ELEMENT_TYPES
from tinyinfer.frontend.onnx.trace import Body
from tinyinfer.frontend.onnx.values import HostCall, Value
from tinyinfer.runtime.signature import numpy_dtype

Step = Callable[[Sequence[Any]], list[Any]]


def host_loop(
    ctx: NodeContext, trips: Value | None, condition: Value | None, carried: Sequence[Value]
) -> HostCall:
    """ONNX's Loop, one run of the body a trip."""
    graph = ctx.graph("body")
    body = Body(ctx.importer.model, graph, ctx.scope, ctx.name)
    count, limit, label = len(carried), ctx.importer.limits.loop_trips, ctx.label
    ctx.require(
        len(graph.input) == count + 2 and len(graph.output) >= count + 1,
        f"the body takes {len(graph.input)} and gives {len(graph.output)} values for {count} carried ones",
    )
    empty = [_empty(graph, i) for i in range(count + 1, len(graph.output))]

    def run(step: Step, most: Any, going: Any, *values: Any) -> tuple[Any, ...]:
        state, outer = list(values[:count]), values[count:]
        end = None if most is None else int(most.reshape(-1)[0])
        go = True if going is None else bool(going.reshape(-1)[0])
        rows: list[list[Any]] = [[] for _ in empty]
        trip = 0
        while go and (end is None or trip < end):
            if trip >= limit:
                raise RuntimeException(f"{label}: the loop made {limit} trips, the limit")
            results = step([np.array(trip, np.int64), np.array(go), *state, *outer])
            go = bool(results[0].reshape(-1)[0])
            state = results[1 : 1 + count]
            for row, made in zip(rows, results[1 + count :]):
                row.append(made)
            trip += 1
        stacked = [np.stack(row) if row else nothing for row, nothing in zip(rows, empty)]
        return (*state, *stacked)

    return HostCall(run, (trips, condition, *carried, *body.outer), count + len(empty), (body,))


def host_scan(
    ctx: NodeContext,
    states: Sequence[Value],
    scanned: Sequence[Value],
    axes: Sequence[tuple[int, bool]],
    results: Sequence[tuple[int, bool]],
) -> HostCall:
    """ONNX's Scan over one batch, one run of the body a step.

    `axes` has the axis and whether it runs backwards for each of `scanned`, `results` the same for each
    stacked output.
    """
    graph = ctx.graph("body")
    body = Body(ctx.importer.model, graph, ctx.scope, ctx.name)
    count, streams = len(states), len(scanned)
    empty = [_empty(graph, i) for i in range(count, len(graph.output))]

    def run(step: Step, *values: Any) -> tuple[Any, ...]:
        state, rest = list(values[:count]), values[count:]
        parts = [np.moveaxis(x, axis, 0) for x, (axis, _) in zip(rest[:streams], axes)]
        parts = [x[::-1] if back else x for x, (_, back) in zip(parts, axes)]
        outer = rest[streams:]
        rows: list[list[Any]] = [[] for _ in empty]
        for number in range(len(parts[0])):
            made = step([*state, *(p[number] for p in parts), *outer])
            state = made[:count]
            for row, value in zip(rows, made[count:]):
                row.append(value)
        stacked = []
        for row, nothing, (axis, back) in zip(rows, empty, results):
            whole = np.stack(row[::-1] if back else row) if row else nothing
            stacked.append(np.moveaxis(whole, 0, axis))
        return (*state, *stacked)

    return HostCall(run, (*states, *scanned, *body.outer), count + len(empty), (body,))


def _empty(graph: GraphProto, number: int) -> np.ndarray:
    """The stacked output of a loop that made no trip: no rows of the shape that the body declares."""
    kind = graph.output[number].type.tensor_type
    name = ELEMENT_TYPES.get(kind.elem_type, ("float32", ""))[0]
    return np.zeros((0, *(d.dim_value for d in kind.shape.dim)), numpy_dtype(name))
