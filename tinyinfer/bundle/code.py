"""The code of a target: a model's plan for it, and what `CODE` holds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.backends.cpu.compile import compile_image
from tinyinfer.backends.cpu.device import CpuDevice
from tinyinfer.backends.cpu.features import Needs
from tinyinfer.backends.cpu.target import CpuTarget
from tinyinfer.backends.cpu.threads import default_threads
from tinyinfer.backends.opencl.target import OpenclTarget, plan_for, program_source
from tinyinfer.backends.qcom.islands import IslandFinder, Islands
from tinyinfer.backends.qcom.options import AUTO
from tinyinfer.backends.qcom.target import QcomTarget
from tinyinfer.bundle.kernel_check import TargetCheck, check_target
from tinyinfer.bundle.plan_section import ProgramNeeds
from tinyinfer.bundle.source import Source
from tinyinfer.bundle.vectors import drawn_inputs
from tinyinfer.config import cache_directory
from tinyinfer.errors import Fail
from tinyinfer.ir.node import Graph, Node
from tinyinfer.kernels.tuning import Tuning
from tinyinfer.runtime.plan import Plan

if TYPE_CHECKING:
    from tinyinfer.bundle.build import BuildOptions

Tell = Callable[[str], None]
"""Called with a line on what is being done."""


@dataclass
class TargetCode:
    """A target's plan and what `CODE` holds of it; `entries` as `PlanSection.offsets`."""

    needs: Needs
    plan: Plan
    code: bytes
    entries: Mapping[str, int]
    program: ProgramNeeds | None = None
    check: TargetCheck | None = None
    islands: Islands | None = None
    """What is float32 among halves, where that was looked for."""


def machine_code(
    source: Source, target: CpuTarget, options: BuildOptions, tuning: Tuning, tell: Tell
) -> TargetCode:
    """The plan for a processor, and its machine code."""
    plan = CpuDevice().plan(source.graph, replace(options.compile_options, tuning=tuning), target)
    options.check_memory(f"target {target.name}", plan)
    image = compile_image(
        plan,
        target,
        options.threads or default_threads(),
        KernelCache(cache_directory()),
        lambda done, total: tell(f"{target.name}: kernel {done} of {total}"),
    )
    return TargetCode(target.needs, plan, image.code, image.entries)


def island_finder(source: Source, options: BuildOptions) -> IslandFinder:
    """What finds values of a model that halves must not hold, on the inputs of its golden vectors."""
    return IslandFinder(lambda: _golden_inputs(source, options), options.threads)


def opencl_code(
    source: Source,
    target: OpenclTarget,
    options: BuildOptions,
    tuning: Tuning,
    tell: Tell,
    finder: IslandFinder,
) -> TargetCode:
    """The plan for a kind of OpenCL device, and the source of its kernels. EPFail for a kernel of an Adreno
    GPU that its compiler refuses, and for float64 on one."""
    without_doubles = target.gpu.name if isinstance(target, QcomTarget) else ""
    islands: Islands | None = None

    def widen(graph: Graph) -> Collection[Node]:
        nonlocal islands
        if getattr(target, "storage", "") != "float16" or options.precision != AUTO:
            return ()
        tell(f"{target.name}: looking for values that halves are too coarse for")
        islands = finder.find(graph, target, options.compile_options)
        return islands.nodes

    tuned = replace(options.compile_options, tuning=tuning)
    plan = plan_for(source.graph, tuned, target, without_doubles, widen)
    options.check_memory(f"target {target.name}", plan)
    program = program_source(plan, target)
    needs = ProgramNeeds(
        program.options, program.local_bytes, program.largest_group, target.required, target.best_for
    )
    check = check_target(target, plan, tell) if isinstance(target, QcomTarget) else None
    return TargetCode(program.needs, plan, program.text, program.entries, needs, check, islands)


def _golden_inputs(source: Source, options: BuildOptions) -> list[dict[str, np.ndarray]]:
    try:
        return drawn_inputs(source.graph, source.values, options.inputs)
    except Fail:
        raise Fail(
            "no random inputs make sense for this model, on which to find what halves are too coarse for:"
            " give some (--input NAME=FILE), or choose --precision fp16 or fp32"
        ) from None
