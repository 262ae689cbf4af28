"""The CPU device: plans printed as LLVM IR for this machine and run by native threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyinfer.backends.base import Executable
from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.backends.cpu.llvm_contraction import ContractionPrinter
from tinyinfer.backends.cpu.llvm_halo import print_halo
from tinyinfer.backends.cpu.llvm_map import MapPrinter
from tinyinfer.backends.cpu.llvm_scatter import ScatterPrinter
from tinyinfer.backends.cpu.loop import loop_text
from tinyinfer.backends.cpu.target import CpuTarget, host_target
from tinyinfer.backends.cpu.threads import default_threads
from tinyinfer.budget import check_bytes
from tinyinfer.config import CompileOptions, cache_directory
from tinyinfer.ir.dtypes import numpy_dtype
from tinyinfer.ir.node import Graph
from tinyinfer.kernels.halo import HaloRegion
from tinyinfer.kernels.nest import LoopNest
from tinyinfer.kernels.physical import ContractionNest
from tinyinfer.kernels.plan import build_plan
from tinyinfer.kernels.schedule import ContractionSchedule, MachineModel
from tinyinfer.kernels.schedule_map import MapSchedule
from tinyinfer.kernels.schedule_scatter import ScatterSchedule
from tinyinfer.runtime.plan import Plan, TensorSpec, kernel_sources

if TYPE_CHECKING:
    from tinyinfer.backends.cpu.compile import Progress
    from tinyinfer.backends.cpu.executable import CpuExecutable

ATTRIBUTES = 'attributes #0 = { nounwind "no-builtins" "no-jump-tables"="true" }'


class LlvmPrinter:
    """Prints scheduled kernels as LLVM modules for vectors of `target.lanes` floats."""

    whole_loops = None

    def __init__(self, target: CpuTarget):
        self.machine = MachineModel(target.lanes, target.registers)

    def contraction(self, name: str, nest: ContractionNest, schedule: ContractionSchedule) -> str:
        return f"{ContractionPrinter(name, nest, schedule).text()}\n{ATTRIBUTES}\n"

    def map(self, name: str, nest: LoopNest, schedule: MapSchedule) -> str:
        return f"{MapPrinter(name, nest, schedule).text()}\n{ATTRIBUTES}\n"

    def scatter(self, name: str, nest: LoopNest, schedule: ScatterSchedule) -> str:
        return f"{ScatterPrinter(name, nest, schedule).text()}\n{ATTRIBUTES}\n"

    def halo(self, name: str, regions: tuple[HaloRegion, ...], dtype: str, fill: float | int | bool) -> str:
        return f"{print_halo(name, regions, dtype, fill, self.machine.lanes)}\n{ATTRIBUTES}\n"

    def loop(self, name: str) -> str:
        return f"{loop_text(name)}\n{ATTRIBUTES}\n"


class CpuDevice:
    """The processor that this process runs on."""

    name = "CPU"

    def available(self) -> str | None:
        """None: there is always a CPU."""
        return None

    def plan(self, graph: Graph, options: CompileOptions, target: CpuTarget | None = None) -> Plan:
        """Optimise and plan `graph` for a target (None: this machine); no kernel is printed or compiled."""
        from tinyinfer.ir.passes import optimize
        from tinyinfer.ir.passes.storage_types import use_storage_types

        printer = LlvmPrinter(target or host_target())
        plan = build_plan(optimize(use_storage_types(graph)), printer, options)
        results = sum(x.size * numpy_dtype(x.dtype).itemsize for x in graph.outputs.values())
        check_bytes(plan.peak_bytes + results, "the compiled graph with its outputs")
        # the bytes are those of the storage types, but callers see the arrays as what the model says
        plan.inputs = [TensorSpec(name, x.shape, x.dtype) for name, x in graph.inputs.items()]
        plan.outputs = [TensorSpec(name, x.shape, x.dtype) for name, x in graph.outputs.items()]
        return plan

    def compile(self, graph: Graph, options: CompileOptions, threads: int) -> Executable:
        """Optimise, plan and compile `graph` for `threads` threads (0: all cores)."""
        from tinyinfer.backends.cpu.compile import assembly

        target = host_target()
        plan = self.plan(graph, options)
        sources = kernel_sources(plan.launches)
        plan.stages["assembly"] = lambda: "\n\n".join(assembly(s.text(), target) for s in sources.values())
        return compile_plan(plan, target, threads)


def compile_plan(
    plan: Plan,
    target: CpuTarget,
    threads: int = 0,
    cache: KernelCache | None = None,
    progress: Progress | None = None,
) -> CpuExecutable:
    """A plan of this machine's kernels, compiled through `cache` (None: the user's) and made runnable.

    Raises KernelCompileError where LLVM refuses a kernel, and OSError where the system has no memory for
    code.
    """
    from tinyinfer.backends.cpu.compile import compile_image
    from tinyinfer.backends.cpu.executable import CpuExecutable
    from tinyinfer.backends.cpu.loader import map_image

    threads = threads if threads > 0 else default_threads()
    cache = cache if cache is not None else KernelCache(cache_directory())
    image = compile_image(plan, target, threads, cache, progress)
    return CpuExecutable(plan, map_image(image), threads)
