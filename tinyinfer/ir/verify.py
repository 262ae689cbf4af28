"""The verifier of the IR: what must hold of every node, whoever made it.

Graphs are acyclic by construction (a node's inputs exist before it), so only single nodes need checking.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import numpy as np

from tinyinfer.ir import index as algebra
from tinyinfer.ir.dtypes import is_float, numpy_dtype
from tinyinfer.ir.index import Atom, Axis, FloorDiv, Index, Mod, Slot, atoms_of
from tinyinfer.ir.node import COMBINATIONS, UNBOUNDED, Graph, Literal, LoopBody, Node, ScatterMap, ViewMap
from tinyinfer.ir.ops import ELEMENTWISE, REDUCE

POSITIONS = 1 << 20
"""Positions of a view that are tried one by one where interval arithmetic cannot prove its indices."""


class VerificationError(ValueError):
    """A node breaks a rule of the IR; the message names the node, its origin and the stage that made it."""


def verify(graph: Graph, stage: str = "") -> None:
    """Check every node of `graph`; raises VerificationError for the first that breaks a rule."""
    for name, x in graph.inputs.items():
        if x.op != "INPUT" or x.attrs != name:
            raise VerificationError(f"input {name!r} of the graph is {x!r}, not an INPUT of that name")
    fed = {id(x) for x in graph.inputs.values()}
    for number, current in enumerate(graph.nodes()):
        try:
            if current.op == "INPUT" and id(current) not in fed:
                raise VerificationError(f"{current.attrs!r} is not among the graph's inputs")
            check_node(current)
        except VerificationError as error:
            origin = f" of {', '.join(sorted(current.origin))}" if current.origin else ""
            after = f"after {stage}: " if stage else ""
            raise VerificationError(f"{after}node {number} {current!r}{origin}: {error}") from None


def check_node(x: Node) -> None:
    """Check one node, given that its inputs are sound."""
    _require(all(isinstance(d, int) and d >= 0 for d in x.shape), f"shape {x.shape}")
    try:
        numpy_dtype(x.dtype)
    except (TypeError, AttributeError):
        raise VerificationError(f"dtype {x.dtype!r} is unknown") from None
    if x.op in REDUCE and len(x.inputs) == 1:
        _check_reduce(x)
    elif x.op in ELEMENTWISE:
        _check_elementwise(x)
    elif x.op in _CHECKS:
        _CHECKS[x.op](x)
    else:
        raise VerificationError(f"the IR has no op {x.op!r}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise VerificationError(message)


def _check_input(x: Node) -> None:
    _require(not x.inputs and isinstance(x.attrs, str), "INPUT has no inputs and its name as attribute")


def _check_constant(x: Node) -> None:
    _require(not x.inputs and isinstance(x.attrs, Literal), "CONST has no inputs and a Literal as attribute")
    _require(x.attrs.shape == x.shape, f"literal of shape {x.attrs.shape} in a node of shape {x.shape}")
    _require(x.attrs.dtype == x.dtype, f"literal of dtype {x.attrs.dtype} in a node of dtype {x.dtype}")


def _check_iota(x: Node) -> None:
    _require(not x.inputs and isinstance(x.attrs, Index), "IOTA has no inputs and an Index as attribute")
    _require(numpy_dtype(x.dtype).kind in "iu", f"IOTA gives integers, not {x.dtype}")
    _check_atoms(x, [x.attrs])


def _check_elementwise(x: Node) -> None:
    rule = ELEMENTWISE[x.op]
    _require(len(x.inputs) == rule.arity, f"{x.op} takes {rule.arity} inputs, not {len(x.inputs)}")
    for operand in x.inputs:
        _require(operand.shape == x.shape, f"operand of shape {operand.shape} in a node of shape {x.shape}")
    dtypes = [operand.dtype for operand in x.inputs]
    expected = x.attrs if rule.result == "attr" else "bool" if rule.result == "bool" else dtypes[-1]
    if x.op == "WHERE":
        _require(dtypes[0] == "bool", f"the condition of WHERE is {dtypes[0]}, not bool")
        dtypes = dtypes[1:]
    elif x.op in ("SHL", "SHR"):
        expected, dtypes = dtypes[0], dtypes[:1]
    _require(len(set(dtypes)) == 1, f"operands of dtypes {dtypes}")
    _require(x.dtype == expected, f"dtype {x.dtype} where operands give {expected}")
    if rule.result != "attr":
        _require(x.attrs is None, f"{x.op} has no attribute, not {x.attrs!r}")
    if x.op == "BITCAST":
        sizes = [numpy_dtype(d).itemsize for d in (x.dtype, x.inputs[0].dtype)]
        _require(sizes[0] == sizes[1], f"BITCAST of {x.inputs[0].dtype} to {x.dtype} changes the size")
    if x.op == "NOT":
        _require(not is_float(x.dtype), "NOT takes bools and integers")


def _check_reduce(x: Node) -> None:
    source = x.inputs[0]
    rank = len(source.shape)
    _require(isinstance(x.attrs, tuple) and bool(x.attrs), f"{x.op} has axes as attribute, not {x.attrs!r}")
    _require(list(x.attrs) == sorted(set(x.attrs)), f"axes {x.attrs} are not in order")
    _require(0 <= x.attrs[0] and x.attrs[-1] < rank, f"axes {x.attrs} of rank {rank}")
    kept = tuple(d for i, d in enumerate(source.shape) if i not in x.attrs)
    _require(x.shape == kept, f"shape {x.shape} where axes {x.attrs} of {source.shape} leave {kept}")
    _require(x.dtype == source.dtype, f"dtype {x.dtype} of a reduction of {source.dtype}")


def _check_concat(x: Node) -> None:
    axis, rank = x.attrs, len(x.shape)
    _require(isinstance(axis, int) and 0 <= axis < rank, f"CONCAT along {axis!r} of rank {rank}")
    _require(bool(x.inputs), "CONCAT of nothing")
    for part in x.inputs:
        same = part.shape[:axis] == x.shape[:axis] and part.shape[axis + 1:] == x.shape[axis + 1:]
        _require(same and part.dtype == x.dtype, f"CONCAT along {axis} of {part!r}")
    total = sum(part.shape[axis] for part in x.inputs)
    _require(total == x.shape[axis], f"CONCAT of {total} elements along an axis of {x.shape[axis]}")


def _check_view(x: Node) -> None:
    _require(bool(x.inputs) and isinstance(x.attrs, ViewMap), "VIEW has a source and a ViewMap as attribute")
    source, slots = x.inputs[0], x.inputs[1:]
    _require(x.dtype == source.dtype, f"dtype {x.dtype} of a view of {source.dtype}")
    _require(len(x.attrs.indices) == len(source.shape),
             f"{len(x.attrs.indices)} indices into a source of rank {len(source.shape)}")
    for slot in slots:
        _require(slot.shape == x.shape, f"index input of shape {slot.shape} in a view of shape {x.shape}")
        _require(numpy_dtype(slot.dtype).kind in "iu", f"index input of dtype {slot.dtype}")
    _check_places(x, x.attrs, source.shape, len(slots))


def _check_scatter(x: Node) -> None:
    _require(len(x.inputs) >= 2 and isinstance(x.attrs, ScatterMap),
             "SCATTER has a base, updates and a ScatterMap as attribute")
    base, updates, *slots = x.inputs
    _require(x.attrs.combine in COMBINATIONS, f"SCATTER combines by {x.attrs.combine!r}")
    _require(x.shape == base.shape and x.dtype == base.dtype, f"SCATTER into {base!r} gives {x!r}")
    _require(updates.dtype == base.dtype, f"updates of {updates.dtype} into {base.dtype}")
    _require(len(x.attrs.indices) == len(base.shape),
             f"{len(x.attrs.indices)} indices into a base of rank {len(base.shape)}")
    for slot in slots:
        _require(slot.shape == updates.shape, f"index input of shape {slot.shape} for {updates.shape}")
        _require(numpy_dtype(slot.dtype).kind in "iu", f"index input of dtype {slot.dtype}")
    _check_places(updates, x.attrs, base.shape, len(slots))


def _check_places(over: Node, places: ViewMap | ScatterMap, sizes: tuple[int, ...], slots: int) -> None:
    """Check indices over the axes of `over` into an array of `sizes`."""
    _check_atoms(over, [*places.indices, *(g for g, _ in places.guards)], slots)
    _require(all(n >= 0 for _, n in places.guards), "a guard of negative size")
    if prod(over.shape):
        for place, size in zip(places.indices, sizes):
            _require(_in_range(over, place, size, places.guards), f"index {place} leaves an axis of {size}")


def _check_atoms(x: Node, expressions: Iterable[Index], slots: int = 0) -> None:
    axes = set(x.axes)
    for expression in expressions:
        _check_intervals(expression)
        for atom in atoms_of(expression):
            if isinstance(atom, Slot):
                _require(0 <= atom.number < slots, f"{expression} reads index input {atom.number} of {slots}")
            else:
                _require(atom in axes, f"{expression} uses {atom}, which is no axis of {x.shape}")


def _check_intervals(expression: Index) -> None:
    for atom, c in expression.terms:
        _require(c != 0, f"{expression} has a zero coefficient")
        if isinstance(atom, (FloorDiv, Mod)):
            _require(atom.divisor > 0, f"{expression} divides by {atom.divisor}")
            _check_intervals(atom.inner)


# ---- indices in range


def _in_range(x: Node, place: Index, size: int, guards: tuple[tuple[Index, int], ...]) -> bool:
    """Whether `place`, over the axes of `x`, lies in `0 … size - 1` wherever the guards hold."""
    lo, hi = _guarded_interval(place, guards)
    if 0 <= lo and hi < size:
        return True
    if any(isinstance(a, Slot) for e in (place, *(g for g, _ in guards)) for a in atoms_of(e)):
        return False
    return _tried(x, place, size, guards)


def _guarded_interval(place: Index, guards: Iterable[tuple[Index, int]]) -> tuple[int, int]:
    """An interval of `place` where `0 <= guard < size` for all guards, by taking guards out of the sum."""
    rest, lo, hi = place, 0, 0
    for guard, size in guards:
        if guard.hi < 0 or guard.lo >= size:
            return 0, -1
        factor = _factor(rest, guard)
        if factor:
            remaining = rest - guard * factor
            span = (size - 1) * factor
            if remaining.hi - remaining.lo + abs(span) <= rest.hi - rest.lo:
                rest, lo, hi = remaining, lo + min(0, span), hi + max(0, span)
    return rest.lo + lo, rest.hi + hi


def _factor(place: Index, guard: Index) -> int:
    """How many times `guard` fits into `place`, by its first common atom; 0 if it does not."""
    for atom, c in guard.terms:
        wanted = place.coefficient(atom)
        if wanted and wanted % c == 0:
            return wanted // c
    return 0


def _tried(x: Node, place: Index, size: int, guards: tuple[tuple[Index, int], ...]) -> bool:
    """Try every position that the guards and the index tell apart; views too large for that are believed."""
    expressions = [place, *(g for g, _ in guards)]
    used = [a for a in x.axes if any(a in atoms_of(e) for e in expressions)]
    if prod(a.size for a in used) > POSITIONS:
        return True

    def values(atom: Atom) -> np.ndarray:
        assert isinstance(atom, Axis)
        return np.arange(atom.size).reshape([-1 if a == atom else 1 for a in used])

    holds: np.ndarray = np.asarray(True)
    for guard, bound in guards:
        value = np.asarray(algebra.evaluate(guard, values))
        holds = holds & (value >= 0) & (value < bound)
    value = np.asarray(algebra.evaluate(place, values))
    outside = (value < 0) | (value >= size)
    return not bool((outside & holds).any())


def _check_loop(x: Node) -> None:
    body = x.attrs
    _require(isinstance(body, LoopBody), "LOOP has a LoopBody as attribute")
    _require(x.shape == () and x.dtype == "int64", "the value of a LOOP is an int64 scalar")
    _require(0 <= body.steps <= UNBOUNDED, f"a LOOP of {body.steps} steps")
    scanned, stacked = len(body.scanned), len(body.stacked)
    _require(len(x.inputs) == len(body.inputs) - 1 + body.counted + body.conditional,
             f"a LOOP over {len(x.inputs)} values, whose body has {len(body.inputs)} inputs")
    _require(len(body.outputs) == body.carried + stacked + body.conditional,
             f"a body of {len(body.outputs)} results")
    _require(body.steps < UNBOUNDED or not (scanned or stacked), "rows for endless iterations")
    _require(body.steps < UNBOUNDED or body.counted or body.conditional, "an endless LOOP")
    first, last = body.carried, body.carried + scanned
    for number, (outer, inner) in enumerate(zip(x.inputs, body.inputs[1:])):
        row = (body.steps, *inner.shape) if first <= number < last else inner.shape
        _require(outer.shape == row and outer.dtype == inner.dtype, f"{outer!r} for the body's {inner!r}")
    for old, new in zip(body.inputs[1:], body.outputs[: body.carried]):
        _require(old.shape == new.shape and old.dtype == new.dtype, f"carried {old!r} becomes {new!r}")
    iteration = body.inputs[0]
    scalars = [(iteration, "int64")] + [(x.inputs[-1 - body.conditional], "int64")] * body.counted
    scalars += [(x.inputs[-1], "bool"), (body.outputs[-1], "bool")] if body.conditional else []
    for value, dtype in scalars:
        _require(value.shape == () and value.dtype == dtype, f"{value!r} where a scalar {dtype} belongs")
    verify(body.graph)


def _check_loop_output(x: Node) -> None:
    _require(len(x.inputs) == 1 and x.inputs[0].op == "LOOP", "LOOP_OUTPUT of what is no LOOP")
    body = x.inputs[0].attrs
    _require(isinstance(x.attrs, int) and 0 <= x.attrs < body.carried + len(body.stacked),
             f"LOOP_OUTPUT {x.attrs!r}")
    inner = body.outputs[x.attrs]
    shape = inner.shape if x.attrs < body.carried else (body.steps, *inner.shape)
    _require(x.shape == shape and x.dtype == inner.dtype, f"{x!r} of the body's {inner!r}")


_CHECKS = {
    "INPUT": _check_input,
    "CONST": _check_constant,
    "IOTA": _check_iota,
    "VIEW": _check_view,
    "CONCAT": _check_concat,
    "SCATTER": _check_scatter,
    "LOOP": _check_loop,
    "LOOP_OUTPUT": _check_loop_output,
}
