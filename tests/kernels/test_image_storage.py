"""Images: addresses, sizes, halos, sharing."""

from __future__ import annotations

import numpy as np
import pytest

from tinyinfer.ir import build
from tinyinfer.ir.index import Axis, index
from tinyinfer.kernels.halo import halo_regions
from tinyinfer.kernels.image import (
    PITCH,
    Image,
    ImageLimits,
    image_strides,
    share_images,
    split_address,
    texels,
    writes_texels,
)
from tinyinfer.kernels.layout import Buffer

LIMITS = ImageLimits(16384, 16384, "float16")
A, B, C = Axis("a", 9), Axis("b", 7), Axis("c", 8)
SHORT = Axis("short", 3)


@pytest.mark.parametrize("row,column", [(0, 0), (5, 12), (3, -8), (-1, -8), (-2, 40)])
def test_addresses_tell_rows_and_columns_even_outside(row, column):
    address = index(A) * (2 * PITCH) + index(B) * 8 + index(C) + row * PITCH + column
    rows, columns = split_address(address)
    assert rows == index(A) * 2 + row
    assert columns == index(B) * 8 + index(C) + column


def test_rows_hold_two_dimensions_where_they_fit():
    # channels last: a row of the picture is a row of the image
    assert image_strides({0: 1, 1: 8, 2: 5, 3: 6}, (0, 2, 3, 1), LIMITS) == (
        Image(12, 5, "float16"),
        (5 * PITCH, 1, PITCH, 8),
    )
    image, strides = image_strides(
        {0: 40, 1: 20000, 2: 16}, (0, 1, 2), ImageLimits(8192, 1 << 20, "float16")
    ) or (None, ())
    assert image is None
    image, strides = image_strides({0: 2, 1: 5000, 2: 16}, (0, 1, 2), LIMITS)
    assert (image.width, image.height) == (4, 10000) and strides == (5000 * PITCH, PITCH, 1)
    assert image_strides({0: 4, 1: 6}, (0, 1), LIMITS) is None


def test_four_neighbours_are_a_texel_only_where_everything_else_moves_by_texels():
    assert writes_texels(index(A) * PITCH + index(C) + 4, C)
    assert not writes_texels(index(A) * PITCH + index(C) + 2, C)
    assert not writes_texels(index(B) * 6 + index(C), C)
    assert not writes_texels(index(B), B)
    assert writes_texels(index(B) * 4 + index(SHORT), SHORT)
    assert not writes_texels(index(B) * 3 + index(SHORT), SHORT)
    assert not writes_texels(index(C) * 2, C) and not writes_texels(index(C), None)


def test_fewer_than_four_neighbours_have_a_texel_for_themselves():
    buffer = Buffer(build.input_node("x", (1, 3, 5, 7), "float32"), "arena", (0, 2, 3, 1))
    buffer.place_in_image(LIMITS)
    assert buffer.image == Image(7, 5, "float16") and buffer.strides[1:] == (1, PITCH, 4)


def test_images_are_shared_by_values_that_do_not_meet():
    small, wide, tall = Image(4, 4, "float16"), Image(16, 4, "float16"), Image(4, 32, "float16")
    numbers, images = share_images([(0, 1, wide), (2, 3, small), (1, 2, tall), (3, 4, wide)])
    assert numbers[0] == numbers[3] and numbers[2] != numbers[0]
    assert len(images) == 3 and images[numbers[1]].holds(small)
    assert not wide.holds(Image(4, 4, "float32"))


def test_halos_of_images_are_runs_of_texels_within_rows():
    value = build.input_node("x", (1, 8, 3, 5), "float32")
    buffer = Buffer(value, "arena", (0, 2, 3, 1))
    buffer.halo = [[0, 0], [0, 0], [1, 2], [2, 1]]
    buffer.place_in_image(LIMITS)
    assert buffer.image == Image(16, 6, "float16") and buffer.offset == PITCH + 16
    seen = np.zeros((6, 64), int)
    for r in halo_regions(buffer):
        starts = [r.start]
        for count, stride in r.loops:
            starts = [s + i * stride for s in starts for i in range(count)]
        for s in starts:
            row, column = divmod(s, PITCH)
            assert r.image and r.length % 4 == 0 and column % 4 == 0
            seen[row, column : column + r.length] += 1
    inside = seen.reshape(6, 8, 8)[1:4, 2:7]
    assert not inside.any() and seen.max() == 1 and seen.sum() == 6 * 64 - 3 * 5 * 8


def test_texels_of_an_array():
    array = np.arange(48, dtype=np.float32).reshape(2, 3, 8)
    made = texels(array, Image(2, 6, "float16"))
    assert made.shape == (6, 2, 4) and made.dtype == np.float16
    assert made[4, 1, 3] == array[1, 1, 7]
