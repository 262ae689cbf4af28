"""How feeds get to an OpenCL device and results from it.

There are three ways, of which `capabilities.host_access` names one:

* "wrap": processors use the arrays where they lie, if they begin at a multiple of 16 bytes;
* "map": a GPU that shares the host's memory has a buffer of its driver's for each value, which kernels use
  and the host copies to and from through a mapping. Memory that the driver did not allocate, such a GPU's
  driver copies itself, with a new buffer each run;
* "pin": a GPU with memory of its own is copied to and from memory that the driver has locked in place, which
  it would else do piece by piece.

Values that a vendor's extension can import (`Vendor.imported`) are used where they lie in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyinfer.backends.opencl.memory import VECTOR_BYTES, DeviceMemory, Place
from tinyinfer.backends.opencl.platforms import opencl
from tinyinfer.backends.opencl.vendor import Vendor
from tinyinfer.runtime.dma_buffer import reading
from tinyinfer.runtime.plan import TensorSpec
from tinyinfer.runtime.signature import numpy_dtype

if TYPE_CHECKING:
    import pyopencl


class Transfers:
    """The ways of the inputs and outputs of one executable, whose places are the same in every run but for
    arrays that are used where they lie."""

    def __init__(
        self,
        memory: DeviceMemory,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        vendor: Vendor | None = None,
    ):
        self._memory, self._vendor = memory, vendor
        self._access = memory.capabilities.host_access
        self._names = {"input": [x.name for x in inputs], "output": [x.name for x in outputs]}
        self._outputs = list(outputs)
        self._buffers: dict[tuple[str, int], Any] = {}
        self._pinned: dict[tuple[str, int], np.ndarray] = {}
        self._copies: list[Any] = []

    def feed(self, queue: pyopencl.CommandQueue, number: int, array: np.ndarray) -> Place:
        """Where kernels read input `number`, once what was enqueued is done. `array` is C-contiguous and
        stays until `finish`."""
        place = self._vendor.imported(array) if self._vendor is not None else None
        if place is not None:
            return place
        data = _bytes(array)
        own = self._wrapped(data, False)
        if own is not None:
            return Place(own, 0)
        key = ("input", number)
        buffer = self._buffer(key, data.nbytes)
        if data.nbytes:
            with reading(array):
                self._write(queue, key, buffer, data)
        return Place(buffer, 0)

    def result(self, number: int) -> tuple[np.ndarray, Place]:
        """A new array for output `number`, and where kernels write what `finish` brings there."""
        array = _aligned_array(self._outputs[number])
        data = _bytes(array)
        own = self._wrapped(data, True)
        return array, Place(own if own is not None else self._buffer(("output", number), data.nbytes), 0)

    def finish(self, queue: pyopencl.CommandQueue, results: Sequence[tuple[np.ndarray, Place]]) -> None:
        """Bring the results to their arrays, and wait for all that was enqueued."""
        cl = opencl()
        late = []
        for number, (array, place) in enumerate(results):
            key, data = ("output", number), _bytes(array)
            if not data.nbytes:
                continue
            if self._access == "pin":
                late.append((data, self._locked(queue, key, data.nbytes)))
                self._copies.append(cl.enqueue_copy(queue, late[-1][1], place.buffer, is_blocking=False))
                continue
            # mapping is what makes the device's writes visible to the host
            wrapped = self._buffers.get(key) is not place.buffer
            mapped, _ = _map(queue, place.buffer, cl.map_flags.READ, data.nbytes, is_blocking=not wrapped)
            if not wrapped:
                data[...] = mapped
            mapped.base.release(queue)
        queue.finish()
        for data, locked in late:
            data[...] = locked
        self._copies.clear()

    def _write(self, queue: pyopencl.CommandQueue, key: tuple[str, int], buffer: Any, data: Any) -> None:
        cl = opencl()
        if self._access == "map":
            mapped, _ = _map(queue, buffer, cl.map_flags.WRITE_INVALIDATE_REGION, data.nbytes)
            mapped[...] = data
            mapped.base.release(queue)
            return
        source = data
        if self._access == "pin":
            source = self._locked(queue, key, data.nbytes)
            source[...] = data
        # to let go of a copy's event is to wait for it
        self._copies.append(cl.enqueue_copy(queue, buffer, source, is_blocking=False))

    def _wrapped(self, data: np.ndarray, writable: bool) -> Any | None:
        """A buffer that is an array's own memory, or None where this device cannot use it as it lies."""
        cl = opencl()
        address = data.__array_interface__["data"][0]
        if self._access != "wrap" or not data.nbytes or address % VECTOR_BYTES:
            return None
        flags = cl.mem_flags.READ_WRITE if writable else cl.mem_flags.READ_ONLY
        return cl.Buffer(self._memory.context, flags | cl.mem_flags.USE_HOST_PTR, hostbuf=data)

    def _buffer(self, key: tuple[str, int], size: int) -> Any:
        """What kernels use in place of an array."""
        if key not in self._buffers:
            what = f"{key[0]} {self._names[key[0]][key[1]]!r}"
            self._buffers[key] = self._memory.allocate(size, what, for_host=self._access == "map")
        return self._buffers[key]

    def _locked(self, queue: pyopencl.CommandQueue, key: tuple[str, int], size: int) -> np.ndarray:
        """Memory of the host that stays in its place, mapped as long as it lives."""
        if key not in self._pinned:
            cl = opencl()
            what = f"copies of {key[0]} {self._names[key[0]][key[1]]!r}"
            buffer = self._memory.allocate(size, what, for_host=True)
            flags = cl.map_flags.READ | cl.map_flags.WRITE
            self._pinned[key], _ = _map(queue, buffer, flags, size)
        return self._pinned[key]


def _map(queue: pyopencl.CommandQueue, buffer: Any, flags: int, size: int, is_blocking: bool = True) -> Any:
    return opencl().enqueue_map_buffer(queue, buffer, flags, 0, (size,), np.uint8, is_blocking=is_blocking)


def _bytes(array: np.ndarray) -> np.ndarray:
    """The memory of a C-contiguous array of any dtype as bytes."""
    return np.asarray(array).reshape(-1).view(np.uint8)


def _aligned_array(spec: TensorSpec) -> np.ndarray:
    """A new array whose memory kernels can use."""
    dtype = numpy_dtype(spec.dtype)
    size = int(np.prod(spec.shape, dtype=np.int64)) * dtype.itemsize
    whole = np.empty(size + VECTOR_BYTES, np.uint8)
    start = -whole.__array_interface__["data"][0] % VECTOR_BYTES
    return whole[start : start + size].view(dtype).reshape(spec.shape)
