"""Which values of a plan lie in images: those that images serve, in one pass after buffers were assigned.

An image serves a value of floats whose innermost dimension is a multiple of four long, that is neither tiny
nor read at places which data decide, and that every kernel can write a whole texel at a time.
"""

from __future__ import annotations

from collections.abc import Iterable

from tinyinfer.ir.index import Slot, atoms_of
from tinyinfer.ir.node import Node
from tinyinfer.kernels.access import ACCESSES, ValueAccess, walk_with_indices
from tinyinfer.kernels.assign import Assigned, LoopKernel
from tinyinfer.kernels.image import FEWEST_TEXELS, TEXEL, ImageLimits
from tinyinfer.kernels.layout import Buffer
from tinyinfer.kernels.lower import LoweredKernel


def place_buffers(assigned: Assigned, images: ImageLimits | None, refused: set[Buffer]) -> None:
    """Fix where every value lies: in an image if one serves it, unless it is `refused`."""
    every = list(assigned.buffers.values())
    served = _served(assigned) - refused if images is not None else set()
    for buffer in every:
        if buffer.parent is None and (buffer.image is not None or buffer in served):
            buffer.image, buffer.strides = None, ()
    for owner in served:
        assert images is not None
        owner.place_in_image(images)
    for buffer in every:
        buffer.place()


def _served(assigned: Assigned) -> set[Buffer]:
    """The storages that may lie in images, as far as the kernels' accesses tell."""
    served: set[Buffer] = set()
    unserved: set[Buffer] = set()
    buffers = assigned.buffers
    for buffer in buffers.values():
        owner = buffer.storage
        (served if _suits(owner) and _suits_part(buffer) else unserved).add(owner)
    for kernel in assigned.kernels:
        if isinstance(kernel, LoopKernel):
            unserved.update(buffers[x].storage for x in (*kernel.operands, *kernel.outputs.values()))
        else:
            unserved.update(_unserved(kernel, buffers))
    return served - unserved


def _suits(owner: Buffer) -> bool:
    value = owner.value
    if owner.space != "arena" or owner.dense or value.dtype != "float32" or not owner.order:
        return False
    inner = owner.order[-1]
    columns = value.shape[inner]
    return (
        (1 < columns < TEXEL or columns > 0 and columns % TEXEL == 0)
        and not any(owner.halo[inner])
        and value.size // columns >= FEWEST_TEXELS
    )


def _suits_part(buffer: Buffer) -> bool:
    """Whether a part of a concatenation begins and ends with whole texels."""
    while buffer.parent is not None:
        order = buffer.storage.order
        assert order is not None
        if buffer.parent_axis == order[-1] and (
            buffer.parent_start % TEXEL or buffer.value.shape[buffer.parent_axis] % TEXEL
        ):
            return False
        buffer = buffer.parent
    return True


def _unserved(kernel: LoweredKernel, buffers: dict[Node, Buffer]) -> Iterable[Buffer]:
    """The storages that one kernel needs as buffers."""
    root = buffers[kernel.root].storage
    if kernel.root.op == "SCATTER":
        yield root
    for e in walk_with_indices(kernel.body):
        access = e.attrs if e.op in ACCESSES else None
        if not isinstance(access, ValueAccess) or access.value not in buffers:
            continue
        source = buffers[access.value].storage
        by_data = any(isinstance(a, Slot) for i in access.indices for a in atoms_of(i))
        # no image is read and written by one kernel
        if by_data or source is root or kernel.root.op == "SCATTER":
            yield source
