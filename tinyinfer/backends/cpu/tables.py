"""The tables in memory that the driver walks, made from a plan; `driver` documents their fields."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from tinyinfer.backends.cpu import driver
from tinyinfer.backends.cpu.loop_tables import LoopTables
from tinyinfer.backends.cpu.system import Block, SystemFunctions
from tinyinfer.runtime.plan import BufferRef, Launch

IDLE_NANOSECONDS = 80_000
"""How long a worker looks for the next run before it sleeps: longer than a caller needs between two runs,
shorter than anybody notices in a processor's load."""
SPINS = 1000
"""Pauses in a wait within a run before the thread offers its core to others."""


WORTH_SHARING = 30e-6
"""Seconds of estimated work from which on a run wakes other threads: waking a sleeping one takes as long."""


def _estimated_seconds(launch: Launch) -> float:
    """Rough time of a launch on one core: 50 GFLOP/s or 20 GB/s, whichever is slower; unknown is long."""
    if not launch.flops and not launch.bytes:
        return WORTH_SHARING * 2
    return max(launch.flops / 50e9, launch.bytes / 20e9)


def array_data_offset() -> int:
    """Where CPython's ndarray object keeps its data pointer (first field after the object's head), or 0 where
    this interpreter or numpy does it differently. Reading it natively is some 30 times faster than asking the
    array."""
    if sys.implementation.name != "cpython":
        return 0
    offset = object.__basicsize__
    for sample in (np.empty(3, np.float32), np.empty((2, 5), np.int64)[:, ::2], np.empty(())):
        if ctypes.c_void_p.from_address(id(sample) + offset).value != sample.ctypes.data:
            return 0
    return offset


class Tables:
    """Context, launch records, counters, patches and argument tables of one plan, in one block of memory.

    `functions` are the addresses of kernels by key, `arena` and `parameters` those of the buffers,
    `inputs` says how many arrays are fed, and `threads` counts the caller's.
    """

    def __init__(
        self,
        launches: Sequence[Launch],
        functions: Mapping[str, int],
        arena: int,
        parameters: Sequence[int],
        inputs: int,
        threads: int,
        system: SystemFunctions,
    ):
        count = len(launches)
        records_at = driver.CONTEXT_BYTES
        counters_at = records_at + count * driver.RECORD
        parts = driver.COUNTER * threads
        arguments_at = counters_at + count * parts
        pointers = sum(len(launch.arguments) for launch in launches if launch.loop is None)
        self.block = Block(arguments_at + 8 * pointers)
        self.address = self.block.address
        self._counters = self._words(counters_at, count * parts)
        records = self._words(records_at, count * driver.RECORD).reshape(count, driver.RECORD // 8)
        patches: list[tuple[int, int, int]] = []

        def place(word: int, ref: BufferRef) -> None:
            """Write an address into the word at `word`; those of fed arrays come with each run."""
            if ref.space == "arena":
                ctypes.c_int64.from_address(word).value = arena + ref.offset
            elif ref.space == "parameter":
                ctypes.c_int64.from_address(word).value = parameters[ref.number] + ref.offset
            elif ref.space in ("input", "output"):
                patches.append((ref.number + (inputs if ref.space == "output" else 0), ref.offset, word))
            else:
                raise ValueError(f"unknown buffer space {ref.space!r}")

        self.loops = LoopTables(functions, place)
        total = 0
        following = self.address + arguments_at
        for number, launch in enumerate(launches):
            before, total = total, total + launch.chunks
            counter = self.address + counters_at + number * parts
            needed = before if launch.waits else 0
            if launch.loop is not None:
                arguments = self.loops.add(launch)
            else:
                arguments = following
                for ref in launch.arguments:
                    place(following, ref)
                    following += 8
            function = functions[launch.kernel.key]
            records[number, :6] = function, arguments, launch.chunks, needed, total, counter
        self._patches = np.array(patches or [(0, 0, 0)], np.int64)
        worthwhile = sum(map(_estimated_seconds, launches)) > WORTH_SHARING
        # a loop that does not wait runs beside the one before it
        shared = any(launch.chunks > 1 or (launch.loop and not launch.waits) for launch in launches)
        self.parallel = threads > 1 and worthwhile and shared
        self.data_offset = array_data_offset()
        self._set(
            {
                driver.LAUNCHES: self.address + records_at,
                driver.COUNT: count,
                driver.PATCHES: self._patches.ctypes.data,
                driver.PATCH_COUNT: len(patches),
                driver.TOTAL: total,
                driver.PARALLEL: int(self.parallel),
                driver.SYSCALL: system.syscall,
                driver.FUTEX: system.futex,
                driver.CLOCK: system.clock,
                driver.CLOCK_ID: system.monotonic,
                driver.YIELD: system.relinquish,
                driver.SLEEP: system.sleep,
                driver.IDLE: IDLE_NANOSECONDS,
                driver.SPINS: SPINS,
                driver.DATA: self.data_offset,
                driver.THREADS: threads,
            }
        )

    def reset(self) -> None:
        """As before the first run. No thread may be in the driver."""
        self._counters[:] = 0
        words = (driver.GENERATION, driver.STOP, driver.NUMBER, driver.DONE, driver.FRONT, driver.SLEEPERS)
        self._set({at: 0 for at in words})

    def _set(self, values: dict[int, int]) -> None:
        words = self._words(0, driver.CONTEXT_BYTES)
        for offset, value in values.items():
            words[offset // 8] = value

    def _words(self, offset: int, size: int) -> np.ndarray:
        return self.block.view(offset, (size // 8,), np.dtype(np.int64))
