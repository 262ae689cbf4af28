"""What schedules need to know of devices of work-items, and how the steps of axes are given to them.

A launch has up to three dimensions. Neighbours in the first one run side by side and should touch memory side
by side. A *team* is a number of work-items of one group that share a reduction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import TYPE_CHECKING, ClassVar

from tinyinfer.ir.index import Axis
from tinyinfer.kernels.contraction import Contraction
from tinyinfer.kernels.halo import HaloRegion
from tinyinfer.kernels.image import TEXEL, ImageLimits
from tinyinfer.kernels.nest import LoopNest
from tinyinfer.kernels.physical import PhysicalKernel, aligned_arguments, image_arguments
from tinyinfer.kernels.tuning import Tuning
from tinyinfer.runtime.plan import WorkSizes

if TYPE_CHECKING:
    from tinyinfer.kernels.schedule_gpu_contraction import GpuContractionChoice
    from tinyinfer.kernels.schedule_gpu_map import GpuMapSchedule

MOST_GROUPS = 65535
"""Groups along the second and third dimension; some drivers take no more."""


LOOP_GROUP, LOOP_GROUPS = 512, 128
"""Work-items of a group that runs a loop alone, and of each of several."""


@dataclass(frozen=True)
class LoopCosts:
    """What decides whether one kernel runs a loop, in microseconds; measured on an H100."""

    launch: float = 8.0
    """The host's launch of a kernel, or the shortest kernel, whichever is longer."""
    read: float = 20.0
    """Waiting for a condition, and reading it."""
    phase: float = 1.5
    """A phase of one group that computes next to nothing, with its barrier."""
    meeting: float = 2.0
    """The same where groups wait for each other."""
    nbytes: float = 60e3
    """Bytes from beyond a compute unit's cache that one group gets in a microsecond."""
    flops: float = 100e3
    """Operations that it does."""


@dataclass(frozen=True)
class GpuModel:
    """A device of work-items: the largest group, in all and along each dimension, bytes of local memory for a
    group, compute units, and work-items that run in step."""

    group_limit: int = 256
    group_sizes: tuple[int, int, int] = (256, 256, 64)
    local_bytes: int = 16 << 10
    compute_units: int = 16
    wave: int = 32
    lanes: int = 4
    halo_bytes: int = 64 << 20
    """Launches cost more than memory: so much of it is spent on not writing halos again."""
    images: ImageLimits | None = None
    """Images that values are stored in where they can be; None: there are buffers only."""
    rows: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of rows that a work-item's block of a contraction may have."""
    vectors: tuple[int, ...] = (1, 2)
    """Numbers of vectors of columns that it may have."""
    written_out: int = 0
    """Texels that a short reduction of texels may read without a loop."""
    unroll: int = 4
    """Steps of a contraction's sum that are written out."""
    group: int = 128
    """Work-items of a group where nothing else decides."""
    latency: float = 160.0
    """Cycles that a step of a contraction's sum takes at least, however few work-items there are."""
    most_split: int = 64
    """Members of a team that share a contraction's sum."""
    split_steps: int = 4
    """Steps of the sum that each of them should have at least."""
    whole_groups: bool = False
    """Whether groups whose members work together have exactly `group` work-items."""
    loop_groups: int = 1
    """Groups that one kernel may run a loop on: more than 1 where all of them run at the same time, so that
    they can wait for each other; 0 where loops are left to the host."""
    loop_costs: LoopCosts = LoopCosts()
    tiles: bool = False
    """Whether local memory is nearer than what caches the rest: contractions stage their operands there."""

    @property
    def plenty(self) -> int:
        """Work-items from which on the device is busy."""
        return self.compute_units * self.wave * 8

    def loop_group(self, groups: int) -> int:
        """Work-items of each group of a loop that one kernel runs: a power of two."""
        most = min(self.group_limit, self.group_sizes[0], LOOP_GROUP if groups == 1 else LOOP_GROUPS)
        return 1 << most.bit_length() - 1

    def loop_body(self, groups: int) -> GpuModel:
        """What kernels of a loop's body are cut for where one kernel on so many groups runs all of them."""
        size = self.loop_group(groups)
        return replace(
            self,
            group_limit=size,
            group_sizes=(size, size, size),
            compute_units=groups,
            images=None,
            group=size,
            whole_groups=True,
            loop_groups=0,
        )

    def choice(self, physical: PhysicalKernel, roles: Contraction) -> GpuContractionChoice:
        from tinyinfer.kernels.schedule_gpu_contraction import GpuContractionChoice

        return GpuContractionChoice(physical, roles, self)

    def vector_axis(self, nest: LoopNest) -> Axis | None:
        from tinyinfer.kernels.schedule_gpu_map import schedule_gpu_map

        count = len(nest.dtypes)
        return schedule_gpu_map(nest, self, (False,) * count, ("",) * count).contiguous

    def map_choice(self, physical: PhysicalKernel) -> None:
        return None

    def map(self, physical: PhysicalKernel, tuning: Tuning) -> GpuMapSchedule:
        from tinyinfer.kernels.schedule_gpu_map import schedule_gpu_map

        return schedule_gpu_map(physical.nest, self, aligned_arguments(physical), image_arguments(physical))

    def scatter(self, nest: LoopNest, independent: frozenset[Axis]) -> GpuScatterSchedule:
        parallel = tuple(a for a in nest.axes if a in independent)
        serial = tuple(a for a in nest.axes if a not in independent)
        grid = ((tuple((a, 1) for a in parallel)), (), ())
        return GpuScatterSchedule(grid, serial, work_sizes(grid, self))

    def halo(self, regions: tuple[HaloRegion, ...]) -> WorkSizes:
        return linear_work(halo_elements(regions), self)


