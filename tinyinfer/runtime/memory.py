"""The memory planner: buffers with lifetimes into one arena.

The problem is dynamic storage allocation (Garey and Johnson, "Computers and Intractability", SR2), which is
NP-hard. Greedy placement by size, each buffer in the smallest gap that holds it, is what inference engines
use (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020); a few other orders
cost little and are tried where the first one misses the lower bound."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence

Lifetime = tuple[int, int, int]
"""(first step, last step, bytes) of a buffer: alive from the start of `first` to the end of `last`."""


def lower_bound(lifetimes: Iterable[Lifetime], alignment: int = 64) -> int:
    """The most bytes that are alive in one step: no arena is smaller."""
    changes: dict[int, int] = {}
    for first, last, size in lifetimes:
        rounded = _round(size, alignment)
        changes[first] = changes.get(first, 0) + rounded
        changes[last + 1] = changes.get(last + 1, 0) - rounded
    most = alive = 0
    for step in sorted(changes):
        alive += changes[step]
        most = max(most, alive)
    return most


def pack(lifetimes: Sequence[Lifetime], alignment: int = 64) -> tuple[list[int], int]:
    """Offsets, multiples of `alignment`, in the order of `lifetimes`, and the arena's size in bytes.

    Buffers whose lifetimes share a step never share a byte. Buffers of 0 bytes lie at offset 0. Raises
    ValueError for a negative size, a lifetime that ends before it starts, or an alignment below 1.
    """
    if alignment < 1:
        raise ValueError(f"alignment {alignment}")
    for first, last, size in lifetimes:
        if size < 0 or last < first:
            raise ValueError(f"a lifetime of {size} bytes from step {first} to {last}")
    bound = lower_bound(lifetimes, alignment)
    numbers = [number for number, (_, _, size) in enumerate(lifetimes) if size]
    best: tuple[list[int], int] | None = None
    for order in _orders(lifetimes, numbers):
        offsets, total = _place(lifetimes, order, alignment)
        if best is None or total < best[1]:
            best = offsets, total
        if best[1] <= bound:
            break
    assert best is not None
    return best


def _orders(lifetimes: Sequence[Lifetime], numbers: Sequence[int]) -> Iterable[list[int]]:
    """Orders in which to place buffers, the most promising one first."""

    def size(number: int) -> int:
        return lifetimes[number][2]

    def length(number: int) -> int:
        return lifetimes[number][1] - lifetimes[number][0] + 1

    def first(number: int) -> int:
        return lifetimes[number][0]

    yield sorted(numbers, key=lambda number: (-size(number), first(number)))
    yield sorted(numbers, key=lambda number: (-size(number) * length(number), first(number)))
    yield sorted(numbers, key=lambda number: (-length(number), -size(number)))
    yield sorted(numbers, key=lambda number: (first(number), -size(number)))
    # where memory is short, place first; memory only ever grows scarcer where a lifetime begins
    steps = sorted({first(number) for number in numbers})
    span = {
        number: range(bisect_left(steps, first(number)), bisect_right(steps, lifetimes[number][1]))
        for number in numbers
    }
    alive = [0] * len(steps)
    for number in numbers:
        for step in span[number]:
            alive[step] += size(number)
    crowd = {number: max(alive[step] for step in span[number]) for number in numbers}
    yield sorted(numbers, key=lambda number: (-crowd[number], -size(number), first(number)))


def _place(lifetimes: Sequence[Lifetime], order: Sequence[int], alignment: int) -> tuple[list[int], int]:
    """Each buffer of `order` into the smallest gap among those already placed that live at the same time."""
    offsets = [0] * len(lifetimes)
    total = 0
    placed: list[tuple[int, int, int, int]] = []  # (start, end, first, last), by start
    for number in order:
        first, last, size = lifetimes[number]
        size = _round(size, alignment)
        chosen, slack, end = -1, -1, 0
        for start, stop, other_first, other_last in placed:
            if other_last < first or last < other_first:
                continue
            gap = start - end
            if gap >= size and (chosen < 0 or gap < slack):
                chosen, slack = end, gap
                if gap == size:
                    break
            if stop > end:
                end = stop
        if chosen < 0:
            chosen = end
        offsets[number] = chosen
        total = max(total, chosen + size)
        insort(placed, (chosen, chosen + size, first, last))
    return offsets, total


def _round(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
