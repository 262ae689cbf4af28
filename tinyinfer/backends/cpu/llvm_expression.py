"""Expressions of a loop nest as LLVM text at one position of the axes, for one lane or for a vector of lanes.

A position gives every axis a register plus a literal offset. Addresses split the same way, so that unrolled
copies of an expression share one base pointer and differ in literal offsets, and a value table keyed by
(expression, position) finds every load and every intermediate that two copies share (overlapping windows of
neighbouring outputs).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tinyinfer.backends.cpu.llvm_arithmetic import arithmetic, suffix
from tinyinfer.backends.cpu.llvm_writer import (
    ITEM_BYTES,
    LLVM_TYPES,
    Value,
    Writer,
    literal,
    memory_type,
)
from tinyinfer.ir.index import Atom, Axis, FloorDiv, Index, Mod, Slot, atoms_of
from tinyinfer.kernels.access import Access
from tinyinfer.kernels.expression import Expr
from tinyinfer.kernels.nest import free_axes

AVX2_LANES = 8

INT32_LIMIT = 1 << 31
SHORT_INTEGERS = ("int8", "int16", "int32", "uint8", "uint16")

Place = tuple[str | None, int]
"""An axis's value: a 64-bit register (None for zero) and a literal added to it."""


@dataclass
class Position:
    """Where an expression is evaluated. `lane` is the axis that lanes run along from its place on (None:
    scalar)."""

    places: dict[Axis, Place]
    lane: Axis | None = None
    mask: str | None = None

    def moved(self, axis: Axis, offset: int) -> Position:
        """The same position with `offset` more along one axis."""
        base, old = self.places[axis]
        return Position({**self.places, axis: (base, old + offset)}, self.lane, self.mask)

    def at(self, axis: Axis, place: Place) -> Position:
        return Position({**self.places, axis: place}, self.lane, self.mask)

    def lanes_along(self, lane: Axis | None, mask: str | None = None) -> Position:
        return Position(self.places, lane, mask)


