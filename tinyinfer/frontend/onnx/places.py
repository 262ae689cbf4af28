"""Reads at constant positions: as plain views where the positions are regular, else through an index table."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tinyinfer.ir import build
from tinyinfer.ir.index import Index, Slot, index
from tinyinfer.ir.node import Node, output_axis

MAX_FACTOR = 64
"""Repetition factors up to this one are recognised as a division of the position."""


def read_places(x: Node, places: Mapping[int, np.ndarray]) -> Node:
    """`x` with each axis in `places` read at the given positions, which must lie within it.

    The result has the length of the positions in place of that axis. Evenly spaced positions and evenly repeated
    ones become index arithmetic; others a constant int64 table that the view reads.
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
    """`places` as an expression of the position `here`: a + b · here or (a + here) // factor; None if neither."""
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
