"""The kernels of plans through the real ir3 compiler."""

from __future__ import annotations

import pytest
from compiled import graph_of
from image_graphs import GRAPHS, image_case
from loop_graphs import normalised, recurrent

from tinyinfer import config
from tinyinfer.backends.qcom.capabilities import find_gpu
from tinyinfer.backends.qcom.compile_check import compile_check, summary
from tinyinfer.backends.qcom.device import QcomDevice
from tinyinfer.config import CompileOptions
from tinyinfer.errors import EPFail


def plan_of(name: str, gpu: str):
    return QcomDevice(gpu).plan(graph_of(*image_case(name, 1).outputs), CompileOptions())


@pytest.mark.parametrize("name", GRAPHS)
def test_every_kernel_compiles(name, ir3):
    ir3("a630")
    plan = plan_of(name, "a630")
    reports = compile_check(plan, find_gpu("a630"))
    assert sum(r.launches for r in reports) == len(plan.launches)
    assert {r.name for r in reports} == {x.kernel.name for x in plan.launches}
    totals = summary(reports)
    assert totals.kernels == len(reports) and totals.contractions and 0 <= totals.share <= 1


@pytest.mark.parametrize("gpu", ["a630", "a740"])
@pytest.mark.parametrize("graph", [recurrent(True), normalised()], ids=["recurrent", "normalised"])
def test_loops_are_kernels_that_do_not_spill(graph, gpu, ir3):
    ir3(gpu)
    plan = QcomDevice(gpu).plan(graph, CompileOptions())
    reports = compile_check(plan, find_gpu(gpu))
    (report,) = [r for r in reports if r.name.startswith("loop_")]
    assert all(x.loop is None for x in plan.launches) and report.work_items == find_gpu(gpu).wave_size
    assert summary(reports).spilling == 0


def test_a_kernel_that_does_not_compile_is_an_error_that_names_it(ir3):
    ir3("a630")
    plan = plan_of("convolutions", "a630")
    kernel = next(x.kernel for x in plan.launches if x.kernel.name.startswith("contract"))
    text = kernel.text
    object.__setattr__(kernel, "text", lambda: text().replace("{", "{ mistake;", 1))
    with pytest.raises(EPFail, match=kernel.name):
        compile_check(plan, find_gpu("a630"))


def test_without_a_compiler_the_reason_is_an_error(monkeypatch):
    monkeypatch.delenv(config.MESA_VARIABLE, raising=False)
    with pytest.raises(EPFail, match="TINYINFER_MESA"):
        compile_check(plan_of("depthwise", "a630"), find_gpu("a630"))
