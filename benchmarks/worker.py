"""One engine in a process of its own: both ends of the pipe.

The parent holds a `Worker` and asks; `python -m benchmarks.worker` answers. Requests and answers are lines of
JSON; arrays travel in .npz files. A worker that is not asked blocks on its standard input.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.catalogue import REPOSITORY
from benchmarks.engines import ENGINES, Open, Run, use_cache

WARM_SHARE = 0.1
FEWEST_RUNS = 5


class EngineError(RuntimeError):
    """The engine could not do what was asked, in its own words."""


class Worker:
    """The parent's end. A context manager: the process ends with the block.

    `cache`: folder for compiled kernels. `limit`: seconds an answer may take before the worker is killed.
    """

    def __init__(self, engine: str, cache: Path, limit: float = 900.0):
        self.engine, self.limit = engine, limit
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", engine, str(cache)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, request: str, **arguments: Any) -> dict[str, Any]:
        """The answer to one request. Raises EngineError if the engine failed, died or took too long."""
        assert self.process.stdin and self.process.stdout
        timer = threading.Timer(self.limit, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(json.dumps([request, arguments]) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            expired = not timer.is_alive()
            timer.cancel()
        if not line:
            status = self.process.wait()
            cause = f"no answer within {self.limit:g} s" if expired else f"worker ended with status {status}"
            raise EngineError(f"{self.engine}: {request}: {cause}")
        answer = json.loads(line)
        if "error" in answer:
            raise EngineError(f"{self.engine}: {request}: {answer['error']}")
        return answer

    def load(self, model: Path, threads: int, feeds: Path) -> dict[str, float]:
        """`Requests.load`: open the model and run it once on the arrays in the .npz file `feeds`."""
        return self.ask("load", path=str(model), threads=threads, feeds=str(feeds))

    def peak_bytes(self) -> int:
        """The most resident memory that the worker had so far."""
        return int(self.ask("memory")["peak_bytes"])

    def pause(self) -> None:
        """Stop every thread of the worker, also one that spins while it waits for work."""
        if hasattr(signal, "SIGSTOP"):
            self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        if hasattr(signal, "SIGCONT"):
            self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End the process."""
        self.resume()
        if self.process.stdin:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Requests:
    """The worker's end: each public method is a request and returns its answer."""

    def __init__(self, engine: str):
        self._engine = engine
        self._open: Open | None = None
        self._run: Run | None = None
        self._feeds: dict[str, np.ndarray] = {}

    def load(self, path: str, threads: int, feeds: str) -> dict[str, float]:
        """Import the engine, open the model, run it once on the arrays in `feeds`.

        Answers seconds: `import_s` (beyond numpy, which is here already), `create_s` and `first_s`.
        """
        with np.load(feeds) as arrays:
            self._feeds = dict(arrays)
        start = time.perf_counter()
        open_model = ENGINES[self._engine]()
        imported = time.perf_counter()
        self._run = open_model(path, threads)
        created = time.perf_counter()
        self._run(self._feeds)
        ran = time.perf_counter()
        return {"import_s": imported - start, "create_s": created - imported, "first_s": ran - created}

    def outputs(self, path: str) -> dict[str, int]:
        """Run once and write every output to the .npz file `path` as arr_0, arr_1 …"""
        results = self._loaded()(self._feeds)
        np.savez(path, *(np.asarray(result) for result in results))
        return {"count": len(results)}

    def time(self, seconds: float) -> dict[str, float]:
        """Run for about `seconds`, but a few times: median and least seconds of a run, number of runs."""
        run, feeds, clock = self._loaded(), self._feeds, time.perf_counter
        end = clock() + WARM_SHARE * seconds
        run(feeds)
        while clock() < end:
            run(feeds)
        times: list[float] = []
        gc.collect()
        gc.disable()
        now = clock()
        end = now + seconds
        while len(times) < FEWEST_RUNS or now < end:
            run(feeds)
            before, now = now, clock()
            times.append(now - before)
        gc.enable()
        return {"median_s": statistics.median(times), "min_s": min(times), "runs": len(times)}

    def memory(self) -> dict[str, int]:
        """`peak_bytes`: the most resident memory that this process had so far."""
        return {"peak_bytes": peak_resident_bytes()}

    def _loaded(self) -> Run:
        if self._run is None:
            raise RuntimeError("no model is loaded")
        return self._run


def peak_resident_bytes() -> int:
    """The most resident memory of this process so far.

    On Linux from /proc (VmHWM): getrusage's figure there also covers the parent from before exec.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def serve(engine: str) -> None:
    """Answer requests until standard input ends. What the engine itself prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    requests = Requests(engine)
    for line in sys.stdin:
        request, arguments = json.loads(line)
        try:
            answer = getattr(requests, request)(**arguments)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    use_cache(Path(sys.argv[2]))
    serve(sys.argv[1])
