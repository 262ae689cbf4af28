"""A scheduled map kernel as nested loops: rows and columns, row statistics, tiles of neighbouring outputs,
reductions.

See kernels.schedule_map for what rows, columns and tiles are. The vectorised axis is the innermost loop and
contiguous, for the language's compiler to vectorise. Where reductions are loops themselves, it is cut into
blocks, and each reduction has an array of accumulators, one for each element of the block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tinyinfer.backends.clike.arithmetic import Value, join
from tinyinfer.backends.clike.dialect import Dialect
from tinyinfer.backends.clike.expression import Evaluator, Place, Position, axis_names
from tinyinfer.backends.clike.kernel import argument_names, counter_type, function
from tinyinfer.backends.clike.writer import Writer
from tinyinfer.ir.index import Axis
from tinyinfer.ir.ops import reduce_identity
from tinyinfer.kernels.access import payloads, walk_with_indices
from tinyinfer.kernels.expression import Expr, walk
from tinyinfer.kernels.kept import keep_in_result
from tinyinfer.kernels.nest import LoopNest, indices_of
from tinyinfer.kernels.schedule_map import MapSchedule, horizontal_axis, is_straight

REDUCE_VECTORS = 4
"""Independent accumulators of a horizontal reduction, in vectors."""

LANE = "l"
"""The counter of a block's elements."""

Sizes = dict[Axis, int]
"""How many neighbours of a cut axis are computed together."""


