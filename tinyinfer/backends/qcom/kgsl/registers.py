"""Registers, descriptors and packet words of Adreno a6xx and a7xx that computing needs: bit fields as data.

Positions and names are those of Mesa's register database (a6xx.xml, a6xx_descriptors.xml, adreno_pm4.xml).
A field holds its value divided by `unit` and lessened by `less`, at its shift; `encode` refuses what does not
fit, because a value that loses its shift or its unit reads as another setting, often as zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Field:
    """Bits `low` to `high` of a word, both included."""

    low: int
    high: int
    unit: int = 1
    less: int = 0


Word = Mapping[str, Field]


@dataclass(frozen=True)
class Register:
    """Where a register is in each generation (None: it has none), and its fields.

    `words` = 2 is an address; a register without fields holds one number or address.
    """

    a6xx: int | None
    a7xx: int | None
    fields: Word
    words: int = 1

    def offset(self, generation: int) -> int | None:
        """The register's number in GPUs of `generation` 6 or 7."""
        return self.a6xx if generation == 6 else self.a7xx


def encode(where: str, word: Word, **values: int) -> int:
    """The word with these field values. ValueError if a field is unknown or cannot hold its value."""
    encoded = 0
    for name, value in values.items():
        field = word.get(name)
        if field is None:
            raise ValueError(f"{where} has no field {name}; it has {', '.join(word)}")
        steps, rest = divmod(int(value) - field.less * field.unit, field.unit)
        if rest or not 0 <= steps < 1 << (field.high - field.low + 1):
            raise ValueError(
                f"{where}.{name} cannot hold {value}: {field.high - field.low + 1} bits"
                + (f" in steps of {field.unit}" if field.unit > 1 else "")
            )
        encoded |= steps << field.low
    return encoded


def _bit(position: int) -> Field:
    return Field(position, position)


_PLAIN: Word = {}
_SYSTEM_VALUES: Word = {
    "work_group_id": Field(0, 7),
    "work_group_size": Field(8, 15),
    "work_group_offset": Field(16, 23),
    "local_id": Field(24, 31),
}
_LOCAL_SIZE: Word = {
    "dimensions": Field(0, 1),
    "local_x": Field(2, 11, less=1),
    "local_y": Field(12, 21, less=1),
    "local_z": Field(22, 31, less=1),
}
_WAVE: Word = {"linear_local_id": Field(0, 7), "double_wave": _bit(9)}
_LOCAL_MEMORY: Word = {"local_bytes": Field(0, 4, unit=1024, less=1), "constant_mode": Field(5, 6)}

