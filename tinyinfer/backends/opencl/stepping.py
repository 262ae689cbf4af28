"""A run that stops after each kernel, to look at what it wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyinfer.backends.opencl.launches import HostLoop, KernelLaunch, Queue, Scope
from tinyinfer.backends.opencl.memory import Place
from tinyinfer.backends.opencl.platforms import opencl
from tinyinfer.kernels.image import TEXEL, Image
from tinyinfer.runtime.plan import Launch

if TYPE_CHECKING:
    import pyopencl


@dataclass(frozen=True)
class Written:
    """The memory that one launch writes to, from where its first argument begins on."""

    launch: Launch
    place: Place
    image: Image | None
    queue: pyopencl.CommandQueue

    def read(self, dtype: str) -> np.ndarray:
        """What is there now, to the end of the buffer, as elements of `dtype`; of an image, its own type, row
        by row."""
        cl = opencl()
        if self.image is not None:
            shape = (self.image.height, self.image.width, TEXEL)
            texels = np.empty(shape, self.image.dtype)
            region = (self.image.width, self.image.height)
            cl.enqueue_copy(
                self.queue, texels, self.place.buffer, origin=(0, 0), region=region, is_blocking=True
            )
            return texels.reshape(-1)
        element = np.dtype(dtype)
        size = (self.place.buffer.size - self.place.offset) // element.itemsize
        found = np.empty(size, element)
        if size:
            offset = self.place.offset
            cl.enqueue_copy(self.queue, found, self.place.buffer, src_offset=offset, is_blocking=True)
        return found


Look = Callable[[int, Written, Callable[[], None]], None]
"""Called with the number of a launch, what it writes to, and what runs it, which it must call once."""


def step_through(
    launches: Sequence[KernelLaunch | HostLoop], images: Sequence[Image], look: Look
) -> Callable[[Queue, Scope], None]:
    """What enqueues the launches of a run one by one: each under `look`, but for loops of the host."""

    def enqueue(queue: Queue, scope: Scope) -> None:
        for number, bound in enumerate(launches):

            def run(bound: Any = bound) -> None:
                bound.run(queue, scope)
                queue.queue.finish()

            if isinstance(bound, HostLoop):
                run()
                continue
            ref = bound.launch.arguments[0]
            image = images[ref.number] if ref.space == "image" else None
            look(number, Written(bound.launch, scope.place(ref), image, queue.queue), run)

    return enqueue
