"""Peak resident memory of opening a model and running it once.

usage: python -m benchmarks.memory [NAME …] [--models DIR] [--threads N] [--engines …] [--json FILE]

Each figure is a new process's: cold with an empty cache (compilers included), cached with the cache that the
cold one left. `bare` is that process with Python and numpy alone, before any engine.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.catalogue import Model
from benchmarks.options import parser
from benchmarks.sweep import sweep
from benchmarks.worker import Worker

COLUMNS = ("bare MB", "cold MB", "cached MB")


def measure(model: Model, feeds: Path, engine: str, threads: int) -> dict[str, int]:
    """Peak bytes: `bare`, `cold` and `cached`."""
    peaks = {}
    with tempfile.TemporaryDirectory() as cache:
        for moment in ("cold", "cached"):
            with Worker(engine, Path(cache)) as worker:
                peaks["bare"] = worker.peak_bytes()
                worker.load(model.path, threads, feeds)
                peaks[moment] = worker.peak_bytes()
    return peaks


def cells(figures: dict[str, int]) -> list[str]:
    """The figures under COLUMNS."""
    return [f"{figures[moment] / 1e6:.0f}" for moment in ("bare", "cold", "cached")]


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    made = parser("Peak resident memory of opening a model and running it once.")
    made.set_defaults(threads=[2])
    return sweep(made.parse_args(arguments), measure, COLUMNS, cells)


if __name__ == "__main__":
    raise SystemExit(main())
