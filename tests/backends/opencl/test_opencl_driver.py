"""The calls that launches make past pyopencl."""

from __future__ import annotations

import ctypes

import numpy as np
import pyopencl as cl
import pytest

from tinyinfer.backends.opencl.driver import Kernel, queue_handle
from tinyinfer.errors import EPFail

SOURCE = """
__kernel void count_up(__global int *out, ulong at) {
    out[at + get_global_id(0)] = (int)(get_global_id(0) + 10 * get_local_id(0));
}"""


@pytest.fixture
def counting(opencl):
    """A kernel of four work-items in groups of two, and a queue."""
    context = opencl.context()
    program = cl.Program(context, SOURCE).build(cache_dir=False)
    return Kernel(program, "count_up", (4, 1, 1), (2, 1, 1)), cl.CommandQueue(context)


def test_arguments_and_sizes_reach_the_device(counting):
    kernel, queue = counting
    result = np.zeros(8, np.int32)
    buffer = cl.Buffer(queue.context, cl.mem_flags.COPY_HOST_PTR, hostbuf=result)
    kernel.set_memory(0, buffer)
    for at in (0, 3):
        kernel.set_offset(1, at)
        kernel.launch(queue_handle(queue))
    cl.enqueue_copy(queue, result, buffer, is_blocking=True)
    np.testing.assert_array_equal(result, [0, 11, 2, 0, 11, 2, 13, 0])


def test_what_the_driver_refuses_is_an_error_in_words(counting):
    kernel, queue = counting
    with pytest.raises(EPFail, match="refused an argument of count_up: error -"):
        kernel.set_offset(7, 0)
    with pytest.raises(EPFail, match="refused a launch of count_up: error -36"):
        kernel.launch(ctypes.c_void_p())
