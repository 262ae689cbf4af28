"""Schedules of kernels that are no register-tiled contraction: elementwise, pooling, depthwise, reductions,
softmax.

A map kernel runs over its root axes. Reductions that do not depend on all of them are *row statistics*: the
axes that they do depend on become rows, they are computed once per row, and the other axes (columns) follow
inside. One axis is vectorised: the one along which most of the memory traffic is contiguous.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import ClassVar

from tinyinfer.ir.index import Axis, Slot, atoms_of
from tinyinfer.ir.ops import ELEMENTWISE
from tinyinfer.kernels.access import walk_with_indices
from tinyinfer.kernels.expression import Expr, walk
from tinyinfer.kernels.nest import LoopNest, free_axes

CHUNK_CYCLES = 4_000
MOST_CHUNKS = 32
STRAIGHT_STEPS = 64
"""Reductions of at most this many steps are unrolled whole."""

NEAR_BYTES = 1 << 20
"""Inputs of at most this size are taken to be in the second-level cache."""

STRAIGHT_WORK = 400
"""Limit on the operations of one unrolled tile."""


@dataclass(frozen=True)
class MapSchedule:
    """Cut of a map kernel.

    `rows` and `columns` are the root axes in loop order, outer first. `vector` is the axis of lanes (None:
    scalar stores), `vectors` how many vectors one step writes, `tile_axis`/`tile` the axis and number of
    neighbouring outputs computed together, `parallel` how many leading loops chunks are taken from.
    `transposed`: a tile is as high as a vector is wide, and loads that are contiguous along the tile are
    turned over in registers.
    """

    lanes: int
    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...]
    vector: Axis | None
    vectors: int
    tile_axis: Axis | None
    tile: int
    parallel: int
    chunks: int
    transposed: bool = False
    work: ClassVar[None] = None

    @property
    def name(self) -> str:
        """The schedule as a kernel's name spells it."""
        tile = f"_{'x' if self.transposed else 't'}{self.tile}" if self.tile_axis is not None else ""
        return f"v{self.vectors if self.vector is not None else 0}x{self.lanes}{tile}"


def expression_weight(root: Expr) -> int:
    """Rough cost of one evaluation in vector operations; reduced bodies count once."""
    total = 0
    for e in walk(root):
        if e.op in ELEMENTWISE:
            total += 14 if ELEMENTWISE[e.op].transcendental else 6 if e.op in ("DIV", "SQRT", "RECIP") else 1
        elif e.op == "LOAD":
            total += 1
    return total


def reduce_steps(e: Expr) -> int:
    """Number of elements that one result of a REDUCE expression joins."""
    total = 1
    for a in e.attrs[1]:
        total *= a.size
    return total


def stride_of(load: Expr, axis: Axis, free: dict[int, frozenset[Axis]]) -> int | None:
    """Elements that a load's address moves per step of `axis`; None where that is not one number."""
    address = load.attrs.address
    for atom, _ in address.terms:
        if atom == axis:
            continue
        if isinstance(atom, Slot):
            if axis in free[id(atom.payload)]:
                return None
        elif axis in atoms_of_atom(atom):
            return None
    return address.coefficient(axis)


def atoms_of_atom(atom) -> set:
    inner = getattr(atom, "inner", None)
    return atoms_of(inner) if inner is not None else {atom}


@dataclass
class _Traffic:
    """One load or store: how often it happens, and inside which reduction."""

    load: Expr | None
    times: float
    reduce: Expr | None


def _traffic(nest: LoopNest, free: dict[int, frozenset[Axis]]) -> list[_Traffic]:
    found: list[_Traffic] = []
    root = 1
    for a in nest.axes:
        root *= a.size
    seen: set[tuple[int, int]] = set()

    def visit(e: Expr, times: float, inside: Expr | None) -> None:
        if (id(e), id(inside)) in seen:
            return
        seen.add((id(e), id(inside)))
        if e.op == "LOAD":
            found.append(_Traffic(e, times, inside))
            return
        if e.op == "REDUCE":
            rows = 1
            for a in free[id(e)]:
                rows *= a.size
            visit(e.args[0], rows * reduce_steps(e), e)
            return
        for argument in e.args:
            visit(argument, times, inside)

    visit(nest.body, float(root), None)
    return found


def horizontal_axis(e: Expr, free: dict[int, frozenset[Axis]]) -> Axis | None:
    """The reduce axis along which the loads of a reduction are contiguous, if any serves."""
    best, best_score = None, 0.0
    for a in e.attrs[1]:
        score = 0.0
        for load in walk(e.args[0]):
            if load.op == "LOAD":
                stride = stride_of(load, a, free)
                score += 1 if stride == 1 else 0 if stride == 0 else -4
        if a.size >= 4 and score > best_score:
            best, best_score = a, score
    return best


