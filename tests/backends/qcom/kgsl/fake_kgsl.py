"""The kernel's side of KGSL as a Python object: reads the raw bytes of requests and runs what is sent.

Layouts are `struct` formats written from the header for 64-bit processes. Streams go to
`pm4_decoder.Machine`, and dispatches to Python functions that stand for machine code, found by its first
eight bytes.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass

from pm4_decoder import BadStream, Launched, Machine

PAGE = mmap.PAGESIZE
FIRST_ADDRESS = 0x1_0000_0000
IO_COHERENT, CACHE_MASK, WRITE_BACK = 1 << 31, 0x0C000000, 3 << 26

FORMATS = {
    0x02: ("DEVICE_GETPROPERTY", 3, "<I4xQQ"),
    0x07: ("DEVICE_WAITTIMESTAMP_CTXTID", 1, "<III"),
    0x13: ("DRAWCTXT_CREATE", 3, "<II"),
    0x14: ("DRAWCTXT_DESTROY", 1, "<I"),
    0x16: ("CMDSTREAM_READTIMESTAMP_CTXTID", 3, "<III"),
    0x32: ("SETPROPERTY", 1, "<I4xQQ"),
    0x45: ("GPUOBJ_ALLOC", 3, "<QQQQIIQ"),
    0x46: ("GPUOBJ_FREE", 1, "<QQIII4x"),
    0x47: ("GPUOBJ_INFO", 3, "<QQQQQI4x"),
    0x48: ("GPUOBJ_IMPORT", 3, "<QQQII"),
    0x49: ("GPUOBJ_SYNC", 1, "<QII"),
    0x4A: ("GPU_COMMAND", 3, "<QQIIQIIQIIII"),
}


@dataclass
class FakeObject:
    address: int
    size: int
    flags: int
    memory: mmap.mmap


@dataclass
class FakeContext:
    flags: int
    queued: int = 0
    retired: int = 0
    faulted: bool = False


class FakeKgsl:
    """One GPU. `shaders` maps the first eight bytes of code to what it does.

    `hold` keeps submitted work unfinished; `failures` maps a request's name to errnos of its next calls.
    """

    def __init__(self, chip_id: int = 0x06030001, model: str | None = "Adreno630v2", coherent: bool = True):
        self.chip_id, self.model, self.coherent = chip_id, model, coherent
        self.generation = 6 if chip_id >> 24 == 6 else 7
        self.shaders: dict[bytes, Callable[[Launched, FakeKgsl], None]] = {}
        self.launched: list[Launched] = []
        self.streams: list[list[int]] = []
        self.objects: dict[int, FakeObject] = {}
        self.contexts: dict[int, FakeContext] = {}
        self.calls: list[str] = []
        self.syncs: list[tuple[int, int, int, int]] = []
        self.failures: dict[str, list[int]] = {}
        self.open_error = 0
        self.open_files = 0
        self.hold = False
        self.power_level: int | None = None
        self.first_timestamp = 0
        self._next_id = 1
        self._next_address = FIRST_ADDRESS

    # The System protocol

    def open(self, path: str) -> int:
        if self.open_error:
            raise OSError(self.open_error, os.strerror(self.open_error), path)
        self.open_files += 1
        return 77

    def close(self, descriptor: int) -> None:
        assert descriptor == 77 and self.open_files
        self.open_files -= 1

    def map(self, descriptor: int, length: int, offset: int) -> mmap.mmap:
        found = self.objects.get(offset // PAGE)
        if offset % PAGE or found is None or length != found.size:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return found.memory

    def ioctl(self, descriptor: int, code: int, argument: ctypes.Structure) -> None:
        assert descriptor == 77 and self.open_files
        number, size, direction = code & 0xFF, code >> 16 & 0x3FFF, code >> 30
        if code >> 8 & 0xFF != 0x09 or number not in FORMATS:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        name, expected, form = FORMATS[number]
        assert direction == expected and size == struct.calcsize(form) == ctypes.sizeof(argument), name
        self.calls.append(name)
        if self.failures.get(name):
            failure = self.failures[name].pop(0)
            if failure:
                raise OSError(failure, os.strerror(failure))
        raw = ctypes.string_at(ctypes.addressof(argument), size)
        result = getattr(self, "_" + name.lower())(*struct.unpack(form, raw))
        if isinstance(result, int) and result:
            raise OSError(result, os.strerror(result))
        if result:
            assert direction == 3, f"{name} has no result"
            ctypes.memmove(ctypes.addressof(argument), struct.pack(form, *result), size)

    # The GPU's memory

    def find(self, address: int, size: int) -> tuple[FakeObject, int]:
        """The object that holds these bytes; BadStream where a GPU would fault."""
        for item in self.objects.values():
            if item.address <= address and address + size <= item.address + item.size:
                return item, address - item.address
        raise BadStream(f"{size} bytes at 0x{address:x} are nobody's")

    def read(self, address: int, size: int) -> bytes:
        item, offset = self.find(address, size)
        return item.memory[offset : offset + size]

    def write(self, address: int, content: bytes) -> None:
        item, offset = self.find(address, len(content))
        if item.flags & 1 << 24:
            raise BadStream(f"0x{address:x} is read-only")
        item.memory[offset : offset + len(content)] = content

    def finish(self) -> None:
        """Let held work be done."""
        for context in self.contexts.values():
            context.retired = context.queued

    # Requests

    def _device_getproperty(self, kind: int, value: int, size: int):
        if kind == 1:
            content = struct.pack("<III4xQI4xQ", 1, self.chip_id, 1, 0, 630, 1 << 20)
        elif kind == 0x29 and self.model is not None:
            content = self.model.encode().ljust(32, b"\0")
        else:
            return errno.ENODEV
        if size != len(content):
            return errno.EINVAL
        ctypes.memmove(value, content, size)
        return None

    def _setproperty(self, kind: int, value: int, size: int):
        if kind != 0x12 or size != 24:
            return errno.EINVAL
        constraint, context, data, length = struct.unpack("<IIQQ", ctypes.string_at(value, 24))
        if constraint != 1 or length != 4 or not self.contexts[context].flags & 0x800:
            return errno.EINVAL
        self.power_level = struct.unpack("<I", ctypes.string_at(data, 4))[0]
        return None

    def _drawctxt_create(self, flags: int, context: int):
        if flags & 0x12 != 0x12:
            return errno.EINVAL
        number = len(self.contexts) + 1
        self.contexts[number] = FakeContext(flags, self.first_timestamp, self.first_timestamp)
        return flags, number

    def _drawctxt_destroy(self, context: int):
        return errno.EINVAL if self.contexts.pop(context, None) is None else None

    def _device_waittimestamp_ctxtid(self, context: int, timestamp: int, milliseconds: int):
        found = self.contexts.get(context)
        if found is None:
            return errno.EINVAL
        if found.faulted:
            return errno.EDEADLK
        if (found.queued - timestamp) % (1 << 32) >= 1 << 31:
            return errno.EINVAL
        return None if found.retired == found.queued else errno.ETIMEDOUT

    def _cmdstream_readtimestamp_ctxtid(self, context: int, kind: int, timestamp: int):
        found = self.contexts.get(context)
        if found is None or kind != 2:
            return errno.EINVAL
        return context, kind, found.retired

    def _gpuobj_alloc(self, size, flags, address_bytes, map_bytes, number, metadata_bytes, metadata):
        if not size or size % PAGE or size > 0xFFFFFFFF:
            return errno.EINVAL
        if not self.coherent:
            flags &= ~IO_COHERENT
        number = self._add(size, flags)
        return size, flags, size, size, number, metadata_bytes, metadata

    def _gpuobj_free(self, flags, event, number, kind, event_bytes):
        return errno.EINVAL if self.objects.pop(number, None) is None else None

    def _gpuobj_info(self, address, flags, size, address_bytes, cpu_address, number):
        found = self.objects.get(number)
        if found is None:
            return errno.EINVAL
        return found.address, found.flags, found.size, found.size, 0, number

    def _gpuobj_import(self, source: int, source_bytes: int, flags: int, kind: int, number: int):
        if kind != 3 or source_bytes != 4:
            return errno.EOPNOTSUPP
        (descriptor,) = struct.unpack("<i", ctypes.string_at(source, 4))
        try:
            size = os.fstat(descriptor).st_size
            memory = mmap.mmap(descriptor, size)
        except OSError as error:
            return error.errno
        return source, source_bytes, flags, kind, self._add(size, flags, memory)

    def _gpuobj_sync(self, ranges: int, range_bytes: int, count: int):
        if count != 1 or range_bytes != 24:
            return errno.EINVAL
        offset, length, number, operation = struct.unpack("<QQII", ctypes.string_at(ranges, 24))
        self.syncs.append((number, offset, length, operation))
        return None

    def _gpu_command(
        self,
        flags,
        commands,
        command_bytes,
        command_count,
        objects,
        object_bytes,
        object_count,
        waits,
        wait_bytes,
        wait_count,
        context,
        timestamp,
    ):
        found = self.contexts.get(context)
        if found is None or command_count != 1 or command_bytes != 32 or object_count or wait_count:
            return errno.EINVAL
        if found.faulted:
            return errno.EDEADLK
        offset, address, size, kind, number = struct.unpack("<QQQII", ctypes.string_at(commands, 32))
        if kind != 1 or offset or size % 4 or self.objects[number].address != address:
            return errno.EINVAL
        words = list(struct.unpack(f"<{size // 4}I", self.read(address, size)))
        self.streams.append(words)
        found.queued = (found.queued + 1) % (1 << 32)
        try:
            Machine(self.generation, self.read, self.write, self._start).run(words)
        except BadStream as error:
            self.fault = str(error)
            found.faulted = True
        if not self.hold:
            found.retired = found.queued
        return (
            flags,
            commands,
            command_bytes,
            command_count,
            objects,
            object_bytes,
            object_count,
            waits,
            wait_bytes,
            wait_count,
            context,
            found.queued,
        )

    def _start(self, launched: Launched) -> None:
        self.launched.append(launched)
        self.shaders[launched.code[:8]](launched, self)

    def _add(self, size: int, flags: int, memory: mmap.mmap | None = None) -> int:
        number, address = self._next_id, self._next_address
        self._next_id += 1
        self._next_address += size + PAGE
        self.objects[number] = FakeObject(address, size, flags, memory or mmap.mmap(-1, size))
        return number
