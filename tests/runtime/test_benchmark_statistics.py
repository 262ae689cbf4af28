"""Samples and their statistics, and the machine's peaks."""

import numpy as np
import pytest

from tinyinfer.runtime.benchmark import collect, peak_resident_bytes, summarise
from tinyinfer.runtime.peaks import measure_peaks


def test_statistics_of_known_samples():
    found = summarise([0.001, 0.002, 0.003, 0.004], (50.0, 90.0))
    assert found.runs == 4 and found.minimum == 0.001 and found.maximum == 0.004
    assert found.mean == pytest.approx(0.0025) and found.median == pytest.approx(0.0025)
    assert found.percentiles[50.0] == pytest.approx(0.0025)
    assert found.percentiles[90.0] == pytest.approx(np.percentile([0.001, 0.002, 0.003, 0.004], 90))
    assert found.throughput == pytest.approx(400)
    assert found.variation == pytest.approx(np.std([1, 2, 3, 4], ddof=1) / 2.5) and found.unstable


def test_one_sample_has_no_variation():
    found = summarise([0.5])
    assert found.variation == 0 and not found.unstable
    with pytest.raises(ValueError):
        summarise([])


def test_runs_and_warmup_are_counted():
    calls = []
    samples = collect(lambda: calls.append(1), warmup=3, runs=5, duration=0)
    assert len(samples) == 5 and len(calls) == 8 and min(samples) >= 0


def test_a_duration_gives_at_least_three_samples():
    assert len(collect(lambda: None, warmup=0, runs=None, duration=0.0)) == 3


def test_resident_memory_is_plausible():
    peak = peak_resident_bytes()
    assert peak is None or 1 << 20 < peak < 1 << 44


def test_peaks_are_plausible():
    peaks = measure_peaks(1)
    assert peaks.threads == 1 and peaks.gflops == peaks.gflops_one_core
    assert 0.5 < peaks.gflops < 1000 and 0.2 < peaks.gbytes_per_second < 2000
    assert measure_peaks(1) is peaks
