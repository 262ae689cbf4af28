"""Machine code of Mesa's compiler as `ShaderBinary`: what a launch needs is read from two launches by Mesa.

Everything that a caller can choose differed between the two, so each byte of the constants is either an
argument, found by its content, or the number of work-groups, or the same in both. Anything else is an error:
a kernel whose launch is not wholly understood is not launched.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tinyinfer.backends.qcom.kgsl.mesa_launch import CONSTANT_BYTES, GpuMemory, MesaLaunch, find_launch
from tinyinfer.backends.qcom.kgsl.shader import (
    BufferSlot,
    ImageRules,
    ImageSlot,
    Launch,
    ScalarSlot,
    ShaderBinary,
    Slot,
    StorageImageSlot,
    SystemValues,
)
from tinyinfer.errors import EPFail

_SLOTS = {kind.__name__: kind for kind in (BufferSlot, ScalarSlot, ImageSlot, StorageImageSlot)}


@dataclass(frozen=True)
class MesaKernel:
    """A kernel, and for each slot of its shader the number of the argument that goes there.

    Arguments are counted as the kernel's source declares them; one that the code does not use has no slot.
    """

    shader: ShaderBinary
    takes: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain data."""
        fields = asdict(self.shader)
        fields["code"] = base64.b64encode(self.shader.code).decode()
        fields["slots"] = [[type(slot).__name__, asdict(slot)] for slot in self.shader.slots]
        fields["immediates"] = [[offset, content.hex()] for offset, content in self.shader.immediates]
        fields["launch"] = self.shader.launch.value
        fields["image_rules"] = self.shader.image_rules.value
        return {"shader": fields, "takes": list(self.takes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MesaKernel:
        """The inverse of `to_json`."""
        fields = dict(data["shader"])
        fields["code"] = base64.b64decode(fields["code"])
        fields["slots"] = tuple(_SLOTS[name](**values) for name, values in fields["slots"])
        fields["immediates"] = tuple((at, bytes.fromhex(content)) for at, content in fields["immediates"])
        fields["launch"] = Launch(fields["launch"])
        fields["image_rules"] = ImageRules(fields["image_rules"])
        fields["system_values"] = SystemValues(**fields["system_values"])
        return cls(ShaderBinary(**fields), tuple(data["takes"]))


def mesa_kernel(
    name: str, memory: GpuMemory, launches: Sequence[Mapping[str, Any]], local_bytes: int
) -> MesaKernel:
    """The kernel that was launched twice (`ir3_launch_worker.py` describes a launch).

    EPFail naming the kernel and what of its launch is not understood.
    """
    found = [find_launch(memory, launch["groups"]) for launch in launches]
    first, second = found
    slots: list[tuple[Slot, int]] = []
    places: list[dict[tuple[int, int], int]] = []
    for sent, launch in zip(found, launches):
        places.append(_constant_places(memory, sent, launch["arguments"]))
    if places[0] != places[1]:
        raise EPFail(f"kernel {name}: two launches have their arguments in different places")
    for (offset, size), number in sorted(places[0].items()):
        kind = launches[0]["arguments"][number]["kind"]
        slots.append((BufferSlot(offset) if kind == "buffer" else ScalarSlot(offset, size), number))
    images = [_image_slots(name, sent, launch["arguments"]) for sent, launch in zip(found, launches)]
    if images[0] != images[1]:
        raise EPFail(f"kernel {name}: two launches number their images differently")
    slots += images[0]

    taken = {byte for offset, size in places[0] for byte in range(offset, offset + size)}
    groups = _group_count(first, second, launches, taken)
    if groups is not None:
        taken |= set(range(groups, groups + 12))
    immediates = _immediates(name, first, second, taken)
    uavs = sorted(first.uavs)
    vectors = first.field("SP_CS_CONST_CONFIG", "vectors")
    private = first.field("SP_CS_PVT_MEM_PARAM", "bytes_per_item")
    code = memory.read(first.address("SP_CS_BASE"), first.field("SP_CS_INSTR_SIZE", "bytes"))
    if code is None:
        raise EPFail(f"kernel {name}: the stand-in device holds no code")

    def control(part: str) -> int:
        return first.field("SP_CS_CNTL_0", part)

    shader = ShaderBinary(
        name=name,
        code=code,
        full_registers=control("full_registers"),
        half_registers=control("half_registers"),
        constants=vectors,
        slots=tuple(slot for slot, _ in slots),
        immediates=immediates,
        merged_registers=bool(control("merged_registers")),
        branch_stack=control("branch_stack"),
        local_bytes=local_bytes,
        private_bytes=private,
        private_per_wave=bool(first.field("SP_CS_PVT_MEM_SIZE", "per_wave")),
        double_wave=bool(control("double_wave")),
        early_preamble=bool(control("early_preamble")),
        entry=first.value("SP_CS_PROGRAM_COUNTER_OFFSET"),
        samplers=first.field("SP_CS_CONFIG", "samplers"),
        system_values=SystemValues(
            **{
                part: first.field("SP_CS_CONST_CONFIG_0", part)
                for part in ("work_group_id", "work_group_size", "work_group_offset", "local_id")
            }
        ),
        group_count_offset=groups,
        image_rules=ImageRules(first.field("SP_MODE_CNTL", "isam_mode")),
        bindless_uavs=uavs[0] if uavs else None,
    )
    return MesaKernel(shader, tuple(number for _, number in slots))


def _constant_places(
    memory: GpuMemory, sent: MesaLaunch, arguments: Sequence[Mapping[str, Any]]
) -> dict[tuple[int, int], int]:
    """Byte offset and size of each address and each number in the constants: whose argument it is."""
    tokens = {
        struct.pack("<4I", *argument["token"]): number
        for number, argument in enumerate(arguments)
        if argument["kind"] == "buffer"
    }
    numbers = {
        bytes.fromhex(argument["content"]): number
        for number, argument in enumerate(arguments)
        if argument["kind"] == "number"
    }
    found = {}
    for offset, run in _runs(sent):
        for at in range(0, len(run), 4):
            for content, number in numbers.items():
                if run.startswith(content, at):
                    found[offset + at, len(content)] = number
            if at % 8 == 0:
                pointed = memory.read(struct.unpack_from("<Q", run, at)[0], 16)
                if pointed in tokens:
                    found[offset + at, 8] = tokens[pointed]
    return found


def _runs(sent: MesaLaunch) -> list[tuple[int, bytes]]:
    """Neighbouring constants together: byte offset and contents."""
    runs: list[tuple[int, bytes]] = []
    for vector, content in sorted(sent.constants.items()):
        offset = vector * CONSTANT_BYTES
        if runs and runs[-1][0] + len(runs[-1][1]) == offset:
            runs[-1] = (runs[-1][0], runs[-1][1] + content)
        else:
            runs.append((offset, content))
    return runs


def _image_slots(
    name: str, sent: MesaLaunch, arguments: Sequence[Mapping[str, Any]]
) -> list[tuple[Slot, int]]:
    """Descriptors with the arguments whose width and height they have."""
    sizes = {
        (argument["width"], argument["height"]): number
        for number, argument in enumerate(arguments)
        if argument["kind"] == "image"
    }
    first = min(sent.uavs, default=0)
    if sorted(sent.uavs) != list(range(first, first + len(sent.uavs))):
        raise EPFail(f"kernel {name}: its images to write are numbered {sorted(sent.uavs)}")
    slots: list[tuple[Slot, int]] = [
        (ImageSlot(index), sizes.get(_size(words), -1)) for index, words in enumerate(sent.textures)
    ]
    slots += [
        (StorageImageSlot(index - first), sizes.get(_size(words), -1))
        for index, words in sorted(sent.uavs.items())
    ]
    if any(number < 0 for _, number in slots):
        raise EPFail(f"kernel {name}: it has an image that is none of its arguments")
    return slots


def _size(descriptor: Sequence[int]) -> tuple[int, int]:
    return descriptor[1] & 0x7FFF, descriptor[1] >> 15 & 0x7FFF


def _group_count(
    first: MesaLaunch, second: MesaLaunch, launches: Sequence[Mapping[str, Any]], taken: set[int]
) -> int | None:
    """Where the code finds the number of work-groups, if it does."""
    wanted = [struct.pack("<3I", *launch["groups"]) for launch in launches]
    for (offset, a), (_, b) in zip(_runs(first), _runs(second)):
        for at in range(0, len(a) - 11, 4):
            if offset + at not in taken and a[at : at + 12] == wanted[0] and b[at : at + 12] == wanted[1]:
                return offset + at
    return None


def _immediates(
    name: str, first: MesaLaunch, second: MesaLaunch, taken: set[int]
) -> tuple[tuple[int, bytes], ...]:
    """The words that are the same whatever is launched, zeros left out."""
    if sorted(first.constants) != sorted(second.constants):
        raise EPFail(f"kernel {name}: two launches load different constants")
    found: list[tuple[int, bytes]] = []
    for (offset, a), (_, b) in zip(_runs(first), _runs(second)):
        for at in range(0, len(a), 4):
            if offset + at in taken:
                continue
            if a[at : at + 4] != b[at : at + 4]:
                raise EPFail(
                    f"kernel {name}: what its driver puts into constant {(offset + at) // 4} is not known"
                )
            if any(a[at : at + 4]):
                found.append((offset + at, a[at : at + 4]))
    return tuple(found)
