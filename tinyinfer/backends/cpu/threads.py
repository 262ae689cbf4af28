"""How many threads to use, and the worker threads of one executable."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def default_threads() -> int:
    """Cores that this process may use: its CPU set without SMT siblings, at most its cgroup's quota."""
    try:
        cpus = os.sched_getaffinity(0)
    except AttributeError:
        return max(1, os.cpu_count() or 1)
    cores = set()
    for cpu in cpus:
        try:
            cores.add((_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text())
        except OSError:
            cores.add(str(cpu))
    count = len(cores)
    with suppress(OSError, ValueError):
        quota, period = _QUOTA.read_text().split()
        if quota != "max":
            count = min(count, -(-int(quota) // int(period)))
    return max(1, count)


class Workers:
    """Daemon threads whose body is one native call each; started when first needed.

    `body` must return soon after `stop` was called; `count` threads run it.
    """

    def __init__(self, body: Callable[[], None], stop: Callable[[], None], count: int):
        self._body, self._stop, self._count = body, stop, count
        self._threads: list[threading.Thread] = []
        self.started = count <= 0

    def start(self) -> None:
        """Start the threads, once. Where the system has no more of them, fewer do the work."""
        if self.started:
            return
        self.started = True
        with suppress(RuntimeError):
            for number in range(self._count):
                thread = threading.Thread(target=self._body, name=f"tinyinfer-{number + 1}", daemon=True)
                thread.start()
                self._threads.append(thread)

    def stop(self, timeout: float = 5.0) -> bool:
        """End the threads; True if none is left in native code, so that its memory may be freed."""
        self.started = True
        if not self._threads:
            return True
        self._stop()
        for thread in self._threads:
            # garbage collection may run this on any thread, also at exit when daemon threads no longer finish
            if thread is not threading.current_thread() and not sys.is_finalizing():
                thread.join(timeout)
        return not any(thread.is_alive() for thread in self._threads)

    def forget(self) -> None:
        """After a fork, in the child: the threads are gone; the next `start` makes new ones."""
        self._threads = []
        self.started = self._count <= 0
