"""Halo kernels write their regions and nothing else."""

import ctypes

import numpy as np
import pytest

from tinyinfer.backends.cpu.compile import link_sources
from tinyinfer.backends.cpu.device import ATTRIBUTES
from tinyinfer.backends.cpu.llvm_halo import print_halo
from tinyinfer.backends.cpu.loader import map_image
from tinyinfer.backends.cpu.target import host_target
from tinyinfer.ir import build
from tinyinfer.kernels.halo import halo_regions
from tinyinfer.kernels.layout import Buffer
from tinyinfer.runtime.plan import KernelSource


@pytest.mark.parametrize(
    "dtype, fill",
    [
        ("float32", 0.0),
        ("float32", -np.inf),
        ("float16", 1.5),
        ("float64", 2.0),
        ("bool", True),
        ("int8", -128),
        ("uint8", 255),
    ],
)
@pytest.mark.parametrize("order", [(0, 2, 3, 1), (0, 1, 2, 3)])
def test_the_halo_is_filled_and_the_inside_untouched(dtype, fill, order):
    buffer = Buffer(build.input_node("x", (2, 3, 4, 5), dtype), "arena", order)
    buffer.halo = [[0, 0], [0, 0], [1, 2], [2, 0]]
    buffer.place()
    target = host_target()
    text = f"{print_halo('fill', tuple(halo_regions(buffer)), dtype, fill, target.lanes)}\n{ATTRIBUTES}\n"
    loaded = map_image(link_sources({"fill": KernelSource("fill", "fill", lambda: text)}, target))
    memory = np.zeros(buffer.elements + 64, dtype)
    memory[:] = 77 if dtype != "bool" else False
    before = memory.copy()
    argument = (ctypes.c_void_p * 1)(memory.ctypes.data)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(loaded.addresses["fill"])(
        ctypes.addressof(argument), 0
    )
    steps = [s * memory.itemsize for s in buffer.strides]
    inside = np.lib.stride_tricks.as_strided(memory[buffer.offset :], (2, 3, 4, 5), steps)
    assert (inside == before[0]).all()
    start = buffer.offset - buffer.strides[2] - 2 * buffer.strides[3]
    whole = np.lib.stride_tricks.as_strided(memory[start:], (2, 3, 7, 7), steps).copy()
    np.testing.assert_array_equal(whole[:, :, 0], np.full((2, 3, 7), fill, dtype))
    np.testing.assert_array_equal(whole[:, :, 5:], np.full((2, 3, 2, 7), fill, dtype))
    np.testing.assert_array_equal(whole[:, :, :, :2], np.full((2, 3, 7, 2), fill, dtype))
    np.testing.assert_array_equal(memory[buffer.elements :], before[buffer.elements :])
