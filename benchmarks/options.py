"""The command-line options that all measuring programs share."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import catalogue
from benchmarks.engines import ENGINES


def parser(description: str) -> argparse.ArgumentParser:
    """names, --models, --scratch, --threads, --engines, --json."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument(
        "names", nargs="*", help="names in DIR/index.json, or .onnx paths (default: models.txt)"
    )
    made.add_argument("--models", type=Path, default=catalogue.DEFAULT_FOLDER, metavar="DIR")
    made.add_argument("--scratch", type=Path, help="keep filled models here (default: a temporary folder)")
    made.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    made.add_argument("--engines", nargs="+", choices=list(ENGINES), default=["tinyinfer", "onnxruntime"])
    made.add_argument("--json", type=Path, help="also write every figure to this file")
    return made


@contextmanager
def models(options: argparse.Namespace) -> Iterator[Iterator[tuple[catalogue.Model, Path]]]:
    """Each chosen model, with its feeds in an .npz file that lives until the next one.

    Ends the program with status 2 and one line of why if any of them cannot be found.
    """
    try:
        found = [catalogue.find(name, options.models) for name in options.names or catalogue.default_names()]
    except (LookupError, OSError) as error:
        print(error.args[0] if isinstance(error, LookupError) else error, file=sys.stderr)
        raise SystemExit(2) from error
    with tempfile.TemporaryDirectory() as folder:
        yield _each(found, options.scratch or Path(folder), Path(folder) / "feeds.npz")


def _each(found: list[catalogue.Model], scratch: Path, feeds: Path) -> Iterator[tuple[catalogue.Model, Path]]:
    for model in found:
        arrays: dict[str, Any] = dict(model.feeds())
        np.savez(feeds, **arrays)
        yield catalogue.filled(model, scratch), feeds
