"""Schedules for an Adreno that are chosen by what its compiler says of them: nothing is executed.

Candidates are compiled, and ranked by the cost model of `occupancy`. What spills, or does not fit, is out.
The model's latency and its rate of reads are not measured, so that a candidate with few waves in flight has
to be estimated faster by `FEW_WAVES` than one that has enough of them for whatever they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from tinyinfer.backends.clike.item_printer import ItemPrinter
from tinyinfer.backends.clike.opencl_c import program_text
from tinyinfer.backends.qcom.compile_check import BUILD_OPTIONS, ENOUGH_WAVES
from tinyinfer.backends.qcom.ir3 import Ir3Compiler, KernelText, find_compiler
from tinyinfer.backends.qcom.occupancy import TEXELS, Candidate, estimate
from tinyinfer.backends.qcom.statistics import CompiledKernel
from tinyinfer.backends.qcom.target import QcomTarget
from tinyinfer.backends.qcom.trips import trips_of
from tinyinfer.config import CompileOptions
from tinyinfer.errors import EPFail
from tinyinfer.ir.node import Graph
from tinyinfer.kernels.plan import contraction_source
from tinyinfer.kernels.tune import Progress, known_schedules, tune_kernels
from tinyinfer.kernels.tuning import Tuning

FOUND = "ranked"
"""How schedules are found, in a word."""

FEW_WAVES = 2.0
"""What the estimate of a kernel with fewer than ENOUGH_WAVES waves is multiplied by."""


def cannot_tune(target: QcomTarget) -> str | None:
    """Why schedules for a target cannot be ranked here, or None."""
    compiler, reason = find_compiler(target.gpu)
    if compiler is not None:
        compiler.close()
    return reason or None


def tune(
    graph: Graph,
    target: QcomTarget,
    options: CompileOptions,
    seconds: float = float("inf"),
    progress: Progress = lambda done, total: None,
) -> tuple[Tuning, int]:
    """Schedules for the contractions of `graph`, a graph before any pass, that are estimated to be fastest,
    found in about `seconds` at most, and the number of kernels that there was no time for. What
    `options.tuning` has stays. EPFail where there is no compiler for the target's GPU."""
    compiler, reason = find_compiler(target.gpu)
    if compiler is None:
        raise EPFail(reason)
    ranking = Ranking(target, compiler)
    name = f"{target.gpu.name}, {compiler.version}"
    try:
        return tune_kernels(_ready(graph), target.model, options, ranking, name, seconds, progress)
    finally:
        compiler.close()


def applicable(graph: Graph, target: QcomTarget, options: CompileOptions) -> Tuning:
    """The part of `options.tuning` that kernels of `graph`, a graph before any pass, would take."""
    return known_schedules(_ready(graph), target.model, options) if options.tuning else Tuning()


def _ready(graph: Graph) -> Graph:
    from tinyinfer.ir.passes import optimize
    from tinyinfer.ir.passes.storage_types import use_storage_types

    return optimize(use_storage_types(graph))


class Ranking:
    """`kernels.tune.Measure` by estimates: cycles, which are comparable with each other and no times."""

    def __init__(self, target: QcomTarget, compiler: Ir3Compiler):
        self.target, self.compiler = target, compiler
        self.printer = ItemPrinter(target.model, target.dialect)

    def __call__(self, choice: Any, schedules: Sequence[Any]) -> list[float]:
        """Cycles of a contraction with each schedule; infinite for one that spills or does not fit."""
        texts = [self._text(choice, s) for s in schedules]
        compiled = self.compiler.compile(texts)
        return [self._cycles(s, text, kernel) for s, text, kernel in zip(schedules, texts, compiled)]

    def _text(self, choice: Any, schedule: Any) -> KernelText:
        source, _ = contraction_source(choice, schedule, self.printer)
        return KernelText(source.name, program_text([source.text()], False), BUILD_OPTIONS)

    def _cycles(self, schedule: Any, text: KernelText, kernel: CompiledKernel) -> float:
        trips = trips_of(text.source, kernel.loops)
        if trips is None or kernel.statistics.spills:
            return float("inf")
        work = schedule.work
        candidate = Candidate(kernel, trips, prod(work.total), prod(work.group))
        handicap = FEW_WAVES if kernel.statistics.waves < ENOUGH_WAVES else 1.0
        return handicap * estimate(self.target.gpu, candidate, texels=TEXELS)
