"""Making LOOP nodes: a body written as a function of nodes becomes a closed graph.

What the body uses and does not compute from its own inputs is found here and captured, so whatever does not
change from one iteration to the next is computed once, outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count as numbers
from weakref import WeakSet

from tinyinfer.ir import build
from tinyinfer.ir.node import UNBOUNDED, LoopBody, Node, node, topological_order

_FRESH = numbers()
_CHANGING: WeakSet[Node] = WeakSet()
"""The inputs of bodies while they are written."""


@dataclass
class BodyResults:
    """What one iteration gives: carried values for the next, a row of each stacked value, whether to go on.
    """

    carried: Sequence[Node]
    stacked: Sequence[Node] = ()
    condition: Node | None = None


@dataclass
class LoopValues:
    """What a loop leaves: the number of iterations done, final carried values, and stacked rows."""

    done: Node
    final: list[Node] = field(default_factory=list)
    stacked: list[Node] = field(default_factory=list)


Body = Callable[[Node, list[Node], list[Node]], BodyResults]
"""(iteration number, carried values, scanned rows) to the results of one iteration."""


def loop(
    body: Body,
    initial: Sequence[Node],
    steps: int = UNBOUNDED,
    scanned: Sequence[tuple[Node, bool]] = (),
    stacked_backwards: Callable[[int], bool] | None = None,
    count: Node | None = None,
    condition: Node | None = None,
) -> LoopValues:
    """A LOOP of at most `steps` iterations over `initial` carried values.

    `scanned` pairs a value of `steps` rows with whether the last row comes first; `stacked_backwards` says of
    the number of a stacked value whether its last row is written first. `count` (int64 scalar), `condition`
    (bool scalar, to enter) and the body's condition to go on are optional. Raises ValueError where shapes or
    dtypes do not fit.
    """
    from tinyinfer.ir.passes.constants import uniform_value

    for value, _ in scanned:
        if not value.shape or value.shape[0] != steps:
            raise ValueError(f"a loop of {steps} steps scans a value of shape {list(value.shape)}")
    prefix = f"loop {next(_FRESH)} "
    iteration = build.input_node(f"{prefix}iteration", (), "int64")
    carried = [build.input_node(f"{prefix}carried {i}", x.shape, x.dtype) for i, x in enumerate(initial)]
    rows = [
        build.input_node(f"{prefix}scanned {i}", x.shape[1:], x.dtype) for i, (x, _) in enumerate(scanned)
    ]
    own = [iteration, *carried, *rows]
    for x in own:
        x.origin = frozenset()
    _CHANGING.update(own)
    results = body(iteration, carried, rows)
    if len(results.carried) != len(initial):
        raise ValueError(f"a loop over {len(initial)} values carries {len(results.carried)} on")
    for old, new in zip(initial, results.carried):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise ValueError(
                f"a loop carries {old.dtype}{list(old.shape)} in and {new.dtype}{list(new.shape)} on"
            )
    go_on = results.condition
    if condition is None and (go_on is None or uniform_value(go_on) is True):
        go_on = None
    else:
        yes = build.scalar(True, "bool")
        condition, go_on = condition or yes, go_on or yes
    outputs = [*results.carried, *results.stacked, *([go_on] if go_on is not None else [])]
    backwards = stacked_backwards or (lambda number: False)
    closed, inner, outer = _close(outputs, own)
    made = close_body(
        LoopBody(
            steps,
            (*own, *inner),
            tuple(closed),
            len(initial),
            tuple(last_first for _, last_first in scanned),
            tuple(backwards(i) for i in range(len(results.stacked))),
            count is not None,
            condition is not None,
        )
    )
    given = [*initial, *(x for x, _ in scanned), *outer]
    given += [x for x in (count, condition) if x is not None]
    return loop_values(loop_node(made, given))


def changes_in_a_loop(x: Node) -> bool:
    """Whether a node depends on an input of a body that is being written."""
    return any(n in _CHANGING for n in topological_order([x]))


def loop_node(body: LoopBody, inputs: Sequence[Node], origin: frozenset[str] = frozenset()) -> Node:
    """The LOOP node of `body` over `inputs`."""
    return node("LOOP", inputs, body, (), "int64", origin)


def loop_output(made: Node, number: int, origin: frozenset[str] = frozenset()) -> Node:
    """LOOP_OUTPUT `number` of a LOOP node."""
    body: LoopBody = made.attrs
    row = body.outputs[number]
    shape = row.shape if number < body.carried else (body.steps, *row.shape)
    return node("LOOP_OUTPUT", (made,), number, shape, row.dtype, origin)


def loop_values(made: Node) -> LoopValues:
    """Everything that a LOOP node leaves."""
    body: LoopBody = made.attrs
    total = body.carried + len(body.stacked)
    final = [loop_output(made, i) for i in range(body.carried)]
    return LoopValues(made, final, [loop_output(made, i) for i in range(body.carried, total)])


def close_body(body: LoopBody) -> LoopBody:
    """The body with its inputs named by their place, so that equal loops are one node."""
    names = ["iteration", *(f"carried {i}" for i in range(body.carried))]
    names += [f"scanned {i}" for i in range(len(body.scanned))]
    names += [f"captured {i}" for i in range(len(body.inputs) - len(names))]
    renamed = [node("INPUT", (), name, x.shape, x.dtype) for name, x in zip(names, body.inputs)]
    outputs = replace_nodes(body.outputs, {id(x): new for x, new in zip(body.inputs, renamed)})
    return LoopBody(
        body.steps,
        tuple(renamed),
        tuple(outputs),
        body.carried,
        body.scanned,
        body.stacked,
        body.counted,
        body.conditional,
    )


def replace_nodes(roots: Sequence[Node], replacement: Mapping[int, Node]) -> list[Node]:
    """`roots` with nodes replaced (by their id), everything above them made anew."""
    from tinyinfer.ir.passes.rewrite import rebuilt

    memo: dict[int, Node] = dict(replacement)
    for current in topological_order(roots):
        if id(current) not in memo:
            memo[id(current)] = rebuilt(current, tuple(memo[id(x)] for x in current.inputs))
    return [memo[id(x)] for x in roots]


def _close(outputs: Sequence[Node], own: Sequence[Node]) -> tuple[list[Node], list[Node], list[Node]]:
    """(`outputs` over captured inputs, those inputs, the outer values that they stand for)."""
    order = topological_order(outputs)
    varies = {id(x) for x in own}
    fed: set[int] = set()
    for current in order:
        if any(id(x) in varies for x in current.inputs):
            varies.add(id(current))
        if current.op in ("INPUT", "LOOP") or any(id(x) in fed for x in current.inputs):
            fed.add(id(current))
    memo: dict[int, Node] = {id(x): x for x in own}
    inner: list[Node] = []
    outer: list[Node] = []

    def outside(x: Node) -> Node:
        """What stands in the body for a value that is the same in every iteration."""
        if id(x) in memo:
            return memo[id(x)]
        if id(x) not in fed:
            made = x
        elif x.op == "VIEW" and len(x.inputs) == 1 and x.size > x.inputs[0].size:
            source = outside(x.inputs[0])
            made = build.view(source, x.attrs.indices, x.shape, x.attrs.guards, x.attrs.fill)
        else:
            made = build.input_node(f"{own[0].attrs} captured {len(inner)}", x.shape, x.dtype)
            inner.append(made)
            outer.append(x)
        memo[id(x)] = made
        return made

    from tinyinfer.ir.passes.rewrite import rebuilt

    for current in order:
        if id(current) in varies and id(current) not in memo:
            memo[id(current)] = rebuilt(current, tuple(outside(x) for x in current.inputs))
    return [outside(x) for x in outputs], inner, outer
