"""What all kernels of contractions on work-items have in common: sums in vectors, how the parts of a split
sum are joined, and what is made of a finished one."""

from __future__ import annotations

from collections.abc import Sequence

from tinyinfer.backends.clike.arithmetic import Value
from tinyinfer.backends.clike.dialect import Dialect
from tinyinfer.backends.clike.expression import Position, axis_names
from tinyinfer.backends.clike.kernel import argument_names, counter_type
from tinyinfer.backends.clike.vectors import VectorEvaluator
from tinyinfer.backends.clike.writer import Writer
from tinyinfer.ir.index import Index
from tinyinfer.kernels.expression import walk
from tinyinfer.kernels.nest import indices_of
from tinyinfer.kernels.physical import ACCUMULATOR, ContractionNest

LANES = 4


class SumsPrinter:
    """A contraction's kernel `name`, of which the sums are left to the forms of schedules."""

    def __init__(
        self,
        name: str,
        nest: ContractionNest,
        dialect: Dialect,
        aligned: tuple[bool, ...],
        images: tuple[str, ...],
    ):
        self.name, self.nest, self.dialect, self.aligned = name, nest, dialect, aligned
        physical = nest.physical.nest
        self.dtypes, self.store = physical.dtypes, physical.store
        indices = [physical.store, nest.a.address, nest.b.address, *indices_of(nest.epilogue)]
        self.w = Writer(counter_type(dialect, indices))
        self.ev = VectorEvaluator(
            self.w,
            dialect,
            argument_names(len(self.dtypes)),
            self.dtypes,
            nest.epilogue,
            nest.panels.lane,
            LANES,
            aligned,
            images,
        )
        self.names = axis_names([*nest.groups, *nest.m, *nest.k, nest.panels.panel])
        self.slot = next((e for e in walk(nest.epilogue) if e.op == "SLOT" and e.attrs == ACCUMULATOR), None)
        self.element = dialect.types[nest.dtype].value
        self.kind = f"{self.element}{LANES}"
        # integers wrap around, which only unsigned ones may
        self.sum_kind = self.kind if nest.dtype == "float32" else f"uint{LANES}"
        self.columns_left = nest.panels.columns % nest.panels.lane.size

    def split_index(self, address: Index) -> tuple[Index, Index]:
        """An address as what does not depend on the sum's axes, and what does."""
        inner = tuple((a, c) for a, c in address.terms if a in self.nest.k)
        outer = tuple((a, c) for a, c in address.terms if a not in self.nest.k)
        return Index(outer, address.const), Index(inner, 0)

    def zero_sums(self, rows: int, vectors: int) -> list[list[str]]:
        """Define vectors of sums, by row and vector, that are zero."""
        sums = [[self.w.name("sum") for _ in range(vectors)] for _ in range(rows)]
        for names in sums:
            for name in names:
                self.w.do(f"{self.sum_kind} {name} = ({self.sum_kind})(0);")
        return sums

    def multiply_add(self, a: str, b: str, total: str) -> str:
        if self.sum_kind == self.kind:
            return f"TI_MULTIPLY_ADD(({self.kind})({a}), {b}, {total})"
        return f"({self.sum_kind})((uint){a}) * as_{self.sum_kind}({b}) + {total}"

    def join(self, sums: list[list[str]], split: int, size: int, item: str, shared: str, member: str) -> None:
        """Add up the parts of a sum that `split` members of a team hold; member 0 has the result. Item number
        `item` of `size` uses the vectors of sums at `shared` with the rest of its team."""
        w = self.w
        names = [name for row in sums for name in row]
        with w.block(f"for (int half_ = {split // 2}; half_ > 0; half_ /= 2)"):
            with w.block(f"if ({member} >= half_ && {member} < 2 * half_)"):
                for i, name in enumerate(names):
                    w.do(f"{shared}[(({member} - half_) * {len(names)} + {i}) * {size} + {item}] = {name};")
            w.do("barrier(CLK_LOCAL_MEM_FENCE);")
            with w.block(f"if ({member} < half_)"):
                for i, name in enumerate(names):
                    w.do(f"{name} += {shared}[({member} * {len(names)} + {i}) * {size} + {item}];")
            w.do("barrier(CLK_LOCAL_MEM_FENCE);")

    def write(self, p: Position, vectors: Sequence[str], columns: int) -> None:
        """Finish and write the first `columns` columns of one row, whose sums these are."""
        ev, lane = self.ev, self.nest.panels.lane
        for vector, name in enumerate(vectors):
            count = min(LANES, columns - vector * LANES)
            if count <= 0:
                continue
            # whole vectors may be read only where all of their columns are there
            ev.lanes = LANES if count == LANES else 1
            at = [p.at(lane, ((), vector * LANES + i)) for i in range(count)]
            values = [self._value(q, f"{name}.s{i}") for i, q in enumerate(at)]
            ev.store_all(self.store, values, at)

    def _value(self, q: Position, total: str) -> Value:
        """The epilogue's value for one finished sum."""
        ev, dtype = self.ev, self.nest.dtype
        with ev.scope():
            if self.slot is not None:
                text = total if self.sum_kind == self.kind else f"as_{self.element}({total})"
                ev.provided[id(self.slot)] = Value(text, dtype)
            return ev.value(self.nest.epilogue, q)
