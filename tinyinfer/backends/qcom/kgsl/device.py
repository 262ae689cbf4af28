"""One open KGSL device with one GPU context: capabilities, memory, submission and waits."""

from __future__ import annotations

import ctypes
import errno
import mmap
import sys
import time
from dataclasses import dataclass
from typing import Any

from tinyinfer.backends.qcom.kgsl import abi
from tinyinfer.backends.qcom.kgsl.gpus import GPUS, DirectGpu, find_chip
from tinyinfer.backends.qcom.kgsl.memory import Buffer, Cache
from tinyinfer.backends.qcom.kgsl.system import (
    GpuFault,
    KgslError,
    KgslTimeout,
    LinuxSystem,
    System,
    call,
    call_error,
    open_device,
)

MAX_STREAM_BYTES = ((1 << 20) - 1) * 4
"""The command processor counts the words of an indirect buffer in 20 bits."""

_LONGEST_WAIT = 60_000


@dataclass(frozen=True)
class Capabilities:
    """What the driver says of the GPU. `model` is its marketing or internal name, if the driver tells one."""

    chip_id: int
    gpu: DirectGpu
    model: str | None
    gmem_bytes: int


def unavailable_reason(path: str = abi.PATH, system: System | None = None) -> str | None:
    """None if the direct route can be used here, else why not, in words. Nothing stays open."""
    try:
        KgslDevice(path, system).close()
    except KgslError as error:
        return str(error)
    return None


