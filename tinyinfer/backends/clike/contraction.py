"""A scheduled contraction as nested loops: panels and tiles of rows outside, register tiles of accumulators
inside.

A tile has an array of accumulators for each of its rows, as wide as a panel. Its innermost loop runs along
them and is contiguous, so that the language's compiler keeps whole arrays in vector registers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tinyinfer.backends.clike.arithmetic import Value, accumulate
from tinyinfer.backends.clike.dialect import Dialect
from tinyinfer.backends.clike.expression import Evaluator, Place, Position, axis_names
from tinyinfer.backends.clike.kernel import argument_names, counter_type, function
from tinyinfer.backends.clike.writer import Writer
from tinyinfer.ir.index import Axis
from tinyinfer.kernels.expression import walk
from tinyinfer.kernels.nest import indices_of
from tinyinfer.kernels.physical import ACCUMULATOR, ContractionNest
from tinyinfer.kernels.schedule import ContractionSchedule

LANE = "l"
"""The counter of a panel's columns."""

Row = tuple[int, int]
"""Offsets of a row of a tile along the last two m axes."""


class ContractionPrinter:
    """Prints one contraction as the function `name`."""

    def __init__(self, name: str, nest: ContractionNest, schedule: ContractionSchedule, dialect: Dialect):
        self.name, self.nest, self.schedule, self.dialect = name, nest, schedule, dialect
        physical = nest.physical.nest
        self.dtypes, self.store = physical.dtypes, physical.store
        self.y = nest.m[-2] if len(nest.m) > 1 else None
        self.x = nest.m[-1] if nest.m else None
        indices = [physical.store, nest.a.address, nest.b.address, *indices_of(nest.epilogue)]
        self.w = Writer(counter_type(dialect, indices))
        arguments = argument_names(len(self.dtypes))
        self.ev = Evaluator(self.w, dialect, arguments, self.dtypes, nest.epilogue)
        self.names = axis_names([*nest.groups, *nest.m, *nest.k, nest.panels.panel])
        self.slot = next((e for e in walk(nest.epilogue) if e.op == "SLOT" and e.attrs == ACCUMULATOR), None)

    def text(self) -> str:
        """The whole function."""
        rows, panel = list(self.nest.m), [self.nest.panels.panel]
        inner = [*rows, *panel] if self.schedule.rows_outside else [*panel, *rows]
        self._loops(Position({self.nest.panels.lane: ((), 0)}), [*self.nest.groups, *inner], {})
        return function(self.dialect, self.name, self.dtypes, self.w)

    # ---- loops over tiles

    def _cut(self, axis: Axis) -> list[tuple[int, int, int]]:
        """(first, how many steps, size) of an axis's full tiles and of its remainder; sizes of panels are
        columns."""
        panels = self.nest.panels
        if axis is panels.panel:
            full, rest = divmod(panels.columns, panels.lane.size)
            return [(0, full, panels.lane.size), (full, 1 if rest else 0, rest)]
        step = self._step(axis)
        full, rest = divmod(axis.size, step)
        return [(0, full, step), (full * step, 1 if rest else 0, rest)]

    def _step(self, axis: Axis) -> int:
        if axis is self.x:
            return self.schedule.tile_x
        return self.schedule.tile_y if axis is self.y else 1

    def _loops(self, p: Position, axes: list[Axis], sizes: dict[Axis, int]) -> None:
        """Loops over tiles, outer to inner: full ones, then the remainder."""
        if not axes:
            self._tile(p, sizes)
            return
        axis, following = axes[0], axes[1:]
        step = 1 if axis is self.nest.panels.panel else self._step(axis)
        parts = [part for part in self._cut(axis) if part[1]]
        for first, count, size in parts:
            place: Place = ((), first)
            with self.ev.scope():
                if count > 1:
                    with self.w.loop(self.names[axis], first + count * step, first, step) as counter:
                        self._loops(p.at(axis, ((counter,), 0)), following, {**sizes, axis: size})
                    continue
                with self.w.block() if len(parts) > 1 else _nothing():
                    self._loops(p.at(axis, place), following, {**sizes, axis: size})

    # ---- one tile

    def _row(self, p: Position, row: Row) -> Position:
        if self.y is not None and row[0]:
            p = p.moved(self.y, row[0])
        if self.x is not None and row[1]:
            p = p.moved(self.x, row[1])
        return p

    def _tile(self, p: Position, sizes: dict[Axis, int]) -> None:
        columns = sizes[self.nest.panels.panel]
        height = sizes[self.y] if self.y is not None else 1
        width = sizes[self.x] if self.x is not None else 1
        rows = [(dy, dx) for dy in range(height) for dx in range(width)]
        kind = self.dialect.types[self.nest.dtype].value
        zero = self.dialect.literal(0, self.nest.dtype)
        sums = [self.w.name("sum") for _ in rows]
        for name in sums:
            self.w.do(f"{kind} {name}[{columns}];")
        with self.w.loop(LANE, columns):
            for name in sums:
                self.w.do(f"{name}[{LANE}] = {zero};")
        self._k_loops(p, list(self.nest.k), rows, sums, columns)
        self._epilogue(p, rows, sums, columns)

    def _k_loops(self, p: Position, axes: list[Axis], rows: list[Row], sums: list[str], columns: int) -> None:
        if axes:
            with self.w.loop(self.names[axes[0]], axes[0].size) as counter, self.ev.scope():
                self._k_loops(p.at(axes[0], ((counter,), 0)), axes[1:], rows, sums, columns)
            return
        w, ev, nest, dtype = self.w, self.ev, self.nest, self.nest.dtype
        kind = self.dialect.types[dtype].value
        scalars = []
        for row in rows:
            loaded = ev.load(nest.a, dtype, self._row(p, row))
            scalars.append(Value(w.constant(kind, loaded.text, "a"), dtype))
        with w.loop(LANE, columns):
            vector = ev.load(nest.b, dtype, p.plus(nest.panels.lane, LANE))
            b = Value(w.constant(kind, vector.text, "b"), dtype)
            for scalar, name in zip(scalars, sums):
                total = Value(f"{name}[{LANE}]", dtype)
                w.do(f"{total.text} = {accumulate(self.dialect, scalar, b, total).text};")

    def _epilogue(self, p: Position, rows: list[Row], sums: list[str], columns: int) -> None:
        ev = self.ev
        with self.w.loop(LANE, columns), ev.scope():
            for row, name in zip(rows, sums):
                at = self._row(p, row).plus(self.nest.panels.lane, LANE)
                with ev.scope():
                    if self.slot is not None:
                        ev.provided[id(self.slot)] = Value(f"{name}[{LANE}]", self.nest.dtype)
                    ev.store(0, self.store, ev.value(self.nest.epilogue, at), at)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
