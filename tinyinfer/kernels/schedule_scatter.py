"""Schedules of scatters: along which axes updates never meet at one element and may be shared out.

Updates that collide must follow each other in row-major order. Along an *independent* axis no two updates
collide whatever the data say; those run outside, in parallel, but for one whose elements lie side by side,
which is vectorised inside. All other axes run one update after another.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from tinyinfer.ir.index import Axis, Index, Slot, atoms_of
from tinyinfer.kernels.expression import Expr
from tinyinfer.kernels.lower import LoweredKernel
from tinyinfer.kernels.nest import LoopNest, free_axes, indices_of, join_terms, map_indices, mergeable
from tinyinfer.kernels.schedule_map import CHUNK_CYCLES, MOST_CHUNKS, expression_weight

SCALAR_CYCLES = 6
"""Rough cost of one update by itself: address, check, load, operation and store."""


@dataclass(frozen=True)
class ScatterSchedule:
    """Loops of a scatter, outer first: `parallel` (chunks are taken from it), `serial` in row-major order,
    and `vector`, the axis of lanes (None: one update at a time)."""

    lanes: int
    parallel: tuple[Axis, ...]
    serial: tuple[Axis, ...]
    vector: Axis | None
    chunks: int
    work: ClassVar[None] = None

    @property
    def name(self) -> str:
        """The schedule as a kernel's name spells it."""
        return f"v{self.lanes}" if self.vector is not None else "scalar"


def independent_axes(lowered: LoweredKernel) -> frozenset[Axis]:
    """The axes of a scatter's updates that alone decide a dimension of the position: no two of their places
    collide."""
    found: set[Axis] = set()
    for place in lowered.body.attrs.indices:
        if all(isinstance(a, Axis) for a, _ in place.terms) and _is_injective(place):
            found |= {a for a, _ in place.terms if isinstance(a, Axis)}
    return frozenset(found)


def _is_injective(place: Index) -> bool:
    """Whether every combination of the axes gives another number: each step is beyond all smaller ones."""
    reach = 0
    for axis, c in sorted(place.terms, key=lambda term: abs(term[1])):
        if abs(c) <= reach:
            return False
        reach += abs(c) * (axis.hi - axis.lo)
    return True


def merge_scatter(nest: LoopNest, independent: frozenset[Axis]) -> tuple[LoopNest, frozenset[Axis]]:
    """Join neighbouring axes of one kind that every index walks as one; the order of updates stays."""
    while True:
        indices = list(indices_of(nest.body))
        pair = next(
            (
                (p, q)
                for p, q in zip(nest.axes, nest.axes[1:])
                if (p in independent) == (q in independent) and mergeable(p, q, indices)
            ),
            None,
        )
        if pair is None:
            return nest, independent
        outer, inner = pair
        joined = Axis(f"{outer.name}_{inner.name}", outer.size * inner.size)
        if outer in independent:
            independent = independent - {outer, inner} | {joined}

        def change(value: Index, outer=outer, inner=inner, joined=joined) -> Index:
            return join_terms(value, outer, inner, joined)

        axes = tuple(joined if a == inner else a for a in nest.axes if a != outer)
        nest = LoopNest(axes, nest.store, map_indices(nest.body, change, lambda group: group), nest.dtypes)


def pick_vector(nest: LoopNest, independent: frozenset[Axis]) -> Axis | None:
    """The independent axis along which updates go side by side, if checks and data do not depend on it."""
    access = nest.body.attrs
    free = free_axes(nest.body)
    for axis in reversed(nest.axes):
        if axis not in independent or axis.size < 2 or access.address.coefficient(axis) != 1:
            continue
        used = [access.address - _term(access.address, axis), *(g for g, _ in access.guards)]
        if not any(_depends(i, axis, free) for i in used):
            return axis
    return None


def _term(value: Index, axis: Axis) -> Index:
    return Index(((axis, value.coefficient(axis)),), 0)


def _depends(value: Index, axis: Axis, free: dict[int, frozenset[Axis]]) -> bool:
    return any(axis in free[id(a.payload)] if isinstance(a, Slot) else a == axis for a in atoms_of(value))


def schedule_scatter(nest: LoopNest, independent: frozenset[Axis], lanes: int) -> ScatterSchedule:
    """The schedule of a scatter whose axes are in row-major order."""
    vector = pick_vector(nest, independent)
    parallel = tuple(a for a in nest.axes if a in independent and a is not vector)
    serial = tuple(a for a in nest.axes if a not in independent)
    work = prod(a.size for a in nest.axes) * (SCALAR_CYCLES + _weight(nest.body))
    if vector is not None:
        work = work * -(-vector.size // lanes) // vector.size
    units = prod(a.size for a in parallel)
    return ScatterSchedule(
        lanes, parallel, serial, vector, max(1, min(MOST_CHUNKS, units, work // CHUNK_CYCLES))
    )


def _weight(update: Expr) -> int:
    return expression_weight(update.args[0])
