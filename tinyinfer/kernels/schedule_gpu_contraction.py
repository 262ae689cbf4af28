"""Schedules of contractions on devices of work-items.

A work-item computes a block of rows (neighbours along the last m axis) by a panel of columns in registers.
Neighbouring work-items have neighbouring panels, so that they read packed operands side by side and share the
rows' scalars. Where there are too few blocks to keep the device busy, a team splits the sum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil, log2, prod
from typing import ClassVar

from tinyinfer.kernels.contraction import Contraction
from tinyinfer.kernels.physical import (
    ContractionNest,
    PhysicalKernel,
    aligned_arguments,
    build_contraction,
    image_arguments,
    merge_contraction,
    panels_in_image,
    rebase,
)
from tinyinfer.kernels.schedule_gpu import MOST_GROUPS, GpuModel, even_group, padded, power_of_two
from tinyinfer.kernels.schedule_gpu_cost import BlockWork, tile_cost
from tinyinfer.kernels.schedule_gpu_tile import GpuTileSchedule, tile_schedule, tiles
from tinyinfer.kernels.tuning import Tuning
from tinyinfer.runtime.plan import WorkSizes

MOST_SUMS = 32
"""Sums that a work-item may hold: beyond that, registers cost too many work-items in flight."""

SHORT_LOOP = 4
"""Trips of a loop that compilers may write out: what it reads then fits into registers."""

USUAL_WIDTH = 16
WIDTHS = (2, 4, 8, USUAL_WIDTH, 32)
"""Panels of a group at most."""

FIELDS = ("vectors", "rows", "split", "unroll", "kept", "width")
"""What of a schedule is recorded."""

# Cycles of one work-item where local memory is not near (schedule_gpu_cost has the others), as reasoned: what
# must be right is the order of blocks, not the time.
READ = 5.0
"""A read that hits a cache, against a multiply-add."""

JOIN = 60.0
"""A barrier and an exchange through local memory."""

FAR_BYTES = 24.0
"""Bytes a cycle that a compute unit gets from beyond its own cache, which a group shares."""


@dataclass(frozen=True)
class GpuContractionSchedule:
    """`rows` neighbours along the last m axis by `vectors` vectors of columns; the innermost k axis in steps
    of `unroll`, the k axis number `split_axis` in `split` parts, one for each member of a team. With `apart`
    the last m axis has a dimension of the launch for itself. With `kept`, compilers that write loops out are
    kept from the innermost one. A group has `width` panels at most."""

    lanes: int
    vectors: int
    rows: int
    unroll: int
    split: int
    split_axis: int
    aligned: tuple[bool, ...]
    images: tuple[str, ...]
    apart: bool
    work: WorkSizes
    kept: bool
    width: int
    chunks: ClassVar[int] = 1

    def chunks_of(self, groups: int) -> int:
        return 1

    @property
    def name(self) -> str:
        """The schedule as a kernel's name spells it."""
        split = f"_split{self.split}" if self.split > 1 else ""
        return f"{self.rows}x{self.vectors}v{self.lanes}_k{self.unroll}{split}"

    def same(self, other: GpuContractionSchedule) -> bool:
        """Whether both make the same launch of the same kernel."""
        return replace(self, width=other.width) == other


