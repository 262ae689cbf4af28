"""The kernels of a plan through the ir3 compiler: what becomes of each on one GPU, without that GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyinfer.backends.clike.opencl_c import program_text
from tinyinfer.backends.opencl.programs import all_launches, plan_sources
from tinyinfer.backends.qcom.capabilities import AdrenoGpu
from tinyinfer.backends.qcom.ir3 import KernelText, find_compiler
from tinyinfer.backends.qcom.occupancy import occupancy
from tinyinfer.backends.qcom.statistics import CompiledKernel
from tinyinfer.errors import EPFail
from tinyinfer.runtime.plan import KernelSource, Launch, Plan

ENOUGH_WAVES = 12
"""Waves in flight that hide the latency of reads."""

BUILD_OPTIONS = "-cl-std=CL1.2"


@dataclass(frozen=True)
class KernelReport:
    """One kernel on one GPU, and the launches that it serves."""

    name: str
    title: str
    """What it computes, by ONNX names; that of the first launch."""

    origin: tuple[str, ...]
    """All of these names."""

    launches: int
    work_items: int
    """Of the first launch."""

    compiled: CompiledKernel

    @property
    def registers(self) -> int:
        """Registers of a work-item; two half ones are one."""
        statistics = self.compiled.statistics
        return max(1, statistics.full_registers + -(-statistics.half_registers // 2))

    @property
    def spills(self) -> bool:
        return self.compiled.statistics.spills

    @property
    def is_contraction(self) -> bool:
        return self.name.startswith("contract_")


@dataclass(frozen=True)
class CheckSummary:
    """All kernels of a plan on one GPU."""

    kernels: int
    launches: int
    spilling: int
    contractions: int
    with_enough_waves: int
    """Contractions with at least ENOUGH_WAVES waves in flight."""

    @property
    def share(self) -> float:
        """Of the contractions, those with enough waves; 1 where there are none."""
        return self.with_enough_waves / self.contractions if self.contractions else 1.0


def compile_check(plan: Plan, gpu: AdrenoGpu, tree: Path | None = None) -> list[KernelReport]:
    """Every kernel of a plan compiled for `gpu`, in order of their first launches.

    EPFail naming what a kernel computes and what the compiler says where one does not compile, or where the
    GPU cannot launch it, and where there is no compiler (`ir3.find_compiler` tells beforehand).
    """
    compiler, reason = find_compiler(gpu, tree)
    if compiler is None:
        raise EPFail(reason)
    served: dict[str, list[Launch]] = {}
    for launch in all_launches(plan.launches):
        served.setdefault(launch.kernel.key, []).append(launch)
    sources = plan_sources(plan.launches)
    texts = [_text(source, served[source.key][0]) for source in sources]
    try:
        compiled = compiler.compile(texts)
    finally:
        compiler.close()
    reports = [_report(s, served[s.key], kernel) for s, kernel in zip(sources, compiled, strict=True)]
    for report, source in zip(reports, sources):
        _check_launch(report, served[source.key][0], gpu)
    return reports


def summary(reports: Sequence[KernelReport]) -> CheckSummary:
    """What a table ends with."""
    contractions = [r for r in reports if r.is_contraction]
    return CheckSummary(
        len(reports),
        sum(r.launches for r in reports),
        sum(r.spills for r in reports),
        len(contractions),
        sum(r.compiled.statistics.waves >= ENOUGH_WAVES for r in contractions),
    )


def _text(source: KernelSource, launch: Launch) -> KernelText:
    return KernelText(f"{source.name} ({launch.title})", program_text([source.text()], False), BUILD_OPTIONS)


def _report(source: KernelSource, launches: Sequence[Launch], compiled: CompiledKernel) -> KernelReport:
    first = launches[0]
    assert first.work is not None
    x, y, z = first.work.total
    return KernelReport(source.name, first.title, first.origin, len(launches), x * y * z, compiled)


def _check_launch(report: KernelReport, launch: Launch, gpu: AdrenoGpu) -> None:
    assert launch.work is not None
    x, y, z = launch.work.group
    statistics = report.compiled.statistics
    held = occupancy(
        gpu,
        statistics.full_registers,
        statistics.half_registers,
        report.compiled.local_bytes,
        x * y * z,
        statistics.double_wave,
    )
    if not held.fits:
        raise EPFail(
            f"{gpu.name} cannot launch the kernel of {report.title}: a group of {x * y * z} work-items is "
            f"more than the {held.work_items} that its registers and local memory leave room for"
        )
