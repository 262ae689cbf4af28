"""The loop of `start` and `memory`: every model, number of threads and engine, one after the other."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.catalogue import Model
from benchmarks.options import models
from benchmarks.worker import EngineError

Measure = Callable[[Model, Path, str, int], dict[str, Any]]


def sweep(
    options: argparse.Namespace,
    measure: Measure,
    columns: Sequence[str],
    cells: Callable[[dict[str, Any]], list[str]],
) -> int:
    """Measure what `options` say and print a table; the exit status, 1 if an engine failed.

    `measure(model, feeds file, engine, threads)` gives the figures and may raise EngineError; `cells` prints
    them under `columns`.
    """
    described = report.machine(options.engines)
    print(report.heading(described))
    rows: list[dict[str, Any]] = []
    lines: list[list[str]] = []
    failures: list[str] = []
    with models(options) as chosen:
        for model, feeds in chosen:
            for threads in options.threads:
                for engine in options.engines:
                    row: dict[str, Any] = {"model": model.name, "threads": threads, "engine": engine}
                    try:
                        figures = measure(model, feeds, engine, threads)
                        row |= figures
                        line = cells(figures)
                    except EngineError as error:
                        row["failure"] = str(error)
                        failures.append(f"{model.name}, {threads} threads: {error}")
                        line = ["failed"] * len(columns)
                    rows.append(row)
                    lines.append([model.name, str(threads), engine, *line])
                    print("  ".join(lines[-1]), file=sys.stderr, flush=True)
    print(report.table(["model", "threads", "engine", *columns], lines))
    for failure in failures:
        print(failure)
    if options.json:
        report.write_json(options.json, described, rows)
    return 1 if failures else 0
