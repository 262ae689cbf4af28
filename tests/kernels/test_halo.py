"""Halo regions are disjoint and cover exactly what is not the value."""

import numpy as np
import pytest

from tinyinfer.ir import build
from tinyinfer.kernels.halo import halo_regions
from tinyinfer.kernels.layout import Buffer


def covered(region) -> np.ndarray:
    places = np.array([region.start])
    for count, stride in region.loops:
        places = (places[:, None] + np.arange(count) * stride).ravel()
    return (places[:, None] + np.arange(region.length)).ravel()


@pytest.mark.parametrize(
    "shape, order, halo",
    [
        ((6, 7), (0, 1), [(1, 1), (2, 0)]),
        ((6, 7), (1, 0), [(1, 1), (2, 0)]),
        ((2, 3, 5, 7), (0, 2, 3, 1), [(0, 0), (0, 0), (1, 1), (1, 1)]),
        ((2, 3, 5, 7), (0, 1, 2, 3), [(1, 0), (0, 2), (1, 1), (3, 1)]),
        ((1, 3, 1, 7), (0, 2, 3, 1), [(0, 0), (0, 0), (2, 2), (1, 1)]),
        ((1, 1), (0, 1), [(1, 1), (1, 1)]),
        ((5,), (0,), [(0, 4)]),
        ((4, 1022), (0, 1), [(1, 1), (1, 1)]),
    ],
)
def test_the_halo_is_covered_exactly(shape, order, halo):
    buffer = Buffer(build.input_node("x", shape, "float32"), "arena", order)
    buffer.halo = [list(h) for h in halo]
    buffer.place()
    times = np.zeros(buffer.elements, int)
    for region in halo_regions(buffer):
        np.add.at(times, covered(region), 1)
    assert times.max() <= 1
    inside = np.lib.stride_tricks.as_strided(
        times[buffer.offset :], shape, [s * times.itemsize for s in buffer.strides]
    )
    assert not inside.any()
    padded = tuple(d + b + a for d, (b, a) in zip(shape, halo))
    start = buffer.offset - sum(b * s for (b, _), s in zip(halo, buffer.strides))
    whole = np.lib.stride_tricks.as_strided(
        times[start:], padded, [s * times.itemsize for s in buffer.strides]
    )
    assert whole.sum() == np.prod(padded) - np.prod(shape)


def test_no_halo_no_regions():
    buffer = Buffer(build.input_node("x", (3, 4), "float32"), "arena", (0, 1))
    buffer.place()
    assert halo_regions(buffer) == []
