"""The halo of a buffer: which runs of memory around its inside must hold the fill value."""

from __future__ import annotations

from dataclasses import dataclass

from tinyinfer.kernels.image import PITCH, TEXEL
from tinyinfer.kernels.layout import Buffer


@dataclass(frozen=True)
class HaloRegion:
    """Runs of `length` contiguous elements at `start` + Σ counter · stride over the `loops` (count,
    stride); whole texels where the buffer lies in an `image`."""

    start: int
    loops: tuple[tuple[int, int], ...]
    length: int
    image: bool = False


def halo_regions(buffer: Buffer) -> list[HaloRegion]:
    """The halo of a buffer as disjoint runs: dimension by dimension, outer to inner."""
    assert buffer.order is not None
    regions = []
    shape, halo, strides = buffer.value.shape, buffer.halo, buffer.strides
    loops: list[tuple[int, int]] = []
    start = 0
    for d in buffer.order:
        before, after = halo[d]
        for first, count in ((0, before), (before + shape[d], after)):
            if not count:
                continue
            at, length, over = start + first * strides[d], count * strides[d], tuple(loops)
            if buffer.image is not None and length % PITCH == 0:
                length, over = buffer.image.width * TEXEL, (*loops, (length // PITCH, PITCH))
            regions.append(HaloRegion(at, over, length, buffer.image is not None))
        start += before * strides[d]
        if shape[d] > 1:
            loops.append((shape[d], strides[d]))
    return regions
