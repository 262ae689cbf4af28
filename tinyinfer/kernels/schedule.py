"""Schedules: how a loop nest is cut into chunks, tiles and vectors. A schedule is data; this module picks one at once.

The contraction schedule follows the register-tile model of docs/design.md: `rows × vectors` accumulators with
`rows · vectors + vectors + 1` registers at most, remainders as tiles of their own, the panel of the packed operand
outside and the rows inside, and blocks chosen so that what is read again stays in the second-level cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from tinyinfer.ir.index import Axis
from tinyinfer.kernels.physical import ContractionNest

L2_BYTES = 1 << 20
"""What a kernel counts on keeping in the second-level cache."""

CHUNK_FLOPS = 1.5e6
"""A chunk should be worth waking a thread for: about 10 µs of one core."""

MOST_CHUNKS = 32

UNROLLED_K = 4


@dataclass(frozen=True)
class MachineModel:
    """What schedules need to know of a device: float32 lanes of a vector and the number of vector registers."""

    lanes: int
    registers: int


@dataclass(frozen=True)
class ContractionSchedule:
    """Cut of a contraction. Rows: the last one or two m axes in tiles of `tile_y × tile_x`; columns: `vectors` wide."""

    lanes: int
    vectors: int
    tile_y: int
    tile_x: int
    unroll: int
    row_blocks: int
    column_blocks: int

    @property
    def name(self) -> str:
        """The schedule as a kernel's name spells it."""
        return f"{self.tile_y}x{self.tile_x}x{self.vectors}v{self.lanes}_k{self.unroll}"


def pick_vectors(columns: int, rows: int, machine: MachineModel) -> int:
    """Vectors of a register tile for an output of `rows × columns`: least waste of lanes, then best reuse."""
    needed = ceil(columns / machine.lanes)
    best, best_cost = 1, float("inf")
    for vectors in range(1, 9):
        if vectors > needed:
            break
        tile = most_rows(vectors, machine)
        if tile < 1:
            break
        height = min(rows, tile)
        full, rest = divmod(needed, vectors)
        cost = 0.0
        for count, width in ((full, vectors), (1 if rest else 0, rest)):
            if count:
                cost += count * _tile_cost(height, width) * ceil(rows / height)
        if cost < best_cost * 0.999:
            best, best_cost = vectors, cost
    return best


def _tile_cost(rows: int, vectors: int) -> float:
    """Cycles of one k step of a register tile: multiply-adds at two a cycle, loads at two a cycle, latency of four."""
    return max(rows * vectors / 2, (rows + vectors) / 2 * 1.05, 4.0, vectors * 1.3) + 0.1


def most_rows(vectors: int, machine: MachineModel) -> int:
    """Most rows of a tile of this many vectors that stays in registers."""
    return (machine.registers - 1 - vectors) // vectors


def schedule_contraction(c: ContractionNest, vectors: int, machine: MachineModel) -> ContractionSchedule:
    """The heuristic schedule of a contraction whose panels are `vectors` wide."""
    limit = max(1, most_rows(vectors, machine))
    tile_y, tile_x = 1, 1
    if c.m:
        x = c.m[-1].size
        if x <= limit and len(c.m) > 1 and 2 * x <= limit:
            y = c.m[-2].size
            tile_y = ceil(y / ceil(y / (limit // x)))
            tile_x = x
        else:
            tile_x = ceil(x / ceil(x / limit))
    row_tiles = row_tile_count(c, tile_y, tile_x)
    panels = c.panels.panel.size
    groups = 1
    for g in c.groups:
        groups *= g.size
    k = 1
    for a in c.k:
        k *= a.size
    rows = 1
    for a in c.m:
        rows *= a.size
    flops = 2.0 * rows * k * c.panels.columns
    wanted = int(min(MOST_CHUNKS, max(1, groups * flops // CHUNK_FLOPS)))
    row_blocks, column_blocks = _blocks(max(1, ceil(wanted / groups)), rows, k, c, row_tiles, panels)
    return ContractionSchedule(machine.lanes, vectors, tile_y, tile_x, _unroll(c), row_blocks, column_blocks)


def row_tile_count(c: ContractionNest, tile_y: int, tile_x: int) -> int:
    """Tiles that cover all m axes, remainders included."""
    total = 1
    for a in c.m[:-2]:
        total *= a.size
    if len(c.m) > 1:
        total *= ceil(c.m[-2].size / tile_y)
    if c.m:
        total *= ceil(c.m[-1].size / tile_x)
    return total


def _blocks(wanted: int, rows: int, k: int, c: ContractionNest, row_tiles: int, panels: int) -> tuple[int, int]:
    """Row blocks × column blocks, at least `wanted` where possible, with the least traffic beyond the cache."""
    a_bytes = 4.0 * rows * _k_footprint(c)
    b_bytes = 4.0 * k * c.panels.columns
    best, best_cost = (1, 1), float("inf")
    for row_blocks in {*range(1, min(row_tiles, 64) + 1), row_tiles}:
        if row_blocks > row_tiles:
            continue
        column_blocks = min(panels, ceil(wanted / row_blocks))
        if row_blocks * column_blocks > max(2 * wanted, 64) and row_blocks > a_bytes / L2_BYTES + 1:
            continue
        missing = wanted / min(wanted, row_blocks * column_blocks)
        # a block of rows is read again for every panel: from the cache if it fits, else from beyond it
        again = panels / column_blocks if a_bytes / row_blocks > L2_BYTES / 2 else 1.0
        uneven_rows = ceil(row_tiles / row_blocks) * row_blocks / row_tiles
        uneven_columns = ceil(panels / column_blocks) * column_blocks / panels
        traffic = b_bytes * row_blocks + a_bytes * column_blocks * again
        compute = 2.0 * rows * k * c.panels.columns / 8
        cost = (traffic + compute * uneven_rows * uneven_columns) * missing
        if cost < best_cost:
            best, best_cost = (row_blocks, column_blocks), cost
    return best


def _k_footprint(c: ContractionNest) -> float:
    """Distinct elements of the scalar operand per row: overlapping windows count once."""
    total = 1.0
    steps = {abs(c.a.address.coefficient(a)) for a in c.m}
    for a in c.k:
        if not any(s and abs(c.a.address.coefficient(a)) % s == 0 for s in steps):
            total *= a.size
    return total


def _unroll(c: ContractionNest) -> int:
    if not c.k:
        return 1
    inner: Axis = c.k[-1]
    return min(UNROLLED_K, inner.size)
