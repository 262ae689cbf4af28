"""Kernels for the fake GPU: what `ShaderBinary` says of each, and a Python function that stands for its code.

Also the streams whose words are committed in `golden/`: `python kgsl_kernels.py` writes those files anew.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from fake_kgsl import FakeKgsl
from pm4_decoder import Launched, View, listing

from tinyinfer.backends.qcom.kgsl import (
    Access,
    BufferArgument,
    BufferSlot,
    BufferViewSlot,
    Dispatch,
    ImageArgument,
    ImageRules,
    ImageSlot,
    KgslDevice,
    Launch,
    PlanStream,
    ScalarArgument,
    ScalarSlot,
    ShaderBinary,
    StorageImageSlot,
    SystemValues,
)
from tinyinfer.backends.qcom.kgsl.shader import VENDOR_SYSTEM_VALUES

GOLDEN = Path(__file__).parent / "golden"
CHIPS = {"a630": 0x06030001, "a660": 0x06060001, "a610": 0x06010000, "a740": 0x43050A01}

SCALE = ShaderBinary(
    name="scale",
    code=b"SCALE\0\0\0" * 20,
    full_registers=5,
    half_registers=3,
    constants=6,
    slots=(BufferSlot(16), BufferSlot(24), ScalarSlot(32, 4), ScalarSlot(36, 4)),
    immediates=((80, struct.pack("<f", 0.5)),),
    branch_stack=2,
    local_bytes=5000,
    system_values=SystemValues(work_group_id=0x40, local_id=0x00),
    group_count_offset=48,
    local_size_offset=64,
)
"""out[i] = x[i] * factor + 0.5 for i < n; the grid is one-dimensional."""

TRANSPOSE = ShaderBinary(
    name="transpose",
    code=b"TRANSP\0\0" * 200,
    full_registers=9,
    half_registers=0,
    constants=0,
    slots=(StorageImageSlot(0), ImageSlot(0)),
    samplers=1,
    private_bytes=700,
    double_wave=True,
    image_rules=ImageRules.OPENGL,
    system_values=SystemValues(work_group_id=0x40, local_id=0x04),
)
"""out[x, y] = image[y, x], texels of four components; a work-item for each texel."""

VENDOR_SCALE = ShaderBinary(
    name="vendor_scale",
    code=b"VENDOR\0\0" * 16,
    full_registers=4,
    half_registers=2,
    merged_registers=False,
    constants=12,
    slots=(BufferSlot(0), BufferSlot(16), ScalarSlot(32, 4), ScalarSlot(48, 4)),
    immediates=((80, struct.pack("<f", 0.5)),),
    system_values=VENDOR_SYSTEM_VALUES,
    launch=Launch.RUN_OPENCL,
)

REVERSE = ShaderBinary(
    name="reverse",
    code=b"REVERSE\0",
    full_registers=2,
    half_registers=0,
    constants=0,
    slots=(BufferViewSlot(0, "r32_float"), BufferViewSlot(1, "r32_float")),
)
"""out[i] = x[n - 1 - i], both reached through descriptors."""


def run_scale(launched: Launched, gpu: FakeKgsl) -> None:
    out, x = struct.unpack_from("<QQ", launched.constants, 16)
    count, factor = struct.unpack_from("<If", launched.constants, 32)
    assert struct.unpack_from("<III", launched.constants, 48) == launched.groups
    assert struct.unpack_from("<III", launched.constants, 64) == launched.local
    _scale(launched, gpu, out, x, count, factor)


def run_vendor_scale(launched: Launched, gpu: FakeKgsl) -> None:
    out, x = (struct.unpack_from("<Q", launched.constants, offset)[0] for offset in (0, 16))
    (count,), (factor,) = (struct.unpack_from(f, launched.constants, o) for f, o in (("<I", 32), ("<f", 48)))
    _scale(launched, gpu, out, x, count, factor)


def _scale(launched: Launched, gpu: FakeKgsl, out: int, x: int, count: int, factor: float) -> None:
    (added,) = struct.unpack_from("<f", launched.constants, 80)
    items = launched.groups[0] * launched.local[0]
    assert launched.groups[1:] == launched.local[1:] == (1, 1) and items - launched.local[0] < count <= items
    values = np.frombuffer(gpu.read(x, 4 * count), np.float32)
    gpu.write(out, (values * np.float32(factor) + np.float32(added)).astype(np.float32).tobytes())


def run_transpose(launched: Launched, gpu: FakeKgsl) -> None:
    (out,), (image,) = launched.uavs, launched.textures
    assert (out.width, out.height, out.texel_bytes) == (image.height, image.width, image.texel_bytes)
    assert launched.samplers == 1
    for x in range(out.width):
        for y in range(out.height):
            gpu.write(_texel(out, x, y), gpu.read(_texel(image, y, x), image.texel_bytes))


def run_reverse(launched: Launched, gpu: FakeKgsl) -> None:
    out, x = launched.uavs
    values = np.frombuffer(gpu.read(x.address, x.width * 4), np.float32)
    assert out.kind == x.kind == "buffer" and out.width == x.width
    gpu.write(out.address, values[::-1].tobytes())


def _texel(view: View, x: int, y: int) -> int:
    return view.address + y * view.pitch + x * view.texel_bytes


def fake(chip: str = "a630", **options) -> FakeKgsl:
    """A fake GPU that knows the kernels of this module."""
    gpu = FakeKgsl(CHIPS[chip], **options)
    for shader, function in (
        (SCALE, run_scale),
        (TRANSPOSE, run_transpose),
        (VENDOR_SCALE, run_vendor_scale),
        (REVERSE, run_reverse),
    ):
        gpu.shaders[shader.code[:8]] = function
    return gpu


def scale(
    out, x, count: int, factor: float, shader: ShaderBinary = SCALE, at: int = 0, local: int = 32
) -> Dispatch:
    """A dispatch of SCALE from floats at byte `at` of x to the same place of out."""
    return Dispatch(
        shader,
        (
            BufferArgument(out, at, count * 4, Access.WRITE),
            BufferArgument(x, at, count * 4, Access.READ),
            ScalarArgument(np.uint32(count)),
            ScalarArgument(np.float32(factor)),
        ),
        (-(-count // local), 1, 1),
        (local, 1, 1),
    )


def transpose(out, image, width: int, height: int, format_name: str = "rgba16_float") -> Dispatch:
    """A dispatch of TRANSPOSE; both images have rows of 4096 bytes and `image` is `width` by `height`."""
    return Dispatch(
        TRANSPOSE,
        (
            ImageArgument(out, 0, height, width, 4096, format_name, Access.WRITE),
            ImageArgument(image, 0, width, height, 4096, format_name, Access.READ),
        ),
        (height, width, 1),
        (1, 1, 1),
    )


def golden_stream(chip: str) -> tuple[list[int], int]:
    """The words and the generation of the committed stream for a GPU."""
    gpu = fake(chip)
    with KgslDevice(system=gpu) as device:
        x, y, z = (device.allocate(1 << 16) for _ in range(3))
        first = VENDOR_SCALE if chip == "a630" else SCALE
        dispatches = [scale(y, x, 100, 2.0, first), scale(z, y, 100, 3.0)]
        if device.gpu.facts.double_waves:
            dispatches.append(transpose(x, z, 16, 8))
        stream = PlanStream(device, dispatches, profile=chip == "a740")
        return [int(word) for word in stream.words()], device.gpu.generation


if __name__ == "__main__":
    for name in CHIPS:
        (GOLDEN / f"{name}.txt").write_text(listing(*golden_stream(name)), encoding="utf-8")
