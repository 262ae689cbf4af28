"""Reads at constant positions: plain views where the positions are regular, else through an index table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tinyinfer.ir import build
from tinyinfer.ir.index import Index, Slot, index
from tinyinfer.ir.node import Node, output_axis

MAX_FACTOR = 64
"""Repetition factors up to this one are recognised as a division of the position."""


def read_places(x: Node, places: Mapping[int, np.ndarray]) -> Node:
    """`x` with each axis in `places` read at the given positions, which must lie within it.

    The result has the length of the positions in place of that axis. Evenly spaced positions and evenly
    repeated ones become index arithmetic; others a constant int64 table that the view reads.
    """
    shape = [len(places[i]) if i in places else d for i, d in enumerate(x.shape)]
    indices: list[Index] = []
    tables: list[Node] = []
    for i, d in enumerate(x.shape):
        here = index(output_axis(i, shape[i]))
        if i not in places:
            indices.append(here)
            continue
        wanted = np.asarray(places[i], np.int64)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < d:
            raise ValueError(
                f"positions {int(wanted.min())} to {int(wanted.max())} reach outside of an axis of {d}"
            )
        regular = regular_index(wanted, here)
        if regular is None:
            regular = index(Slot(len(tables), int(wanted.min()), int(wanted.max())))
            tables.append(
                build.reshape(
                    build.constant(wanted), [len(wanted) if a == i else 1 for a in range(len(shape))]
                )
            )
        indices.append(regular)
    return build.view(x, indices, shape, index_inputs=[build.expand(t, shape) for t in tables])


def regular_index(places: np.ndarray, here: Index) -> Index | None:
    """`places` as a + b · here or a + (b + here) // factor of the position `here`; None if neither."""
    n = len(places)
    if n <= 1:
        return index(int(places[0]) if n else 0)
    steps = np.diff(places)
    if (steps == steps[0]).all():
        return here * int(steps[0]) + int(places[0])
    if not ((steps == 0) | (steps == 1)).all():
        return None
    first = int(np.argmax(steps)) + 1  # length of the first run
    positions = np.arange(n)
    ends = np.flatnonzero(steps)
    factor = max(int(np.diff(ends)[0]) if len(ends) > 1 else 0, first, n - int(ends[-1]) - 1)
    if factor <= MAX_FACTOR:
        shift = (factor - first) % factor
        if ((positions + shift) // factor + int(places[0]) == places).all():
            return (here + shift) // factor + int(places[0])
    return None


def pick(x: Node, axis: int, places: Sequence[int]) -> Node:
    """`x` at the given non-negative positions along an axis: runs of even spacing are views, joined."""
    parts: list[Node] = []
    start = 0
    places = list(places)
    while start < len(places):
        stop = start + 1
        step = places[stop] - places[start] if stop < len(places) else 0
        while stop < len(places) and places[stop] - places[stop - 1] == step:
            stop += 1
        parts.append(_run(x, axis, places[start], step, stop - start))
        start = stop
    return build.concat(parts, axis) if parts else _run(x, axis, 0, 0, 0)


def _run(x: Node, axis: int, first: int, step: int, count: int) -> Node:
    shape = [count if i == axis else d for i, d in enumerate(x.shape)]
    places: list[Index] = [index(output_axis(i, d)) for i, d in enumerate(shape)]
    places[axis] = places[axis] * step + first
    return build.view(x, places, shape)
