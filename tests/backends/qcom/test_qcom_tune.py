"""Schedules ranked by what a compiler says of them: recorded, real, and executed."""

from __future__ import annotations

import numpy as np
import pytest
from adreno_kernels import compiled_kernel
from compiled import graph_of
from image_runs import largest_error, run_plan

from tinyinfer.backends.opencl.target import plan_for
from tinyinfer.backends.qcom import tune as tuning
from tinyinfer.backends.qcom.capabilities import find_gpu
from tinyinfer.backends.qcom.compile_check import ENOUGH_WAVES
from tinyinfer.backends.qcom.statistics import LoopStatistics
from tinyinfer.backends.qcom.target import qcom_target
from tinyinfer.config import CompileOptions
from tinyinfer.errors import EPFail
from tinyinfer.ir import build
from tinyinfer.ir.oracle import evaluate
from tinyinfer.kernels.tune import find_choices, search
from tinyinfer.kernels.tuning import Tuning

A630 = qcom_target(find_gpu("a630"))

# schedule, whether its loop is kept: instructions, reads, registers, waves; of each loop depth, instructions,
# reads, multiply-adds, waits. A pointwise convolution on a630, from Mesa 26.1.6
RECORDED = {
    ("1x1v4_k4", True): (69, 5, 11, 16, [(0, 46, 5, 16, 1)]),
    ("1x2v4_k4", True): (112, 9, 12, 16, [(0, 79, 9, 32, 2)]),
    ("2x1v4_k4", True): (108, 6, 12, 16, [(0, 65, 6, 32, 1)]),
    ("2x2v4_k4", True): (162, 10, 16, 12, [(0, 116, 10, 64, 2)]),
    ("4x1v4_k4", False): (169, 8, 13, 14, [(0, 113, 8, 64, 2)]),
    ("4x1v4_k4", True): (166, 8, 13, 14, [(0, 110, 8, 64, 2)]),
    ("4x1v4_k4_split2", True): (311, 8, 16, 12, [(0, 104, 8, 64, 3), (0, 110, 0, 0, 4)]),
    ("4x1v4_k4_split4", True): (295, 8, 16, 12, [(0, 104, 8, 64, 1), (0, 114, 0, 0, 4)]),
    ("4x1v4_k4_split8", True): (295, 8, 16, 12, [(0, 104, 8, 64, 1), (0, 114, 0, 0, 4)]),
    ("4x1v4_k8", True): (249, 16, 19, 10, [(0, 193, 16, 128, 3)]),
    ("4x2v4_k4", True): (257, 12, 19, 10, [(0, 184, 12, 128, 2)]),
    ("8x1v4_k4", True): (329, 12, 24, 8, [(0, 185, 12, 128, 2)]),
}


class RecordedCompiler:
    """An `Ir3Compiler` for what was recorded; everything else spills."""

    gpu, version = A630.gpu, "recorded"

    def __init__(self):
        self.asked = 0

    def compile(self, kernels):
        return [self._compile(k) for k in kernels]

    def close(self):
        pass

    def _compile(self, text):
        self.asked += 1
        name = text.name.removeprefix("contract_").rpartition("_")[0]
        kept = "get_work_dim" in text.source or "split" in name
        said = RECORDED.get((name, kept))
        if said is None:
            return compiled_kernel(private_stores=1)
        instructions, reads, registers, waves, loops = said
        return compiled_kernel(
            [LoopStatistics(*loop) for loop in loops],
            instructions=instructions,
            texture_reads=reads,
            full_registers=registers,
            waves=waves,
        )


@pytest.fixture
def recorded(monkeypatch):
    compiler = RecordedCompiler()
    monkeypatch.setattr(tuning, "find_compiler", lambda gpu: (compiler, ""))
    return compiler


def pointwise(side=28, channels=192, outputs=64):
    rng = np.random.default_rng(0)
    x = build.input_node("x", (1, channels, side, side), "float32")
    for name, out in (("first", channels), ("second", outputs)):
        w = (rng.standard_normal((out, x.shape[1], 1, 1)) / 14).astype(np.float32)
        x = build.elementwise("TANH", x) if name == "first" else x
        x = build.convolution(x, build.constant(w), [1, 1], [1, 1], [0, 0], [0, 0])
    return graph_of(x)


def choice_of(graph, target=A630):
    return next(c for c, _ in find_choices(graph, target.model, CompileOptions()).values())


def names_of(graph, options):
    return [x.kernel.name for x in plan_for(graph, options, A630).launches]


def test_small_maps_share_sums_and_large_ones_take_large_blocks(recorded):
    small, large = choice_of(pointwise()), choice_of(pointwise(112))
    ranking = tuning.Ranking(A630, recorded)
    assert search(small, ranking).split == 4
    chosen = search(large, ranking)
    assert chosen.split == 1 and chosen.rows * chosen.vectors >= 4


