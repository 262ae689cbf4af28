"""The records of loops in memory, made from a plan; `loop` documents their fields.

A reference inside a loop's body is followed outwards to memory of the plan. Wherever it comes through an
input or output that moves, the word that holds its address becomes a cursor of that loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tinyinfer.backends.cpu import driver, loop
from tinyinfer.budget import current
from tinyinfer.errors import RuntimeException
from tinyinfer.runtime.plan import BufferRef, Launch, LoopLaunch, Moving

_MADE = loop.MADE // 8

Place = Callable[[int, BufferRef], None]
"""Writes the address of a reference to the plan's memory into the word at an address, now or before a run."""


class LoopTables:
    """All loops of a plan. `functions` are addresses of kernels by key; `place` writes outermost references.
    """

    def __init__(self, functions: Mapping[str, int], place: Place):
        self._functions, self._place = functions, place
        self._memory: list[np.ndarray] = []
        self.records: list[tuple[np.ndarray, str]] = []
        self.allowed = current().loop_trips

    def add(self, launch: Launch) -> int:
        """The address of the record of a loop's launch."""
        return _Loop(self, launch, None).address

    def check(self) -> None:
        """After a run: RuntimeException where a loop was stopped."""
        stopped = None
        for record, title in self.records:
            if record[_MADE] > self.allowed:
                stopped = title
            record[_MADE] = 0
        if stopped is not None:
            raise RuntimeException(
                f"the loop {stopped} made {self.allowed} trips, the limit loop_trips (tinyinfer.Limits)"
            )

    def words(self, count: int) -> np.ndarray:
        made = np.zeros(max(count, 1), np.int64)
        self._memory.append(made)
        return made


class _Loop:
    """One loop while its record is filled; `outer` is the loop whose body holds it."""

    def __init__(self, tables: LoopTables, launch: Launch, outer: _Loop | None):
        assert launch.loop is not None
        self.tables, self.outer, self.plan = tables, outer, launch.loop
        self.cursors: list[tuple[int, int, int]] = []
        self.record = tables.words(loop.WORDS)
        self.address = self.record.ctypes.data
        tables.records.append((self.record, launch.title))
        self._set(loop.ALLOWED, tables.allowed)
        plan: LoopLaunch = launch.loop
        self._set(loop.LAUNCHES, self._launches(plan.launches))
        self._set(loop.COUNT, len(plan.launches))
        self._set(loop.STEPS, plan.steps)
        for at, ref in (
            (loop.TRIPS, plan.count),
            (loop.ENTER, plan.enter),
            (loop.GO_ON, plan.go_on),
            (loop.ITERATION, plan.iteration),
            (loop.LEFT, plan.done),
        ):
            if ref is not None:
                self._outside(self.address + at, ref)
        self._copies(loop.BEFORE, [(to, Moving(source), size) for to, source, size in plan.before])
        self._copies(loop.AFTER, plan.after)
        cleared = tables.words(2 * len(plan.cleared))
        for number, (ref, size) in enumerate(plan.cleared):
            self._outside(cleared.ctypes.data + number * loop.CLEAR, ref)
            cleared[2 * number + 1] = size
        self._list(loop.CLEARED, cleared, len(plan.cleared))
        cursors = tables.words(3 * len(self.cursors))
        cursors[: 3 * len(self.cursors)] = np.array(self.cursors, np.int64).reshape(-1)
        self._list(loop.CURSORS, cursors, len(self.cursors))

    def _set(self, at: int, value: int) -> None:
        self.record[at // 8] = value

    def _list(self, at: int, words: np.ndarray, count: int) -> None:
        self._set(at, words.ctypes.data)
        self._set(at + 8, count)

    def _launches(self, launches: Sequence[Launch]) -> int:
        size = driver.RECORD // 8
        records = self.tables.words(size * len(launches))
        for number, launch in enumerate(launches):
            if launch.loop is not None:
                arguments = _Loop(self.tables, launch, self).address
            else:
                pointers = self.tables.words(len(launch.arguments))
                arguments = pointers.ctypes.data
                for position, ref in enumerate(launch.arguments):
                    self.inside(arguments + 8 * position, ref)
            function = self.tables._functions[launch.kernel.key]
            records[number * size : number * size + 3] = function, arguments, launch.chunks
        return records.ctypes.data

    def _copies(self, at: int, copies: Sequence[tuple[BufferRef, Moving, int]]) -> None:
        words = self.tables.words(3 * len(copies))
        for number, (to, source, size) in enumerate(copies):
            place = words.ctypes.data + number * loop.COPY
            self._outside(place, to)
            self._moving(place + 8, source, 0)
            words[3 * number + 2] = size
        self._list(at, words, len(copies))

    # ---- references

    def inside(self, word: int, ref: BufferRef) -> None:
        """Write a reference of the body's launches."""
        if ref.space == "arena":
            arena = self.plan.arena
            self._outside(word, BufferRef(arena.space, arena.number, arena.offset + ref.offset))
        elif ref.space in ("input", "output"):
            sources = self.plan.inputs if ref.space == "input" else self.plan.outputs
            self._moving(word, sources[ref.number], ref.offset)
        else:
            self.tables._place(word, ref)

    def _moving(self, word: int, source: Moving, offset: int) -> None:
        ref = source.ref
        if source.even or source.odd:
            self.cursors.append((word, source.even, source.odd))
        self._outside(word, BufferRef(ref.space, ref.number, ref.offset + offset))

    def _outside(self, word: int, ref: BufferRef) -> None:
        """Write a reference of the launches around this loop."""
        if self.outer is None:
            self.tables._place(word, ref)
        else:
            self.outer.inside(word, ref)
