"""A scheduled scatter for work-items: each runs its updates in order, around a checked read, join and write.

The check stands in the kernel itself: an index that the data hold can never lead outside of the buffer.
"""

from __future__ import annotations

from contextlib import nullcontext

from tinyinfer.backends.clike.arithmetic import join
from tinyinfer.backends.clike.dialect import Dialect
from tinyinfer.backends.clike.expression import Position, axis_names
from tinyinfer.backends.clike.items import dimension_counter, item_function, outside, place_items
from tinyinfer.backends.clike.kernel import argument_names, counter_type
from tinyinfer.backends.clike.vectors import VectorEvaluator
from tinyinfer.backends.clike.writer import Writer
from tinyinfer.ir.index import Axis
from tinyinfer.kernels.access import Access, Update
from tinyinfer.kernels.nest import LoopNest, indices_of
from tinyinfer.kernels.schedule_gpu import GpuScatterSchedule, count_of


class ItemScatterPrinter:
    """Prints one scatter as the kernel `name`."""

    def __init__(self, name: str, nest: LoopNest, schedule: GpuScatterSchedule, dialect: Dialect):
        self.name, self.nest, self.schedule, self.dialect = name, nest, schedule, dialect
        self.access: Update = nest.body.attrs
        self.w = Writer(counter_type(dialect, indices_of(nest.body)))
        arguments = argument_names(len(nest.dtypes))
        unaligned = (False,) * len(arguments)
        self.ev = VectorEvaluator(self.w, dialect, arguments, nest.dtypes, nest.body, None, 1, unaligned)
        self.names = axis_names(list(nest.axes))

    def text(self) -> str:
        """The whole kernel."""
        s, w = self.schedule, self.w
        counter = dimension_counter(w, 0, "g0")
        beyond = outside([count_of(s.grid[0])], s.work, [counter])
        if beyond:
            w.do(f"if ({beyond}) return;")
        self._loops(place_items(w, Position({}), self.names, s.grid[0], counter), list(s.serial))
        return item_function(self.dialect, self.name, self.nest.dtypes, s.work, w)

    def _loops(self, p: Position, axes: list[Axis]) -> None:
        if not axes:
            guards = self.access.guards
            head = self.w.block(f"if ({self.ev.guard(guards, p)})") if guards else nullcontext()
            with head, self.ev.frame():
                self._update(p)
            return
        with self.w.loop(self.names[axes[0]], axes[0].size) as counter, self.ev.frame():
            self._loops(p.at(axes[0], ((counter,), 0)), axes[1:])

    def _update(self, p: Position) -> None:
        ev, access, dtype = self.ev, self.access, self.nest.body.dtype
        value = ev.named(self.nest.body.args[0], p)
        if access.combine != "SET":
            old = ev.load(Access(access.argument, access.address), dtype, p)
            value = join(self.dialect, access.combine, old, value)
        ev.store(access.argument, access.address, value, p)