REGISTERS: dict[str, Register] = {
    "UCHE_UNKNOWN_0E12": Register(0x0E12, 0x0E12, _PLAIN),
    "SP_CS_CNTL_0": Register(
        0xA9B0,
        0xA9B0,
        {
            "half_registers": Field(1, 6),
            "full_registers": Field(7, 12),
            "branch_stack": Field(14, 19),
            "double_wave": _bit(20),
            "early_preamble": _bit(23),
            "merged_registers": _bit(31),
        },
    ),
    "SP_CS_CNTL_1": Register(0xA9B1, 0xA9B1, _LOCAL_MEMORY),
    "SP_CS_BOOLEAN_CF_MASK": Register(0xA9B2, 0xA9B2, _PLAIN),
    "SP_CS_PROGRAM_COUNTER_OFFSET": Register(0xA9B3, 0xA9B3, _PLAIN),
    "SP_CS_BASE": Register(0xA9B4, 0xA9B4, _PLAIN, words=2),
    "SP_CS_PVT_MEM_PARAM": Register(0xA9B6, 0xA9B6, {"bytes_per_item": Field(0, 7, unit=512)}),
    "SP_CS_PVT_MEM_BASE": Register(0xA9B7, 0xA9B7, _PLAIN, words=2),
    "SP_CS_PVT_MEM_SIZE": Register(
        0xA9B9, 0xA9B9, {"bytes_per_processor": Field(0, 17, unit=4096), "per_wave": _bit(31)}
    ),
    "SP_CS_TSIZE": Register(0xA9BA, 0xA9BA, _PLAIN),
    "SP_CS_CONFIG": Register(
        0xA9BB,
        0xA9BB,
        {
            "bindless_uavs": _bit(2),
            "enabled": _bit(8),
            "textures": Field(9, 16),
            "samplers": Field(17, 21),
            "uavs": Field(22, 28),
        },
    ),
    "SP_CS_INSTR_SIZE": Register(0xA9BC, 0xA9BC, {"bytes": Field(0, 31, unit=128)}),
    "SP_CS_PVT_MEM_STACK_OFFSET": Register(0xA9BD, 0xA9BD, {"bytes": Field(0, 18, unit=2048)}),
    "SP_CS_WIE_CNTL_0": Register(0xA9C2, 0xA9C2, _SYSTEM_VALUES),
    "SP_CS_WIE_CNTL_1": Register(0xA9C3, None, _WAVE),
    "SP_CS_WIE_CNTL_1_A7XX": Register(None, 0xA9C3, {"linear_local_id": Field(0, 7), "double_wave": _bit(8)}),
    "SP_CS_VGS_CNTL": Register(None, 0xA9C5, _PLAIN),
    "SP_CS_SAMPLER_BASE": Register(0xA9E2, 0xA9E2, _PLAIN, words=2),
    "SP_CS_TEXMEMOBJ_BASE": Register(0xA9E6, 0xA9E6, _PLAIN, words=2),
    "SP_CS_BINDLESS_BASE": Register(0xA9E8, None, _PLAIN, words=2),
    "SP_CS_UAV_BASE": Register(0xA9F2, 0xA9F8, _PLAIN, words=2),
    "SP_CS_USIZE": Register(0xAA00, 0xAA00, _PLAIN),
    "SP_MODE_CNTL": Register(0xAB00, 0xAB00, {"constant_demotion": _bit(0), "isam_mode": Field(1, 2)}),
    "SP_PS_INSTR_SIZE": Register(0xAB05, 0xAB05, {"bytes": Field(0, 31, unit=128)}),
    "SP_DBG_ECO_CNTL": Register(0xAE00, 0xAE00, _PLAIN),
    "SP_CHICKEN_BITS": Register(0xAE03, 0xAE03, _PLAIN),
    "SP_NC_MODE_CNTL_2": Register(0xAE04, 0xAE04, _PLAIN),
    "SP_CHICKEN_BITS_1": Register(None, 0xAE08, _PLAIN),
    "SP_CHICKEN_BITS_2": Register(None, 0xAE09, _PLAIN),
    "SP_CHICKEN_BITS_3": Register(None, 0xAE0A, _PLAIN),
    "SP_PERFCTR_SHADER_MASK": Register(0xAE0F, 0xAE0F, {"compute": _bit(5)}),
    "TPL1_CS_BORDER_COLOR_BASE": Register(0xB180, 0xB180, _PLAIN, words=2),
    "TPL1_MODE_CNTL": Register(0xB309, 0xB309, {"isam_mode": Field(0, 1)}),
    "TPL1_DBG_ECO_CNTL": Register(0xB600, 0xB600, _PLAIN),
    "TPL1_DBG_ECO_CNTL1": Register(0xB602, 0xB602, _PLAIN),
    "SP_PS_WAVE_CNTL": Register(0xB980, 0xA9C6, {"double_wave": _bit(0)}),
    "SP_REG_PROG_ID_0": Register(0xB983, 0xA9C8, _PLAIN),
    "SP_REG_PROG_ID_1": Register(0xB984, 0xA9C9, _PLAIN),
    "SP_REG_PROG_ID_2": Register(0xB985, 0xA9CA, _PLAIN),
    "SP_REG_PROG_ID_3": Register(0xB986, 0xA9CB, _PLAIN),
    "SP_CS_CONST_CONFIG": Register(0xB987, 0xA9CD, {"vectors": Field(0, 7, unit=4), "enabled": _bit(8)}),
    "SP_CS_NDRANGE_0": Register(0xB990, 0xA9D4, _LOCAL_SIZE),
    "SP_CS_NDRANGE_1": Register(0xB991, 0xA9D5, _PLAIN),
    "SP_CS_NDRANGE_2": Register(0xB992, 0xA9D6, _PLAIN),
    "SP_CS_NDRANGE_3": Register(0xB993, 0xA9D7, _PLAIN),
    "SP_CS_NDRANGE_4": Register(0xB994, 0xA9D8, _PLAIN),
    "SP_CS_NDRANGE_5": Register(0xB995, 0xA9D9, _PLAIN),
    "SP_CS_NDRANGE_6": Register(0xB996, 0xA9DA, _PLAIN),
    "SP_CS_NDRANGE_7": Register(None, 0xA9DF, {n: f for n, f in _LOCAL_SIZE.items() if n != "dimensions"}),
    "SP_CS_CONST_CONFIG_0": Register(0xB997, None, _SYSTEM_VALUES),
    "SP_CS_WGE_CNTL": Register(0xB998, None, _WAVE),
    "SP_CS_WGE_CNTL_A7XX": Register(
        None,
        0xA9DB,
        {
            "linear_local_id": Field(0, 7),
            "double_wave": _bit(9),
            "z_first": _bit(11),
            "tile_width": Field(20, 25),
            "tile_height": Field(26, 31),
        },
    ),
    "SP_CS_KERNEL_GROUP_X": Register(0xB999, 0xA9DC, _PLAIN),
    "SP_CS_KERNEL_GROUP_Y": Register(0xB99A, 0xA9DD, _PLAIN),
    "SP_CS_KERNEL_GROUP_Z": Register(0xB99B, 0xA9DE, _PLAIN),
    "HLSQ_CS_BINDLESS_BASE": Register(0xB9C0, None, _PLAIN, words=2),
    "HLSQ_CS_CTRL_REG1": Register(0xB9D0, None, _LOCAL_MEMORY),
    "SP_UPDATE_CNTL": Register(
        0xBB08, 0xAB1F, {"compute_state": _bit(5), "compute_uavs": _bit(6), "compute_bindless": Field(9, 13)}
    ),
    "HLSQ_DBG_ECO_CNTL": Register(0xBE04, 0xAE6C, _PLAIN),
}

