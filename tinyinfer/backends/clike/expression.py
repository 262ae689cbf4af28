"""Expressions of a loop nest as text at one position of the axes.

A position gives every axis the counters whose sum it is, and a literal. What occurs once is written where it
is used; what occurs repeatedly gets a name. A value table per block finds every repeat.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tinyinfer.backends.clike.arithmetic import Value, accumulate, arithmetic, cast, is_atom, join, repeats
from tinyinfer.backends.clike.dialect import Dialect
from tinyinfer.backends.clike.writer import Writer
from tinyinfer.ir.dtypes import is_float
from tinyinfer.ir.index import Atom, Axis, FloorDiv, Index, Mod, Slot, atoms_of, index
from tinyinfer.kernels.access import Access, payloads, walk_with_indices
from tinyinfer.kernels.expression import Expr
from tinyinfer.kernels.nest import free_axes

INT32_LIMIT = 1 << 31
LONGEST = 72
"""Characters from which on an expression gets a name though it is used once."""

Place = tuple[tuple[str, ...], int]
"""An axis's value: the sum of these counters and a literal."""


@dataclass
class Position:
    """Where an expression is evaluated."""

    places: dict[Axis, Place]

    def moved(self, axis: Axis, offset: int) -> Position:
        """The same position with `offset` more along one axis."""
        names, old = self.places[axis]
        return Position({**self.places, axis: (names, old + offset)})

    def at(self, axis: Axis, place: Place) -> Position:
        return Position({**self.places, axis: place})

    def plus(self, axis: Axis, counter: str) -> Position:
        """The same position with a counter more along one axis."""
        names, offset = self.places[axis]
        return Position({**self.places, axis: ((*names, counter), offset)})


def fits_int32(value: Index) -> bool:
    """Whether an index can be computed in 32 bits, in any order of its terms."""
    reach = abs(value.const)
    for atom, c in value.terms:
        if isinstance(atom, (FloorDiv, Mod)) and not fits_int32(atom.inner):
            return False
        reach += abs(c) * max(abs(atom.lo), abs(atom.hi))
    return reach < INT32_LIMIT


def axis_names(axes: list[Axis]) -> dict[Axis, str]:
    """A valid and distinct name for the counter of each axis, like the axis's own."""
    names: dict[Axis, str] = {}
    for axis in axes:
        stem = re.sub(r"\W", "_", axis.name)
        stem = stem if re.match(r"[A-Za-z]", stem) else f"i{stem}"
        name = stem = stem if re.search(r"\d|_", stem) or len(stem) == 1 else f"{stem}_"
        while name in names.values():
            name = f"{name}_"
        names[axis] = name
    return names


def is_number(text: str) -> bool:
    """Whether an index's text is a literal."""
    return re.fullmatch(r"-?\d+", text) is not None


