"""The executor's text for other machines, and the pieces under it."""

import numpy as np
import pytest

from tinyinfer.backends.cpu.compile import assembly
from tinyinfer.backends.cpu.driver import ENTRIES, driver_text
from tinyinfer.backends.cpu.system import Block
from tinyinfer.backends.cpu.tables import array_data_offset
from tinyinfer.backends.cpu.target import named_target
from tinyinfer.backends.cpu.threads import Workers, default_threads


@pytest.mark.parametrize(
    ("target", "pause"),
    [
        (named_target("x86_64"), "pause"),
        (named_target("aarch64"), "yield"),
        (named_target("riscv64"), ""),
    ],
)
def test_text_compiles_for(target, pause):
    listing = assembly(driver_text(target), target)
    assert pause in listing
    assert all(name in listing for name in ENTRIES)


def test_blocks_are_aligned_zeros():
    for size in (0, 1, 64, 5000, (2 << 20) + 1):
        block = Block(size)
        assert block.address % 64 == 0 and not block.bytes.any()
    assert block.address % (2 << 20) == 0
    view = block.view(128, (2, 3), np.dtype(np.float32))
    view[...] = 1
    assert view.ctypes.data == block.address + 128 and block.bytes[128:152].any()
    del block
    assert view.sum() == 6


def test_data_offset_of_arrays():
    import ctypes

    offset = array_data_offset()
    x = np.arange(10)[3:]
    assert offset == 0 or ctypes.c_void_p.from_address(id(x) + offset).value == x.ctypes.data


def test_default_threads():
    assert default_threads() >= 1


def test_workers_that_are_never_started():
    workers = Workers(lambda: None, lambda: None, 2)
    assert workers.stop()
    workers.start()
    assert workers.stop()
