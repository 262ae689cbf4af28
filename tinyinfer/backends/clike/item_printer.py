"""The printer that the plan builder takes for devices of work-items: scheduled kernels as OpenCL C."""

from __future__ import annotations

from tinyinfer.backends.clike import item_loop
from tinyinfer.backends.clike.dialect import Dialect
from tinyinfer.backends.clike.item_contraction import ItemContractionPrinter
from tinyinfer.backends.clike.item_halo import print_item_halo
from tinyinfer.backends.clike.item_map import ItemMapPrinter
from tinyinfer.backends.clike.item_scatter import ItemScatterPrinter
from tinyinfer.backends.clike.item_tile import TilePrinter
from tinyinfer.backends.clike.opencl_c import OPENCL_C
from tinyinfer.kernels.halo import HaloRegion
from tinyinfer.kernels.nest import LoopNest
from tinyinfer.kernels.physical import ContractionNest
from tinyinfer.kernels.schedule_gpu import GpuModel, GpuScatterSchedule
from tinyinfer.kernels.schedule_gpu_contraction import GpuContractionSchedule
from tinyinfer.kernels.schedule_gpu_map import GpuMapSchedule
from tinyinfer.kernels.schedule_gpu_tile import GpuTileSchedule
from tinyinfer.kernels.whole_loop import WholeLoop
from tinyinfer.runtime.plan import Launch


class ItemPrinter:
    """Prints scheduled kernels for work-items. A loop is one kernel, or its launch has none: the host repeats
    its body."""

    def __init__(self, machine: GpuModel, dialect: Dialect = OPENCL_C):
        self.machine, self.dialect = machine, dialect

    def contraction(
        self, name: str, nest: ContractionNest, schedule: GpuContractionSchedule | GpuTileSchedule
    ) -> str:
        if isinstance(schedule, GpuTileSchedule):
            return TilePrinter(name, nest, schedule, self.dialect).text()
        return ItemContractionPrinter(name, nest, schedule, self.dialect).text()

    def map(self, name: str, nest: LoopNest, schedule: GpuMapSchedule) -> str:
        return ItemMapPrinter(name, nest, schedule, self.dialect).text()

    def scatter(self, name: str, nest: LoopNest, schedule: GpuScatterSchedule) -> str:
        return ItemScatterPrinter(name, nest, schedule, self.dialect).text()

    def halo(self, name: str, regions: tuple[HaloRegion, ...], dtype: str, fill: float | int | bool) -> str:
        return print_item_halo(name, regions, dtype, fill, self.dialect, self.machine)

    def loop(self, name: str) -> str:
        return ""

    @property
    def whole_loops(self) -> WholeLoops | None:
        return WholeLoops(self.machine, self.dialect) if self.machine.loop_groups else None


class WholeLoops:
    """Prints loops as one kernel; see kernels.whole_loop."""

    def __init__(self, machine: GpuModel, dialect: Dialect):
        self.machine, self.dialect = machine, dialect
        self.costs, self.choices = machine.loop_costs, tuple(sorted({1, machine.loop_groups}))

    def body(self, groups: int) -> ItemPrinter:
        return ItemPrinter(self.machine.loop_body(groups), self.dialect)

    def size(self, groups: int) -> int:
        return self.machine.loop_group(groups)

    def fits(self, launches: tuple[Launch, ...], groups: int) -> bool:
        return item_loop.fits(launches, self.size(groups), self.machine.local_bytes)

    def text(self, name: str, loop: WholeLoop) -> str:
        return item_loop.ItemLoopPrinter(name, loop).text()
