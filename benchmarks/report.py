"""What the measuring programs write: tables, means, agreement of outputs, and what machine it was."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engines import version_of


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns padded to their widest cell; the first to the left, the others to the right."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(line.rstrip() for line in lines)


def geometric_mean(values: Sequence[float]) -> float:
    """The n-th root of the product; NaN of nothing."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def disagreement(outputs: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> float:
    """The largest difference of any output, relative to the range of the reference's finite values.

    A range of zero counts as the largest magnitude, or 1. Infinite where the number of outputs, a shape, or
    the place of a NaN or an infinity differs.
    """
    if len(outputs) != len(reference):
        return math.inf
    return max((_disagreement(a, b) for a, b in zip(outputs, reference)), default=0.0)


def _disagreement(output: np.ndarray, reference: np.ndarray) -> float:
    if output.shape != reference.shape:
        return math.inf
    if output.size == 0:
        return 0.0
    a, b = output.astype(np.float64), reference.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return math.inf
    a, b = a[finite], b[finite]
    if b.size == 0:
        return 0.0
    scale = np.ptp(b) or np.abs(b).max() or 1.0
    return float(np.abs(a - b).max() / scale)


def machine(engines: Iterable[str]) -> dict[str, Any]:
    """Processor, cores, system, Python, and each engine's version, without which a figure says nothing."""
    information = Path("/proc/cpuinfo")
    processor = platform.processor() or platform.machine()
    if information.exists():
        lines = information.read_text().splitlines()
        processor = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), processor)
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "engines": {engine: version_of(engine) for engine in engines},
    }


def heading(described: dict[str, Any]) -> str:
    """`machine` in one line."""
    engines = ", ".join(f"{name} {number}" for name, number in described["engines"].items())
    return f"{described['processor']}, {described['cores']} cores; {engines}"


def write_json(path: Path, described: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """The machine and every row, for programs to read."""
    path.write_text(json.dumps({"machine": described, "rows": rows}, indent=1) + "\n", encoding="utf-8")
