"""Where the arguments of a plan's kernels lie on the direct route."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyinfer.backends.qcom.kgsl.arguments import Access, ImageArgument
from tinyinfer.backends.qcom.kgsl.device import KgslDevice
from tinyinfer.backends.qcom.kgsl.memory import Buffer
from tinyinfer.kernels.image import TEXEL, Image
from tinyinfer.runtime.plan import BufferRef, Plan, TensorSpec
from tinyinfer.runtime.signature import numpy_dtype

ALIGNMENT = 128
"""Bytes that parameters lie at multiples of."""

FORMATS = {"float16": "rgba16_float", "float32": "rgba32_float"}


@dataclass(frozen=True)
class Span:
    """`offset` bytes into a buffer."""

    buffer: Buffer
    offset: int = 0

    def moved(self, offset: int) -> Span:
        """So many bytes on."""
        return Span(self.buffer, self.offset + offset)


Place = Span | ImageArgument


class PlanMemory:
    """Where the arguments of a plan's kernels lie."""

    def __init__(self, plan: Plan, device: KgslDevice):
        self._device, self._gpu = device, device.gpu.facts
        self._numbers: Buffer | None = None
        self._arena = device.allocate(max(plan.arena_bytes, ALIGNMENT))
        self.inputs = [device.allocate(max(tensor_bytes(spec), ALIGNMENT)) for spec in plan.inputs]
        self.outputs = [device.allocate(max(tensor_bytes(spec), ALIGNMENT)) for spec in plan.outputs]
        self._images = [self._image(device, image) for image in plan.images]
        self._parameters: list[Place] = []
        linear = [p for i, p in enumerate(plan.parameters) if i not in plan.parameter_images]
        buffer = device.allocate(sum(_aligned(p.nbytes) for p in linear) + ALIGNMENT)
        end = 0
        for number, array in enumerate(plan.parameters):
            image = plan.parameter_images.get(number)
            if image is not None:
                self._parameters.append(self._filled(device, image, array))
                continue
            if array.nbytes:
                buffer.view(end, (array.nbytes,), np.uint8)[:] = np.frombuffer(array.tobytes(), np.uint8)
            self._parameters.append(Span(buffer, end))
            end += _aligned(array.nbytes)
        buffer.sync_to_gpu()

    def place(self, ref: BufferRef) -> Place:
        """Where a reference of a launch that is in no loop leads."""
        if ref.space == "arena":
            return Span(self._arena, ref.offset)
        if ref.space == "image":
            return self._images[ref.number]
        if ref.space == "parameter":
            found = self._parameters[ref.number]
            return found.moved(ref.offset) if isinstance(found, Span) else found
        return Span((self.inputs if ref.space == "input" else self.outputs)[ref.number], ref.offset)

    def numbers(self, count: int) -> Span:
        """Memory that holds the int64 0 … count - 1, which loops read as the numbers of their iterations."""
        if self._numbers is None or self._numbers.size < 8 * count:
            self._numbers = self._device.allocate(8 * count)
            self._numbers.view(0, (count,), np.int64)[:] = np.arange(count)
            self._numbers.sync_to_gpu()
        return Span(self._numbers)

    def _image(self, device: KgslDevice, image: Image) -> ImageArgument:
        pitch = self._gpu.row_pitch(image.width, image.height, TEXEL * np.dtype(image.dtype).itemsize)
        buffer = device.allocate(pitch * image.height)
        return ImageArgument(
            buffer, 0, image.width, image.height, pitch, FORMATS[image.dtype], Access.READ_WRITE
        )

    def _filled(self, device: KgslDevice, image: Image, array: np.ndarray) -> ImageArgument:
        made = self._image(device, image)
        rows = array.reshape(image.height, -1)
        memory = made.buffer.view(0, (image.height, made.pitch // rows.itemsize), rows.dtype)
        memory[:, : rows.shape[1]] = rows
        made.buffer.sync_to_gpu()
        return made


def tensor_bytes(spec: TensorSpec) -> int:
    """Bytes of a tensor as it is fed or returned."""
    return int(np.prod(spec.shape, dtype=np.int64)) * numpy_dtype(spec.dtype).itemsize


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
