"""The arguments of a dispatch, and the block of memory in which the GPU finds them."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinyinfer.backends.qcom.kgsl import descriptors
from tinyinfer.backends.qcom.kgsl.memory import Buffer
from tinyinfer.backends.qcom.kgsl.shader import (
    BufferSlot,
    BufferViewSlot,
    ImageSlot,
    ScalarSlot,
    ShaderBinary,
    StorageImageSlot,
)
from tinyinfer.backends.qcom.kgsl.stream import Address, WordList

BLOCK_ALIGNMENT = 256


class Access(enum.Flag):
    """What a dispatch does to an argument's memory."""

    READ = 1
    WRITE = 2
    READ_WRITE = 3


@dataclass(frozen=True)
class BufferArgument:
    """`size` bytes (None: all) from byte `offset` of a buffer on."""

    buffer: Buffer
    offset: int = 0
    size: int | None = None
    access: Access = Access.READ_WRITE

    @property
    def extent(self) -> int:
        """Bytes that the dispatch may touch."""
        return self.buffer.size - self.offset if self.size is None else self.size


@dataclass(frozen=True)
class ImageArgument:
    """A two-dimensional image in linear memory; `pitch` is bytes from row to row, a multiple of 64."""

    buffer: Buffer
    offset: int
    width: int
    height: int
    pitch: int
    format_name: str = "rgba16_float"
    access: Access = Access.READ

    @property
    def extent(self) -> int:
        """Bytes that the dispatch may touch."""
        return self.pitch * self.height


@dataclass(frozen=True)
class ScalarArgument:
    """A number: numpy's, or its bytes."""

    value: bytes | np.generic

    @property
    def content(self) -> bytes:
        """The bytes that the code reads."""
        return self.value if isinstance(self.value, bytes) else self.value.tobytes()


MemoryArgument = BufferArgument | ImageArgument
Argument = MemoryArgument | ScalarArgument

_TAKES: dict[type, type] = {
    BufferSlot: BufferArgument,
    BufferViewSlot: BufferArgument,
    ScalarSlot: ScalarArgument,
    ImageSlot: ImageArgument,
    StorageImageSlot: ImageArgument,
}


@dataclass(frozen=True)
class Block:
    """Byte offsets of a dispatch's constants and descriptors in the argument buffer."""

    constants: int
    textures: int
    uavs: int
    samplers: int


def check_arguments(shader: ShaderBinary, arguments: Sequence[Argument], image_side: int) -> None:
    """ValueError naming the kernel and the argument that does not fit its slot, its buffer or the GPU.

    `image_side` is the largest width and height of an image.
    """
    if len(arguments) != len(shader.slots):
        raise ValueError(f"kernel {shader.name} takes {len(shader.slots)} arguments, not {len(arguments)}")
    for number, (slot, argument) in enumerate(zip(shader.slots, arguments)):
        where = f"kernel {shader.name}, argument {number}"
        wanted = _TAKES[type(slot)]
        if not isinstance(argument, wanted):
            raise ValueError(
                f"{where}: {type(slot).__name__} takes a {wanted.__name__}, not {type(argument).__name__}"
            )
        if isinstance(argument, ScalarArgument):
            if isinstance(slot, ScalarSlot) and len(argument.content) != slot.size:
                raise ValueError(f"{where}: {len(argument.content)} bytes for a number of {slot.size}")
        elif not (0 <= argument.offset and 0 < argument.extent <= argument.buffer.size - argument.offset):
            raise ValueError(
                f"{where}: bytes {argument.offset} to {argument.offset + argument.extent} are outside of a "
                f"buffer of {argument.buffer.size}"
            )
        elif isinstance(slot, ImageSlot) and Access.WRITE in argument.access:
            raise ValueError(f"{where}: a texture is only read")
        elif isinstance(argument, ImageArgument):
            width, height = argument.width, argument.height
            if not 0 < width <= image_side or not 0 < height <= image_side:
                raise ValueError(
                    f"{where}: an image of {width} x {height} texels, the GPU takes 1 to {image_side}"
                )


def append_block(
    words: WordList,
    shader: ShaderBinary,
    arguments: Sequence[Argument],
    groups: tuple[int, int, int],
    local: tuple[int, int, int],
) -> Block:
    """Append constants and descriptors of one dispatch to the argument buffer's words."""
    start = words.align(BLOCK_ALIGNMENT)
    contents = list(shader.immediates)
    for offset, numbers in ((shader.group_count_offset, groups), (shader.local_size_offset, local)):
        if offset is not None:
            contents.append((offset, np.array(numbers, np.uint32).tobytes()))
    for slot, argument in zip(shader.slots, arguments):
        if isinstance(slot, ScalarSlot) and isinstance(argument, ScalarArgument):
            contents.append((slot.offset, argument.content))
    constants = np.zeros(shader.constants * 16, np.uint8)
    for offset, content in contents:
        constants[offset : offset + len(content)] = np.frombuffer(content, np.uint8)
    words.append(int(word) for word in constants.view(np.uint32))
    for slot, argument in zip(shader.slots, arguments):
        if isinstance(slot, BufferSlot) and isinstance(argument, BufferArgument):
            words.place((start + slot.offset) // 4, Address(argument.buffer, argument.offset))

    textures = words.align(descriptors.IMAGE_BYTES)
    _append_images(words, shader, arguments, (ImageSlot,))
    uavs = words.align(descriptors.IMAGE_BYTES)
    words.append([0] * (descriptors.IMAGE_BYTES // 4 * (shader.bindless_uavs or 0)))
    _append_images(words, shader, arguments, (StorageImageSlot, BufferViewSlot))
    samplers = words.align(descriptors.SAMPLER_BYTES)
    for _ in range(shader.samplers):
        descriptors.sampler(words)
    return Block(start, textures, uavs, samplers)


def _append_images(
    words: WordList, shader: ShaderBinary, arguments: Sequence[Argument], kinds: tuple[type, ...]
) -> None:
    chosen = {
        slot.index: (slot, argument)
        for slot, argument in zip(shader.slots, arguments)
        if isinstance(slot, (ImageSlot, StorageImageSlot, BufferViewSlot)) and isinstance(slot, kinds)
    }
    for _, (slot, argument) in sorted(chosen.items()):
        if isinstance(argument, ImageArgument):
            descriptors.image(
                words,
                Address(argument.buffer, argument.offset),
                argument.width,
                argument.height,
                argument.pitch,
                argument.format_name,
            )
        elif isinstance(slot, BufferViewSlot) and isinstance(argument, BufferArgument):
            descriptors.buffer_view(
                words, Address(argument.buffer, argument.offset), argument.extent, slot.format_name
            )
