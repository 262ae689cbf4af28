"""The commands of one dispatch, and what stands before, between and after dispatches.

The order follows Mesa's `fd6_compute.cc` and `computerator`, and for the vendor's code and the barriers what
tinygrad's QCOM runtime sends, which is known to run on a630.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinyinfer.backends.qcom.kgsl import registers as reg
from tinyinfer.backends.qcom.kgsl.arguments import Block
from tinyinfer.backends.qcom.kgsl.gpus import DirectGpu
from tinyinfer.backends.qcom.kgsl.memory import Buffer
from tinyinfer.backends.qcom.kgsl.registers import REGISTERS, encode
from tinyinfer.backends.qcom.kgsl.shader import (
    CODE_GROUP,
    BufferViewSlot,
    ImageSlot,
    Launch,
    ShaderBinary,
    StorageImageSlot,
)
from tinyinfer.backends.qcom.kgsl.stream import Address, CommandStream

Size = tuple[int, int, int]

PRIVATE_ITEM_BYTES = 512
PRIVATE_PROCESSOR_BYTES = 4096
DESCRIPTOR_WORDS = 16
LOCAL_BYTES = 1024
LEAST_LOCAL_BYTES = 2048
"""Less than this encodes as "all that there is"."""


@dataclass(frozen=True)
class Memories:
    """What a plan's dispatches share: code, arguments, private memory, and a place for events to write."""

    code: Buffer
    arguments: Buffer
    private: Buffer | None
    scratch: Buffer


