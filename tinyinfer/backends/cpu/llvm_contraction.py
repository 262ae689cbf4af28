"""A scheduled contraction as LLVM text: register tiles, and the loops over tiles, panels and blocks around
them.

Each combination of full or remainder rows and full or remainder columns is a function of its own with literal
bounds; the kernel decodes its chunk and calls them. Inside a tile the accumulators start in stack slots,
which LLVM's first pass turns into registers.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from tinyinfer.backends.cpu.llvm_arithmetic import arithmetic
from tinyinfer.backends.cpu.llvm_expression import Evaluator, Place, Position, tail_mask
from tinyinfer.backends.cpu.llvm_writer import Value, Writer
from tinyinfer.ir.index import Axis
from tinyinfer.kernels.expression import Expr, walk
from tinyinfer.kernels.physical import ACCUMULATOR, ContractionNest
from tinyinfer.kernels.schedule import ContractionSchedule
from tinyinfer.kernels.transcendental import expand_all


@dataclass(frozen=True)
class _Variant:
    """One tile function: rows `height × width`, `vectors` of which the last has `tail` columns (0: all)."""

    height: int
    width: int
    vectors: int
    tail: int

    @property
    def suffix(self) -> str:
        return f"{self.height}x{self.width}x{self.vectors}" + (f"t{self.tail}" if self.tail else "")


class ContractionPrinter:
    """Prints one kernel. `name` is the exported symbol, with the C signature of runtime.plan.KernelSource."""

    def __init__(self, name: str, nest: ContractionNest, schedule: ContractionSchedule):
        self.name, self.nest, self.schedule = name, nest, schedule
        self.epilogue = expand_all(nest.epilogue)
        self.dtypes = nest.physical.nest.dtypes
        self.dtype = nest.dtype
        self.count = len(self.dtypes)
        self.declarations: set[str] = set()
        self.y = nest.m[-2] if len(nest.m) > 1 else None
        self.x = nest.m[-1] if nest.m else None
        self.outer_m = nest.m[:-2]
        self.parameters: list[Axis] = [*nest.groups, *nest.m, nest.panels.panel]

    def text(self) -> str:
        """The whole module."""
        functions = [self._tile(v) for v in self._variants()]
        functions.append(self._kernel())
        return "\n".join([*sorted(self.declarations), *functions])

    # ---- which tiles there are

    def _row_variants(self) -> list[tuple[int, int]]:
        """(height, width) of the full tile and of the remainders."""
        s = self.schedule
        heights = {s.tile_y: None}
        widths = {s.tile_x: None}
        if self.y is not None and self.y.size % s.tile_y:
            heights[self.y.size % s.tile_y] = None
        if self.x is not None and self.x.size % s.tile_x:
            widths[self.x.size % s.tile_x] = None
        return [(h, w) for h in heights for w in widths]

    def _column_variants(self) -> list[tuple[int, int]]:
        """(vectors, tail) of the full panel and of the last one."""
        panels, lanes = self.nest.panels, self.schedule.lanes
        full = (self.schedule.vectors, 0)
        rest = panels.columns % panels.lane.size
        if not rest:
            return [full]
        last = (ceil(rest / lanes), rest % lanes)
        return [full, last] if panels.columns > panels.lane.size else [last]

    def _variants(self) -> list[_Variant]:
        return [_Variant(h, w, v, t) for v, t in self._column_variants() for h, w in self._row_variants()]

    # ---- one tile

    def _tile(self, v: _Variant) -> str:
        w = Writer(self.schedule.lanes)
        evaluator = Evaluator(w, [f"%p{i}" for i in range(self.count)], self.dtypes, [self.epilogue])
        places: dict[Axis, Place] = {a: (f"%x{i}", 0) for i, a in enumerate(self.parameters)}
        lane = self.nest.panels.lane
        places[lane] = (None, 0)
        rows = [(dy, dx) for dy in range(v.height) for dx in range(v.width)]
        kind = w.type(self.dtype, True)
        slots = {(r, j): w.alloca(kind) for r in range(len(rows)) for j in range(v.vectors)}
        for slot in slots.values():
            w.do(f"store {kind} zeroinitializer, ptr {slot}, align 64")
        self._k_loops(w, evaluator, Position(places), v, rows, slots, list(self.nest.k))
        self._epilogue(w, evaluator, Position(places, lane), v, rows, slots)
        self.declarations |= w.declarations
        pointers = ", ".join(f"ptr noalias %p{i}" for i in range(self.count))
        axes = "".join(f", i64 %x{i}" for i in range(len(self.parameters)))
        return w.function(f"define internal void @tile_{v.suffix}({pointers}{axes}) #0")

    def _row(self, p: Position, row: tuple[int, int]) -> Position:
        if self.y is not None and row[0]:
            p = p.moved(self.y, row[0])
        if self.x is not None and row[1]:
            p = p.moved(self.x, row[1])
        return p

    def _k_loops(
        self, w: Writer, ev: Evaluator, p: Position, v: _Variant, rows: list, slots: dict, axes: list[Axis]
    ) -> None:
        """Loops over the k axes, outer to inner; small inner axes are unrolled whole, the innermost loop by
        `unroll`."""
        inside = 1
        for a in axes:
            inside *= a.size
        if inside <= 3 * self.schedule.unroll or not axes:
            self._steps(w, ev, p, v, rows, slots, axes)
            return
        head, rest = axes[0], axes[1:]
        below = inside // head.size
        if below >= self.schedule.unroll:
            with w.loop(0, head.size) as counter, ev.scope():
                self._k_loops(w, ev, p.at(head, (counter, 0)), v, rows, slots, rest)
            return
        unroll = max(1, self.schedule.unroll // below)
        main = head.size // unroll * unroll
        with w.loop(0, main, unroll) as counter, ev.scope():
            self._steps(w, ev, p.at(head, (counter, 0)), v, rows, slots, rest, (head, unroll))
        if main < head.size:
            with ev.scope():
                self._steps(w, ev, p.at(head, (None, main)), v, rows, slots, rest, (head, head.size - main))

    def _steps(
        self,
        w: Writer,
        ev: Evaluator,
        p: Position,
        v: _Variant,
        rows: list,
        slots: dict,
        axes: list[Axis],
        unrolled: tuple[Axis, int] | None = None,
    ) -> None:
        """Straight-line multiply-adds over all combinations of `axes`, and of `unrolled` steps of its
        axis."""
        kind = w.type(self.dtype, True)
        positions = [p]
        if unrolled is not None:
            positions = [p.moved(unrolled[0], i) for i in range(unrolled[1])]
        for a in axes:
            positions = [q.at(a, (None, i)) for q in positions for i in range(a.size)]
        sums = {key: w.emit(f"load {kind}, ptr {slot}, align 64") for key, slot in slots.items()}
        lane = self.nest.panels.lane
        shared = self._rows_share_loads(axes, unrolled)
        for q in positions:
            with ev.scope():
                if shared:
                    ev.hide_pointer(self.nest.a, q)
                columns = []
                for j in range(v.vectors):
                    mask = (
                        tail_mask(w.lanes, v.tail)
                        if not self.nest.packed and v.tail and j == v.vectors - 1
                        else None
                    )
                    at = q.at(lane, (None, j * w.lanes)).lanes_along(lane, mask)
                    columns.append(ev.load(self.nest.b, self.dtype, at).text)
                    if self.schedule.prefetch:
                        ev.prefetch(self.nest.b, at.moved(self.nest.panels.panel, 1))
                for r, row in enumerate(rows):
                    scalar = ev.load(self.nest.a, self.dtype, self._row(q, row))
                    spread = w.splat(scalar).text
                    for j in range(v.vectors):
                        sums[r, j] = self._multiply_add(w, kind, spread, columns[j], sums[r, j])
        for key, slot in slots.items():
            w.do(f"store {kind} {sums[key]}, ptr {slot}, align 64")

    def _multiply_add(self, w: Writer, kind: str, a: str, b: str, total: str) -> str:
        if self.dtype == "float32":
            return w.call(
                f"llvm.fmuladd.v{w.lanes}f32", kind, f"{kind} {a}", f"{kind} {b}", f"{kind} {total}"
            )
        return w.emit(f"add {kind} {w.emit(f'mul {kind} {a}, {b}')}, {total}")

    def _rows_share_loads(self, axes: list[Axis], unrolled: tuple[Axis, int] | None) -> bool:
        """Whether different steps read the same scalar for different rows, as overlapping windows do.

        LLVM would keep all of them in registers between the steps, and spill the accumulators for it.
        """
        if self.x is None:
            return False
        step = abs(self.nest.a.address.coefficient(self.x))
        inner = [*axes, *([unrolled[0]] if unrolled is not None else [])]
        moves = [abs(self.nest.a.address.coefficient(a)) for a in inner]
        return step > 0 and any(
            m and m % step == 0 and m // step < self.schedule.tile_x or m and step % m == 0 for m in moves
        )

    def _epilogue(self, w: Writer, ev: Evaluator, p: Position, v: _Variant, rows: list, slots: dict) -> None:
        kind = w.type(self.dtype, True)
        lane = self.nest.panels.lane
        slot_expression: Expr | None = next(
            (e for e in walk(self.epilogue) if e.op == "SLOT" and e.attrs == ACCUMULATOR), None
        )
        for j in range(v.vectors):
            mask = tail_mask(w.lanes, v.tail) if v.tail and j == v.vectors - 1 else None
            for r, row in enumerate(rows):
                at = self._row(p.at(lane, (None, j * w.lanes)), row).lanes_along(lane, mask)
                finished = w.emit(f"load {kind}, ptr {slots[r, j]}, align 64")
                value = Value(finished, self.dtype, True)
                if slot_expression is not None:
                    result = _with_slot(ev, self.epilogue, slot_expression, value, at)
                    ev.store(0, self.nest.physical.nest.store, result, at)

    # ---- the kernel around the tiles

    def _kernel(self) -> str:
        w, s, nest = Writer(self.schedule.lanes), self.schedule, self.nest
        pointers = []
        for i in range(self.count):
            place = w.emit(f"getelementptr ptr, ptr %arguments, i64 {i}")
            pointers.append(w.emit(f"load ptr, ptr {place}"))
        panels = nest.panels.panel.size
        tiles_x = ceil(self.x.size / s.tile_x) if self.x is not None else 1
        tiles_y = ceil(self.y.size / s.tile_y) if self.y is not None else 1
        units = tiles_x * tiles_y
        for a in self.outer_m:
            units *= a.size
        rest, column_block = _divide(w, "%chunk", s.column_blocks)
        group, row_block = _divide(w, rest, s.row_blocks)
        values: dict[Axis, str] = {}
        for a in reversed(nest.groups):
            group, values[a] = _divide(w, group, a.size)
        first_panel, last_panel = _range(w, column_block, panels, s.column_blocks)
        first_unit, last_unit = _range(w, row_block, units, s.row_blocks)
        loops = [(first_panel, last_panel), (first_unit, last_unit)]
        if s.rows_outside:
            loops.reverse()
        with w.loop(*loops[0]) as outer, w.loop(*loops[1]) as inner:
            panel, unit = (inner, outer) if s.rows_outside else (outer, inner)
            values[nest.panels.panel] = panel
            above, tile_x = _divide(w, unit, tiles_x)
            above, tile_y = _divide(w, above, tiles_y)
            for a in reversed(self.outer_m):
                above, values[a] = _divide(w, above, a.size)
            if self.x is not None:
                values[self.x] = w.emit(f"mul nuw nsw i64 {tile_x}, {s.tile_x}")
            if self.y is not None:
                values[self.y] = w.emit(f"mul nuw nsw i64 {tile_y}, {s.tile_y}")
            self._dispatch(w, pointers, values, tile_y, tile_x, tiles_y, tiles_x, panel, panels)
        return w.function(f"define void @{self.name}(ptr %arguments, i64 %chunk) #0")

    def _dispatch(
        self,
        w: Writer,
        pointers: list[str],
        values: dict[Axis, str],
        tile_y: str,
        tile_x: str,
        tiles_y: int,
        tiles_x: int,
        panel: str,
        panels: int,
    ) -> None:
        """Call the tile function for this place: remainder rows and columns have their own."""
        s = self.schedule
        arguments = ", ".join(
            [*(f"ptr {q}" for q in pointers), *(f"i64 {values[a]}" for a in self.parameters)]
        )
        rest_y = self.y.size % s.tile_y if self.y is not None else 0
        rest_x = self.x.size % s.tile_x if self.x is not None else 0
        columns = self._column_variants()
        w.count += 1
        tag = w.count

        def choose(conditions: list[tuple[str, str, object, object]], picked: list, depth: str) -> None:
            if not conditions:
                (height, width, (vectors, tail)) = picked
                v = _Variant(height, width, vectors, tail)
                w.do(f"call void @tile_{v.suffix}({arguments})")
                w.do(f"br label %called{tag}")
                return
            (value, last, full, remainder), following = conditions[0], conditions[1:]
            if remainder is None:
                choose(following, [*picked, full], depth)
                return
            is_last = w.emit(f"icmp eq i64 {value}, {last}")
            w.do(f"br i1 {is_last}, label %rest{tag}{depth}, label %full{tag}{depth}")
            w.label(f"rest{tag}{depth}")
            choose(following, [*picked, remainder], depth + "r")
            w.label(f"full{tag}{depth}")
            choose(following, [*picked, full], depth + "f")

        choose(
            [
                (tile_y, str(tiles_y - 1), s.tile_y, rest_y or None),
                (tile_x, str(tiles_x - 1), s.tile_x, rest_x or None),
                (panel, str(panels - 1), columns[0], columns[1] if len(columns) > 1 else None),
            ],
            [],
            "",
        )
        w.label(f"called{tag}")


def _with_slot(ev: Evaluator, root: Expr, slot: Expr, value: Value, p: Position) -> Value:
    """The epilogue of one accumulator: what depends on it is written anew, loads are shared between
    accumulators."""
    dependent: set[int] = {id(slot)}
    for e in walk(root):
        if any(id(a) in dependent for a in e.args):
            dependent.add(id(e))
    local: dict[int, Value] = {id(slot): value}

    for e in walk(root):
        if id(e) not in local:
            if id(e) in dependent:
                local[id(e)] = arithmetic(
                    ev.w, e, [local[id(a)] if id(a) in local else ev.value(a, p) for a in e.args]
                )
    return local[id(root)] if id(root) in local else ev.value(root, p)


def _divide(w: Writer, value: str, divisor: int) -> tuple[str, str]:
    """Quotient and remainder of a register by a literal."""
    if divisor == 1:
        return value, "0"
    return w.emit(f"udiv i64 {value}, {divisor}"), w.emit(f"urem i64 {value}, {divisor}")


def _range(w: Writer, block: str, total: int, blocks: int) -> tuple[str, str]:
    """The part of `0 … total` that belongs to a block out of `blocks`: parts differ by at most one."""
    first = w.emit(f"udiv i64 {w.emit(f'mul nuw nsw i64 {block}, {total}')}, {blocks}")
    following = w.emit(f"add nuw nsw i64 {block}, 1")
    last = w.emit(f"udiv i64 {w.emit(f'mul nuw nsw i64 {following}, {total}')}, {blocks}")
    return first, last
