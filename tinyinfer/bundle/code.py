"""The code of a target: a model's plan for it, and what `CODE` holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.backends.cpu.compile import compile_image
from tinyinfer.backends.cpu.device import CpuDevice
from tinyinfer.backends.cpu.features import Needs
from tinyinfer.backends.cpu.target import CpuTarget
from tinyinfer.backends.cpu.threads import default_threads
from tinyinfer.backends.opencl.target import OpenclTarget, plan_for, program_source
from tinyinfer.backends.qcom.target import QcomTarget
from tinyinfer.bundle.kernel_check import TargetCheck, check_target
from tinyinfer.bundle.plan_section import ProgramNeeds
from tinyinfer.bundle.source import Source
from tinyinfer.config import cache_directory
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


def opencl_code(source: Source, target: OpenclTarget, options: BuildOptions, tell: Tell) -> TargetCode:
    """The plan for a kind of OpenCL device, and the source of its kernels. EPFail for a kernel of an Adreno
    GPU that its compiler refuses, and for float64 on one."""
    without_doubles = target.gpu.name if isinstance(target, QcomTarget) else ""
    plan = plan_for(source.graph, options.compile_options, target, without_doubles)
    options.check_memory(f"target {target.name}", plan)
    program = program_source(plan, target)
    needs = ProgramNeeds(
        program.options, program.local_bytes, program.largest_group, target.required, target.best_for
    )
    check = check_target(target, plan, tell) if isinstance(target, QcomTarget) else None
    return TargetCode(program.needs, plan, program.text, program.entries, needs, check)
