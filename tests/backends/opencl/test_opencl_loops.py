"""Loops that are one kernel, and loops that the host repeats, against the oracle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyopencl as cl
import pytest
import test_loops as graphs
from loop_graphs import normalised
from opencl_runs import MODELS, run

from tinyinfer.backends.clike.opencl_c import program_text
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.loop import BodyResults, loop
from tinyinfer.ir.node import Graph
from tinyinfer.ir.oracle import evaluate
from tinyinfer.ir.passes import optimize


def check_loop(graph: Graph, device, feeds: dict[str, np.ndarray] | None = None) -> list[np.ndarray]:
    """The outputs of a graph, as planned with passes and without, and with all loops left to the host."""
    feeds = feeds if feeds is not None else graphs._feeds(graph)
    wanted = evaluate(list(graph.outputs.values()), feeds)
    hosted = replace(device.capabilities.model(), loop_groups=0)
    for made, model in ((optimize(graph), None), (graph, None), (optimize(graph), hosted)):
        for a, b in zip(run(made, feeds, device, model), wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    return wanted


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("steps, batch, size", [(1, 2, 5), (5, 3, 24), (20, 2, 7)])
def test_states_go_on_from_step_to_step(steps, batch, size, backwards, opencl):
    check_loop(graphs._recurrent(steps, batch, size, backwards), opencl)


@pytest.mark.parametrize("count", [-1, 0, 1, 4, 7])
def test_trips_are_counted_on_the_device(count, opencl):
    graph = graphs._counting(graphs._add_number, count=build.input_node("count", (), "int64"))
    check_loop(graph, opencl, {"start": np.ones(3, np.float32), "count": np.array(count)})


@pytest.mark.parametrize("limit", [0.0, 1.5, 11.0])
@pytest.mark.parametrize("enter", [False, True])
def test_a_condition_on_the_device_ends_the_loop(limit, enter, opencl):
    def body(number, carried, rows):
        total = graphs._add_number(number, carried, rows).carried[0]
        least = build.reduce("MIN", total, [0])
        return BodyResults([total], condition=elementwise("CMPLT", least, build.scalar(limit, "float32")))

    graph = graphs._counting(body, condition=build.input_node("enter", (), "bool"))
    check_loop(graph, opencl, {"start": np.zeros(3, np.float32), "enter": np.array(enter)})


@pytest.mark.parametrize("count", [0, 3, 9])
def test_rows_of_iterations_that_did_not_run_are_zero(count, opencl):
    def body(number, carried, rows):
        results = graphs._add_number(number, carried, rows)
        return BodyResults(results.carried, results.carried)

    graph = graphs._counting(body, steps=5, count=build.input_node("count", (), "int64"))
    check_loop(graph, opencl, {"start": np.ones(3, np.float32), "count": np.array(count)})


@pytest.mark.parametrize("inner_steps, outer_steps", [(1, 3), (3, 4)])
def test_loops_within_loops(inner_steps, outer_steps, opencl):
    x = build.input_node("x", (outer_steps, inner_steps, 2, 5), "float32")
    start = build.input_node("start", (2, 5), "float32")

    def outer(number, carried, rows):
        def inner(n, c, r):
            mixed = elementwise("ADD", elementwise("MUL", c[0], r[0]), carried[1])
            counted = elementwise("ADD", mixed, build.expand(build.cast(n, "float32"), (2, 5)))
            return BodyResults([elementwise("TANH", counted)], [elementwise("MUL", c[0], r[0])])

        made = loop(inner, [carried[0]], inner_steps, [(rows[0], True)], lambda i: True)
        total = build.reduce("SUM", made.stacked[0], [0])
        return BodyResults([made.final[0], total], [made.stacked[0], elementwise("NEG", carried[1])])

    made = loop(outer, [start, start], outer_steps, [(x, True)], lambda i: i == 1)
    check_loop(graphs._graph(a=made.final[0], b=made.final[1], c=made.stacked[0], d=made.stacked[1]), opencl)


def test_carried_values_change_places(opencl):
    start = [build.input_node(name, (2, 3), "float32") for name in "ab"]
    made = loop(lambda n, c, r: BodyResults([c[1], c[0]], [c[0]]), start, 3)
    check_loop(graphs._graph(a=made.final[0], b=made.final[1], y=made.stacked[0]), opencl)


def test_groups_share_the_sums_of_an_iteration(opencl):
    check_loop(normalised(), opencl)


@pytest.mark.parametrize("model", ["tiny", "large"])
def test_loops_cut_for_other_devices(model, opencl):
    graph = optimize(normalised())
    feeds = graphs._feeds(graph)
    wanted = evaluate(list(graph.outputs.values()), feeds)
    for a, b in zip(run(graph, feeds, opencl, MODELS[model]), wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


MEETING = """\
__kernel __attribute__((reqd_work_group_size(16, 1, 1))) void meeting(
    __global int *out, __global uchar *place
) {
    const int i = (int)get_global_id(0);
    out[i] = i;
    for (uint n = 1; n <= 5; ++n) {
        ti_meet(place, n * get_num_groups(0));
        const int next = out[(i + 1) % get_global_size(0)];
        ti_meet(place + 8, n * get_num_groups(0));
        out[i] = next;
    }
    ti_part(place, get_num_groups(0));
    ti_part(place + 8, get_num_groups(0));
}"""


def test_meetings_order_what_work_items_write_and_leave_zeros(opencl):
    context = opencl.context()
    queue = cl.CommandQueue(context)
    program = cl.Program(context, program_text([MEETING], False)).build(cache_dir=False)
    kernel = cl.Kernel(program, "meeting")
    groups = opencl.capabilities.compute_units if opencl.capabilities.groups_meet else 1
    result, place = np.zeros(16 * groups, np.int32), np.zeros(4, np.uint32)
    buffers = [cl.Buffer(context, cl.mem_flags.COPY_HOST_PTR, hostbuf=x) for x in (result, place)]
    for _ in range(2):
        kernel(queue, (16 * groups,), (16,), *buffers)
        for array, buffer in zip((result, place), buffers):
            cl.enqueue_copy(queue, array, buffer, is_blocking=True)
        np.testing.assert_array_equal(result, np.roll(np.arange(16 * groups), -5))
        assert not place.any()
