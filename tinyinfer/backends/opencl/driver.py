"""The driver's calls that every launch makes, reached by ctypes.

pyopencl makes an event of each launch and looks at what each argument might be, which takes longer than the
driver does: 17 µs an argument where the driver takes 1. All other calls, which are few, go through it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from typing import Any

from tinyinfer.backends.opencl.platforms import opencl
from tinyinfer.errors import EPFail

_OFFSET_BYTES = ctypes.c_size_t(ctypes.sizeof(ctypes.c_uint64))
_HANDLE_BYTES = ctypes.c_size_t(ctypes.sizeof(ctypes.c_void_p))


@cache
def library() -> ctypes.CDLL:
    """What has OpenCL's functions: the library that pyopencl's own extension is linked with, whose handles
    these are. Looking a name up in the extension finds those of its library, but on Windows."""
    return ctypes.CDLL("OpenCL.dll" if os.name == "nt" else opencl()._cl.__file__)


class Kernel:
    """A kernel of a program, its arguments, and how many work-items a launch of it has.

    Raises EPFail where the driver refuses an argument or a launch.
    """

    def __init__(self, program: Any, name: str, total: tuple[int, int, int], group: tuple[int, int, int]):
        self.name, self.total, self.group = name, total, group
        self.kernel = opencl().Kernel(program, name)
        self._handle = ctypes.c_void_p(self.kernel.int_ptr)
        sizes = ctypes.c_size_t * 3
        self._sizes = (sizes(*total), sizes(*group))
        self._set: Callable[..., int] = library().clSetKernelArg
        self._launch: Callable[..., int] = library().clEnqueueNDRangeKernel
        self._offset = ctypes.c_uint64()

    def set_memory(self, number: int, memory: Any) -> None:
        """Argument `number` is a buffer or an image, which must live as long as it is that."""
        handle = ctypes.c_void_p(memory.int_ptr)
        self._check(self._set(self._handle, number, _HANDLE_BYTES, ctypes.byref(handle)), "an argument")

    def set_offset(self, number: int, offset: int) -> None:
        """Argument `number` is a ulong."""
        self._offset.value = offset
        status = self._set(self._handle, number, _OFFSET_BYTES, ctypes.byref(self._offset))
        self._check(status, "an argument")

    def launch(self, queue: ctypes.c_void_p) -> None:
        """Enqueue it, with the arguments as they are."""
        total, group = self._sizes
        status = self._launch(queue, self._handle, 3, None, total, group, 0, None, None)
        self._check(status, "a launch")

    def _check(self, status: int, what: str) -> None:
        if status:
            raise EPFail(f"the OpenCL driver refused {what} of {self.name}: error {status}")


def queue_handle(queue: Any) -> ctypes.c_void_p:
    """A queue as `Kernel.launch` takes it."""
    return ctypes.c_void_p(queue.int_ptr)