Steps = tuple[tuple[Axis, int], ...]
"""The axes that one dimension of a launch enumerates, outer to inner, and how many neighbours a step is."""

Grid = tuple[Steps, Steps, Steps]


@dataclass(frozen=True)
class GpuScatterSchedule:
    """Work-items over the axes along which updates never meet; each runs the `serial` ones in order."""

    grid: Grid
    serial: tuple[Axis, ...]
    work: WorkSizes
    chunks: ClassVar[int] = 1
    name: ClassVar[str] = "items"


def steps_of(axis: Axis, step: int) -> int:
    return ceil(axis.size / step)


def count_of(steps: Steps) -> int:
    """Work-items of one dimension."""
    return prod(steps_of(a, s) for a, s in steps)


def work_sizes(grid: Grid, model: GpuModel) -> WorkSizes:
    """Groups for a grid whose work-items have nothing to do with each other."""
    counts = [count_of(s) for s in grid]
    room = min(model.group, model.group_limit)
    group = []
    for count, most in zip(counts, model.group_sizes):
        size = even_group(count, min(room, most))
        group.append(size)
        room //= size
    return padded(counts, group)


def even_group(count: int, most: int) -> int:
    """A group size of at most `most` along one dimension of `count` items; the last group is nearly full."""
    if count <= most:
        return max(1, count)
    if most >= 32:
        return most - most % 32
    return ceil(count / ceil(count / most))


def padded(counts: Sequence[int], group: Sequence[int]) -> WorkSizes:
    x, y, z = (ceil(max(1, c) / g) * g for c, g in zip(counts, group))
    return WorkSizes((x, y, z), (group[0], group[1], group[2]))


def linear_work(count: int, model: GpuModel) -> WorkSizes:
    """Work-items in one dimension."""
    group = min(64, model.group_limit, model.group_sizes[0])
    return padded((count, 1, 1), (group, 1, 1))


def power_of_two(least: int) -> int:
    """The smallest power of two that is no smaller."""
    return 1 << max(0, least - 1).bit_length()


def halo_elements(regions: tuple[HaloRegion, ...]) -> int:
    return sum(elements_of(r) for r in regions)


def elements_of(region: HaloRegion) -> int:
    """Elements, or texels of an image, that a halo's region has."""
    return (region.length // TEXEL if region.image else region.length) * prod(n for n, _ in region.loops)