@dataclass
class GpuContractionChoice:
    """A contraction whose schedule is to be chosen, as `schedule_space.ContractionChoice` is for the CPU."""

    physical: PhysicalKernel
    roles: Contraction
    model: GpuModel
    _nests: dict[int, ContractionNest] = field(default_factory=dict)

    def nest(self, vectors: int) -> ContractionNest:
        """The loop nest for panels of this many vectors, which lie side by side for each step of the sum."""
        made = self._nests.get(vectors)
        if made is None:
            width = vectors * self.model.lanes
            made = build_contraction(self.physical, self.roles, width, False, self.model.images)
            if self.model.images is not None:
                made = panels_in_image(made, self.model.images)
            made = merge_contraction(made)
            based, (a, b) = rebase(made.physical, (made.a, made.b))
            made = replace(made, physical=based, a=a, b=b, epilogue=based.nest.body)
            self._nests[vectors] = made
        return made

    @property
    def work(self) -> int:
        """Multiply-adds."""
        c = self.nest(1)
        return prod(a.size for a in (*c.groups, *c.m, *c.k)) * c.panels.columns

    @property
    def cycles(self) -> float:
        """Rough time, to compare kernels by."""
        return self.work / (self.model.compute_units * self.model.wave)

    @cached_property
    def key(self) -> str:
        """Names the kernel and what schedules know of the device; equal layers have equal keys."""
        text = f"{self.model}\n{self.nest(1).text()}"
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def heuristic(self) -> GpuContractionSchedule:
        """The schedule that is picked at once."""
        c = self.nest(1)
        possible = [v for v in self.model.vectors if v <= self._needed]
        vectors = min(possible, key=lambda v: _best(c, v, self.model)[0])
        nest = self.nest(vectors)
        _, rows, split = _best(nest, vectors, self.model)
        return schedule_gpu_contraction(nest, vectors, rows, split, self.model)

    def pick(self, tuning: Tuning) -> GpuContractionSchedule | GpuTileSchedule:
        """The schedule that `tuning` has for this kernel if it is one of the space, else the heuristic, or a
        tiled one that costs less."""
        recorded = tuning.get(self.key) if tuning else None
        found = self.find(recorded) if recorded is not None else None
        if found is not None:
            return found
        c, block = self.nest(1), self.heuristic()
        tile = min(tiles(c, self.model), key=lambda t: tile_cost(c, t, self.model), default=None)
        if tile is None:
            return block
        cost = block_cost(self.nest(block.vectors), block.rows, block.vectors, block.split, self.model)
        return tile_schedule(c, tile, self.model) if tile_cost(c, tile, self.model) < cost else block

    # ---- the space: the same sums in the same order, unless a team shares them

    def fields(self, s: GpuContractionSchedule) -> dict[str, int]:
        """A schedule as a record keeps it."""
        return {name: int(getattr(s, name)) for name in FIELDS}

    def find(self, recorded: Mapping[str, int]) -> GpuContractionSchedule | None:
        """The schedule of the space that has these fields, if there is one."""
        if sorted(recorded) != sorted(FIELDS):
            return None
        vectors, rows, split, unroll, kept, width = (recorded[name] for name in FIELDS)
        if (rows, vectors) not in self.blocks():
            return None
        nest = self.nest(vectors)
        good = (
            split in self.splits(nest, rows, vectors)
            and unroll in self.unrolls(nest)
            and kept in (0, 1)
            and width in WIDTHS
        )
        if not good:
            return None
        return schedule_gpu_contraction(nest, vectors, rows, split, self.model, unroll, bool(kept), width)

    @property
    def _needed(self) -> int:
        return ceil(self.roles.vector.size / self.model.lanes)

    def blocks(self) -> list[tuple[int, int]]:
        """(rows, vectors) of all blocks, the smallest first."""
        m = self.nest(1).m
        return [
            (rows, vectors)
            for vectors in (1, 2)
            for rows in (1, 2, 4, 8)
            if vectors <= self._needed
            and rows * vectors <= MOST_SUMS // 4
            and (rows == 1 or (m and rows < 2 * m[-1].size))
        ]

    def splits(self, nest: ContractionNest, rows: int, vectors: int) -> list[int]:
        """Teams that may share a sum."""
        return [s for s in _splits(nest, self.model) if _fits(rows * vectors, s, self.model)]

    def unrolls(self, nest: ContractionNest) -> list[int]:
        """Numbers of steps of the innermost loop that may be written out."""
        usual = _unroll(nest, self.model)
        twice = 2 * self.model.lanes
        in_image = image_arguments(nest.physical)[nest.a.argument]
        more = in_image and bool(nest.k) and not nest.k[-1].size % twice and nest.k[-1].size > twice
        return sorted({usual, twice}) if more else [usual]

    def steps(self) -> list[str]:
        """What `neighbours` may change, the most promising first."""
        return ["block", "unroll", "kept", "split", "width"]

    def neighbours(self, s: GpuContractionSchedule, step: str) -> list[GpuContractionSchedule]:
        """Schedules of the space that differ from `s` in one decision."""
        have = self.fields(s)
        nest = self.nest(s.vectors)
        changes: list[dict[str, int]] = []
        if step == "block":
            changes = [{"rows": rows, "vectors": vectors} for rows, vectors in self.blocks()]
        elif step == "unroll":
            changes = [{"unroll": n} for n in self.unrolls(nest)]
        elif step == "kept":
            changes = [{"kept": 0}, {"kept": 1}] if nest.k and nest.k[-1].size > s.unroll else []
        elif step == "split":
            changes = [{"split": n} for n in self.splits(nest, s.rows, s.vectors)]
        else:
            changes = [{"width": n} for n in WIDTHS]
        made = [self.find({**have, **change}) for change in changes]
        return [x for x in dict.fromkeys(made) if x is not None and not x.same(s)]


def _best(c: ContractionNest, vectors: int, model: GpuModel) -> tuple[float, int, int]:
    """(cost, rows, split) of the cheapest block with panels of this many vectors."""
    return min(
        (block_cost(c, rows, vectors, split, model), rows, split)
        for rows in model.rows
        if rows * vectors <= MOST_SUMS // 4 and (rows == 1 or (c.m and rows < 2 * c.m[-1].size))
        for split in _splits(c, model)
        if _fits(rows * vectors, split, model)
    )


def _fits(sums: int, split: int, model: GpuModel) -> bool:
    """Whether a group has the local memory with which a team joins its sums."""
    return split == 1 or _least_shared_bytes(sums, split, model) <= model.local_bytes


