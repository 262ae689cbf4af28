"""Schedules of map kernels on devices of work-items.

Three forms. *Items alone*: each work-item computes a few neighbouring outputs with all of their reductions.
*Teams for outputs*: where there are few outputs of long reductions, or reductions lie along contiguous
memory, a team of work-items shares each output's reductions. *Teams for rows*: a row statistic (softmax,
normalisation) is computed by a team, which then shares out the row's columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

from tinyinfer.ir.index import Axis
from tinyinfer.kernels.access import walk_with_indices
from tinyinfer.kernels.expression import Expr, walk
from tinyinfer.kernels.image import TEXEL
from tinyinfer.kernels.nest import LoopNest, free_axes
from tinyinfer.kernels.schedule_gpu import (
    MOST_GROUPS,
    GpuModel,
    Grid,
    Steps,
    count_of,
    even_group,
    padded,
    power_of_two,
    work_sizes,
)
from tinyinfer.kernels.schedule_map import (
    expression_weight,
    horizontal_axis,
    is_straight,
    pick_tile,
    reduce_steps,
    stride_of,
)
from tinyinfer.runtime.plan import WorkSizes

LONG = 16
"""Steps from which on a reduction along contiguous memory is worth a team."""

STEPS_EACH = 8
"""Steps of a reduction for each member of a team, where there are enough rows to keep the device busy."""

UNROLLED = 512
"""Operations that a reduction may unroll to."""


@dataclass(frozen=True)
class GpuMapSchedule:
    """How a map kernel is given to work-items.

    `grid` enumerates the rows (all root axes where there are no `columns`). With a `team` above 1 or columns,
    dimension `across` holds the team: its local id is the member. `lanes` neighbours along `contiguous` are
    computed by one work-item, and `tile` neighbours along `tile_axis`. Reductions in `unrolled` mode have no
    loops.
    """

    grid: Grid
    columns: tuple[Axis, ...]
    contiguous: Axis | None
    lanes: int
    tile_axis: Axis | None
    tile: int
    team: int
    across: int
    unrolled: bool
    aligned: tuple[bool, ...]
    work: WorkSizes
    images: tuple[str, ...]
    chunks: ClassVar[int] = 1

    @property
    def teams(self) -> bool:
        """Whether work-items of a group work together."""
        return self.team > 1 or bool(self.columns)

    @property
    def name(self) -> str:
        """The schedule as a kernel's name spells it."""
        shared = f"_team{self.team}{'xy'[self.across]}" if self.teams else ""
        return f"x{self.lanes}{f'_t{self.tile}' if self.tile > 1 else ''}{shared}"


def schedule_gpu_map(
    nest: LoopNest, model: GpuModel, aligned: tuple[bool, ...], images: tuple[str, ...]
) -> GpuMapSchedule:
    """The heuristic schedule of a map kernel whose axes are sorted by the stride of the store, largest first.

    Where images are read or written, a work-item computes whole texels if it can. A team cannot write them
    without columns.
    """
    return replace(_schedule(nest, model, aligned, images), images=images)


def _schedule(
    nest: LoopNest, model: GpuModel, aligned: tuple[bool, ...], images: tuple[str, ...]
) -> GpuMapSchedule:
    free = free_axes(nest.body)
    reduces = [e for e in walk_with_indices(nest.body) if e.op == "REDUCE"]
    full = frozenset(nest.axes)
    hoisted = [e for e in reduces if not full <= free[id(e)]]
    used = {a for e in hoisted for a in free[id(e)]}
    columns = tuple(a for a in nest.axes if a not in used) if hoisted else ()
    if columns:
        rows = tuple(a for a in nest.axes if a in used)
        return _rows(nest, model, aligned, free, hoisted, rows, columns, images)
    if reduces and not images[0]:
        heaviest = max(reduces, key=lambda e: reduce_steps(e) * expression_weight(e.args[0]))
        steps, outputs = reduce_steps(heaviest), prod(a.size for a in nest.axes)
        if horizontal_axis(heaviest, free) is not None and steps >= LONG:
            return _team(nest, model, aligned, nest.axes, (), steps, None, images)
        if steps >= 2 * LONG and outputs < model.plenty:
            beside = _beside(nest.axes, reduces, free)
            return _team(nest, model, aligned, nest.axes, (), steps, beside, images)
    return _alone(nest, model, aligned, free, reduces, images)


def _rows(
    nest: LoopNest,
    model: GpuModel,
    aligned: tuple[bool, ...],
    free: dict[int, frozenset[Axis]],
    hoisted: list[Expr],
    rows: tuple[Axis, ...],
    columns: tuple[Axis, ...],
    images: tuple[str, ...],
) -> GpuMapSchedule:
    steps = max(*(reduce_steps(e) for e in hoisted), prod(a.size for a in columns))
    along = any(horizontal_axis(e, free) is not None for e in hoisted)
    beside = None if along else _beside(rows, hoisted, free)
    return _team(nest, model, aligned, rows, columns, steps, beside, images)


