"""The autotuner's search, with times that are given instead of measured."""

import json

import numpy as np
import pytest
from compiled import graph_of, plan_of

from tinyinfer.backends.cpu.device import LlvmPrinter
from tinyinfer.backends.cpu.target import host_target
from tinyinfer.config import CompileOptions
from tinyinfer.ir import build
from tinyinfer.kernels.schedule import MachineModel
from tinyinfer.kernels.tune import MARGIN, find_choices, search, tune_kernels
from tinyinfer.kernels.tuning import Tuning

MACHINE = MachineModel(16, 32)


def matmul(m=100, k=40, n=300, name="x"):
    weights = np.random.default_rng(0).standard_normal((k, n)).astype(np.float32)
    return build.matmul(build.input_node(name, (m, k), "float32"), build.constant(weights))


def choice_of(output, machine=MACHINE):
    return next(iter(find_choices(graph_of(output), machine, CompileOptions()).values()))[0]


class FakeTimer:
    """Seconds from a function of the schedule; counts what was asked."""

    def __init__(self, seconds):
        self.seconds, self.asked = seconds, []

    def __call__(self, choice, schedules):
        self.asked.append(list(schedules))
        return [self.seconds(s) for s in schedules]


def test_the_fastest_neighbours_are_followed_to_the_end():
    choice = choice_of(matmul())
    wanted = {"vectors": 1, "unroll": 2, "rows_outside": False}
    timer = FakeTimer(lambda s: 1.0 + sum(getattr(s, name) != value for name, value in wanted.items()))
    found = search(choice, timer)
    assert {name: getattr(found, name) for name in wanted} == wanted
    assert found != choice.heuristic()


def test_less_than_the_margin_changes_nothing():
    choice = choice_of(matmul())
    first = choice.heuristic()
    assert search(choice, FakeTimer(lambda s: 1.0 if s == first else 1.001 - MARGIN)) == first


def test_what_does_not_win_again_is_dropped():
    choice = choice_of(matmul())
    first = choice.heuristic()
    seen = []

    def once(s):
        """Anything but the heuristic is fast when it is met first only."""
        seen.append(s)
        return 1.0 if s == first or seen.count(s) > 1 else 0.5

    assert search(choice, FakeTimer(once)) == first


def test_the_number_of_candidates_is_bounded_and_none_is_tried_twice_in_a_step():
    choice = choice_of(matmul(300, 64, 1000))
    timer = FakeTimer(lambda s: 1.0)
    search(choice, timer)
    assert len(timer.asked) <= len(choice.steps())
    assert sum(map(len, timer.asked)) <= 30
    assert all(len(set(asked)) == len(asked) for asked in timer.asked)


def test_no_time_means_the_heuristic_and_no_measurement():
    choice = choice_of(matmul())
    timer = FakeTimer(lambda s: 1.0)
    assert search(choice, timer, lambda: True) == choice.heuristic()
    assert not timer.asked


def test_the_same_times_give_the_same_tuning():
    def seconds(s):
        return 1.0 + (hash((s.vectors, s.tile_x, s.unroll, s.rows_outside)) % 97) / 97

    graph = graph_of(matmul(), matmul(64, 64, 64, "z"))
    made = [tune_kernels(graph, MACHINE, CompileOptions(), FakeTimer(seconds), "cpu")[0] for _ in range(2)]
    assert made[0] == made[1] and made[0].machine == "cpu" and len(made[0].entries) == 2
    assert json.dumps(made[0].as_json()) == json.dumps(made[1].as_json())


def test_a_plan_takes_what_was_found():
    graph = graph_of(matmul())
    machine = LlvmPrinter(host_target()).machine
    timer = FakeTimer(lambda s: 2.0 - (s.vectors == 1) - 0.5 * (s.unroll == 1))
    tuning, left = tune_kernels(graph, machine, CompileOptions(), timer)
    (launch,) = plan_of(graph, CompileOptions(tuning=tuning)).launches
    assert f"x1v{machine.lanes}_k1" in launch.kernel.name
    assert launch.kernel.key != plan_of(graph).launches[0].kernel.key


def test_what_is_known_is_not_measured_again_and_what_is_wrong_is():
    graph = graph_of(matmul(), matmul(64, 64, 64, "z"))
    keys = {c.key: c for c, _ in find_choices(graph, MACHINE, CompileOptions()).values()}
    known, broken = keys
    fields = keys[known].fields(keys[known].neighbours(keys[known].heuristic(), "vectors")[0])
    before = Tuning.make("", {known: fields, broken: {"vectors": 77}, "of another model": fields})
    timer = FakeTimer(lambda s: 1.0)
    after, _ = tune_kernels(graph, MACHINE, CompileOptions(tuning=before), timer)
    assert after.get(known) == fields
    assert after.get(broken) == keys[broken].fields(keys[broken].heuristic())
    assert set(after) == set(keys)
    assert all(s.lanes == 16 for asked in timer.asked for s in asked)


def test_the_most_work_first_as_far_as_time_reaches():
    graph = graph_of(matmul(8, 8, 8, "small"), matmul(200, 100, 300, "large"), matmul(50, 50, 50, "middle"))
    found = find_choices(graph, MACHINE, CompileOptions())
    now = [0.0]

    def clock():
        return now[0]

    def measure(choice, schedules):
        now[0] += 1.0
        return [1.0] * len(schedules)

    told = []
    tuning, left = tune_kernels(
        graph,
        MACHINE,
        CompileOptions(),
        measure,
        seconds=1.0,
        progress=lambda *p: told.append(p),
        clock=clock,
    )
    largest = max(found, key=lambda key: found[key][0].cycles)
    assert list(tuning) == [largest]
    assert told == [(0, 3)] and left == 2


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"schedules": 3},
        {"schedules": {"a": 1}},
        {"schedules": {"a": {"vectors": "2"}}},
        {"schedules": {"a": {"vectors": 1.5}}},
        {"machine": 4, "schedules": {}},
        {"machine": "\ud800"},
    ],
    ids=str,
)
def test_other_data_is_no_tuning(value):
    assert Tuning.from_json(value) == Tuning()


def test_a_tuning_is_canonical_and_survives_json():
    one = Tuning.make("znver4", {"b": {"y": 2, "x": True}, "a": {"z": 3}})
    two = Tuning.make("znver4", {"a": {"z": 3}, "b": {"x": 1, "y": 2}})
    assert one == two and hash(one) == hash(two)
    assert Tuning.from_json(json.loads(json.dumps(one.as_json()))) == one
    assert one.get("a") == {"z": 3} and one.get("c") is None
    assert CompileOptions(tuning=one) != CompileOptions() and hash(CompileOptions(tuning=one))