def test_what_spills_or_has_loops_that_nobody_knows_is_out(recorded):
    choice = choice_of(pointwise())
    usual = choice.heuristic()
    spilling = choice.find({**choice.fields(usual), "rows": 8, "unroll": 8})
    finite, infinite = tuning.Ranking(A630, recorded)(choice, [usual, spilling])
    assert 0 < finite < infinite == float("inf")


def test_few_waves_have_to_win_by_more(recorded, monkeypatch):
    choice = choice_of(pointwise(112))
    few = choice.find({**choice.fields(choice.heuristic()), "vectors": 2})
    assert RECORDED["4x2v4_k4", True][3] < ENOUGH_WAVES
    (with_handicap,) = tuning.Ranking(A630, recorded)(choice, [few])
    factor = tuning.FEW_WAVES
    monkeypatch.setattr(tuning, "FEW_WAVES", 1.0)
    (plain,) = tuning.Ranking(A630, recorded)(choice, [few])
    assert with_handicap == factor * plain > plain


def test_what_was_found_is_recorded_and_taken_up_again(recorded):
    graph = pointwise()
    found, left = tuning.tune(graph, A630, CompileOptions())
    assert left == 0 and found.machine == "a630, recorded" and len(found.entries) == 2
    tuned = CompileOptions(tuning=found)
    assert sum("split4" in name for name in names_of(graph, tuned)) == 2
    assert not any("split4" in name for name in names_of(graph, CompileOptions()))
    assert tuning.applicable(graph, A630, tuned) == found
    asked = recorded.asked
    assert tuning.tune(graph, A630, tuned)[0].entries == found.entries and recorded.asked == asked


def test_records_of_other_devices_and_damaged_ones_change_nothing():
    graph = pointwise()
    choice = choice_of(graph)
    fields = choice.fields(choice.heuristic())
    for wrong in ({"rows": 3}, {"unroll": 5}, {"kept": 2}, {"width": 7}, {"split": 64}, {"vectors": 0}):
        damaged = Tuning.make("", {choice.key: {**fields, **wrong}})
        assert names_of(graph, CompileOptions(tuning=damaged)) == names_of(graph, CompileOptions())
    other = qcom_target(find_gpu("a740"))
    assert choice_of(graph, other).key != choice.key
    assert tuning.applicable(graph, other, CompileOptions(tuning=Tuning.make("", {choice.key: fields}))) == (
        Tuning()
    )


def test_without_a_compiler_nothing_can_be_ranked(monkeypatch):
    monkeypatch.setattr(tuning, "find_compiler", lambda gpu: (None, "no tree"))
    assert tuning.cannot_tune(A630) == "no tree"
    with pytest.raises(EPFail, match="no tree"):
        tuning.tune(pointwise(), A630, CompileOptions())


def test_the_real_compiler_ranks_schedules(ir3):
    ranking = tuning.Ranking(A630, ir3("a630"))
    choice = choice_of(pointwise(14, 32, 16))
    chosen = search(choice, ranking)
    first, best = ranking(choice, [choice.heuristic(), chosen])
    assert best <= first < float("inf")


SCHEDULES = [
    {"rows": 8},
    {"rows": 1, "vectors": 2},
    {"rows": 2, "vectors": 2, "unroll": 8},
    {"unroll": 8, "kept": 0},
    {"rows": 4, "vectors": 2, "kept": 0, "width": 2},
    {"rows": 2, "split": 2, "width": 4},
]


@pytest.mark.parametrize("changes", SCHEDULES, ids=lambda c: "_".join(f"{k}{v}" for k, v in c.items()))
def test_schedules_of_the_space_compute_the_same(changes, images):
    """Odd widths of maps and of outputs: blocks reach beyond the end."""
    target = qcom_target(find_gpu("a630"), "float32")
    rng = np.random.default_rng(1)
    x = build.input_node("x", (1, 32, 3, 7), "float32")
    w = build.constant((rng.standard_normal((20, 32, 1, 1)) / 6).astype(np.float32))
    y = build.convolution(build.elementwise("TANH", x), w, [1, 1], [1, 1], [0, 0], [0, 0])
    graph = graph_of(build.elementwise("TANH", y))
    choice = choice_of(graph, target)
    chosen = choice.find({**choice.fields(choice.heuristic()), **changes})
    assert chosen is not None and chosen != choice.heuristic()
    options = CompileOptions(tuning=Tuning.make("", {choice.key: choice.fields(chosen)}))
    plan = plan_for(graph, options, target)
    assert any(f"contract_{chosen.name}_" in launch.kernel.name for launch in plan.launches)
    feeds = {"x": rng.standard_normal(x.shape).astype(np.float32)}
    wanted = evaluate(list(graph.outputs.values()), feeds)
    assert largest_error(run_plan(plan, feeds, images), wanted) < 2e-5
