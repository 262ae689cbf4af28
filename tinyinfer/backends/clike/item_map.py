"""A scheduled map kernel for work-items; see kernels.schedule_gpu_map for its forms.

A team's members take turns along the steps of a reduction, add up what they have in local memory, and all
read the result. Members of rows that do not exist compute along, because barriers are for all, and write
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod

from tinyinfer.backends.clike.arithmetic import Value, join
from tinyinfer.backends.clike.dialect import Dialect
from tinyinfer.backends.clike.expression import Place, Position, axis_names
from tinyinfer.backends.clike.items import dimension_counter, item_function, outside, place_items
from tinyinfer.backends.clike.kernel import argument_names, counter_type
from tinyinfer.backends.clike.vectors import VectorEvaluator
from tinyinfer.backends.clike.writer import Writer
from tinyinfer.ir.index import Axis
from tinyinfer.ir.ops import reduce_identity
from tinyinfer.kernels.access import payloads, walk_with_indices
from tinyinfer.kernels.expression import Expr, walk
from tinyinfer.kernels.nest import LoopNest, indices_of
from tinyinfer.kernels.schedule_gpu import count_of
from tinyinfer.kernels.schedule_gpu_map import GpuMapSchedule

MEMBER = "t"
"""A work-item's number in its team."""

LANES = 4

STEMS = {"SUM": "sum", "PROD": "product", "MAX": "largest", "MIN": "smallest"}