def _beside(rows: tuple[Axis, ...], reduces: list[Expr], free: dict[int, frozenset[Axis]]) -> Axis | None:
    """The row axis along which what is reduced lies side by side."""
    for axis in reversed(rows):
        loads = [x for e in reduces for x in walk(e.args[0]) if x.op == "LOAD"]
        if axis.size > 1 and loads and all(stride_of(x, axis, free) in (0, 1) for x in loads):
            return axis
    return None


def _team(
    nest: LoopNest,
    model: GpuModel,
    aligned: tuple[bool, ...],
    rows: tuple[Axis, ...],
    columns: tuple[Axis, ...],
    steps: int,
    beside: Axis | None,
    images: tuple[str, ...],
) -> GpuMapSchedule:
    """Teams: along the first dimension, or, with `beside` along the first one, along the second."""
    count = prod(a.size for a in rows)
    limit = model.group_limit
    most = power_of_two(min(steps, limit) + 1) // 2
    team = min(most, 256, power_of_two(-(-steps // STEPS_EACH)))
    while team < most and count * team < model.plenty:
        team *= 2
    others: Steps = tuple((a, 1) for a in rows if a is not beside)
    if beside is not None and count_of(others) > MOST_GROUPS:
        others, beside = (*others, (beside, 1)), None
    contiguous = columns[-1] if columns and nest.store.coefficient(columns[-1]) == 1 else None
    if any(images):
        lanes = _texel(contiguous, bool(images[0]))
    else:
        lanes = _lanes(contiguous, 2 * team) if beside is None else 1
    if beside is None:
        team = min(team, model.group_sizes[0])
        together = even_group(count, max(1, min(64, limit) // team)) if team < 64 else 1
        together = min(together, model.group_sizes[1])
        if model.whole_groups:
            together = model.group // team
        blocks = -(-count // together)
        work = WorkSizes((team * blocks, together, 1), (team, together, 1))
        grid: Grid = (others, (), ())
        across = 0
    else:
        team = min(team, model.group_sizes[1])
        width = even_group(beside.size, min(max(1, limit // team), 32, model.group_sizes[0]))
        if model.whole_groups:
            width = model.group // team
        work = padded((beside.size, team * count_of(others), 1), (width, team, 1))
        grid = (((beside, 1),), others, ())
        across = 1
    return GpuMapSchedule(grid, columns, contiguous, lanes, None, 1, team, across, False, aligned, work, ())


def _lanes(axis: Axis | None, enough: int) -> int:
    """Neighbours along a contiguous axis that a work-item computes: as many as divide it, and leave more than
    `enough` steps."""
    if axis is None:
        return 1
    return next((n for n in (4, 2) if not axis.size % n and axis.size // n >= enough), 1)


def _texel(axis: Axis | None, written: bool) -> int:
    """Neighbours along a contiguous axis that make a texel, which may have fewer where it is `written`; 1 if
    they do not."""
    if axis is None:
        return 1
    return TEXEL if axis.size % TEXEL == 0 else axis.size if written and axis.size < TEXEL else 1


def _alone(
    nest: LoopNest,
    model: GpuModel,
    aligned: tuple[bool, ...],
    free: dict[int, frozenset[Axis]],
    reduces: list[Expr],
    images: tuple[str, ...],
) -> GpuMapSchedule:
    texels = any(images)
    last = nest.axes[-1] if nest.axes else None
    contiguous = last if last is not None and nest.store.coefficient(last) == 1 else None
    items = prod(a.size for a in nest.axes)
    lanes = _lanes(contiguous, 1) if items >= 2 * model.plenty else 1
    lanes = _texel(contiguous, bool(images[0])) if texels else lanes
    items //= lanes
    tile_axis, tile = None, 1
    straight = bool(reduces) and all(is_straight(e) for e in reduces)
    weight = expression_weight(nest.body)
    steps = max((reduce_steps(e) for e in reduces), default=1)

    def unrolls(tile: int) -> bool:
        if texels:
            return steps * tile <= model.written_out
        return steps * lanes * tile * weight <= UNROLLED * 2

    if straight and contiguous is not None:
        tile_axis, _ = pick_tile(nest, free, reduces, contiguous, 1, 16)
        if tile_axis is not None:
            size = tile_axis.size
            # a tile of texels is four times as many sums
            sizes = (2,) if texels else (4, 3, 2)
            fits = (t for t in sizes if not size % t and items // t >= model.plenty)
            tile = next((t for t in fits if texels or unrolls(t)), 1)
    unrolled = straight and unrolls(tile)
    if not unrolled and not texels:
        tile = 1
    axes = [(a, lanes if a is contiguous else tile if a is tile_axis else 1) for a in nest.axes]
    grid: Grid = (tuple(axes[-1:]), tuple(axes[-2:-1]), tuple(axes[:-2]))
    work = work_sizes(grid, model)
    if any(t // g > MOST_GROUPS for t, g in zip(work.total[1:], work.group[1:])):
        grid = (tuple(axes), (), ())
        work = work_sizes(grid, model)
    return GpuMapSchedule(
        grid,
        (),
        contiguous,
        lanes,
        tile_axis if tile > 1 else None,
        tile,
        1,
        0,
        unrolled,
        aligned,
        work,
        (),
    )
