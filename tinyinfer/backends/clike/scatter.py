"""A scheduled scatter as nested loops over the updates around a checked read, join and write.

The check stands in the kernel itself: an index that the data hold can never lead outside of the buffer.
"""

from __future__ import annotations

from tinyinfer.backends.clike.arithmetic import join
from tinyinfer.backends.clike.dialect import Dialect
from tinyinfer.backends.clike.expression import Evaluator, Position, axis_names
from tinyinfer.backends.clike.kernel import argument_names, counter_type, function
from tinyinfer.backends.clike.writer import Writer
from tinyinfer.ir.index import Axis
from tinyinfer.kernels.access import Access, Update
from tinyinfer.kernels.nest import LoopNest, indices_of
from tinyinfer.kernels.schedule_scatter import ScatterSchedule


class ScatterPrinter:
    """Prints one scatter as the function `name`."""

    def __init__(self, name: str, nest: LoopNest, schedule: ScatterSchedule, dialect: Dialect):
        self.name, self.nest, self.schedule, self.dialect = name, nest, schedule, dialect
        self.access: Update = nest.body.attrs
        self.w = Writer(counter_type(dialect, indices_of(nest.body)))
        self.ev = Evaluator(self.w, dialect, argument_names(len(nest.dtypes)), nest.dtypes, nest.body)
        self.names = axis_names(list(nest.axes))

    def text(self) -> str:
        """The whole function."""
        self._loops(Position({}), [*self.schedule.parallel, *self.schedule.serial])
        return function(self.dialect, self.name, self.nest.dtypes, self.w)

    def _loops(self, p: Position, axes: list[Axis]) -> None:
        if not axes:
            self._checked(p)
            return
        with self.w.loop(self.names[axes[0]], axes[0].size) as counter, self.ev.scope():
            self._loops(p.at(axes[0], ((counter,), 0)), axes[1:])

    def _checked(self, p: Position) -> None:
        """The updates at one position of the outer axes, unless they are to be dropped."""
        vector, guards = self.schedule.vector, self.access.guards
        outside = p if vector is None else p.at(vector, ((), 0))
        if not guards:
            self._updates(p)
            return
        with self.w.block(f"if ({self.ev.guard(guards, outside)})"), self.ev.scope():
            self._updates(p)

    def _updates(self, p: Position) -> None:
        vector = self.schedule.vector
        if vector is None:
            self._one(p)
            return
        with self.w.loop(self.names[vector], vector.size) as counter, self.ev.scope():
            self._one(p.at(vector, ((counter,), 0)))

    def _one(self, p: Position) -> None:
        ev, access, dtype = self.ev, self.access, self.nest.body.dtype
        value = ev.named(self.nest.body.args[0], p)
        if access.combine != "SET":
            old = ev.load(Access(access.argument, access.address), dtype, p)
            value = join(self.dialect, access.combine, old, value)
        ev.store(access.argument, access.address, value, p)
