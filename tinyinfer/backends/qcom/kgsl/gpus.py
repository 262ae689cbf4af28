"""What a command stream has to know of a GPU beside its capabilities, and which GPU a chip id stands for.

Numbers are those of Mesa's device table (freedreno_devices.py) and of KGSL's list of GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tinyinfer.backends.qcom.capabilities import ADRENO_GPUS, AdrenoGpu


@dataclass(frozen=True)
class DirectGpu:
    """A GPU that streams can be made for."""

    facts: AdrenoGpu
    items_per_processor: int
    """Work-items that a shader processor holds at most: each has its own private memory."""

    instruction_cache: int
    """Groups of 16 instructions that are loaded ahead."""

    setup: Mapping[str, int]
    """Registers that every stream sets first: the values that the vendor's driver uses."""

    second_queue: bool = False
    """An a6xx that can run compute beside graphics: some registers are there twice."""

    @property
    def name(self) -> str:
        """The GPU's name: "a630"."""
        return self.facts.name

    @property
    def generation(self) -> int:
        """6 or 7: where registers are, and which events there are."""
        return self.facts.generation

    def max_work_group(self, registers: int) -> int:
        """Work-items of a group that fit when each takes this many registers."""
        slots = self.facts.wave_size * self.facts.wave_banks
        return min(self.facts.max_work_group, self.facts.registers * slots // max(registers, 1))


# SP_NC_MODE_CNTL_2 is zero: its bit 3, which Mesa's OpenGL sets, takes infinities from half floats.
def _a6xx_setup(texture: int, shader: int, debug: int, sequencer: int, cache: int) -> dict[str, int]:
    return {
        "UCHE_UNKNOWN_0E12": cache,
        "SP_DBG_ECO_CNTL": debug,
        "SP_CHICKEN_BITS": shader,
        "SP_NC_MODE_CNTL_2": 0,
        "TPL1_DBG_ECO_CNTL": texture,
        "HLSQ_DBG_ECO_CNTL": sequencer,
    }


def _a7xx_setup(
    texture: int, texture1: int | None, shader: tuple[int, ...], sequencer: int, cache: int
) -> dict[str, int]:
    setup = {
        "UCHE_UNKNOWN_0E12": cache,
        "SP_DBG_ECO_CNTL": 0x10000000,
        "SP_CHICKEN_BITS": shader[0],
        "SP_NC_MODE_CNTL_2": 0,
        "SP_CHICKEN_BITS_1": shader[1],
        "SP_CHICKEN_BITS_2": shader[2],
        "SP_CHICKEN_BITS_3": shader[3],
        "HLSQ_DBG_ECO_CNTL": sequencer,
        "TPL1_DBG_ECO_CNTL": texture,
    }
    # KGSL does not let a750's streams write this register, and a write faults.
    return setup if texture1 is None else {**setup, "TPL1_DBG_ECO_CNTL1": texture1}


_A618 = _a6xx_setup(0x00108000, 0x0430, 0, 0x00080000, 1)
_A730 = _a7xx_setup(0x01000000, 0x00040724, (0x00001400, 0x00402400, 0, 0), 0x00008000, 0x03200000)
_A740 = _a7xx_setup(0x11100000, 0x00040724, (0x10001400, 0x00400400, 0x00430800, 0), 0, 0)
_A750 = _a7xx_setup(0x11100000, None, (0x10000400, 0x00400000, 0x00431800, 0x00800000), 0, 0x40000000)

GPUS = {
    name: DirectGpu(ADRENO_GPUS[name], items, cache, setup, second_queue)
    for name, items, cache, setup, second_queue in (
        ("a610", 2048, 64, _a6xx_setup(0, 0, 0, 0, 0x10000000), False),
        ("a618", 2048, 64, _A618, False),
        ("a619", 2048, 64, _A618, False),
        ("a630", 2048, 64, _a6xx_setup(0x00108000, 0x1430, 0, 0x00080000, 0x10000001), False),
        ("a640", 8192, 64, _a6xx_setup(0x00008000, 0x0420, 0, 0, 1), False),
        ("a643", 4096, 127, _a6xx_setup(0x05008000, 0x1400, 6, 0, 1), True),
        ("a650", 4096, 127, _a6xx_setup(0x00108000, 0x1400, 0x01000000, 0, 1), False),
        ("a660", 4096, 127, _a6xx_setup(0x05008000, 0x1400, 0x01000000, 0, 1), True),
        ("a690", 4096, 127, _a6xx_setup(0x04C00000, 0x1400, 0x01200000, 0, 1), True),
        ("a725", 4096, 127, _A730, False),
        ("a730", 4096, 127, _A730, False),
        ("a740", 4096, 127, _A740, False),
        ("a750", 4096, 127, _A750, False),
    )
}

_CHIPS = {
    0x06030500: "a643",
    0x07030001: "a730",
    0x07030002: "a725",
    0x43050A01: "a740",
    0x43050B00: "a740",
    0x43051401: "a750",
}
"""Chip ids that do not spell their GPU's number; the lowest byte is a revision and counts here."""


def find_chip(chip_id: int) -> DirectGpu | None:
    """The GPU of a chip id, whose bytes are core, major, minor and revision. None if it is not in the table.

    0x06030001 is an a630 of revision 1.
    """
    name = _CHIPS.get(chip_id)
    if name is None and chip_id >> 24 == 6:
        name = f"a6{chip_id >> 16 & 255}{chip_id >> 8 & 255}"
    return GPUS.get(name) if name else None
