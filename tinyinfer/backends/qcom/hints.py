"""Contexts with hints: how fast the GPU is to be clocked, and whose work goes first."""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING

from tinyinfer.backends.opencl.device import context_of
from tinyinfer.backends.opencl.driver import library
from tinyinfer.backends.opencl.platforms import opencl
from tinyinfer.backends.qcom.extensions import PERF_HINT, PRIORITY_HINT, extensions_of
from tinyinfer.backends.qcom.options import QcomOptions

if TYPE_CHECKING:
    import pyopencl

_PLATFORM = 0x1084
_HINTS = {
    PERF_HINT: (0x40C2, {"high": 0x40C3, "normal": 0x40C4, "low": 0x40C5}),
    PRIORITY_HINT: (0x40C9, {"high": 0x40CA, "normal": 0x40CB, "low": 0x40CC}),
}
"""Of each extension the context's property, and its values."""

_CONTEXTS: dict[tuple[int, ...], pyopencl.Context] = {}
_LOCK = threading.Lock()


def hinted_context(device: pyopencl.Device, options: QcomOptions) -> pyopencl.Context:
    """The context of a device with the hints of the options, one for the whole process; one without where the
    device has no hints, or its driver refuses them."""
    there, wanted = extensions_of(device), {PERF_HINT: options.performance, PRIORITY_HINT: options.priority}
    hints: list[int] = []
    for extension, level in wanted.items():
        number, values = _HINTS[extension]
        if extension in there and level in values:
            hints += [number, values[level]]
    if not hints:
        return context_of(device)
    with _LOCK:
        key = (device.int_ptr, *hints)
        if key not in _CONTEXTS:
            _CONTEXTS[key] = _create(device, hints) or context_of(device)
        return _CONTEXTS[key]


def _create(device: pyopencl.Device, hints: list[int]) -> pyopencl.Context | None:
    """pyopencl knows no properties of this vendor, so that the context is made beside it."""
    words = [_PLATFORM, device.platform.int_ptr, *hints, 0]
    create = library().clCreateContext
    create.restype = ctypes.c_void_p
    status = ctypes.c_int(0)
    handle = create(
        (ctypes.c_ssize_t * len(words))(*words),
        1,
        ctypes.byref(ctypes.c_void_p(device.int_ptr)),
        None,
        None,
        ctypes.byref(status),
    )
    if status.value or not handle:
        return None
    return opencl().Context.from_int_ptr(handle, retain=False)
