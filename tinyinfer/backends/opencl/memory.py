"""Where the arguments of a plan's kernels lie on an OpenCL device: one arena, parameters, inputs and
outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyinfer.backends.opencl.capabilities import Capabilities
from tinyinfer.backends.opencl.platforms import opencl
from tinyinfer.errors import EPFail
from tinyinfer.kernels.image import Image

if TYPE_CHECKING:
    import pyopencl

ALIGNMENT = 128
"""Bytes that parameters lie at multiples of."""

VECTOR_BYTES = 16
"""Kernels read vectors at multiples of this."""


@dataclass(frozen=True)
class Place:
    """`offset` bytes into a buffer, or an image."""

    buffer: Any
    offset: int
    is_image: bool = False

    def moved(self, offset: int) -> Place:
        return Place(self.buffer, self.offset + offset) if offset else self


class DeviceMemory:
    """The buffers that live as long as an executable."""

    def __init__(
        self,
        context: pyopencl.Context,
        queue: pyopencl.CommandQueue,
        capabilities: Capabilities,
        arena_bytes: int,
        parameters: Sequence[np.ndarray],
        images: Sequence[Image] = (),
        parameter_images: Mapping[int, Image] | None = None,
    ):
        self.context, self.capabilities = context, capabilities
        self.arena = Place(self.allocate(arena_bytes, "the arena"), 0)
        self.images = [Place(self.image(i, "values"), 0, True) for i in images]
        in_images = parameter_images or {}
        linear = [p for i, p in enumerate(parameters) if i not in in_images]
        places = iter(self._upload(queue, linear))
        self.parameters = [
            self._upload_image(queue, p, in_images[i]) if i in in_images else next(places)
            for i, p in enumerate(parameters)
        ]

    def allocate(self, size: int, what: str, for_host: bool = False) -> Any:
        """A buffer of the device, or one in memory that the host can reach; EPFail where it is too large."""
        cl = opencl()
        size = max(size, ALIGNMENT)
        if size > self.capabilities.largest_buffer:
            raise EPFail(
                f"{what} takes {size} bytes, but buffers of {self.capabilities.name} have at most "
                f"{self.capabilities.largest_buffer}"
            )
        try:
            flags = cl.mem_flags.READ_WRITE | (cl.mem_flags.ALLOC_HOST_PTR if for_host else 0)
            return cl.Buffer(self.context, flags, size)
        except cl.Error as error:
            raise EPFail(f"{self.capabilities.name} has no {size} bytes for {what}: {error}") from None

    def image(self, image: Image, what: str) -> Any:
        """An image of the device; EPFail where it cannot be made."""
        cl = opencl()
        kind = cl.channel_type.HALF_FLOAT if image.dtype == "float16" else cl.channel_type.FLOAT
        form = cl.ImageFormat(cl.channel_order.RGBA, kind)
        size = (image.width, image.height)
        try:
            return cl.create_image(self.context, cl.mem_flags.READ_WRITE, form, shape=size)
        except cl.Error as error:
            name = self.capabilities.name
            message = f"{name} makes no image of {size} {image.dtype} texels for {what}: {error}"
            raise EPFail(message) from None

    def _upload_image(self, queue: pyopencl.CommandQueue, array: np.ndarray, image: Image) -> Place:
        made = self.image(image, "parameters")
        region = (image.width, image.height)
        opencl().enqueue_copy(queue, made, array, origin=(0, 0), region=region, is_blocking=True)
        return Place(made, 0, True)

    def _upload(self, queue: pyopencl.CommandQueue, parameters: Sequence[np.ndarray]) -> list[Place]:
        """Parameters one after the other, in as few buffers as the device allows."""
        cl = opencl()
        places: list[Place] = []
        start = 0
        while start < len(parameters):
            offsets: list[int] = []
            end, stop = 0, start
            while stop < len(parameters):
                at = -(-end // ALIGNMENT) * ALIGNMENT
                size = parameters[stop].nbytes
                if offsets and at + size > self.capabilities.largest_buffer:
                    break
                offsets.append(at)
                end, stop = at + size, stop + 1
            buffer = self.allocate(end, "the parameters")
            for offset, array in zip(offsets, parameters[start:stop]):
                if array.nbytes:
                    plain = np.ascontiguousarray(array)
                    cl.enqueue_copy(queue, buffer, plain, dst_offset=offset, is_blocking=True)
                places.append(Place(buffer, offset))
            start = stop
        return places