def schedule_map(nest: LoopNest, lanes: int, registers: int) -> MapSchedule:
    """The heuristic schedule of a map kernel whose axes are sorted by the stride of the store, largest
    first."""
    free = free_axes(nest.body)
    reduces = [e for e in walk_with_indices(nest.body) if e.op == "REDUCE"]
    full = frozenset(nest.axes)
    hoisted = [e for e in reduces if not full <= free[id(e)]]
    traffic = _traffic(nest, free)
    vector = _pick_vector(nest, free, reduces, traffic, lanes)
    rows: tuple[Axis, ...] = nest.axes
    columns: tuple[Axis, ...] = ()
    if vector is not None and hoisted:
        used = {a for e in hoisted for a in free[id(e)]}
        rows = tuple(a for a in nest.axes if a in used)
        columns = tuple(a for a in nest.axes if a not in used)
    rows, columns = _vector_last(rows, vector), _vector_last(columns, vector)
    straight = [e for e in reduces if full <= free[id(e)] and is_straight(e)]
    weight = expression_weight(nest.body)
    steps = max((reduce_steps(e) for e in straight), default=1)
    vectors, tile_axis, tile, transposed = 1, None, 1, False
    if vector is not None:
        available = ceil(vector.size / lanes)
        if straight:
            tile_axis, tile = pick_tile(nest, free, straight, vector, steps * weight, registers)
            if tile_axis is not None and 4 * sum(_elements(t) for t in traffic) < NEAR_BYTES:
                # what lies in the second-level cache may be walked across; what lies beyond is read in order
                rows = _tile_last(rows, tile_axis)
            if tile < 2:
                vectors = min(available, 2 if steps * weight <= STRAIGHT_WORK / 2 else 1)
        elif reduces and not hoisted:
            vectors = min(available, 4)
        else:
            tile_axis = _turned_axis(nest, free, traffic, vector, rows if vector in rows else columns)
            if tile_axis is None:
                vectors = min(available, 4 if weight <= 12 else 2 if weight <= 40 else 1)
            else:
                tile, transposed = lanes, True
    made = MapSchedule(lanes, rows, columns, vector, vectors, tile_axis, tile, 0, 1, transposed)
    return _in_chunks(made, _cycles(nest, reduces, free, traffic, weight, lanes))


def _in_chunks(s: MapSchedule, cycles: float) -> MapSchedule:
    """The schedule with as many chunks as a kernel of that many cycles should have."""
    order = (*s.rows, *s.columns)
    wanted = int(max(1, min(MOST_CHUNKS, cycles / CHUNK_CYCLES)))
    parallel, units = 0, 1
    while parallel < len(s.rows) and units < wanted:
        units *= loop_units(order[parallel], s.vector, s.vectors * s.lanes, s.tile_axis, s.tile)
        parallel += 1
    return replace(s, parallel=parallel, chunks=min(wanted, units))


@dataclass(frozen=True)
class Shape:
    """What one step of a map kernel computes, `vectors` of `tile` neighbouring outputs, and whether the loop
    over tiles is the innermost of the rows."""

    vectors: int
    tile: int
    across: bool


def recut(nest: LoopNest, s: MapSchedule, shape: Shape) -> MapSchedule:
    """A schedule of `nest` with steps of another shape, and chunks to suit."""
    rows = _vector_last(tuple(a for a in nest.axes if a in s.rows), s.vector)
    if shape.across and s.tile_axis is not None:
        rows = _tile_last(rows, s.tile_axis)
    made = replace(s, rows=rows, vectors=shape.vectors, tile=shape.tile)
    return _in_chunks(made, map_cycles(nest, s.lanes))


def map_cycles(nest: LoopNest, lanes: int) -> float:
    """Rough time of a map kernel on one core, in cycles."""
    free = free_axes(nest.body)
    reduces = [e for e in walk_with_indices(nest.body) if e.op == "REDUCE"]
    weight = expression_weight(nest.body)
    return _cycles(nest, reduces, free, _traffic(nest, free), weight, lanes)


def straight_work(nest: LoopNest) -> int:
    """Operations of one output with its short reductions unrolled."""
    free = free_axes(nest.body)
    full = frozenset(nest.axes)
    straight = [
        reduce_steps(e)
        for e in walk_with_indices(nest.body)
        if e.op == "REDUCE" and full <= free[id(e)] and is_straight(e)
    ]
    return max(straight, default=1) * expression_weight(nest.body)


def loop_units(axis: Axis, vector: Axis | None, width: int, tile_axis: Axis | None, tile: int) -> int:
    """Steps of the loop over an axis: whole vectors groups or tiles, the remainder counting as one."""
    if axis is vector:
        return ceil(axis.size / width)
    if axis is tile_axis:
        return ceil(axis.size / tile)
    return axis.size


