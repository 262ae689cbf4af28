"""Expressions of the loop-nest IR: what a kernel computes at one position of its axes.

| op | args | attrs | meaning |
|---|---|---|---|
| LOAD | – | Access | one element of a buffer |
| CONST | – | Python number | a literal |
| INDEX | – | Index | an integer computed from the axes |
| elementwise (ir.ops) | 1–3 | – | arithmetic; CAST and BITCAST take their dtype from the expression |
| REDUCE | body | (op, axes) | SUM, MAX, MIN or PROD of body over axes |
| UPDATE | value | Access | puts the value at, or joins it to, one element of a buffer; a guard drops it |
| SLOT | – | name | a value that the schedule provides (a finished accumulator, a row statistic) |

Expressions are hash-consed: equal ones are one object, so a value table keyed by identity finds every repeat.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

from tinyinfer.ir.ops import ELEMENTWISE


class Expr:
    """One expression; make it with the functions below."""

    __slots__ = ("op", "args", "attrs", "dtype", "__weakref__")

    op: str
    args: tuple[Expr, ...]
    attrs: Any
    dtype: str

    def __repr__(self) -> str:
        if self.op == "CONST":
            return f"{self.attrs!r}:{self.dtype}"
        inner = ", ".join(map(repr, self.args))
        extra = f"{self.attrs}" if self.attrs is not None else ""
        return f"{self.op}[{extra}]:{self.dtype}({inner})" if extra else f"{self.op}:{self.dtype}({inner})"


_INTERNED: weakref.WeakValueDictionary[Any, Expr] = weakref.WeakValueDictionary()


def expression(op: str, args: tuple[Expr, ...], dtype: str, attrs: Any = None) -> Expr:
    """The expression with these fields; the same object for the same fields."""
    # repr tells 0.0 from -0.0 and 1 from True, which compare equal
    key = (op, tuple(map(id, args)), dtype, repr(attrs) if op == "CONST" else attrs)
    found = _INTERNED.get(key)
    if found is None:
        found = Expr()
        found.op, found.args, found.attrs, found.dtype = op, args, attrs, dtype
        _INTERNED[key] = found
    return found


def const(value: float | int | bool, dtype: str) -> Expr:
    """A literal."""
    return expression("CONST", (), dtype, value)


LOOSE = "loose"
"""Attribute of a MULACC whose product may be rounded, where a device has no fused one."""


def apply(op: str, *args: Expr, dtype: str | None = None) -> Expr:
    """An elementwise operation; `dtype` is for CAST and BITCAST."""
    rule = ELEMENTWISE[op]
    if len(args) != rule.arity:
        raise ValueError(f"{op} takes {rule.arity} arguments, not {len(args)}")
    if rule.result == "bool":
        dtype = "bool"
    elif rule.result == "same":
        dtype = args[0].dtype if op in ("SHL", "SHR") else args[-1].dtype
    assert dtype is not None
    return expression(op, args, dtype)


def walk(root: Expr) -> Iterator[Expr]:
    """Every sub-expression once, arguments before users."""
    seen: set[int] = set()
    stack = [(root, False)]
    while stack:
        current, ready = stack.pop()
        if ready:
            yield current
        elif id(current) not in seen:
            seen.add(id(current))
            stack.append((current, True))
            stack.extend((a, False) for a in current.args)
