"""PM4 command streams: packets with their headers, and words that are addresses of buffers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from tinyinfer.backends.qcom.kgsl.memory import Buffer
from tinyinfer.backends.qcom.kgsl.registers import PACKETS, REGISTERS

MAX_REGISTERS = 127
MAX_PAYLOAD = (1 << 14) - 1


@dataclass(frozen=True)
class Address:
    """Byte `offset` of a buffer in the GPU's memory: two words, the low one first."""

    buffer: Buffer
    offset: int = 0

    @property
    def value(self) -> int:
        """The GPU address."""
        return self.buffer.address + self.offset


@dataclass(frozen=True)
class Reference:
    """An address at word `position`, with `above` in the bits of the high word that it leaves free."""

    position: int
    address: Address
    above: int = 0


class WordList:
    """Words for the GPU, and where among them are addresses."""

    def __init__(self) -> None:
        self.words: list[int] = []
        self.references: list[Reference] = []

    def append(self, values: Iterable[int | Address]) -> None:
        """Add words; an address takes two."""
        for value in values:
            if isinstance(value, Address):
                self.append_address(value)
            else:
                self.words.append(value & 0xFFFFFFFF)

    def append_address(self, address: Address, above: int = 0) -> None:
        """Add an address whose high word also holds `above`."""
        self.references.append(Reference(len(self.words), address, above))
        self.words += address_words(address.value, above)

    def place(self, position: int, address: Address) -> None:
        """Put an address over the words at `position`."""
        self.references.append(Reference(position, address))
        self.words[position : position + 2] = address_words(address.value)

    def align(self, size: int) -> int:
        """Fill with zeros up to a multiple of `size` bytes; the number of bytes then."""
        self.words += [0] * (-len(self.words) % (size // 4))
        return len(self.words) * 4

    def array(self) -> np.ndarray:
        """The words as an array of uint32."""
        return np.array(self.words, np.uint32)


class CommandStream(WordList):
    """Commands for a GPU of generation 6 or 7, in order."""

    def __init__(self, generation: int):
        super().__init__()
        self.generation = generation
        self._idle_at = -1

    def wait_for_idle(self) -> None:
        """Wait until everything before has finished; nothing is added if the stream has just waited."""
        if self._idle_at != len(self.words):
            self.packet("CP_WAIT_FOR_IDLE")
            self._idle_at = len(self.words)

    def packet(self, name: str, *payload: int | Address) -> None:
        """A type 7 packet."""
        count = sum(2 if isinstance(value, Address) else 1 for value in payload)
        if count > MAX_PAYLOAD:
            raise ValueError(f"{name} with {count} words: a packet holds {MAX_PAYLOAD}")
        self.words.append(type7_header(PACKETS[name], count))
        self.append(payload)

    def write(self, values: Mapping[str, int | Address]) -> None:
        """Write registers in this order; neighbours share a type 4 packet."""
        run: list[int | Address] = []
        start = following = -1
        for name, value in values.items():
            register = REGISTERS[name]
            offset = register.offset(self.generation)
            if offset is None:
                raise ValueError(f"a GPU of generation {self.generation} has no register {name}")
            if (register.words == 2) != isinstance(value, Address) and value != 0:
                raise ValueError(f"{name} holds {'an address' if register.words == 2 else 'a number'}")
            if offset != following or following - start + register.words > MAX_REGISTERS:
                self._flush(start, run)
                run, start, following = [], offset, offset
            run += [value] if isinstance(value, Address) else [value] + [0] * (register.words - 1)
            following += register.words
        self._flush(start, run)

    def _flush(self, start: int, run: list[int | Address]) -> None:
        if run:
            count = sum(2 if isinstance(value, Address) else 1 for value in run)
            self.words.append(type4_header(start, count))
            self.append(run)


def address_words(value: int, above: int = 0) -> tuple[int, int]:
    """The two words of an address, with `above` added to the high one."""
    return value & 0xFFFFFFFF, value >> 32 | above


def odd_parity(value: int) -> int:
    """The bit that makes the number of ones odd."""
    return 1 - bin(value).count("1") % 2


def type4_header(register: int, count: int) -> int:
    """The header of `count` values for consecutive registers."""
    return 4 << 28 | odd_parity(register) << 27 | register << 8 | odd_parity(count) << 7 | count


def type7_header(operation: int, count: int) -> int:
    """The header of an operation with `count` words of payload."""
    return 7 << 28 | odd_parity(operation) << 23 | operation << 16 | odd_parity(count) << 15 | count