ALWAYS_ON_COUNTER = 0x0980
"""Counts up at 19.2 MHz whatever the GPU's clock does; 64 bits in two registers."""

ALWAYS_ON_HERTZ = 19_200_000

PACKETS = {
    "CP_WAIT_MEM_WRITES": 0x12,
    "CP_THREAD_CONTROL": 0x17,
    "CP_WAIT_FOR_IDLE": 0x26,
    "CP_RUN_OPENCL": 0x31,
    "CP_EXEC_CS": 0x33,
    "CP_LOAD_STATE6_FRAG": 0x34,
    "CP_REG_TO_MEM": 0x3E,
    "CP_EVENT_WRITE": 0x46,
    "CP_SET_MARKER": 0x65,
}
"""Type 7 packets: operation codes."""

LOAD_STATE: Word = {
    "offset": Field(0, 13),
    "type": Field(14, 15),
    "source": Field(16, 17),
    "block": Field(18, 21),
    "units": Field(22, 31),
}
REGISTER_TO_MEMORY: Word = {"register": Field(0, 17), "count": Field(18, 29), "wide": _bit(30)}
EVENT: Word = {"event": Field(0, 7)}
MARKER: Word = {"mode": Field(0, 3)}
THREAD_CONTROL: Word = {"thread": Field(0, 1), "no_concurrent_binning": _bit(27)}

STATE_SHADER, STATE_CONSTANTS, STATE_UNIFORM_BUFFER, STATE_UAV = 0, 1, 2, 3
"""Types of CP_LOAD_STATE6. A sampler is loaded as STATE_SHADER of BLOCK_COMPUTE_TEXTURE."""

SOURCE_BINDLESS, SOURCE_INDIRECT = 1, 2
BLOCK_COMPUTE_TEXTURE, BLOCK_COMPUTE_SHADER = 5, 13
BINDLESS_SETS = 31
"""All five sets of descriptors, in SP_UPDATE_CNTL."""

BINDLESS_64_BYTES = 3
"""In the lowest bits of a set's address: how large its descriptors are."""

MARKER_COMPUTE = 8
THREAD_RENDER = 1
NO_REGISTER = 0xFC
"""The register number that stands for none: r63.x."""

CONSTANT_MODES = ((128, 0), (192, 1), (256, 2), (512, 3))
"""Vectors of constants that fit, and the mode that makes room for them."""

EVENT_LABEL = 63
EVENT_CACHE_FLUSH_TS = 4
EVENT_CACHE_INVALIDATE = 49
EVENT_CACHE_CLEAN_A7XX = 49
EVENT_CACHE_INVALIDATE_A7XX = 51
