"""Contractions before their schedule is chosen, and all schedules that may be chosen for them.

Every schedule of the space computes the same bits: it says in which order results are computed, never in
which order the products of one result are added.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from math import ceil, prod

from tinyinfer.kernels.contraction import Contraction
from tinyinfer.kernels.physical import (
    ContractionNest,
    PhysicalKernel,
    build_contraction,
    merge_contraction,
    rebase,
)
from tinyinfer.kernels.schedule import (
    ContractionSchedule,
    MachineModel,
    most_rows,
    pick_vectors,
    row_tile,
    row_tile_count,
    schedule_contraction,
    wanted_blocks,
)
from tinyinfer.kernels.tuning import Tuning

MOST_VECTORS = 8
UNROLLS = (1, 2, 4, 8)
ORDERS = ((True, False), (False, False), (False, True))
"""`rows_outside` and `prefetch`: what is asked for ahead is the next panel, so panels are outside."""


@dataclass
class ContractionChoice:
    """A contraction whose schedule is to be chosen. How wide its panels are decides how constants are packed,
    so there is a nest for each number of vectors."""

    physical: PhysicalKernel
    roles: Contraction
    machine: MachineModel
    _nests: dict[int, ContractionNest] = field(default_factory=dict)

    def nest(self, vectors: int) -> ContractionNest:
        """The loop nest for panels of this many vectors; its physical kernel has the arguments."""
        made = self._nests.get(vectors)
        if made is None:
            width = vectors * self.machine.lanes
            made = merge_contraction(build_contraction(self.physical, self.roles, width))
            based, (a, b) = rebase(made.physical, (made.a, made.b))
            made = replace(made, physical=based, a=a, b=b, epilogue=based.nest.body)
            self._nests[vectors] = made
        return made

    @cached_property
    def key(self) -> str:
        """Names the kernel and what schedules know of the machine; equal layers have equal keys."""
        text = f"{self.machine}\n{self.nest(self._guess).text()}"
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    @property
    def work(self) -> int:
        """Multiply-adds."""
        c = self.nest(self._guess)
        return prod(a.size for a in (*c.groups, *c.m, *c.k)) * c.panels.columns

    @property
    def cycles(self) -> float:
        """Rough time on one core."""
        return self.work / (2.0 * self.machine.lanes)

    def heuristic(self) -> ContractionSchedule:
        """The schedule that is picked at once."""
        vectors = pick_vectors(self.nest(self._guess), self.machine)
        return schedule_contraction(self.nest(vectors), vectors, self.machine)

    def pick(self, tuning: Tuning) -> ContractionSchedule:
        """The schedule that `tuning` has for this kernel if it is one of the space, else the heuristic."""
        recorded = tuning.get(self.key) if tuning else None
        found = self.find(recorded) if recorded is not None else None
        return found if found is not None else self.heuristic()

    def find(self, recorded: Mapping[str, int]) -> ContractionSchedule | None:
        """The schedule of the space that has these fields, if there is one."""
        vectors = recorded.get("vectors")
        if vectors not in self.vectors():
            return None
        return next((s for s in self.space(vectors) if self.fields(s) == recorded), None)

    def fields(self, s: ContractionSchedule) -> dict[str, int]:
        """A schedule as a record keeps it: without the lanes, which belong to the machine."""
        return {f.name: int(getattr(s, f.name)) for f in fields(s) if f.name != "lanes"}

    # ---- the space

    @property
    def _guess(self) -> int:
        """Vectors of the nest that everything is told from which does not depend on them."""
        return min(2, self._needed)

    @property
    def _needed(self) -> int:
        return ceil(self.roles.vector.size / self.machine.lanes)

    def vectors(self) -> list[int]:
        """All numbers of vectors that a tile may have."""
        return [
            v
            for v in range(1, min(self._needed, MOST_VECTORS) + 1)
            if v == 1 or most_rows(v, self.machine) >= 1
        ]

    def tiles(self, vectors: int) -> list[tuple[int, int]]:
        """(height, width) of all row tiles that stay in registers, the largest first."""
        nest = self.nest(vectors)
        limits = range(max(1, most_rows(vectors, self.machine)), 0, -1)
        return list(dict.fromkeys(row_tile(nest, limit) for limit in limits))

    def unrolls(self, vectors: int) -> list[int]:
        """All numbers of steps of the innermost loop that may be written out."""
        k = self.nest(vectors).k
        return sorted({min(unroll, k[-1].size if k else 1) for unroll in UNROLLS})

    def orders(self, vectors: int) -> list[tuple[bool, bool]]:
        """All (rows_outside, prefetch)."""
        nest = self.nest(vectors)
        ahead = nest.packed and nest.panels.panel.size > 1
        return [order for order in ORDERS if ahead or not order[1]]

    def blocks(self, vectors: int, tile: tuple[int, int]) -> list[tuple[int, int]]:
        """(row blocks, column blocks): the heuristic's, as many of rows as possible, and of columns. All give
        as many chunks as the kernel should have, so that tuning on one thread leaves work for others."""
        nest = self.nest(vectors)
        wanted, panels = wanted_blocks(nest), nest.panels.panel.size
        row_tiles = row_tile_count(nest, *tile)
        rows, columns = min(row_tiles, wanted), min(panels, wanted)
        picked = schedule_contraction(nest, vectors, self.machine, tile)
        choices = (
            (picked.row_blocks, picked.column_blocks),
            (rows, min(panels, ceil(wanted / rows))),
            (min(row_tiles, ceil(wanted / columns)), columns),
        )
        return list(dict.fromkeys(choices))

    def space(self, vectors: int) -> Iterator[ContractionSchedule]:
        """All schedules with this many vectors."""
        for tile in self.tiles(vectors):
            for blocks in self.blocks(vectors, tile):
                for unroll in self.unrolls(vectors):
                    for order in self.orders(vectors):
                        yield ContractionSchedule(self.machine.lanes, vectors, *tile, unroll, *blocks, *order)

    # ---- steps from one schedule to its neighbours

    def steps(self) -> list[str]:
        """What `neighbours` may change, the most promising first."""
        return ["vectors", "tile", "unroll", "order", "blocks"]

    def neighbours(self, s: ContractionSchedule, step: str) -> list[ContractionSchedule]:
        """Schedules of the space that differ from `s` in one decision."""
        v, tile = s.vectors, (s.tile_y, s.tile_x)
        if step == "vectors":
            return [schedule_contraction(self.nest(w), w, self.machine) for w in self.vectors() if w != v]
        if step == "tile":
            tiles = self.tiles(v)
            at = tiles.index(tile)
            near = [*tiles[max(0, at - 1) : at], *tiles[at + 1 : at + 4]]
            made = [schedule_contraction(self.nest(v), v, self.machine, t) for t in near]
            return [
                replace(m, unroll=s.unroll, rows_outside=s.rows_outside, prefetch=s.prefetch) for m in made
            ]
        if step == "unroll":
            return [replace(s, unroll=u) for u in self.unrolls(v) if u != s.unroll]
        if step == "order":
            have = (s.rows_outside, s.prefetch)
            return [replace(s, rows_outside=r, prefetch=p) for r, p in self.orders(v) if (r, p) != have]
        have_blocks = (s.row_blocks, s.column_blocks)
        return [
            replace(s, row_blocks=r, column_blocks=c)
            for r, c in self.blocks(v, tile)
            if (r, c) != have_blocks
        ]
