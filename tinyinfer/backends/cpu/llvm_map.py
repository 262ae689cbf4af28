"""A scheduled map kernel as LLVM text: loops over rows and columns, row statistics, unrolled tiles,
reductions.

See kernels.schedule_map for what rows, columns and tiles are. Loops whose axis is cut into vectors or tiles
are written as a main loop and a remainder, so that inner code never branches.
"""

from __future__ import annotations

from collections.abc import Callable

from tinyinfer.backends.cpu.llvm_arithmetic import suffix
from tinyinfer.backends.cpu.llvm_contraction import _divide, _range
from tinyinfer.backends.cpu.llvm_expression import Evaluator, Place, Position, tail_mask
from tinyinfer.backends.cpu.llvm_writer import Value, Writer, is_float, is_signed, literal
from tinyinfer.ir.index import Axis
from tinyinfer.ir.ops import reduce_identity
from tinyinfer.kernels.access import walk_with_indices
from tinyinfer.kernels.expression import Expr, walk
from tinyinfer.kernels.kept import keep_in_result
from tinyinfer.kernels.nest import LoopNest
from tinyinfer.kernels.schedule_map import (
    MapSchedule,
    horizontal_axis,
    is_straight,
    loop_units,
    stride_of,
)
from tinyinfer.kernels.transcendental import expand_all

REDUCE_VECTORS = 4
"""Independent accumulators of a horizontal reduction, to hide the latency of its adds."""


