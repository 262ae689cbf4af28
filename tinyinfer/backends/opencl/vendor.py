"""What the OpenCL backend asks of a vendor's extensions, where a device has such that are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tinyinfer.backends.opencl.memory import Place

if TYPE_CHECKING:
    from tinyinfer.backends.opencl.launches import HostLoop, KernelLaunch, Queue, Scope


class Steps(Protocol):
    """The launches of a plan, enqueued in another way."""

    def run(self, queue: Queue, scope: Scope) -> None:
        """Enqueue all of them, in order."""


class Vendor(Protocol):
    """The extensions of one context's device."""

    def imported(self, array: np.ndarray) -> Place | None:
        """An array's memory as a buffer, without a copy; None where it is no memory that can be imported."""

    def replay(self, launches: Sequence[KernelLaunch | HostLoop]) -> Steps | None:
        """Launches as the driver records them once and repeats them; None where it records none of them."""
