"""Kernels as phases of another kernel."""

from __future__ import annotations

import pytest

from tinyinfer.backends.clike import item_loop
from tinyinfer.backends.clike.item_loop import phase_of
from tinyinfer.runtime.plan import BufferRef, KernelSource, Launch, WorkSizes

GROUP = "__attribute__((reqd_work_group_size(8, 1, 4)))"
HEAD = f"__kernel {GROUP} void sums(__global float *restrict out, const ulong out_at) {{"
ALONE = f"""{HEAD}
    const int g0 = (int)get_global_id(0);
    if (g0 >= 6) return;
    out[g0] = get_group_id(1) + get_local_id(2);
}}"""
TEAM = f"""{HEAD}
    __local float4 shared[5];
    __local uchar flags[3][7];
    shared[get_local_id(0)] = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
}}"""


def launch(text: str, group: tuple[int, int, int], ref: BufferRef = BufferRef("arena", 0)) -> Launch:
    work = WorkSizes((4 * group[0], group[1], group[2]), group)
    return Launch(KernelSource("key", "sums", lambda: text), (ref,), 1, False, work=work)


def test_a_kernel_becomes_a_function_of_where_an_item_stands():
    phase = phase_of(ALONE, "loop_0")
    head, first, *_ = phase.text.splitlines()
    assert head.startswith("static void loop_0(const int3 global_, const int3 group_, const int3 local_,")
    assert head.endswith("__global float *out, const ulong out_at) {")
    assert first == "    const int g0 = (int)global_.s0;" and "group_.s1 + local_.s2" in phase.text
    assert "get_" not in phase.text and "__kernel" not in phase.text
    assert not phase.meets and not phase.local_bytes


def test_local_arrays_share_the_memory_of_the_whole_kernel():
    phase = phase_of(TEAM, "loop_0")
    assert "__local float4 *shared = (__local float4 *)(pool + 0);" in phase.text
    assert "__local uchar (*flags)[7] = (__local uchar (*)[7])(pool + 80);" in phase.text
    assert phase.meets and phase.local_bytes == 80 + 32


@pytest.mark.parametrize(
    "text, group, size, room, fine",
    [
        (ALONE, (8, 1, 4), 64, 0, True),  # no barrier: its work-items may be anywhere
        (TEAM, (8, 1, 4), 32, 112, True),
        (TEAM, (8, 1, 4), 64, 112, False),
        (TEAM, (8, 1, 4), 32, 111, False),
    ],
)
def test_what_has_barriers_needs_groups_of_the_kernels_size_and_its_local_memory(
    text, group, size, room, fine
):
    assert item_loop.fits((launch(text, group),), size, room) == fine


def test_images_are_left_to_the_host():
    assert not item_loop.fits((launch(ALONE, (8, 1, 4), BufferRef("image", 0)),), 32, 1 << 10)
