"""Latency of engines side by side.

usage: python -m benchmarks.compare [NAME …] [--models DIR] [--threads 1 2] [--engines tinyinfer onnxruntime]
                                    [--rounds N] [--seconds S] [--json FILE]

Each engine has a process of its own and the same feeds. They take turns, one round each, while the processes
of the others are stopped; a time is the median over rounds of the median of a round.

ratio   the other engine's time by that of the first engine named, median over rounds: above 1 the first is
        faster; ± is half the spread over the rounds
error   the largest difference from the last engine's outputs, relative to their range; a row where it is over
        --tolerance has no part in the mean; an output that is nearly constant has a small range, so that the
        error there can be rounding alone
start   session creation and first run, with an empty cache / again in a new process
MB      peak resident memory of the second of these processes

Exit status 1 if a model failed or disagreed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.catalogue import Model
from benchmarks.options import models, parser
from benchmarks.worker import EngineError, Worker

SETTLE_SECONDS = 0.05


def measure(
    model: Model, feeds: Path, engines: list[str], threads: int, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Figures of each engine for one model, in the order of `engines`.

    cold, cached: what `Worker.load` answers; rounds_s: median seconds of each round; median_s: their median;
    runs: how many in all; peak_bytes: memory of the measured process; error: `report.disagreement` with the
    last engine. An engine that fails has only `failure`, in words; the others are measured all the same.
    """
    figures: dict[int, dict[str, Any]] = {}
    failures: dict[int, str] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        outputs = [folder / f"outputs-{number}.npz" for number in range(len(engines))]
        workers: dict[int, Worker] = {}

        def attempt(number: int, step: Callable[[int], None]) -> None:
            try:
                step(number)
            except EngineError as error:
                failures[number] = str(error)

        def open_model(number: int) -> None:
            cache = folder / f"cache-{number}"
            cache.mkdir()
            with Worker(engines[number], cache) as first:
                cold = first.load(model.path, threads, feeds)
            workers[number] = worker = stack.enter_context(Worker(engines[number], cache))
            cached = worker.load(model.path, threads, feeds)
            worker.ask("outputs", path=str(outputs[number]))
            worker.pause()
            figures[number] = {"cold": cold, "cached": cached, "rounds_s": [], "runs": 0}

        def take_turn(number: int) -> None:
            answer = _turn(workers[number], seconds)
            figures[number]["rounds_s"].append(answer["median_s"])
            figures[number]["runs"] += answer["runs"]

        def finish(number: int) -> None:
            workers[number].resume()
            figures[number]["median_s"] = statistics.median(figures[number]["rounds_s"])
            figures[number]["peak_bytes"] = workers[number].peak_bytes()
            if len(engines) - 1 not in failures:
                figures[number]["error"] = report.disagreement(_arrays(outputs[number]), _arrays(outputs[-1]))

        for step in (open_model, *[take_turn] * rounds, finish):
            for number in range(len(engines)):
                if number not in failures:
                    attempt(number, step)
    return [
        {"engine": engine} | ({"failure": failures[i]} if i in failures else figures[i])
        for i, engine in enumerate(engines)
    ]


def _turn(worker: Worker, seconds: float) -> dict[str, Any]:
    """One round of one engine, everything else having come to rest."""
    time.sleep(SETTLE_SECONDS)
    worker.resume()
    try:
        return worker.ask("time", seconds=seconds)
    finally:
        worker.pause()


def _arrays(path: Path) -> list[np.ndarray]:
    with np.load(path) as arrays:
        return [arrays[f"arr_{i}"] for i in range(len(arrays.files))]


def ratio(first: dict[str, Any], other: dict[str, Any]) -> tuple[float, float]:
    """How many times longer `other` takes than `first`: median over the rounds, and half their spread."""
    each = [b / a for a, b in zip(first["rounds_s"], other["rounds_s"])]
    return statistics.median(each), (max(each) - min(each)) / 2


def counts(figures: list[dict[str, Any]], tolerance: float) -> bool:
    """Whether every engine ran and all agree."""
    return all("failure" not in f and f.get("error", 0.0) <= tolerance for f in figures)


