"""A plan made runnable on the CPU of this machine."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Mapping, Sequence

import numpy as np

from tinyinfer.backends.base import LaunchTime
from tinyinfer.backends.cpu.driver import ENTRIES
from tinyinfer.backends.cpu.loader import MappedCode
from tinyinfer.backends.cpu.system import ALIGNMENT, Block, release_file_pages, system_functions
from tinyinfer.backends.cpu.tables import Tables
from tinyinfer.backends.cpu.threads import Workers, default_threads
from tinyinfer.ir.node import Node
from tinyinfer.runtime.plan import Plan, StageTexts, TensorSpec
from tinyinfer.runtime.signature import numpy_dtype

_SKEW = 5 * ALIGNMENT
"""Distance between parameters: arrays whose size is a multiple of 4 KiB must not all start at the same offset
of a page, where their lines would compete for the same sets of the first-level cache."""

_Entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
_ProfileEntry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_WorkerEntry = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Native:
    """Everything that native code touches: code, tables, arena, parameters and worker threads.

    Threads and finalizers hold this object, not the executable, so that dropping the executable stops the
    threads.
    """

    def __init__(self, plan: Plan, code: MappedCode, threads: int, copy_parameters: bool):
        self.system = system_functions()
        self.code = code
        self.arena = Block(plan.arena_bytes)
        if copy_parameters:
            self._copy_parameters(plan)
        self.parameters = list(plan.parameters)
        self.tables = Tables(
            plan.launches,
            code.addresses,
            self.arena.address,
            [_address(parameter) for parameter in self.parameters],
            len(plan.inputs),
            threads,
            self.system,
        )
        self.context = self.tables.address
        run, profile, worker, stop = (code.addresses[name] for name in ENTRIES)
        self.run = _Entry(run)
        self.profile = _ProfileEntry(profile)
        work, end = _WorkerEntry(worker), _WorkerEntry(stop)
        context = self.context
        self.workers = Workers(
            lambda: work(context), lambda: end(context), threads - 1 if self.tables.parallel else 0
        )
        self.lock = threading.Lock()
        self.closed = False

    def _copy_parameters(self, plan: Plan) -> None:
        """One block for all parameters; the plan then holds views of it, lest anything be in memory twice."""
        offsets = []
        end = 0
        for parameter in plan.parameters:
            offsets.append(-(-end // ALIGNMENT) * ALIGNMENT)
            end = offsets[-1] + parameter.nbytes + _SKEW
        block = Block(end)
        for number, offset in enumerate(offsets):
            given = plan.parameters[number]
            view = block.view(offset, given.shape, given.dtype)
            view[...] = given
            release_file_pages(given)
            view.flags.writeable = False
            plan.parameters[number] = view

    def close(self) -> None:
        with self.lock:
            self.closed = True
            if not self.workers.stop():
                _STRANDED.append((self.code, self.tables, self.arena, self.parameters))
            del self.code, self.arena, self.parameters

    def after_fork(self) -> None:
        self.lock = threading.Lock()
        self.workers.forget()
        self.tables.reset()


def _address(array: np.ndarray) -> int:
    if not array.flags.c_contiguous:
        raise ValueError("a parameter that is used where it lies must be C-contiguous")
    return array.__array_interface__["data"][0]


_STRANDED: list[object] = []
"""Memory kept for ever, because a thread that did not end may still use it."""

_ALIVE: weakref.WeakSet[_Native] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for native in list(_ALIVE):
        native.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class CpuExecutable:
    """`backends.base.Executable` for the CPU: the plan's kernels as native code, with its arena and
    parameters.

    `code` has an entry for the key of each of the plan's kernels, and the driver's. `threads` counts the
    calling thread; 0 means one a core. Worker threads start with the first run that can use them. The plan's
    parameters become read-only views of the executable's own copy; without `copy_parameters` they are used
    where they lie (in a mapped file), and the executable keeps the arrays.
    """

    def __init__(self, plan: Plan, code: MappedCode, threads: int = 0, copy_parameters: bool = True):
        self.inputs: list[TensorSpec] = list(plan.inputs)
        self.outputs: list[TensorSpec] = list(plan.outputs)
        self.peak_bytes: int = plan.peak_bytes
        self.threads = threads if threads > 0 else default_threads()
        self._launches = list(plan.launches)
        self._stages = dict(plan.stages)
        self._kept = plan.kept
        self._native = _Native(plan, code, self.threads, copy_parameters)
        _ALIVE.add(self._native)
        self._finalizer = weakref.finalize(self, self._native.close)
        self._sizes = [
            int(np.prod(spec.shape, dtype=np.int64)) * numpy_dtype(spec.dtype).itemsize
            for spec in self.inputs
        ]
        self._results = [(spec.shape, numpy_dtype(spec.dtype)) for spec in self.outputs]
        self._io = (ctypes.c_void_p * (len(self.inputs) + len(self.outputs)))()
        self._io_address = ctypes.addressof(self._io)

    def run(self, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
        """New outputs for feeds with exactly the shapes and dtypes of `inputs`, C-contiguous, in that order.

        Callers on several threads take turns. Raises ValueError for a feed of another size or layout and
        RuntimeError after `close`.
        """
        outputs = [np.empty(shape, dtype) for shape, dtype in self._results]
        self.run_into(feeds, outputs)
        return outputs

    def run_into(self, feeds: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """As `run`, into C-contiguous arrays with the shapes and dtypes of `outputs`, which are not
        checked.
        """
        self._check(feeds)
        native = self._native
        with native.lock:
            self._prepare(feeds, outputs)
            native.run(native.context, self._io_address)
            native.tables.loops.check()

    def profile(self, feeds: Sequence[np.ndarray], runs: int = 10) -> list[LaunchTime]:
        """Median seconds of each launch over `runs` runs on all threads, one launch after the other."""
        self._check(feeds)
        outputs = [np.empty(shape, dtype) for shape, dtype in self._results]
        stamps = np.zeros((max(1, runs), len(self._launches) + 1), np.int64)
        native = self._native
        for row in stamps:
            with native.lock:
                self._prepare(feeds, outputs)
                native.profile(native.context, self._io_address, row.ctypes.data)
                native.tables.loops.check()
        columns = np.diff(stamps, axis=1).T.tolist()
        return [
            LaunchTime(
                launch.title or launch.kernel.name,
                launch.origin,
                float(np.median(column)) * 1e-9,
                launch.flops,
                launch.bytes,
            )
            for launch, column in zip(self._launches, columns)
        ]

    def kept_values(self) -> list[tuple[Node, np.ndarray]]:
        """Each value that the last run stored, as a view of the arena (CompileOptions.keep_values)."""
        arena = self._native.arena
        result = []
        for value in self._kept:
            dtype = numpy_dtype(value.node.dtype)
            whole = arena.view(0, (arena.size // dtype.itemsize,), dtype)
            start = whole[value.offset // dtype.itemsize :]
            result.append(
                (value.node, np.lib.stride_tricks.as_strided(start, value.node.shape, value.strides))
            )
        return result

    def stages(self) -> Mapping[str, str]:
        """The text of every compiler stage, by name, in order: each is made when it is looked at."""
        return StageTexts(self._stages)

    def close(self) -> None:
        """End the worker threads and give up the memory; later runs raise RuntimeError."""
        self._finalizer()

    def _check(self, feeds: Sequence[np.ndarray]) -> None:
        if len(feeds) != len(self._sizes):
            raise ValueError(f"{len(self._sizes)} inputs are needed, not {len(feeds)}")
        for number, (feed, size) in enumerate(zip(feeds, self._sizes)):
            # native code reads exactly this many bytes from the array's start
            if not isinstance(feed, np.ndarray) or feed.nbytes != size or not feed.flags.c_contiguous:
                name = self.inputs[number].name
                raise ValueError(f"input {name!r} must be a C-contiguous array of {size} bytes")

    def _prepare(self, feeds: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Addresses for the driver, and worker threads; the lock is held."""
        native = self._native
        if native.closed:
            raise RuntimeError("the executable is closed")
        if not native.workers.started:
            native.workers.start()
        if native.tables.data_offset:
            self._io[:] = [*map(id, feeds), *map(id, outputs)]
        else:
            self._io[:] = [array.__array_interface__["data"][0] for array in (*feeds, *outputs)]
