"""The relocations that linking knows, a table for each machine: kind → how the place is patched.

Only distances are written, never addresses, so that the image runs wherever it is mapped. An image is mapped
at a multiple of its `ALIGNMENT`, which is why the low twelve bits of an offset are those of the address.

Sources: the psABI supplements of x86-64 (chapter 4, "Relocation"), AArch64 (ELF for the Arm 64-bit
Architecture), Arm (ELF for the Arm Architecture) and RISC-V (RISC-V ELF psABI, "Relocations").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

PAGE_BITS = 12


class OutOfReach(ValueError):
    """A distance does not fit its field, or an instruction is not one that can be patched. `number` says of
    which places."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.number = number


@dataclass(frozen=True)
class Places:
    """Places to patch: `code[at[i]:]` must refer to offset `target[i]` of the image. All numbers are arrays
    of int64."""

    code: np.ndarray
    at: np.ndarray
    target: np.ndarray

    @property
    def distance(self) -> np.ndarray:
        return self.target - self.at

    def word(self, size: int = 4) -> np.ndarray:
        """The instructions, or parts of `size` bytes, at the places."""
        found = np.zeros(len(self.at), np.int64)
        for byte in range(size):
            found |= self.code[self.at + byte].astype(np.int64) << 8 * byte
        return found

    def put(self, value: np.ndarray, size: int = 4) -> None:
        """Write the low `size` bytes of each value."""
        for byte in range(size):
            self.code[self.at + byte] = value >> 8 * byte & 255

    def field(self, value: np.ndarray, bits: int, unit: int = 1) -> np.ndarray:
        """Signed numbers of `unit`s as fields of `bits` bits."""
        limit = 1 << (bits - 1)
        bad = (value % unit != 0) | (value < -limit * unit) | (value >= limit * unit)
        if bad.any():
            number = int(np.argmax(bad))
            raise OutOfReach(f"a distance of {value[number]} does not fit {bits} bits", number)
        return value // unit & ((1 << bits) - 1)


Write = Callable[[Places], None]


@dataclass(frozen=True)
class Relocation:
    """One kind: `write` patches; `addend` reads it from the place where the object holds it there (REL)."""

    name: str
    write: Write
    addend: Callable[[Places], np.ndarray] = lambda places: np.zeros(len(places.at), np.int64)


@dataclass(frozen=True)
class Machine:
    """What linking must know of an ELF machine. `pairs` maps a kind whose symbol is the place of another
    relocation (RISC-V's low halves) to how it is patched; `ignored` are hints; `absolute` names kinds that
    need the address of the image."""

    number: int
    relocations: Mapping[int, Relocation]
    absolute: Mapping[int, str]
    ignored: frozenset[int] = frozenset()
    pairs: Mapping[int, Relocation] | None = None
    highs: frozenset[int] = frozenset()


def _word32(places: Places) -> None:
    places.put(places.field(places.distance, 32))


def _word64(places: Places) -> None:
    places.put(places.distance, 8)


# ---- x86-64


def _x86_table(places: Places) -> None:
    """A load of an address from the global offset table becomes the computation of that address, a call
    through it a direct one. Distances count from the instruction's end, four bytes after the field."""
    code = places.code
    _word32(places)
    for number, at in enumerate(places.at.tolist()):
        opcode, operand = code[at - 2], code[at - 1]
        if opcode == 0x8B:
            code[at - 2] = 0x8D
        elif opcode == 0xFF and operand == 0x15:
            code[at - 2], code[at - 1] = 0x67, 0xE8
        elif opcode == 0xFF and operand == 0x25:
            # jmp *x(%rip) is one byte longer than jmp x
            one = Places(code, places.at[number : number + 1] - 1, places.target[number : number + 1])
            code[at - 2], code[at + 3] = 0xE9, 0x90
            one.put(one.distance)
        else:
            raise OutOfReach("an instruction that reads an address from memory", number)


_X86_64 = Machine(
    62,
    {
        2: Relocation("R_X86_64_PC32", _word32),
        4: Relocation("R_X86_64_PLT32", _word32),
        9: Relocation("R_X86_64_GOTPCREL", _x86_table),
        24: Relocation("R_X86_64_PC64", _word64),
        41: Relocation("R_X86_64_GOTPCRELX", _x86_table),
        42: Relocation("R_X86_64_REX_GOTPCRELX", _x86_table),
    },
    {1: "R_X86_64_64", 10: "R_X86_64_32", 11: "R_X86_64_32S"},
)


