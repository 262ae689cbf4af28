"""Memory that the CPU and the GPU share."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyinfer.backends.qcom.kgsl import abi
from tinyinfer.backends.qcom.kgsl.system import KgslError

if TYPE_CHECKING:
    from tinyinfer.backends.qcom.kgsl.device import KgslDevice


class Cache(enum.Enum):
    """How the CPU sees a buffer."""

    WRITE_COMBINED = abi.CACHE_WRITE_COMBINE << abi.MEMORY_CACHE_SHIFT
    """Not cached: writing in order is fast, reading is slow. What the CPU only writes."""

    CACHED = abi.CACHE_WRITE_BACK << abi.MEMORY_CACHE_SHIFT | abi.MEMORY_IO_COHERENT
    """Cached, and coherent with the GPU where the system is. What the CPU also reads."""


class Buffer:
    """One GPU object: `size` bytes from GPU address `address` on.

    `bytes` is the CPU's view of it; None for an imported buffer, which is filled by whoever made it. The
    GPU's memory is freed by `close`, the CPU's view when the last array over it is gone.
    """

    def __init__(self, device: KgslDevice, info: abi.ObjectInfo, mapping: Any):
        self.device = device
        self.id: int = info.id
        self.address: int = info.address
        self.size: int = info.size
        self.flags: int = info.flags
        self.bytes = None if mapping is None else np.frombuffer(mapping, np.uint8)
        self.closed = False

    @property
    def coherent(self) -> bool:
        """Whether either side sees what the other wrote without `sync_to_gpu` and `sync_from_gpu`."""
        cached = self.flags & abi.MEMORY_CACHE_MASK == abi.CACHE_WRITE_BACK << abi.MEMORY_CACHE_SHIFT
        return not cached or bool(self.flags & abi.MEMORY_IO_COHERENT)

    def view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
        """An array over the memory from byte `offset` on."""
        if self.closed:
            raise KgslError("the buffer is closed")
        if self.bytes is None:
            raise KgslError("an imported buffer has no view for the CPU: use the one of whoever made it")
        count = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if not 0 <= offset <= self.size - count:
            raise KgslError(f"bytes {offset} to {offset + count} are outside of a buffer of {self.size}")
        return self.bytes[offset : offset + count].view(dtype).reshape(shape)

    def sync_to_gpu(self, offset: int = 0, size: int | None = None) -> None:
        """Make what the CPU wrote visible to the GPU; costs nothing where the buffer is coherent."""
        self._sync(abi.SYNC_TO_GPU, offset, size)

    def sync_from_gpu(self, offset: int = 0, size: int | None = None) -> None:
        """Make what the GPU wrote visible to the CPU; costs nothing where the buffer is coherent."""
        self._sync(abi.SYNC_FROM_GPU, offset, size)

    def close(self) -> None:
        """Free the GPU's memory. The GPU must have finished with it."""
        if not self.closed:
            self.closed = True
            self.bytes = None
            self.device.free(self)

    def _sync(self, operation: int, offset: int, size: int | None) -> None:
        if not self.coherent and self.bytes is not None:
            self.device.sync(self, operation, offset, self.size - offset if size is None else size)
