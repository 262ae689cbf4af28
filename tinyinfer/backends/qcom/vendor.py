"""What Qualcomm's driver can do beyond OpenCL, as `backends.opencl.vendor.Vendor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tinyinfer.backends.opencl.launches import HostLoop, KernelLaunch
from tinyinfer.backends.opencl.memory import Place
from tinyinfer.backends.qcom.hints import hinted_context
from tinyinfer.backends.qcom.host_memory import HostMemory
from tinyinfer.backends.qcom.options import QcomOptions
from tinyinfer.backends.qcom.recording import RecordableQueue, RecordingRefused, Replay

if TYPE_CHECKING:
    import pyopencl


class QcomVendor:
    """A device's context, with the hints of `options`, and its extensions. What is not there is not used."""

    def __init__(self, device: pyopencl.Device, options: QcomOptions):
        self.context = hinted_context(device, options)
        self._memory = HostMemory(self.context)
        self._queue: RecordableQueue | None = None
        if options.recording == "on":
            try:
                self._queue = RecordableQueue(self.context)
            except RecordingRefused:
                self._queue = None

    def imported(self, array: np.ndarray) -> Place | None:
        """As `Vendor.imported`."""
        return self._memory.imported(array)

    def replay(self, launches: Sequence[KernelLaunch | HostLoop]) -> Replay | None:
        """As `Vendor.replay`."""
        if self._queue is None:
            return None
        replay = Replay(self._queue, launches)
        return replay if replay.recordings else None
