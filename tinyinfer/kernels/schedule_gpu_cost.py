"""What schedules of contractions cost on a GPU with local memory of its own, in cycles of a compute unit.

The forms are those of a pipeline: a step takes as long as its instructions take to issue for all work-items
that a unit holds, or as long as one of them waits. The constants were fitted to 1400 kernels measured on an
NVIDIA H100 (`python -m benchmarks.opencl_contractions --count 10 --spread 50 --all`), whose times the forms
give to 16 (tiles) and 20 % (blocks). Other devices enter through what `GpuModel` says of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2, prod

from tinyinfer.kernels.physical import ContractionNest
from tinyinfer.kernels.schedule_gpu import GpuModel
from tinyinfer.kernels.schedule_gpu_tile import GpuTile, chunk_count, group_counts

ITEMS_HELD = 2048
"""Work-items that a unit has in flight where nothing else limits them."""

LOCAL_HELD = 6
"""Groups that a unit has in flight at least, though each take all local memory that a group may."""

ISSUE = 1.3
"""Cycles of a multiply-add of as many work-items as a unit computes side by side, and of a local read."""

PIECE = 39.0
"""Cycles in which a unit brings a vector for each of those to local memory."""

CHUNK, WAIT, STEP = 740.0, 30.0, 0.33
"""Cycles of a chunk of a lone group; more for each vector that an item reads, and for each vector of sums and
four steps."""

BARRIER = 10.0
"""What a single buffer adds to a chunk."""

TILE_START, TILE_JOIN = 12_000.0, 1_080.0
"""Cycles of a launch, and of joining halves of a split sum."""

BLOCK_READ, BLOCK_SUM = 19.8, 2.7
"""Cycles of a block's step: of a vector read from a cache, and of a vector of sums."""

BLOCK_WAIT, BLOCK_SERIAL = 116.0, 2.8
"""Cycles that a step of a lone work-item waits, and what its instructions count beyond that."""

BLOCK_HELD = 1278
"""Work-items with a block's registers that a unit has in flight."""

BLOCK_START, BLOCK_JOIN = 11_300.0, 86.0
"""Cycles of a launch, and of joining halves of a split vector of sums."""

FAR_BYTES = 38.5
"""Bytes a cycle that a compute unit gets from beyond its own cache, which a group shares."""


def tile_cost(c: ContractionNest, tile: GpuTile, model: GpuModel) -> float:
    """Cycles of the launch of a tiled schedule."""
    held = max(
        1,
        min(
            ITEMS_HELD // tile.group,
            LOCAL_HELD * model.local_bytes // (4 * model.lanes * tile.local_vectors),
        ),
    )
    share = tile.depth / model.lanes / tile.split
    pieces = tile.chunk_vectors / tile.group
    sums = tile.rows * tile.vectors
    reads = tile.rows + model.lanes * tile.vectors
    serial = CHUNK + BARRIER * (2 - tile.buffers) + WAIT * pieces + STEP * share * sums
    issue = ISSUE * share * (model.lanes**2 * sums + reads) + PIECE * pieces
    issue *= tile.group / (4 * model.wave)

    def chunk(groups: int) -> float:
        return max(groups * issue, serial) + 0.3 * min(groups * issue, serial) if groups else 0.0

    full, rest = divmod(ceil(prod(group_counts(c, tile)) / model.compute_units), held)
    rounds = full + bool(rest)
    time = chunk_count(c, tile.depth) * (full * chunk(held) + chunk(rest))
    return time + rounds * (TILE_START + TILE_JOIN * log2(tile.split))


@dataclass(frozen=True)
class BlockWork:
    """A launch of `items` work-items without tiles, of which `split` share a sum of `steps` steps; each
    computes rows by vectors, and reads a row's steps in vectors of `quarter`. `far` bytes come from beyond
    a group."""

    items: int
    steps: int
    split: int
    rows: int
    vectors: int
    quarter: int
    far: float

    def cycles(self, model: GpuModel) -> float:
        """Cycles of the launch."""
        step = BLOCK_SUM * self.rows * self.vectors + BLOCK_READ * (self.rows / self.quarter + self.vectors)
        busy = self.items / (4 * model.wave * model.compute_units)
        rounds = ceil(self.items / (BLOCK_HELD * model.compute_units))
        time = self.steps / self.split * max(step * busy, rounds * (BLOCK_WAIT + BLOCK_SERIAL * step))
        time += BLOCK_JOIN * self.rows * self.vectors * log2(self.split) * max(1.0, busy / 3)
        far = self.far / (model.compute_units * FAR_BYTES)
        return BLOCK_START + max(time, far) + min(time, far) / 4
