"""Loops: the text form, the passes, and native code against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import CACHE, plan_of

from tinyinfer.backends.cpu.device import compile_plan
from tinyinfer.backends.cpu.executable import CpuExecutable
from tinyinfer.backends.cpu.target import host_target
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.loop import BodyResults, loop
from tinyinfer.ir.node import Graph, Node
from tinyinfer.ir.oracle import evaluate
from tinyinfer.ir.passes import optimize
from tinyinfer.ir.text import graph_literals, parse_graph, print_graph
from tinyinfer.ir.verify import VerificationError, check_node, verify


def _graph(**outputs: Node) -> Graph:
    inputs = {x.attrs: x for x in Graph({}, outputs).nodes() if x.op == "INPUT"}
    return Graph(inputs, outputs)


def _feeds(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: np.asarray(random.normal(size=x.shape)).astype(x.dtype) for name, x in graph.inputs.items()}


def _compiled(graph: Graph, threads: int = 1) -> CpuExecutable:
    return compile_plan(plan_of(optimize(graph)), host_target(), threads, CACHE)


def _check(graph: Graph, feeds: dict[str, np.ndarray] | None = None) -> list[np.ndarray]:
    """The outputs of a graph, equal as interpreted, optimised, parsed from its text, and compiled."""
    feeds = feeds if feeds is not None else _feeds(graph)
    verify(graph)
    again = parse_graph(print_graph(graph), graph_literals(graph))
    assert list(again.outputs.values()) == list(graph.outputs.values())
    expected = evaluate(list(graph.outputs.values()), feeds)
    optimized = optimize(graph)
    verify(optimized)
    for one, other in zip(evaluate(list(optimized.outputs.values()), feeds), expected):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    executables = [_compiled(graph, 2), compile_plan(plan_of(graph), host_target(), 1, CACHE)]
    for executable in executables:
        for _ in range(2):  # the second run finds what the first one left
            results = executable.run([feeds[spec.name] for spec in executable.inputs])
            for one, other in zip(results, expected, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        executable.close()
    return expected


def _recurrent(steps: int, batch: int, size: int, backwards: bool) -> Graph:
    weights = build.constant((np.random.default_rng(5).normal(size=(size, size)) / size).astype(np.float32))
    x = build.input_node("x", (steps, batch, size), "float32")
    start = build.input_node("start", (batch, size), "float32")
    projected = build.reshape(
        build.matmul(build.reshape(x, (steps * batch, size)), weights), (steps, batch, size)
    )

    def body(number: Node, carried: list[Node], rows: list[Node]) -> BodyResults:
        state = elementwise("TANH", elementwise("ADD", rows[0], build.matmul(carried[0], weights)))
        return BodyResults([state, carried[1]], [state, carried[0]])

    made = loop(
        body, [start, build.full(2.0, (3,), "float32")], steps, [(projected, backwards)], lambda i: backwards
    )
    return _graph(
        y=made.stacked[0], before=made.stacked[1], last=made.final[0], same=made.final[1], n=made.done
    )


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("steps, batch, size", [(1, 2, 5), (2, 1, 16), (5, 3, 24), (40, 2, 7)])
def test_states_go_from_step_to_step(steps, batch, size, backwards):
    _check(_recurrent(steps, batch, size, backwards))


@pytest.mark.parametrize("backwards", [False, True])
def test_no_iteration_copies_a_state_that_is_stacked(backwards):
    (loops,) = [x.loop for x in plan_of(optimize(_recurrent(5, 2, 16, backwards))).launches if x.loop]
    copied = [launch for launch in loops.launches if len(launch.arguments) == 2]
    assert len(loops.launches) == 2 and len(copied) == 1  # the other stacked value, the state before
    (rows,) = [size for _, _, size in loops.after if size == 5 * 2 * 16 * 4]
    assert rows


def test_a_state_of_too_many_rows_is_copied_by_each_iteration(monkeypatch):
    monkeypatch.setattr("tinyinfer.kernels.plan_loop.MOST_STATES", 5 * 2 * 16 * 4 - 1)
    graph = _recurrent(5, 2, 16, True)
    (loops,) = [x.loop for x in plan_of(optimize(graph)).launches if x.loop]
    assert len(loops.launches) == 3
    _check(graph)


def test_equal_loops_are_one_node():
    assert _recurrent(3, 2, 4, True).outputs["y"] is _recurrent(3, 2, 4, True).outputs["y"]


def test_what_an_iteration_leaves_alone_is_not_carried():
    optimized = optimize(_recurrent(3, 2, 4, False))
    (made,) = {x for x in optimized.nodes() if x.op == "LOOP"}
    assert made.attrs.carried == 1 and optimized.outputs["same"].op == "VIEW"
    assert optimized.outputs["n"].op == "CONST"


def test_what_nothing_reads_is_not_computed():
    graph = _recurrent(3, 2, 4, False)
    optimized = optimize(Graph(graph.inputs, {"last": graph.outputs["last"]}))
    (made,) = {x for x in optimized.nodes() if x.op == "LOOP"}
    assert made.attrs.stacked == () and made.attrs.carried == 1
    _check(Graph(graph.inputs, {"last": graph.outputs["last"]}))


def test_zero_steps_leave_the_start():
    x = build.input_node("x", (0, 2), "float32")
    start = build.input_node("start", (2,), "float32")
    made = loop(
        lambda n, c, rows: BodyResults([elementwise("ADD", c[0], rows[0])], [c[0]]), [start], 0, [(x, False)]
    )
    last, y = _check(_graph(last=made.final[0], y=made.stacked[0]))
    assert y.shape == (0, 2) and last.shape == (2,)


def _counting(body, **limits) -> Graph:
    """A loop that adds the iteration number to a float vector."""
    start = build.input_node("start", (3,), "float32")
    made = loop(body, [start], **limits)
    return _graph(last=made.final[0], n=made.done, **{f"y{i}": y for i, y in enumerate(made.stacked)})


def _add_number(number: Node, carried: list[Node], rows: list[Node]) -> BodyResults:
    total = elementwise("ADD", carried[0], build.expand(build.cast(number, "float32"), (3,)))
    return BodyResults([total])


@pytest.mark.parametrize("count", [-1, 0, 1, 4, 7])
def test_the_trip_count_may_be_fed(count):
    graph = _counting(_add_number, count=build.input_node("count", (), "int64"))
    last, n = _check(graph, {"start": np.ones(3, np.float32), "count": np.array(count)})
    assert n == max(0, count) and last[0] == 1 + sum(range(count))


@pytest.mark.parametrize("count", [0, 3, 9])
def test_rows_that_no_iteration_wrote_are_zero(count):
    def body(number: Node, carried: list[Node], rows: list[Node]) -> BodyResults:
        results = _add_number(number, carried, rows)
        return BodyResults(results.carried, results.carried)

    graph = _counting(body, steps=5, count=build.input_node("count", (), "int64"))
    _, n, y = _check(graph, {"start": np.ones(3, np.float32), "count": np.array(count)})
    assert n == min(count, 5) and not y[n:].any()


@pytest.mark.parametrize("limit", [0.0, 1.5, 11.0])
@pytest.mark.parametrize("enter", [False, True])
def test_a_condition_ends_the_loop(limit, enter):
    def body(number: Node, carried: list[Node], rows: list[Node]) -> BodyResults:
        total = _add_number(number, carried, rows).carried[0]
        least = build.reduce("MIN", total, [0])
        return BodyResults([total], condition=elementwise("CMPLT", least, build.scalar(limit, "float32")))

    graph = _counting(body, condition=build.input_node("enter", (), "bool"))
    last, n = _check(graph, {"start": np.zeros(3, np.float32), "enter": np.array(enter)})
    assert (n > 0) == enter and (not enter or last[0] >= limit)


@pytest.mark.parametrize("inner_steps, outer_steps", [(1, 3), (3, 4), (4, 1)])
def test_loops_in_loops(inner_steps, outer_steps):
    x = build.input_node("x", (outer_steps, inner_steps, 2, 5), "float32")
    other = build.input_node("other", (inner_steps, 2, 5), "float32")
    start = build.input_node("start", (2, 5), "float32")

    def outer(number: Node, carried: list[Node], rows: list[Node]) -> BodyResults:
        def inner(n: Node, c: list[Node], r: list[Node]) -> BodyResults:
            mixed = elementwise("ADD", elementwise("MUL", c[0], r[0]), elementwise("ADD", r[1], carried[1]))
            counted = elementwise("ADD", mixed, build.expand(build.cast(n, "float32"), (2, 5)))
            return BodyResults([elementwise("TANH", counted)], [elementwise("MUL", c[0], r[1])])

        made = loop(inner, [carried[0]], inner_steps, [(rows[0], True), (other, False)], lambda i: True)
        total = build.reduce("SUM", made.stacked[0], [0])
        return BodyResults([made.final[0], total], [made.stacked[0], elementwise("NEG", carried[1])])

    made = loop(outer, [start, start], outer_steps, [(x, True)], lambda i: i == 1)
    _check(_graph(a=made.final[0], b=made.final[1], c=made.stacked[0], d=made.stacked[1]))


def test_two_values_change_places():
    start = [build.input_node(name, (2, 3), "float32") for name in "ab"]
    made = loop(lambda n, c, r: BodyResults([c[1], c[0]], [c[0]]), start, 3)
    a, b, _ = _check(_graph(a=made.final[0], b=made.final[1], y=made.stacked[0]))
    assert (a != b).any()


def test_kernels_after_and_before_a_loop_may_pad_and_join():
    x = build.input_node("x", (4, 2, 6), "float32")
    doubled = elementwise("ADD", x, x)
    joined = build.concat([doubled, elementwise("NEG", x)], 2)
    made = loop(
        lambda n, c, r: BodyResults([elementwise("ADD", c[0], r[0])], [elementwise("MUL", c[0], r[0])]),
        [build.full(0.0, (2, 12), "float32")],
        4,
        [(joined, False)],
    )
    padded = build.pad(made.stacked[0], (1, 0, 2), (0, 0, 1))
    twice = build.concat([made.final[0], made.final[0]], 1)
    _check(_graph(a=build.reduce("SUM", padded, [2]), b=twice, c=joined))


def test_loops_that_do_not_need_each_other_run_side_by_side():
    forward, backward = _recurrent(9, 2, 8, False), _recurrent(9, 2, 8, True)
    doubled = [elementwise("ADD", g.outputs["y"], g.outputs["y"]) for g in (forward, backward)]
    graph = _graph(y=build.concat(doubled, 2))
    launches = plan_of(optimize(graph)).launches
    (first, second) = (number for number, launch in enumerate(launches) if launch.loop is not None)
    assert second == first + 1 and launches[first].waits and not launches[second].waits
    _check(graph)
    zero = build.full(0.0, (2, 8), "float32")
    rows = [(forward.outputs["y"], False)]
    after = loop(lambda n, c, r: BodyResults([elementwise("ADD", c[0], r[0])]), [zero], 9, rows)
    launches = plan_of(optimize(_graph(y=after.final[0]))).launches
    assert all(launch.waits for launch in launches if launch.loop is not None)
    _check(_graph(y=after.final[0]))


def test_values_that_do_not_fit_are_refused():
    start = build.input_node("start", (3,), "float32")
    with pytest.raises(ValueError, match="float32\\[3\\] in and float32\\[6\\] on"):
        loop(lambda n, c, r: BodyResults([build.concat([c[0], c[0]], 0)]), [start], 2)
    with pytest.raises(ValueError, match="2 steps scans"):
        loop(lambda n, c, r: BodyResults([c[0]]), [start], 2, [(start, False)])


def test_an_endless_loop_is_no_graph():
    start = build.input_node("start", (3,), "float32")
    made = loop(lambda n, c, r: BodyResults([elementwise("NEG", c[0])]), [start])
    with pytest.raises(VerificationError, match="endless"):
        check_node(made.done)


def test_the_stages_show_the_body():
    executable = _compiled(_recurrent(3, 2, 4, False))
    stages = executable.stages()
    assert "TANH" in stages["kernels"] and "loop of 3 steps" in stages["kernels"]
    assert stages["plan"].count("contract_") == 2
    executable.close()
