"""Latency on an OpenCL device: models, and their kernels.

usage: python -m benchmarks.opencl MODEL.onnx … [--device opencl:0] [--runs N] [--kernels N] [--check]

Feeds are random numbers in [0, 1), of the model's own shapes with open dimensions 1.

ms      median wall time of a run: feeds to the device, all launches, results back
device  the sum of the kernels' own times, from events; the difference is what launching costs
start   seconds until the first result: compilation too, unless the cache has the program
error   with --check, the largest difference from the numpy oracle, relative to the output's range

`--kernels N` lists the N slowest kernels of each model with what they reach. Exit status 1 if a model failed
or differed by more than 1e-3.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from tinyinfer import InferenceSession
from tinyinfer.backends.base import LaunchTime

TOLERANCE = 1e-3
WARM_SECONDS = 0.5


def feeds_of(session: InferenceSession) -> dict[str, np.ndarray]:
    """A feed for a session."""
    generator = np.random.default_rng(0)
    executable = session.compile()
    return {
        spec.name: np.asarray(generator.random(spec.shape) * (1 if spec.dtype.startswith("f") else 2)).astype(
            spec.dtype
        )
        for spec in executable.inputs
    }


def median_seconds(session: InferenceSession, feeds: dict[str, np.ndarray], runs: int) -> float:
    """Median time of a run, after clocks have risen."""
    until = time.perf_counter() + WARM_SECONDS
    while time.perf_counter() < until:
        session.run(None, feeds)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def largest_error(path: Path, session: InferenceSession, feeds: dict[str, np.ndarray]) -> float:
    """The largest difference from the oracle, relative to the range of the output that has it."""
    wanted = InferenceSession(str(path), providers=["REFERENCE"]).run(None, feeds)
    worst = 0.0
    for got, expected in zip(session.run(None, feeds), wanted):
        if expected.size:
            a, b = np.asarray(got, np.float64), np.asarray(expected, np.float64)
            worst = max(worst, float(np.abs(a - b).max()) / max(float(np.ptp(b)), 1e-30))
    return worst


def kernel_lines(times: list[LaunchTime], count: int) -> list[str]:
    """The slowest kernels, one a line."""
    slowest = sorted(times, key=lambda t: -t.seconds)[:count]
    return [
        f"    {t.seconds * 1e6:9.1f} us {t.flops / max(t.seconds, 1e-9) / 1e9:9.1f} GFLOP/s "
        f"{t.bytes / max(t.seconds, 1e-9) / 1e9:8.1f} GB/s  {t.title}"
        for t in slowest
    ]


def measure(path: Path, device: str, runs: int, kernels: int, check: bool) -> bool:
    """Print the figures of one model; whether it ran and agreed."""
    start = time.perf_counter()
    session = InferenceSession(str(path), providers=[device])
    feeds = feeds_of(session)
    session.run(None, feeds)
    ready = time.perf_counter() - start
    seconds = median_seconds(session, feeds, runs)
    times = session.profile(feeds, max(3, runs // 10))
    error = largest_error(path, session, feeds) if check else 0.0
    checked = f"{error:9.1e}" if check else "        -"
    print(
        f"{path.stem:32s} {seconds * 1e3:9.3f} {sum(t.seconds for t in times) * 1e3:9.3f} {len(times):9d} "
        f"{checked} {ready:8.1f}",
        flush=True,
    )
    for line in kernel_lines(times, kernels):
        print(line)
    return error <= TOLERANCE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--device", default="OPENCL")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--kernels", type=int, default=0)
    parser.add_argument("--check", action="store_true")
    chosen = parser.parse_args()
    print(f"{'model':32s} {'ms':>9s} {'device':>9s} {'launches':>9s} {'error':>9s} {'start s':>8s}")
    fine = True
    for path in chosen.models:
        try:
            fine &= measure(path, chosen.device, chosen.runs, chosen.kernels, chosen.check)
        except Exception as error:  # one model's failure must not hide the others' figures
            print(f"{path.stem:32s} failed: {error}", flush=True)
            fine = False
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
