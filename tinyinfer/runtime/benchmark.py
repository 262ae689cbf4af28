"""Measuring a function that is called again and again: when to stop, and what the samples say."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

UNSTABLE = 0.10
"""Coefficient of variation from which a machine counts as unstable."""


@dataclass(frozen=True)
class Summary:
    """Statistics of samples in seconds. `percentiles` maps 90.0 to P90; `variation` is std / mean."""

    runs: int
    minimum: float
    mean: float
    median: float
    maximum: float
    percentiles: dict[float, float]
    variation: float

    @property
    def throughput(self) -> float:
        """Runs per second at the mean."""
        return 1 / self.mean if self.mean else math.inf

    @property
    def unstable(self) -> bool:
        """Whether the samples vary so much that their figures should not be trusted."""
        return self.variation > UNSTABLE


def collect(call: Callable[[], Any], warmup: int, runs: int | None, duration: float) -> list[float]:
    """Seconds of each call after `warmup` calls: `runs` of them, or as many as fit in `duration` seconds (at
    least 3).
    """
    for _ in range(warmup):
        call()
    samples: list[float] = []
    clock = time.perf_counter
    end = clock() + duration
    while len(samples) < runs if runs is not None else clock() < end or len(samples) < 3:
        start = clock()
        call()
        samples.append(clock() - start)
    return samples


def summarise(samples: Sequence[float], percentiles: Sequence[float] = (90.0, 95.0, 99.0)) -> Summary:
    """The statistics of samples (at least one); percentiles by linear interpolation, as numpy does."""
    values = np.asarray(samples, dtype=np.float64)
    if not values.size:
        raise ValueError("no samples")
    mean = float(values.mean())
    return Summary(
        runs=len(values),
        minimum=float(values.min()),
        mean=mean,
        median=float(np.median(values)),
        maximum=float(values.max()),
        percentiles={p: float(np.percentile(values, p)) for p in percentiles},
        variation=float(values.std(ddof=1)) / mean if len(values) > 1 and mean else 0.0,
    )


def peak_resident_bytes() -> int | None:
    """The most memory that this process has had resident, in bytes; None where the system does not say."""
    import sys

    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
