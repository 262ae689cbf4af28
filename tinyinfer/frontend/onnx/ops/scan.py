"""Scan: a subgraph over the rows of tensors, as a loop in native code.

Source: ONNX Scan (opset 8 has a batch dimension and lengths; opset 9 and later have axes instead; from 11 on
axes may be negative).
"""

from __future__ import annotations

from collections.abc import Sequence

from tinyinfer.frontend.onnx.blocks.host_loop import host_scan
from tinyinfer.frontend.onnx.blocks.native_loop import import_body
from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.errors import NeedsValue, NotSupported
from tinyinfer.frontend.onnx.op_table import RECURRENT, onnx_op
from tinyinfer.frontend.onnx.values import HostCall
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.loop import BodyResults, LoopValues, loop
from tinyinfer.ir.node import Node


@onnx_op("Scan", since=9, tolerance=RECURRENT)
def scan(ctx: NodeContext, *inputs: Node | None) -> list[Node] | HostCall:
    """A subgraph over the slices of its scanned inputs along an axis each, with states between slices."""
    initial, scanned = _split(ctx, inputs)
    count = len(scanned)
    axes = ctx.integers("scan_input_axes", [0] * count, length=count)
    backwards = _directions(ctx, "scan_input_directions", count)
    rows = []
    for x, axis in zip(scanned, axes):
        ctx.require(bool(x.shape), "a scanned input must have an axis")
        ctx.require(axis >= 0 or ctx.opset >= 11, f"the axis {axis} is negative, which opset 11 allows first")
        rows.append(_moved(x, ctx.axis(axis, len(x.shape), "scan_input_axes"), 0))
    steps = _common(ctx, [x.shape[0] for x in rows], "lengths along the scanned axes")
    stacked = len(ctx.graph("body").output) - len(initial)
    ctx.require(stacked >= 0, f"its body makes {stacked + len(initial)} values for {len(initial)} states")
    output_axes = ctx.integers("scan_output_axes", [0] * stacked, length=stacked)
    for axis in output_axes:
        ctx.require(axis >= 0 or ctx.opset >= 11, f"the axis {axis} is negative, which opset 11 allows first")
    last_first = _directions(ctx, "scan_output_directions", stacked)
    try:
        made = loop(
            lambda number, states, given: _body(ctx, states, given),
            initial,
            steps,
            list(zip(rows, backwards)),
            lambda number: last_first[number],
        )
    except NeedsValue:
        raise
    except NotSupported:
        return host_scan(
            ctx, initial, scanned, list(zip(axes, backwards)), list(zip(output_axes, last_first))
        )
    placed = [
        _moved(y, 0, ctx.axis(a, len(y.shape), "scan_output_axes")) for y, a in zip(made.stacked, output_axes)
    ]
    return [*made.final, *placed]


@onnx_op("Scan", until=8, tolerance=RECURRENT)
def scan_batches(ctx: NodeContext, lengths: Node | None = None, *inputs: Node | None) -> list[Node]:
    """A subgraph over the time steps of every sample of a batch, with states from step to step."""
    initial, scanned = _split(ctx, inputs)
    backwards = _directions(ctx, "directions", len(scanned))
    ctx.require(all(len(x.shape) >= 2 for x in scanned), "scanned inputs must be [batch, time, …]")
    batch = _common(ctx, [x.shape[0] for x in (*scanned, *initial) if x.shape], "batches")
    ctx.require(all(x.shape for x in initial), "states must be [batch, …]")
    steps = _common(ctx, [x.shape[1] for x in scanned], "times")
    ctx.require(
        lengths is None or (lengths.shape == (batch,) and lengths.dtype == "int64"),
        f"sequence_lens must be {batch} numbers of int64",
    )

    def one(number: Node, carried: list[Node], rows: list[Node]) -> BodyResults:
        """One sample: a loop over its own steps."""
        states, values = rows[: len(initial)], rows[len(initial) : len(initial) + len(scanned)]
        count = rows[-1] if lengths is not None else None
        made = _steps(ctx, states, values, backwards, steps, count)
        return BodyResults([], [*made.final, *made.stacked])

    given = [*initial, *scanned, *([lengths] if lengths is not None else [])]
    if batch == 1:
        results = one(build.scalar(0, "int64"), [], [build.reshape(x, x.shape[1:]) for x in given]).stacked
        return [build.reshape(y, [1, *y.shape]) for y in results]
    return loop(one, [], batch, [(x, False) for x in given]).stacked


def _steps(
    ctx: NodeContext,
    states: Sequence[Node],
    values: Sequence[Node],
    backwards: Sequence[bool],
    steps: int,
    count: Node | None,
) -> LoopValues:
    """The loop over the steps of one sample; one that is read backwards starts at its own end."""
    if count is None:
        every = list(zip(values, backwards))
        return loop(lambda number, carried, rows: _body(ctx, carried, rows), states, steps, every)
    forwards = [(x, False) for x, back in zip(values, backwards) if not back]

    def body(number: Node, carried: list[Node], rows: list[Node]) -> BodyResults:
        ahead = iter(rows)
        last = elementwise("SUB", count, build.scalar(1, "int64"))
        place = elementwise("SUB", last, number)
        given = [
            build.gather(x, place, 0) if back else next(ahead) for x, back in zip(values, backwards)
        ]
        return _body(ctx, carried, given)

    return loop(body, states, steps, forwards, count=count)


def _body(ctx: NodeContext, states: Sequence[Node], rows: Sequence[Node]) -> BodyResults:
    graph = ctx.graph("body")
    results = import_body(ctx, graph, [*states, *rows])
    ctx.require(len(results) >= len(states), f"its body makes {len(results)} values for {len(states)} states")
    for old, new, declared in zip(states, results, graph.output):
        ctx.require(
            (old.shape, old.dtype) == (new.shape, new.dtype),
            f"the state '{declared.name}' changes from {old.dtype}{list(old.shape)} to "
            f"{new.dtype}{list(new.shape)}",
        )
    return BodyResults(results[: len(states)], results[len(states) :])


def _split(ctx: NodeContext, inputs: Sequence[Node | None]) -> tuple[list[Node], list[Node]]:
    """(initial states, scanned inputs)."""
    given = [x for x in inputs if x is not None]
    ctx.require(len(given) == len(inputs), "only the sequence lengths of opset 8 may be left out")
    count = ctx.integer("num_scan_inputs", REQUIRED, minimum=1, maximum=max(1, len(given)))
    ctx.require(count <= len(given), f"it scans {count} inputs, but has {len(given)}")
    return given[: len(given) - count], given[len(given) - count :]


def _directions(ctx: NodeContext, name: str, count: int) -> list[bool]:
    values = ctx.integers(name, [0] * count, length=count)
    ctx.require(all(v in (0, 1) for v in values), f"the attribute '{name}' must hold 0 and 1, not {values}")
    return [bool(v) for v in values]


def _common(ctx: NodeContext, sizes: Sequence[int], what: str) -> int:
    ctx.require(len(set(sizes)) == 1, f"the {what} of its inputs differ: {list(sizes)}")
    return sizes[0]


def _moved(x: Node, source: int, target: int) -> Node:
    """`x` with the axis `source` at `target`."""
    order = [d for d in range(len(x.shape)) if d != source]
    order.insert(target, source)
    return build.permute(x, order)
