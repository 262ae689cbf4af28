"""The space of a map kernel's schedules: every one of them computes the same bits, which the oracle agrees
with, and a record is followed only where it names one of them."""

import random

import numpy as np
import pytest
from compiled import CACHE, assert_close, graph_of, plan_of, run
from random_graphs import case

from tinyinfer.backends.cpu.device import LlvmPrinter, compile_plan
from tinyinfer.backends.cpu.target import host_target
from tinyinfer.config import CompileOptions
from tinyinfer.ir import build
from tinyinfer.ir.oracle import evaluate
from tinyinfer.kernels.schedule import MachineModel
from tinyinfer.kernels.schedule_map import loop_units
from tinyinfer.kernels.schedule_map_space import MapChoice
from tinyinfer.kernels.tune import find_choices
from tinyinfer.kernels.tuning import Tuning

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

MACHINES = [MachineModel(16, 32), MachineModel(8, 16), MachineModel(4, 16), MachineModel(4, 32)]
KINDS = ["pooling", "reductions", "rows", "chains", "views", "concats", "two_convolutions"]
ROUNDS = 3
"""Tunings of each graph that are compiled."""


def constant(seed, *shape):
    return build.constant(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def depthwise(seed):
    """A depthwise convolution of sizes with remainders, after a contraction that lays it out."""
    pick = random.Random(seed)
    channels, kernel, stride = pick.randint(5, 70), pick.choice([3, 5]), pick.choice([1, 2])
    x = build.input_node("x", (1, 3, pick.randint(6, 20), pick.randint(6, 24)), "float32")
    y = build.convolution(x, constant(seed, channels, 3, 1, 1), [1, 1], [1, 1], [0, 0], [0, 0])
    w = constant(seed + 1, channels, 1, kernel, kernel)
    pad = [kernel // 2] * 2
    return build.convolution(y, w, [stride] * 2, [1, 1], pad, pad, channels)


def maps_of(graph, machine):
    found = find_choices(graph, machine, CompileOptions())
    return [choice for choice, _ in found.values() if isinstance(choice, MapChoice)]


def check_all(outputs, feeds, seed, scale=None, factor=1.0):
    """Random schedules of all map kernels together: bits of the heuristic's, which the oracle agrees with.
    Gives the number of kernels that had a choice."""
    graph = graph_of(*outputs)
    choices = maps_of(graph, LlvmPrinter(host_target()).machine)
    if not choices:
        return 0
    plain = run(graph, feeds)
    for got, wanted in zip(plain, evaluate(outputs, feeds), strict=True):
        assert_close(got, wanted, scale, factor)
    pick = random.Random(seed)
    for _ in range(ROUNDS):
        chosen = {c.key: c.fields(pick.choice(list(c.space()))) for c in choices}
        plan = plan_of(graph, CompileOptions(tuning=Tuning.make("", chosen)))
        executable = compile_plan(plan, host_target(), 1, CACHE)
        try:
            results = executable.run([np.ascontiguousarray(feeds[name]) for name in graph.inputs])
        finally:
            executable.close()
        for one, other in zip(plain, results, strict=True):
            assert one.tobytes() == other.tobytes(), chosen
    return len(choices)


@pytest.mark.parametrize("name", KINDS)
def test_every_schedule_computes_the_same_bits(name):
    found = 0
    for seed in range(12):
        made = case(name, seed)
        found += check_all(made.outputs, made.feeds, seed, made.scale, made.factor)
    assert found


@pytest.mark.parametrize("seed", range(12))
def test_every_schedule_of_a_depthwise_convolution_computes_the_same_bits(seed):
    output = depthwise(seed)
    x = graph_of(output).inputs["x"]
    feed = np.random.default_rng(seed).standard_normal(x.shape).astype(np.float32)
    assert check_all([output], {"x": feed}, seed, 10.0)


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_the_heuristic_and_all_neighbours_are_in_the_space(name, machine):
    for seed in range(12):
        for choice in maps_of(graph_of(*case(name, seed).outputs), machine):
            first = choice.heuristic()
            assert choice.find(choice.fields(first)) is first
            for step in choice.steps():
                others = choice.neighbours(first, step)
                assert first not in others and len(set(others)) == len(others)
                for other in others:
                    assert choice.find(choice.fields(other)) == other


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("seed", range(12))
def test_schedules_walk_every_axis_once_in_chunks_that_exist(seed, machine):
    for choice in maps_of(graph_of(depthwise(seed)), machine):
        for s in choice.space():
            order = (*s.rows, *s.columns)
            assert sorted(a.name for a in order) == sorted(a.name for a in choice.nest.axes)
            units = 1
            for a in order[: s.parallel]:
                units *= loop_units(a, s.vector, s.vectors * s.lanes, s.tile_axis, s.tile)
            assert 1 <= s.chunks <= units
            assert s.tile_axis is None or s.tile <= s.tile_axis.size


@pytest.mark.parametrize(
    "change", [{"vectors": 3}, {"vectors": 0}, {"tile": 0}, {"tile": 99}, {"across": 2}, {"more": 1}], ids=str
)
def test_a_record_outside_the_space_is_ignored(change):
    graph = graph_of(depthwise(0))
    (choice,) = maps_of(graph, LlvmPrinter(host_target()).machine)
    fields = {**choice.fields(choice.heuristic()), **change}
    assert choice.find(fields) is None
    tuned = plan_of(graph, CompileOptions(tuning=Tuning.make("", {choice.key: fields})))
    assert [x.kernel.key for x in tuned.launches] == [x.kernel.key for x in plan_of(graph).launches]


def test_a_plan_takes_a_recorded_schedule():
    graph = graph_of(depthwise(0))
    (choice,) = maps_of(graph, LlvmPrinter(host_target()).machine)
    other = choice.neighbours(choice.heuristic(), "tile")[0]
    tuning = Tuning.make("", {choice.key: choice.fields(other)})
    names = [x.kernel.name for x in plan_of(graph, CompileOptions(tuning=tuning)).launches]
    assert any(name.startswith(f"map_{other.name}_") for name in names)
