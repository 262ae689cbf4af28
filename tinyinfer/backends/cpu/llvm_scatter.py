"""A scheduled scatter as LLVM text: loops over the updates around a checked read, join and write.

The check stands in the kernel itself: an index that the data hold can never lead outside of the buffer.
"""

from __future__ import annotations

from tinyinfer.backends.cpu.llvm_arithmetic import arithmetic
from tinyinfer.backends.cpu.llvm_contraction import _divide, _range
from tinyinfer.backends.cpu.llvm_expression import Evaluator, Place, Position, tail_mask
from tinyinfer.backends.cpu.llvm_writer import Value, Writer
from tinyinfer.ir.index import Axis
from tinyinfer.kernels.access import Access, Update
from tinyinfer.kernels.expression import apply, expression
from tinyinfer.kernels.nest import LoopNest
from tinyinfer.kernels.schedule_scatter import ScatterSchedule
from tinyinfer.kernels.transcendental import expand_all

JOIN = {"SUM": "ADD", "PROD": "MUL", "MAX": "MAX", "MIN": "MIN"}


class ScatterPrinter:
    """Prints one scatter. `name` is the exported symbol, with the C signature of
    runtime.plan.KernelSource."""

    def __init__(self, name: str, nest: LoopNest, schedule: ScatterSchedule):
        self.name, self.schedule = name, schedule
        self.nest = LoopNest(nest.axes, nest.store, expand_all(nest.body), nest.dtypes)
        self.access: Update = self.nest.body.attrs

    def text(self) -> str:
        """The whole module."""
        s, count = self.schedule, len(self.nest.dtypes)
        self.w = w = Writer(s.lanes)
        self.ev = Evaluator(w, [f"%p{i}" for i in range(count)], self.nest.dtypes, [self.nest.body])
        with w.loop("%first", "%last") as flat, self.ev.scope():
            places: dict[Axis, Place] = {}
            rest = flat
            for a in reversed(s.parallel):
                rest, unit = _divide(w, rest, a.size) if a is not s.parallel[0] else ("", rest)
                places[a] = (unit, 0)
            self._serial(Position(places), s.serial)
        pointers = ", ".join(f"ptr noalias %p{i}" for i in range(count))
        inner = w.function(f"define internal void @body({pointers}, i64 %first, i64 %last) #0")
        outer = Writer(s.lanes)
        loaded = []
        for i in range(count):
            place = outer.emit(f"getelementptr ptr, ptr %arguments, i64 {i}")
            loaded.append(outer.emit(f"load ptr, ptr {place}"))
        units = 1
        for a in s.parallel:
            units *= a.size
        first, last = _range(outer, "%chunk", units, s.chunks)
        outer.do(f"call void @body({', '.join(f'ptr {q}' for q in loaded)}, i64 {first}, i64 {last})")
        entry = outer.function(f"define void @{self.name}(ptr %arguments, i64 %chunk) #0")
        return "\n".join([*sorted(w.declarations | outer.declarations), inner, entry])

    def _serial(self, p: Position, axes: tuple[Axis, ...]) -> None:
        if not axes:
            self._checked(p)
            return
        with self.w.loop(0, axes[0].size) as counter, self.ev.scope():
            self._serial(p.at(axes[0], (counter, 0)), axes[1:])

    def _checked(self, p: Position) -> None:
        """The updates at one position of the outer axes, unless they are to be dropped."""
        w = self.w
        if not self.access.guards:
            self._updates(p)
            return
        vector = self.schedule.vector
        outside = p if vector is None else p.at(vector, (None, 0))
        holds, _ = self.ev.guard(self.access.guards, outside)
        w.count += 1
        tag = w.count
        w.do(f"br i1 {holds}, label %inside{tag}, label %outside{tag}")
        w.label(f"inside{tag}")
        with self.ev.scope():
            self._updates(p)
        w.do(f"br label %outside{tag}")
        w.label(f"outside{tag}")

    def _updates(self, p: Position) -> None:
        w, ev, s = self.w, self.ev, self.schedule
        if s.vector is None:
            self._one(p)
            return
        # what decides the place is the same for all lanes: found once, before the loop
        ev.split(self.access.address, p.at(s.vector, (None, 0)))
        whole = s.vector.size // s.lanes * s.lanes
        if whole:
            with w.loop(0, whole, s.lanes) as counter, ev.scope():
                self._one(p.at(s.vector, (counter, 0)).lanes_along(s.vector))
        left = s.vector.size - whole
        if left:
            with ev.scope():
                self._one(p.at(s.vector, (None, whole)).lanes_along(s.vector, tail_mask(s.lanes, left)))

    def _one(self, p: Position) -> None:
        """One update, or one a lane: lanes never collide."""
        ev, access, dtype = self.ev, self.access, self.nest.body.dtype
        value = ev.value(self.nest.body.args[0], p)
        if access.combine != "SET":
            old = ev.load(Access(access.argument, access.address), dtype, p)
            value = self._joined(old, value)
        ev.store(access.argument, access.address, value, p)

    def _joined(self, old: Value, new: Value) -> Value:
        dtype = self.nest.body.dtype
        parts = [expression("SLOT", (), dtype, name) for name in ("old", "new")]
        return arithmetic(self.w, apply(JOIN[self.access.combine], *parts), [old, new])
