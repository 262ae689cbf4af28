"""Against what another driver sends: words of Mesa 26.1's OpenCL for these GPUs, taken where it submits them.

Freedreno ran the kernels below against its device that does nothing, and the ioctl that submits was recorded.
The shader's own numbers (registers, branch stack, where system values are) are read from its words; that
everything else comes out the same is the test.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from kgsl_kernels import SCALE, fake
from pm4_decoder import packets

from tinyinfer.backends.qcom.kgsl import (
    Address,
    BufferArgument,
    Dispatch,
    KgslDevice,
    PlanStream,
    ShaderBinary,
    SystemValues,
)
from tinyinfer.backends.qcom.kgsl.descriptors import image
from tinyinfer.backends.qcom.kgsl.stream import WordList, type4_header

LOCAL_KERNEL = ShaderBinary(
    name="local",
    code=SCALE.code[:8] * 48,
    full_registers=6,
    half_registers=0,
    branch_stack=1,
    constants=12,
    slots=(),
    local_bytes=5000,
    double_wave=True,
    system_values=SystemValues(work_group_id=0xC0, local_id=0x00),
)
"""3 x 5 x 3 groups of 32 x 4 x 2 items; `__local float t[1250]`."""

PRIVATE_KERNEL = dataclasses.replace(
    LOCAL_KERNEL, code=SCALE.code[:8] * 96, local_bytes=0, private_bytes=1200, private_per_wave=True
)
"""4 groups of 16 items; `float t[300]` with an index that is not constant."""

A630_LOCAL = {
    "SP_CS_CNTL_0": 0x80104300,
    "SP_CS_CNTL_1": 0x00000004,
    "SP_CS_PROGRAM_COUNTER_OFFSET": 0,
    "SP_CS_PVT_MEM_PARAM": 0,
    "SP_CS_CONFIG": 0x00000100,
    "SP_CS_INSTR_SIZE": 3,
    "SP_CS_PVT_MEM_STACK_OFFSET": 0,
    "SP_MODE_CNTL": 0x00000003,
    "SP_REG_PROG_ID_3": 0x0000FCFC,
    "SP_CS_CONST_CONFIG": 0x00000103,
    "SP_CS_NDRANGE_0": 0x0040307F,
    "SP_CS_NDRANGE_1": 0x60,
    "SP_CS_NDRANGE_2": 0,
    "SP_CS_NDRANGE_3": 0x14,
    "SP_CS_NDRANGE_4": 0,
    "SP_CS_NDRANGE_5": 6,
    "SP_CS_NDRANGE_6": 0,
    "SP_CS_CONST_CONFIG_0": 0x00FCFCC0,
    "SP_CS_WGE_CNTL": 0x000002FC,
    "SP_CS_KERNEL_GROUP_X": 3,
    "SP_CS_KERNEL_GROUP_Y": 5,
    "SP_CS_KERNEL_GROUP_Z": 3,
    "SP_CHICKEN_BITS": 0x00001430,
    "SP_DBG_ECO_CNTL": 0,
    "TPL1_DBG_ECO_CNTL": 0x00108000,
    "HLSQ_DBG_ECO_CNTL": 0x00080000,
    "UCHE_UNKNOWN_0E12": 0x10000001,
}
A740_LOCAL = {
    "SP_CS_CNTL_0": 0x80904200,
    "SP_CS_CNTL_1": 0x00000004,
    "SP_CS_CONFIG": 0x00000100,
    "SP_CS_INSTR_SIZE": 3,
    "SP_CS_WIE_CNTL_0": 0x00FCFCC0,
    "SP_CS_VGS_CNTL": 0,
    "SP_PS_WAVE_CNTL": 0,
    "SP_REG_PROG_ID_3": 0x0000FCFC,
    "SP_CS_CONST_CONFIG": 0x00000103,
    "SP_CS_NDRANGE_0": 0x0040307F,
    "SP_CS_NDRANGE_1": 0x60,
    "SP_CS_NDRANGE_3": 0x14,
    "SP_CS_NDRANGE_5": 6,
    "SP_CS_WGE_CNTL": 0x14400AFC,
    "SP_CS_KERNEL_GROUP_X": 3,
    "SP_CS_KERNEL_GROUP_Y": 5,
    "SP_CS_KERNEL_GROUP_Z": 3,
    "SP_CS_NDRANGE_7": 0x0040307C,
    "SP_MODE_CNTL": 0x00000003,
    "SP_DBG_ECO_CNTL": 0x10000000,
    "SP_CHICKEN_BITS_1": 0x00400400,
    "SP_CHICKEN_BITS_2": 0x00430800,
    "SP_CHICKEN_BITS_3": 0,
}
A630_PRIVATE = {
    "SP_CS_CNTL_1": 0x00000001,
    "SP_CS_PVT_MEM_PARAM": 3,
    "SP_CS_PVT_MEM_SIZE": 0x80000300,
    "SP_CS_PVT_MEM_STACK_OFFSET": 0x600,
    "SP_CS_INSTR_SIZE": 6,
    "SP_CS_NDRANGE_0": 0x0000003F,
}
A740_PRIVATE = {**A630_PRIVATE, "SP_CS_PVT_MEM_SIZE": 0x80000600, "SP_CS_PVT_MEM_STACK_OFFSET": 0xC00}

LINEAR_IMAGE = [0x18806880, 0x000A0030, 0x20010001, 0x00000003, 0xFFC0F000, 0x00020000, *[0] * 10]
"""48 x 20 texels of four half floats in rows of 512 bytes, from 0xffc0f000 on; the same on a740."""


@pytest.mark.parametrize(
    ("chip", "shader", "groups", "local", "expected"),
    [
        ("a630", LOCAL_KERNEL, (3, 5, 3), (32, 4, 2), A630_LOCAL),
        (
            "a740",
            dataclasses.replace(LOCAL_KERNEL, full_registers=4, early_preamble=True),
            (3, 5, 3),
            (32, 4, 2),
            A740_LOCAL,
        ),
        ("a630", PRIVATE_KERNEL, (4, 1, 1), (16, 1, 1), A630_PRIVATE),
        ("a740", PRIVATE_KERNEL, (4, 1, 1), (16, 1, 1), A740_PRIVATE),
    ],
)
def test_registers(chip, shader, groups, local, expected):
    gpu = fake(chip)
    gpu.shaders[shader.code[:8]] = lambda launched, memory: None
    with KgslDevice(system=gpu) as device:
        PlanStream(device, [Dispatch(shader, (), groups, local)]).run(timeout=1)
    found = gpu.launched[0].registers
    assert {name: f"{found[name]:08x}" for name in expected} == {
        name: f"{word:08x}" for name, word in expected.items()
    }


def test_packets():
    """The loads of code and of a texture, and on a740 the choice of the thread."""
    gpu = fake("a740")
    shader = dataclasses.replace(LOCAL_KERNEL, slots=SCALE.slots[:1])
    gpu.shaders[shader.code[:8]] = lambda launched, memory: None
    with KgslDevice(system=gpu) as device:
        arguments = (BufferArgument(device.allocate(64)),)
        words = PlanStream(device, [Dispatch(shader, arguments, (3, 5, 3), (32, 4, 2))]).words()
    found = {(packet.operation, packet.payload[0]) for packet in packets(words.tolist()) if packet.payload}
    assert ("LOAD_STATE6_FRAG", 0x00F60000) in found
    assert ("THREAD_CONTROL", 0x08000001) in found
    assert ("SET_MARKER", 8) in found


HEADERS = """
    400e1201 4080af01 40860001 40880101 4088e501 408e0401 408e0701 40921101 40960201
    409e7201 40a0f801 40ae0001 40ae0301 40ae0f01 40b60001 40b60501 40bb0801 40be0401
    480e1901 48960001 48980402 48ab1f01 48ae0401 48bb1101 48be0002
"""
"""Every header of a write of registers in those streams, of a618, a630, a660, a730, a740 and a750."""


@pytest.mark.parametrize("header", [int(word, 16) for word in HEADERS.split()])
def test_headers_of_register_writes(header):
    assert type4_header(header >> 8 & 0x3FFFF, header & 0x7F) == header


def test_a_linear_image():
    """Only the pitch's alignment is said otherwise: 128 bytes there (64 for a UAV), all 512 here."""

    @dataclasses.dataclass
    class Placed:
        address: int

    words = WordList()
    image(words, Address(Placed(0xFFC0F000)), 48, 20, 512, "rgba16_float")  # type: ignore[arg-type]
    assert words.words == [*LINEAR_IMAGE[:2], LINEAR_IMAGE[2] & ~15 | 3, *LINEAR_IMAGE[3:]]
    assert np.array_equal(words.array(), np.array(words.words, np.uint32))
