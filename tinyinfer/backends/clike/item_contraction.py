"""A scheduled contraction for work-items: a block of rows by vectors of columns in registers.

Rows beyond the end are computed as copies of the last one and not written, so that every read is one of an
element that exists. Columns beyond the end are zeros where the operand is packed; otherwise they too repeat
the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from tinyinfer.backends.clike.dialect import Dialect
from tinyinfer.backends.clike.expression import Place, Position
from tinyinfer.backends.clike.item_sums import LANES, SumsPrinter
from tinyinfer.backends.clike.items import dimension_counter, item_function, place_items
from tinyinfer.ir.index import Axis, Index
from tinyinfer.kernels.physical import ContractionNest
from tinyinfer.kernels.schedule_gpu import count_of
from tinyinfer.kernels.schedule_gpu_contraction import GpuContractionSchedule


class ItemContractionPrinter(SumsPrinter):
    """Prints one contraction as the kernel `name`."""

    def __init__(self, name: str, nest: ContractionNest, schedule: GpuContractionSchedule, dialect: Dialect):
        super().__init__(name, nest, dialect, schedule.aligned, schedule.images)
        self.schedule = schedule

    def text(self) -> str:
        """The whole kernel."""
        nest, s, w = self.nest, self.schedule, self.w
        rows = tuple((a, s.rows if a is nest.m[-1] else 1) for a in nest.m)
        groups = tuple((a, 1) for a in nest.groups)
        if s.apart:
            rows, groups = rows[-1:], (*groups, *rows[:-1])
        counts = (nest.panels.panel.size, count_of(rows))
        column, row = (dimension_counter(w, d, name) for d, name in ((0, "g0"), (1, "g1")))
        inside = [f"{c} < {n}" for c, n, t in zip((column, row), counts, s.work.total) if t > n]
        if s.split > 1:
            w.do("const int t = (int)get_local_id(2);")
            column, row = (self._clamped(c, n, t) for c, n, t in zip((column, row), counts, s.work.total))
        elif inside:
            w.do(f"if (!({' && '.join(inside)})) return;")
            inside = []
        p = Position({nest.panels.panel: ((column,), 0), nest.panels.lane: ((), 0)})
        if groups:
            # groups of work-items are as deep along this dimension as the team
            w.do(f"const {w.index} g2 = ({w.index})get_group_id(2);")
        p = place_items(w, p, self.names, groups, "g2")
        p = place_items(w, p, self.names, rows, row)
        positions, written = self._rows(p)
        sums = self._sums(positions)
        if s.split > 1:
            self._join(sums)
            inside = ["t == 0", *inside]
        with w.block(f"if ({' && '.join(inside)})") if inside else nullcontext(), self.ev.frame():
            self._epilogue(positions, written, sums, column)
        return item_function(self.dialect, self.name, self.dtypes, s.work, w, s.images)

    def _clamped(self, counter: str, count: int, total: int) -> str:
        if count == total:
            return counter
        self.w.do(f"const {self.w.index} {counter}_ = min({counter}, ({self.w.index}){count - 1});")
        return f"{counter}_"

    def _rows(self, p: Position) -> tuple[list[Position], list[str]]:
        """The positions of a block's rows, and for each the condition that it exists ("": it does)."""
        s, w = self.schedule, self.w
        if not self.nest.m:
            return [p], [""]
        x = self.nest.m[-1]
        if not x.size % s.rows:
            return [p.moved(x, i) if i else p for i in range(s.rows)], [""] * s.rows
        names, offset = p.places[x]
        start = names[0] if names else str(offset)
        positions, written = [], []
        for i in range(s.rows):
            sure = i < (x.size % s.rows or s.rows)
            if sure:
                positions.append(p.moved(x, i) if i else p)
                written.append("")
                continue
            row = w.constant(w.index, f"min({start} + {i}, ({w.index}){x.size - 1})", "row")
            positions.append(p.at(x, ((row,), 0)))
            written.append(f"{start} + {i} < {x.size}")
        return positions, written

    # ---- the sum

    def _sums(self, rows: Sequence[Position]) -> list[list[str]]:
        """The finished vectors of sums by row and vector."""
        nest, s, w, ev = self.nest, self.schedule, self.w, self.ev
        sums = self.zero_sums(len(rows), s.vectors)
        outer_a, self.inner_a = self.split_index(nest.a.address)
        outer_b, self.inner_b = self.split_index(nest.b.address)
        if not s.images[nest.a.argument]:
            self.row_starts = [w.constant(w.index, ev.index(outer_a, q), "a") for q in rows]
        if s.images[nest.b.argument]:
            self.columns = self._clamped_columns(rows[0])
        else:
            self.b_starts = self._column_starts(outer_b, rows[0])
        self.rows = rows
        with ev.scope():
            self._loops({}, list(nest.k), sums)
        return sums

    def _column_starts(self, outer: Index, p: Position) -> list[str]:
        """Where the vectors of the other operand begin; for unpacked columns with an uneven end, where each
        column is."""
        nest, w, ev = self.nest, self.w, self.ev
        lane = nest.panels.lane
        if nest.packed or not self.columns_left:
            return [
                w.constant(w.index, ev.index(outer, p.at(lane, ((), LANES * v))), "b")
                for v in range(self.schedule.vectors)
            ]
        return [
            w.constant(w.index, ev.index(outer, self._at_column(p, column)), "b")
            for column in self._clamped_columns(p)
        ]

    def _clamped_columns(self, p: Position) -> list[str]:
        """The numbers of a panel's columns where it is not packed and may reach beyond the last one."""
        nest, w, width = self.nest, self.w, self.nest.panels.lane.size
        if nest.packed or not self.columns_left:
            return []
        panel = p.places[nest.panels.panel][0][0]
        last = f"({w.index}){nest.panels.columns - 1}"
        return [w.constant(w.index, f"min({width} * {panel} + {i}, {last})", "column") for i in range(width)]

    def _at_column(self, p: Position, column: str) -> Position:
        panels = self.nest.panels
        return p.at(panels.panel, ((), 0)).at(panels.lane, ((column,), 0))

    def _loops(self, places: dict[Axis, Place], axes: list[Axis], sums: list[list[str]]) -> None:
        nest, s, w = self.nest, self.schedule, self.w
        if not axes:
            self._steps(places, None, 1, sums)
            return
        axis, following = axes[0], axes[1:]
        number = nest.k.index(axis)
        split = s.split if number == s.split_axis else 1
        innermost = not following
        unroll = min(s.unroll, axis.size) if innermost else 1
        whole = axis.size - axis.size % unroll
        start, stop = "0", str(whole)
        if innermost and s.kept:
            stop = self.dialect.trips.format(stop)
        if split > 1:
            part = -(-whole // unroll // split) * unroll
            start = w.constant(w.index, f"t * {part}", "from")
            stop = w.constant(w.index, f"min({start} + {part}, ({w.index}){whole})", "to")
        name = self.names[axis]

        def enter(place: Place, steps: int) -> None:
            if innermost:
                self._steps({**places, axis: place}, axis, steps, sums)
            else:
                self._loops({**places, axis: place}, following, sums)

        if whole == unroll and split == 1:
            with w.block():
                enter(((), 0), unroll)
        elif whole:
            advance = f"{name} += {unroll}" if unroll > 1 else f"++{name}"
            if unroll % LANES == 0:
                self.ev.multiples.add(name)
            with w.block(f"for ({w.index} {name} = {start}; {name} < {stop}; {advance})"):
                enter(((name,), 0), unroll)
        if axis.size > whole:
            with w.block(f"if (t == {split - 1})" if split > 1 else ""):
                enter(((), whole), axis.size - whole)

    def _steps(self, places: dict[Axis, Place], axis: Axis | None, steps: int, sums: list[list[str]]) -> None:
        """`steps` neighbouring steps of the sum along the innermost k axis."""
        k = Position(places)
        with self.ev.frame():
            scalars = [self._scalars(number, k, axis, steps) for number in range(len(self.rows))]
            for step in range(steps):
                at = k.moved(axis, step) if axis is not None and step else k
                vectors = self._vectors(at)
                for row, names in enumerate(sums):
                    for vector, name in zip(vectors, names):
                        self.w.do(f"{name} = {self.multiply_add(scalars[row][step], vector, name)};")

    def _scalars(self, row: int, k: Position, axis: Axis | None, steps: int) -> list[str]:
        """The elements of one row at neighbouring steps."""
        nest, w, ev = self.nest, self.w, self.ev
        kind = self.dialect.types[nest.dtype].value
        if nest.a.guards or self.schedule.images[nest.a.argument]:
            whole = Position({**self.rows[row].places, **k.places})
            steps_at = [whole.moved(axis, i) if axis is not None and i else whole for i in range(steps)]
            texts = [ev.load(nest.a, nest.dtype, q).text for q in steps_at]
            return [t if _is_lane(t) else w.constant(kind, t, "x") for t in texts]
        array = ev.arguments[nest.a.argument]
        place = f"{self.row_starts[row]} + {ev.index(self.inner_a, k)}"
        if axis is not None and steps == LANES and nest.a.address.coefficient(axis) == 1:
            name = w.name("x")
            rest = [c for a, c in nest.a.address.terms if a != axis]
            if (
                self.schedule.aligned[nest.a.argument]
                and not any(c % LANES for c in rest)
                and not nest.a.address.const % LANES
            ):
                w.do(f"const {self.kind} {name} = *(const __global {self.kind} *)({array} + {place});")
            else:
                w.do(f"const {self.kind} {name} = vload{LANES}(0, {array} + {place});")
            return [f"{name}.s{i}" for i in range(steps)]
        texts = []
        for i in range(steps):
            at = k.moved(axis, i) if axis is not None and i else k
            text = f"{array}[{self.row_starts[row]} + {ev.index(self.inner_a, at)}]"
            texts.append(w.constant(kind, text, "x"))
        return texts

    def _vectors(self, k: Position) -> list[str]:
        """The panel's columns at one step, as vectors."""
        nest, w, ev = self.nest, self.w, self.ev
        if self.schedule.images[nest.b.argument]:
            return self._vectors_of_image(k)
        array, offset = ev.arguments[nest.b.argument], ev.index(self.inner_b, k)
        lane = nest.panels.lane
        scale = nest.b.address.coefficient(lane)
        uneven = not nest.packed and bool(self.columns_left)
        if scale == 1 and not uneven:
            result = []
            aligned = self.schedule.aligned[nest.b.argument] and not nest.b.address.const % LANES
            rest = [c for a, c in nest.b.address.terms if a != lane]
            for start in self.b_starts:
                name = w.name("y")
                if aligned and not any(c % LANES for c in rest):
                    read = f"*(const __global {self.kind} *)({array} + {start} + {offset})"
                else:
                    read = f"vload{LANES}(0, {array} + {start} + {offset})"
                w.do(f"const {self.kind} {name} = {read};")
                result.append(name)
            return result
        starts = self.b_starts
        if not uneven:
            starts = [f"{b} + {i * scale}" for b in self.b_starts for i in range(LANES)]
        elements = [f"{array}[{start} + {offset}]" for start in starts]
        return [
            w.constant(self.kind, f"({self.kind})({', '.join(elements[i : i + LANES])})", "y")
            for i in range(0, len(elements), LANES)
        ]

    def _vectors_of_image(self, k: Position) -> list[str]:
        nest, ev, lane = self.nest, self.ev, self.nest.panels.lane
        start = Position({**self.rows[0].places, **k.places})
        vectors = []
        for v in range(self.schedule.vectors):
            at = [
                self._at_column(start, self.columns[LANES * v + i])
                if self.columns
                else start.at(lane, ((), LANES * v + i))
                for i in range(LANES)
            ]
            elements = [ev.load(nest.b, nest.dtype, q).text for q in at]
            names = [text.partition(".")[0] for text in elements]
            if elements == [f"{names[0]}.s{i}" for i in range(LANES)]:
                vectors.append(names[0])
            else:
                vectors.append(self.w.constant(self.kind, f"({self.kind})({', '.join(elements)})", "y"))
        return vectors

    def _join(self, sums: list[list[str]]) -> None:
        """Add up the parts of a split sum; member 0 has the result."""
        s, w = self.schedule, self.w
        x, y, _ = s.work.group
        size, count = x * y, len(sums) * s.vectors
        w.lines.insert(0, f"    __local {self.sum_kind} shared[{s.split // 2 * size * count}];")
        w.do(f"const int item = (int)get_local_id(1) * {x} + (int)get_local_id(0);")
        self.join(sums, s.split, size, "item", "shared", "t")

    # ---- the end

    def _epilogue(
        self, rows: Sequence[Position], written: Sequence[str], sums: list[list[str]], column: str
    ) -> None:
        width = self.nest.panels.lane.size
        if not self.columns_left:
            self._write(rows, written, sums, width)
            return
        if self.nest.panels.panel.size == 1:
            self._write(rows, written, sums, self.columns_left)
            return
        with self.w.block(f"if ({column} < {self.nest.panels.panel.size - 1})"), self.ev.frame():
            self._write(rows, written, sums, width)
        with self.w.block("else"), self.ev.frame():
            self._write(rows, written, sums, self.columns_left)

    def _write(
        self, rows: Sequence[Position], written: Sequence[str], sums: list[list[str]], columns: int
    ) -> None:
        for p, condition, names in zip(rows, written, sums):
            with self.w.block(f"if ({condition})" if condition else ""), self.ev.frame():
                self.write(p, names, columns)


def _is_lane(text: str) -> bool:
    """Whether a text is an element of a named vector."""
    name, dot, lane = text.partition(".s")
    return bool(dot) and name.isidentifier() and lane.isdigit()