class Evaluator:
    """Writes expressions of one nest. `pointers` are the registers that hold the arguments' addresses."""

    def __init__(self, writer: Writer, pointers: list[str], dtypes: tuple[str, ...], roots: list[Expr]):
        self.w, self.pointers, self.dtypes = writer, pointers, dtypes
        self.free: dict[int, frozenset[Axis]] = {}
        for root in roots:
            self.free.update(free_axes(root))
        self.tables: list[dict] = [{}]
        self.provided: dict[int, Value] = {}

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Values written inside are forgotten at the end: they do not dominate what follows."""
        self.tables.append({})
        provided = dict(self.provided)
        yield
        self.tables.pop()
        self.provided = provided

    def _known(self, key):
        for table in reversed(self.tables):
            if key in table:
                return table[key]
        return None

    def _key(self, e: Expr, p: Position):
        free = self.free[id(e)]
        places = tuple((a.name, p.places[a]) for a in sorted(free, key=lambda a: a.name))
        lane = p.lane if p.lane in free else None
        return id(e), places, lane, p.mask if lane is not None else None

    def value(self, e: Expr, p: Position) -> Value:
        """The register or literal that holds `e` at position `p`."""
        given = self.provided.get(id(e))
        if given is not None:
            return given
        key = self._key(e, p)
        found = self._known(key)
        if found is None:
            found = self.tables[-1][key] = self._make(e, p)
        return found

    def _make(self, e: Expr, p: Position) -> Value:
        if e.op == "CONST":
            return Value(literal(e.attrs, e.dtype), e.dtype, False)
        if e.op == "LOAD":
            return self.load(e.attrs, e.dtype, p)
        if e.op == "INDEX":
            return self.index_value(e.attrs, p)
        assert e.op != "REDUCE", "reductions are computed before the expressions that read them"
        return arithmetic(self.w, e, [self.value(a, p) for a in e.args])

    # ---- indices

    def depends_on_lane(self, value: Index, p: Position) -> bool:
        if p.lane is None:
            return False
        for atom in atoms_of(value):
            if atom == p.lane:
                return True
            if isinstance(atom, Slot) and p.lane in self.free[id(atom.payload)]:
                return True
        return False

    def index_value(self, value: Index, p: Position) -> Value:
        """The integer that an index is at `p`, int64, one a lane where it differs between lanes."""
        if not self.depends_on_lane(value, p):
            base, offset = self.split(value, p)
            if base is None:
                return Value(str(offset), "int64", False)
            return Value(self._add(base, offset), "int64", False)
        return Value(self._lane_index(value, p), "int64", True)

    def _add(self, base: str, offset: int) -> str:
        return base if not offset else self.w.emit(f"add i64 {base}, {offset}")

    def split(self, value: Index, p: Position, skip: Atom | None = None) -> tuple[str | None, int]:
        """A lane-invariant index as (register or None, literal); the term of `skip` is left out."""
        offset = value.const
        terms: dict[str, int] = {}
        for atom, c in value.terms:
            if atom == skip:
                c_lane = p.places[atom] if atom in p.places else (None, 0)  # type: ignore[index]
                base, more = c_lane
            else:
                base, more = self._atom(atom, p)
            offset += c * more
            if base is not None:
                terms[base] = terms.get(base, 0) + c
        key = ("sum", tuple(sorted(terms.items())))
        if not terms:
            return None, offset
        found = self._known(key)
        if found is None:
            total: str | None = None
            for base, c in sorted(terms.items()):
                part = base if c == 1 else self.w.emit(f"mul nsw i64 {base}, {c}")
                total = part if total is None else self.w.emit(f"add nsw i64 {total}, {part}")
            found = self.tables[-1][key] = total
        return found, offset

    def _atom(self, atom: Atom, p: Position) -> tuple[str | None, int]:
        if isinstance(atom, Axis):
            return p.places[atom]
        if isinstance(atom, Slot):
            data = self.value(atom.payload, Position(p.places, None, None))
            return self._widen(data).text, 0
        assert isinstance(atom, (FloorDiv, Mod))
        base, offset = self.split(atom.inner, p)
        if base is None:
            return None, offset // atom.divisor if isinstance(atom, FloorDiv) else offset % atom.divisor
        inner = self._add(base, offset)
        return self._divide(inner, atom, "i64", str(atom.divisor)), 0

    def _divide(self, inner: str, atom: FloorDiv | Mod, kind: str, divisor: str) -> str:
        """Floor division or remainder by a positive literal; values known to be non-negative use unsigned
        forms."""
        w = self.w
        if atom.inner.lo >= 0:
            return w.emit(f"{'udiv' if isinstance(atom, FloorDiv) else 'urem'} {kind} {inner}, {divisor}")
        rest = w.emit(f"srem {kind} {inner}, {divisor}")
        zero = "zeroinitializer" if kind.startswith("<") else "0"
        boolean = f"<{w.lanes} x i1>" if kind.startswith("<") else "i1"
        negative = w.emit(f"icmp slt {kind} {rest}, {zero}")
        fixed = w.emit(
            f"select {boolean} {negative}, {kind} {w.emit(f'add {kind} {rest}, {divisor}')}, {kind} {rest}"
        )
        if isinstance(atom, Mod):
            return fixed
        return w.emit(f"sdiv {kind} {w.emit(f'sub {kind} {inner}, {fixed}')}, {divisor}")

    def _widen(self, data: Value) -> Value:
        if LLVM_TYPES[data.dtype] == "i64":
            return data
        kind, goal = self.w.type(data.dtype, data.vector), self.w.type("int64", data.vector)
        signed = "sext" if data.dtype.startswith("int") else "zext"
        return Value(self.w.emit(f"{signed} {kind} {data.text} to {goal}"), "int64", data.vector)

    def _splat64(self, scalar: str) -> str:
        return self.w.splat(Value(scalar, "int64", False)).text

    def lane_numbers(self, stride: int = 1) -> str:
        """The literal <0, stride, 2·stride, …>."""
        return "<" + ", ".join(f"i64 {i * stride}" for i in range(self.w.lanes)) + ">"

    def _lane_index(self, value: Index, p: Position) -> str:
        """A lane-varying index as a vector of i64."""
        w, kind = self.w, f"<{self.w.lanes} x i64>"
        uniform: dict[Atom, int] = {}
        total: str | None = None

        def plus(part: str) -> None:
            nonlocal total
            total = part if total is None else w.emit(f"add {kind} {total}, {part}")

        for atom, c in value.terms:
            if atom == p.lane:
                plus(self.lane_numbers(c))
                uniform[atom] = c
                continue
            if not self.depends_on_lane(Index(((atom, 1),), 0), p):
                uniform[atom] = c
                continue
            if isinstance(atom, Slot):
                part = self._widen(w.splat(self.value(atom.payload, p))).text
            else:
                assert isinstance(atom, (FloorDiv, Mod))
                part = self._divide(
                    self._lane_index(atom.inner, p), atom, kind, f"splat (i64 {atom.divisor})"
                )
            plus(part if c == 1 else w.emit(f"mul {kind} {part}, splat (i64 {c})"))
        base, offset = self.split(Index(tuple(uniform.items()), value.const), Position(p.places, None, None))
        if base is not None:
            plus(self._splat64(self._add(base, offset)))
        elif offset:
            plus(f"splat (i64 {offset})")
        assert total is not None
        return total

    def _short_lane_index(self, value: Index, p: Position) -> tuple[str, Index] | None:
        """What differs between lanes as a vector of i32, and the rest; None where i32 may not hold it.

        Gathers take i32 beside a common pointer at half the cost of 64-bit addresses. Sums and products may
        wrap on the way: the result is right if it fits, and lanes whose guard fails are not read.
        """
        w, kind = self.w, f"<{self.w.lanes} x i32>"
        varying: dict[Slot, int] = {}
        uniform: dict[Atom, int] = {}
        low = high = 0
        for atom, c in value.terms:
            if atom == p.lane or not self.depends_on_lane(Index(((atom, 1),), 0), p):
                uniform[atom] = c
                span = c * (w.lanes - 1) if atom == p.lane else 0
                low, high = low + min(span, 0), high + max(span, 0)
                continue
            if not isinstance(atom, Slot):
                return None
            varying[atom] = c
            low, high = low + min(c * atom.lo, c * atom.hi), high + max(c * atom.lo, c * atom.hi)
        if low < -INT32_LIMIT or high >= INT32_LIMIT:
            return None
        total: str | None = None
        if p.lane in uniform:
            step = uniform[p.lane]
            total = "<" + ", ".join(f"i32 {i * step}" for i in range(w.lanes)) + ">"
        for slot, c in varying.items():
            part = self._short(w.splat(self.value(slot.payload, p)))
            part = part if c == 1 else w.emit(f"mul {kind} {part}, splat (i32 {c})")
            total = part if total is None else w.emit(f"add {kind} {total}, {part}")
        assert total is not None
        return total, Index(tuple(uniform.items()), value.const)

    def _short(self, data: Value) -> str:
        """A vector of integers as i32, the upper bits cut off."""
        have = LLVM_TYPES[data.dtype]
        if have == "i32":
            return data.text
        signed = "sext" if data.dtype.startswith("int") else "zext"
        how = "trunc" if have == "i64" else signed
        return self.w.emit(f"{how} {self.w.type(data.dtype, True)} {data.text} to <{self.w.lanes} x i32>")

    def _short_guard(self, value: Index, size: int, p: Position) -> str | None:
        """`0 <= value < size` of a narrow slot plus a literal in i32, or None.

        A sum that wraps is beyond any size that is tested so, whichever way it wraps.
        """
        if len(value.terms) != 1 or abs(value.const) + size >= INT32_LIMIT:
            return None
        (atom, c) = value.terms[0]
        if c != 1 or not isinstance(atom, Slot) or atom.payload.dtype not in SHORT_INTEGERS:
            return None
        if not self.depends_on_lane(value, p):
            return None
        kind = f"<{self.w.lanes} x i32>"
        place = self._short(self.w.splat(self.value(atom.payload, p)))
        if value.const:
            place = self.w.emit(f"add {kind} {place}, splat (i32 {value.const})")
        return self.w.emit(f"icmp ult {kind} {place}, splat (i32 {size})")

    # ---- memory

    def pointer(self, argument: int, base: str | None, offset: int) -> str:
        """Address of an element; the pointer to `base` is shared between all literal offsets."""
        kind = memory_type(self.dtypes[argument])
        start = self.pointers[argument]
        found = self._known(("pointer", argument, base))
        if found is None and base is not None:
            found = self.w.emit(f"getelementptr {kind}, ptr {start}, i64 {base}")
            self.tables[-1]["pointer", argument, base] = found
        start = found or start
        return start if not offset else self.w.emit(f"getelementptr {kind}, ptr {start}, i64 {offset}")

    def hide_pointer(self, access: Access, p: Position) -> None:
        """From here to the end of the scope, let LLVM not know that loads of `access` repeat earlier ones."""
        base, _ = self.split(access.address, p)
        key = ("pointer", access.argument, base)
        known = self.pointer(access.argument, base, 0)
        self.tables[-1][key] = self.w.emit(f'call ptr asm "", "=r,0"(ptr {known})')

    def prefetch(self, access: Access, p: Position) -> None:
        """Ask for the cache line of an element; an address outside of memory is no fault."""
        base, offset = self.split(access.address, p)
        self.w.declarations.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        place = self.pointer(access.argument, base, offset)
        self.w.do(f"call void @llvm.prefetch.p0(ptr {place}, i32 0, i32 2, i32 1)")

    def guard(self, guards: tuple[tuple[Index, int], ...], p: Position) -> tuple[str | None, bool]:
        """The i1 (or vector of them) that all guards hold, and whether it is a vector."""
        w = self.w
        scalar: str | None = None
        vector: str | None = None
        for value, size in guards:
            short = self._short_guard(value, size, p)
            if short is not None:
                vector = short if vector is None else w.emit(f"and <{w.lanes} x i1> {vector}, {short}")
                continue
            place = self.index_value(value, p)
            kind = w.type("int64", place.vector)
            limit = f"splat (i64 {size})" if place.vector else str(size)
            holds = w.emit(f"icmp ult {kind} {place.text}, {limit}")
            if place.vector:
                vector = holds if vector is None else w.emit(f"and <{w.lanes} x i1> {vector}, {holds}")
            else:
                scalar = holds if scalar is None else w.emit(f"and i1 {scalar}, {holds}")
        if vector is None:
            return scalar, False
        if scalar is not None:
            vector = w.emit(f"and <{w.lanes} x i1> {vector}, {w.splat(Value(scalar, 'bool', False)).text}")
        return vector, True

    def load(self, access: Access, dtype: str, p: Position) -> Value:
        """One element, or one a lane, of an argument."""
        address = access.address
        holds, by_lane = self.guard(access.guards, p) if access.guards else (None, False)
        lane_stride = address.coefficient(p.lane) if p.lane is not None else 0
        rest = Index(tuple(t for t in address.terms if t[0] != p.lane), address.const)
        if not self.depends_on_lane(address, p) and not by_lane:
            return self._load_scalar(access, dtype, p, holds)
        if lane_stride == 1 and not self.depends_on_lane(rest, p):
            return self._load_contiguous(access, dtype, p, holds, by_lane)
        return self._load_gather(access, dtype, p, holds, by_lane)

    def _finish(self, raw: str, dtype: str, vector: bool) -> Value:
        """A value as it lies in memory as one in a register: bools are bytes there."""
        if dtype != "bool":
            return Value(raw, dtype, vector)
        kind = f"<{self.w.lanes} x i8>" if vector else "i8"
        zero = "zeroinitializer" if vector else "0"
        return Value(self.w.emit(f"icmp ne {kind} {raw}, {zero}"), dtype, vector)

    def _load_scalar(self, access: Access, dtype: str, p: Position, holds: str | None) -> Value:
        w = self.w
        base, offset = self.split(access.address, p)
        kind, align = memory_type(dtype), ITEM_BYTES[dtype]
        if holds is None:
            key = ("element", access.argument, base, offset)
            found = self._known(key)
            if found is None:
                raw = w.emit(f"load {kind}, ptr {self.pointer(access.argument, base, offset)}, align {align}")
                found = self.tables[-1][key] = self._finish(raw, dtype, False)
            return found
        place = self._add(base, offset) if base is not None else str(offset)
        safe = w.emit(f"select i1 {holds}, i64 {place}, i64 0")
        raw = w.emit(f"load {kind}, ptr {self.pointer(access.argument, safe, 0)}, align {align}")
        value = self._finish(raw, dtype, False)
        scalar = w.type(dtype, False)
        return Value(
            w.emit(f"select i1 {holds}, {scalar} {value.text}, {scalar} {literal(access.fill, dtype)}"),
            dtype,
            False,
        )

    def _mask(self, p: Position, holds: str | None, by_lane: bool) -> str | None:
        w, mask = self.w, p.mask
        if holds is None:
            return mask
        lanes = holds if by_lane else w.splat(Value(holds, "bool", False)).text
        return lanes if mask is None else w.emit(f"and <{w.lanes} x i1> {lanes}, {mask}")

    def _passthrough(self, dtype: str, access: Access) -> str:
        kind = memory_type(dtype)
        fill = str(int(bool(access.fill))) if dtype == "bool" else literal(access.fill, dtype)
        return f"<{self.w.lanes} x {kind}> splat ({kind} {fill})"

    def _load_contiguous(
        self, access: Access, dtype: str, p: Position, holds: str | None, by_lane: bool
    ) -> Value:
        base, offset = self.split(access.address, p)
        mask = self._mask(p, holds, by_lane)
        key = ("vector", access.argument, base, offset, mask, repr(access.fill))
        found = self._known(key)
        if found is None:
            found = self.tables[-1][key] = self._load_vector(access, dtype, base, offset, mask)
        return found

    def _load_vector(
        self, access: Access, dtype: str, base: str | None, offset: int, mask: str | None
    ) -> Value:
        w, kind, align = self.w, memory_type(dtype), ITEM_BYTES[dtype]
        vector = f"<{w.lanes} x {kind}>"
        pointer = self.pointer(access.argument, base, offset)
        if mask is None:
            return self._finish(w.emit(f"load {vector}, ptr {pointer}, align {align}"), dtype, True)
        if align == 8 and mask.startswith("%"):
            mask = self._unknown_mask(mask)
        name = f"llvm.masked.load.{_memory_suffix(w, dtype)}.p0"
        w.declarations.add(f"declare {vector} @{name}(ptr, i32, <{w.lanes} x i1>, {vector})")
        raw = w.emit(
            f"call {vector} @{name}(ptr {pointer}, i32 {align}, <{w.lanes} x i1> {mask}, "
            f"{self._passthrough(dtype, access)})"
        )
        return self._finish(raw, dtype, True)

    def _unknown_mask(self, mask: str) -> str:
        """The same mask, of which LLVM cannot know that half of it is all false.

        Where vectors of 64-bit elements are split in two for AVX2, LLVM 22 forgets such a mask, or crashes.
        """
        w = self.w
        if w.lanes != AVX2_LANES:
            return mask
        bits = w.emit(f"bitcast <{w.lanes} x i1> {mask} to i{w.lanes}")
        hidden = w.emit(f'call i{w.lanes} asm "", "=r,0"(i{w.lanes} {bits})')
        return w.emit(f"bitcast i{w.lanes} {hidden} to <{w.lanes} x i1>")

    def _load_gather(
        self, access: Access, dtype: str, p: Position, holds: str | None, by_lane: bool
    ) -> Value:
        w, kind, align = self.w, memory_type(dtype), ITEM_BYTES[dtype]
        vector = f"<{w.lanes} x {kind}>"
        start = self.pointers[access.argument]
        short = None
        if not self.depends_on_lane(access.address, p):
            places = f"<{w.lanes} x i64> {self._splat64(self.index_value(access.address, p).text)}"
        elif (short := self._short_lane_index(access.address, p)) is not None:
            places = f"<{w.lanes} x i32> {short[0]}"
            base, offset = self.split(short[1], Position(p.places, None, None))
            start = self.pointer(access.argument, base, offset)
        else:
            places = f"<{w.lanes} x i64> {self._lane_index(access.address, p)}"
        pointers = w.emit(f"getelementptr {kind}, ptr {start}, {places}")
        mask = self._mask(p, holds, by_lane) or "splat (i1 true)"
        name = f"llvm.masked.gather.{_memory_suffix(w, dtype)}.v{w.lanes}p0"
        w.declarations.add(f"declare {vector} @{name}(<{w.lanes} x ptr>, i32, <{w.lanes} x i1>, {vector})")
        raw = w.emit(
            f"call {vector} @{name}(<{w.lanes} x ptr> {pointers}, i32 {align}, <{w.lanes} x i1> {mask}, "
            f"{self._passthrough(dtype, access)})"
        )
        return self._finish(raw, dtype, True)

    def store(self, argument: int, address: Index, value: Value, p: Position) -> None:
        """Write a value, or one a lane, to an argument."""
        w, dtype = self.w, self.dtypes[argument]
        kind, align = memory_type(dtype), ITEM_BYTES[dtype]
        if p.lane is not None:
            value = w.splat(value)
        text = value.text
        if dtype == "bool":
            text = w.emit(f"zext {w.typed(value)} to {f'<{w.lanes} x i8>' if value.vector else 'i8'}")
        if p.lane is None:
            base, offset = self.split(address, p)
            w.do(f"store {kind} {text}, ptr {self.pointer(argument, base, offset)}, align {align}")
            return
        vector = f"<{w.lanes} x {kind}>"
        if address.coefficient(p.lane) == 1:
            base, offset = self.split(address, p)
            pointer = self.pointer(argument, base, offset)
            if p.mask is None:
                w.do(f"store {vector} {text}, ptr {pointer}, align {align}")
                return
            name = f"llvm.masked.store.{_memory_suffix(w, dtype)}.p0"
            w.declarations.add(f"declare void @{name}({vector}, ptr, i32, <{w.lanes} x i1>)")
            w.do(f"call void @{name}({vector} {text}, ptr {pointer}, i32 {align}, <{w.lanes} x i1> {p.mask})")
            return
        places = self._lane_index(address, p)
        pointers = w.emit(f"getelementptr {kind}, ptr {self.pointers[argument]}, <{w.lanes} x i64> {places}")
        name = f"llvm.masked.scatter.{_memory_suffix(w, dtype)}.v{w.lanes}p0"
        w.declarations.add(f"declare void @{name}({vector}, <{w.lanes} x ptr>, i32, <{w.lanes} x i1>)")
        w.do(
            f"call void @{name}({vector} {text}, <{w.lanes} x ptr> {pointers}, i32 {align}, "
            f"<{w.lanes} x i1> {p.mask or 'splat (i1 true)'})"
        )


def _memory_suffix(w: Writer, dtype: str) -> str:
    return f"v{w.lanes}i8" if dtype == "bool" else suffix(w, dtype, True)


def tail_mask(lanes: int, count: int) -> str:
    """The literal mask of the first `count` lanes."""
    return "<" + ", ".join(f"i1 {'true' if i < count else 'false'}" for i in range(lanes)) + ">"