class MapPrinter:
    """Prints one map kernel as the function `name`."""

    def __init__(self, name: str, nest: LoopNest, schedule: MapSchedule, dialect: Dialect):
        self.name, self.schedule, self.dialect = name, schedule, dialect
        self.nest, self.kept = keep_in_result(nest, schedule)
        s, body = schedule, self.nest.body
        self.w = w = Writer(counter_type(dialect, [self.nest.store, *indices_of(body)]))
        arguments = argument_names(len(nest.dtypes))
        self.ev = Evaluator(w, dialect, arguments, nest.dtypes, body)
        self.reduces = [e for e in walk_with_indices(body) if e.op == "REDUCE"]
        full = frozenset(self.nest.axes)
        self.statistics = [e for e in self.reduces if not full <= self.ev.free[id(e)]] if s.columns else []
        others = [e for e in self.reduces if e not in self.statistics]
        self.blocked = s.vector is not None and (
            bool(s.columns and s.vector in s.rows) or any(not is_straight(e) for e in others)
        )
        self.straight = [] if s.vector is None or self.blocked else others
        self.looped = [e for e in others if e not in self.straight]
        self.names = axis_names([*self.nest.axes, *(a for e in self.reduces for a in e.attrs[1])])

    def text(self) -> str:
        """The whole function."""
        self._loops(Position({}), self._ordered(self.schedule.rows), {}, self._row)
        return function(self.dialect, self.name, self.nest.dtypes, self.w)

    # ---- loops

    def _ordered(self, axes: tuple[Axis, ...]) -> list[Axis]:
        """Loops in the schedule's order, but the vectorised one innermost."""
        return sorted(axes, key=lambda a: a is self.schedule.vector)

    def _step(self, axis: Axis) -> int:
        """Neighbours along an axis that are computed together; 1: a plain loop."""
        s = self.schedule
        if axis is s.vector:
            return s.vectors * s.lanes if self.blocked else 1
        return s.tile if axis is s.tile_axis and not s.transposed else 1

    def _loops(
        self, p: Position, axes: list[Axis], sizes: Sizes, inside: Callable[[Position, Sizes], None]
    ) -> None:
        """Loops over `axes`, outer to inner, around `inside`; cut axes get a main loop and a remainder."""
        if not axes:
            inside(p, sizes)
            return
        axis, following, step = axes[0], axes[1:], self._step(axes[0])
        name, cut = self.names[axis], axis in (self.schedule.vector, self.schedule.tile_axis)
        whole, rest = divmod(axis.size, step)

        def enter(place: Place, size: int) -> None:
            with self.ev.scope():
                self._loops(p.at(axis, place), following, {**sizes, axis: size} if cut else sizes, inside)

        if whole == 1:
            with self.w.block() if rest else _nothing():
                enter(((), 0), step)
        elif whole:
            with self.w.loop(name, whole * step, 0, step):
                enter(((name,), 0), step)
        if rest:
            with self.w.block() if whole else _nothing():
                enter(((), whole * step), rest)

    def _tiles(self, p: Position, sizes: Sizes) -> list[Position]:
        """The positions along the tile's axis that one step computes together."""
        axis = self.schedule.tile_axis
        if axis is None or axis not in p.places:
            return [p]
        return [p.moved(axis, t) if t else p for t in range(sizes.get(axis, 1))]

    @contextmanager
    def _lanes(self, tiles: list[Position], sizes: Sizes) -> Iterator[list[Position]]:
        """The loop over a block's elements, where there are blocks; gives the positions inside."""
        vector = self.schedule.vector
        if not self.blocked or vector is None or vector not in sizes:
            yield tiles
            return
        with self.w.loop(LANE, sizes[vector]), self.ev.scope():
            yield [q.plus(vector, LANE) for q in tiles]

    def _row(self, p: Position, sizes: Sizes) -> None:
        if not self.statistics:
            self._loops(p, self._ordered(self.schedule.columns), sizes, self._write)
            return
        tiles = self._tiles(p, sizes)
        for e in self.statistics:
            distinct = {self.ev.key(e, q): q for q in tiles}
            self._looped_reduce(e, list(distinct.values()), sizes)
        for e in self._once_per_row():
            for q in tiles:
                self.ev.named(e, q)
        self._loops(p, self._ordered(self.schedule.columns), sizes, self._write)

    def _once_per_row(self) -> list[Expr]:
        """What the columns read that only depends on rows, beside the statistics themselves."""
        rows, free = frozenset(self.schedule.rows), self.ev.free
        if self.blocked:
            rows -= {self.schedule.vector}
        found: dict[int, Expr] = {}
        seen: set[int] = set()
        stack = [self.nest.body]
        while stack:
            e = stack.pop()
            if id(e) in seen:
                continue
            seen.add(id(e))
            if e.op == "REDUCE" and e in self.statistics:
                continue
            if e.args and free[id(e)] and free[id(e)] <= rows:
                found[id(e)] = e
                continue
            stack.extend((*e.args, *payloads(e)))
        return list(found.values())

    def _write(self, p: Position, sizes: Sizes) -> None:
        tiles = self._tiles(p, sizes)
        for e in self.looped:
            self._looped_reduce(e, tiles, sizes)
        with self._lanes(tiles, sizes) as positions:
            for e in self.straight:
                self._straight_reduce(e, positions)
            values = [self.ev.value(self.nest.body, q) for q in positions]
            for q, value in zip(positions, values):
                self.ev.store(0, self.nest.store, value, q)

    # ---- reductions

    def _straight_reduce(self, e: Expr, positions: list[Position]) -> None:
        """All steps of a short reduction for several positions at once."""
        op, axes = e.attrs
        kind = self.dialect.types[e.dtype].value
        names: list[str] = []
        steps: list[dict[Axis, Place]] = [{}]
        for a in axes:
            steps = [{**step, a: ((), i)} for step in steps for i in range(a.size)]
        for number, step in enumerate(steps):
            for i, p in enumerate(positions):
                q = Position({**p.places, **step})
                if not number:
                    name = self.w.name(_stem(op))
                    self.w.do(f"{kind} {name} = {self.ev.value(e.args[0], q).text};")
                    names.append(name)
                    continue
                total = Value(names[i], e.dtype)
                self.w.do(f"{names[i]} = {self.ev.accumulated(op, total, e.args[0], q).text};")
        for p, name in zip(positions, names):
            self.ev.know(e, p, Value(name, e.dtype))

    def _looped_reduce(self, e: Expr, positions: list[Position], sizes: Sizes) -> None:
        """A reduction of any length for several positions at once."""
        s, ev = self.schedule, self.ev
        op, axes = e.attrs
        by_lane = self.blocked and s.vector in ev.free[id(e)]
        along = None if by_lane else horizontal_axis(e, ev.free)
        width = sizes[s.vector] if by_lane and s.vector is not None else 0
        if along is not None:
            copies = min(REDUCE_VECTORS, along.size // s.lanes)
            width = copies * s.lanes if copies > 1 else 0
        order = sorted(axes, key=lambda a: (a is along, -_main_stride(e, a)))
        totals = [self._accumulators(op, e.dtype, width) for _ in positions]

        def loops(places: dict[Axis, Place], left: list[Axis]) -> None:
            if not left:
                at = [Position({**p.places, **places}) for p in positions]
                self._step_of(e, at, totals, width if by_lane else 0, None)
                return
            axis = left[0]
            if axis is along and width:
                self._horizontal(e, axis, places, positions, totals, width)
                return
            with self.w.loop(self.names[axis], axis.size), ev.scope():
                loops({**places, axis: ((self.names[axis],), 0)}, left[1:])

        loops({}, order)
        for p, total in zip(positions, totals):
            if by_lane and s.vector is not None:
                ev.know(e, p.plus(s.vector, LANE), Value(f"{total}[{LANE}]", e.dtype))
            else:
                ev.know(e, p, Value(self._joined(op, e.dtype, total, width) if width else total, e.dtype))

    def _accumulators(self, op: str, dtype: str, width: int) -> str:
        """Define a variable, or an array of `width`, that holds what leaves the reduction unchanged."""
        name, kind = self.w.name(_stem(op)), self.dialect.types[dtype].value
        identity = self.dialect.literal(reduce_identity(op, dtype), dtype)
        if not width:
            self.w.do(f"{kind} {name} = {identity};")
            return name
        self.w.do(f"{kind} {name}[{width}];")
        with self.w.loop(LANE, width):
            self.w.do(f"{name}[{LANE}] = {identity};")
        return name

    def _step_of(
        self, e: Expr, positions: list[Position], totals: list[str], count: int, axis: Axis | None
    ) -> None:
        """One step of a reduction; `count` of them side by side, in a loop, for lanes of a block or of
        `axis`."""
        ev, op = self.ev, e.attrs[0]
        moving = axis if axis is not None else self.schedule.vector

        def one(p: Position, total: str) -> None:
            if id(e) in self.kept:
                ev.store(0, self.kept[id(e)], ev.named(e.args[0], p), p)
            made = self.ev.accumulated(op, Value(total, e.dtype), e.args[0], p)
            self.w.do(f"{total} = {made.text};")

        if not count or moving is None:
            for p, total in zip(positions, totals):
                with ev.scope():
                    one(p, total)
            return
        with self.w.loop(LANE, count), ev.scope():
            for p, total in zip(positions, totals):
                one(p.plus(moving, LANE), f"{total}[{LANE}]")

    def _horizontal(
        self,
        e: Expr,
        axis: Axis,
        places: dict[Axis, Place],
        positions: list[Position],
        totals: list[str],
        width: int,
    ) -> None:
        """The innermost loop of a reduction along its own contiguous axis, and what remains of it."""
        name = self.names[axis]
        whole, rest = divmod(axis.size, width)

        def at(place: Place) -> list[Position]:
            return [Position({**p.places, **places, axis: place}) for p in positions]

        if whole == 1:
            self._step_of(e, at(((), 0)), totals, width, axis)
        else:
            with self.w.loop(name, whole * width, 0, width), self.ev.scope():
                self._step_of(e, at(((name,), 0)), totals, width, axis)
        if rest:
            self._step_of(e, at(((), whole * width)), totals, rest, axis)

    def _joined(self, op: str, dtype: str, total: str, width: int) -> str:
        """One number from an array of accumulators."""
        name, kind = self.w.name(_stem(op)), self.dialect.types[dtype].value
        self.w.do(f"{kind} {name} = {total}[0];")
        with self.w.loop(LANE, width, 1):
            made = join(self.dialect, op, Value(name, dtype), Value(f"{total}[{LANE}]", dtype))
            self.w.do(f"{name} = {made.text};")
        return name


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _stem(op: str) -> str:
    return {"SUM": "sum", "PROD": "product", "MAX": "largest", "MIN": "smallest"}[op]


def _main_stride(e: Expr, axis: Axis) -> int:
    return max((abs(x.attrs.address.coefficient(axis)) for x in walk(e.args[0]) if x.op == "LOAD"), default=0)
