"""Images of machine code in executable memory.

Memory is never writable and executable at once. An image of this process is written to fresh memory, which
then becomes executable; one in a file is mapped where it lies.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Mapping

import numpy as np

from tinyinfer.backends.cpu.code_image import ALIGNMENT, CodeImage


class MappedCode:
    """Code that can be called, for as long as this object lives: the address of each entry by its key."""

    def __init__(self, mapping: mmap.mmap, entries: Mapping[str, int]):
        self._bytes = np.frombuffer(mapping, np.uint8)
        start: int = self._bytes.__array_interface__["data"][0]
        self.addresses = {key: start + offset for key, offset in entries.items()}


def map_image(image: CodeImage) -> MappedCode:
    """The image in memory of this process. Raises OSError where the system has none for code."""
    if sys.platform == "win32":
        raise OSError("the CPU run time needs a POSIX C library")
    size = -(-max(len(image.code), 1) // ALIGNMENT) * ALIGNMENT
    mapping = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE)
    mapping[: len(image.code)] = image.code
    address = np.frombuffer(mapping, np.uint8).ctypes.data
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if libc.mprotect(address, size, mmap.PROT_READ | mmap.PROT_EXEC):
        raise OSError(ctypes.get_errno(), "memory for code cannot be made executable")
    # Linux brings the instruction cache up to date itself when pages become executable
    if sys.platform == "darwin":
        libc.sys_icache_invalidate(ctypes.c_void_p(address), ctypes.c_size_t(size))
    return MappedCode(mapping, image.entries)


def map_file(descriptor: int, offset: int, size: int, entries: Mapping[str, int]) -> MappedCode:
    """An image of `size` bytes in an open file, at an offset that is a multiple of the system's pages. Raises
    OSError where the file cannot be mapped so."""
    if sys.platform == "win32":
        raise OSError("the CPU run time needs a POSIX C library")
    if offset % mmap.ALLOCATIONGRANULARITY:
        raise OSError(f"code at byte {offset} of a file does not begin with a page of memory")
    try:
        mapping = mmap.mmap(
            descriptor, size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC, offset=offset
        )
    except ValueError as error:
        raise OSError(f"code of {size} bytes at byte {offset} of a file cannot be mapped: {error}") from error
    return MappedCode(mapping, entries)
