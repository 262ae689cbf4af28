"""Time from nothing to a first result.

usage: python -m benchmarks.start [NAME …] [--models DIR] [--threads N] [--engines …] [--repeats N]
                                  [--json FILE]

`import` is the engine's import beyond numpy; an engine that imports its parts on first use pays for them
in `create`. `create` and `first` (run) are with an empty cache (cold) and in a new process with the
cache that the cold one left (cached). Medians over --repeats, each of which begins with an empty cache.
The model file itself is in the system's page cache.
"""

from __future__ import annotations

import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.catalogue import Model
from benchmarks.options import parser
from benchmarks.sweep import sweep
from benchmarks.worker import Worker

PARTS = ("import_s", "create_s", "first_s")
MOMENTS = ("cold", "cached")
COLUMNS = ("import s", "cold: create", "first s", "cached: create", "first s")


def measure(model: Model, feeds: Path, engine: str, threads: int, repeats: int) -> dict[str, Any]:
    """Median seconds of every part at both moments: {"cold": {"import_s": …}, "cached": {…}}."""
    taken: dict[str, list[dict[str, float]]] = {moment: [] for moment in MOMENTS}
    model.path.read_bytes()
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            for moment in MOMENTS:
                with Worker(engine, Path(cache)) as worker:
                    taken[moment].append(worker.load(model.path, threads, feeds))
    return {
        moment: {part: statistics.median(answer[part] for answer in answers) for part in PARTS}
        for moment, answers in taken.items()
    }


def cells(figures: dict[str, Any]) -> list[str]:
    """The figures under COLUMNS."""
    seconds = [figures["cached"]["import_s"]]
    seconds += [figures[moment][part] for moment in MOMENTS for part in PARTS[1:]]
    return [f"{value:.3f}" for value in seconds]


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    made = parser("Time from nothing to a first result.")
    made.add_argument("--repeats", type=int, default=3)
    made.set_defaults(threads=[2])
    options = made.parse_args(arguments)
    return sweep(options, partial(measure, repeats=options.repeats), COLUMNS, cells)


if __name__ == "__main__":
    raise SystemExit(main())