# ---- aarch64


def _branch(bits: int, shift: int) -> Write:
    """A signed distance in words of four bytes at bit `shift` of the instruction."""

    def write(places: Places) -> None:
        mask = ((1 << bits) - 1) << shift
        places.put(places.word() & ~mask | places.field(places.distance, bits, 4) << shift)

    return write


def _adr(places: Places, distance: np.ndarray) -> None:
    value = places.field(distance, 21)
    places.put(places.word() & ~(3 << 29 | 0x7FFFF << 5) | (value & 3) << 29 | (value >> 2) << 5)


def _adr_page(places: Places) -> None:
    _adr(places, (places.target >> PAGE_BITS) - (places.at >> PAGE_BITS))


def _low12(scale: int) -> Write:
    """Bits 0 … 11 of the target as the instruction's immediate, in units of 2^scale bytes."""

    def write(places: Places) -> None:
        low = places.target & 0xFFF
        bad = low % (1 << scale) != 0
        if bad.any():
            raise OutOfReach(f"an operand of {1 << scale} bytes that is not aligned", int(np.argmax(bad)))
        places.put(places.word() & ~(0xFFF << 10) | (low >> scale) << 10)

    return write


def _table_low12(places: Places) -> None:
    """ldr xN, [xM, #low] of a table entry becomes add xN, xM, #low."""
    registers = places.word() & 0x3FF
    places.put(0x91000000 | registers | (places.target & 0xFFF) << 10)


_AARCH64 = Machine(
    183,
    {
        260: Relocation("R_AARCH64_PREL64", _word64),
        261: Relocation("R_AARCH64_PREL32", _word32),
        273: Relocation("R_AARCH64_LD_PREL_LO19", _branch(19, 5)),
        274: Relocation("R_AARCH64_ADR_PREL_LO21", lambda places: _adr(places, places.distance)),
        275: Relocation("R_AARCH64_ADR_PREL_PG_HI21", _adr_page),
        276: Relocation("R_AARCH64_ADR_PREL_PG_HI21_NC", _adr_page),
        277: Relocation("R_AARCH64_ADD_ABS_LO12_NC", _low12(0)),
        278: Relocation("R_AARCH64_LDST8_ABS_LO12_NC", _low12(0)),
        279: Relocation("R_AARCH64_TSTBR14", _branch(14, 5)),
        280: Relocation("R_AARCH64_CONDBR19", _branch(19, 5)),
        282: Relocation("R_AARCH64_JUMP26", _branch(26, 0)),
        283: Relocation("R_AARCH64_CALL26", _branch(26, 0)),
        284: Relocation("R_AARCH64_LDST16_ABS_LO12_NC", _low12(1)),
        285: Relocation("R_AARCH64_LDST32_ABS_LO12_NC", _low12(2)),
        286: Relocation("R_AARCH64_LDST64_ABS_LO12_NC", _low12(3)),
        299: Relocation("R_AARCH64_LDST128_ABS_LO12_NC", _low12(4)),
        311: Relocation("R_AARCH64_ADR_GOT_PAGE", _adr_page),
        312: Relocation("R_AARCH64_LD64_GOT_LO12_NC", _table_low12),
        314: Relocation("R_AARCH64_PLT32", _word32),
    },
    {257: "R_AARCH64_ABS64", 258: "R_AARCH64_ABS32", 263: "R_AARCH64_MOVW_UABS_G0"},
)


# ---- Arm, in Arm state; addends lie in the places


def _signed(value: np.ndarray, bits: int) -> np.ndarray:
    return (value ^ 1 << (bits - 1)) - (1 << (bits - 1))


def _arm_branch(places: Places) -> None:
    places.put(places.word() & 0xFF000000 | places.field(places.distance, 24, 4))


def _arm_half(shift: int) -> Write:
    """movw or movt: 16 bits of the distance in two fields."""

    def write(places: Places) -> None:
        half = places.distance >> shift & 0xFFFF
        places.put(places.word() & 0xFFF0F000 | (half & 0xF000) << 4 | half & 0xFFF)

    return write


def _arm_half_addend(places: Places) -> np.ndarray:
    word = places.word()
    return _signed(word >> 4 & 0xF000 | word & 0xFFF, 16)


def _arm_branch_addend(places: Places) -> np.ndarray:
    return _signed(places.word() & 0xFFFFFF, 24) * 4