class ItemMapPrinter:
    """Prints one map kernel as the kernel `name`."""

    def __init__(self, name: str, nest: LoopNest, schedule: GpuMapSchedule, dialect: Dialect):
        self.name, self.nest, self.schedule, self.dialect = name, nest, schedule, dialect
        s, body = schedule, nest.body
        self.w = Writer(counter_type(dialect, [nest.store, *indices_of(body)]))
        arguments = argument_names(len(nest.dtypes))
        self.ev = VectorEvaluator(
            self.w, dialect, arguments, nest.dtypes, body, s.contiguous, s.lanes, s.aligned, s.images
        )
        self.reduces = [e for e in walk_with_indices(body) if e.op == "REDUCE"]
        rows = frozenset(nest.axes) - frozenset(s.columns)
        self.shared = [e for e in self.reduces if s.teams and self.ev.free[id(e)] <= rows]
        self.own = [e for e in self.reduces if e not in self.shared]
        self.names = axis_names([*nest.axes, *(a for e in self.reduces for a in e.attrs[1])])
        self.scratch: dict[str, str] = {}

    def text(self) -> str:
        """The whole kernel."""
        s = self.schedule
        if s.teams:
            self._team()
        else:
            self._alone()
        return item_function(self.dialect, self.name, self.nest.dtypes, s.work, self.w, s.images)

    # ---- items alone

    def _alone(self) -> None:
        s, w = self.schedule, self.w
        counters = [dimension_counter(w, d, f"g{d}") for d in range(3) if s.grid[d] or not d]
        beyond = outside([count_of(steps) for steps in s.grid], s.work, counters)
        if beyond:
            w.do(f"if ({beyond}) return;")
        p = Position({})
        for counter, steps in zip(counters, s.grid):
            p = place_items(w, p, self.names, steps, counter)
        tiles = [p]
        if s.tile_axis is not None:
            tiles = [p.moved(s.tile_axis, t) for t in range(s.tile)]
        self._outputs([q for tile in tiles for q in self._lanes(tile)])

    def _lanes(self, p: Position) -> list[Position]:
        axis = self.schedule.contiguous
        if axis is None or axis not in p.places or self.schedule.lanes == 1:
            return [p]
        if self.schedule.lanes % LANES == 0:
            self.ev.multiples.update(p.places[axis][0])
        return [p.moved(axis, i) for i in range(self.schedule.lanes)]

    def _outputs(self, positions: list[Position]) -> None:
        """The values at several positions, with the reductions that are computed for each."""
        ev = self.ev
        for e in self.own:
            distinct = list({ev.key(e, q): q for q in positions}.values())
            self._reduced(e, distinct)
        values = [ev.value(self.nest.body, q) for q in positions]
        ev.store_all(self.nest.store, values, positions)

    # ---- reductions of one work-item

    def _totals(self, e: Expr, count: int) -> list[str]:
        """Define variables that hold what leaves the reduction unchanged."""
        op = e.attrs[0]
        kind, identity = self.dialect.types[e.dtype].value, reduce_identity(op, e.dtype)
        names = [self.w.name(STEMS[op]) for _ in range(count)]
        for name in names:
            self.w.do(f"{kind} {name} = {self.dialect.literal(identity, e.dtype)};")
        return names

    def _step(self, e: Expr, positions: Sequence[Position], totals: Sequence[str]) -> None:
        for q, total in zip(positions, totals):
            made = self.ev.accumulated(e.attrs[0], Value(total, e.dtype), e.args[0], q)
            self.w.do(f"{total} = {made.text};")

    def _reduced(self, e: Expr, positions: list[Position]) -> None:
        """One reduction for several positions at once."""
        totals = self._totals(e, len(positions))
        axes = sorted(e.attrs[1], key=lambda a: -_main_stride(e, a))

        def steps(places: dict[Axis, Place], left: list[Axis]) -> None:
            if not left:
                self._step(e, [Position({**q.places, **places}) for q in positions], totals)
                return
            axis, following = left[0], left[1:]
            if self.schedule.unrolled:
                for i in range(axis.size):
                    steps({**places, axis: ((), i)}, following)
                return
            with self.w.loop(self.names[axis], axis.size) as counter, self.ev.frame():
                steps({**places, axis: ((counter,), 0)}, following)

        steps({}, axes)
        for q, total in zip(positions, totals):
            self.ev.know(e, q, Value(total, e.dtype))

    # ---- teams

    def _team(self) -> None:
        s, w = self.schedule, self.w
        groups = s.work.group
        if s.across:
            w.do(f"const int {MEMBER} = (int)get_local_id(1);")
            row, count = dimension_counter(w, 0, "r"), count_of(s.grid[0])
            inside = self._clamped(row, count, s.work.total[0])
            p = place_items(w, Position({}), self.names, s.grid[0], self.row)
            w.do(f"const {w.index} g1 = (int)get_group_id(1);")
            p = place_items(w, p, self.names, s.grid[1], "g1")
            self.slot, self.stride = f"{MEMBER} * {groups[0]} + (int)get_local_id(0)", groups[0]
            self.first = "(int)get_local_id(0)"
        else:
            w.do(f"const int {MEMBER} = (int)get_local_id(0);")
            count = count_of(s.grid[0])
            blocks = s.work.total[0] // groups[0]
            if groups[1] > 1:
                w.do(f"const {w.index} r = (int)get_group_id(0) * {groups[1]} + (int)get_local_id(1);")
            else:
                w.do(f"const {w.index} r = (int)get_group_id(0);")
            inside = self._clamped("r", count, blocks * groups[1])
            p = place_items(w, Position({}), self.names, s.grid[0], self.row)
            local = "(int)get_local_id(1)"
            self.first = f"{local} * {s.team}" if groups[1] > 1 else "0"
            self.slot = f"{local} * {s.team} + {MEMBER}" if groups[1] > 1 else MEMBER
            self.stride = 1
        for e in self.shared:
            self._shared_reduction(e, p)
        for e in self._once_per_row():
            self.ev.named(e, p)
        self._columns(p, inside)

    def _clamped(self, row: str, count: int, total: int) -> str:
        """Set `row` to the row to compute; gives the condition that it is one to write."""
        self.row = row
        if count == total:
            return ""
        self.row = f"{row}_"
        self.w.do(f"const {self.w.index} {self.row} = min({row}, ({self.w.index}){count - 1});")
        return f"{row} < {count}"

    def _columns(self, p: Position, inside: str) -> None:
        s, w = self.schedule, self.w
        if not s.columns:
            condition = " && ".join(x for x in (f"{MEMBER} == 0" if s.team > 1 else "", inside) if x)
            with w.block(f"if ({condition})") if condition else _nothing(), self.ev.frame():
                self._outputs([p])
            return
        steps = tuple((a, s.lanes if a is s.contiguous else 1) for a in s.columns)
        with w.block(f"if ({inside})") if inside else _nothing(), self.ev.frame():
            with self._shared_steps(count_of(steps)) as counter, self.ev.frame():
                q = place_items(w, p, self.names, steps, counter)
                self._outputs(self._lanes(q))

    @contextmanager
    def _shared_steps(self, count: int) -> Iterator[str]:
        """A loop over those of `count` steps that are this member's."""
        name, team = self.w.name("s"), self.schedule.team
        advance = f"{name} += {team}" if team > 1 else f"++{name}"
        start = MEMBER if team > 1 else "0"
        with self.w.block(f"for ({self.w.index} {name} = {start}; {name} < {count}; {advance})"):
            yield name

    def _shared_reduction(self, e: Expr, p: Position) -> None:
        """One reduction by the whole team."""
        (total,) = self._totals(e, 1)
        axes = sorted(e.attrs[1], key=lambda a: -_main_stride(e, a))
        with self._shared_steps(prod(a.size for a in axes)) as counter, self.ev.frame():
            q = place_items(self.w, p, self.names, tuple((a, 1) for a in axes), counter)
            self._step(e, [q], [total])
        if self.schedule.team > 1:
            total = self._joined(e, total)
        self.ev.know(e, p, Value(total, e.dtype))

    def _joined(self, e: Expr, total: str) -> str:
        """What all members' parts of a reduction make together, known to all of them."""
        w, s = self.w, self.schedule
        kind = self.dialect.types[e.dtype].value
        storage = "uchar" if e.dtype == "bool" else kind
        scratch = self.scratch.get(storage)
        if scratch is None:
            scratch = self.scratch[storage] = w.name("shared")
            size = s.team * (s.work.group[0] if s.across else s.work.group[1])
            w.lines.insert(0, f"    __local {storage} {scratch}[{size}];")
        barrier = "barrier(CLK_LOCAL_MEM_FENCE);"

        def element(text: str) -> Value:
            return Value(
                f"{scratch}[{text}]{' != 0' if storage == 'uchar' and e.dtype == 'bool' else ''}", e.dtype
            )

        slot = w.constant("int", self.slot, "slot")
        w.do(f"{scratch}[{slot}] = {total};")
        w.do(barrier)
        with w.block(f"for (int half_ = {s.team // 2}; half_ > 0; half_ /= 2)"):
            with w.block(f"if ({MEMBER} < half_)"):
                step = "half_" if self.stride == 1 else f"half_ * {self.stride}"
                made = join(self.dialect, e.attrs[0], element(slot), element(f"{slot} + {step}"))
                w.do(f"{scratch}[{slot}] = {made.text};")
            w.do(barrier)
        result = w.constant(kind, element(self.first).text, STEMS[e.attrs[0]])
        w.do(barrier)
        return result

    def _once_per_row(self) -> list[Expr]:
        """What the columns read that only depends on rows, beside the reductions themselves."""
        if not self.schedule.columns:
            return []
        rows, free = frozenset(self.nest.axes) - frozenset(self.schedule.columns), self.ev.free
        found: dict[int, Expr] = {}
        seen: set[int] = set()
        stack = [self.nest.body]
        while stack:
            e = stack.pop()
            if id(e) in seen or e in self.shared:
                continue
            seen.add(id(e))
            if e.args and free[id(e)] and free[id(e)] <= rows:
                found[id(e)] = e
                continue
            stack.extend((*e.args, *payloads(e)))
        return list(found.values())


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _main_stride(e: Expr, axis: Axis) -> int:
    return max((abs(x.attrs.address.coefficient(axis)) for x in walk(e.args[0]) if x.op == "LOAD"), default=0)
