"""Bundles against sessions of the model that they are made of: time to the first result, and steady speed.

usage: python -m benchmarks.load [NAME …] [--models DIR] [--threads N …] [--device NAME …] [--repeats N]

Each repeat is a process of its own that imports what a bundle needs, opens the bundle and runs it. `beyond`
is what opening and the first run take besides one more run: (open + first run - median run). Then the bundle
and a session of the model take turns in that process, on the same feeds; `steady` is the bundle's median
over the session's. The least of the repeats is printed of times, the median of ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import catalogue, report
from benchmarks.options import models

COLUMNS = ("model", "threads", "file MB", "open ms", "first ms", "run ms", "beyond ms", "steady")
RUNS = 100


def build(model: catalogue.Model, feeds: Path, devices: list[str], path: Path) -> None:
    """A bundle of the model at the shapes of its feeds; integers that have only one value are fixed."""
    from tinyinfer.bundle.build import BuildOptions, build_bundle
    from tinyinfer.bundle.targets import find_targets

    with np.load(feeds) as arrays:
        shapes = {name: arrays[name].shape for name in arrays.files}
    values = {
        name: spec.value
        for name, spec in model.inputs.items()
        if spec.value is not None and not spec.shape and np.dtype(spec.dtype).kind in "iu"
    }
    options = BuildOptions(shapes=shapes, values=values, golden=False)
    build_bundle(model.path, find_targets(devices), path, options)


def measure(bundle: Path, model: Path, feeds: Path, threads: int) -> dict[str, float]:
    """One repeat, in this process."""
    import tinyinfer
    import tinyinfer.bundle.load
    import tinyinfer.runtime.session  # noqa: F401 - imports are no part of what is measured

    with np.load(feeds) as archive:
        arrays = {name: archive[name] for name in archive.files}
    clock = time.perf_counter

    def taken(call: Any) -> float:
        start = clock()
        call()
        return clock() - start

    options = tinyinfer.SessionOptions()
    options.intra_op_num_threads = threads
    start = clock()
    session = tinyinfer.InferenceSession(bundle, options)
    opened = clock() - start
    first = taken(lambda: session.run(None, arrays))
    run = statistics.median(taken(lambda: session.run(None, arrays)) for _ in range(RUNS))
    for name, array in arrays.items():
        options.add_input_shape(name, array.shape)
    other = tinyinfer.InferenceSession(model, options)
    other.run(None, arrays)
    turns = [
        (taken(lambda: session.run(None, arrays)), taken(lambda: other.run(None, arrays)))
        for _ in range(RUNS)
    ]
    ratio = statistics.median(a for a, _ in turns) / statistics.median(b for _, b in turns)
    return {"open": opened, "first": first, "run": run, "beyond": opened + first - run, "steady": ratio}


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    made = argparse.ArgumentParser(description="Bundles: time to the first result, and steady speed.")
    made.add_argument("names", nargs="*", help="names in DIR/index.json, or .onnx paths [models.txt]")
    made.add_argument("--models", type=Path, default=catalogue.DEFAULT_FOLDER, metavar="DIR")
    made.add_argument("--scratch", type=Path, help="keep filled models here (default: a temporary folder)")
    made.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    made.add_argument("--device", nargs="+", default=["CPU"], help="targets, as `tinyinfer compile` takes")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--one", nargs=3, metavar=("BUNDLE", "MODEL", "FEEDS"), help=argparse.SUPPRESS)
    options = made.parse_args(arguments)
    if options.one:
        opened, source, arrays = map(Path, options.one)
        print(json.dumps(measure(opened, source, arrays, options.threads[0])))
        return 0
    print(report.heading(report.machine(["tinyinfer"])))
    lines = []
    with tempfile.TemporaryDirectory() as folder, models(options) as chosen:
        for model, feeds in chosen:
            bundle = Path(folder) / f"{model.name}.tinf"
            build(model, feeds, options.device, bundle)
            for threads in options.threads:
                command = [sys.executable, "-m", "benchmarks.load", "--threads", str(threads)]
                command += ["--one", str(bundle), str(model.path), str(feeds)]
                found = [
                    json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                    for _ in range(options.repeats)
                ]
                least = [min(f[key] for f in found) * 1e3 for key in ("open", "first", "run", "beyond")]
                ratio = statistics.median(f["steady"] for f in found)
                size = bundle.stat().st_size / 1e6
                lines.append(
                    [model.name, str(threads), f"{size:.1f}", *(f"{x:.2f}" for x in least), f"{ratio:.3f}"]
                )
                print("  ".join(lines[-1]), file=sys.stderr, flush=True)
    print(report.table(list(COLUMNS), lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
