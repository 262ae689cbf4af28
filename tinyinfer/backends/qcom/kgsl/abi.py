"""The kernel's interface behind /dev/kgsl-3d0: requests, argument structures and flags (`msm_kgsl.h`, 3.14).

Structures have the layout of the C compiler of this machine, so that 64- and 32-bit processes both fit.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char, c_int, c_size_t, c_uint32, c_uint64, c_ulong, c_void_p
from dataclasses import dataclass

PATH = "/dev/kgsl-3d0"


class Structure(ctypes.Structure):
    """An argument of a request; what is not given is zero."""


class GetProperty(Structure):
    """Also the argument of SETPROPERTY. `value` points to a structure of `bytes` bytes."""

    _fields_ = [("type", c_uint32), ("value", c_void_p), ("bytes", c_size_t)]


class DeviceInfo(Structure):
    _fields_ = [
        ("device_id", c_uint32),
        ("chip_id", c_uint32),
        ("mmu_enabled", c_uint32),
        ("gmem_address", c_ulong),
        ("gpu_id", c_uint32),
        ("gmem_bytes", c_size_t),
    ]


class GpuModel(Structure):
    _fields_ = [("text", c_char * 32)]


class PowerLevel(Structure):
    _fields_ = [("level", c_uint32)]


class PowerConstraint(Structure):
    _fields_ = [("type", c_uint32), ("context", c_uint32), ("data", c_void_p), ("bytes", c_size_t)]


class ContextCreate(Structure):
    _fields_ = [("flags", c_uint32), ("context", c_uint32)]


class ContextDestroy(Structure):
    _fields_ = [("context", c_uint32)]


class WaitTimestamp(Structure):
    """`milliseconds` = 0 waits for ever."""

    _fields_ = [("context", c_uint32), ("timestamp", c_uint32), ("milliseconds", c_uint32)]


class ReadTimestamp(Structure):
    _fields_ = [("context", c_uint32), ("type", c_uint32), ("timestamp", c_uint32)]


class ObjectAllocate(Structure):
    _fields_ = [
        ("size", c_uint64),
        ("flags", c_uint64),
        ("address_bytes", c_uint64),
        ("map_bytes", c_uint64),
        ("id", c_uint32),
        ("metadata_bytes", c_uint32),
        ("metadata", c_uint64),
    ]


class ObjectFree(Structure):
    _fields_ = [
        ("flags", c_uint64),
        ("event", c_uint64),
        ("id", c_uint32),
        ("type", c_uint32),
        ("event_bytes", c_uint32),
    ]


class ObjectInfo(Structure):
    _fields_ = [
        ("address", c_uint64),
        ("flags", c_uint64),
        ("size", c_uint64),
        ("address_bytes", c_uint64),
        ("cpu_address", c_uint64),
        ("id", c_uint32),
    ]


class ObjectImport(Structure):
    _fields_ = [
        ("source", c_uint64),
        ("source_bytes", c_uint64),
        ("flags", c_uint64),
        ("type", c_uint32),
        ("id", c_uint32),
    ]


class ImportDmabuf(Structure):
    _fields_ = [("descriptor", c_int)]


class SyncRange(Structure):
    _fields_ = [("offset", c_uint64), ("length", c_uint64), ("id", c_uint32), ("operation", c_uint32)]


class ObjectSync(Structure):
    _fields_ = [("ranges", c_uint64), ("range_bytes", c_uint32), ("count", c_uint32)]


class CommandObject(Structure):
    _fields_ = [
        ("offset", c_uint64),
        ("address", c_uint64),
        ("size", c_uint64),
        ("flags", c_uint32),
        ("id", c_uint32),
    ]


class GpuCommand(Structure):
    _fields_ = [
        ("flags", c_uint64),
        ("commands", c_uint64),
        ("command_bytes", c_uint32),
        ("command_count", c_uint32),
        ("objects", c_uint64),
        ("object_bytes", c_uint32),
        ("object_count", c_uint32),
        ("waits", c_uint64),
        ("wait_bytes", c_uint32),
        ("wait_count", c_uint32),
        ("context", c_uint32),
        ("timestamp", c_uint32),
    ]


@dataclass(frozen=True)
class Request:
    """One ioctl: its name in the header without the prefix, its number and its argument."""

    name: str
    code: int
    argument: type[Structure]


_WRITE, _READ_WRITE = 1, 3


def _request(name: str, direction: int, number: int, argument: type[Structure]) -> Request:
    """The encoding of asm-generic/ioctl.h, with KGSL's type 0x09."""
    return Request(name, direction << 30 | ctypes.sizeof(argument) << 16 | 0x09 << 8 | number, argument)


