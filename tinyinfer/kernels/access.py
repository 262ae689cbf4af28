"""Memory accesses of expressions, and walking and rebuilding expressions through them.

An index may hold integers that are read from data (`Slot`): their expressions hang below the access, and the
functions here see them, which those of `expression` do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tinyinfer.ir.index import Atom, Index, Slot, atoms_of, index, substitute
from tinyinfer.ir.node import Node
from tinyinfer.kernels.expression import Expr, expression, walk


@dataclass(frozen=True)
class ValueAccess:
    """A load before buffers are laid out: element `indices` of `value`, or `fill` where a guard fails."""

    value: Node
    indices: tuple[Index, ...]
    guards: tuple[tuple[Index, int], ...] = ()
    fill: float | int | bool = 0


@dataclass(frozen=True)
class Access:
    """Element `address` of argument number `argument`, or `fill` where a guard fails."""

    argument: int
    address: Index
    guards: tuple[tuple[Index, int], ...] = ()
    fill: float | int | bool = 0


@dataclass(frozen=True)
class ValueUpdate(ValueAccess):
    """Where an update goes, before buffers are laid out; `combine` as in a ScatterMap. Guards drop it."""

    combine: str = "SET"


@dataclass(frozen=True)
class Update(Access):
    """Where an update goes; `combine` as in a ScatterMap. Guards drop it."""

    combine: str = "SET"


ACCESSES = ("LOAD", "UPDATE")
"""Expressions whose attribute is an access: its indices, and data below them, belong to the expression."""


def walk_with_indices(root: Expr):
    """`walk`, going also into the expressions that data-dependent indices are read from."""
    seen: set[int] = set()

    def visit(top: Expr):
        for e in walk(top):
            if id(e) in seen:
                continue
            seen.add(id(e))
            for inner in payloads(e):
                yield from visit(inner)
            yield e

    yield from visit(root)


def payloads(e: Expr) -> list[Expr]:
    """The expressions whose integer values occur in the indices of `e`."""
    indices: list[Index] = []
    if e.op in ACCESSES:
        indices = (
            [*e.attrs.indices, *(g for g, _ in e.attrs.guards)]
            if isinstance(e.attrs, ValueAccess)
            else [e.attrs.address, *(g for g, _ in e.attrs.guards)]
        )
    elif e.op == "INDEX":
        indices = [e.attrs]
    found: dict[int, Expr] = {}
    for i in indices:
        for a in atoms_of(i):
            if isinstance(a, Slot) and a.payload is not None:
                found[id(a.payload)] = a.payload
    return [found[k] for k in found]


def rebuild(root: Expr, change: Callable[[Expr], Expr | None]) -> Expr:
    """`root` with every expression replaced by `change` of it (None keeps), arguments rebuilt first.

    Data-dependent indices are rebuilt too.
    """
    memo: dict[int, Expr] = {}

    def visit(top: Expr) -> Expr:
        for e in walk(top):
            if id(e) in memo:
                continue
            made = e
            if e.args:
                made = expression(e.op, tuple(memo[id(a)] for a in e.args), e.dtype, e.attrs)
            if e.op in (*ACCESSES, "INDEX"):
                made = _rebuild_payloads(made, visit)
            memo[id(e)] = change(made) or made
        return memo[id(top)]

    return visit(root)


def _rebuild_payloads(e: Expr, visit: Callable[[Expr], Expr]) -> Expr:
    def renew(value: Index) -> Index:
        slots = [a for a in atoms_of(value) if isinstance(a, Slot) and a.payload is not None]
        if not slots:
            return value
        table: dict[Atom, Index] = {a: index(Slot(a.number, a.lo, a.hi, visit(a.payload))) for a in slots}
        return substitute(value, table)

    if e.op == "INDEX":
        return expression("INDEX", (), e.dtype, renew(e.attrs))
    guards = tuple((renew(g), n) for g, n in e.attrs.guards)
    if isinstance(e.attrs, ValueAccess):
        changed = replace(e.attrs, indices=tuple(map(renew, e.attrs.indices)), guards=guards)
    else:
        changed = replace(e.attrs, address=renew(e.attrs.address), guards=guards)
    return expression(e.op, e.args, e.dtype, changed)
