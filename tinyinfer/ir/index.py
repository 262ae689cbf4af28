"""Symbolic integer index algebra.

An `Index` is a linear combination `const + Σ coefficient · atom`. Atoms are loop axes, floor divisions and
remainders of indices by positive constants, and slots (integers read from data). Every atom knows its
interval, and every constructor simplifies, so that two indices built differently from the same reshape
usually come out equal.

Source of the rules: floor division and remainder of integers with a positive divisor (`(q·n + r) // n == q`
for `0 <= r < n`). `tests/ir/test_index.py` checks each against brute force.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import gcd
from typing import Any, Union


class Atom:
    """An integer unknown with a closed interval `[lo, hi]`; equal atoms print equal text."""

    __slots__ = ("text", "lo", "hi", "_hash")

    def __init__(self, text: str, lo: int, hi: int):
        self.text, self.lo, self.hi = text, lo, hi
        self._hash = hash((type(self).__name__, text, lo, hi))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            type(self) is type(other)
            and self.text == other.text  # type: ignore[attr-defined]
            and self.lo == other.lo  # type: ignore[attr-defined]
            and self.hi == other.hi  # type: ignore[attr-defined]
        )

    def __repr__(self) -> str:
        return self.text


class Axis(Atom):
    """A loop axis: the integers `0 … size - 1`."""

    __slots__ = ("name", "size")

    def __init__(self, name: str, size: int):
        super().__init__(name, 0, max(size - 1, 0))
        self.name, self.size = name, size


class Slot(Atom):
    """The value of index input `number` of an indexed view, known to lie in `[lo, hi]` where it matters."""

    __slots__ = ("number", "payload")

    def __init__(self, number: int, lo: int, hi: int, payload: Any = None, text: str | None = None):
        super().__init__(text or f"@{number}", lo, hi)
        self.number, self.payload = number, payload
        self._hash = hash((self.text, lo, hi, id(payload)))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and self.payload is other.payload  # type: ignore[attr-defined]


class FloorDiv(Atom):
    """`inner // divisor` that no rule could remove.

    It compares by `inner`: two slots print the same text and may read different data.
    """

    __slots__ = ("inner", "divisor")

    def __init__(self, inner: Index, divisor: int):
        super().__init__(f"({inner})//{divisor}", inner.lo // divisor, inner.hi // divisor)
        self.inner, self.divisor = inner, divisor
        self._hash = hash(("//", inner, divisor))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, FloorDiv) and self.divisor == other.divisor and self.inner == other.inner
        )


class Mod(Atom):
    """`inner % divisor` that no rule could remove; compares as FloorDiv does."""

    __slots__ = ("inner", "divisor")

    def __init__(self, inner: Index, divisor: int):
        super().__init__(f"({inner})%{divisor}", 0, divisor - 1)
        self.inner, self.divisor = inner, divisor
        self._hash = hash(("%", inner, divisor))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Mod) and self.divisor == other.divisor and self.inner == other.inner
        )


IndexLike = Union["Index", Atom, int]


class Index:
    """`const + Σ coefficient · atom`, canonical: no zero coefficient, atoms sorted by their text, each once.
    """

    __slots__ = ("terms", "const", "lo", "hi", "_hash")

    def __init__(self, terms: tuple[tuple[Atom, int], ...], const: int):
        self.terms, self.const = terms, const
        lo = hi = const
        for atom, coefficient in terms:
            if coefficient > 0:
                lo += coefficient * atom.lo
                hi += coefficient * atom.hi
            else:
                lo += coefficient * atom.hi
                hi += coefficient * atom.lo
        self.lo, self.hi = lo, hi
        self._hash = hash((terms, const))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Index)
            and self._hash == other._hash
            and self.const == other.const
            and self.terms == other.terms
        )

    def __repr__(self) -> str:
        parts = [atom.text if c == 1 else f"{c}*{_bracketed(atom)}" for atom, c in self.terms]
        if self.const or not parts:
            parts.append(str(self.const))
        return " + ".join(parts)

    def __add__(self, other: IndexLike) -> Index:
        if isinstance(other, int):
            return Index(self.terms, self.const + other) if other else self
        other = index(other)
        if not other.terms:
            return Index(self.terms, self.const + other.const)
        total = dict(self.terms)
        for atom, coefficient in other.terms:
            total[atom] = total.get(atom, 0) + coefficient
        return linear(total, self.const + other.const)

    __radd__ = __add__

    def __neg__(self) -> Index:
        return self * -1

    def __sub__(self, other: IndexLike) -> Index:
        return self + (-other if isinstance(other, int) else -index(other))

    def __rsub__(self, other: IndexLike) -> Index:
        return -self + other

    def __mul__(self, factor: int) -> Index:
        if factor == 1:
            return self
        if factor == 0:
            return ZERO
        return Index(tuple((atom, c * factor) for atom, c in self.terms), self.const * factor)

    __rmul__ = __mul__

    def __floordiv__(self, divisor: int) -> Index:
        return floor_divide(self, divisor)

    def __mod__(self, divisor: int) -> Index:
        return modulo(self, divisor)

    @property
    def is_constant(self) -> bool:
        return not self.terms

    def coefficient(self, atom: Atom) -> int:
        """The coefficient of `atom` at the top level (0 where it only occurs inside divisions)."""
        for term, c in self.terms:
            if term == atom:
                return c
        return 0


def _bracketed(atom: Atom) -> str:
    return f"({atom.text})" if isinstance(atom, (FloorDiv, Mod)) else atom.text


ZERO = Index((), 0)


def index(value: IndexLike) -> Index:
    """An axis, a slot or an integer as an `Index`."""
    if isinstance(value, Index):
        return value
    if isinstance(value, Atom):
        if isinstance(value, Axis) and value.size <= 1:
            return ZERO
        return Index(((value, 1),), 0)
    return Index((), int(value)) if value else ZERO


def linear(coefficients: Mapping[Atom, int], const: int) -> Index:
    """Canonical form of a sum; also joins `n·(x // n) + (x % n)` back to `x`."""
    terms = {atom: c for atom, c in coefficients.items() if c}
    for atom in [a for a in terms if isinstance(a, Mod)]:
        if atom not in terms:
            continue
        scale = terms[atom]
        quotient = floor_divide(atom.inner, atom.divisor)
        if len(quotient.terms) == 1 and quotient.const == 0 and quotient.terms[0][1] == 1:
            partner = quotient.terms[0][0]
            if terms.get(partner) == scale * atom.divisor:
                del terms[atom], terms[partner]
                return Index(_sorted(terms), const) + atom.inner * scale
    return Index(_sorted(terms), const)


def _sorted(terms: Mapping[Atom, int]) -> tuple[tuple[Atom, int], ...]:
    if len(terms) == 1:
        return tuple(terms.items())
    return tuple(sorted(terms.items(), key=_atom_text))


def _atom_text(item: tuple[Atom, int]) -> str:
    return item[0].text


def floor_divide(value: Index, divisor: int) -> Index:
    """`value // divisor` (floor) for a positive divisor."""
    if divisor <= 0:
        raise ValueError(f"an index is divided by {divisor}; divisors must be positive")
    if divisor == 1:
        return value
    if value.is_constant:
        return index(value.const // divisor)
    if 0 <= value.lo and value.hi < divisor:
        return ZERO
    whole, rest, rest_const = {}, {}, value.const % divisor
    for atom, c in value.terms:
        if c % divisor == 0:
            whole[atom] = c // divisor
        else:
            rest[atom] = c
    whole_const = value.const // divisor
    if not rest:
        return linear(whole, whole_const)
    remainder = linear(rest, rest_const)
    base = linear(whole, whole_const)
    shift = remainder.lo // divisor
    if remainder.hi // divisor == shift:
        return base + shift
    if shift and remainder.lo < 0:
        remainder, base = remainder + -shift * divisor, base + shift
    common = divisor
    for _, c in remainder.terms:
        common = gcd(common, c)
    if common > 1:
        # (g·r + s) // (g·n) == (r + s // g) // n for integers r
        reduced = Index(tuple((a, c // common) for a, c in remainder.terms), remainder.const // common)
        return base + floor_divide(reduced, divisor // common)
    split = _split_small(remainder, divisor)
    if split is not None:
        return base + floor_divide(split[0], divisor // split[2])
    if len(remainder.terms) == 1 and remainder.const == 0:
        atom, c = remainder.terms[0]
        if c == 1 and isinstance(atom, FloorDiv):
            return base + floor_divide(atom.inner, atom.divisor * divisor)
    return base + Index(((FloorDiv(remainder, divisor), 1),), 0)


def _split_small(value: Index, divisor: int) -> tuple[Index, Index, int] | None:
    """`value = g · big + small` with g > 1 dividing `divisor` and `0 <= small < g`: (big, small, g), or None.
    """
    candidates = sorted({gcd(c, divisor) for _, c in value.terms} - {1}, reverse=True)
    for g in candidates:
        small = Index(tuple((a, c) for a, c in value.terms if c % g), value.const % g)
        if 0 <= small.lo and small.hi < g:
            big = Index(tuple((a, c // g) for a, c in value.terms if c % g == 0), value.const // g)
            return big, small, g
    return None


def modulo(value: Index, divisor: int) -> Index:
    """`value % divisor` (result in `0 … divisor - 1`) for a positive divisor."""
    if divisor <= 0:
        raise ValueError(f"an index is reduced modulo {divisor}; divisors must be positive")
    if divisor == 1:
        return ZERO
    if 0 <= value.lo and value.hi < divisor:
        return value
    rest = {atom: c for atom, c in value.terms if c % divisor}
    remainder = linear(rest, value.const % divisor)
    if remainder.is_constant:
        return index(remainder.const % divisor)
    shift = remainder.lo // divisor
    if remainder.hi // divisor == shift:
        return remainder + -shift * divisor
    common = divisor
    for _, c in remainder.terms:
        common = gcd(common, c)
    if common > 1:
        small = remainder.const % common
        reduced = Index(
            tuple((a, c // common) for a, c in remainder.terms), (remainder.const - small) // common
        )
        return modulo(reduced, divisor // common) * common + small
    split = _split_small(remainder, divisor)
    if split is not None:
        return modulo(split[0], divisor // split[2]) * split[2] + split[1]
    if len(remainder.terms) == 1 and remainder.const == 0:
        atom, c = remainder.terms[0]
        if c == 1 and isinstance(atom, Mod) and atom.divisor % divisor == 0:
            return modulo(atom.inner, divisor)
    lowered = remainder + -shift * divisor if shift < 0 else remainder
    return Index(((Mod(lowered, divisor), 1),), 0)


def substitute(value: Index, replacement: Mapping[Atom, Index]) -> Index:
    """`value` with atoms replaced, simplified anew; atoms not named stay."""
    result = index(value.const)
    for atom, c in value.terms:
        result = result + _substitute_atom(atom, replacement) * c
    return result


def _substitute_atom(atom: Atom, replacement: Mapping[Atom, Index]) -> Index:
    found = replacement.get(atom)
    if found is not None:
        return found
    if isinstance(atom, FloorDiv):
        return floor_divide(substitute(atom.inner, replacement), atom.divisor)
    if isinstance(atom, Mod):
        return modulo(substitute(atom.inner, replacement), atom.divisor)
    return index(atom)


def evaluate(value: IndexLike, values: Callable[[Atom], Any]) -> Any:
    """The value of an index; `values` gives an axis's or slot's integer (or array of integers)."""
    value = index(value)
    total: Any = value.const
    for atom, c in value.terms:
        if isinstance(atom, FloorDiv):
            part = evaluate(atom.inner, values) // atom.divisor
        elif isinstance(atom, Mod):
            part = evaluate(atom.inner, values) % atom.divisor
        else:
            part = values(atom)
        total = total + part * c
    return total


def atoms_of(value: Index) -> set[Atom]:
    """The axes and slots that an index depends on, also those inside divisions and remainders."""
    found: set[Atom] = set()
    for atom, _ in value.terms:
        if isinstance(atom, (FloorDiv, Mod)):
            found |= atoms_of(atom.inner)
        else:
            found.add(atom)
    return found


def row_major_strides(shape: Iterable[int]) -> tuple[int, ...]:
    """Strides in elements of a dense row-major array."""
    strides, step = [], 1
    for size in reversed(tuple(shape)):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def flatten(indices: Iterable[IndexLike], shape: Iterable[int]) -> Index:
    """The row-major position of `indices` in an array of `shape`."""
    shape = tuple(shape)
    total = ZERO
    for position, stride in zip(indices, row_major_strides(shape), strict=True):
        total = total + index(position) * stride
    return total


def unflatten(position: Index, shape: Iterable[int]) -> tuple[Index, ...]:
    """The indices of row-major `position` in an array of `shape`; inverse of `flatten`."""
    shape = tuple(shape)
    strides = row_major_strides(shape)
    result = []
    for axis, (size, stride) in enumerate(zip(shape, strides, strict=True)):
        if size == 1:
            result.append(ZERO)
            continue
        quotient = floor_divide(position, stride)
        result.append(quotient if axis == 0 else modulo(quotient, size))
    return tuple(result)
