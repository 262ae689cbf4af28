"""Giving back the pages of a mapped file."""

import mmap

import numpy as np

from tinyinfer.backends.cpu.system import release_file_pages


def test_released_pages_read_the_same_again(tmp_path):
    content = np.arange(1 << 20, dtype=np.int32)
    path = tmp_path / "weights"
    path.write_bytes(content.tobytes())
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    array = np.frombuffer(memoryview(mapped), np.int32)
    turned = array.reshape(1024, 1024).T[::-1, 3:]
    release_file_pages(turned)
    np.testing.assert_array_equal(array, content)


def test_memory_that_is_the_only_copy_stays():
    anonymous = mmap.mmap(-1, 1 << 20)
    array = np.frombuffer(anonymous, np.uint8)
    array[:] = 7
    for value in (array, np.arange(10), np.zeros((0, 3))):
        release_file_pages(value)
    assert (array == 7).all()
