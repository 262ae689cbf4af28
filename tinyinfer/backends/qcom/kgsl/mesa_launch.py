"""What Mesa's OpenCL sent to the GPU when it launched a kernel, found again in the GPU's memory.

The stand-in device (`ir3_launch_worker.py`) does nothing and keeps everything: commands, code, constants and
descriptors. A launch is known by its number of work-groups, which is another one each time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tinyinfer.backends.qcom.kgsl import registers as reg
from tinyinfer.backends.qcom.kgsl.stream import type4_header, type7_header
from tinyinfer.errors import EPFail

_EXEC, _LOAD = reg.PACKETS["CP_EXEC_CS"], reg.PACKETS["CP_LOAD_STATE6_FRAG"]
_REGISTER_PAIRS, _INDIRECT, _DRAW_STATE = 0x5C, 0x3F, 0x43
_MOST_WORDS = 1 << 14
_DIRECT, _BINDLESS = 0, 1
CONSTANT_BYTES = 16
DESCRIPTOR_BYTES = 64


class GpuMemory:
    """Pages of the stand-in device's memory, as its worker packs them."""

    def __init__(self, packed: bytes):
        self._runs: list[tuple[int, bytes]] = []
        position = 0
        while position < len(packed):
            start, size = struct.unpack_from("<QQ", packed, position)
            self._runs.append((start, packed[position + 16 : position + 16 + size]))
            position += 16 + size

    def read(self, address: int, size: int) -> bytes | None:
        """`size` bytes, or None where they were never touched."""
        for start, content in self._runs:
            if start <= address and address + size <= start + len(content):
                return content[address - start : address - start + size]
        return None

    def words(self, address: int, count: int) -> tuple[int, ...]:
        """`count` words; EPFail where they were never touched."""
        content = self.read(address, 4 * count)
        if content is None:
            raise EPFail(f"the stand-in device has no {4 * count} bytes at 0x{address:x}")
        return struct.unpack(f"<{count}I", content)

    def find(self, pattern: bytes) -> Iterator[int]:
        """The addresses of a pattern of whole words."""
        for start, content in self._runs:
            at = content.find(pattern)
            while at >= 0:
                if at % 4 == 0:
                    yield start + at
                at = content.find(pattern, at + 1)


@dataclass
class MesaLaunch:
    """The state in which a launch began."""

    registers: dict[int, int] = field(default_factory=dict)
    constants: dict[int, bytes] = field(default_factory=dict)
    """By number, those vectors that the driver loads; what else there is the code itself makes."""

    textures: list[tuple[int, ...]] = field(default_factory=list)
    uavs: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Descriptors of images, 16 words each; UAVs by their number in descriptor set 0."""

    def value(self, name: str) -> int:
        """A register of a6xx by name; 0 where none was written."""
        number = reg.REGISTERS[name].a6xx
        return self.registers.get(-1 if number is None else number, 0)

    def field(self, name: str, part: str) -> int:
        """A field of a register, in the units of `registers.Field`."""
        where = reg.REGISTERS[name].fields[part]
        bits = self.value(name) >> where.low & (1 << where.high - where.low + 1) - 1
        return (bits + where.less) * where.unit

    def address(self, name: str) -> int:
        """A register of two words."""
        number = reg.REGISTERS[name].a6xx
        assert number is not None
        return self.registers.get(number, 0) | self.registers.get(number + 1, 0) << 32


def find_launch(memory: GpuMemory, groups: Sequence[int]) -> MesaLaunch:
    """The launch of so many work-groups; EPFail where there is none."""
    pattern = struct.pack("<5I", type7_header(_EXEC, 4), 0, *groups)
    for address in memory.find(pattern):
        launch = MesaLaunch()
        _apply(launch, memory, _commands_before(memory, address))
        return launch
    raise EPFail(f"the stand-in device's memory holds no launch of {tuple(groups)} work-groups")


def _commands_before(memory: GpuMemory, address: int) -> tuple[int, ...]:
    """The words of all packets that lead to the one at `address`: from the first header from which packets
    follow each other up to there."""
    ends, first = {0}, 0
    for back in range(1, _MOST_WORDS):
        content = memory.read(address - 4 * back, 4)
        if content is None:
            break
        size = _payload(struct.unpack("<I", content)[0])
        if size is not None and back - 1 - size in ends:
            ends.add(back)
            first = back
    return memory.words(address - 4 * first, first)


def _payload(header: int) -> int | None:
    """Words that follow a header; None for a word that is not one."""
    if header >> 28 == 7 and header == type7_header(header >> 16 & 0x7F, header & 0x3FFF):
        return header & 0x3FFF
    if header >> 28 == 4 and header == type4_header(header >> 8 & 0x3FFFF, header & 0x7F):
        return header & 0x7F
    return None


def _apply(launch: MesaLaunch, memory: GpuMemory, words: Sequence[int]) -> None:
    position = 0
    while position < len(words):
        header, size = words[position], _payload(words[position])
        if size is None:
            raise EPFail(f"the stand-in device's commands hold {words[position]:08x}, which is no header")
        payload = words[position + 1 : position + 1 + size]
        position += 1 + size
        operation = header >> 16 & 0x7F
        if header >> 28 == 4:
            for offset, value in enumerate(payload):
                launch.registers[(header >> 8 & 0x3FFFF) + offset] = value
        elif operation == _REGISTER_PAIRS:
            launch.registers.update(zip(payload[::2], payload[1::2]))
        elif operation == _LOAD:
            _load(launch, memory, payload)
        elif operation == _INDIRECT:
            _apply(launch, memory, memory.words(payload[0] | payload[1] << 32, payload[2] & 0xFFFFF))
        elif operation == _DRAW_STATE:
            for count, low, high in zip(payload[::3], payload[1::3], payload[2::3]):
                if count & 0xFFFF:
                    _apply(launch, memory, memory.words(low | high << 32, count & 0xFFFF))


def _load(launch: MesaLaunch, memory: GpuMemory, payload: Sequence[int]) -> None:
    def part(name: str) -> int:
        where = reg.LOAD_STATE[name]
        return payload[0] >> where.low & (1 << where.high - where.low + 1) - 1

    kind, block, first, count = part("type"), part("block"), part("offset"), part("units")
    address = payload[1] | payload[2] << 32
    if (kind, block) == (reg.STATE_CONSTANTS, reg.BLOCK_COMPUTE_SHADER):
        words = payload[3 : 3 + 4 * count] if part("source") == _DIRECT else memory.words(address, 4 * count)
        for number in range(count):
            launch.constants[first + number] = struct.pack("<4I", *words[4 * number : 4 * number + 4])
    elif (kind, block) == (reg.STATE_CONSTANTS, reg.BLOCK_COMPUTE_TEXTURE):
        launch.textures = [memory.words(address + DESCRIPTOR_BYTES * n, 16) for n in range(count)]
    elif (kind, block, part("source")) == (reg.STATE_UAV, reg.BLOCK_COMPUTE_SHADER, _BINDLESS):
        base = launch.address("SP_CS_BINDLESS_BASE") & ~(DESCRIPTOR_BYTES - 1)
        for number in range(first, first + count):
            launch.uavs[number] = memory.words(base + DESCRIPTOR_BYTES * number, 16)
    elif kind not in (reg.STATE_SHADER, reg.STATE_UNIFORM_BUFFER):
        raise EPFail(f"the stand-in device was sent a load of state that is not known here: {payload[0]:08x}")
