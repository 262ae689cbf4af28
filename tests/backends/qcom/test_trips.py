"""Trips of loops from OpenCL C, and how they are found again in machine code."""

import pytest
from adreno_kernels import compiled_kernel

from tinyinfer.backends.qcom.statistics import LoopStatistics
from tinyinfer.backends.qcom.trips import issue_slots, source_loops, trips_of

NESTED = """
    for (int y = 0; y < 3; ++y) {
        for (int x = 0; x < 5; x++) {
            for (int c = 0; c < (get_work_dim() == 3 ? 34 : 0); c += 4) { sum += c; }
        }
    }
    for (int k = 2; k < 10; ++k) { if (k) { sum += k; } }
"""


def loops(*depths):
    return [LoopStatistics(depth, 10, 1, 4, 1) for depth in depths]


@pytest.mark.parametrize(
    "head,trips",
    [
        ("int i = 0; i < 9; ++i", 9),
        ("int i = 1; i < 9; i += 3", 3),
        ("unsigned int i = 0; i < 9; i++", 9),
        ("int half_ = 8; half_ > 0; half_ /= 2", 4),
        ("int i = 0; i < (get_work_dim() == 3 ? 12 : 0); i += 4", 3),
        ("int s = t; s < 100; s += 64", 2),
        ("int k = from1; k < to2; k += 4", 5),
        ("int i = 0; i < count; ++i", None),
        ("int i = first; i > count; --i", None),
    ],
)
def test_a_loops_head_tells_how_often_it_runs(head, trips):
    text = f"const int from1 = t * 20;\nfor ({head}) {{ a[i] = 0; }}"
    assert [loop.trips for loop in source_loops(text)] == [trips]


def test_bodies_of_inner_loops_run_for_each_trip_of_the_outer_ones():
    assert trips_of(NESTED, loops(0, 1, 2, 0)) == (3, 15, 135, 8)


def test_loops_that_are_missing_were_written_out_the_shortest_first():
    assert trips_of(NESTED, loops(0, 1, 2)) == (3, 15, 135)
    assert trips_of(NESTED, loops(0, 0)) == (3, 8)
    assert trips_of(NESTED, loops(0)) == (8,)
    assert trips_of(NESTED, ()) == ()


def test_a_loop_that_was_written_out_repeats_those_in_it():
    assert trips_of(NESTED, loops(0, 1, 0, 1, 0, 1, 0)) == (5, 45, 5, 45, 5, 45, 8)


def test_machine_code_that_the_text_does_not_account_for():
    assert trips_of(NESTED, loops(0, 1, 2, 3)) is None
    assert trips_of("for (int i = 0; i < n; ++i) { a = i; }", loops(0)) is None


def test_issue_slots_count_bodies_as_often_as_they_run():
    kernel = compiled_kernel(loops(0, 1), instructions=100, texture_reads=9)
    issued = issue_slots(kernel, (3, 12))
    assert (issued.slots, issued.texture_reads) == (100 + 2 * 10 + 11 * 10, 9 + 2 + 11)
