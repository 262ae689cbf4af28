"""How feeds get to a device and results back: wrapped, mapped or through locked memory, and dmabufs."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from compiled import graph_of

import tinyinfer
from tinyinfer.backends.clike.item_printer import ItemPrinter
from tinyinfer.backends.opencl.executable import OpenclExecutable
from tinyinfer.config import CompileOptions
from tinyinfer.ir import build
from tinyinfer.kernels.plan import build_plan

ACCESS = {"wrap": (True, False), "map": (True, True), "pin": (False, True)}
"""shared_memory and is_gpu of devices that have each way."""


def made(device, access, shape=(3, 32)):
    """y = x * 2 and z = sum(x), an input and two outputs."""
    x = build.input_node("x", shape, "float32")
    y, z = build.elementwise("ADD", x, x), build.reduce("SUM", x, (1,))
    shared, is_gpu = ACCESS[access]
    capabilities = replace(device.capabilities, shared_memory=shared, is_gpu=is_gpu)
    assert capabilities.host_access == access
    plan = build_plan(graph_of(y, z), ItemPrinter(capabilities.model()), CompileOptions())
    return OpenclExecutable(plan, device.context(), capabilities)


def shifted(array, shift):
    """A copy that begins `shift` bytes after a multiple of 16, and may only be read."""
    raw = np.empty(array.nbytes + 64, np.uint8)
    start = -raw.__array_interface__["data"][0] % 16 + shift
    view = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    view.flags.writeable = False
    return view


@pytest.mark.parametrize("access", ACCESS)
@pytest.mark.parametrize("shift", [0, 4])
def test_each_way_brings_the_same_and_keeps_earlier_results(access, shift, opencl):
    executable = made(opencl, access)
    x = np.arange(96, dtype=np.float32).reshape(3, 32)
    first = executable.run([shifted(x, shift)])
    kept = [array.copy() for array in first]
    second = executable.run([shifted(x + 1, shift)])
    for array, copy in zip(first, kept):
        np.testing.assert_array_equal(array, copy)
    np.testing.assert_array_equal(kept[0], 2 * x)
    np.testing.assert_array_equal(second[0], 2 * x + 2)
    np.testing.assert_array_equal(second[1].reshape(-1), x.sum(axis=1) + 32)
    used = executable._transfers
    assert (("input", 0) in used._buffers) == (access != "wrap" or shift != 0)
    assert (("output", 1) in used._pinned) == (access == "pin")
    executable.close()


@pytest.mark.parametrize("access", ACCESS)
def test_values_without_elements_are_brought_too(access, opencl):
    results = made(opencl, access, (0, 32)).run([np.empty((0, 32), np.float32)])
    assert results[0].shape == (0, 32)


# ---- dmabufs


@pytest.fixture
def file():
    """A descriptor of memory as a camera's, with 8192 bytes."""
    descriptor = os.memfd_create("frame")
    os.ftruncate(descriptor, 8192)
    yield descriptor
    os.close(descriptor)


def test_a_dma_buffer_is_an_array_of_its_memory(file):
    array = tinyinfer.dma_buffer(file, (3, 32), "float32", offset=4096)
    os.pwrite(file, np.arange(96, dtype=np.float32).tobytes(), 4096)
    with array.reading():
        np.testing.assert_array_equal(array.reshape(-1), np.arange(96))
    assert array.offset == 4096 and array.memory.size == 8192
    # what is elsewhere, or only a part, is no longer the memory that a device may import
    for other in (array[1:], array + 1, array.reshape(-1), array.copy(), np.asarray(array)):
        assert getattr(other, "memory", None) is None


def test_memory_that_may_only_be_read_is_taken_too(file):
    path = f"/proc/self/fd/{file}"
    descriptor = os.open(path, os.O_RDONLY)
    array = tinyinfer.dma_buffer(descriptor, (8,), "uint8")
    os.close(descriptor)
    os.pwrite(file, b"12345678", 0)
    assert bytes(array) == b"12345678"


def test_what_is_no_memory_or_too_short_is_an_error(file):
    with pytest.raises(tinyinfer.InvalidArgument, match="4 bytes at 8190 do not lie within the 8192"):
        tinyinfer.dma_buffer(file, (4,), "uint8", offset=8190)
    with pytest.raises(tinyinfer.InvalidArgument, match="999 is no open file"):
        tinyinfer.dma_buffer(999, (4,), "uint8")
    reader, writer = os.pipe()
    with pytest.raises(tinyinfer.InvalidArgument, match="cannot be mapped"):
        tinyinfer.dma_buffer(reader, (4,), "uint8")
    os.close(reader), os.close(writer)


@pytest.mark.parametrize("access", ACCESS)
def test_a_dma_buffer_is_fed_like_any_array(access, opencl, file):
    executable = made(opencl, access)
    frame = tinyinfer.dma_buffer(file, (3, 32), "float32")
    for start in (0, 5):
        x = np.arange(start, start + 96, dtype=np.float32).reshape(3, 32)
        os.pwrite(file, x.tobytes(), 0)
        np.testing.assert_array_equal(executable.run([frame])[0], 2 * x)


def test_a_session_takes_it(file):
    model = os.path.join(os.path.dirname(tinyinfer.__file__), "..", "models", "digits", "digits.onnx")
    session = tinyinfer.InferenceSession(model, providers=["CPU"])
    spec = session.get_inputs()[0]
    shape = tuple(d if isinstance(d, int) else 1 for d in spec.shape)
    x = np.random.default_rng(0).random(shape, np.float32)
    os.ftruncate(file, max(8192, x.nbytes))
    os.pwrite(file, x.tobytes(), 0)
    frame = tinyinfer.dma_buffer(file, shape, "float32")
    got, wanted = (session.run(None, {spec.name: feed})[0] for feed in (frame, x))
    np.testing.assert_array_equal(got, wanted)
