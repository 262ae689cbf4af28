"""A kernel's machine code with what its compiler says of it, in neutral terms.

Nothing here reads a container, be it the vendor's program binary or Mesa's: whoever has one fills this in.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from tinyinfer.backends.qcom.kgsl.registers import CONSTANT_MODES, NO_REGISTER

CODE_GROUP = 128
"""Bytes of a group of 16 instructions: code is counted in whole groups."""

MAX_CONSTANT_VECTORS = CONSTANT_MODES[-1][0]


class Launch(enum.Enum):
    """The packet that starts the work-groups, which goes with the compiler's conventions."""

    EXEC_CS = "CP_EXEC_CS"
    """As Mesa's compiler expects it."""

    RUN_OPENCL = "CP_RUN_OPENCL"
    """As the vendor's OpenCL compiler expects it; known for a6xx only."""


class ImageRules(enum.Enum):
    """The rules by which the code reads images without a sampler: the number that the GPU has for them."""

    OPENCL = 1
    OPENGL = 2
    """Also Vulkan's."""


@dataclass(frozen=True)
class BufferSlot:
    """An argument whose 64-bit GPU address the code finds in its constants at byte `offset`."""

    offset: int


@dataclass(frozen=True)
class ScalarSlot:
    """An argument of `size` bytes that the code finds in its constants at byte `offset`."""

    offset: int
    size: int


@dataclass(frozen=True)
class ImageSlot:
    """An image that the code reads as texture number `index`."""

    index: int


@dataclass(frozen=True)
class StorageImageSlot:
    """An image that the code writes, or reads and writes, as UAV number `index`."""

    index: int


@dataclass(frozen=True)
class BufferViewSlot:
    """A buffer that the code reaches as UAV number `index`, in texels of a format of `FORMATS`."""

    index: int
    format_name: str = "r32_uint"


Slot = BufferSlot | ScalarSlot | ImageSlot | StorageImageSlot | BufferViewSlot


@dataclass(frozen=True)
class SystemValues:
    """Where the GPU leaves what a work-item asks of its place: registers or constants; 0xfc is none."""

    work_group_id: int = NO_REGISTER
    work_group_size: int = NO_REGISTER
    work_group_offset: int = NO_REGISTER
    local_id: int = NO_REGISTER


VENDOR_SYSTEM_VALUES = SystemValues(0xCF, 0xC0, 0xCC, 0x00)
"""Where the vendor's OpenCL compiler has them on a6xx."""


@dataclass(frozen=True)
class ShaderBinary:
    """One kernel. Registers are counted in vectors of four components, as compilers report them.

    With `bindless_uavs` the code finds UAV number 0 as that descriptor of set 0, the others after it.
    `constants` is how many vectors of 16 bytes the code reads, `immediates` what it finds in them beside its
    arguments: (byte offset, contents). `group_count_offset` and `local_size_offset` are byte offsets at which
    the code looks for three 32-bit numbers, if it does. `branch_stack` is in the hardware's units.
    """

    name: str
    code: bytes
    full_registers: int
    half_registers: int
    constants: int
    slots: tuple[Slot, ...]
    immediates: tuple[tuple[int, bytes], ...] = ()
    merged_registers: bool = True
    branch_stack: int = 0
    local_bytes: int = 0
    private_bytes: int = 0
    private_per_wave: bool = False
    double_wave: bool = False
    early_preamble: bool = False
    entry: int = 0
    samplers: int = 0
    system_values: SystemValues = SystemValues()
    group_count_offset: int | None = None
    local_size_offset: int | None = None
    launch: Launch = Launch.EXEC_CS
    image_rules: ImageRules = ImageRules.OPENCL
    bindless_uavs: int | None = None

    def __post_init__(self) -> None:
        if not self.code or len(self.code) % 8:
            raise ValueError(f"kernel {self.name}: {len(self.code)} bytes of code; an instruction has 8")
        if not 0 <= self.constants <= MAX_CONSTANT_VECTORS:
            raise ValueError(f"kernel {self.name}: {self.constants} constant vectors of at most 512")
        for offset, size, what in self._constant_parts():
            if not 0 <= offset <= self.constants * 16 - size or offset % 4:
                raise ValueError(
                    f"kernel {self.name}: {what} at byte {offset} is outside of its {self.constants} "
                    "constant vectors, or not at a whole word"
                )
        for kinds in ((ImageSlot,), (StorageImageSlot, BufferViewSlot)):
            found = sorted(slot.index for slot in self.slots if isinstance(slot, kinds))
            if found != list(range(len(found))):
                raise ValueError(f"kernel {self.name}: {kinds[0].__name__} numbers {found} are not 0, 1, 2 …")

    @property
    def code_bytes(self) -> int:
        """Bytes of the code in whole groups of instructions."""
        return -(-len(self.code) // CODE_GROUP) * CODE_GROUP

    @property
    def registers(self) -> int:
        """Vectors of the register file that a work-item takes."""
        half = -(-self.half_registers // 2)
        return max(self.full_registers, half) if self.merged_registers else self.full_registers + half

    def count(self, *kinds: type) -> int:
        """How many slots are of these kinds."""
        return sum(isinstance(slot, kinds) for slot in self.slots)

    def _constant_parts(self) -> list[tuple[int, int, str]]:
        parts = [(offset, len(content), "an immediate") for offset, content in self.immediates]
        parts += [(slot.offset, 8, "a pointer") for slot in self.slots if isinstance(slot, BufferSlot)]
        parts += [(slot.offset, slot.size, "a number") for slot in self.slots if isinstance(slot, ScalarSlot)]
        for offset, what in (
            (self.group_count_offset, "the group count"),
            (self.local_size_offset, "the local size"),
        ):
            if offset is not None:
                parts.append((offset, 12, what))
        return parts
