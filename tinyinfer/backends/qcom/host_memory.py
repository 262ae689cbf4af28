"""Memory of cameras and decoders as buffers: dmabufs and ION memory imported without a copy."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyinfer.backends.opencl.driver import library
from tinyinfer.backends.opencl.memory import VECTOR_BYTES, Place
from tinyinfer.backends.opencl.platforms import opencl
from tinyinfer.backends.qcom.extensions import (
    DMABUF,
    EXT_HOST_PTR,
    IOCOHERENT,
    ION,
    device_number,
    extensions_of,
)
from tinyinfer.runtime.dma_buffer import SharedMemory

if TYPE_CHECKING:
    import pyopencl

_KINDS = {DMABUF: 0x411D, ION: 0x40A8}
_UNCACHED, _IOCOHERENT = 0x40A4, 0x40A9
_PADDING = 0x40A0
_READ_ONLY, _USE_HOST_PTR, _EXT_HOST_PTR = 1 << 2, 1 << 3, 1 << 29


class _ExternalMemory(ctypes.Structure):
    """cl_mem_dmabuf_host_ptr, and cl_mem_ion_host_ptr, which has the same fields."""

    _fields_ = (
        ("allocation_type", ctypes.c_uint32),
        ("host_cache_policy", ctypes.c_uint32),
        ("descriptor", ctypes.c_int),
        ("address", ctypes.c_void_p),
    )


class HostMemory:
    """Imports for one context. What its driver refuses once is copied from then on."""

    def __init__(self, context: pyopencl.Context):
        device = context.devices[0]
        self._context = context
        there = extensions_of(device)
        # drivers were seen that list one of the two and take the other
        listed = sorted(_KINDS, key=lambda name: name not in there)
        able = EXT_HOST_PTR in there and (DMABUF in there or ION in there)
        self._kinds = [_KINDS[name] for name in listed] if able else []
        self._policy = _IOCOHERENT if IOCOHERENT in there else _UNCACHED
        self._padding = device_number(device, _PADDING) if able else 0

    def imported(self, array: np.ndarray) -> Place | None:
        """An array of `tinyinfer.dma_buffer` where it lies; None for others, and what cannot be imported."""
        memory = getattr(array, "memory", None)
        if not self._kinds or not isinstance(memory, SharedMemory):
            return None
        offset = array.offset  # type: ignore[attr-defined]
        if offset % VECTOR_BYTES or offset + array.nbytes > memory.size - self._padding:
            return None
        key = self._context.int_ptr
        if key not in memory.imports:
            memory.imports[key] = self._import(memory)
        buffer = memory.imports[key]
        return None if buffer is None else Place(buffer, offset)

    def _import(self, memory: SharedMemory) -> Any | None:
        create = library().clCreateBuffer
        create.restype = ctypes.c_void_p
        address = np.frombuffer(memory.mapping, np.uint8).__array_interface__["data"][0]
        for kind in self._kinds:
            described = _ExternalMemory(kind, self._policy, memory.descriptor, address)
            status = ctypes.c_int(0)
            handle = create(
                ctypes.c_void_p(self._context.int_ptr),
                ctypes.c_uint64(_READ_ONLY | _USE_HOST_PTR | _EXT_HOST_PTR),
                ctypes.c_size_t(memory.size - self._padding),
                ctypes.byref(described),
                ctypes.byref(status),
            )
            if handle and not status.value:
                return opencl().Buffer.from_int_ptr(handle, retain=False)
        return None