class Evaluator:
    """Writes expressions of one nest whose arguments have these names and dtypes."""

    def __init__(
        self, writer: Writer, dialect: Dialect, arguments: list[str], dtypes: tuple[str, ...], root: Expr
    ):
        self.w, self.dialect, self.arguments, self.dtypes = writer, dialect, arguments, dtypes
        self.free: dict[int, frozenset[Axis]] = free_axes(root)
        self.users: Counter[int] = Counter()
        for e in walk_with_indices(root):
            self.users.update(id(x) for x in (*e.args, *payloads(e)))
        self.tables: list[dict] = [{}]
        self.provided: dict[int, Value] = {}

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Names given inside are not known after the end, where their block is closed."""
        self.tables.append({})
        provided = dict(self.provided)
        yield
        self.tables.pop()
        self.provided = provided

    def key(self, e: Expr, p: Position):
        """What tells values of one expression at different positions apart."""
        free = sorted(self.free[id(e)], key=lambda a: a.name)
        return id(e), tuple((a.name, p.places[a]) for a in free)

    def know(self, e: Expr, p: Position, value: Value) -> None:
        """Until the scope ends, this is the value of `e` at `p`."""
        self.tables[-1][self.key(e, p)] = value

    def _known(self, key) -> Value | None:
        for table in reversed(self.tables):
            if key in table:
                return table[key]
        return None

    def value(self, e: Expr, p: Position) -> Value:
        """The text of `e` at position `p`: a name, if it is long or used again."""
        if e.op == "CONST":
            return Value(self.dialect.literal(e.attrs, e.dtype), e.dtype)
        given = self.provided.get(id(e))
        if given is not None:
            return given
        found = self._known(self.key(e, p))
        if found is not None:
            return found
        assert e.op != "REDUCE", "reductions are computed before the expressions that read them"
        made = self._make(e, p)
        if self.users[id(e)] > 1 or len(made.text) > LONGEST:
            made = self._name(made)
        if made.text.isidentifier():
            self.know(e, p, made)
        return made

    def named(self, e: Expr, p: Position) -> Value:
        """The value of `e` as a name or a literal, computed here and not again."""
        made = self.value(e, p)
        return made if e.op == "CONST" else self._named(e, p, made)

    def accumulated(self, op: str, total: Value, body: Expr, p: Position) -> Value:
        """`total` joined with one more step of a reduction, whose `body` is taken at `p`."""
        if op == "SUM" and body.op == "MUL" and is_float(body.dtype):
            a, b = (self.value(x, p) for x in body.args)
            return accumulate(self.dialect, a, b, total)
        value = self.named(body, p) if op in ("MAX", "MIN") else self.value(body, p)
        return join(self.dialect, op, total, value)

    def _named(self, e: Expr, p: Position, made: Value) -> Value:
        if not made.text.isidentifier():
            made = self._name(made)
            self.know(e, p, made)
        return made

    def _name(self, value: Value) -> Value:
        if value.text.isidentifier() or is_number(value.text):
            return value
        return Value(self.w.constant(self.dialect.types[value.dtype].value, value.text), value.dtype)

    def _make(self, e: Expr, p: Position) -> Value:
        if e.op == "LOAD":
            return self.load(e.attrs, e.dtype, p)
        if e.op == "INDEX":
            return cast(
                self.dialect,
                Value(f"({self.dialect.wide_index})({self.index(e.attrs, p)})", "int64"),
                e.dtype,
            )
        return arithmetic(self.dialect, e, [self._operand(e, i, p) for i in range(len(e.args))])

    def _operand(self, e: Expr, number: int, p: Position) -> Value:
        """An operand, by a name where the op's text has it twice."""
        argument = e.args[number]
        made = self.value(argument, p)
        if is_atom(made.text) or argument.op == "CONST" or not repeats(self.dialect, e, number):
            return made
        return self._named(argument, p, made)

    # ---- indices

    def index(self, value: Index, p: Position) -> str:
        """The integer that an index is at `p`: in the type of counters, or, where it comes from data that
        nothing bounds, in 64 bits that wrap around."""
        if any(isinstance(a, Slot) for a in atoms_of(value)) and not fits_int32(value):
            return self._wrapping(value, p)
        return self._linear(value, p)

    def _linear(self, value: Index, p: Position) -> str:
        terms: dict[str, int] = {}
        offset = value.const
        for atom, c in value.terms:
            names, more = self._atom(atom, p)
            offset += c * more
            for name in names:
                terms[name] = terms.get(name, 0) + c
        text = ""
        for name, c in sorted(terms.items(), key=lambda t: -abs(t[1])):
            if c:
                part = name if abs(c) == 1 else f"{abs(c)} * {name}"
                text = f"{text} {'-' if c < 0 else '+'} {part}" if text else f"{'-' if c < 0 else ''}{part}"
        if not text:
            return str(offset)
        return f"{text} {'-' if offset < 0 else '+'} {abs(offset)}" if offset else text

    def _atom(self, atom: Atom, p: Position) -> Place:
        if isinstance(atom, Axis):
            return p.places[atom]
        if isinstance(atom, Slot):
            data = self.named(atom.payload, p)
            return (f"({self.w.index}){data.operand}",), 0
        assert isinstance(atom, (FloorDiv, Mod))
        inner, divide = self._linear(atom.inner, p), isinstance(atom, FloorDiv)
        if is_number(inner):
            return (), int(inner) // atom.divisor if divide else int(inner) % atom.divisor
        if atom.inner.lo >= 0:
            operand = inner if inner.isidentifier() else f"({inner})"
            return (f"({operand} {'/' if divide else '%'} {atom.divisor})",), 0
        return (f"({self.w.index}){self._floor(inner, divide, atom.divisor)}",), 0

    def _floor(self, inner: str, divide: bool, divisor: int) -> str:
        name = f"{self.dialect.helper_prefix}floor_{'divide' if divide else 'modulo'}"
        return f"{name}({inner}, {divisor})"

    def _wrapping(self, value: Index, p: Position) -> str:
        kind, parts = self.dialect.unsigned_wide, []
        for atom, c in value.terms:
            if isinstance(atom, Slot):
                part = f"({kind}){self.named(atom.payload, p).operand}"
            elif isinstance(atom, (FloorDiv, Mod)):
                inner = f"({self.dialect.wide_index})({self._wrapping(atom.inner, p)})"
                part = f"({kind}){self._floor(inner, isinstance(atom, FloorDiv), atom.divisor)}"
            else:
                part = f"({kind})({self._linear(index(atom), p)})"
            parts.append(part if c == 1 else f"{part} * ({kind}){c}")
        if value.const or not parts:
            parts.append(f"({kind}){value.const}")
        return f"({self.dialect.wide_index})({' + '.join(parts)})"

    # ---- memory

    def guard(self, guards: tuple[tuple[Index, int], ...], p: Position) -> str:
        """The condition that all guards hold: "1" if they always do, "0" if they never do."""
        plain, data = [], []
        for value, size in guards:
            if any(isinstance(a, Slot) for a in atoms_of(value)):
                data.append((value, size))
                continue
            place = self._linear(value, p)
            if is_number(place):
                if not 0 <= int(place) < size:
                    return "0"
                continue
            plain += [f"{place} >= 0"] if value.lo < 0 else []
            plain += [f"{place} < {size}"] if value.hi >= size else []
        # what the data hold may be anything, whatever their interval says where it matters
        wide = self.dialect.unsigned_wide
        parts = plain + [f"({wide}){self._wrapping(value, p)} < {size}" for value, size in data]
        return " && ".join(dict.fromkeys(parts)) or "1"

    def element(self, argument: int, address: Index, p: Position) -> str:
        """One element of an argument, as it lies in memory."""
        place = self.index(address, p)
        if self.w.index == "int32_t" and place.startswith(f"({self.dialect.wide_index})"):
            place = f"({self.dialect.size}){place}"
        return f"{self.arguments[argument]}[{place}]"

    def load(self, access: Access, dtype: str, p: Position) -> Value:
        """One element of an argument, or the fill value where a guard fails."""
        holds = self.guard(access.guards, p)
        fill = Value(self.dialect.literal(access.fill, dtype), dtype)
        if holds == "0":
            return fill
        loaded = self.dialect.types[dtype].load.format(self.element(access.argument, access.address, p))
        if holds == "1":
            return Value(loaded, dtype)
        text = f"{Value(holds, 'bool').operand} ? {loaded} : {fill.operand}"
        if dtype in ("int8", "uint8", "int16", "uint16"):
            text = f"({self.dialect.types[dtype].value})({text})"
        return self._name(Value(text, dtype))

    def store(self, argument: int, address: Index, value: Value, p: Position) -> None:
        """Write a value to an element of an argument."""
        text = self.dialect.types[self.dtypes[argument]].store.format(value.text)
        self.w.do(f"{self.element(argument, address, p)} = {text};")