def _word_addend(places: Places) -> np.ndarray:
    return _signed(places.word(), 32)


_ARM = Machine(
    40,
    {
        3: Relocation("R_ARM_REL32", _word32, _word_addend),
        28: Relocation("R_ARM_CALL", _arm_branch, _arm_branch_addend),
        29: Relocation("R_ARM_JUMP24", _arm_branch, _arm_branch_addend),
        45: Relocation("R_ARM_MOVW_PREL_NC", _arm_half(0), _arm_half_addend),
        46: Relocation("R_ARM_MOVT_PREL", _arm_half(16), _arm_half_addend),
    },
    {
        2: "R_ARM_ABS32",
        38: "R_ARM_TARGET1",
        43: "R_ARM_MOVW_ABS_NC",
        44: "R_ARM_MOVT_ABS",
        96: "R_ARM_GOT_PREL",
    },
    ignored=frozenset({0, 40}),
)


# ---- RISC-V


def _high20(distance: np.ndarray) -> np.ndarray:
    """The upper part of a distance, which the sign of the lower one has been taken into account in."""
    return (distance + 0x800) & 0xFFFFF000


def _auipc(places: Places) -> None:
    places.field(places.distance + 0x800, 32)
    places.put(places.word() & 0xFFF | _high20(places.distance))


def _low_load(places: Places) -> None:
    places.put(places.word() & 0xFFFFF | (places.distance & 0xFFF) << 20)


def _low_store(places: Places) -> None:
    low = places.distance & 0xFFF
    places.put(places.word() & 0x01FFF07F | (low >> 5) << 25 | (low & 31) << 7)


def _call(places: Places) -> None:
    """auipc and jalr one after the other."""
    _auipc(places)
    second = Places(places.code, places.at + 4, places.target)
    second.put(second.word() & 0xFFFFF | (places.distance & 0xFFF) << 20)


def _scattered(bits: int, size: int, fields: tuple[tuple[int, int, int], ...]) -> Write:
    """A signed even distance of `bits` bits whose parts (lowest bit, bits, bit in the instruction) are spread
    over an instruction of `size` bytes."""

    def write(places: Places) -> None:
        value = places.field(places.distance, bits)
        word = places.word(size)
        for low, count, at in fields:
            mask = (1 << count) - 1
            word = word & ~(mask << at) | (value >> low & mask) << at
        places.put(word, size)

    return write


_RISCV = Machine(
    243,
    {
        16: Relocation("R_RISCV_BRANCH", _scattered(13, 4, ((12, 1, 31), (5, 6, 25), (1, 4, 8), (11, 1, 7)))),
        17: Relocation(
            "R_RISCV_JAL", _scattered(21, 4, ((20, 1, 31), (1, 10, 21), (11, 1, 20), (12, 8, 12)))
        ),
        18: Relocation("R_RISCV_CALL", _call),
        19: Relocation("R_RISCV_CALL_PLT", _call),
        23: Relocation("R_RISCV_PCREL_HI20", _auipc),
        44: Relocation(
            "R_RISCV_RVC_BRANCH", _scattered(9, 2, ((8, 1, 12), (3, 2, 10), (6, 2, 5), (1, 2, 3), (5, 1, 2)))
        ),
        45: Relocation(
            "R_RISCV_RVC_JUMP",
            _scattered(
                12,
                2,
                ((11, 1, 12), (4, 1, 11), (8, 2, 9), (10, 1, 8), (6, 1, 7), (7, 1, 6), (1, 3, 3), (5, 1, 2)),
            ),
        ),
        57: Relocation("R_RISCV_32_PCREL", _word32),
    },
    {1: "R_RISCV_32", 2: "R_RISCV_64", 20: "R_RISCV_GOT_HI20", 26: "R_RISCV_HI20", 27: "R_RISCV_LO12_I"},
    ignored=frozenset({0, 43, 51}),
    pairs={
        24: Relocation("R_RISCV_PCREL_LO12_I", _low_load),
        25: Relocation("R_RISCV_PCREL_LO12_S", _low_store),
    },
    highs=frozenset({23}),
)

MACHINES: Mapping[str, Machine] = {
    "x86_64": _X86_64,
    "aarch64": _AARCH64,
    "armv7": _ARM,
    "riscv64": _RISCV,
}
"""By the project's name of the architecture (`features`)."""
