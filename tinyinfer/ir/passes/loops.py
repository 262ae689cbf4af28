"""Loops: their bodies are rewritten as graphs of their own, and what a loop need not do leaves it.

Constants move into the body. Values that an iteration hands on as they came are captured instead of carried.
Results that nothing outside reads, and what only they need, disappear, as do inputs that the body does not
read. Trip counts and conditions that are constants become the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from tinyinfer.ir import build
from tinyinfer.ir.dtypes import numpy_dtype
from tinyinfer.ir.loop import close_body, loop_node, loop_output, replace_nodes
from tinyinfer.ir.node import UNBOUNDED, Graph, LoopBody, Node, topological_order
from tinyinfer.ir.passes.constants import is_constant, uniform_value
from tinyinfer.ir.passes.rewrite import inherit, transform


def simplify_loops(graph: Graph, settle: Callable[[Graph], Graph]) -> Graph:
    """The graph with the bodies of its loops settled, and its loops reduced to what is read of them."""
    order = graph.nodes()
    used: dict[int, set[int]] = {id(x): set() for x in order if x.op == "LOOP"}
    if not used:
        return graph
    for x in order:
        if x.op == "LOOP_OUTPUT":
            used[id(x.inputs[0])].add(x.attrs)
    made: dict[int, _Reduced] = {}

    def replaced(old: Node, current: Node) -> Node:
        if old.op == "LOOP":
            found = made[id(old)] = _reduced(current, settle, used[id(old)])
            return found.done
        if old.op == "LOOP_OUTPUT":
            new = made[id(old.inputs[0])].outputs[old.attrs]
            if new is not old:
                inherit(new, old)
            return new
        return current

    return transform(graph, order, replaced)


def finish_bodies(graph: Graph, finish: Callable[[Graph], Graph]) -> Graph:
    """The graph with `finish` applied to the bodies of its loops."""
    order = graph.nodes()
    if all(x.op != "LOOP" for x in order):
        return graph

    def replaced(old: Node, current: Node) -> Node:
        if old.op != "LOOP":
            return current
        outputs = tuple(finish(current.attrs.graph).outputs.values())
        if outputs == current.attrs.outputs:
            return current
        return loop_node(replace(current.attrs, outputs=outputs), current.inputs, current.origin)

    return transform(graph, order, replaced)


@dataclass
class _Reduced:
    """What stands for a LOOP node and for its outputs by number."""

    done: Node
    outputs: dict[int, Node] = field(default_factory=dict)


@dataclass
class _Parts:
    """A loop taken apart: (outer value, body's input, result) of what is carried, and so on."""

    carried: list[tuple[int, Node, Node, Node]]
    scanned: list[tuple[Node, Node, bool]]
    captured: list[tuple[Node, Node]]
    stacked: list[tuple[int, Node, bool]]
    condition: Node | None


def _reduced(x: Node, settle: Callable[[Graph], Graph], used: set[int]) -> _Reduced:
    body: LoopBody = x.attrs
    steps, count, enter = _limits(x)
    if steps == 0:
        return _never(x, used)
    settled = tuple(settle(body.graph).outputs.values())
    parts = _take_apart(replace(body, outputs=settled), x.inputs)
    if enter is None:
        parts.condition = None
    elif parts.condition is not None and uniform_value(parts.condition) is False:
        # the condition to enter is the only one that counts
        steps = min(steps, 1)
    replacement: dict[int, Node] = {}
    outputs: dict[int, Node] = {}
    kept = []
    for number, outer, inner, result in parts.carried:
        if result is inner:
            parts.captured.append((outer, inner))
            outputs[number] = outer
        else:
            kept.append((number, outer, inner, result))
    parts.carried = kept
    captured: dict[Node, Node] = {}
    for outer, inner in parts.captured:
        if is_constant(outer):
            replacement[id(inner)] = outer
        elif outer in captured:
            replacement[id(inner)] = captured[outer]
        else:
            captured[outer] = inner
    parts.captured = list(captured.items())
    _substitute(parts, replacement)
    _drop_unused(parts, used)
    known = build.scalar(steps, "int64") if count is None and parts.condition is None else None
    if not parts.carried and not parts.stacked and known is not None:
        return _Reduced(known, outputs)
    rebuilt = LoopBody(
        steps,
        (
            body.inputs[0],
            *(inner for _, _, inner, _ in parts.carried),
            *(inner for _, inner, _ in parts.scanned),
            *(inner for _, inner in parts.captured),
        ),
        (
            *(result for _, _, _, result in parts.carried),
            *(row for _, row, _ in parts.stacked),
            *([parts.condition] if parts.condition is not None else []),
        ),
        len(parts.carried),
        tuple(back for _, _, back in parts.scanned),
        tuple(back for _, _, back in parts.stacked),
        count is not None,
        parts.condition is not None,
    )
    if rebuilt.inputs != body.inputs:
        rebuilt = close_body(rebuilt)
    given = [outer for _, outer, _, _ in parts.carried]
    given += [outer for outer, _, _ in parts.scanned]
    given += [outer for outer, _ in parts.captured]
    given += [value for value in (count, enter) if value is not None]
    made = x if rebuilt == body and tuple(given) == x.inputs else loop_node(rebuilt, given, x.origin)
    numbers = [number for number, _, _, _ in parts.carried] + [number for number, _, _ in parts.stacked]
    outputs |= {number: loop_output(made, place) for place, number in enumerate(numbers)}
    return _Reduced(made if known is None else known, outputs)


def _limits(x: Node) -> tuple[int, Node | None, Node | None]:
    """The largest number of steps, the trip count and the condition to enter; None: known, or none."""
    body: LoopBody = x.attrs
    rest = list(x.inputs)
    enter = rest.pop() if body.conditional else None
    count = rest.pop() if body.counted else None
    steps = body.steps
    if count is not None and not body.stacked and not body.scanned:
        known = uniform_value(count)
        if known is not None:
            steps, count = min(steps, max(0, int(known))), None
    if enter is not None:
        known = uniform_value(enter)
        if known is not None and not known:
            steps = 0
        elif known and uniform_value(body.outputs[-1]) is True and (count is not None or steps < UNBOUNDED):
            enter = None
    return steps, count, enter


def _never(x: Node, used: Iterable[int]) -> _Reduced:
    """A loop without iterations leaves what it got."""
    body: LoopBody = x.attrs
    outputs = {}
    for number in used:
        row = body.outputs[number]
        outputs[number] = (
            x.inputs[number]
            if number < body.carried
            else build.constant(np.zeros((body.steps, *row.shape), numpy_dtype(row.dtype)))
        )
    return _Reduced(build.scalar(0, "int64"), outputs)


def _take_apart(body: LoopBody, given: tuple[Node, ...]) -> _Parts:
    first, second = body.carried, body.carried + len(body.scanned)
    inner = body.inputs[1:]
    captured = len(body.captured)
    return _Parts(
        [(i, given[i], inner[i], body.outputs[i]) for i in range(first)],
        list(zip(given[first:second], inner[first:second], body.scanned)),
        list(zip(given[second : second + captured], inner[second:])),
        [(first + i, body.outputs[first + i], back) for i, back in enumerate(body.stacked)],
        body.outputs[-1] if body.conditional else None,
    )


def _substitute(parts: _Parts, replacement: dict[int, Node]) -> None:
    """Put nodes in the place of inputs, in all results."""
    if not replacement:
        return
    results = [r for _, _, _, r in parts.carried] + [r for _, r, _ in parts.stacked]
    results += [parts.condition] if parts.condition is not None else []
    new = iter(replace_nodes(results, replacement))
    parts.carried = [(n, o, i, next(new)) for n, o, i, _ in parts.carried]
    parts.stacked = [(n, next(new), back) for n, _, back in parts.stacked]
    if parts.condition is not None:
        parts.condition = next(new)


def _drop_unused(parts: _Parts, used: set[int]) -> None:
    """Keep the results that are read, and what they need."""
    parts.stacked = [s for s in parts.stacked if s[0] in used]
    roots = [row for _, row, _ in parts.stacked]
    roots += [parts.condition] if parts.condition is not None else []
    wanted = {number for number, _, _, _ in parts.carried if number in used}
    while True:
        results = [r for n, _, _, r in parts.carried if n in wanted]
        read = {id(x) for x in topological_order([*roots, *results]) if x.op == "INPUT"}
        more = {n for n, _, inner, _ in parts.carried if id(inner) in read} - wanted
        if not more:
            break
        wanted |= more
    parts.carried = [c for c in parts.carried if c[0] in wanted]
    parts.scanned = [s for s in parts.scanned if id(s[1]) in read]
    parts.captured = [c for c in parts.captured if id(c[1]) in read]
