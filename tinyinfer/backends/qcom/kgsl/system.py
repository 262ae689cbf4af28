"""The system calls that KGSL takes, and their failures in words."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from typing import Any, Protocol

from tinyinfer.backends.qcom.kgsl.abi import Request
from tinyinfer.errors import EPFail


class KgslError(EPFail):
    """The direct route to an Adreno GPU could not do what was asked; the message names the call."""


class KgslTimeout(KgslError):
    """The GPU did not finish in the time given; it may still be running."""


class GpuFault(KgslError):
    """The GPU hung or touched memory that is not its own; the context cannot be used any more."""


class System(Protocol):
    """What the operating system offers. Everything raises OSError with the system's errno."""

    def open(self, path: str) -> int:
        """A descriptor for reading and writing."""

    def ioctl(self, descriptor: int, code: int, argument: ctypes.Structure) -> None:
        """One attempt; `argument` is read and written in place."""

    def map(self, descriptor: int, length: int, offset: int) -> Any:
        """A writable buffer over shared memory, with a `close` method."""

    def close(self, descriptor: int) -> None:
        """Give the descriptor back."""


class LinuxSystem:
    """The real calls. ImportError where the system has no ioctl."""

    def __init__(self) -> None:
        import fcntl

        self._ioctl = fcntl.ioctl

    def open(self, path: str) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def ioctl(self, descriptor: int, code: int, argument: ctypes.Structure) -> None:
        self._ioctl(descriptor, code, argument, True)

    def map(self, descriptor: int, length: int, offset: int) -> Any:
        return mmap.mmap(descriptor, length, mmap.MAP_SHARED, offset=offset)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)


_OPEN_FAILURES = {
    errno.ENOENT: "there is no {path}: this machine has no Adreno GPU, or its kernel drives it without KGSL",
    errno.EACCES: "no permission to open {path}: it must be readable and writable for this user",
    errno.EPERM: "no permission to open {path}: it must be readable and writable for this user",
    errno.ENODEV: "{path} is there, but its GPU is not (firmware missing, or switched off)",
    errno.ENXIO: "{path} is there, but its GPU is not (firmware missing, or switched off)",
}

_CALL_FAILURES = {
    errno.ENOMEM: "no memory left for the GPU",
    errno.EINVAL: "the driver refuses the argument",
    errno.ENOTTY: "the driver does not know this call (its version may be too old)",
    errno.EOPNOTSUPP: "the driver does not support this",
    errno.ENODEV: "the GPU is gone",
    errno.ENOENT: "the GPU context is gone",
}
_FAULTS = {errno.EDEADLK, errno.EPROTO}


def open_device(system: System, path: str) -> int:
    """A descriptor of the device file; KgslError saying what is missing."""
    try:
        return system.open(path)
    except OSError as error:
        text = _OPEN_FAILURES.get(error.errno or 0, "{path} cannot be opened: {error}")
        raise KgslError(text.format(path=path, error=error.strerror or error)) from error


def call(system: System, descriptor: int, request: Request, argument: ctypes.Structure) -> None:
    """One request, repeated as long as a signal or a busy driver interrupts it.

    KgslTimeout, GpuFault or KgslError name the request.
    """
    while True:
        try:
            return system.ioctl(descriptor, request.code, argument)
        except OSError as error:
            if error.errno not in (errno.EINTR, errno.EAGAIN):
                raise call_error(request, error) from error


def call_error(request: Request, error: OSError) -> KgslError:
    """The error that a failed request means."""
    if error.errno in _FAULTS:
        return GpuFault(
            f"KGSL {request.name}: the GPU faulted while it ran the commands of this process; "
            "the kernel log (dmesg) names the address"
        )
    if error.errno == errno.ETIMEDOUT:
        return KgslTimeout(f"KGSL {request.name}: the GPU did not finish in time")
    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    words = _CALL_FAILURES.get(error.errno or 0) or error.strerror or "failed"
    return KgslError(f"KGSL {request.name}: {words} ({name})")
