"""Feeds in memory that devices share: arrays over a dmabuf, as cameras and video decoders of Linux export."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tinyinfer.errors import InvalidArgument

_SYNC = 0x40086200
"""DMA_BUF_IOCTL_SYNC of linux/dma-buf.h: a u64 of flags."""

_READ, _END = 1, 4


class SharedMemory:
    """The whole memory behind a descriptor, mapped once. `imports` keeps what devices made of it."""

    def __init__(self, descriptor: int):
        try:
            self.descriptor = os.dup(descriptor)
        except OSError as error:
            raise InvalidArgument(f"dma_buffer: {descriptor} is no open file: {error.strerror}") from None
        try:
            self.size = os.lseek(self.descriptor, 0, os.SEEK_END)
            self.mapping = _mapped(self.descriptor, self.size)
        except (OSError, ValueError) as error:
            os.close(self.descriptor)
            raise InvalidArgument(f"dma_buffer: file {descriptor} cannot be mapped: {error}") from None
        self.imports: dict[int, Any] = {}

    def __del__(self) -> None:
        # the mapping goes with the last array over it
        if getattr(self, "mapping", None) is not None:
            os.close(self.descriptor)

    def synchronise(self, flags: int) -> None:
        """Tell the kernel that the host begins or ends to read; memory that is no dmabuf needs no telling."""
        import fcntl

        try:
            fcntl.ioctl(self.descriptor, _SYNC, struct.pack("=Q", flags))
        except OSError:
            return


def _mapped(descriptor: int, size: int) -> mmap.mmap:
    try:
        return mmap.mmap(descriptor, size)
    except PermissionError:
        return mmap.mmap(descriptor, size, prot=mmap.PROT_READ)


class DmaArray(np.ndarray):
    """An array over shared memory that knows where it lies. What is made from it, views too, does not."""

    memory: SharedMemory | None = None
    offset: int = 0

    def __array_finalize__(self, other: Any) -> None:
        self.memory, self.offset = None, 0

    def reading(self) -> AbstractContextManager[None]:
        """A context around reads by the host, in which what devices wrote is visible."""
        return reading(self)


def dma_buffer(descriptor: int, shape: Sequence[int], dtype: DTypeLike, offset: int = 0) -> DmaArray:
    """The memory behind a dmabuf's file descriptor as an array that can be fed like any other.

    A device that can import such memory (QCOM with cl_qcom_dmabuf_host_ptr or cl_qcom_ion_host_ptr) reads it
    where it lies, if `offset` (bytes) is a multiple of 16; all others copy from it. The descriptor is
    duplicated, so the caller may close theirs. Make one array for each buffer of a camera's ring and feed it
    again and again: it is mapped and imported once. Producers must have finished writing when it is fed.
    Reads by the host, runs on the CPU device among them, belong into `with array.reading():`.

    Raises InvalidArgument where the descriptor is none that can be mapped, or its memory is too short.
    """
    memory = SharedMemory(descriptor)
    kind = np.dtype(dtype)
    size = prod(shape) * kind.itemsize
    if offset < 0 or offset + size > memory.size:
        raise InvalidArgument(
            f"dma_buffer: {size} bytes at {offset} do not lie within the {memory.size} of the buffer"
        )
    array = np.ndarray(tuple(shape), kind, memory.mapping, offset).view(DmaArray)
    array.memory, array.offset = memory, offset
    return array


@contextmanager
def reading(array: np.ndarray) -> Iterator[None]:
    """As `DmaArray.reading`, for any array: nothing happens around those of other memory."""
    memory = getattr(array, "memory", None)
    if not isinstance(memory, SharedMemory):
        yield
        return
    memory.synchronise(_READ)
    try:
        yield
    finally:
        memory.synchronise(_READ | _END)
