"""The device against a fake kernel: layouts, memory, waits, and failures in words."""

from __future__ import annotations

import ctypes
import errno
import os
import sys

import numpy as np
import pytest
from kgsl_kernels import fake, scale

from tinyinfer.backends.qcom.kgsl import (
    Cache,
    GpuFault,
    KgslDevice,
    KgslError,
    KgslTimeout,
    PlanStream,
    abi,
    unavailable_reason,
)

only_64_bit = pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="numbers of a 64-bit process")


@only_64_bit
def test_request_numbers():
    """What `_IOWR` and `_IOW` make of the header's structures on a 64-bit Linux."""
    assert [
        request.code
        for request in (
            abi.GET_PROPERTY,
            abi.SET_PROPERTY,
            abi.WAIT_TIMESTAMP,
            abi.READ_TIMESTAMP,
            abi.CONTEXT_CREATE,
            abi.CONTEXT_DESTROY,
            abi.OBJECT_ALLOCATE,
            abi.OBJECT_FREE,
            abi.OBJECT_INFO,
            abi.OBJECT_IMPORT,
            abi.OBJECT_SYNC,
            abi.GPU_COMMAND,
        )
    ] == [
        0xC0180902,
        0x40180932,
        0x400C0907,
        0xC00C0916,
        0xC0080913,
        0x40040914,
        0xC0300945,
        0x40200946,
        0xC0300947,
        0xC0200948,
        0x40100949,
        0xC040094A,
    ]


def test_open_and_close():
    gpu = fake("a740", model="Adreno740v2")
    with KgslDevice(system=gpu, priority=3, full_clock=True) as device:
        assert device.capabilities.chip_id == 0x43050A01
        assert (device.gpu.name, device.capabilities.model) == ("a740", "Adreno740v2")
        assert device.capabilities.gmem_bytes == 1 << 20
        flags = gpu.contexts[1].flags
        assert flags >> 12 & 15 == 3 and flags >> 20 & 31 == 2
        assert gpu.power_level == 1
        device.allocate(10)
    assert not gpu.open_files and not gpu.contexts and not gpu.objects
    device.close()


def test_a_driver_that_tells_no_model():
    with KgslDevice(system=fake(model=None)) as device:
        assert device.capabilities.model is None


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOENT, "there is no /dev/kgsl-3d0: this machine has no Adreno GPU"),
        (errno.EACCES, "no permission to open /dev/kgsl-3d0"),
        (errno.ENODEV, "/dev/kgsl-3d0 is there, but its GPU is not"),
        (errno.EMFILE, "cannot be opened: Too many open files"),
    ],
)
def test_why_it_cannot_be_opened(code, words):
    gpu = fake()
    gpu.open_error = code
    reason = unavailable_reason(system=gpu)
    assert reason is not None and words in reason


def test_availability():
    gpu = fake()
    assert unavailable_reason(system=gpu) is None
    gpu.chip_id = 0x44050001
    reason = unavailable_reason(system=gpu)
    assert reason is not None and "chip id 0x44050001" in reason and "a630" in reason
    gpu.failures["DRAWCTXT_CREATE"] = [errno.ENOMEM]
    gpu.chip_id = 0x06030001
    assert unavailable_reason(system=gpu) == "KGSL DRAWCTXT_CREATE: no memory left for the GPU (ENOMEM)"
    assert not gpu.open_files


@pytest.mark.skipif(
    sys.platform != "linux" or os.path.exists(abi.PATH), reason="no Linux without this device"
)
def test_this_machine_says_that_it_has_none():
    reason = unavailable_reason()
    assert reason is not None and reason.startswith("there is no /dev/kgsl-3d0")


