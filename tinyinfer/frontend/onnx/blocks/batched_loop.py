"""Loops whose number of stacked rows is only known when they have run, as batches of iterations.

Native code runs up to so many iterations and stops early where the condition ends; the host keeps the rows
that were made and starts the next batch. A carried value that each iteration appends to and nothing else
reads (the tokens of a decoder) is a stack of what is appended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper

from tinyinfer.errors import RuntimeException
from tinyinfer.frontend.onnx.blocks.host_loop import Step
from tinyinfer.frontend.onnx.blocks.native_loop import iteration, one_of
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import RECURRENT, onnx_op
from tinyinfer.frontend.onnx.scope import reads
from tinyinfer.frontend.onnx.trace import Body
from tinyinfer.frontend.onnx.values import HostCall
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.loop import BodyResults, LoopValues, loop
from tinyinfer.ir.node import Node
from tinyinfer.runtime.signature import numpy_dtype

DOMAIN = "tinyinfer.internal"
FEWEST, MOST, ROW_ELEMENTS = 8, 256, 1 << 20
"""Iterations of a batch, and the elements of rows that a batch may hold beyond the fewest."""


@dataclass(frozen=True)
class _Growing:
    """A carried value that grows: its number, the axis that it grows along, and what is appended."""

    number: int
    axis: int
    appended: str


def batched_loop(
    ctx: NodeContext, trips: Node | None, condition: Node | None, carried: Sequence[Node]
) -> HostCall:
    """ONNX's Loop as batches of native iterations. Raises NotSupported where the body cannot be in the IR."""
    graph = ctx.graph("body")
    ctx.require(
        len(graph.input) == len(carried) + 2 and len(graph.output) > len(carried),
        f"the body takes {len(graph.input)} and gives {len(graph.output)} values for {len(carried)} carried",
    )
    growing = _growing(graph, carried)
    grown = {g.number for g in growing}
    fixed = [x for i, x in enumerate(carried) if i not in grown]
    body = _body(graph, growing)
    zero = build.scalar(0, "int64")
    # what cannot be in native code shows here, before anything is left to the host
    trial = _iterations(ctx, body, zero, zero, build.scalar(True, "bool"), fixed, FEWEST)
    rows = [x.shape[1:] for x in trial.stacked]
    dtypes = [numpy_dtype(x.dtype) for x in trial.stacked]
    elements = max([1, *(x.size // FEWEST for x in trial.stacked)])
    steps = max(FEWEST, min(MOST, ROW_ELEMENTS // elements))
    driven = Body(ctx.importer.model, _batch(body, len(fixed), steps), ctx.scope, ctx.name)
    count, limit, label = len(carried), ctx.importer.limits.loop_trips, ctx.label
    plain = len(rows) - len(growing)

    def run(step: Step, most: Any, going: Any, *values: Any) -> tuple[Any, ...]:
        state = [x for i, x in enumerate(values[:count]) if i not in grown]
        outer = values[count:]
        end = None if most is None else int(most.reshape(-1)[0])
        go = True if going is None else bool(going.reshape(-1)[0])
        made: list[list[np.ndarray]] = [[] for _ in rows]
        trip = 0
        while go and (end is None or trip < end):
            if trip >= limit:
                raise RuntimeException(f"{label}: the loop made {limit} trips, the limit")
            left = steps if end is None else min(steps, end - trip)
            bounds = [np.array(trip, np.int64), np.array(left, np.int64), np.array(go)]
            results = step([*bounds, *state, *outer])
            done = int(results[0])
            go = bool(results[1])
            state = results[2 : 2 + len(state)]
            for parts, stack in zip(made, results[2 + len(state) :]):
                parts.append(stack[:done])
            trip += done
        stacks = [
            np.concatenate(parts) if parts else np.zeros((0, *row), dtype)
            for parts, row, dtype in zip(made, rows, dtypes)
        ]
        rest = iter(state)
        final = [values[i] if i in grown else next(rest) for i in range(count)]
        for g, stack in zip(growing, stacks[plain:]):
            whole = np.moveaxis(stack, 0, g.axis)
            shape = list(whole.shape)
            shape[g.axis : g.axis + 2] = [shape[g.axis] * shape[g.axis + 1]]
            final[g.number] = np.concatenate([values[g.number], whole.reshape(shape)], g.axis)
        return (*final, *stacks[:plain])

    return HostCall(run, (trips, condition, *carried, *driven.outer), count + plain, (driven,))


@onnx_op("Iterations", domain=DOMAIN, tolerance=RECURRENT)
def iterations(ctx: NodeContext, start: Node, most: Node, enter: Node, *carried: Node) -> list[Node]:
    """One batch of a Loop: its number of iterations, whether it goes on, carried values, stacked rows."""
    steps = ctx.integer("steps", FEWEST, minimum=1, maximum=MOST)
    start, most = (one_of(ctx, x, "int64", "number") for x in (start, most))
    enter = one_of(ctx, enter, "bool", "condition")
    made = _iterations(ctx, ctx.graph("body"), start, most, enter, carried, steps)
    return [made.done, made.final[-1], *made.final[:-1], *made.stacked]


def _iterations(
    ctx: NodeContext,
    graph: GraphProto,
    start: Node,
    most: Node,
    enter: Node,
    carried: Sequence[Node],
    steps: int,
) -> LoopValues:
    """At most `most` and `steps` iterations from number `start` on; the last final value is the condition."""

    def body(number: Node, values: list[Node], rows: list[Node]) -> BodyResults:
        own = elementwise("ADD", number, start)
        going, new, made = iteration(ctx, graph, own, values[:-1])
        return BodyResults([*new, going], made, going)

    return loop(body, [*carried, enter], steps, count=most, condition=enter)


def _growing(graph: GraphProto, carried: Sequence[Node]) -> list[_Growing]:
    """The carried values that an iteration only appends to, by a Concat with them in front."""
    read: dict[str, int] = {}
    for node in graph.node:
        for name in reads(node):
            read[name] = read.get(name, 0) + 1
    for value in graph.output:
        read[value.name] = read.get(value.name, 0) + 1
    found = []
    for number, x in enumerate(carried):
        old, new = graph.input[2 + number].name, graph.output[1 + number].name
        node = next((n for n in graph.node if new in n.output), None)
        if node is None or node.op_type != "Concat" or node.domain not in ("", "ai.onnx"):
            continue
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        rank = len(x.shape)
        alone = read.get(old) == 1 and read.get(new) == 1
        if alone and len(node.input) == 2 and node.input[0] == old and -rank <= axis < rank:
            found.append(_Growing(number, axis % rank, node.input[1]))
    return found


def _body(graph: GraphProto, growing: Sequence[_Growing]) -> GraphProto:
    """The body without the values that grow; what they are appended is stacked after all else."""
    grown = {g.number for g in growing}
    made = GraphProto()
    made.CopyFrom(graph)
    for field in (made.input, made.output, made.node):
        del field[:]
    dropped = {graph.output[1 + number].name for number in grown}
    made.input.extend(v for i, v in enumerate(graph.input) if i - 2 not in grown)
    made.output.extend(v for i, v in enumerate(graph.output) if i - 1 not in grown)
    made.output.extend(helper.make_empty_tensor_value_info(g.appended) for g in growing)
    made.node.extend(n for n in graph.node if not dropped.intersection(n.output))
    return made


def _batch(body: GraphProto, carried: int, steps: int) -> GraphProto:
    """The graph of one batch: a single node."""
    stacked = len(body.output) - 1 - carried
    inputs = ["#start", "#most", "#enter", *(f"#carried{i}" for i in range(carried))]
    outputs = ["#done", "#going", *(f"#new{i}" for i in range(carried))]
    outputs += [f"#row{i}" for i in range(stacked)]
    node: NodeProto = helper.make_node("Iterations", inputs, outputs, domain=DOMAIN, steps=steps)
    attribute = node.attribute.add()
    attribute.name, attribute.type = "body", attribute.GRAPH
    attribute.g.CopyFrom(body)
    kinds = [TensorProto.INT64, TensorProto.INT64, TensorProto.BOOL]
    typed = [helper.make_tensor_value_info(name, kind, []) for name, kind in zip(inputs, kinds)]
    return helper.make_graph(
        [node],
        "batch",
        [*typed, *map(helper.make_empty_tensor_value_info, inputs[3:])],
        list(map(helper.make_empty_tensor_value_info, outputs)),
    )
