"""Profiles as Chrome trace files (chrome://tracing, Perfetto): the format's JSON array of complete ("X")
events.

Source: "Trace Event Format", the Chromium project; times in microseconds.
"""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any

from tinyinfer.backends.base import LaunchTime

SESSION_TRACK, KERNEL_TRACK = 0, 1
MAX_EVENTS = 1_000_000


class Trace:
    """Events of one session, written once to `prefix` + local time + ".json" in the current folder."""

    def __init__(self, prefix: str):
        self.start_ns = time.perf_counter_ns()
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
        self.path = os.path.abspath(f"{prefix}{stamp}_{os.getpid()}_{self.start_ns % 1_000_000:06d}.json")
        self._events: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._written = False

    def add(
        self, name: str, start_ns: int, end_ns: int, track: int = SESSION_TRACK, **arguments: Any
    ) -> None:
        """One span, in nanoseconds of `time.perf_counter_ns`."""
        event = {
            "cat": "Node" if track == KERNEL_TRACK else "Session",
            "pid": os.getpid(),
            "tid": track,
            "dur": (end_ns - start_ns) / 1e3,
            "ts": (start_ns - self.start_ns) / 1e3,
            "ph": "X",
            "name": name,
            "args": {key: str(value) for key, value in arguments.items()},
        }
        with self._lock:
            if len(self._events) < MAX_EVENTS:
                self._events.append(event)

    def add_kernels(self, start_ns: int, launches: list[LaunchTime]) -> None:
        """Measured kernels one after the other from `start_ns`, on their own track."""
        for launch in launches:
            end_ns = start_ns + round(launch.seconds * 1e9)
            self.add(
                launch.title,
                start_ns,
                end_ns,
                KERNEL_TRACK,
                onnx=", ".join(launch.origin),
                flops=launch.flops,
                bytes=launch.bytes,
            )
            start_ns = end_ns

    def write(self) -> str:
        """Write the file, the first time only; its path."""
        with self._lock:
            if not self._written:
                self._written = True
                with open(self.path, "w", encoding="utf-8") as file:
                    json.dump(self._events, file)
        return self.path