class MapPrinter:
    """Prints one map kernel. `name` is the exported symbol, with the C signature of
    runtime.plan.KernelSource."""

    def __init__(self, name: str, nest: LoopNest, schedule: MapSchedule):
        self.name, self.schedule = name, schedule
        self.nest, self.kept = keep_in_result(
            LoopNest(nest.axes, nest.store, expand_all(nest.body), nest.dtypes), schedule
        )
        self.count = len(nest.dtypes)

    def text(self) -> str:
        """The whole module."""
        self._body()
        pointers = ", ".join(f"ptr noalias %p{i}" for i in range(self.count))
        inner = self.w.function(f"define internal void @body({pointers}, i64 %first, i64 %last) #0")
        w, s = Writer(self.schedule.lanes), self.schedule
        loaded = []
        for i in range(self.count):
            place = w.emit(f"getelementptr ptr, ptr %arguments, i64 {i}")
            loaded.append(w.emit(f"load ptr, ptr {place}"))
        first, last = _range(w, "%chunk", self.parallel_units(), s.chunks)
        w.do(f"call void @body({', '.join(f'ptr {q}' for q in loaded)}, i64 {first}, i64 {last})")
        outer = w.function(f"define void @{self.name}(ptr %arguments, i64 %chunk) #0")
        return "\n".join([*sorted(self.w.declarations), inner, outer])

    def units(self, axis: Axis) -> int:
        s = self.schedule
        return loop_units(axis, s.vector, s.vectors * s.lanes, s.tile_axis, s.tile)

    def parallel_units(self) -> int:
        total = 1
        for a in (*self.schedule.rows, *self.schedule.columns)[: self.schedule.parallel]:
            total *= self.units(a)
        return total

    # ---- loops

    def _body(self) -> None:
        s = self.schedule
        self.w = w = Writer(s.lanes)
        self.ev = ev = Evaluator(w, [f"%p{i}" for i in range(self.count)], self.nest.dtypes, [self.nest.body])
        self.reduces = [e for e in walk_with_indices(self.nest.body) if e.op == "REDUCE"]
        full = frozenset(self.nest.axes)
        self.statistics = [e for e in self.reduces if not full <= ev.free[id(e)]] if s.columns else []
        self.looped = [
            e for e in self.reduces if e not in self.statistics and (s.vector is None or not is_straight(e))
        ]
        parallel = list((*s.rows, *s.columns)[: s.parallel])
        serial_rows = [a for a in s.rows if a not in parallel]
        with w.loop("%first", "%last") as flat, ev.scope():
            self._decode(flat, parallel, serial_rows)

    def _decode(self, flat: str, parallel: list[Axis], serial: list[Axis]) -> None:
        """Positions of the parallel axes from the flat counter; axes that are cut branch to their
        remainder."""
        w, rest = self.w, flat
        places: dict[Axis, Place] = {}
        cut: list[tuple[Axis, str]] = []
        for a in reversed(parallel):
            rest, unit = _divide(w, rest, self.units(a)) if a is not parallel[0] else ("", rest)
            places[a] = (unit, 0)
            if a in (self.schedule.vector, self.schedule.tile_axis):
                cut.append((a, unit))
        self._enter_cut(Position(places), cut, {}, serial)

    def _enter_cut(
        self, p: Position, cut: list[tuple[Axis, str]], sizes: dict[Axis, int], serial: list[Axis]
    ) -> None:
        if not cut:
            self._row_loops(p, serial, sizes)
            return
        w = self.w
        (axis, unit), following = cut[0], cut[1:]
        step = self._step(axis)
        whole, rest = divmod(axis.size, step)
        start = w.emit(f"mul nuw nsw i64 {unit}, {step}")
        at = p.at(axis, (start, 0))
        if not rest or not whole:
            self._enter_cut(at, following, {**sizes, axis: rest if not whole else step}, serial)
            return
        w.count += 1
        tag = w.count
        w.do(f"br i1 {w.emit(f'icmp slt i64 {unit}, {whole}')}, label %whole{tag}, label %rest{tag}")
        for label, size in (("whole", step), ("rest", rest)):
            w.label(f"{label}{tag}")
            with self.ev.scope():
                self._enter_cut(at, following, {**sizes, axis: size}, serial)
            w.do(f"br label %joined{tag}")
        w.label(f"joined{tag}")

    def _step(self, axis: Axis) -> int:
        s = self.schedule
        return s.vectors * s.lanes if axis is s.vector else s.tile

    def _loops(
        self,
        p: Position,
        axes: list[Axis],
        sizes: dict[Axis, int],
        inside: Callable[[Position, dict[Axis, int]], None],
    ) -> None:
        """Loops over `axes`, outer to inner, around `inside`; cut axes get a main loop and a remainder."""
        if not axes:
            inside(p, sizes)
            return
        w, axis, following = self.w, axes[0], axes[1:]
        s = self.schedule
        if axis not in (s.vector, s.tile_axis):
            with w.loop(0, axis.size) as counter, self.ev.scope():
                self._loops(p.at(axis, (counter, 0)), following, sizes, inside)
            return
        step = self._step(axis)
        whole, rest = divmod(axis.size, step)
        if whole == 1:
            with self.ev.scope():
                self._loops(p.at(axis, (None, 0)), following, {**sizes, axis: step}, inside)
        elif whole:
            with w.loop(0, whole * step, step) as counter, self.ev.scope():
                self._loops(p.at(axis, (counter, 0)), following, {**sizes, axis: step}, inside)
        if rest:
            with self.ev.scope():
                self._loops(p.at(axis, (None, whole * step)), following, {**sizes, axis: rest}, inside)

    def _row_loops(self, p: Position, serial: list[Axis], sizes: dict[Axis, int]) -> None:
        self._loops(p, serial, sizes, self._row)

    def _row(self, p: Position, sizes: dict[Axis, int]) -> None:
        s = self.schedule
        if not self.statistics:
            self._write(p, sizes)
            return
        positions = self._positions(p, sizes)
        for e in self.statistics:
            distinct = {self.ev._key(e, q): q for q in positions}
            self._looped_reduce(e, list(distinct.values()))
        for e in walk_with_indices(self.nest.body):
            if e.args and self.ev.free[id(e)] and self.ev.free[id(e)] <= frozenset(s.rows):
                for q in positions:
                    self.ev.value(e, q)
        self._loops(p, list(s.columns), sizes, self._write)

    def _positions(self, p: Position, sizes: dict[Axis, int]) -> list[Position]:
        """The positions that one step computes together: tile × vectors, the last vector masked in a
        remainder."""
        s = self.schedule
        tiles = (
            [p.moved(s.tile_axis, t) if t else p for t in range(sizes.get(s.tile_axis, 1))]
            if s.tile_axis is not None
            else [p]
        )
        if s.vector not in sizes:
            # no lanes, or lanes along a column while a row is being prepared
            return tiles
        columns = sizes[s.vector]
        result = []
        for q in tiles:
            for start in range(0, columns, s.lanes):
                left = columns - start
                mask = tail_mask(s.lanes, left) if left < s.lanes else None
                result.append(q.moved(s.vector, start).lanes_along(s.vector, mask))
        return result

    def _turn_loads(self, p: Position, sizes: dict[Axis, int], positions: list[Position]) -> None:
        """Load a block along the tile's axis and turn it over in registers: one vector of lanes for each
        position."""
        s, ev = self.schedule, self.ev
        assert s.vector is not None and s.tile_axis is not None
        columns, rows = min(sizes[s.vector], s.lanes), sizes[s.tile_axis]
        mask = tail_mask(s.lanes, rows) if rows < s.lanes else None
        for e in walk_with_indices(self.nest.body):
            if (
                e.op != "LOAD"
                or e.attrs.guards
                or stride_of(e, s.tile_axis, ev.free) != 1
                or stride_of(e, s.vector, ev.free) in (0, 1, None)
            ):
                continue
            block = [
                self.w.splat(
                    ev.load(e.attrs, e.dtype, p.moved(s.vector, j).lanes_along(s.tile_axis, mask))
                ).text
                for j in range(columns)
            ]
            block += [block[-1]] * (s.lanes - columns)
            for q, row in zip(positions, transpose(self.w, block, e.dtype)):
                ev.tables[-1][ev._key(e, q)] = Value(row, e.dtype, True)

    def _write(self, p: Position, sizes: dict[Axis, int]) -> None:
        positions = self._positions(p, sizes)
        if self.schedule.transposed:
            self._turn_loads(p, sizes, positions)
        for e in self.reduces:
            if e in self.looped:
                self._looped_reduce(e, positions)
            elif e not in self.statistics:
                self._straight_reduce(e, positions)
        values = [self.ev.value(self.nest.body, q) for q in positions]
        for q, value in zip(positions, values):
            self.ev.store(0, self.nest.store, value, q)

    # ---- reductions

    def _straight_reduce(self, e: Expr, positions: list[Position]) -> None:
        """All steps of a short reduction for several positions at once; results go into the value table.

        Steps are outside and positions inside, so that few of the values that neighbours share are alive at a
        time.
        """
        op, axes = e.attrs
        totals: list[Value | None] = [None] * len(positions)
        steps: list[dict[Axis, Place]] = [{}]
        for a in axes:
            steps = [{**step, a: (None, i)} for step in steps for i in range(a.size)]
        for step in steps:
            for number, p in enumerate(positions):
                q = Position({**p.places, **step}, p.lane, p.mask)
                totals[number] = self._accumulate(op, totals[number], e.args[0], q)
        for p, total in zip(positions, totals):
            assert total is not None
            self.ev.tables[-1][self.ev._key(e, p)] = total

    def _accumulate(self, op: str, total: Value | None, body: Expr, p: Position) -> Value:
        w = self.w
        if total is not None and op == "SUM" and body.op == "MUL" and is_float(body.dtype):
            a, b = (self.ev.value(x, p) for x in body.args)
            vector = a.vector or b.vector or total.vector
            if vector:
                a, b, total = w.splat(a), w.splat(b), w.splat(total)
            kind = w.type(body.dtype, vector)
            name = f"llvm.fma.{suffix(w, body.dtype, vector)}"
            return Value(w.call(name, kind, w.typed(a), w.typed(b), w.typed(total)), body.dtype, vector)
        value = self.ev.value(body, p)
        return value if total is None else self._combine(op, total, value)

    def _combine(self, op: str, a: Value, b: Value) -> Value:
        w = self.w
        vector = a.vector or b.vector
        if vector:
            a, b = w.splat(a), w.splat(b)
        kind, dtype = w.type(a.dtype, vector), a.dtype
        tail = suffix(w, dtype, vector)
        if op in ("SUM", "PROD"):
            instruction = {"SUM": "add", "PROD": "mul"}[op]
            if dtype == "bool":
                instruction = {"SUM": "or", "PROD": "and"}[op]
            return Value(
                w.emit(f"{'f' if is_float(dtype) else ''}{instruction} {kind} {a.text}, {b.text}"),
                dtype,
                vector,
            )
        if is_float(dtype):
            name = "llvm.maximum" if op == "MAX" else "llvm.minimum"
            return Value(w.call(f"{name}.{tail}", kind, w.typed(a), w.typed(b)), dtype, vector)
        if dtype == "bool":
            return Value(w.emit(f"{'or' if op == 'MAX' else 'and'} {kind} {a.text}, {b.text}"), dtype, vector)
        name = f"llvm.{'s' if is_signed(dtype) else 'u'}{op.lower()}.{tail}"
        return Value(w.call(name, kind, w.typed(a), w.typed(b)), dtype, vector)

    def _looped_reduce(self, e: Expr, positions: list[Position]) -> None:
        """A long reduction for several positions at once; results go into the value table."""
        w, ev = self.w, self.ev
        op, axes = e.attrs
        lane_free = positions[0].lane is not None and positions[0].lane in ev.free[id(e)]
        along = None if lane_free else horizontal_axis(e, ev.free)
        axes = tuple(sorted(axes, key=lambda a: (a is along, -_main_stride(e, a))))
        vector = lane_free or along is not None
        kind = w.type(e.dtype, vector)
        copies = 1
        if along is not None:
            positions = (
                [positions[0].lanes_along(None)]
                if not any(p.places != positions[0].places for p in positions)
                else [p.lanes_along(None) for p in positions]
            )
            copies = max(1, min(REDUCE_VECTORS, along.size // w.lanes))
        identity = reduce_identity(op, e.dtype)
        first = w.splat_literal(identity, e.dtype) if vector else literal(identity, e.dtype)
        slots = [[w.alloca(kind) for _ in range(copies)] for _ in positions]
        for group in slots:
            for slot in group:
                w.do(f"store {kind} {first}, ptr {slot}, align 64")

        def steps(q: Position, slot: str, mask: str | None) -> None:
            total = Value(w.emit(f"load {kind}, ptr {slot}, align 64"), e.dtype, vector)
            if id(e) in self.kept:
                ev.store(0, self.kept[id(e)], ev.value(e.args[0], q), q)
            made = self._accumulate(op, total, e.args[0], q)
            if mask is not None:
                made = w.splat(made)
                made = Value(
                    w.emit(f"select <{w.lanes} x i1> {mask}, {kind} {made.text}, {kind} {total.text}"),
                    e.dtype,
                    True,
                )
            elif vector:
                made = w.splat(made)
            w.do(f"store {kind} {made.text}, ptr {slot}, align 64")

        def loops(places: dict[Axis, Place], left: list[Axis]) -> None:
            if not left:
                for p, group in zip(positions, slots):
                    steps(Position({**p.places, **places}, p.lane, p.mask), group[0], None)
                return
            axis = left[0]
            if axis is along:
                self._horizontal(axis, copies, places, positions, slots, steps)
                return
            with w.loop(0, axis.size) as counter, ev.scope():
                loops({**places, axis: (counter, 0)}, left[1:])

        loops({}, list(axes))
        for p, group in zip(positions, slots):
            total = Value(w.emit(f"load {kind}, ptr {group[0]}, align 64"), e.dtype, vector)
            for slot in group[1:]:
                total = self._combine(
                    op, total, Value(w.emit(f"load {kind}, ptr {slot}, align 64"), e.dtype, vector)
                )
            if along is not None:
                total = self._across(op, total)
            ev.tables[-1][ev._key(e, p)] = total

    def _horizontal(
        self,
        axis: Axis,
        copies: int,
        places: dict[Axis, Place],
        positions: list[Position],
        slots: list[list[str]],
        steps,
    ) -> None:
        """The innermost loop of a reduction along its own vectorised axis: main loop, single vectors, masked
        tail."""
        w, ev = self.w, self.ev
        width = copies * w.lanes
        whole = axis.size // width * width

        def one(start: Place, count: int, mask: str | None) -> None:
            for p, group in zip(positions, slots):
                for i in range(count):
                    place = (start[0], start[1] + i * w.lanes)
                    steps(
                        Position({**p.places, **places, axis: place}, axis, mask), group[i % len(group)], mask
                    )

        if whole:
            with w.loop(0, whole, width) as counter, ev.scope():
                one((counter, 0), copies, None)
        for start in range(whole, axis.size, w.lanes):
            left = axis.size - start
            with ev.scope():
                one((None, start), 1, tail_mask(w.lanes, left) if left < w.lanes else None)

    def _across(self, op: str, total: Value) -> Value:
        """One number from all lanes."""
        w, dtype = self.w, total.dtype
        total = w.splat(total)
        tail = suffix(w, dtype, True)
        scalar = w.type(dtype, False)
        if is_float(dtype) and op in ("SUM", "PROD"):
            name = f"llvm.vector.reduce.{'fadd' if op == 'SUM' else 'fmul'}.{tail}"
            vector = w.type(dtype, True)
            w.declarations.add(f"declare {scalar} @{name}({scalar}, {vector})")
            start = literal(0.0 if op == "SUM" else 1.0, dtype)
            return Value(
                w.emit(f"call reassoc {scalar} @{name}({scalar} {start}, {w.typed(total)})"), dtype, False
            )
        if is_float(dtype):
            name = f"llvm.vector.reduce.{'fmaximum' if op == 'MAX' else 'fminimum'}.{tail}"
        elif dtype == "bool":
            name = f"llvm.vector.reduce.{'or' if op in ('SUM', 'MAX') else 'and'}.{tail}"
        elif op in ("SUM", "PROD"):
            name = f"llvm.vector.reduce.{'add' if op == 'SUM' else 'mul'}.{tail}"
        else:
            name = f"llvm.vector.reduce.{'s' if is_signed(dtype) else 'u'}{op.lower()}.{tail}"
        return Value(w.call(name, scalar, w.typed(total)), dtype, False)


def transpose(w: Writer, block: list[str], dtype: str) -> list[str]:
    """The transpose of a square block of vectors, by exchanging ever larger halves of pairs of them."""
    kind, lanes = w.type(dtype, True), w.lanes
    half = 1
    while half < lanes:
        low = ", ".join(f"i32 {i if not i & half else lanes + i - half}" for i in range(lanes))
        high = ", ".join(f"i32 {i + half if not i & half else lanes + i}" for i in range(lanes))
        for i in range(lanes):
            if not i & half:
                a, b = block[i], block[i + half]
                block[i] = w.emit(f"shufflevector {kind} {a}, {kind} {b}, <{lanes} x i32> <{low}>")
                block[i + half] = w.emit(f"shufflevector {kind} {a}, {kind} {b}, <{lanes} x i32> <{high}>")
        half *= 2
    return block


def _main_stride(e: Expr, axis: Axis) -> int:
    return max((abs(x.attrs.address.coefficient(axis)) for x in walk(e.args[0]) if x.op == "LOAD"), default=0)