class KgslDevice:
    """An open device. One thread at a time may use it.

    `priority` is 1 (first) to 15, 8 is what the driver takes for ordinary work. `full_clock` asks the driver
    to keep the GPU at its highest clock while this context has work.

    Raises KgslError if the device is absent, may not be opened, or has a GPU that is not in `GPUS`.
    """

    def __init__(
        self, path: str = abi.PATH, system: System | None = None, priority: int = 8, full_clock: bool = False
    ):
        if system is None:
            if sys.platform not in ("linux", "android"):
                raise KgslError(f"KGSL is a driver of Linux and Android; this is {sys.platform}")
            system = LinuxSystem()
        if not 1 <= priority <= 15:
            raise KgslError(f"the priority is 1 to 15, not {priority}")
        self._system = system
        self._descriptor = open_device(system, path)
        self._context = 0
        self._buffers: dict[int, Buffer] = {}
        self._command_flags = abi.COMMAND_POWER_CONSTRAINT if full_clock else 0
        self.closed = False
        try:
            self.capabilities = self._read_capabilities()
            self._create_context(priority, full_clock)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> KgslDevice:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def gpu(self) -> DirectGpu:
        """The GPU's row of the table."""
        return self.capabilities.gpu

    def allocate(self, size: int, cache: Cache = Cache.CACHED, gpu_read_only: bool = False) -> Buffer:
        """A buffer of `size` bytes, zero-filled, rounded up to whole pages, at a page of the GPU's memory."""
        if size <= 0:
            raise KgslError(f"a buffer of {size} bytes: the GPU's memory comes in at least one byte")
        pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        flags = cache.value | (mmap.PAGESIZE.bit_length() - 1) << abi.MEMORY_ALIGNMENT_SHIFT
        made = abi.ObjectAllocate(
            size=pages, flags=flags | (abi.MEMORY_GPU_READ_ONLY if gpu_read_only else 0)
        )
        self._call(abi.OBJECT_ALLOCATE, made)
        try:
            info = self._object_info(made.id)
            mapping = self._map(made.id, made.map_bytes or pages)
        except BaseException:
            self._call(abi.OBJECT_FREE, abi.ObjectFree(id=made.id))
            raise
        return self._keep(info, mapping)

    def import_dmabuf(self, descriptor: int) -> Buffer:
        """The memory of a dmabuf (a camera's picture, say), not copied. The descriptor stays the caller's."""
        source = abi.ImportDmabuf(descriptor=descriptor)
        made = abi.ObjectImport(
            source=ctypes.addressof(source), source_bytes=ctypes.sizeof(source), type=abi.IMPORT_DMABUF
        )
        self._call(abi.OBJECT_IMPORT, made)
        return self._keep(self._object_info(made.id), None)

    def submit(self, stream: Buffer, size: int) -> int:
        """Queue the first `size` bytes of `stream`; the timestamp that the GPU reaches after them."""
        if size % 4 or not 0 < size <= min(stream.size, MAX_STREAM_BYTES):
            raise KgslError(
                f"a command stream of {size} bytes: the driver takes whole words, up to {MAX_STREAM_BYTES}"
            )
        command = abi.CommandObject(
            address=stream.address, size=size, flags=abi.COMMAND_INDIRECT_BUFFER, id=stream.id
        )
        request = abi.GpuCommand(
            flags=self._command_flags,
            commands=ctypes.addressof(command),
            command_bytes=ctypes.sizeof(command),
            command_count=1,
            context=self._context,
        )
        self._call(abi.GPU_COMMAND, request)
        return request.timestamp

    def wait(self, timestamp: int, timeout: float | None = None) -> None:
        """Return when the GPU has reached `timestamp`. `timeout` in seconds; None waits as long as it takes.

        KgslTimeout if it does not in time, GpuFault if the GPU hung or touched memory that is not its own.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _LONGEST_WAIT
            if deadline is not None:
                left = min(left, int((deadline - time.monotonic()) * 1000))
            if left <= 0:
                if self.reached(timestamp):
                    return
                raise KgslTimeout(f"the GPU did not finish in {timeout:g} seconds")
            waiting = abi.WaitTimestamp(context=self._context, timestamp=timestamp, milliseconds=left)
            try:
                return self._system.ioctl(self._descriptor, abi.WAIT_TIMESTAMP.code, waiting)
            except OSError as error:
                if error.errno not in (errno.EINTR, errno.EAGAIN, errno.ETIMEDOUT):
                    raise call_error(abi.WAIT_TIMESTAMP, error) from error

    def retired(self) -> int:
        """The last timestamp that the GPU has reached; 0 before the first."""
        reading = abi.ReadTimestamp(context=self._context, type=abi.TIMESTAMP_RETIRED)
        self._call(abi.READ_TIMESTAMP, reading)
        return reading.timestamp

    def reached(self, timestamp: int) -> bool:
        """Whether the GPU has reached `timestamp`; timestamps are 32 bits and wrap around."""
        return (self.retired() - timestamp) % (1 << 32) < 1 << 31

    def sync(self, buffer: Buffer, operation: int, offset: int, length: int) -> None:
        """A cache operation (`abi.SYNC_TO_GPU`, `abi.SYNC_FROM_GPU`) on a part of a buffer."""
        part = abi.SyncRange(offset=offset, length=length, id=buffer.id, operation=operation | abi.SYNC_RANGE)
        self._call(
            abi.OBJECT_SYNC,
            abi.ObjectSync(ranges=ctypes.addressof(part), range_bytes=ctypes.sizeof(part), count=1),
        )

    def free(self, buffer: Buffer) -> None:
        """What `Buffer.close` does."""
        if self._buffers.pop(buffer.id, None) is not None:
            self._call(abi.OBJECT_FREE, abi.ObjectFree(id=buffer.id))

    def close(self) -> None:
        """Free every buffer, the context and the descriptor. What the GPU still runs is abandoned."""
        if self.closed:
            return
        self.closed = True
        try:
            for buffer in list(self._buffers.values()):
                buffer.close()
            if self._context:
                self._call(abi.CONTEXT_DESTROY, abi.ContextDestroy(context=self._context))
        finally:
            self._system.close(self._descriptor)

    def _call(self, request: abi.Request, argument: abi.Structure) -> None:
        call(self._system, self._descriptor, request, argument)

    def _read_capabilities(self) -> Capabilities:
        info, model = abi.DeviceInfo(), abi.GpuModel()
        self._call(abi.GET_PROPERTY, _property(abi.PROPERTY_DEVICE_INFO, info))
        try:
            self._call(abi.GET_PROPERTY, _property(abi.PROPERTY_GPU_MODEL, model))
        except GpuFault:
            raise
        except KgslError:
            model.text = b""
        text = model.text.decode("ascii", "replace") or None
        gpu = find_chip(info.chip_id)
        if gpu is None:
            raise KgslError(
                f"the GPU {text or 'without a name'} (chip id 0x{info.chip_id:08x}) is not one that the "
                f"direct route knows: {', '.join(GPUS)}; use the vendor's OpenCL"
            )
        return Capabilities(info.chip_id, gpu, text, info.gmem_bytes)

    def _create_context(self, priority: int, full_clock: bool) -> None:
        made = abi.ContextCreate(
            flags=abi.CONTEXT_PREAMBLE
            | abi.CONTEXT_NO_GMEM_ALLOC
            | abi.CONTEXT_PER_CONTEXT_TIMESTAMPS
            | abi.CONTEXT_NO_FAULT_TOLERANCE
            | abi.CONTEXT_INVALIDATE_ON_FAULT
            | (abi.CONTEXT_POWER_CONSTRAINT if full_clock else 0)
            | abi.CONTEXT_TYPE_CL << abi.CONTEXT_TYPE_SHIFT
            | priority << abi.CONTEXT_PRIORITY_SHIFT
        )
        self._call(abi.CONTEXT_CREATE, made)
        self._context = made.context
        if full_clock:
            level = abi.PowerLevel(level=abi.POWER_LEVEL_MAXIMUM)
            constraint = abi.PowerConstraint(
                type=abi.CONSTRAINT_POWER_LEVEL,
                context=self._context,
                data=ctypes.addressof(level),
                bytes=ctypes.sizeof(level),
            )
            self._call(abi.SET_PROPERTY, _property(abi.PROPERTY_POWER_CONSTRAINT, constraint))

    def _object_info(self, identifier: int) -> abi.ObjectInfo:
        info = abi.ObjectInfo(id=identifier)
        self._call(abi.OBJECT_INFO, info)
        return info

    def _map(self, identifier: int, length: int) -> Any:
        try:
            return self._system.map(self._descriptor, length, identifier * mmap.PAGESIZE)
        except OSError as error:
            raise KgslError(f"KGSL mmap of {length} bytes failed: {error.strerror or error}") from error

    def _keep(self, info: abi.ObjectInfo, mapping: Any) -> Buffer:
        buffer = self._buffers[info.id] = Buffer(self, info, mapping)
        return buffer


def _property(kind: int, value: abi.Structure) -> abi.GetProperty:
    return abi.GetProperty(type=kind, value=ctypes.addressof(value), bytes=ctypes.sizeof(value))
