"""Where values live: strides, halos, places inside concatenations."""

import numpy as np
import pytest

from tinyinfer.ir import build
from tinyinfer.ir.index import Axis, index
from tinyinfer.kernels.layout import ALIASING_BYTES, VECTOR_BYTES, Buffer, axis_strides, dense_strides


def buffer(shape, order=None, dtype="float32", space="arena"):
    made = Buffer(build.input_node("x", shape, dtype), space)
    if space == "arena":
        made.order = tuple(order if order is not None else range(len(shape)))
    return made


def addresses(made: Buffer) -> np.ndarray:
    """The element of storage at which each element of the value lies."""
    made.place()
    total = np.full(made.value.shape, made.offset)
    for dimension, (size, stride) in enumerate(zip(made.value.shape, made.strides)):
        shape = [-1 if i == dimension else 1 for i in range(len(made.value.shape))]
        total = total + np.arange(size).reshape(shape) * stride
    return total


@pytest.mark.parametrize("space", ["input", "output", "parameter"])
def test_what_the_user_sees_is_row_major(space):
    made = buffer((2, 3, 4), space=space)
    made.place()
    assert (made.strides, made.offset, made.elements) == ((12, 4, 1), 0, 24)


def test_strides_follow_the_order_of_dimensions():
    made = buffer((2, 3, 5, 7), (0, 2, 3, 1))
    made.place()
    assert made.strides == (105, 1, 21, 3) and made.elements == 210
    assert dense_strides(made) == (105, 1, 21, 3)


def test_a_halo_surrounds_the_value():
    made = buffer((2, 3, 5, 7), (0, 2, 3, 1))
    assert made.ask_halo([(0, 0), (0, 0), (1, 2), (3, 0)], 0.0)
    assert made.ask_halo([(0, 0), (0, 0), (2, 0), (1, 1)], 0.0)
    assert made.halo == [[0, 0], [0, 0], [2, 2], [3, 1]] and made.has_halo
    places = addresses(made)
    assert made.elements == 2 * 3 * (5 + 4) * (7 + 4)
    assert len(np.unique(places)) == places.size
    assert places.min() == made.offset == 2 * made.strides[2] + 3 * made.strides[3]


def test_a_halo_holds_one_fill_only():
    made = buffer((4, 5))
    assert made.ask_halo([(1, 1), (0, 0)], 0.0)
    assert not made.ask_halo([(1, 1), (0, 0)], -np.inf)
    assert made.fill == 0.0


@pytest.mark.parametrize("space", ["input", "output", "parameter"])
def test_memory_of_others_has_no_halo(space):
    assert not buffer((4, 5), space=space).ask_halo([(1, 1), (0, 0)], 0.0)


def test_a_halo_far_larger_than_the_value_is_refused():
    assert not buffer((4, 5)).ask_halo([(1000, 0), (0, 0)], 0.0)


def test_rows_that_would_alias_in_the_cache_are_moved_apart():
    made = buffer((10, ALIASING_BYTES // 4))
    made.place()
    assert made.strides == (ALIASING_BYTES // 4 + VECTOR_BYTES // 4, 1)
    assert len(np.unique(addresses(made))) == made.value.size and addresses(made).max() < made.elements


def test_a_part_lies_inside_its_whole():
    whole, part = buffer((2, 9, 4), (0, 2, 1)), buffer((2, 3, 4), (0, 2, 1))
    part.parent, part.parent_axis, part.parent_start = whole, 1, 5
    expected = addresses(whole)[:, 5:8]
    np.testing.assert_array_equal(addresses(part), expected)
    assert part.storage is whole


def test_a_part_of_a_part():
    outer, inner, part = buffer((4, 20)), buffer((4, 9)), buffer((4, 3))
    inner.parent, inner.parent_axis, inner.parent_start = outer, 1, 10
    part.parent, part.parent_axis, part.parent_start = inner, 1, 4
    np.testing.assert_array_equal(addresses(part), addresses(outer)[:, 14:17])
    assert part.storage is outer


def test_a_part_has_a_halo_across_the_concatenation_only():
    whole, part = buffer((2, 9, 4)), buffer((2, 3, 4))
    part.parent, part.parent_axis, part.parent_start = whole, 1, 5
    assert not part.ask_halo([(0, 0), (1, 0), (0, 0)], 0.0)
    assert part.ask_halo([(0, 0), (0, 0), (1, 1)], 0.0)
    assert whole.halo == [[0, 0], [0, 0], [1, 1]]
    np.testing.assert_array_equal(addresses(part), addresses(whole)[:, 5:8])


def test_values_without_elements_and_scalars_have_room_for_one():
    for shape in ((), (0, 5)):
        made = buffer(shape)
        made.place()
        assert made.elements == 1


def test_axis_strides_count_axes_in_divisions_too():
    a, b = Axis("a", 10), Axis("b", 12)
    found = axis_strides((index(a) * 2, index(b) // 5), (100, 7))
    assert found == {a: 200, b: 7}
