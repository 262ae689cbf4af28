"""The extensions of Qualcomm's OpenCL driver that are used: their names, and functions found by name.

Nothing is linked or looked for until a device is opened, so that the package works where there is no such
driver. Numbers and structures are those of Qualcomm's `cl_ext_qcom.h` and, as far as it has them, of
Khronos's `cl_ext.h`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tinyinfer.backends.opencl.driver import library

if TYPE_CHECKING:
    import pyopencl

PERF_HINT = "cl_qcom_perf_hint"
PRIORITY_HINT = "cl_qcom_priority_hint"
RECORDABLE_QUEUES = "cl_qcom_recordable_queues"
EXT_HOST_PTR = "cl_qcom_ext_host_ptr"
IOCOHERENT = "cl_qcom_ext_host_ptr_iocoherent"
DMABUF = "cl_qcom_dmabuf_host_ptr"
ION = "cl_qcom_ion_host_ptr"

USES = {
    PERF_HINT: "how fast the GPU is to be clocked (option performance)",
    PRIORITY_HINT: "whose work goes first (option priority)",
    RECORDABLE_QUEUES: "launches recorded once and replayed (option recording)",
    EXT_HOST_PTR: "memory of others as buffers, with the two after it",
    DMABUF: "feeds in dmabufs, without a copy (tinyinfer.dma_buffer)",
    ION: "the same, where memory comes from ION",
    IOCOHERENT: "such memory, seen through the host's caches",
}
"""What is used, and for what."""

_LOADED = (
    "libOpenCL_adreno.so",
    "/vendor/lib64/libOpenCL_adreno.so",
    "/vendor/lib64/libOpenCL.so",
    "/system/vendor/lib64/libOpenCL.so",
    "libOpenCL.so",
    "libOpenCL.so.1",
)
"""Names that the driver's library may have been loaded under."""


def extensions_of(device: pyopencl.Device) -> frozenset[str]:
    """Those of `USES` that the driver says a device has."""
    return frozenset(device.extensions.split()) & frozenset(USES)


def extension_function(
    device: pyopencl.Device, name: str, result: Any, *arguments: Any
) -> Callable[..., Any] | None:
    """A function of an extension, or None where the driver has none of that name.

    Drivers that do not give all addresses to whom asks for them export the functions; then those of the
    libraries that the process has loaded are looked at.
    """
    kind = ctypes.CFUNCTYPE(result, *arguments)
    ask: Any = getattr(library(), "clGetExtensionFunctionAddressForPlatform", None)
    if ask is not None:
        ask.restype = ctypes.c_void_p
        address = ask(ctypes.c_void_p(device.platform.int_ptr), name.encode())
        if address:
            return kind(address)
    for path in _LOADED if hasattr(os, "RTLD_NOLOAD") else ():
        try:
            return kind((name, ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_NOW)))
        except (OSError, AttributeError):
            continue
    return None


def device_number(device: pyopencl.Device, what: int) -> int:
    """What the driver answers to a question of an extension, a number; 0 where it does not know it."""
    answer = ctypes.c_uint64(0)  # a shorter answer is in its lower bytes
    status = library().clGetDeviceInfo(
        ctypes.c_void_p(device.int_ptr), what, ctypes.c_size_t(8), ctypes.byref(answer), None
    )
    return answer.value if status == 0 else 0