def _splits(c: ContractionNest, model: GpuModel) -> list[int]:
    steps = max((a.size for a in c.k), default=1)
    limit = min(model.most_split, model.group_sizes[2], model.group_limit // 4)
    return [s for s in (1, 2, 4, 8, 16, 32, 64) if s == 1 or (s <= limit and steps >= s * model.split_steps)]


def block_cost(c: ContractionNest, rows: int, vectors: int, split: int, model: GpuModel) -> float:
    """Rough cycles of the launch of a schedule without tiles."""
    k, groups = prod(a.size for a in c.k), prod(a.size for a in c.groups)
    tiles, panels = _tiles(c, rows), ceil(c.panels.columns / (vectors * model.lanes))
    width, height = _group(tiles, panels, rows * vectors, split, model, USUAL_WIDTH)
    items = tiles * panels * groups * split
    quarter = model.lanes if _contiguous(c) else 1
    columns_read = c.panels.columns * ceil(tiles / height)
    rows_read = tiles * rows * ceil(panels / width)
    read = 4.0 * k * groups * (columns_read + rows_read)
    if model.tiles:
        return BlockWork(items, k, split, rows, vectors, quarter, read).cycles(model)
    step = rows * vectors * model.lanes + READ * (rows / quarter + vectors)
    resident = model.compute_units * model.wave * 32
    waves = ceil(items / resident)
    busy = items / (model.compute_units * model.wave * 4)
    time = (k / split) * max(step * busy, waves * (model.latency + step / 4))
    time += (JOIN + 4.0 * rows * vectors) * log2(split) * max(1.0, busy / 4)
    far = read / (model.compute_units * FAR_BYTES)
    return max(time, far) + min(time, far) / 4


def _tiles(c: ContractionNest, rows: int) -> int:
    """Blocks of rows that cover all m axes."""
    return prod(a.size for a in c.m[:-1]) * (ceil(c.m[-1].size / rows) if c.m else 1)


def _group(tiles: int, panels: int, sums: int, split: int, model: GpuModel, most: int) -> tuple[int, int]:
    """Panels, `most` at most, and blocks of rows of one group, whose members keep `sums` vectors of sums
    each."""
    if model.whole_groups and split > 1:
        width = min(power_of_two(panels), model.group // split)
        return width, model.group // split // width
    room = max(1, min(model.group if split == 1 else 2 * model.group, model.group_limit) // split)
    if split > 1:
        room = max(1, min(room, model.local_bytes // (_shared_bytes(sums, split, model))))
    width = even_group(panels, min(most, room, model.group_sizes[0]))
    return width, even_group(tiles, min(max(1, room // width), model.group_sizes[1]))


def _shared_bytes(sums: int, split: int, model: GpuModel) -> int:
    """Local memory with which a team joins its sums."""
    return 4 * model.lanes * sums * split // 2


def _least_shared_bytes(sums: int, split: int, model: GpuModel) -> int:
    """The same of the smallest group."""
    return _shared_bytes(sums, split, model) * (model.group // split if model.whole_groups else 1)


def _contiguous(c: ContractionNest) -> bool:
    """Whether the scalar operand's elements lie side by side along the innermost k axis."""
    return bool(c.k) and c.a.address.coefficient(c.k[-1]) == 1 and not c.a.guards


def _unroll(c: ContractionNest, model: GpuModel) -> int:
    """Steps of the innermost loop that are written out."""
    return model.unroll if c.k and not c.k[-1].size % model.unroll else model.lanes


def schedule_gpu_contraction(
    c: ContractionNest,
    vectors: int,
    rows: int,
    split: int,
    model: GpuModel,
    unroll: int | None = None,
    kept: bool | None = None,
    width: int = USUAL_WIDTH,
) -> GpuContractionSchedule:
    """The schedule of a contraction whose panels are `vectors` wide, for blocks of `rows` and sums in `split`
    parts; what is not given is as usual."""
    aligned, images = aligned_arguments(c.physical), image_arguments(c.physical)
    groups, panels = prod(a.size for a in c.groups), c.panels.panel.size
    outer = prod(a.size for a in c.m[:-1])
    apart = split == 1 and any(images) and outer * groups <= MOST_GROUPS
    tiles = _tiles(c, rows)
    if apart:
        groups, tiles = groups * outer, tiles // outer
    across, height = _group(tiles, panels, rows * vectors, split, model, width)
    while ceil(tiles / height) > MOST_GROUPS:
        height *= 2
    work = padded((panels, tiles, split * groups), (across, height, split))
    axis = max(range(len(c.k)), key=lambda i: c.k[i].size, default=0)
    unroll = _unroll(c, model) if unroll is None else unroll
    if kept is None:
        kept = bool(c.k) and c.k[-1].size // unroll > SHORT_LOOP
    return GpuContractionSchedule(
        model.lanes, vectors, rows, unroll, split, axis, aligned, images, apart, work, kept, width
    )
