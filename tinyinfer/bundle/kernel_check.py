"""What the compiler of an Adreno GPU makes of a target's kernels, where that compiler is on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinyinfer.backends.qcom.compile_check import KernelReport, compile_check, summary
from tinyinfer.backends.qcom.ir3 import find_compiler
from tinyinfer.backends.qcom.target import QcomTarget
from tinyinfer.runtime.plan import Plan


@dataclass(frozen=True)
class TargetCheck:
    """The kernels of a target through the compiler of its GPU, or in `reason` why they were not compiled.
    `compiler` is its name and version."""

    gpu: str
    compiler: str = ""
    reason: str = ""
    kernels: tuple[KernelReport, ...] = ()

    @property
    def made(self) -> bool:
        """Whether there was a compiler."""
        return not self.reason

    @property
    def summary(self) -> dict[str, Any]:
        """What a manifest says of it: numbers of kernels, and of all kernels the most registers, the fewest
        waves and the sum of the instructions."""
        total = summary(self.kernels)
        statistics = [kernel.compiled.statistics for kernel in self.kernels]
        return {
            "gpu": self.gpu,
            "compiler": self.compiler,
            "kernels": total.kernels,
            "spilling": total.spilling,
            "contractions": total.contractions,
            "contractions_with_enough_waves": total.with_enough_waves,
            "registers": max((kernel.registers for kernel in self.kernels), default=0),
            "waves": min((s.waves for s in statistics), default=0),
            "instructions": sum(s.instructions for s in statistics),
        }

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data, kernel by kernel."""
        if not self.made:
            return {"gpu": self.gpu, "reason": self.reason}
        return {**self.summary, "by_kernel": [_facts(kernel) for kernel in self.kernels]}


def _facts(kernel: KernelReport) -> dict[str, Any]:
    statistics = kernel.compiled.statistics
    return {
        "name": kernel.name,
        "computes": list(kernel.origin),
        "launches": kernel.launches,
        "work_items": kernel.work_items,
        "instructions": statistics.instructions,
        "registers": kernel.registers,
        "waves": statistics.waves,
        "double_waves": statistics.double_wave,
        "spills": kernel.spills,
    }


def check_target(target: QcomTarget, plan: Plan, tell: Callable[[str], None]) -> TargetCheck:
    """The check of a target's plan. EPFail, naming what it computes, for a kernel that does not compile or
    that the GPU cannot launch."""
    compiler, reason = find_compiler(target.gpu)
    if compiler is None:
        return TargetCheck(target.gpu.name, reason=reason)
    compiler.close()
    tell(f"{target.name}: compiling its kernels")
    return TargetCheck(target.gpu.name, compiler.version, kernels=tuple(compile_check(plan, target.gpu)))