def test_other_systems(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert unavailable_reason() == "KGSL is a driver of Linux and Android; this is darwin"


def test_allocation():
    gpu = fake()
    with KgslDevice(system=gpu) as device:
        buffer = device.allocate(5000, Cache.WRITE_COMBINED, gpu_read_only=True)
        item = gpu.objects[buffer.id]
        assert (buffer.address, buffer.size) == (item.address, 8192) and buffer.coherent
        assert item.flags == 1 << 24 | 12 << 16
        buffer.view(4096, (2, 3), np.int16)[:] = [[1, 2, 3], [4, 5, 6]]
        assert gpu.read(buffer.address + 4096, 12) == bytes([1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0])
        with pytest.raises(KgslError, match="outside of a buffer of 8192"):
            buffer.view(8190, (2,), np.int16)
        with pytest.raises(KgslError, match="at least one byte"):
            device.allocate(0)
        buffer.close()
        buffer.close()
        with pytest.raises(KgslError, match="the buffer is closed"):
            buffer.view(0, (1,), np.uint8)
        assert not gpu.objects
        gpu.failures["GPUOBJ_INFO"] = [errno.EINVAL]
        with pytest.raises(KgslError, match="KGSL GPUOBJ_INFO: the driver refuses the argument"):
            device.allocate(1)
        assert not gpu.objects


def test_caches_are_synchronised_where_the_system_is_not_coherent():
    for coherent in (True, False):
        gpu = fake(coherent=coherent)
        with KgslDevice(system=gpu) as device:
            written, cached = device.allocate(1, Cache.WRITE_COMBINED), device.allocate(1, Cache.CACHED)
            assert written.coherent and cached.coherent is coherent
            for buffer in (written, cached):
                buffer.sync_to_gpu()
                buffer.sync_from_gpu(64, 128)
            expected = (
                [] if coherent else [(cached.id, 0, 4096, 1 << 31 | 1), (cached.id, 64, 128, 1 << 31 | 2)]
            )
            assert gpu.syncs == expected


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memfd to stand for a dmabuf")
def test_dmabuf_import():
    gpu = fake()
    descriptor = os.memfd_create("picture")
    os.write(descriptor, np.arange(1024, dtype=np.float32).tobytes())
    try:
        with KgslDevice(system=gpu) as device:
            picture, out = device.import_dmabuf(descriptor), device.allocate(4096)
            PlanStream(device, [scale(out, picture, 1024, 2.0)]).run(timeout=1)
            assert np.array_equal(out.view(0, (1024,), np.float32), np.arange(1024) * 2 + np.float32(0.5))
            with pytest.raises(KgslError, match="no view for the CPU"):
                picture.view(0, (1,), np.uint8)
            picture.sync_to_gpu()
        assert not gpu.syncs
        with KgslDevice(system=gpu) as device, pytest.raises(KgslError, match="GPUOBJ_IMPORT"):
            device.import_dmabuf(-1)
    finally:
        os.close(descriptor)


def plan(device):
    x, y = device.allocate(4096), device.allocate(4096)
    return PlanStream(device, [scale(y, x, 100, 2.0)])


def test_waits():
    gpu = fake()
    gpu.first_timestamp = (1 << 32) - 2
    with KgslDevice(system=gpu) as device:
        stream = plan(device)
        first = stream.submit()
        assert first == (1 << 32) - 1
        stream.wait(timeout=1)
        gpu.hold = True
        second = stream.submit()
        assert second == 0 and device.reached(first) and not device.reached(second)
        with pytest.raises(KgslTimeout, match="did not finish in 0.01 seconds"):
            stream.wait(timeout=0.01)
        with pytest.raises(KgslTimeout):
            stream.wait(second, timeout=0)
        gpu.finish()
        stream.wait(second, timeout=0)
        device.wait(first)


def test_interrupted_calls_are_repeated():
    gpu = fake()
    with KgslDevice(system=gpu) as device:
        stream = plan(device)
        gpu.failures = {
            "GPU_COMMAND": [errno.EINTR, errno.EAGAIN],
            "DEVICE_WAITTIMESTAMP_CTXTID": [errno.EINTR, errno.ETIMEDOUT, errno.EAGAIN],
        }
        stream.run()
        assert gpu.calls.count("GPU_COMMAND") == 3 and len(gpu.streams) == 1
        assert gpu.calls.count("DEVICE_WAITTIMESTAMP_CTXTID") == 4


def test_faults_and_failures_name_the_call():
    gpu = fake()
    with KgslDevice(system=gpu) as device:
        stream = plan(device)
        gpu.failures = {"DEVICE_WAITTIMESTAMP_CTXTID": [errno.EPROTO, errno.EINVAL, errno.EIO]}
        with pytest.raises(GpuFault, match="KGSL DEVICE_WAITTIMESTAMP_CTXTID: the GPU faulted"):
            stream.run()
        with pytest.raises(KgslError, match="the driver refuses the argument .EINVAL"):
            stream.wait()
        with pytest.raises(KgslError, match="DEVICE_WAITTIMESTAMP_CTXTID: Input/output error .EIO"):
            stream.wait()
        with pytest.raises(KgslError, match="a command stream of 6 bytes"):
            device.submit(device.allocate(64), 6)


def test_a_stream_that_touches_freed_memory_faults():
    gpu = fake()
    with KgslDevice(system=gpu) as device:
        x, y = device.allocate(4096), device.allocate(4096)
        stream = PlanStream(device, [scale(y, x, 100, 2.0)])
        x.close()
        with pytest.raises(GpuFault):
            stream.run(timeout=1)
        assert "are nobody's" in gpu.fault
        with pytest.raises(GpuFault, match="GPU_COMMAND"):
            stream.submit()


def test_a_priority_is_checked():
    with pytest.raises(KgslError, match="1 to 15, not 16"):
        KgslDevice(system=fake(), priority=16)
