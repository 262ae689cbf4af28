"""Layout: where each value lives. Per buffer an order of its dimensions, a halo, and a place inside a
concatenation.

Orders are assigned from producers to consumers: a contraction writes its vectorised axis innermost
(convolutions therefore end channels-last), other kernels adopt the order of what they read, and what the user
sees is row- major. A halo is asked for by the readers; strides are fixed when all have asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tinyinfer.ir.index import Index, Slot, atoms_of, row_major_strides
from tinyinfer.ir.node import Node
from tinyinfer.kernels.access import walk_with_indices
from tinyinfer.kernels.image import TEXEL, Image, ImageLimits, image_strides

ALIASING_BYTES = 4096
"""Rows whose stride is a multiple of this fall into the same L1 sets; such strides get one vector more."""

VECTOR_BYTES = 64


@dataclass(eq=False)
class Buffer:
    """The storage of one value. Strides and offset are in elements and valid after `place`."""

    value: Node
    space: str  # "arena", "input", "output" or "parameter"
    order: tuple[int, ...] | None = None
    halo: list[list[int]] = field(default_factory=list)
    fill: float | int | bool | None = None
    parent: Buffer | None = None
    parent_axis: int = 0
    parent_start: int = 0
    strides: tuple[int, ...] = ()
    offset: int = 0
    elements: int = 0
    number: int = -1
    overwritten: bool = False
    """Whether a scatter writes into the value's own storage, so that it is gone once the plan has run."""
    dense: bool = False
    """Row-major without halo or padding: what a loop walks by rows."""
    wide: bool = False
    """Whether the value is float32 wherever it is stored, halves being too coarse or too small for it."""
    image: Image | None = None
    """The image that holds the value; addresses are then those of `kernels.image`."""

    def __post_init__(self) -> None:
        self.halo = [[0, 0] for _ in self.value.shape]
        if self.space != "arena" or self.dense:
            self.order = tuple(range(len(self.value.shape)))

    @property
    def storage(self) -> Buffer:
        """The buffer that owns the memory."""
        return self if self.parent is None else self.parent.storage

    @property
    def itemsize(self) -> int:
        return np.dtype(self.value.dtype).itemsize

    @property
    def nbytes(self) -> int:
        return self.elements * self.itemsize if self.image is None else self.image.nbytes

    def place(self) -> None:
        """Fix strides, offset and size. Parents are placed before their parts."""
        shape = self.value.shape
        if self.parent is not None:
            self.parent.place()
            self.strides = self.parent.strides
            self.offset = self.parent.offset + self.parent_start * self.strides[self.parent_axis]
            return
        if self.strides:
            return
        if self.space != "arena" or self.dense:
            self.strides = row_major_strides(shape)
            self.elements = max(self.value.size, 1)
            return
        assert self.order is not None
        padded = [d + b + a for d, (b, a) in zip(shape, self.halo)]
        strides = [0] * len(shape)
        step = 1
        for dimension in reversed(self.order):
            if (
                step > 1
                and padded[dimension] > 1
                and step * self.itemsize % ALIASING_BYTES == 0
                and step * self.itemsize <= 1 << 16
            ):
                step += VECTOR_BYTES // self.itemsize
            strides[dimension] = step
            step *= padded[dimension]
        self.strides = tuple(strides)
        self.offset = sum(b * s for (b, _), s in zip(self.halo, strides))
        self.elements = max(step, 1)

    def place_in_image(self, limits: ImageLimits) -> None:
        """Fix the strides of an image, if the value can have one."""
        assert self.order is not None and self.parent is None
        padded = {d: n + sum(self.halo[d]) for d, n in enumerate(self.value.shape)}
        inner = self.order[-1]
        padded[inner] = -(-padded[inner] // TEXEL) * TEXEL
        made = image_strides(padded, self.order, limits.storing(self.wide))
        if made is not None:
            self.image, self.strides = made
            self.offset = sum(b * s for (b, _), s in zip(self.halo, self.strides))

    def ask_halo(self, wanted: list[tuple[int, int]], fill: float | int | bool) -> bool:
        """Whether readers may step outside by `wanted` (before, after) per dimension and find `fill`
        there."""
        owner = self.storage
        if owner.space != "arena" or owner.dense:
            return False
        current: Buffer = self
        while current.parent is not None:
            if any(wanted[current.parent_axis]):
                return False
            current = current.parent
        if owner.fill is not None and owner.fill != fill:
            return False
        if any(b + a > max(64, 2 * d) for (b, a), d in zip(wanted, self.value.shape)):
            return False
        owner.fill = fill
        for have, (before, after) in zip(owner.halo, wanted):
            have[0], have[1] = max(have[0], before), max(have[1], after)
        return True

    @property
    def has_halo(self) -> bool:
        return any(b or a for b, a in self.halo)


def dense_strides(buffer: Buffer) -> tuple[int, ...]:
    """Strides as if without halo: enough to compare which axis is nearer to the innermost."""
    owner = buffer.storage
    assert owner.order is not None
    strides = [0] * len(owner.value.shape)
    step = 1
    for dimension in reversed(owner.order):
        strides[dimension] = step
        step *= max(owner.value.shape[dimension], 1)
    return tuple(strides)


def axis_strides(indices: tuple[Index, ...], strides: tuple[int, ...]) -> dict:
    """|stride| of each axis in an access, counting axes inside divisions and data-dependent indices as
    well."""
    found: dict = {}

    def note(value: Index, scale: int) -> None:
        for atom, c in value.terms:
            step = abs(c * scale)
            if hasattr(atom, "size"):
                found[atom] = min(found.get(atom, step), step)
            elif isinstance(atom, Slot):
                if atom.payload is not None:
                    for axis in _payload_axes(atom):
                        found[axis] = min(found.get(axis, step), step)
            else:
                for axis in atoms_of(atom.inner):  # type: ignore[attr-defined]
                    found[axis] = min(found.get(axis, step), step)

    for i, stride in zip(indices, strides):
        note(i, stride)
    return found


def _payload_axes(slot: Slot) -> set:
    axes: set = set()
    for e in walk_with_indices(slot.payload):
        if e.op == "LOAD":
            for i in e.attrs.indices:
                axes |= {a for a in atoms_of(i) if not isinstance(a, Slot)}
        elif e.op == "INDEX":
            axes |= {a for a in atoms_of(e.attrs) if not isinstance(a, Slot)}
    return axes
