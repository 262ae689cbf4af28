"""The space of a contraction's schedules: every one of them computes what the oracle does, and a record is
followed only where it names one of them."""

import random

import numpy as np
import pytest
from compiled import CACHE, assert_close, graph_of, plan_of, run

from tinyinfer.backends.cpu.device import LlvmPrinter, compile_plan
from tinyinfer.backends.cpu.target import host_target
from tinyinfer.config import CompileOptions
from tinyinfer.ir import build
from tinyinfer.ir.oracle import evaluate
from tinyinfer.kernels.schedule import MachineModel, most_rows
from tinyinfer.kernels.schedule_space import ContractionChoice
from tinyinfer.kernels.tune import find_choices
from tinyinfer.kernels.tuning import Tuning

MACHINES = [MachineModel(16, 32), MachineModel(8, 16), MachineModel(4, 16), MachineModel(4, 32)]
SHARE = 12
"""Schedules of each kernel that are compiled; other seeds take others."""


def array(generator, *shape):
    return build.constant(generator.standard_normal(shape).astype(np.float32))


def epilogue(x, generator, channels):
    """Bias and an activation."""
    shape = [1] * len(x.shape)
    shape[channels] = x.shape[channels]
    bias = build.expand(array(generator, *shape), x.shape)
    zero = build.expand(build.constant(np.zeros([1] * len(x.shape), np.float32)), x.shape)
    return build.elementwise("MAX", build.elementwise("ADD", x, bias), zero)


def random_contraction(seed):
    """A matrix product, a batched one of two inputs, or a convolution, of sizes with remainders."""
    pick, generator = random.Random(seed), np.random.default_rng(seed)
    kind = pick.choice(["matmul", "batched", "convolution", "grouped"])
    if kind == "matmul":
        m, k, n = pick.randint(1, 70), pick.randint(1, 60), pick.randint(4, 150)
        x = build.input_node("x", (m, k), "float32")
        return epilogue(build.matmul(x, array(generator, k, n)), generator, 1)
    if kind == "batched":
        b, m, k, n = pick.randint(1, 4), pick.randint(1, 20), pick.randint(1, 30), pick.randint(4, 80)
        x, y = build.input_node("x", (b, m, k), "float32"), build.input_node("y", (b, k, n), "float32")
        return build.matmul(x, y)
    groups = pick.choice([2, 3]) if kind == "grouped" else 1
    c, o = groups * pick.randint(1, 12), groups * pick.randint(4, 40)
    kernel, size, stride = pick.choice([1, 2, 3, 5]), pick.randint(5, 17), pick.choice([1, 1, 2])
    x = build.input_node("x", (1, c, size, size + pick.randint(0, 3)), "float32")
    w = array(generator, o, c // groups, kernel, kernel)
    pad = [kernel // 2] * 2
    made = build.convolution(x, w, [stride] * 2, [1, 1], pad, pad, groups)
    return epilogue(made, generator, 1)


def feeds_of(graph, seed):
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(n.shape).astype(np.float32) for name, n in graph.inputs.items()}


def only_choice(graph, machine=None):
    machine = machine or LlvmPrinter(host_target()).machine
    found = find_choices(graph, machine, CompileOptions())
    (choice,) = (choice for choice, _ in found.values() if isinstance(choice, ContractionChoice))
    return choice


def run_with(graph, feeds, tuning):
    executable = compile_plan(plan_of(graph, CompileOptions(tuning=tuning)), host_target(), 1, CACHE)
    try:
        return executable.run([feeds[name] for name in graph.inputs])
    finally:
        executable.close()


@pytest.mark.parametrize("seed", range(14))
def test_every_schedule_computes_the_same_bits(seed):
    output = random_contraction(seed)
    graph = graph_of(output)
    feeds = feeds_of(graph, seed)
    choice = only_choice(graph)
    space = [s for v in choice.vectors() for s in choice.space(v)]
    (plain,) = run(graph, feeds)
    (wanted,) = evaluate([output], feeds)
    assert_close(plain, wanted, float(np.abs(wanted).max()))
    for schedule in random.Random(seed).sample(space, min(SHARE, len(space))):
        tuning = Tuning.make("", {choice.key: choice.fields(schedule)})
        names = [x.kernel.name for x in plan_of(graph, CompileOptions(tuning=tuning)).launches]
        assert any(f"contract_{schedule.name}_" in name for name in names)
        (got,) = run_with(graph, feeds, tuning)
        assert got.tobytes() == plain.tobytes(), schedule


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("seed", range(14))
def test_the_heuristic_and_all_neighbours_are_in_the_space(seed, machine):
    choice = only_choice(graph_of(random_contraction(seed)), machine)
    start = choice.heuristic()
    assert choice.find(choice.fields(start)) == start
    for step in choice.steps():
        for other in choice.neighbours(start, step):
            assert other != start
            assert choice.find(choice.fields(other)) == other


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("seed", range(14))
def test_tiles_of_the_space_stay_in_registers_and_blocks_in_the_loops(seed, machine):
    choice = only_choice(graph_of(random_contraction(seed)), machine)
    for vectors in choice.vectors():
        nest = choice.nest(vectors)
        for s in choice.space(vectors):
            assert 1 <= s.tile_y * s.tile_x <= max(1, most_rows(vectors, machine))
            assert 1 <= s.column_blocks <= nest.panels.panel.size
            assert s.lanes == machine.lanes and not (s.rows_outside and s.prefetch)


WRONG = [
    {"vectors": 99},
    {"vectors": 0},
    {"vectors": -1},
    {"tile_x": 31},
    {"tile_x": 0},
    {"tile_y": 1000},
    {"unroll": 0},
    {"unroll": 7},
    {"row_blocks": 0},
    {"column_blocks": 10**9},
    {"rows_outside": 1, "prefetch": 1},
    {"prefetch": 2},
    {"lanes": 16},
    {"surprise": 1},
]


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_a_record_outside_the_space_is_ignored(change):
    x = build.input_node("x", (50, 33), "float32")
    graph = graph_of(build.matmul(x, array(np.random.default_rng(0), 33, 70)))
    choice = only_choice(graph)
    fields = {**choice.fields(choice.heuristic()), **change}
    assert choice.find(fields) is None
    tuned = plan_of(graph, CompileOptions(tuning=Tuning.make("", {choice.key: fields})))
    assert [x.kernel.key for x in tuned.launches] == [x.kernel.key for x in plan_of(graph).launches]


def test_a_record_with_missing_fields_is_ignored():
    x = build.input_node("x", (50, 33), "float32")
    choice = only_choice(graph_of(build.matmul(x, array(np.random.default_rng(0), 33, 70))))
    assert choice.find({}) is None
    assert choice.find({"vectors": 1}) is None


def test_keys_tell_machines_and_kernels_apart_but_not_weights():
    def key(n, seed, machine):
        x = build.input_node("x", (50, 33), "float32")
        return only_choice(graph_of(build.matmul(x, array(np.random.default_rng(seed), 33, n))), machine).key

    assert key(70, 0, MACHINES[0]) == key(70, 1, MACHINES[0])
    assert len({key(n, 0, m) for n in (70, 71) for m in MACHINES}) == 8
