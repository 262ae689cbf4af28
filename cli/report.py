"""Numbers, tables and JSON as the commands print them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import click
import numpy as np


def print_json(value: Any) -> None:
    """One JSON document on standard output; NaN and infinities become null and strings, which JSON lacks."""
    click.echo(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def plain(value: Any) -> Any:
    """A value in JSON's types; NaN becomes null, and infinities strings."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def bytes_text(count: int | float) -> str:
    """A size for people: 14.2 MB (powers of 1000)."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def count_text(count: int | float) -> str:
    """A count for people: 12.3 M, 8.18 G (powers of 1000); small ones as they are, with a blank behind."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.3g} {unit}"
    return f"{count:.0f} "


def seconds_text(seconds: float) -> str:
    """A time for people: 1.23 ms."""
    for scale, unit in ((1.0, "s"), (1e3, "ms")):
        if seconds * scale >= 1:
            return (
                f"{seconds * scale:.3g} {unit}" if seconds * scale < 1000 else f"{seconds * scale:.0f} {unit}"
            )
    return f"{seconds * 1e6:.3g} us"


def shape_text(shape: Sequence[Any]) -> str:
    """1x3x224x224, ? for an open dimension, "scalar" for rank 0."""
    return "x".join("?" if size is None else str(size) for size in shape) or "scalar"


def table(rows: Sequence[Sequence[str]], header: Sequence[str], right: Sequence[int] = ()) -> str:
    """Aligned columns; those numbered in `right` are flush right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    )
