"""Schedules: how a loop nest is cut into chunks, tiles and vectors. A schedule is data; this module picks one
at once.

The contraction schedule follows the register-tile model of docs/design.md: `rows × vectors` accumulators with
`rows · vectors + vectors + 1` registers at most, remainders as tiles of their own, the panel of the packed
operand outside and the rows inside, and blocks chosen so that what is read again stays in the second-level
cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod
from typing import TYPE_CHECKING, ClassVar

from tinyinfer.ir.index import Axis
from tinyinfer.kernels.contraction import Contraction
from tinyinfer.kernels.halo import HaloRegion
from tinyinfer.kernels.nest import LoopNest
from tinyinfer.kernels.physical import ContractionNest, PhysicalKernel
from tinyinfer.kernels.schedule_map import MapSchedule, schedule_map
from tinyinfer.kernels.schedule_scatter import ScatterSchedule, schedule_scatter
from tinyinfer.kernels.tuning import Tuning

if TYPE_CHECKING:
    from tinyinfer.kernels.schedule_map_space import MapChoice
    from tinyinfer.kernels.schedule_space import ContractionChoice

L2_BYTES = 1 << 20
"""What a kernel counts on keeping in the second-level cache."""

CHUNK_FLOPS = 0.25e6
"""A chunk should take longer than handing it to another core that is looking for work: 1 to 2 µs."""

MOST_CHUNKS = 32

UNROLLED_K = 4

COLD_BYTES = 128 << 10
"""Packed constants of this size are taken to lie beyond the second-level cache when a kernel starts."""

L1_BYTES = 24 << 10
VECTOR_BYTES = 64

FLOPS_PER_CYCLE = 64
FAR_BYTES_PER_CYCLE = 12
IDLE_AT_END = 2.0
"""Chunks that wait, on average, when threads run out of work at the end of a kernel."""

CHUNK_COST = 300
"""Cycles that taking a chunk costs."""


@dataclass(frozen=True)
class MachineModel:
    """What schedules need to know of a device: float32 lanes of a vector and the number of vector
    registers."""

    lanes: int
    registers: int
    halo_bytes: ClassVar[int] = 0
    images: ClassVar[None] = None

    def choice(self, physical: PhysicalKernel, roles: Contraction) -> ContractionChoice:
        from tinyinfer.kernels.schedule_space import ContractionChoice

        return ContractionChoice(physical, roles, self)

    def vector_axis(self, nest: LoopNest) -> Axis | None:
        return schedule_map(nest, self.lanes, self.registers).vector

    def map_choice(self, physical: PhysicalKernel) -> MapChoice | None:
        from tinyinfer.kernels.plan import prepare_map
        from tinyinfer.kernels.schedule_map_space import MapChoice

        choice = MapChoice(prepare_map(physical, self), self)
        return choice if len(list(choice.space())) > 1 else None

    def map(self, physical: PhysicalKernel, tuning: Tuning) -> MapSchedule:
        from tinyinfer.kernels.schedule_map_space import MapChoice

        return MapChoice(physical, self).pick(tuning)

    def scatter(self, nest: LoopNest, independent: frozenset[Axis]) -> ScatterSchedule:
        return schedule_scatter(nest, independent, self.lanes)

    def halo(self, regions: tuple[HaloRegion, ...]) -> None:
        return None


@dataclass(frozen=True)
class ContractionSchedule:
    """Cut of a contraction. Rows: the last one or two m axes in tiles of `tile_y × tile_x`; columns:
    `vectors` wide.

    `rows_outside`: the rows of a block are walked once and all its panels again for each tile of them, which
    keeps the panels in the second-level cache and writes whole rows; otherwise each panel is walked once.
    """

    lanes: int
    vectors: int
    tile_y: int
    tile_x: int
    unroll: int
    row_blocks: int
    column_blocks: int
    rows_outside: bool
    prefetch: bool = False
    work: ClassVar[None] = None

    def chunks_of(self, groups: int) -> int:
        """The chunks of a contraction of this many groups."""
        return groups * self.row_blocks * self.column_blocks

    @property
    def name(self) -> str:
        """The schedule as a kernel's name spells it."""
        order = "r" if self.rows_outside else "pf" if self.prefetch else "p"
        return f"{self.tile_y}x{self.tile_x}x{self.vectors}v{self.lanes}_k{self.unroll}{order}"


def pick_vectors(c: ContractionNest, machine: MachineModel) -> int:
    """Vectors of a register tile for a contraction: the least time over all its tiles, remainders
    included."""
    needed = ceil(c.panels.columns / machine.lanes)
    k = prod(a.size for a in c.k)
    above = prod(a.size for a in c.m[:-2])
    best, best_cost = 1, float("inf")
    for vectors in range(1, min(needed, 8) + 1):
        limit = most_rows(vectors, machine)
        if limit < 1:
            break
        tile_y, tile_x = row_tile(c, limit)
        full, rest = divmod(needed, vectors)
        heights = _cuts(c.m[-2].size if len(c.m) > 1 else 1, tile_y)
        widths = _cuts(c.m[-1].size if c.m else 1, tile_x)
        cost = 0.0
        for panels, width in ((full, vectors), (1 if rest else 0, rest)):
            for y, many_y in heights:
                for x, many_x in widths:
                    if panels and many_y and many_x:
                        cost += panels * many_y * many_x * above * _tile_cost(y * x, width, k)
        if cost < best_cost * 0.99:
            best, best_cost = vectors, cost
    return best


