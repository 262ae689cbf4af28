"""Values in two-dimensional images: four neighbouring elements are one texel.

An element of an image has an address as that of a buffer has: `row * PITCH + column`, both counted in
elements. PITCH is so large that an address tells its row and its column even where a window reaches outside.
The images of devices know nothing of it: the printer takes addresses apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from tinyinfer.ir.index import Axis, Index

TEXEL = 4
PITCH = 1 << 16
MOST_COLUMNS = PITCH // 2 // TEXEL
"""Texels of the widest row whose addresses are told apart from those of its neighbours."""

MOST_ROWS = 1 << 14
FEWEST_TEXELS = 8
"""A value of fewer texels along the dimensions that are not its innermost stays in a buffer."""


@dataclass(frozen=True)
class Image:
    """An image of RGBA texels, `width` by `height` of them, whose elements are stored as `dtype` and read as
    float32."""

    width: int
    height: int
    dtype: str

    @property
    def nbytes(self) -> int:
        return self.width * self.height * TEXEL * np.dtype(self.dtype).itemsize

    def holds(self, other: Image) -> bool:
        """Whether the other image's texels all have a place in this one."""
        return self.dtype == other.dtype and self.width >= other.width and self.height >= other.height


@dataclass(frozen=True)
class ImageLimits:
    """The largest image each way in texels, and how elements are stored: "float16" or "float32"."""

    width: int
    height: int
    dtype: str

    def image(self, columns: int, rows: int) -> Image | None:
        """The image of `rows` rows of `columns` elements, or None where it cannot be."""
        width = columns // TEXEL
        fits = 0 < width <= min(self.width, MOST_COLUMNS) and 0 < rows <= min(self.height, MOST_ROWS)
        return Image(width, rows, self.dtype) if fits and columns % TEXEL == 0 else None

    def storing(self, wide: bool) -> ImageLimits:
        """The same for a value, which is stored in float32 if it is `wide`."""
        return replace(self, dtype="float32") if wide else self

    def of_constant(self, array: np.ndarray, columns: int, rows: int, wide: bool) -> Image | None:
        """The image of a constant, or None where it has none. It is float32 where halves do not reach its
        numbers, and where it is one row (a bias), which is read too seldom for halves to save anything."""
        too_large = bool(array.size) and not np.abs(array).max() <= np.finfo(self.dtype).max
        return self.storing(wide or rows == 1 or too_large).image(columns, rows)


def split_address(address: Index) -> tuple[Index, Index]:
    """(row, column) of an element of an image, both in elements."""
    row = (address.const + PITCH // 2) // PITCH
    rows = tuple((a, c // PITCH) for a, c in address.terms if c % PITCH == 0)
    columns = tuple((a, c) for a, c in address.terms if c % PITCH)
    return Index(rows, row), Index(columns, address.const - row * PITCH)


def writes_texels(store: Index, along: Axis | None) -> bool:
    """Whether four neighbours along an axis, the first of them at a multiple of four, are one texel, or all
    of an axis that has fewer."""
    return (
        along is not None
        and (along.size < TEXEL or along.size % TEXEL == 0)
        and store.coefficient(along) == 1
        and not store.const % TEXEL
        and all(c % TEXEL == 0 for a, c in store.terms if a != along)
    )


def _row_lengths(padded: dict[int, int], order: tuple[int, ...]) -> list[int]:
    """How many of the innermost dimensions may make a row, best first: the innermost one with the next one
    that has neighbours, or without."""
    inside = 2
    while inside < len(order) and padded[order[-inside]] == 1:
        inside += 1
    return [inside, 1]


def image_strides(
    padded: dict[int, int], order: tuple[int, ...], limits: ImageLimits
) -> tuple[Image, tuple[int, ...]] | None:
    """The image of a value whose dimensions lie in `order` with these sizes, halo and all, and its strides;
    None where it has no image."""
    if padded[order[-1]] % TEXEL:
        return None
    for inside in _row_lengths(padded, order):
        outside, along = order[:-inside], order[-inside:]
        image = limits.image(prod(padded[d] for d in along), prod(padded[d] for d in outside))
        if image is None:
            continue
        strides = [0] * len(order)
        for step, dimensions in ((1, along), (PITCH, outside)):
            for d in reversed(dimensions):
                strides[d] = step
                step *= padded[d]
        return image, tuple(strides)
    return None


def texels(array: np.ndarray, image: Image) -> np.ndarray:
    """An array's elements as the image's texels, (height, width, 4)."""
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(array).astype(image.dtype)
    return stored.reshape(image.height, image.width, TEXEL)


def share_images(lifetimes: Sequence[tuple[int, int, Image]]) -> tuple[list[int], list[Image]]:
    """For each (first step, last step, image) the number of the image that it lies in, and those images.

    Values that are never needed in the same step may share one: coordinates do not depend on its size.
    """
    numbers = [0] * len(lifetimes)
    images: list[Image] = []
    spans: list[list[tuple[int, int]]] = []
    order = sorted(range(len(lifetimes)), key=lambda i: -lifetimes[i][2].nbytes)
    for i in order:
        first, last, image = lifetimes[i]
        found = next(
            (
                n
                for n, have in enumerate(images)
                if have.holds(image) and all(last < a or b < first for a, b in spans[n])
            ),
            None,
        )
        if found is None:
            found = len(images)
            images.append(image)
            spans.append([])
        spans[found].append((first, last))
        numbers[i] = found
    return numbers, images
