"""Which loops become one kernel, and what its launch is."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import test_loops as graphs

from tinyinfer.backends.clike.item_printer import ItemPrinter
from tinyinfer.backends.opencl.target import OpenclTarget, program_source
from tinyinfer.config import CompileOptions
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.loop import BodyResults, loop
from tinyinfer.ir.node import UNBOUNDED, Graph
from tinyinfer.ir.passes import optimize
from tinyinfer.kernels.plan import build_plan
from tinyinfer.kernels.schedule_gpu import GpuModel
from tinyinfer.runtime.plan import Launch, Plan

WIDE = GpuModel(compute_units=64, loop_groups=64)


def planned(graph: Graph, model: GpuModel = GpuModel()) -> Plan:
    return build_plan(optimize(graph), ItemPrinter(model), CompileOptions())


def loop_launch(plan: Plan) -> Launch:
    (found,) = [x for x in plan.launches if x.kernel.name.startswith("loop_")]
    return found


def test_a_short_iteration_is_not_launched_by_the_host():
    launch = loop_launch(planned(graphs._recurrent(20, 2, 24, False)))
    assert launch.loop is None and launch.work.total == launch.work.group == (256, 1, 1)
    assert not launch.meets and "ti_meet" not in launch.kernel.text()


def test_devices_that_cannot_leave_loops_to_the_host():
    assert loop_launch(planned(graphs._recurrent(20, 2, 24, False), GpuModel(loop_groups=0))).loop is not None


def test_a_large_iteration_needs_several_groups():
    graph = graphs._recurrent(20, 1, 1024, False)
    assert loop_launch(planned(graph)).loop is not None
    plan = planned(graph, WIDE)
    launch = loop_launch(plan)
    assert launch.loop is None and launch.meets and launch.work.total == (64 * 128, 1, 1)
    assert "ti_meet(" in launch.kernel.text()
    (zeros,) = [x for x in plan.launches if x.once]
    assert zeros.arguments[0] in launch.arguments


def test_what_is_long_or_endless_is_left_to_the_host():
    assert loop_launch(planned(graphs._recurrent(40000, 1, 8, False))).loop is not None

    def body(number, carried, rows):
        total = graphs._add_number(number, carried, rows).carried[0]
        return BodyResults([total], condition=elementwise("CMPLT", build.reduce("MIN", total, [0]), start))

    start = build.input_node("limit", (), "float32")
    made = loop(body, [build.input_node("x", (3,), "float32")], UNBOUNDED)
    assert loop_launch(planned(graphs._graph(y=made.final[0]))).loop is not None


def test_parameters_are_those_that_kernels_read():
    plan = planned(graphs._recurrent(20, 2, 24, False))
    read = {r.number for x in plan.launches for r in x.arguments if r.space == "parameter"}
    assert read == set(range(len(plan.parameters)))


def test_equal_loops_are_one_kernel_with_a_name_for_each_phase():
    w = np.eye(24, dtype=np.float32)
    x = build.input_node("x", (4, 2, 24), "float32")
    weights = build.constant(w)

    def body(number, carried, rows):
        return BodyResults([elementwise("ADD", rows[0], build.matmul(carried[0], weights))])

    starts = [build.input_node(n, (2, 24), "float32") for n in "ab"]
    made = [loop(body, [s], 4, [(x, False)]).final[0] for s in starts]
    plan = planned(graphs._graph(a=made[0], b=made[1]))
    keys = [x.kernel.key for x in plan.launches if x.kernel.name.startswith("loop_")]
    assert len(keys) == 2 and len(set(keys)) == 1
    source = program_source(plan, OpenclTarget())
    functions = re.findall(r"^(?:static|__kernel).* void (\w+)\(", source.text.decode(), re.MULTILINE)
    assert len(functions) == len(set(functions))


@pytest.mark.parametrize("limit", [16, 64])
def test_groups_are_no_larger_than_the_devices(limit):
    model = replace(GpuModel(), group_limit=limit, group_sizes=(limit, limit, limit))
    launch = loop_launch(planned(graphs._recurrent(20, 2, 24, False), model))
    assert launch.loop is None and launch.work.group == (limit, 1, 1)
