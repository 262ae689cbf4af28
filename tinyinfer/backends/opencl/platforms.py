"""The OpenCL devices of this machine, and which of them a name means."""

from __future__ import annotations

import os
from glob import glob
from typing import TYPE_CHECKING, Any

from tinyinfer.config import offer_opencl_library

if TYPE_CHECKING:
    import pyopencl

NO_PYOPENCL = "pyopencl is not installed (pip install 'tinyinfer[opencl]')"
NO_PLATFORM = (
    "there is no OpenCL platform: install the driver of the GPU, or PoCL for the processor "
    "(Debian, Ubuntu: apt-get install pocl-opencl-icd)"
)

_LISTED = "/etc/OpenCL/vendors/*.icd"

_VENDOR_LIBRARIES = (
    "/vendor/lib64/libOpenCL_adreno.so",
    "/vendor/lib64/libOpenCL.so",
    "/system/vendor/lib64/libOpenCL.so",
    "/usr/lib/libOpenCL_adreno.so.1",
    "/usr/lib/aarch64-linux-gnu/libOpenCL_adreno.so.1",
    "/usr/lib/libOpenCL_adreno.so",
)
"""Where phones and boards have the library of their GPU's driver."""


class NoOpencl(Exception):
    """Why there is no OpenCL device; the text says what to install."""


def opencl() -> Any:
    """The module pyopencl. NoOpencl where it is not installed or finds no driver loader."""
    try:
        import pyopencl
    except ImportError as error:
        missing = error.name == "pyopencl"
        raise NoOpencl(NO_PYOPENCL if missing else f"pyopencl cannot be loaded: {error}") from None
    return pyopencl


def vendor_libraries() -> list[str]:
    """Libraries of drivers that are installed where loaders of OpenCL do not look by themselves."""
    return [path for path in _VENDOR_LIBRARIES if os.path.exists(path)]


def list_devices() -> list[pyopencl.Device]:
    """Every OpenCL device, in the order of their numbers: GPUs first. NoOpencl where there is none."""
    cl = opencl()
    libraries = vendor_libraries()
    if libraries and not glob(_LISTED):
        offer_opencl_library(libraries[0])
    try:
        platforms = cl.get_platforms()
    except cl.Error as error:
        raise NoOpencl(f"{NO_PLATFORM} ({error})") from None
    devices = []
    for platform in platforms:
        try:
            devices += platform.get_devices()
        except cl.Error:
            continue  # a platform without devices says so by an error
    if not devices:
        raise NoOpencl(NO_PLATFORM)
    return sorted(devices, key=lambda d: not d.type & cl.device_type.GPU)


def choose_device(selector: str) -> pyopencl.Device:
    """The device that a selector means: a number, a part of a device's or platform's name, or "": the first.

    NoOpencl, listing what there is, where none is meant.
    """
    devices = list_devices()
    if not selector:
        return devices[0]
    if selector.isdigit():
        if int(selector) < len(devices):
            return devices[int(selector)]
    else:
        for device in devices:
            if selector.casefold() in f"{device.name}\n{device.platform.name}".casefold():
                return device
    found = "; ".join(f"{i}: {describe(d)}" for i, d in enumerate(devices))
    raise NoOpencl(f"no OpenCL device is {selector!r}; there are {found}")


def describe(device: pyopencl.Device) -> str:
    """A device in a few words."""
    return f"{device.name.strip()} ({device.platform.name.strip()}, driver {device.driver_version})"
