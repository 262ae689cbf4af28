"""What the run time takes from the operating system: memory, and the C functions that the driver calls."""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

HUGE_PAGE = 2 << 20
ALIGNMENT = 64
FUTEX = {"x86_64": 202, "aarch64": 98}
"""Linux's number of the futex system call, by architecture (asm/unistd.h)."""


class Block:
    """Zero-filled private memory of at least `size` bytes at an address that is a multiple of 64.

    Blocks of some size start on a huge-page boundary and ask for huge pages. The memory lives as long as the
    block or any array that `view` gave out.
    """

    def __init__(self, size: int):
        huge = size >= HUGE_PAGE
        length = max(size, 1) + (HUGE_PAGE if huge else 0)
        flags = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if sys.platform != "win32" else {}
        self._mapping = mmap.mmap(-1, length, **flags)
        whole = np.frombuffer(self._mapping, np.uint8)
        start = whole.ctypes.data
        skip = -start % HUGE_PAGE if huge else 0
        self.bytes = whole[skip : skip + max(size, 1)]
        self.address = start + skip
        self.size = size
        if huge and hasattr(mmap, "MADV_HUGEPAGE"):
            try:
                self._mapping.madvise(mmap.MADV_HUGEPAGE)
            except OSError:
                pass

    def view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array over the memory from byte `offset` on."""
        count = int(np.prod(shape, dtype=np.int64))
        return self.bytes[offset : offset + count * dtype.itemsize].view(dtype).reshape(shape)


def release_file_pages(array: np.ndarray) -> None:
    """Give back the memory behind an array that reads a file: its pages come again from the file if needed.

    Arrays over anything but a read-only mapping are left alone: their memory is the only copy.
    """
    root: object = array
    while not isinstance(root, mmap.mmap):
        following = root.obj if isinstance(root, memoryview) else getattr(root, "base", None)
        if following is None:
            return
        root = following
    if not hasattr(mmap, "MADV_DONTNEED") or not memoryview(root).readonly:
        return
    base = np.frombuffer(root, np.uint8).__array_interface__["data"][0]
    start = array.__array_interface__["data"][0]
    reach = [(size - 1) * stride for size, stride in zip(array.shape, array.strides) if size]
    low = start + sum(r for r in reach if r < 0)
    high = start + sum(r for r in reach if r > 0) + array.itemsize
    first = -(-(low - base) // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (high - base) // mmap.PAGESIZE * mmap.PAGESIZE - first
    if length > 0:
        root.madvise(mmap.MADV_DONTNEED, first, length)


@dataclass(frozen=True)
class SystemFunctions:
    """Addresses of C functions: `int clock_gettime(int, long[2])`, `int sched_yield()`, `int
    usleep(unsigned)`, and Linux's `long syscall(long, …)` (0 elsewhere). `monotonic` is the clock's number,
    `futex` the system call's."""

    clock: int
    monotonic: int
    relinquish: int
    sleep: int
    syscall: int
    futex: int
    owner: Any


def system_functions() -> SystemFunctions:
    """This system's C library functions. Raises OSError where it has none of them (Windows)."""
    if sys.platform == "win32":
        raise OSError("the CPU run time needs a POSIX C library")
    libc = ctypes.CDLL(None)

    def address(name: str) -> int:
        return ctypes.cast(getattr(libc, name), ctypes.c_void_p).value or 0

    futex = FUTEX.get(platform.machine(), 0) if sys.platform == "linux" else 0
    return SystemFunctions(
        clock=address("clock_gettime"),
        monotonic=6 if sys.platform == "darwin" else 1,
        relinquish=address("sched_yield"),
        sleep=address("usleep"),
        syscall=address("syscall") if futex else 0,
        futex=futex,
        owner=libc,
    )
