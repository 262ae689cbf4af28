"""How the oracle reads a VIEW: a strided array where the map allows, else fancy indexing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import gcd, prod

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tinyinfer.ir import index as algebra
from tinyinfer.ir.dtypes import NARROW, storage_dtype
from tinyinfer.ir.index import Atom, Axis, FloorDiv, Index, Mod, Slot, atoms_of, substitute
from tinyinfer.ir.node import ViewMap, output_axis

CHUNK = 1 << 22
"""Positions that one step of fancy indexing handles; bounds the memory of its index arrays."""


def read(source: np.ndarray, view: ViewMap, shape: tuple[int, ...],
         slots: Sequence[np.ndarray]) -> np.ndarray:
    """The value of a VIEW of `source`: an array of `shape`, often virtual (strided, not writeable).

    `slots` are the index inputs, arrays of `shape` as well. Axes that the view does not depend on have
    stride 0. Raises IndexError where a position whose guards hold reads outside the source.
    """
    if source.dtype.name in NARROW:
        # numpy cannot make strided arrays of all of these
        bits = storage_dtype(source.dtype.name)
        code = np.asarray(view.fill).astype(source.dtype).view(bits).item()
        return read(source.view(bits), replace(view, fill=code), shape, slots).view(source.dtype)
    fill = np.asarray(view.fill).astype(source.dtype)
    if not prod(shape):
        return np.empty(shape, source.dtype)
    if not source.size:
        return np.broadcast_to(fill, shape)
    if not slots:
        strided = _strided(source, view, shape, {a: i for i, a in enumerate(_axes(shape))}, fill)
        if strided is not None:
            return strided
    used = _used_axes(view, shape, slots)
    dense = None if slots else _refined(source, view, used, fill)
    if dense is None:
        dense = _gathered(source, view, used, shape, slots, fill)
    return np.broadcast_to(dense.reshape([d if i in used else 1 for i, d in enumerate(shape)]), shape)


def _axes(shape: Sequence[int]) -> list[Axis]:
    return [output_axis(i, d) for i, d in enumerate(shape)]


def _expressions(view: ViewMap) -> list[Index]:
    return [*view.indices, *(g for g, _ in view.guards)]


def _used_axes(view: ViewMap, shape: Sequence[int], slots: Sequence[np.ndarray]) -> dict[int, Axis]:
    """The output axes, by position, that decide what is read."""
    atoms = set().union(*(atoms_of(e) for e in _expressions(view))) if view.indices or view.guards else set()
    return {i: a for i, a in enumerate(_axes(shape))
            if shape[i] > 1 and (a in atoms or any(s.strides[i] != 0 for s in slots))}


def _strided(source: np.ndarray, view: ViewMap, shape: Sequence[int], position: dict[Atom, int],
             fill: np.ndarray) -> np.ndarray | None:
    """The view as a strided array over `source`, padded where guards say so; None if the map forbids it.

    `position` says which dimension of `shape` each axis runs over.
    """
    if any(atom not in position for e in _expressions(view) for atom, _ in e.terms):
        return None
    allowed = _allowed_ranges(view, source.shape)
    if allowed is None:
        return None
    kept, before, after = [], [], []
    for place, (lo, hi), size in zip(view.indices, allowed, source.shape):
        first, last = max(lo, place.lo), min(hi, place.hi + 1)
        if first >= last:
            return np.broadcast_to(fill, shape)
        if first < 0 or last > size:
            raise IndexError(f"a view reads {place} of an axis of {size}")
        kept.append(slice(first, last))
        before.append(first - place.lo)
        after.append(place.hi + 1 - last)
    if any(before) or any(after):
        padded_size = prod(k.stop - k.start + b + a for k, b, a in zip(kept, before, after))
        if padded_size > 4 * (source.size + prod(shape)):
            return None
        base = np.pad(source[tuple(kept)], list(zip(before, after)), constant_values=fill)
    else:
        base = source[tuple(kept)]
    # dimension d of `base` now holds exactly the interval of index d
    strides = [0] * len(shape)
    start = []
    for place, step in zip(view.indices, base.strides):
        start.append(slice(place.const - place.lo, place.const - place.lo + 1))
        for atom, c in place.terms:
            strides[position[atom]] += c * step
    return as_strided(base[tuple(start)], shape, strides, writeable=False)


def _allowed_ranges(view: ViewMap, sizes: Sequence[int]) -> list[tuple[int, int]] | None:
    """The half-open range that guards leave to each source index; None if a guard says anything else."""
    allowed = [(i.lo, i.hi + 1) for i in view.indices]
    for guard, bound in view.guards:
        matched = False
        for d, place in enumerate(view.indices):
            for sign in (1, -1):
                offset = place - guard * sign
                if offset.is_constant and place.terms:
                    first = offset.const if sign == 1 else offset.const - bound + 1
                    allowed[d] = max(allowed[d][0], first), min(allowed[d][1], first + bound)
                    matched = True
                    break
        if not matched:
            return None
    return allowed


def _refined(source: np.ndarray, view: ViewMap, used: dict[int, Axis],
             fill: np.ndarray) -> np.ndarray | None:
    """The view over its used axes, cut where divisions and remainders need it, if that makes it affine."""
    cuts: dict[Atom, set[int]] = {a: set() for a in used.values()}
    for expression in _expressions(view):
        _collect_cuts(expression, cuts)
    shape: list[int] = []
    position: dict[Atom, int] = {}
    replaced: dict[Atom, Index] = {}
    for axis in used.values():
        steps = sorted(c for c in cuts[axis] if 1 < c < axis.size and axis.size % c == 0)
        bounds = [1, *steps, axis.size]
        if any(b % a for a, b in zip(bounds, bounds[1:])):
            return None
        total = algebra.ZERO
        for number, (low, high) in reversed(list(enumerate(zip(bounds, bounds[1:])))):
            part = Axis(f"{axis.text}_{number}", high // low)
            position[part] = len(shape)
            shape.append(part.size)
            total = total + algebra.index(part) * low
        replaced[axis] = total
    affine = ViewMap(tuple(substitute(i, replaced) for i in view.indices),
                     tuple((substitute(g, replaced), n) for g, n in view.guards), view.fill)
    return _strided(source, affine, shape, position, fill)


def _collect_cuts(expression: Index, cuts: dict[Atom, set[int]]) -> None:
    for atom, _ in expression.terms:
        if isinstance(atom, (FloorDiv, Mod)):
            for axis, c in atom.inner.terms:
                if axis in cuts:
                    cuts[axis].add(atom.divisor // gcd(atom.divisor, abs(c)))
            _collect_cuts(atom.inner, cuts)


def _gathered(source: np.ndarray, view: ViewMap, used: dict[int, Axis], shape: Sequence[int],
              slots: Sequence[np.ndarray], fill: np.ndarray) -> np.ndarray:
    """The view over its used axes by integer index arrays, a piece of the first axis at a time."""
    sizes = [a.size for a in used.values()]
    result = np.empty(sizes, source.dtype)
    flat = np.ascontiguousarray(source).reshape(-1)
    drop = tuple(slice(None) if i in used else 0 for i in range(len(shape)))
    data = [np.asarray(s[drop]) for s in slots]
    position = {a: i for i, a in enumerate(used.values())}
    if not sizes:
        result[...] = _gathered_piece(flat, source.shape, view, [], position, data, fill)
        return result
    rows = max(1, CHUNK // max(1, prod(sizes[1:])))
    for first in range(0, sizes[0], rows):
        piece = slice(first, min(first + rows, sizes[0]))
        ranges = [np.arange(piece.start, piece.stop), *(np.arange(n) for n in sizes[1:])]
        part = [s[piece] for s in data]
        result[piece] = _gathered_piece(flat, source.shape, view, ranges, position, part, fill)
    return result


def _gathered_piece(flat: np.ndarray, source_shape: Sequence[int], view: ViewMap, ranges: list[np.ndarray],
                    position: dict[Axis, int], slots: list[np.ndarray], fill: np.ndarray) -> np.ndarray:
    rank = len(ranges)

    def values(atom: Atom) -> np.ndarray:
        if isinstance(atom, Slot):
            return slots[atom.number].astype(np.int64)
        axis = position[atom]  # type: ignore[index]
        return ranges[axis].reshape([-1 if i == axis else 1 for i in range(rank)])

    holds: np.ndarray = np.asarray(True)
    for guard, bound in view.guards:
        value = np.asarray(algebra.evaluate(guard, values))
        holds = holds & (value >= 0) & (value < bound)
    places: np.ndarray = np.asarray(0)
    for place, size, stride in zip(view.indices, source_shape, algebra.row_major_strides(source_shape)):
        value = np.asarray(algebra.evaluate(place, values))
        outside = (value < 0) | (value >= size)
        if outside.any():
            if (outside & holds).any():
                raise IndexError(f"a view reads {place} of an axis of {size}")
            value = np.clip(value, 0, size - 1)
        places = places + value * stride
    return np.where(holds, flat.take(places), fill)
