"""The table beside tinygrad, from recorded kernels."""

from dataclasses import replace

import pytest

from benchmarks.adreno_tinygrad import (
    Launched,
    Total,
    counted,
    plan_launches,
    table,
    tinygrad_launches,
    total,
)
from tinyinfer.backends.qcom.capabilities import find_gpu
from tinyinfer.backends.qcom.device import QcomDevice
from tinyinfer.backends.qcom.ir3 import KernelText
from tinyinfer.backends.qcom.occupancy import TEXELS, Candidate, estimate
from tinyinfer.backends.qcom.statistics import CompiledKernel, CompilerStatistics, LoopStatistics
from tinyinfer.config import CompileOptions
from tinyinfer.errors import EPFail
from tinyinfer.ir import build
from tinyinfer.ir.node import Graph

A630 = find_gpu("a630")
BODY = "for (int k = 0; k < 24; k += 4) { sum += k; }"


def compiled(spills: int = 0) -> CompiledKernel:
    """What ir3 says of a pointwise convolution of mobilenetv2 on a630."""
    said = CompilerStatistics(251, 20, 12, 0, 0, 13, 8, 150, 16, 64, 9, 4, spills, spills, 1, 14, False)
    return CompiledKernel("k", "a630", said, (LoopStatistics(0, 111, 8, 64, 1),), 1024, 0, 0, "")


def launched(text: str = BODY, times: int = 1) -> Launched:
    return Launched("k", KernelText("k", text), 1000, times)


def test_a_launch_counts_loops_as_often_as_they_run_and_work_items():
    once, thrice = counted(launched(), compiled(), A630), counted(launched(times=3), compiled(), A630)
    assert (once.instructions, once.slots, once.reads) == (
        251_000,
        1000 * (251 + 5 * 111),
        1000 * (9 + 5 * 8),
    )
    assert (thrice.instructions, thrice.slots) == (3 * once.instructions, 3 * once.slots)
    assert once.sure and not once.spills and not once.cycles


def test_the_cost_model_is_asked_where_the_group_is_known():
    grouped = replace(launched(times=2), work_group=64)
    cycles = counted(grouped, compiled(), A630).cycles
    candidate = Candidate(compiled(), (6,), 1000, 64)
    assert cycles == 2 * estimate(A630, candidate, texels=TEXELS) > 0


def test_loops_that_the_text_does_not_tell_are_counted_once_and_said_so():
    unsure = counted(launched("for (int k = 0; k < n; k += 4) { sum += k; }"), compiled(), A630)
    assert not unsure.sure and unsure.slots == unsure.instructions == 251_000


def test_totals_and_rows():
    ours = total(
        [counted(launched(times=2), compiled(), A630), counted(launched(), compiled(spills=1), A630)]
    )
    assert ours == Total(3, 753_000, 2_418_000, 147_000, 1, 0)
    large = Total(5, 4_000_000, 9_600_000, 1_000_000, 0, 0)
    lines = list(table([("a", large, ours), ("b", large, "no such operator")]))
    assert lines[2] == "| a | 5 / 3 | 4 M / 1 M | 10 M / 2 M | 1 M / 0 M | 0 / 1 |"
    assert lines[3] == "| b | 5 / – | 4 M / – | 10 M / – | 1 M / – | 0 / – |"


def test_a_plans_launches_are_those_of_a_run():
    x = build.input_node("x", (1, 8, 6, 6), "float32")
    w = build.full(0.1, (8, 8, 3, 3), "float32")
    y = build.convolution(build.elementwise("TANH", x), w, [1, 1], [1, 1], [1, 1], [1, 1])
    plan = QcomDevice("a630").plan(Graph({"x": x}, {"y": y}), CompileOptions())
    found = list(plan_launches(plan.launches))
    assert len(found) == sum(not launch.once for launch in plan.launches) < len(plan.launches)
    assert all(x.text.source.count("__kernel") == 1 and x.work_items for x in found)


def test_a_python_without_tinygrad_is_one_clear_line(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho \"No module named 'tinygrad'\" >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(EPFail, match="gives no kernels of tinygrad: No module named 'tinygrad'"):
        tinygrad_launches(tmp_path / "model.onnx", str(python))
