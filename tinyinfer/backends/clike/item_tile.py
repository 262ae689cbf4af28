"""A scheduled contraction whose group of work-items stages tiles of the operands in local memory.

Rows and columns beyond the end are copies of the last one, which are not written; steps beyond the end of the
axis that chunks lie along are zeros in both operands. Everybody reaches every barrier.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tinyinfer.backends.clike.dialect import Dialect
from tinyinfer.backends.clike.expression import Position
from tinyinfer.backends.clike.item_sums import LANES, SumsPrinter
from tinyinfer.backends.clike.items import item_function, place_items
from tinyinfer.ir.index import Index
from tinyinfer.kernels.access import Access
from tinyinfer.kernels.physical import ContractionNest
from tinyinfer.kernels.schedule_gpu_tile import GpuTileSchedule, chunk_axis, chunk_count, row_count

BARRIER = "barrier(CLK_LOCAL_MEM_FENCE);"


@dataclass
class Piece:
    """What one work-item reads of each chunk at a time: `width` neighbours from `start` on, `step` steps
    after the chunk's first one, to element `place` of the operand's tile. `there` is the condition that the
    item has something to read, "" if it always does. `position` is the row's."""

    name: str
    width: int
    start: str
    step: str
    place: str
    there: str
    position: Position


class TilePrinter(SumsPrinter):
    """Prints one tiled contraction as the kernel `name`."""

    def __init__(self, name: str, nest: ContractionNest, schedule: GpuTileSchedule, dialect: Dialect):
        super().__init__(name, nest, dialect, schedule.aligned, schedule.images)
        self.schedule, self.tile = schedule, schedule.tile
        self.inner = chunk_axis(nest)
        self.outer_a, self.inner_a = self.split_index(nest.a.address)
        self.outer_b, self.inner_b = self.split_index(nest.b.address)
        self.chunks = chunk_count(nest, self.tile.depth)
        self.ragged = self.inner.size % self.tile.depth != 0

    def text(self) -> str:
        """The whole kernel."""
        nest, t, w = self.nest, self.tile, self.w
        x, y = t.items
        w.do(f"__local {self.kind} shared[{t.local_vectors}];")
        w.do("const int x = (int)get_local_id(0), y = (int)get_local_id(1);")
        item = f"y * {x} + x"
        if t.split > 1:
            w.do("const int t = (int)get_local_id(2);")
            item = f"t * {x * y} + {item}"
        w.do(f"const int item = {item};")
        p = Position({nest.panels.lane: ((), 0)})
        if nest.groups:
            w.do(f"const {w.index} g2 = ({w.index})get_group_id(2);")
        p = place_items(w, p, self.names, tuple((a, 1) for a in nest.groups), "g2")
        w.do(f"const {w.index} p0 = ({w.index})get_group_id(0) * {t.panels};")
        w.do(f"const {w.index} r0 = ({w.index})get_group_id(1) * {t.height};")
        a, b = self._pieces_of_rows(p), self._pieces_of_columns(p)
        sums = self.zero_sums(t.rows, t.vectors)
        self._chunks(a, b, sums)
        if t.split > 1:
            self._join(sums)
        with self._block("t == 0" if t.split > 1 else ""):
            self._write(p, sums)
        return item_function(
            self.dialect, self.name, self.dtypes, self.schedule.work, w, self.schedule.images
        )

    @contextmanager
    def _block(self, condition: str) -> Iterator[None]:
        """Statements under a condition, if there is one; what is named inside is unknown after."""
        with self.w.block(f"if ({condition})" if condition else ""), self.ev.frame():
            yield

    # ---- what a work-item reads of a chunk

    def _pieces(self, total: int) -> Iterator[tuple[str, str]]:
        """The numbers of the pieces, of `total` a chunk, that an item reads, and the condition that each is
        there."""
        group = self.tile.group
        for first in range(0, total, group):
            number = self.w.constant("int", f"item + {first}" if first else "item", "n")
            yield number, f"{number} < {total}" if first + group > total else ""

    def _pieces_of_rows(self, p: Position) -> list[Piece]:
        """Of the rows' operand: as vectors where its elements lie side by side along the sum's steps."""
        nest, t, w = self.nest, self.tile, self.w
        step = nest.a.address.coefficient(self.inner)
        wide = step == 1 and not nest.a.guards and self.inner.size % LANES == 0
        width = LANES if wide else 1
        across = t.depth // width
        along_rows = bool(nest.m) and abs(nest.a.address.coefficient(nest.m[-1])) == 1 and step != 1
        rows, pieces = row_count(nest), []
        for number, there in self._pieces(t.height * across):
            if along_rows:
                row, at = f"{number} % {t.height}", f"{number} / {t.height}"
            else:
                row, at = f"{number} / {across}", f"{number} % {across}"
            row = w.constant("int", row, "row")
            at = w.constant("int", at if width == 1 else f"({at}) * {width}", "step")
            whole = self._row(p, f"r0 + {row}", rows % t.height != 0 or bool(there))
            start = w.constant(w.index, self._start(self.outer_a, whole, step, at), "a")
            place = w.constant("int", f"({row} * {t.depth} + {at}) / {width}", "to")
            pieces.append(self._piece("u", width, start, at, place, there, whole))
        return pieces

    def _pieces_of_columns(self, p: Position) -> list[Piece]:
        """Of the columns' operand: as vectors where columns lie side by side, and are padded or even."""
        nest, t, w = self.nest, self.tile, self.w
        panels = nest.panels
        step = nest.b.address.coefficient(self.inner)
        beside = nest.b.address.coefficient(panels.lane) == 1
        wide = beside and (nest.packed or not self.columns_left)
        width = LANES if wide else 1
        across = t.panels * LANES // width
        pieces = []
        for number, there in self._pieces(t.depth * across):
            if wide or beside or abs(step) != 1:
                column, at = f"{number} % {across}", f"{number} / {across}"
            else:
                column, at = f"{number} / {t.depth}", f"{number} % {t.depth}"
            column, at = w.constant("int", column, "column"), w.constant("int", at, "step")
            count = panels.panel.size if wide else panels.columns
            inside = f"p0 + {column}" if wide else f"p0 * {LANES} + {column}"
            if panels.panel.size % t.panels or count % across or there:
                inside = f"min({inside}, ({w.index}){count - 1})"
            inside = w.constant(w.index, inside, "column")
            if wide:
                q = p.at(panels.panel, ((inside,), 0))
            else:
                q = p.at(panels.panel, ((), 0)).at(panels.lane, ((inside,), 0))
            start = w.constant(w.index, self._start(self.outer_b, q, step, at), "b")
            place = w.constant("int", f"{at} * {across} + {column}", "to")
            pieces.append(self._piece("v", width, start, at, place, there, q))
        return pieces

    def _piece(
        self, stem: str, width: int, start: str, step: str, place: str, there: str, position: Position
    ) -> Piece:
        name = self.w.name(stem)
        self.w.do(f"{self.kind if width > 1 else self.element} {name} = 0;")
        return Piece(name, width, start, step, place, there, position)

    def _start(self, outer: Index, p: Position, coefficient: int, step: str) -> str:
        text = self.ev.index(outer, p)
        return f"{text} + {coefficient} * {step}" if coefficient else text

    def _row(self, p: Position, number: str, clamped: bool) -> Position:
        """The position of a row among all, the last one if it may be beyond that."""
        nest, w = self.nest, self.w
        if clamped:
            number = f"min({number}, ({w.index}){row_count(nest) - 1})"
        row = w.constant(w.index, number, "row")
        names = {a: f"{self.names[a]}_{row}" for a in nest.m}
        return place_items(w, p, names, tuple((a, 1) for a in nest.m), row)

    # ---- the sum

    def _chunks(self, a: list[Piece], b: list[Piece], sums: list[list[str]]) -> None:
        t, w = self.tile, self.w
        with self._block(""):
            self._read("0", a, b)
        with w.loop("chunk", self.chunks) as chunk, self.ev.frame():
            first = "0"
            if t.buffers > 1:
                first = w.constant("int", f"({chunk} & 1) * {t.chunk_vectors}", "first")
            elif self.chunks > 1:
                w.do(BARRIER)
            second = w.constant("int", f"{first} + {t.height * t.depth // LANES}", "second")
            for operand, pieces in ((first, a), (second, b)):
                self._keep(operand, pieces)
            w.do(BARRIER)
            if self.chunks > 1:
                with self._block(f"{chunk} + 1 < {self.chunks}"):
                    self._read(f"{chunk} + 1", a, b)
            self._multiply(first, second, sums)

    def _read(self, chunk: str, a: list[Piece], b: list[Piece]) -> None:
        """Read an item's pieces of one chunk."""
        nest, t, w = self.nest, self.tile, self.w
        number = w.constant(w.index, chunk, "c")
        steps = tuple((axis, t.depth if axis is self.inner else 1) for axis in nest.k)
        k = place_items(w, Position({}), self.names, steps, number)
        start = w.constant(w.index, self.ev.index(self.inner_a, k), "k")
        for piece in a:
            guarded = nest.a if nest.a.guards else None
            self._read_piece(piece, nest.a, f"{piece.start} + {start}", k, guarded)
        start = w.constant(w.index, self.ev.index(self.inner_b, k), "k")
        for piece in b:
            self._read_piece(piece, nest.b, f"{piece.start} + {start}", k, None)

    def _read_piece(
        self, piece: Piece, access: Access, place: str, k: Position, guarded: Access | None
    ) -> None:
        w, ev = self.w, self.ev
        conditions = [piece.there] if piece.there else []
        if self.ragged:
            names, offset = k.places[self.inner]
            at = " + ".join([*names, *([str(offset)] if offset else []), piece.step])
            conditions.append(f"{at} < {self.inner.size}")
        if self.ragged:
            w.do(f"{piece.name} = 0;")
        with self._block(" && ".join(conditions)):
            if guarded is not None:
                p = Position({**piece.position.places, **k.places}).plus(self.inner, piece.step)
                text = ev.load(guarded, self.nest.dtype, p).text
            elif piece.width == 1:
                text = f"{ev.arguments[access.argument]}[{place}]"
            elif self._is_aligned(access):
                vector = f"const __global {self.kind} *"
                text = f"*({vector})({ev.arguments[access.argument]} + {place})"
            else:
                text = f"vload{LANES}(0, {ev.arguments[access.argument]} + {place})"
            w.do(f"{piece.name} = {text};")

    def _is_aligned(self, access: Access) -> bool:
        """Whether whole vectors of an operand begin at multiples of a vector."""
        beside = {self.inner, self.nest.panels.lane}
        if not self.aligned[access.argument] or access.address.const % LANES:
            return False
        return not any(c % LANES for a, c in access.address.terms if not (a in beside and c == 1))

    def _keep(self, first: str, pieces: list[Piece]) -> None:
        """Put an item's pieces of a chunk into a tile that begins at vector `first`."""
        for piece in pieces:
            text = f"shared[{first} + {piece.place}]"
            if piece.width == 1:
                text = f"((__local {self.element} *)shared)[{LANES} * {first} + {piece.place}]"
            prefix = f"if ({piece.there}) " if piece.there else ""
            self.w.do(f"{prefix}{text} = {piece.name};")

    def _multiply(self, first: str, second: str, sums: list[list[str]]) -> None:
        """Add up the products of a chunk's steps, or of a team's share of them."""
        t, w = self.tile, self.w
        x, y = t.items
        quarters = t.depth // LANES
        share = quarters // t.split
        with w.loop("q", share) as q:
            at = f"t * {share} + {q}" if t.split > 1 else q
            rows = [
                w.constant(self.kind, f"shared[{first} + (y + {y * i}) * {quarters} + {at}]", "u")
                for i in range(t.rows)
            ]
            for j in range(LANES):
                step = f"({LANES} * ({at}) + {j}) * {t.panels}"
                vectors = [
                    w.constant(self.kind, f"shared[{second} + {step} + x + {x * v}]", "v")
                    for v in range(t.vectors)
                ]
                for row, names in zip(rows, sums):
                    for vector, name in zip(vectors, names):
                        w.do(f"{name} = {self.multiply_add(f'{row}.s{j}', vector, name)};")

    def _join(self, sums: list[list[str]]) -> None:
        t, w = self.tile, self.w
        size = t.items[0] * t.items[1]
        w.do(BARRIER)
        w.do(f"__local {self.sum_kind} *const joined = (__local {self.sum_kind} *)shared;")
        self.join(sums, t.split, size, f"(item % {size})", "joined", "t")

    # ---- the end

    def _write(self, p: Position, sums: list[list[str]]) -> None:
        nest, t = self.nest, self.tile
        x, y = t.items
        rows = row_count(nest)
        for i, names in enumerate(sums):
            row = f"r0 + y + {y * i}"
            with self._block(f"{row} < {rows}" if rows % t.height else ""):
                q = self._row(p, row, False)
                for v, name in enumerate(names):
                    with self._block(""):
                        self._columns(q, f"p0 + x + {x * v}", name)

    def _columns(self, p: Position, number: str, name: str) -> None:
        """Write one vector, as many of whose columns as there are."""
        w, panels = self.w, self.nest.panels
        panel = w.constant(w.index, number, "p")
        p = p.at(panels.panel, ((panel,), 0))
        whole = panels.columns // LANES
        certain = panels.panel.size % self.tile.panels == 0 and not self.columns_left
        with self._block("" if certain else f"{panel} < {whole}"):
            if whole:
                self.write(p, [name], LANES)
        if self.columns_left:
            with self._block(f"{panel} == {whole}"):
                self.write(p, [name], self.columns_left)
