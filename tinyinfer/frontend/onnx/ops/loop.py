"""Loop: in native code where the shapes of what it carries are fixed, otherwise driven by the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinyinfer.frontend.onnx.blocks.batched_loop import batched_loop
from tinyinfer.frontend.onnx.blocks.host_loop import host_loop
from tinyinfer.frontend.onnx.blocks.native_loop import loop_in_native_code
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.errors import InvalidGraph, NeedsHost, NeedsValue, NotSupported
from tinyinfer.frontend.onnx.op_table import EXACT, onnx_op
from tinyinfer.frontend.onnx.values import Value
from tinyinfer.ir import build
from tinyinfer.ir.node import Node

UNROLLED = 256
"""Trips up to which a loop that carries sequences is part of the graph around it."""


@onnx_op("Loop", tolerance=EXACT, values=True)
def loop(
    ctx: NodeContext, trips: Value | None = None, condition: Value | None = None, *carried: Value
) -> Any:
    """A subgraph run again and again, what it gives being fed to its next run."""
    for what, value, kind in (("trip count", trips, "int64"), ("condition", condition, "bool")):
        ctx.require(
            value is None or (isinstance(value, Node) and value.dtype == kind and value.size == 1),
            f"the {what} must be one {kind}",
        )
    nodes = [x for x in carried if isinstance(x, Node)]
    if len(nodes) < len(carried):
        unrolled = _unrolled(ctx, trips, condition, carried)
        if unrolled is not None:
            return unrolled
    else:
        count, enter = (x if isinstance(x, Node) else None for x in (trips, condition))
        for way in (_native, batched_loop):
            try:
                return way(ctx, count, enter, nodes)
            except NeedsValue:
                raise
            except (InvalidGraph, NotSupported):
                # what is wrong with the body, if anything, shows when the host runs it
                continue
    return host_loop(ctx, trips, condition, carried)


def _native(
    ctx: NodeContext, trips: Node | None, condition: Node | None, carried: Sequence[Node]
) -> list[Node]:
    made = loop_in_native_code(ctx, trips, condition, *carried)
    return [*made.final, *made.stacked]


def _unrolled(
    ctx: NodeContext, trips: Value | None, condition: Value | None, carried: tuple[Value, ...]
) -> list[Value] | None:
    """The results of a loop whose number of trips is known and small; None where it is not."""
    known = ctx.known(trips) if isinstance(trips, Node) else None
    go = ctx.known(condition) if isinstance(condition, Node) else True
    if known is None or go is None or int(known.reshape(-1)[0]) > UNROLLED or not bool(go):
        return None
    graph, state = ctx.graph("body"), list(carried)
    if len(graph.output) != len(carried) + 1:
        return None
    for trip in range(int(known.reshape(-1)[0])):
        try:
            results = ctx.importer.subgraph(
                ctx, graph, [build.scalar(trip, "int64"), build.scalar(True, "bool"), *state]
            )
        except (NeedsHost, NeedsValue):
            return None
        going = ctx.known(results[0]) if isinstance(results[0], Node) else None
        if going is None:
            return None
        state = list(results[1:])
        if not bool(going):
            break
    return state
