"""Plans as streams: what arrives at the GPU, when it waits, and what does not fit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from kgsl_kernels import CHIPS, REVERSE, SCALE, TRANSPOSE, VENDOR_SCALE, fake, scale, transpose

from tinyinfer.backends.qcom.kgsl import (
    Access,
    BufferArgument,
    Dispatch,
    ImageArgument,
    ImageSlot,
    KgslDevice,
    KgslError,
    PlanStream,
    ScalarArgument,
    ShaderBinary,
)

HALF = np.float32(0.5)


@pytest.fixture(params=CHIPS)
def gpu(request):
    return fake(request.param)


@pytest.fixture
def device(gpu):
    with KgslDevice(system=gpu) as opened:
        yield opened


def floats(buffer, count, offset=0):
    return buffer.view(offset, (count,), np.float32)


def test_two_kernels_in_a_chain(gpu, device):
    x, y, z = (device.allocate(4096) for _ in range(3))
    stream = PlanStream(device, [scale(y, x, 1000, 2.0), scale(z, y, 1000, 3.0)])
    for seed in range(2):
        values = np.random.default_rng(seed).random(1000, dtype=np.float32)
        floats(x, 1000)[:] = values
        stream.run(timeout=1)
        assert np.array_equal(floats(z, 1000), (values * 2 + HALF) * 3 + HALF)
    assert gpu.streams[0] == gpu.streams[1] == list(stream.words())
    first, second = gpu.launched[:2]
    assert (first.groups, first.local) == ((32, 1, 1), (32, 1, 1))
    assert (first.full_registers, first.half_registers, first.local_kib) == (5, 3, 5)
    assert first.packet == "EXEC_CS" and first.isam_mode == 1 and second.waited


def test_system_values_and_wave_size(gpu, device):
    x, y = device.allocate(4096), device.allocate(4096)
    PlanStream(device, [scale(y, x, 100, 2.0)]).run()
    registers = gpu.launched[0].registers
    places = registers["SP_CS_WIE_CNTL_0" if device.gpu.generation == 7 else "SP_CS_CONST_CONFIG_0"]
    assert places == 0x00FCFC40
    assert registers["SP_CS_WGE_CNTL"] & 0x2FF == (0xFC if device.gpu.facts.double_waves else 0x2FC)
    assert ("HLSQ_CS_CTRL_REG1" in registers) == (device.gpu.name == "a660")


@pytest.mark.parametrize("format_name", ["rgba16_float", "rgba32_float", "r32_float"])
def test_images(format_name):
    gpu = fake("a740" if format_name == "r32_float" else "a630")
    with KgslDevice(system=gpu) as device:
        image, out = device.allocate(1 << 16), device.allocate(1 << 16)
        dtype = np.float16 if "16" in format_name else np.float32
        channels = 4 if "rgba" in format_name else 1
        texels = np.random.default_rng(0).random((5, 7, channels)).astype(dtype)
        rows = image.view(0, (5, 4096), np.uint8)
        rows[:, : texels[0].nbytes] = texels.view(np.uint8).reshape(5, -1)
        PlanStream(device, [transpose(out, image, 7, 5, format_name)]).run()
        found = out.view(0, (7, 4096), np.uint8)[:, : 5 * texels[0, 0].nbytes].copy().view(dtype)
        assert np.array_equal(found.reshape(7, 5, channels), texels.transpose(1, 0, 2))
        launched = gpu.launched[0]
        assert launched.textures[0].swizzle == ((0, 1, 2, 3) if channels == 4 else (0, 4, 4, 5))
        assert launched.double_wave and launched.groups == (5, 7, 1) and launched.isam_mode == 2
        address, item, processor = launched.private
        assert item == 1024 and processor == 1024 * device.gpu.items_per_processor
        assert gpu.find(address, processor * device.gpu.facts.shader_processors)


def test_code_longer_than_the_cache_is_loaded_in_part():
    gpu = fake("a630")
    with KgslDevice(system=gpu) as device:
        x, y = device.allocate(4096), device.allocate(4096)
        shader = dataclasses.replace(SCALE, code=SCALE.code[:8] * 16 * 70)
        PlanStream(device, [scale(y, x, 8, 1.0, shader)]).run()
        assert len(gpu.launched[0].code) == 70 * 128
        assert gpu.launched[0].registers["SP_PS_INSTR_SIZE"] == 70


def test_buffer_views_begin_anywhere(device):
    x, y = device.allocate(4096), device.allocate(4096)
    floats(x, 10, 100)[:] = np.arange(10)
    arguments = (BufferArgument(y, 12, 40, Access.WRITE), BufferArgument(x, 100, 40, Access.READ))
    PlanStream(device, [Dispatch(REVERSE, arguments, (1, 1, 1), (1, 1, 1))]).run()
    assert np.array_equal(floats(y, 10, 12), np.arange(10)[::-1])
    assert not floats(y, 3).any() and not floats(y, 10, 52).any()


def test_code_of_the_vendors_compiler():
    gpu = fake("a630")
    with KgslDevice(system=gpu) as device:
        x, y, z = (device.allocate(4096) for _ in range(3))
        floats(x, 500)[:] = np.arange(500)
        PlanStream(device, [scale(y, x, 500, 2.0, VENDOR_SCALE), scale(z, y, 500, 1.0)]).run()
        assert np.array_equal(floats(z, 500), np.arange(500) * 2 + 1)
        vendor, own = gpu.launched
        assert (vendor.packet, vendor.isam_mode, own.packet, own.isam_mode) == ("RUN_OPENCL", 1, "EXEC_CS", 1)
        assert (vendor.registers["SP_MODE_CNTL"], own.registers["SP_MODE_CNTL"]) == (2, 3)
        assert vendor.registers["SP_CS_CONST_CONFIG_0"] == 0x00CCC0CF
    with KgslDevice(system=fake("a740")) as device:
        x, y = device.allocate(4096), device.allocate(4096)
        with pytest.raises(ValueError, match="vendor_scale on a740: .* known for a6xx only"):
            PlanStream(device, [scale(y, x, 500, 2.0, VENDOR_SCALE)])


def test_only_dependent_dispatches_wait(gpu, device):
    x, y, z = (device.allocate(8192) for _ in range(3))
    half = 4096
    dispatches = [
        scale(y, x, 1000, 1.0),
        scale(y, x, 1000, 2.0, at=half),  # another part of y
        scale(z, x, 1000, 3.0),
        scale(z, y, 1000, 4.0),  # writes what the third writes, reads what the first writes
        scale(x, y, 1000, 5.0, at=half),  # reads y like the one before it: nobody writes since
        scale(y, z, 10, 6.0),  # writes where the fourth reads
    ]
    PlanStream(device, dispatches).run()
    assert [launched.waited for launched in gpu.launched] == [False, False, False, True, False, True]


def test_each_code_is_stored_once(gpu, device):
    x, y, z = (device.allocate(4096) for _ in range(3))
    PlanStream(device, [scale(y, x, 10, 1.0), scale(z, x, 10, 1.0)]).run()
    first, second = (launched.registers for launched in gpu.launched)
    assert first["SP_CS_BASE.lo"] == second["SP_CS_BASE.lo"]


def test_profile(gpu, device):
    x, y, z = (device.allocate(4096) for _ in range(3))
    dispatches = [scale(y, x, 10, 1.0), scale(z, x, 10, 1.0)]
    stream = PlanStream(device, dispatches, profile=True)
    stream.run()
    seconds = stream.seconds()
    assert len(seconds) == 2 and all(0 < value < 1e-4 for value in seconds)
    with pytest.raises(KgslError, match="without profile=True"):
        PlanStream(device, dispatches).seconds()


def test_rebind(gpu, device):
    x, other, y = (device.allocate(4096) for _ in range(3))
    floats(x, 10)[:], floats(other, 10)[:] = 1, 2
    stream = PlanStream(device, [scale(y, x, 10, 4.0)])
    for buffer, previous in ((other, x), (x, other)):
        stream.rebind(previous, buffer)
        stream.run()
        assert floats(y, 10)[0] == floats(buffer, 1)[0] * 4 + HALF
    gpu.hold = True
    stream.submit()
    with pytest.raises(KgslError, match="still running"):
        stream.rebind(x, other)
    gpu.finish()
    for old, new in ((other, device.allocate(4096)), (x, y), (x, x)):
        with pytest.raises(
            ValueError, match="a buffer that the plan's arguments name, and one that none names"
        ):
            stream.rebind(old, new)


def test_what_rebind_refuses(device):
    x, y = device.allocate(8192), device.allocate(8192)
    stream = PlanStream(device, [scale(y, x, 10, 4.0)])
    with pytest.raises(ValueError, match="4096 bytes instead of one of 8192"):
        stream.rebind(x, device.allocate(4096))
    with pytest.raises(KgslError, match="the plan was not submitted"):
        stream.wait()


def test_rebind_of_an_image():
    gpu = fake("a660")
    with KgslDevice(system=gpu) as device:
        image, other, out = (device.allocate(1 << 16) for _ in range(3))
        other.view(0, (4,), np.float16)[:] = [1, 2, 3, 4]
        stream = PlanStream(device, [transpose(out, image, 1, 1)])
        stream.rebind(image, other)
        stream.run()
        assert list(out.view(0, (4,), np.float16)) == [1, 2, 3, 4]


def test_closing_frees_what_the_stream_allocated(gpu, device):
    x, y = device.allocate(4096), device.allocate(4096)
    stream = PlanStream(device, [scale(y, x, 10, 4.0)])
    assert len(gpu.objects) == 6
    stream.close()
    assert set(gpu.objects) == {x.id, y.id}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a, b: (a,), "kernel transpose takes 2 arguments, not 1"),
        (
            lambda a, b: (a, ScalarArgument(b"1234")),
            "argument 1: ImageSlot takes a ImageArgument, not ScalarArgument",
        ),
        (
            lambda a, b: (a, dataclasses.replace(b, access=Access.READ_WRITE)),
            "argument 1: a texture is only read",
        ),
        (lambda a, b: (a, dataclasses.replace(b, height=17)), "argument 1: bytes 0 to 69632 are outside"),
        (lambda a, b: (a, dataclasses.replace(b, width=16385)), "16385 x 8 texels, the GPU takes 1 to 16384"),
        (lambda a, b: (a, dataclasses.replace(b, width=513)), "a pitch that holds them"),
        (lambda a, b: (a, dataclasses.replace(b, pitch=4000)), "multiple of 64, not 4000"),
        (lambda a, b: (a, dataclasses.replace(b, offset=32)), "begins at a multiple of 64 bytes"),
        (lambda a, b: (a, dataclasses.replace(b, format_name="rgb")), "unknown image format 'rgb'"),
    ],
)
def test_images_that_do_not_fit(change, words):
    with KgslDevice(system=fake("a630")) as device:
        out, image = device.allocate(1 << 16), device.allocate(1 << 16)
        good = transpose(out, image, 16, 8)
        with pytest.raises(ValueError, match=words):
            PlanStream(device, [dataclasses.replace(good, arguments=change(*good.arguments))])
        assert len(device._buffers) == 2


def test_arguments_that_do_not_fit(device):
    x, y = device.allocate(4096), device.allocate(4096)
    good = scale(y, x, 10, 1.0)
    out, source, count, factor = good.arguments
    for arguments, words in [
        ((out, source, count, ScalarArgument(np.float64(1))), "scale, argument 3: 8 bytes for a number of 4"),
        ((out, BufferArgument(x, 4096), count, factor), "argument 1: bytes 4096 to 4096 are outside"),
        (
            (ImageArgument(y, 0, 1, 1, 64), source, count, factor),
            "argument 0: BufferSlot takes a BufferArgument",
        ),
    ]:
        with pytest.raises(ValueError, match=words):
            PlanStream(device, [dataclasses.replace(good, arguments=arguments)])
    view = Dispatch(REVERSE, (BufferArgument(y, 2, 4), BufferArgument(x, 0, 4)), (1, 1, 1), (1, 1, 1))
    with pytest.raises(ValueError, match="a view of r32_float begins and ends at multiples of 4"):
        PlanStream(device, [view])
    with pytest.raises(ValueError, match="no dispatches"):
        PlanStream(device, [])


def test_launches_that_the_gpu_cannot_start():
    with KgslDevice(system=fake("a610")) as device:
        x, y = device.allocate(1 << 16), device.allocate(1 << 16)
        good = scale(y, x, 10, 1.0)
        for change, words in [
            (
                {"local": (1024, 1, 1)},
                "scale on a610: a work-group of 1024 items; with 5 registers it has up to 614",
            ),
            ({"groups": (0, 1, 1)}, r"a grid of \(0, 1, 1\) work-groups"),
            (
                {"shader": dataclasses.replace(SCALE, local_bytes=20000)},
                "20000 bytes of local memory, the GPU has 16384",
            ),
            ({"shader": dataclasses.replace(SCALE, double_wave=True)}, "which this GPU does not have"),
            (
                {"shader": dataclasses.replace(SCALE, full_registers=24), "local": (512, 1, 1)},
                "has up to 128",
            ),
        ]:
            with pytest.raises(ValueError, match=words):
                PlanStream(device, [dataclasses.replace(good, **change)])
        with pytest.raises(ValueError, match="transpose on a610: compiled for double waves"):
            PlanStream(device, [transpose(y, x, 4, 4)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"code": b"1234"}, "4 bytes of code"),
        ({"constants": 513}, "513 constant vectors of at most 512"),
        ({"constants": 2}, "kernel scale: an immediate at byte 80 is outside of its 2 constant vectors"),
        ({"group_count_offset": 50}, "the group count at byte 50"),
        ({"slots": (ImageSlot(1),)}, r"ImageSlot numbers \[1\] are not 0, 1, 2"),
    ],
)
def test_binaries_that_contradict_themselves(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SCALE, **change)


def test_registers_of_a_work_item():
    assert SCALE.registers == 5 and VENDOR_SCALE.registers == 5 and TRANSPOSE.registers == 9
    packed = ShaderBinary("k", b"12345678", full_registers=1, half_registers=9, constants=0, slots=())
    assert packed.registers == 5