def private_bytes(gpu: DirectGpu, shader: ShaderBinary) -> tuple[int, int]:
    """Bytes of private memory for a work-item, and for all that a shader processor holds."""
    item = -(-shader.private_bytes // PRIVATE_ITEM_BYTES) * PRIVATE_ITEM_BYTES
    processor = item * gpu.items_per_processor
    return item, -(-processor // PRIVATE_PROCESSOR_BYTES) * PRIVATE_PROCESSOR_BYTES


def check_launch(gpu: DirectGpu, shader: ShaderBinary, groups: Size, local: Size) -> None:
    """ValueError in words if this GPU cannot start such work-groups."""
    where = f"kernel {shader.name} on {gpu.name}"
    items = local[0] * local[1] * local[2]
    limit = gpu.max_work_group(shader.registers)
    if min(local) < 1 or max(local) > 1024 or items > limit:
        raise ValueError(
            f"{where}: a work-group of {items} items; with {shader.registers} registers it has up to {limit}"
        )
    if min(groups) < 1 or any(count * size >= 1 << 32 for count, size in zip(groups, local)):
        raise ValueError(f"{where}: a grid of {groups} work-groups of {local} items")
    if shader.local_bytes > gpu.facts.local_bytes:
        raise ValueError(
            f"{where}: {shader.local_bytes} bytes of local memory, the GPU has {gpu.facts.local_bytes}"
        )
    if shader.double_wave and not gpu.facts.double_waves:
        raise ValueError(f"{where}: compiled for double waves, which this GPU does not have")
    if shader.bindless_uavs is not None and gpu.generation != 6:
        raise ValueError(f"{where}: sets of descriptors are known for a6xx only")
    if shader.launch is Launch.RUN_OPENCL and gpu.generation != 6:
        raise ValueError(
            f"{where}: how code of the vendor's OpenCL compiler is started is known for a6xx only"
        )


def begin(stream: CommandStream, gpu: DirectGpu) -> None:
    """What a stream starts with: nothing is taken over from whoever had the GPU before."""
    if gpu.generation == 7:
        stream.packet(
            "CP_THREAD_CONTROL",
            encode("thread", reg.THREAD_CONTROL, thread=reg.THREAD_RENDER, no_concurrent_binning=1),
        )
    stream.packet("CP_SET_MARKER", encode("marker", reg.MARKER, mode=reg.MARKER_COMPUTE))
    stream.wait_for_idle()
    stream.write({**gpu.setup, "SP_PERFCTR_SHADER_MASK": _fields("SP_PERFCTR_SHADER_MASK", compute=1)})
    _invalidate(stream)
    stream.wait_for_idle()


def mode(shader: ShaderBinary) -> dict[str, int]:
    """The registers that hold for all shaders until they are written again, as this one needs them."""
    rules = shader.image_rules.value
    demotion = int(shader.launch is Launch.EXEC_CS)
    return {
        "SP_MODE_CNTL": _fields("SP_MODE_CNTL", constant_demotion=demotion, isam_mode=rules),
        "TPL1_MODE_CNTL": _fields("TPL1_MODE_CNTL", isam_mode=rules),
    }


def choose_mode(stream: CommandStream, values: dict[str, int]) -> None:
    """Write what `mode` says."""
    stream.wait_for_idle()
    stream.write(values)
    stream.wait_for_idle()


def dispatch(
    stream: CommandStream,
    gpu: DirectGpu,
    shader: ShaderBinary,
    code_offset: int,
    block: Block,
    memories: Memories,
    groups: Size,
    local: Size,
) -> None:
    """Start `groups` work-groups of `local` items."""
    stream.write({"SP_UPDATE_CNTL": _fields("SP_UPDATE_CNTL", compute_state=1, compute_uavs=1)})
    if gpu.generation == 6:
        stream.write({"SP_UPDATE_CNTL": 0})
    _program(stream, gpu, shader, Address(memories.code, code_offset), memories)
    _waves(stream, gpu, shader, local)
    _grid(stream, gpu, groups, local)
    _state(stream, gpu, shader, Address(memories.code, code_offset), block, memories)
    if shader.launch is Launch.RUN_OPENCL:
        stream.packet("CP_RUN_OPENCL", 0)
    else:
        stream.packet("CP_EXEC_CS", 0, *groups)


def barrier(stream: CommandStream, scratch: Buffer) -> None:
    """What follows sees all that the dispatches before it wrote."""
    _flush(stream, scratch)
    _invalidate(stream)
    stream.packet("CP_WAIT_MEM_WRITES")
    stream.wait_for_idle()


def end(stream: CommandStream, scratch: Buffer) -> None:
    """Results leave the GPU's caches."""
    _flush(stream, scratch)
    stream.packet("CP_WAIT_MEM_WRITES")
    stream.wait_for_idle()


def read_counter(stream: CommandStream, address: Address) -> None:
    """Store the always-on counter (64 bits) when everything before has finished."""
    stream.wait_for_idle()
    first = encode("counter", reg.REGISTER_TO_MEMORY, register=reg.ALWAYS_ON_COUNTER, count=2, wide=1)
    stream.packet("CP_REG_TO_MEM", first, address)


def _program(
    stream: CommandStream, gpu: DirectGpu, shader: ShaderBinary, code: Address, memories: Memories
) -> None:
    item, processor = private_bytes(gpu, shader)
    private = Address(memories.private) if item and memories.private else 0
    constant_mode = next(mode for vectors, mode in reg.CONSTANT_MODES if shader.constants <= vectors)
    local_bytes = max(LEAST_LOCAL_BYTES, -(-shader.local_bytes // LOCAL_BYTES) * LOCAL_BYTES)
    local_memory = {"local_bytes": local_bytes, "constant_mode": constant_mode}
    uavs = shader.count(StorageImageSlot, BufferViewSlot)
    stream.write(
        {
            "SP_CS_CNTL_0": _fields(
                "SP_CS_CNTL_0",
                half_registers=shader.half_registers,
                full_registers=shader.full_registers,
                branch_stack=shader.branch_stack,
                double_wave=shader.double_wave,
                early_preamble=shader.early_preamble,
                merged_registers=shader.merged_registers,
            ),
            "SP_CS_CNTL_1": _fields("SP_CS_CNTL_1", **local_memory),
            "SP_CS_BOOLEAN_CF_MASK": 0,
            "SP_CS_PROGRAM_COUNTER_OFFSET": shader.entry,
            "SP_CS_BASE": code,
            "SP_CS_PVT_MEM_PARAM": _fields("SP_CS_PVT_MEM_PARAM", bytes_per_item=item),
            "SP_CS_PVT_MEM_BASE": private,
            "SP_CS_PVT_MEM_SIZE": _fields(
                "SP_CS_PVT_MEM_SIZE", bytes_per_processor=processor, per_wave=shader.private_per_wave
            ),
            "SP_CS_TSIZE": shader.count(ImageSlot),
            "SP_CS_CONFIG": _fields(
                "SP_CS_CONFIG",
                enabled=1,
                textures=shader.count(ImageSlot),
                samplers=shader.samplers,
                uavs=uavs,
                bindless_uavs=shader.bindless_uavs is not None,
            ),
            "SP_CS_INSTR_SIZE": _fields("SP_CS_INSTR_SIZE", bytes=shader.code_bytes),
            "SP_CS_PVT_MEM_STACK_OFFSET": _fields("SP_CS_PVT_MEM_STACK_OFFSET", bytes=processor),
            "SP_CS_USIZE": uavs if shader.bindless_uavs is None else 0,
            "SP_REG_PROG_ID_0": 0xFCFCFCFC,
            "SP_REG_PROG_ID_1": 0xFCFCFCFC,
            "SP_REG_PROG_ID_2": 0xFCFCFCFC,
            "SP_REG_PROG_ID_3": 0x0000FCFC,
            "SP_CS_CONST_CONFIG": _fields(
                "SP_CS_CONST_CONFIG", vectors=-(-shader.constants // 4) * 4, enabled=1
            ),
        }
    )
    if gpu.second_queue:
        stream.write({"HLSQ_CS_CTRL_REG1": _fields("HLSQ_CS_CTRL_REG1", **local_memory)})


def _waves(stream: CommandStream, gpu: DirectGpu, shader: ShaderBinary, local: Size) -> None:
    """Where work-items find their place, and how many of them a wave has."""
    values = {
        "work_group_id": shader.system_values.work_group_id,
        "work_group_size": shader.system_values.work_group_size,
        "work_group_offset": shader.system_values.work_group_offset,
        "local_id": shader.system_values.local_id,
    }
    wave = {"linear_local_id": reg.NO_REGISTER, "double_wave": int(shader.double_wave)}
    if gpu.generation == 7:
        tile = next((height for rows, height in ((8, 3), (4, 5), (2, 9)) if local[1] % rows == 0), 17)
        stream.write(
            {
                "SP_PS_WAVE_CNTL": _fields("SP_PS_WAVE_CNTL", double_wave=0),
                "SP_CS_WGE_CNTL_A7XX": _fields(
                    "SP_CS_WGE_CNTL_A7XX", **wave, z_first=1, tile_width=4, tile_height=tile
                ),
                "SP_CS_WIE_CNTL_0": _fields("SP_CS_WIE_CNTL_0", **values),
                "SP_CS_WIE_CNTL_1_A7XX": _fields("SP_CS_WIE_CNTL_1_A7XX", **wave),
                "SP_CS_VGS_CNTL": 0,
            }
        )
        return
    if not gpu.facts.double_waves:
        # Such a GPU takes the size of its waves from the other register, and wants this one set.
        stream.write({"SP_PS_WAVE_CNTL": _fields("SP_PS_WAVE_CNTL", double_wave=shader.double_wave)})
        wave["double_wave"] = 1
    stream.write(
        {
            "SP_CS_CONST_CONFIG_0": _fields("SP_CS_CONST_CONFIG_0", **values),
            "SP_CS_WGE_CNTL": _fields("SP_CS_WGE_CNTL", **wave),
        }
    )
    if gpu.second_queue:
        stream.write(
            {
                "SP_CS_WIE_CNTL_0": _fields("SP_CS_WIE_CNTL_0", **values),
                "SP_CS_WIE_CNTL_1": _fields("SP_CS_WIE_CNTL_1", **wave),
            }
        )


def _grid(stream: CommandStream, gpu: DirectGpu, groups: Size, local: Size) -> None:
    size = {"local_x": local[0], "local_y": local[1], "local_z": local[2]}
    stream.write(
        {
            "SP_CS_NDRANGE_0": _fields("SP_CS_NDRANGE_0", dimensions=3, **size),
            "SP_CS_NDRANGE_1": groups[0] * local[0],
            "SP_CS_NDRANGE_2": 0,
            "SP_CS_NDRANGE_3": groups[1] * local[1],
            "SP_CS_NDRANGE_4": 0,
            "SP_CS_NDRANGE_5": groups[2] * local[2],
            "SP_CS_NDRANGE_6": 0,
            "SP_CS_KERNEL_GROUP_X": groups[0],
            "SP_CS_KERNEL_GROUP_Y": groups[1],
            "SP_CS_KERNEL_GROUP_Z": groups[2],
        }
    )
    if gpu.generation == 7:
        stream.write({"SP_CS_NDRANGE_7": _fields("SP_CS_NDRANGE_7", **size)})


def _state(
    stream: CommandStream,
    gpu: DirectGpu,
    shader: ShaderBinary,
    code: Address,
    block: Block,
    memories: Memories,
) -> None:
    """Constants, code and descriptors, each loaded ahead from memory."""
    textures, uavs = shader.count(ImageSlot), shader.count(StorageImageSlot, BufferViewSlot)
    groups = shader.code_bytes // CODE_GROUP

    def at(offset: int) -> Address:
        return Address(memories.arguments, offset)

    if shader.constants:
        _load(stream, reg.STATE_CONSTANTS, reg.BLOCK_COMPUTE_SHADER, shader.constants, at(block.constants))
    _load(stream, reg.STATE_SHADER, reg.BLOCK_COMPUTE_SHADER, min(groups, gpu.instruction_cache), code)
    if groups > gpu.instruction_cache:
        # The GPU may check what it fetches later against the length of the other kind of shader.
        stream.write({"SP_PS_INSTR_SIZE": _fields("SP_PS_INSTR_SIZE", bytes=shader.code_bytes)})
        stream.packet("CP_EVENT_WRITE", encode("event", reg.EVENT, event=reg.EVENT_LABEL))
    if shader.samplers:
        _load(stream, reg.STATE_SHADER, reg.BLOCK_COMPUTE_TEXTURE, shader.samplers, at(block.samplers))
        stream.write(
            {"SP_CS_SAMPLER_BASE": at(block.samplers), "TPL1_CS_BORDER_COLOR_BASE": Address(memories.scratch)}
        )
    if textures:
        _load(stream, reg.STATE_CONSTANTS, reg.BLOCK_COMPUTE_TEXTURE, textures, at(block.textures))
        stream.write({"SP_CS_TEXMEMOBJ_BASE": at(block.textures)})
    if uavs and shader.bindless_uavs is not None:
        _bindless_uavs(stream, at(block.uavs + reg.BINDLESS_64_BYTES), shader.bindless_uavs, uavs)
    elif uavs:
        _load(stream, reg.STATE_UAV, reg.BLOCK_COMPUTE_SHADER, uavs, at(block.uavs))
        stream.write({"SP_CS_UAV_BASE": at(block.uavs)})


def _bindless_uavs(stream: CommandStream, base: Address, first: int, count: int) -> None:
    """UAVs as descriptors `first` and following of set 0, which begins at `base`."""
    stream.write({"SP_UPDATE_CNTL": _fields("SP_UPDATE_CNTL", compute_bindless=reg.BINDLESS_SETS)})
    stream.write({"SP_CS_BINDLESS_BASE": base, "HLSQ_CS_BINDLESS_BASE": base})
    head = encode(
        "CP_LOAD_STATE6",
        reg.LOAD_STATE,
        offset=first,
        type=reg.STATE_UAV,
        source=reg.SOURCE_BINDLESS,
        block=reg.BLOCK_COMPUTE_SHADER,
        units=count,
    )
    stream.packet("CP_LOAD_STATE6_FRAG", head, first * DESCRIPTOR_WORDS, 0)


def _load(stream: CommandStream, kind: int, where: int, units: int, address: Address) -> None:
    head = encode(
        "CP_LOAD_STATE6", reg.LOAD_STATE, type=kind, source=reg.SOURCE_INDIRECT, block=where, units=units
    )
    stream.packet("CP_LOAD_STATE6_FRAG", head, address)


def _flush(stream: CommandStream, scratch: Buffer) -> None:
    if stream.generation == 7:
        # This event does not wait for shaders, as the one of a6xx does.
        stream.wait_for_idle()
        stream.packet("CP_EVENT_WRITE", encode("event", reg.EVENT, event=reg.EVENT_CACHE_CLEAN_A7XX))
    else:
        event = encode("event", reg.EVENT, event=reg.EVENT_CACHE_FLUSH_TS)
        stream.packet("CP_EVENT_WRITE", event, Address(scratch, SCRATCH_EVENT), 0)


def _invalidate(stream: CommandStream) -> None:
    event = reg.EVENT_CACHE_INVALIDATE_A7XX if stream.generation == 7 else reg.EVENT_CACHE_INVALIDATE
    stream.packet("CP_EVENT_WRITE", encode("event", reg.EVENT, event=event))


SCRATCH_BORDER_BYTES = 2048
"""The scratch buffer begins with the border colours of samplers: zeros."""

SCRATCH_EVENT = SCRATCH_BORDER_BYTES
SCRATCH_COUNTERS = SCRATCH_BORDER_BYTES + 64


def _fields(register: str, **values: int) -> int:
    return encode(register, REGISTERS[register].fields, **values)
