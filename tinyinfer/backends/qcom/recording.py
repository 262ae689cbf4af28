"""Launches that the driver records once and replays with one call (cl_qcom_recordable_queues).

A recordable queue runs nothing: kernels that are enqueued there, between clNewRecordingQCOM and
clEndRecordingQCOM, become a recording with the arguments that they had. clEnqueueRecordingQCOM puts it into
an ordinary queue and may give some arguments other values, by number of the launch and of the argument.

Drivers differ in what they take, so there are three ways, and each refusal leads to the next: everything
recorded and the arguments that move from run to run updated; launches without such arguments recorded and
the others enqueued; nothing recorded.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tinyinfer.backends.opencl.driver import library
from tinyinfer.backends.opencl.launches import HostLoop, KernelLaunch, Queue, Scope
from tinyinfer.backends.opencl.memory import Place
from tinyinfer.backends.qcom.extensions import (
    RECORDABLE_QUEUES,
    device_number,
    extension_function,
    extensions_of,
)
from tinyinfer.errors import EPFail

if TYPE_CHECKING:
    import pyopencl

LEAST = 4
"""Launches of a recording: to replay one costs as much as some launches do."""

_RECORDABLE = 1 << 30
_MOST_LAUNCHES = 0x41DE


class RecordingRefused(Exception):
    """The driver did not record or replay what it was given."""


class _ArgumentUpdate(ctypes.Structure):
    """cl_array_arg_qcom."""

    _fields_ = (
        ("launch", ctypes.c_uint32),
        ("argument", ctypes.c_uint32),
        ("size", ctypes.c_size_t),
        ("value", ctypes.c_void_p),
    )


class RecordableQueue:
    """A recordable queue of a context, and the functions of the extension."""

    def __init__(self, context: pyopencl.Context):
        """RecordingRefused where the device has no such queues."""
        device = context.devices[0]
        if RECORDABLE_QUEUES not in extensions_of(device):
            raise RecordingRefused
        handle, number = ctypes.c_void_p, ctypes.c_int

        def function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
            found = extension_function(device, name, result, *arguments)
            if found is None:
                raise RecordingRefused
            return found

        updates: tuple[Any, ...] = (ctypes.c_size_t, handle) * 4
        self._new = function("clNewRecordingQCOM", handle, handle, ctypes.POINTER(number))
        self._end = function("clEndRecordingQCOM", number, handle)
        self.release = function("clReleaseRecordingQCOM", number, handle)
        self._enqueue = function(
            "clEnqueueRecordingQCOM", number, handle, handle, *updates, ctypes.c_uint, handle, handle
        )
        self.most = device_number(device, _MOST_LAUNCHES)
        self.handle = self._create(context, device)

    def record(self, launches: Sequence[KernelLaunch], scope: Scope) -> int:
        """A recording of launches, with the arguments that they have in `scope`."""
        status = ctypes.c_int(0)
        recording = self._new(self.handle, ctypes.byref(status))
        if status.value or not recording:
            raise RecordingRefused
        try:
            for launch in launches:
                launch.bind(scope)
                launch.kernel.launch(self.handle)
        except EPFail:
            self._end(recording)
            self.release(recording)
            raise RecordingRefused from None
        if self._end(recording):
            self.release(recording)
            raise RecordingRefused
        return recording

    def replay(self, queue: Queue, recording: int, updates: Sequence[_ArgumentUpdate]) -> None:
        """Put a recording into a queue, with some arguments updated."""
        given = (_ArgumentUpdate * len(updates))(*updates) if updates else None
        nothing = (0, None) * 3
        if self._enqueue(queue.handle, recording, len(updates), given, *nothing, 0, None, None):
            raise RecordingRefused

    def _create(self, context: pyopencl.Context, device: pyopencl.Device) -> ctypes.c_void_p:
        create = library().clCreateCommandQueue
        create.restype = ctypes.c_void_p
        status = ctypes.c_int(0)
        # no other property: drivers refuse profiling together with this one
        made = create(
            ctypes.c_void_p(context.int_ptr),
            ctypes.c_void_p(device.int_ptr),
            ctypes.c_uint64(_RECORDABLE),
            ctypes.byref(status),
        )
        if status.value or not made:
            raise RecordingRefused
        queue = ctypes.c_void_p(made)
        weakref.finalize(self, library().clReleaseCommandQueue, queue)
        return queue


class Recording:
    """Launches in a row, recorded when they are first run."""

    def __init__(self, queue: RecordableQueue, launches: Sequence[KernelLaunch]):
        self._queue, self.launches = queue, list(launches)
        self._handle = 0
        self._recorded: dict[tuple[int, int], Place] = {}
        self._updated: set[tuple[int, int]] = set()

    def run(self, queue: Queue, scope: Scope) -> None:
        """Replay them with the arguments of `scope`; RecordingRefused where the driver does not."""
        if not self._handle:
            self._handle = self._queue.record(self.launches, scope)
            weakref.finalize(self, self._queue.release, self._handle)
            # places are kept, so that a buffer that was recorded lives as long as the recording
            self._recorded = {key: scope.place(ref) for key, ref in self._moving()}
        kept: list[Any] = []
        self._queue.replay(queue, self._handle, self._updates(scope, kept))

    def _moving(self) -> list[tuple[tuple[int, int], Any]]:
        """Arguments that are not the same in every run, by number of launch and of argument."""
        return [((n, number), ref) for n, x in enumerate(self.launches) for number, ref in x.moving]

    def _updates(self, scope: Scope, kept: list[Any]) -> list[_ArgumentUpdate]:
        """What moved since the recording, or ever did: whether an update lasts is not said. `kept` gets the
        values that they point to."""
        updates = []
        for (launch, number), ref in self._moving():
            place, recorded = scope.place(ref), self._recorded[launch, number]
            position = self.launches[launch].positions[number]
            values: list[tuple[int, bool, Any]] = [
                (position, place.buffer is not recorded.buffer, ctypes.c_void_p(place.buffer.int_ptr))
            ]
            if not place.is_image:
                moved = place.offset != recorded.offset
                values.append((position + 1, moved, ctypes.c_uint64(place.offset)))
            for argument, moved, value in values:
                if moved:
                    self._updated.add((launch, argument))
                if (launch, argument) in self._updated:
                    kept.append(value)
                    size = ctypes.sizeof(value)
                    updates.append(_ArgumentUpdate(launch, argument, size, ctypes.addressof(value)))
        return updates


class Replay:
    """The launches of a plan, recorded as far as the driver takes them."""

    def __init__(self, queue: RecordableQueue, launches: Sequence[KernelLaunch | HostLoop]):
        everything, fixed = _divided(queue, launches, True), _divided(queue, launches, False)
        self._ways: list[list[Any]] = [everything, fixed, list(launches)]

    @property
    def recordings(self) -> list[Recording]:
        """Those of the way that is taken."""
        return [step for step in self._ways[0] if isinstance(step, Recording)]

    def run(self, queue: Queue, scope: Scope) -> None:
        """Enqueue all launches."""
        while True:
            try:
                for step in self._ways[0]:
                    step.run(queue, scope)
                return
            except RecordingRefused:
                # what was enqueued may run again: each launch computes the same from the same
                del self._ways[0]


def _divided(
    queue: RecordableQueue, launches: Sequence[KernelLaunch | HostLoop], moving: bool
) -> list[Recording | KernelLaunch | HostLoop]:
    """Launches in order, and recordings in place of those in a row that can be recorded; those with moving
    arguments only if `moving`."""
    steps: list[Recording | KernelLaunch | HostLoop] = []
    row: list[KernelLaunch] = []

    def end_row() -> None:
        steps.extend([Recording(queue, row)] if len(row) >= LEAST else row)
        row.clear()

    for launch in launches:
        if isinstance(launch, KernelLaunch) and (moving or not launch.moving):
            row.append(launch)
            if queue.most and len(row) == queue.most:
                end_row()
            continue
        end_row()
        steps.append(launch)
    end_row()
    return steps
