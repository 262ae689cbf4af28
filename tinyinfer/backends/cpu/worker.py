"""Worker processes that compile kernels.

llvmlite holds one lock over all of LLVM, so threads cannot compile at the same time. These are plain
subprocesses with a protocol of their own on stdin and stdout, not `multiprocessing`: that would run a user's
script again where it has no main guard. Messages are a little-endian uint32 length and that many bytes:

    child → parent   READY
    parent → child   the target, as JSON
    parent → child   a kernel's LLVM IR text              (repeated; end of file ends the child)
    child → parent   b"0" + object, or b"1" + why not     (one for each text)
"""

from __future__ import annotations

import heapq
import json
import os
import queue
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, TypeAlias

from tinyinfer.backends.cpu.compile import KernelCompileError, compile_object
from tinyinfer.backends.cpu.target import CpuTarget

READY = b"tinyinfer worker"
KERNELS_PER_WORKER = 6
"""A process costs about as much time to start as this many kernels to compile."""

_BOOT = "import sys; sys.path[:] = sys.argv[1:]; from tinyinfer.backends.cpu.worker import main; main()"
_LENGTH = struct.Struct("<I")


def worth_sharing(kernels: int, threads: int) -> int:
    """How many worker processes to start for `kernels` kernels on `threads` threads."""
    if getattr(sys, "frozen", False) or not sys.executable:
        return 0
    return max(0, min(threads - 1, kernels // KERNELS_PER_WORKER))


def _send(stream: IO[bytes], data: bytes) -> None:
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes | None:
    """The next message, or None where the other side is gone."""
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    size = _LENGTH.unpack(header)[0]
    data = stream.read(size)
    return data if len(data) == size else None


_Job: TypeAlias = tuple[str, str, str]
"""Key, name and text of a kernel."""
_Result: TypeAlias = "bytes | KernelCompileError"


class WorkerPool:
    """Compiles submitted texts here and in `processes` children; use it as a context manager.

    A child that dies, or never starts, only costs time: its kernel is compiled in this process.
    """

    def __init__(self, target: CpuTarget, processes: int):
        self._target = target
        # the longest text first, so that no long one is left to the end; numbers keep the order of equal ones
        self._jobs: list[tuple[int, int, _Job]] = []
        self._submitted = 0
        self._results: queue.SimpleQueue[tuple[str, _Result] | None] = queue.SimpleQueue()
        self._pending = 0
        self._closing = False
        self._children: list[subprocess.Popen[bytes]] = []
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._serve, name=f"tinyinfer-compile-{i}", daemon=True)
            for i in range(processes)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closing = True
            self._jobs.clear()
            self._changed.notify_all()
            children = list(self._children)
        for child in children:
            child.kill()
        for thread in self._threads:
            thread.join()

    def submit(self, key: str, name: str, text: str) -> None:
        """Add one kernel; `name` is for error messages, `key` comes back with the object."""
        with self._changed:
            self._pending += 1
            self._submitted += 1
            heapq.heappush(self._jobs, (-len(text), self._submitted, (key, name, text)))
            self._changed.notify()

    def results(self) -> Iterator[tuple[str, bytes]]:
        """Every submitted kernel's (key, object), as they get ready. Raises KernelCompileError."""
        while self._pending:
            outcome: tuple[str, _Result] | None
            try:
                outcome = self._results.get_nowait()
            except queue.Empty:
                job = self._next_job(wait=False)
                outcome = self._compile_here(*job) if job else self._results.get()
            if outcome is None:
                continue
            self._pending -= 1
            key, result = outcome
            if isinstance(result, KernelCompileError):
                raise result
            yield key, result

    def _compile_here(self, key: str, name: str, text: str) -> tuple[str, _Result]:
        try:
            return key, compile_object(text, self._target)
        except KernelCompileError as error:
            return key, KernelCompileError(f"{name}: {error}")

    def _next_job(self, wait: bool) -> _Job | None:
        with self._changed:
            while wait and not self._jobs and not self._closing:
                self._changed.wait()
            return heapq.heappop(self._jobs)[2] if self._jobs else None

    def _serve(self) -> None:
        """Feed one child until there is nothing more to do or it dies."""
        try:
            child = self._start()
        except OSError:
            return
        assert child.stdin is not None and child.stdout is not None
        try:
            if _receive(child.stdout) != READY:
                return
            _send(child.stdin, json.dumps(asdict(self._target)).encode())
            while (job := self._next_job(wait=True)) is not None:
                key, name, text = job
                reply = None
                try:
                    _send(child.stdin, text.encode())
                    reply = _receive(child.stdout)
                finally:
                    if not reply:
                        with self._changed:
                            heapq.heappush(self._jobs, (-len(text), 0, job))
                        self._results.put(None)
                if not reply:
                    return
                if reply[:1] == b"0":
                    self._results.put((key, reply[1:]))
                else:
                    self._results.put((key, KernelCompileError(f"{name}: {reply[1:].decode()}")))
        except (OSError, ValueError):
            pass
        finally:
            child.kill()
            child.stdout.close()
            try:
                child.stdin.close()
            except OSError:
                pass
            child.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        package_parent = str(Path(__file__).resolve().parents[3])
        with self._changed:
            if self._closing:
                raise OSError("closing")
            child = subprocess.Popen(
                [sys.executable, "-S", "-E", "-s", "-c", _BOOT, package_parent, *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self._children.append(child)
            return child


def main() -> None:
    """The child's side of the protocol."""
    # LLVM or a library may print; the protocol keeps a descriptor of its own
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    source = sys.stdin.buffer
    _send(output, READY)
    first = _receive(source)
    if first is None:
        return
    target = CpuTarget(**json.loads(first))
    while (text := _receive(source)) is not None:
        try:
            reply = b"0" + compile_object(text.decode(), target)
        except KernelCompileError as error:
            reply = b"1" + str(error).encode()
        _send(output, reply)


if __name__ == "__main__":
    main()
