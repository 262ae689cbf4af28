"""Schedules of contractions whose operands a group of work-items brings to local memory, tile by tile.

A group computes a block of rows by columns. The sum's steps go by in chunks: the group's items together read
the chunk's tile of each operand, and then multiply from local memory, each a block of its own in registers.
Rows are those of all m axes, counted through. The chunk after is read while one is multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod
from typing import ClassVar

from tinyinfer.ir.index import Axis
from tinyinfer.kernels.physical import ContractionNest, aligned_arguments, image_arguments
from tinyinfer.kernels.schedule_gpu import MOST_GROUPS, GpuModel
from tinyinfer.runtime.plan import WorkSizes


@dataclass(frozen=True)
class GpuTile:
    """What distinguishes tiled schedules: `items` along columns and rows, each with `rows` rows and `vectors`
    vectors of columns; `depth` steps of the sum a chunk, which `split` teams of the group share; `buffers`
    tiles of each operand, of which two save a barrier."""

    items: tuple[int, int]
    rows: int
    vectors: int
    depth: int
    split: int
    buffers: int

    @property
    def height(self) -> int:
        """Rows of a group's block."""
        return self.items[1] * self.rows

    @property
    def panels(self) -> int:
        """Vectors of columns of a group's block."""
        return self.items[0] * self.vectors

    @property
    def group(self) -> int:
        """Work-items of a group."""
        return self.items[0] * self.items[1] * self.split

    @property
    def chunk_vectors(self) -> int:
        """Vectors of a chunk's tiles of both operands."""
        return self.depth * (self.height // 4 + self.panels)

    @property
    def local_vectors(self) -> int:
        """Vectors of local memory: the tiles, and later the sums that teams join in their place."""
        sums = self.items[0] * self.items[1] * self.rows * self.vectors
        return max(self.buffers * self.chunk_vectors, self.split // 2 * sums)


@dataclass(frozen=True)
class GpuTileSchedule:
    """A tiled contraction, whose panels are one vector wide."""

    lanes: int
    tile: GpuTile
    aligned: tuple[bool, ...]
    images: tuple[str, ...]
    work: WorkSizes
    chunks: ClassVar[int] = 1
    vectors: ClassVar[int] = 1

    def chunks_of(self, groups: int) -> int:
        return 1

    @property
    def name(self) -> str:
        """The schedule as a kernel's name spells it."""
        t = self.tile
        split = f"_split{t.split}" if t.split > 1 else ""
        twice = "_twice" if t.buffers > 1 else ""
        block = f"{t.height}x{t.panels * self.lanes}_{t.rows}x{t.vectors}v{self.lanes}"
        return f"tile{block}_k{t.depth}{split}{twice}"


SHAPES = (
    ((16, 16), 8, 2),
    ((16, 16), 8, 1),
    ((16, 16), 4, 2),
    ((16, 16), 4, 1),
    ((16, 8), 8, 1),
    ((16, 8), 4, 2),
    ((16, 8), 4, 1),
    ((8, 16), 4, 2),
    ((8, 16), 8, 1),
    ((8, 16), 4, 1),
    ((8, 8), 8, 2),
    ((8, 8), 8, 1),
    ((8, 8), 4, 2),
    ((8, 8), 4, 1),
    ((8, 8), 2, 1),
    ((16, 4), 4, 1),
    ((16, 4), 2, 1),
    ((4, 16), 4, 1),
)
"""Items of a team along columns and rows, and the rows and vectors of each."""

DEPTHS = (8, 16, 32)
SPLITS = (1, 2, 4, 8)
BUFFERS = (1, 2)


def row_count(c: ContractionNest) -> int:
    """Rows of all m axes."""
    return prod(a.size for a in c.m)


def chunk_axis(c: ContractionNest) -> Axis:
    """The axis of the sum along which chunks are several steps deep: the longest."""
    return max(reversed(c.k), key=lambda a: a.size)


def chunk_count(c: ContractionNest, depth: int) -> int:
    """Chunks that a sum's steps take."""
    deep = chunk_axis(c)
    return prod(a.size for a in c.k if a is not deep) * ceil(deep.size / depth)


def group_counts(c: ContractionNest, tile: GpuTile) -> tuple[int, int, int]:
    """Groups of a launch along columns, rows and the axes of both operands."""
    across = ceil(c.panels.panel.size / tile.panels)
    return across, ceil(row_count(c) / tile.height), prod(a.size for a in c.groups)


def tiles(c: ContractionNest, model: GpuModel) -> Iterator[GpuTile]:
    """All tiles for a contraction with panels of one vector on a device."""
    if not model.tiles or model.whole_groups or not c.k or any(image_arguments(c.physical)):
        return
    for items, rows, vectors in SHAPES:
        for depth in DEPTHS:
            for split in SPLITS:
                for buffers in BUFFERS:
                    tile = GpuTile(items, rows, vectors, depth, split, buffers)
                    if _fits(c, tile, model):
                        yield tile


def _fits(c: ContractionNest, tile: GpuTile, model: GpuModel) -> bool:
    size = (*tile.items, tile.split)
    if tile.group > model.group_limit or any(n > most for n, most in zip(size, model.group_sizes)):
        return False
    if 4 * model.lanes * tile.local_vectors > model.local_bytes:
        return False
    if tile.depth // model.lanes % tile.split:
        return False
    across, down, groups = group_counts(c, tile)
    return max(down, groups) <= MOST_GROUPS


def tile_schedule(c: ContractionNest, tile: GpuTile, model: GpuModel) -> GpuTileSchedule:
    """The schedule with this tile."""
    across, down, groups = group_counts(c, tile)
    x, y = tile.items
    work = WorkSizes((across * x, down * y, groups * tile.split), (x, y, tile.split))
    return GpuTileSchedule(
        model.lanes, tile, aligned_arguments(c.physical), image_arguments(c.physical), work
    )