def is_straight(e: Expr) -> bool:
    """Whether a reduction is short enough to be unrolled whole."""
    return (
        reduce_steps(e) <= STRAIGHT_STEPS and reduce_steps(e) * expression_weight(e.args[0]) <= STRAIGHT_WORK
    )


def _vector_last(axes: tuple[Axis, ...], vector: Axis | None) -> tuple[Axis, ...]:
    return (*(a for a in axes if a is not vector), vector) if vector in axes else axes  # type: ignore[arg-type]


def _turned_axis(
    nest: LoopNest,
    free: dict[int, frozenset[Axis]],
    traffic: list[_Traffic],
    vector: Axis,
    group: tuple[Axis, ...],
) -> Axis | None:
    """The axis along which loads lie contiguous that are strided along the vectorised one, if there are such
    loads."""
    if nest.store.coefficient(vector) != 1:
        return None
    for t in traffic:
        if t.reduce is not None or t.load is None or t.load.attrs.guards:
            continue
        if stride_of(t.load, vector, free) in (0, 1, None):
            continue
        for a in group:
            if a is not vector and a.size >= 8 and vector.size >= 4 and stride_of(t.load, a, free) == 1:
                return a
    return None


def _elements(t: _Traffic) -> int:
    """Elements that the addresses of a load span."""
    assert t.load is not None
    address = t.load.attrs.address
    return address.hi - address.lo + 1


def _tile_last(rows: tuple[Axis, ...], last: Axis) -> tuple[Axis, ...]:
    return (*(a for a in rows if a is not last), last) if last in rows else rows


def _pick_vector(
    nest: LoopNest, free: dict[int, frozenset[Axis]], reduces: list[Expr], traffic: list[_Traffic], lanes: int
) -> Axis | None:
    """The root axis whose vectorisation makes memory traffic cheapest; None: reductions go along their own
    axes."""
    total = 1.0
    for a in nest.axes:
        total *= a.size
    horizontal = {id(e): horizontal_axis(e, free) for e in reduces}

    def cost(vector: Axis | None) -> float:
        fill = 1.0
        if vector is not None:
            fill = ceil(vector.size / lanes) * lanes / vector.size
        result = 0.0
        stored = nest.store.coefficient(vector) if vector is not None else None
        result += total * (fill / lanes if stored == 1 else 1.3)
        for t in traffic:
            along, waste = vector, fill
            if t.reduce is not None and (vector is None or vector not in free[id(t.reduce)]):
                along = horizontal[id(t.reduce)]
                waste = ceil(along.size / lanes) * lanes / along.size if along is not None else 1.0
                # a horizontal sum costs about a dozen operations per result
                rows = t.times / reduce_steps(t.reduce)
                result += rows * 12 / lanes
            if along is None:
                result += t.times
                continue
            stride = stride_of(t.load, along, free)  # type: ignore[arg-type]
            result += t.times * (waste / lanes if stride in (0, 1) else 1.2)
        return result

    candidates: list[Axis | None] = [a for a in reversed(nest.axes)]
    candidates.append(None)
    return min(candidates, key=cost)


def pick_tile(
    nest: LoopNest,
    free: dict[int, frozenset[Axis]],
    straight: list[Expr],
    vector: Axis,
    work: int,
    registers: int,
) -> tuple[Axis | None, int]:
    """The axis along which neighbouring outputs share loads, and how many of them to compute together."""
    best, best_score = None, 0
    for a in nest.axes:
        if a is vector or a.size < 2:
            continue
        score = 0
        for e in straight:
            for load in walk(e.args[0]):
                if load.op == "LOAD":
                    stride = stride_of(load, a, free)
                    steps = [s for r in e.attrs[1] if (s := stride_of(load, r, free))]
                    shared = stride == 0 or (stride is not None and any(stride % s == 0 for s in steps))
                    score += 1 if shared else 0
        if score > best_score or (score == best_score and best is not None and score):
            best, best_score = a, score
    if best is None:
        return None, 1
    limit = max(1, min(registers // 4, int(STRAIGHT_WORK * 2 // max(work, 1)), best.size))
    count = ceil(best.size / limit)
    return best, ceil(best.size / count)


def _cycles(
    nest: LoopNest,
    reduces: list[Expr],
    free: dict[int, frozenset[Axis]],
    traffic: list[_Traffic],
    weight: int,
    lanes: int,
) -> float:
    """Rough time of the kernel on one core, in cycles."""
    total = 1.0
    for a in nest.axes:
        total *= a.size
    work = total * max(weight, 1)
    for e in reduces:
        rows = 1.0
        for a in free[id(e)]:
            rows *= a.size
        work += rows * reduce_steps(e) * max(1, expression_weight(e.args[0]))
    return work / lanes / 1.5 + sum(t.times for t in traffic) * 4 / 24