def _header(engines: list[str]) -> list[str]:
    labels = [e if engines.count(e) == 1 else f"{e} {i + 1}" for i, e in enumerate(engines)]
    header = ["model", "threads", *(f"{label} ms" for label in labels)]
    header += [f"ratio {label}" for label in labels[1:]]
    return header + ["error", *(f"start s {label}" for label in labels), *(f"MB {label}" for label in labels)]


def _row(model: str, threads: int, figures: list[dict[str, Any]], tolerance: float) -> list[str]:
    ran = ["failure" not in figure for figure in figures]
    row = [model, str(threads)]
    row += [_milliseconds(f["median_s"]) if ok else "failed" for f, ok in zip(figures, ran)]
    for figure, ok in zip(figures[1:], ran[1:]):
        row.append(_ratio(figures[0], figure) if ok and ran[0] else "–")
    errors = [figure["error"] for figure in figures[:-1] if "error" in figure]
    row.append(f"{max(errors):.1e}{'' if max(errors) <= tolerance else ' WRONG'}" if errors else "–")
    row += [f"{_start(f['cold'])} / {_start(f['cached'])}" if ok else "–" for f, ok in zip(figures, ran)]
    return row + [f"{f['peak_bytes'] / 1e6:.0f}" if ok else "–" for f, ok in zip(figures, ran)]


def _ratio(first: dict[str, Any], other: dict[str, Any]) -> str:
    middle, spread = ratio(first, other)
    return f"{middle:.2f} ±{spread:.2f}" if len(first["rounds_s"]) > 1 else f"{middle:.2f}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.4g}"


def _start(answer: dict[str, float]) -> str:
    return f"{answer['create_s'] + answer['first_s']:.2f}"


def _means(engines: list[str], threads: list[int], rows: list[dict[str, Any]], tolerance: float) -> list[str]:
    lines = []
    for number in threads:
        mine = [row["figures"] for row in rows if row["threads"] == number]
        good = [figures for figures in mine if counts(figures, tolerance)]
        for i, engine in enumerate(engines[1:], start=1):
            ratios = [ratio(figures[0], figures[i])[0] for figures in good]
            faster = sum(r > 1 for r in ratios)
            lines.append(
                f"{number} thread{'s'[: number != 1]}: {engine} / {engines[0]} = "
                f"{report.geometric_mean(ratios):.3f} (geometric mean of {len(good)} of {len(mine)} models; "
                f"{engines[0]} faster on {faster}, worst {min(ratios, default=float('nan')):.2f})"
            )
    return lines


def run(options: argparse.Namespace) -> int:
    """Measure what `options` say and print it; the exit status."""
    described = report.machine(options.engines)
    print(report.heading(described))
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    with models(options) as chosen:
        for model, feeds in chosen:
            for threads in options.threads:
                figures = measure(model, feeds, options.engines, threads, options.rounds, options.seconds)
                rows.append({"model": model.name, "threads": threads, "figures": figures})
                failures += [
                    f"{model.name}, {threads} threads: {f['failure']}" for f in figures if "failure" in f
                ]
                cells = _row(model.name, threads, figures, options.tolerance)
                print("  ".join(cells), file=sys.stderr, flush=True)
                if options.json:
                    report.write_json(options.json, described, rows)
    lines = [_row(row["model"], row["threads"], row["figures"], options.tolerance) for row in rows]
    print(report.table(_header(options.engines), lines))
    print("\n".join([*_means(options.engines, options.threads, rows, options.tolerance), *failures]))
    return 0 if all(counts(row["figures"], options.tolerance) for row in rows) else 1


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    made = parser("Latency of engines side by side.")
    made.add_argument("--rounds", type=int, default=5, help="turns of each engine")
    made.add_argument("--seconds", type=float, default=0.5, help="time of one turn")
    made.add_argument(
        "--tolerance", type=float, default=0.05, help="largest error, relative to the output's range"
    )
    return run(made.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