def _cuts(size: int, tile: int) -> list[tuple[int, int]]:
    """(size of a tile, how many of it) for the full tiles and the remainder."""
    return [(tile, size // tile), (size % tile, 1 if size % tile else 0)]


def _tile_cost(rows: int, vectors: int, k: int) -> float:
    """Cycles of a register tile: multiply-adds and loads at two a cycle, latency of four, panels beyond the
    first-level cache at 40 bytes a cycle, and what a tile costs besides."""
    panel_rate = 1.6 if k * vectors * VECTOR_BYTES > L1_BYTES else 0.6
    step = max(rows * vectors / 2, (rows + vectors) / 2 * 1.05, 4.0, vectors * panel_rate)
    return k * (step + 0.1) + 40 + 1.5 * rows * vectors


def most_rows(vectors: int, machine: MachineModel) -> int:
    """Most rows of a tile of this many vectors that stays in registers."""
    return (machine.registers - 1 - vectors) // vectors


def schedule_contraction(
    c: ContractionNest, vectors: int, machine: MachineModel, tile: tuple[int, int] | None = None
) -> ContractionSchedule:
    """The heuristic schedule of a contraction whose panels are `vectors` wide, for row tiles of (height,
    width) `tile` where they are given."""
    tile_y, tile_x = tile or row_tile(c, max(1, most_rows(vectors, machine)))
    row_tiles = row_tile_count(c, tile_y, tile_x)
    panels = c.panels.panel.size
    k = prod(a.size for a in c.k)
    rows = prod(a.size for a in c.m)
    row_blocks, column_blocks = _blocks(wanted_blocks(c), rows, k, c, row_tiles, panels)
    panel_bytes = 4.0 * k * c.panels.lane.size
    streamed = c.packed and panel_bytes * panels >= COLD_BYTES
    block_bytes = 4.0 * rows / row_blocks * (_k_footprint(c) + c.panels.columns / column_blocks)
    fits = panel_bytes * ceil(panels / column_blocks) <= L2_BYTES / 2
    rows_outside = fits and not (streamed and block_bytes <= L2_BYTES)
    # a single row is through its panel so soon that asking for the next one only keeps the loads waiting
    prefetch = streamed and not rows_outside and panels > 1 and rows > 1
    return ContractionSchedule(
        machine.lanes, vectors, tile_y, tile_x, _unroll(c), row_blocks, column_blocks, rows_outside, prefetch
    )


def wanted_blocks(c: ContractionNest) -> int:
    """How many blocks each group should have, so that there are enough chunks for all threads."""
    groups = prod(a.size for a in c.groups)
    flops = 2.0 * prod(a.size for a in (*c.groups, *c.m, *c.k)) * c.panels.columns
    wanted = int(min(MOST_CHUNKS, max(1, flops // CHUNK_FLOPS)))
    return max(1, ceil(wanted / groups))


def row_tile(c: ContractionNest, limit: int) -> tuple[int, int]:
    """Rows of a tile as (height, width) over the last two m axes, at most `limit`, remainders kept small."""
    if not c.m:
        return 1, 1
    x = c.m[-1].size
    if len(c.m) > 1 and 2 * x <= limit:
        y = c.m[-2].size
        return ceil(y / ceil(y / (limit // x))), x
    return 1, ceil(x / ceil(x / limit))


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


def _blocks(
    wanted: int, rows: int, k: int, c: ContractionNest, row_tiles: int, panels: int
) -> tuple[int, int]:
    """Row blocks × column blocks, at least `wanted` where possible, with the least traffic beyond the
    cache."""
    a_bytes = 4.0 * rows * _k_footprint(c)
    b_bytes = 4.0 * k * c.panels.columns
    compute = 2.0 * rows * k * c.panels.columns / FLOPS_PER_CYCLE
    best, best_cost = (1, 1), float("inf")
    for row_blocks in {*range(1, min(row_tiles, 64) + 1), row_tiles}:
        if row_blocks > row_tiles:
            continue
        column_blocks = min(panels, ceil(wanted / row_blocks))
        # a block of rows is read again for every panel: from the cache if it fits, else from beyond it
        again = panels / column_blocks if a_bytes / row_blocks > L2_BYTES / 2 else 1.0
        uneven_rows = ceil(row_tiles / row_blocks) * row_blocks / row_tiles
        uneven_columns = ceil(panels / column_blocks) * column_blocks / panels
        traffic = b_bytes * row_blocks + a_bytes * column_blocks * again
        chunks = row_blocks * column_blocks
        idle = 1 + IDLE_AT_END / min(chunks, wanted)
        cost = (
            compute * uneven_rows * uneven_columns * idle
            + traffic / FAR_BYTES_PER_CYCLE
            + chunks * CHUNK_COST
        )
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
