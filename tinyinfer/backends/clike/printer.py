"""The printer that the plan builder takes: scheduled kernels as functions of a C-like language."""

from __future__ import annotations

from tinyinfer.backends.clike.c11 import C11
from tinyinfer.backends.clike.contraction import ContractionPrinter
from tinyinfer.backends.clike.dialect import Dialect
from tinyinfer.backends.clike.halo import print_halo
from tinyinfer.backends.clike.map import MapPrinter
from tinyinfer.backends.clike.scatter import ScatterPrinter
from tinyinfer.kernels.halo import HaloRegion
from tinyinfer.kernels.nest import LoopNest
from tinyinfer.kernels.physical import ContractionNest
from tinyinfer.kernels.schedule import ContractionSchedule, MachineModel
from tinyinfer.kernels.schedule_map import MapSchedule
from tinyinfer.kernels.schedule_scatter import ScatterSchedule

GENERAL = MachineModel(lanes=4, registers=16)
"""A processor with vectors of any width: blocks of four floats, which wider vectors join."""

MICROCONTROLLER = MachineModel(lanes=4, registers=8)
"""A processor without vectors and with 32 float registers: four of them stand for one vector."""


class CPrinter:
    """Prints scheduled kernels in a dialect, with schedules for this machine.

    A kernel is one function that computes all chunks. A loop's launch has no function of its own: whoever
    writes the sequence of launches writes loops too.
    """

    whole_loops = None

    def __init__(self, machine: MachineModel = GENERAL, dialect: Dialect = C11):
        self.machine, self.dialect = machine, dialect

    def contraction(self, name: str, nest: ContractionNest, schedule: ContractionSchedule) -> str:
        return ContractionPrinter(name, nest, schedule, self.dialect).text()

    def map(self, name: str, nest: LoopNest, schedule: MapSchedule) -> str:
        return MapPrinter(name, nest, schedule, self.dialect).text()

    def scatter(self, name: str, nest: LoopNest, schedule: ScatterSchedule) -> str:
        return ScatterPrinter(name, nest, schedule, self.dialect).text()

    def halo(self, name: str, regions: tuple[HaloRegion, ...], dtype: str, fill: float | int | bool) -> str:
        return print_halo(name, regions, dtype, fill, self.dialect)

    def loop(self, name: str) -> str:
        return ""
