"""Interpolated reads at positions that are data: per axis a few taps, each an integer place and a weight.

A tap outside of the tensor reads 0, so places need no check of their own. Places and weights that are
smaller than the result (shared by its channels) become buffers, computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinyinfer.frontend.onnx.ops.elementwise import like
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.index import Index, Slot, index
from tinyinfer.ir.node import Node, ViewMap, node

ANYWHERE = 1 << 62
"""Interval of an integer of which nothing is known."""


@dataclass(frozen=True)
class Place:
    """One position along an axis: integers of the result's shape, plus a constant."""

    data: Node
    offset: int = 0


@dataclass(frozen=True)
class Tap:
    """A place and its weight, of the result's shape; None is 1."""

    place: Place
    weight: Node | None = None


def read_at(x: Node, places: Sequence[Place | Index], shape: Sequence[int]) -> Node:
    """`x` at one place per axis, over the axes of `shape`; 0 where a place is outside of it."""
    slots: list[Node] = []
    indices: list[Index] = []
    guards: list[tuple[Index, int]] = []
    for place, size in zip(places, x.shape, strict=True):
        if isinstance(place, Index):
            indices.append(place)
            continue
        if place.data not in slots:
            slots.append(place.data)
        number, offset = slots.index(place.data), place.offset
        indices.append(index(Slot(number, -offset, max(size, 1) - 1 - offset)) + offset)
        guards.append((index(Slot(number, -ANYWHERE, ANYWHERE)) + offset, size))
    made = ViewMap(tuple(indices), tuple(guards), 0)
    return node("VIEW", (x, *slots), made, tuple(shape), x.dtype)


def interpolate(
    x: Node, lead: Sequence[Place | Index], taps: Sequence[Sequence[Tap]], shape: list[int]
) -> Node:
    """The weighted sum over the taps of the last axes of `x`, axis by axis; `lead` places the others."""

    def level(places: list[Place | Index]) -> Node:
        depth = len(places) - len(lead)
        if depth == len(taps):
            return read_at(x, places, shape)
        total: Node | None = None
        for tap in taps[depth]:
            part = level([*places, tap.place])
            if tap.weight is not None:
                part = elementwise("MUL", part, tap.weight)
            total = part if total is None else elementwise("ADD", total, part)
        assert total is not None
        return total

    return level(list(lead))


def linear_taps(position: Node, size: int) -> list[Tap]:
    """Two neighbours of a float position. Far positions are brought near, where they still read 0."""
    near = clamped(position, -2, size + 1)
    floor = elementwise("FLOOR", near)
    place = build.cast(floor, "int32")
    fraction = elementwise("SUB", near, floor)
    rest = elementwise("SUB", like(1, fraction), fraction)
    return [Tap(Place(place), rest), Tap(Place(place, 1), fraction)]


def expanded(tap: Tap, places: Sequence[Index], shape: Sequence[int]) -> Tap:
    """A tap whose data are read at `places` of the axes of `shape`."""
    return Tap(
        Place(build.view(tap.place.data, places, shape), tap.place.offset),
        None if tap.weight is None else build.view(tap.weight, places, shape),
    )


def clamped(x: Node, low: float, high: float) -> Node:
    """`x` within [low, high]; NaN stays."""
    return elementwise("MIN", elementwise("MAX", x, like(low, x)), like(high, x))


def cubic_weights(fraction: Node, a: float) -> Node:
    """Keys' weights of the four taps around a position, along a new first axis."""
    coefficients = np.array(
        [  # of 1, t, t², t³ for the taps at -1, 0, 1 and 2
            [0, a, -2 * a, a],
            [1, 0, -(a + 3), a + 2],
            [0, -a, 2 * a + 3, -(a + 2)],
            [0, 0, a, -a],
        ]
    )
    shape = (4, *fraction.shape)
    t = build.expand(fraction, shape)
    lead = [4, *[1] * len(fraction.shape)]
    columns = [
        build.expand(build.reshape(build.constant(c, fraction.dtype), lead), shape) for c in coefficients.T
    ]
    result = columns[3]
    for column in reversed(columns[:3]):
        result = elementwise("ADD", elementwise("MUL", result, t), column)
    return result