GET_PROPERTY = _request("DEVICE_GETPROPERTY", _READ_WRITE, 0x02, GetProperty)
SET_PROPERTY = _request("SETPROPERTY", _WRITE, 0x32, GetProperty)
WAIT_TIMESTAMP = _request("DEVICE_WAITTIMESTAMP_CTXTID", _WRITE, 0x07, WaitTimestamp)
READ_TIMESTAMP = _request("CMDSTREAM_READTIMESTAMP_CTXTID", _READ_WRITE, 0x16, ReadTimestamp)
CONTEXT_CREATE = _request("DRAWCTXT_CREATE", _READ_WRITE, 0x13, ContextCreate)
CONTEXT_DESTROY = _request("DRAWCTXT_DESTROY", _WRITE, 0x14, ContextDestroy)
OBJECT_ALLOCATE = _request("GPUOBJ_ALLOC", _READ_WRITE, 0x45, ObjectAllocate)
OBJECT_FREE = _request("GPUOBJ_FREE", _WRITE, 0x46, ObjectFree)
OBJECT_INFO = _request("GPUOBJ_INFO", _READ_WRITE, 0x47, ObjectInfo)
OBJECT_IMPORT = _request("GPUOBJ_IMPORT", _READ_WRITE, 0x48, ObjectImport)
OBJECT_SYNC = _request("GPUOBJ_SYNC", _WRITE, 0x49, ObjectSync)
GPU_COMMAND = _request("GPU_COMMAND", _READ_WRITE, 0x4A, GpuCommand)

PROPERTY_DEVICE_INFO = 0x01
PROPERTY_POWER_CONSTRAINT = 0x12
PROPERTY_GPU_MODEL = 0x29

CONSTRAINT_POWER_LEVEL = 1
POWER_LEVEL_MAXIMUM = 1

TIMESTAMP_RETIRED = 2

CONTEXT_NO_GMEM_ALLOC = 0x00000002
CONTEXT_PREAMBLE = 0x00000010
CONTEXT_PER_CONTEXT_TIMESTAMPS = 0x00000040
CONTEXT_NO_FAULT_TOLERANCE = 0x00000200
CONTEXT_POWER_CONSTRAINT = 0x00000800
CONTEXT_PRIORITY_SHIFT = 12
CONTEXT_TYPE_SHIFT = 20
CONTEXT_TYPE_CL = 2
CONTEXT_INVALIDATE_ON_FAULT = 0x10000000

COMMAND_POWER_CONSTRAINT = CONTEXT_POWER_CONSTRAINT
COMMAND_INDIRECT_BUFFER = 0x00000001

MEMORY_GPU_READ_ONLY = 1 << 24
MEMORY_IO_COHERENT = 1 << 31
MEMORY_CACHE_SHIFT = 26
MEMORY_CACHE_MASK = 3 << MEMORY_CACHE_SHIFT
MEMORY_ALIGNMENT_SHIFT = 16
CACHE_WRITE_COMBINE = 0
CACHE_WRITE_BACK = 3

IMPORT_DMABUF = 3

SYNC_TO_GPU = 1
SYNC_FROM_GPU = 2
SYNC_RANGE = 1 << 31
