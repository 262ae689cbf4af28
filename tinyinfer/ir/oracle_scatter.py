"""How the oracle computes a SCATTER: update after update in row-major order, by numpy's `ufunc.at`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyinfer.ir import index as algebra
from tinyinfer.ir.index import Atom, Slot
from tinyinfer.ir.node import ScatterMap, output_axis
from tinyinfer.ir.ops import REDUCE


def write(base: np.ndarray, updates: np.ndarray, places: ScatterMap,
          slots: Sequence[np.ndarray]) -> np.ndarray:
    """The value of a SCATTER, a fresh array; IndexError where an update whose guards hold leaves it."""
    shape = updates.shape
    position = {output_axis(i, d): i for i, d in enumerate(shape)}

    def values(atom: Atom) -> np.ndarray:
        if isinstance(atom, Slot):
            return slots[atom.number].astype(np.int64)
        axis = position[atom]  # type: ignore[index]
        return np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])

    def whole(value: algebra.Index) -> np.ndarray:
        return np.broadcast_to(np.asarray(algebra.evaluate(value, values)), shape)

    holds = np.ones(shape, bool)
    for guard, bound in places.guards:
        value = whole(guard)
        holds = holds & (value >= 0) & (value < bound)
    targets = []
    for place, size in zip(places.indices, base.shape):
        target = whole(place)[holds]
        if ((target < 0) | (target >= size)).any():
            raise IndexError(f"a scatter writes {place} of an axis of {size}")
        targets.append(target)
    result = np.array(base, order="C")
    if places.combine == "SET":
        result[tuple(targets)] = updates[holds]
    else:
        REDUCE[places.combine][0].at(result, tuple(targets), updates[holds])
    return result
