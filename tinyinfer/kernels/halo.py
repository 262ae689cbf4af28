"""The halo of a buffer: which runs of memory around its inside must hold the fill value."""

from __future__ import annotations

from dataclasses import dataclass

from tinyinfer.kernels.layout import Buffer


@dataclass(frozen=True)
class HaloRegion:
    """Runs of `length` contiguous elements at `start` + Σ counter · stride over the `loops` (count,
    stride)."""

    start: int
    loops: tuple[tuple[int, int], ...]
    length: int


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
            if count:
                regions.append(HaloRegion(start + first * strides[d], tuple(loops), count * strides[d]))
        start += before * strides[d]
        if shape[d] > 1:
            loops.append((shape[d], strides[d]))
    return regions
