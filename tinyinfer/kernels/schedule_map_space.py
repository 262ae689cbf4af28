"""Map kernels before their schedule is chosen, and all schedules that may be chosen for them.

The heuristic's axes stay: along which one vectors lie decides how constants are packed. What may change is
how many vectors and neighbouring outputs a step computes, and whether tiles are walked across. None of it
changes in which order the elements of a reduction are joined.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil

from tinyinfer.kernels.nest import LoopNest
from tinyinfer.kernels.physical import PhysicalKernel
from tinyinfer.kernels.schedule import MachineModel
from tinyinfer.kernels.schedule_map import MapSchedule, Shape, map_cycles, recut, schedule_map, straight_work
from tinyinfer.kernels.tuning import Tuning

VECTORS = (1, 2, 4)
MOST_WORK = 1600
"""Limit on the operations of one unrolled step."""


@dataclass
class MapChoice:
    """A map kernel whose schedule is to be chosen, as `plan.prepare_map` makes them."""

    physical: PhysicalKernel
    machine: MachineModel

    @property
    def nest(self) -> LoopNest:
        return self.physical.nest

    @cached_property
    def key(self) -> str:
        """Names the kernel and what schedules know of the machine; equal layers have equal keys."""
        return hashlib.sha256(f"{self.machine}\n{self.nest.text()}".encode()).hexdigest()[:24]

    @cached_property
    def cycles(self) -> float:
        """Rough time on one core."""
        return map_cycles(self.nest, self.machine.lanes)

    @cached_property
    def _heuristic(self) -> MapSchedule:
        return schedule_map(self.nest, self.machine.lanes, self.machine.registers)

    def heuristic(self) -> MapSchedule:
        """The schedule that is picked at once."""
        return self._heuristic

    def pick(self, tuning: Tuning) -> MapSchedule:
        """The schedule that `tuning` has for this kernel if it is one of the space, else the heuristic."""
        recorded = tuning.get(self.key) if tuning else None
        found = self.find(recorded) if recorded is not None else None
        return found if found is not None else self.heuristic()

    def find(self, recorded: Mapping[str, int]) -> MapSchedule | None:
        """The schedule of the space that has these fields, if there is one."""
        return next((s for s in self.space() if self.fields(s) == recorded), None)

    def fields(self, s: MapSchedule) -> dict[str, int]:
        """What distinguishes a schedule from others of the space."""
        return {"vectors": s.vectors, "tile": s.tile, "across": int(self._across(s))}

    # ---- the space

    def _across(self, s: MapSchedule) -> bool:
        """Whether the loop over tiles is the innermost of the rows."""
        return s.tile_axis is not None and bool(s.rows) and s.rows[-1] is s.tile_axis

    def vectors(self) -> list[int]:
        """All numbers of vectors that a step may write of one output row."""
        first = self._heuristic
        if first.vector is None or first.transposed:
            return [first.vectors]
        available = ceil(first.vector.size / self.machine.lanes)
        return sorted({*(v for v in VECTORS if v <= available), first.vectors})

    def tiles(self) -> list[int]:
        """All numbers of neighbouring outputs, ascending: whole tiles as even as they can be."""
        first = self._heuristic
        if first.tile_axis is None or first.transposed:
            return [first.tile]
        size = first.tile_axis.size
        counts = range(1, min(size, self.machine.registers // 2) + 1)
        return sorted({*(ceil(size / ceil(size / count)) for count in counts), first.tile})

    def orders(self) -> list[bool]:
        """Whether tiles may be walked across: the loop over them innermost."""
        first = self._heuristic
        free = not first.transposed and first.tile_axis in first.rows and len(first.rows) > 1
        return [False, True] if free else [self._across(first)]

    def _fits(self, vectors: int, tile: int) -> bool:
        first = self._heuristic
        steps = vectors * tile
        if steps <= max(VECTORS[-1] if first.tile_axis is None else 1, first.vectors * first.tile):
            return True
        return 2 * steps <= self.machine.registers and steps * straight_work(self.nest) <= MOST_WORK

    def space(self) -> Iterator[MapSchedule]:
        """All schedules, the heuristic one included."""
        made: dict[tuple[int, ...], MapSchedule] = {}
        for vectors in self.vectors():
            for tile in self.tiles():
                for across in self.orders():
                    if self._fits(vectors, tile):
                        s = self._made(vectors, tile, across)
                        made.setdefault(tuple(self.fields(s).values()), s)
        yield from made.values()

    def _made(self, vectors: int, tile: int, across: bool) -> MapSchedule:
        first = self._heuristic
        if self.fields(first) == {"vectors": vectors, "tile": tile, "across": int(across)}:
            return first
        return recut(self.nest, first, Shape(vectors, tile, across))

    # ---- steps from one schedule to its neighbours

    def steps(self) -> list[str]:
        """What `neighbours` may change, the most promising first."""
        return ["tile", "vectors", "order"]

    def neighbours(self, s: MapSchedule, step: str) -> list[MapSchedule]:
        """Schedules of the space that differ from `s` in one decision; for `vectors`, also with a tile that
        much smaller."""
        have = self.fields(s)
        if step == "tile":
            tiles = self.tiles()
            at = tiles.index(s.tile)
            near = [*tiles[max(0, at - 2) : at], *tiles[at + 1 : at + 4]]
            wanted = [{**have, "tile": tile} for tile in near]
        elif step == "vectors":
            wanted = [{**have, "vectors": v} for v in self.vectors()]
            wanted += [
                {**have, "vectors": v, "tile": max((t for t in self.tiles() if t * v <= s.tile), default=1)}
                for v in self.vectors()
            ]
        else:
            wanted = [{**have, "across": int(across)} for across in self.orders()]
        return [other for other in self.space() if self.fields(other) in wanted and other != s]
