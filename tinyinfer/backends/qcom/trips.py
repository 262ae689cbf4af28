"""How often the loops of a compiled kernel run, from the loops of its OpenCL C.

Machine code does not say it. Loops whose ends are literals do; the compiler keeps their order and writes some
of them out whole, short ones first. What a team of work-items shares is counted for its first member.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from tinyinfer.backends.qcom.statistics import CompiledKernel, LoopStatistics

_HEAD = re.compile(r"\bfor \((?:\w+ )+(\w+) = ([^;]*); \1 ([<>]) ([^;]*); ([^{]*)\) \{")
_UNKNOWN_END = re.compile(r"\(get_work_dim\(\) == 3 \? (\d+) : 0\)")
_STEP = re.compile(r"\w+ \+= (\d+)")


@dataclass(frozen=True)
class SourceLoop:
    """One `for` loop of a kernel's text, which is the `start` to the `end` of the text."""

    start: int
    end: int
    trips: int | None
    """How often its body runs each time that it is entered; None where its head does not tell."""


@dataclass(frozen=True)
class IssueSlots:
    """What one work-item issues, loops as often as they run."""

    slots: int
    texture_reads: int


def source_loops(text: str) -> list[SourceLoop]:
    """The loops of OpenCL C, in its order."""
    found = []
    for match in _HEAD.finditer(text):
        depth, end = 1, match.end()
        while depth and end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        found.append(SourceLoop(match.start(), end, _trips(text, *match.group(2, 3, 4, 5))))
    return found


def _trips(text: str, start: str, comparison: str, stop: str, advance: str) -> int | None:
    if comparison == ">":
        return int(start).bit_length() if start.isdigit() and advance.endswith("/= 2") else None
    step = _STEP.fullmatch(advance)
    by = int(step[1]) if step else 1
    unknown = _UNKNOWN_END.fullmatch(stop)
    last = unknown[1] if unknown else stop
    if last.isdigit():
        return ceil((int(last) - (int(start) if start.isdigit() else 0)) / by)
    part = re.search(rf"\b{re.escape(start)} = \w+ \* (\d+);", text)
    return ceil(int(part[1]) / by) if part else None


def trips_of(text: str, loops: Sequence[LoopStatistics]) -> tuple[int, ...] | None:
    """For each loop of the machine code how often its body runs in all for one work-item; None where the
    text's loops do not account for them. Where several ways of writing loops out do, the shortest were."""
    made = _machine_loops(source_loops(text), 0, 1, len(loops))
    fitting = [found for found in made if [depth for depth, _ in found] == [x.depth for x in loops]]
    best = max(fitting, key=lambda found: sum(runs for _, runs in found), default=None)
    return None if best is None else tuple(runs for _, runs in best)


def _machine_loops(
    source: Sequence[SourceLoop], depth: int, runs: int, most: int
) -> Iterator[list[tuple[int, int]]]:
    """All loops, at most so many, that machine code may have for these, as (depth, runs of the body): each is
    kept, or written out, which repeats those in it."""
    if not source:
        yield []
        return
    first, *others = source
    inside = [x for x in others if x.start < first.end]
    after = [x for x in others if x.start >= first.end]
    if first.trips is None:
        return
    more = runs * first.trips
    kept = [[(depth, more), *x] for x in _machine_loops(inside, depth + 1, more, most)]
    gone = [x * first.trips for x in _machine_loops(inside, depth, runs, most)]
    rest = list(_machine_loops(after, depth, runs, most))
    yield from (x + y for x in kept + gone for y in rest if len(x) + len(y) <= most)


def issue_slots(kernel: CompiledKernel, trips: Sequence[int]) -> IssueSlots:
    """What a work-item issues in all, with `trips` for each loop."""
    said, pairs = kernel.statistics, list(zip(kernel.loops, trips, strict=True))
    return IssueSlots(
        said.instructions + sum(loop.instructions * (n - 1) for loop, n in pairs),
        said.texture_reads + sum(loop.texture_reads * (n - 1) for loop, n in pairs),
    )
