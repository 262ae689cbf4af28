"""A whole plan as one command stream, built once: running it is one call of the driver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinyinfer.backends.qcom.kgsl import launch
from tinyinfer.backends.qcom.kgsl.arguments import (
    Access,
    Argument,
    BufferArgument,
    ImageArgument,
    ScalarArgument,
    append_block,
    check_arguments,
)
from tinyinfer.backends.qcom.kgsl.device import MAX_STREAM_BYTES, KgslDevice
from tinyinfer.backends.qcom.kgsl.memory import Buffer, Cache
from tinyinfer.backends.qcom.kgsl.registers import ALWAYS_ON_HERTZ
from tinyinfer.backends.qcom.kgsl.shader import ShaderBinary
from tinyinfer.backends.qcom.kgsl.stream import Address, CommandStream, WordList, address_words
from tinyinfer.backends.qcom.kgsl.system import KgslError

__all__ = ["Access", "BufferArgument", "Dispatch", "ImageArgument", "PlanStream", "ScalarArgument"]

CODE_ALIGNMENT = 256


@dataclass(frozen=True)
class Dispatch:
    """One kernel over `groups` work-groups of `local` work-items (x, y, z); an argument for each slot.

    `waits` says whether it needs what dispatches since the last waiting one did; None finds it out from the
    memory that the arguments name.
    """

    shader: ShaderBinary
    arguments: Sequence[Argument]
    groups: tuple[int, int, int]
    local: tuple[int, int, int]
    waits: bool | None = None


class PlanStream:
    """Dispatches in order, as commands that lie in the GPU's memory with every address filled in.

    Running it again costs one call: what changes between runs is the contents of buffers. A dispatch waits
    for the ones before it only where it touches memory that they write, or writes memory that they read. With
    `profile` every dispatch waits, and `seconds` tells how long each took.

    ValueError names the kernel and argument that do not fit each other or the GPU.
    """

    def __init__(self, device: KgslDevice, dispatches: Sequence[Dispatch], profile: bool = False):
        if not dispatches:
            raise ValueError("a command stream of no dispatches")
        for item in dispatches:
            check_arguments(item.shader, item.arguments, device.gpu.facts.image_side)
            launch.check_launch(device.gpu, item.shader, item.groups, item.local)
        self.device = device
        self._dispatches = list(dispatches)
        self._profile = profile
        self._last: int | None = None
        self._bound = {buffer for item in dispatches for buffer, *_ in _ranges(item.arguments)}
        self._buffers: list[Buffer] = []
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def submit(self) -> int:
        """Start the plan; the timestamp to wait for."""
        self._last = self.device.submit(self._stream_buffer, self._stream_bytes)
        return self._last

    def wait(self, timestamp: int | None = None, timeout: float | None = None) -> None:
        """Return when the run of `timestamp` (None: the last one) is done, as `KgslDevice.wait`."""
        timestamp = self._last if timestamp is None else timestamp
        if timestamp is None:
            raise KgslError("nothing to wait for: the plan was not submitted")
        self.device.wait(timestamp, timeout)

    def run(self, timeout: float | None = None) -> None:
        """Submit and wait."""
        self.wait(self.submit(), timeout)

    def rebind(self, old: Buffer, new: Buffer) -> None:
        """Use `new` wherever arguments name `old` (a camera's next picture). No run may be under way.

        `new` must not be an argument already: the waits between dispatches were chosen for separate buffers.
        """
        if old.id not in self._bound or new.id in self._bound:
            raise ValueError("rebind takes a buffer that the plan's arguments name, and one that none names")
        if new.size < old.size:
            raise ValueError(f"a buffer of {new.size} bytes instead of one of {old.size}")
        if self._last is not None and not self.device.reached(self._last):
            raise KgslError("the plan is still running: its buffers cannot be exchanged")
        for buffer, words in (
            (self._argument_buffer, self._argument_words),
            (self._stream_buffer, self._stream),
        ):
            memory = buffer.view(0, (buffer.size // 4,), np.uint32)
            for index, reference in enumerate(words.references):
                if reference.address.buffer is old:
                    address = Address(new, reference.address.offset)
                    position = reference.position
                    memory[position : position + 2] = address_words(address.value, reference.above)
                    words.references[index] = type(reference)(position, address, reference.above)
        self._bound = self._bound - {old.id} | {new.id}

    def seconds(self) -> list[float]:
        """How long each dispatch of the last finished run took on the GPU; needs `profile`."""
        if not self._profile:
            raise KgslError("this stream was made without profile=True")
        counters = self._scratch.view(launch.SCRATCH_COUNTERS, (len(self._dispatches), 2), np.uint64)
        return [float(int(after) - int(before)) / ALWAYS_ON_HERTZ for before, after in counters]

    def close(self) -> None:
        """Free the stream's own buffers, not those of its arguments. No run may be under way."""
        for buffer in self._buffers:
            buffer.close()
        self._buffers = []

    def words(self) -> np.ndarray:
        """The command stream, as the GPU reads it."""
        return self._stream.array()

    def _build(self) -> None:
        gpu = self.device.gpu
        code, offsets = self._place_code()
        self._argument_words = WordList()
        blocks = [
            append_block(self._argument_words, item.shader, item.arguments, item.groups, item.local)
            for item in self._dispatches
        ]
        private = (
            max(launch.private_bytes(gpu, item.shader)[1] for item in self._dispatches)
            * gpu.facts.shader_processors
        )
        counters = len(self._dispatches) * 16 if self._profile else 0
        self._scratch = self._allocate(launch.SCRATCH_COUNTERS + counters, Cache.WRITE_COMBINED)
        self._argument_buffer = self._store(self._argument_words.array())
        memories = launch.Memories(
            code=self._store(np.frombuffer(code, np.uint32)),
            arguments=self._argument_buffer,
            private=self._allocate(private, Cache.WRITE_COMBINED) if private else None,
            scratch=self._scratch,
        )
        self._stream = CommandStream(gpu.generation)
        launch.begin(self._stream, gpu)
        mode: dict[str, int] | None = None
        hazards = _Hazards()
        for number, item in enumerate(self._dispatches):
            waits = hazards.conflict(item.arguments) if item.waits is None else item.waits and number > 0
            if waits:
                launch.barrier(self._stream, self._scratch)
                hazards = _Hazards()
            hazards.add(item.arguments)
            wanted = launch.mode(item.shader)
            if wanted != mode:
                mode = wanted
                launch.choose_mode(self._stream, mode)
            if self._profile:
                self._count(2 * number)
            launch.dispatch(
                self._stream,
                gpu,
                item.shader,
                offsets[number],
                blocks[number],
                memories,
                item.groups,
                item.local,
            )
            if self._profile:
                self._count(2 * number + 1)
        launch.end(self._stream, self._scratch)
        self._stream_bytes = len(self._stream.words) * 4
        if self._stream_bytes > MAX_STREAM_BYTES:
            raise KgslError(
                f"a command stream of {self._stream_bytes} bytes: the GPU takes up to {MAX_STREAM_BYTES}"
            )
        self._stream_buffer = self._store(self._stream.array())

    def _place_code(self) -> tuple[bytes, list[int]]:
        """The code of all kernels, each once, and where each dispatch finds its own."""
        code = bytearray()
        places: dict[bytes, int] = {}
        for item in self._dispatches:
            if item.shader.code not in places:
                places[item.shader.code] = len(code)
                size = -(-item.shader.code_bytes // CODE_ALIGNMENT) * CODE_ALIGNMENT
                code += item.shader.code.ljust(size, b"\0")
        return bytes(code), [places[item.shader.code] for item in self._dispatches]

    def _count(self, index: int) -> None:
        launch.read_counter(self._stream, Address(self._scratch, launch.SCRATCH_COUNTERS + 8 * index))

    def _allocate(self, size: int, cache: Cache) -> Buffer:
        buffer = self.device.allocate(size, cache)
        self._buffers.append(buffer)
        return buffer

    def _store(self, words: np.ndarray) -> Buffer:
        buffer = self._allocate(max(words.nbytes, 4), Cache.WRITE_COMBINED)
        buffer.view(0, words.shape, np.uint32)[:] = words
        return buffer


class _Hazards:
    """The memory that dispatches since the last barrier read and wrote."""

    def __init__(self) -> None:
        self._touched: list[tuple[int, int, int, Access]] = []

    def conflict(self, arguments: Sequence[Argument]) -> bool:
        """Whether one of them must wait: both sides touch the same bytes, and one writes."""
        return any(
            buffer == other
            and start < other_end
            and other_start < end
            and Access.WRITE in access | other_access
            for buffer, start, end, access in _ranges(arguments)
            for other, other_start, other_end, other_access in self._touched
        )

    def add(self, arguments: Sequence[Argument]) -> None:
        """Note what a dispatch touches."""
        self._touched += _ranges(arguments)


def _ranges(arguments: Sequence[Argument]) -> list[tuple[int, int, int, Access]]:
    return [
        (argument.buffer.id, argument.offset, argument.offset + argument.extent, argument.access)
        for argument in arguments
        if not isinstance(argument, ScalarArgument)
    ]
