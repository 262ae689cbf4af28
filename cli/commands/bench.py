"""`tinyinfer bench`: session creation, first run and steady state, each measured by itself."""

from __future__ import annotations

import json
import re
import time
from importlib import import_module
from typing import Any

import click
import numpy as np

from cli.errors import BadInput, reports_errors
from cli.feeds import gather_feeds
from cli.options import (
    InputChoice,
    SessionChoice,
    input_options,
    json_option,
    session_options,
    verbose_option,
)
from cli.report import bytes_text, print_json, seconds_text, table
from cli.values import describe

PROFILE_RUNS = 20


@click.command("bench")
@session_options
@input_options
@click.option(
    "--duration", type=click.FloatRange(min=0), default=2.0, show_default=True, help="Seconds to measure."
)
@click.option("--runs", type=click.IntRange(min=1), help="Runs to measure, in place of --duration.")
@click.option(
    "--warmup", type=click.IntRange(min=0), default=5, show_default=True, help="Runs before measuring."
)
@click.option(
    "--percentile",
    "percentiles",
    type=click.FloatRange(0, 100),
    multiple=True,
    help="Percentile to report (repeatable) [default: 90 95 99].",
)
@click.option("--profile", is_flag=True, help="One row per kernel, against the machine's measured peaks.")
@click.option(
    "--compare", "baseline", type=click.Path(), metavar="OLD.json", help="Compare with an earlier --json."
)
@click.option(
    "--fail-over", metavar="5%", help="With --compare: exit code 1 if the median is slower by more."
)
@json_option
@verbose_option
@reports_errors
def command(
    choice: SessionChoice,
    inputs: InputChoice,
    duration: float,
    runs: int | None,
    warmup: int,
    percentiles: tuple[float, ...],
    profile: bool,
    baseline: str | None,
    fail_over: str | None,
    as_json: bool,
    verbose: int,
) -> None:
    """Measure session creation, first run and steady state. Inputs without a file are random."""
    # imports are no part of what is measured
    from tinyinfer.bundle.recognise import is_bundle
    from tinyinfer.runtime import benchmark

    import_module("tinyinfer.bundle.load" if is_bundle(choice.model) else "tinyinfer.frontend.onnx")

    limit = _parse_limit(fail_over, baseline)
    old = _read_baseline(baseline) if baseline else None
    start = time.perf_counter()
    session = choice.open()
    creation = time.perf_counter() - start
    feeds = gather_feeds(session, inputs, choice.input_shapes, fill_missing=True)
    if verbose:
        for name, note in feeds.notes.items():
            click.echo(f"input {name}: {note}", err=True)
    start = time.perf_counter()
    with feeds.explaining():
        session.run(None, feeds.arrays)
    first = time.perf_counter() - start
    executable = session.prepare(feeds.arrays)
    if not as_json:
        device, peak = session.get_providers()[0], bytes_text(executable.peak_bytes)
        click.echo(f"{choice.title} on {device}: {peak} at peak")
        click.echo(f"session creation {seconds_text(creation)}, first run {seconds_text(first)}")
    samples = benchmark.collect(lambda: session.run(None, feeds.arrays), warmup, runs, duration)
    steady = benchmark.summarise(samples, percentiles or (90.0, 95.0, 99.0))
    resident = benchmark.peak_resident_bytes()
    result: dict[str, Any] = {
        "model": choice.title,
        "device": session.get_providers()[0],
        "threads": choice.threads,
        "inputs": {
            name: list(value.shape) if isinstance(value, np.ndarray) else describe(value)
            for name, value in feeds.arrays.items()
        },
        "creation_seconds": creation,
        "first_run_seconds": first,
        "peak_bytes": executable.peak_bytes,
        "peak_resident_bytes": resident,
        "runs": steady.runs,
        "seconds": {
            "min": steady.minimum,
            "mean": steady.mean,
            "median": steady.median,
            "max": steady.maximum,
            **{f"p{p:g}": value for p, value in steady.percentiles.items()},
        },
        "runs_per_second": steady.throughput,
        "variation": steady.variation,
        "unstable": steady.unstable,
    }
    if profile:
        result["profile"] = _profile(session.profile(feeds.arrays, PROFILE_RUNS), choice.threads)
    change = _change(result, old) if old is not None else None
    if change is not None:
        result["change"] = change
    slower = change is not None and limit is not None and change > limit
    if as_json:
        print_json(result)
    else:
        _print(result, baseline)
    if steady.unstable:
        click.echo(
            f"warning: runs vary by {steady.variation:.0%} (coefficient of variation):"
            f" the machine was not quiet, or was throttled; repeat before you believe these figures",
            err=True,
        )
    raise SystemExit(1 if slower else 0)


def _print(result: dict[str, Any], baseline: str | None) -> None:
    cells = [(key, seconds_text(value)) for key, value in result["seconds"].items()]
    click.echo(table([[value for _, value in cells]], [key for key, _ in cells], right=range(len(cells))))
    resident = result["peak_resident_bytes"]
    click.echo(
        f"{result['runs']} runs, {result['runs_per_second']:.4g} runs/s"
        + (f", process peak {bytes_text(resident)}" if resident else "")
    )
    if "profile" in result:
        _print_profile(result["profile"])
    if "change" in result:
        click.echo(f"median {result['change']:+.1%} against {baseline}")


def _profile(launches: list[Any], threads: int) -> dict[str, Any]:
    """Kernel times with their share of the sum and their rates; the peaks are measured here and now."""
    from tinyinfer.runtime.peaks import measure_peaks

    peaks = measure_peaks(threads)
    total = sum(launch.seconds for launch in launches) or 1.0
    rows = [
        {
            "kernel": launch.title,
            "host": launch.title.startswith("host: "),
            "onnx": list(launch.origin),
            "seconds": launch.seconds,
            "share": launch.seconds / total,
            "gflops": launch.flops / launch.seconds / 1e9 if launch.seconds else 0.0,
            "gbytes_per_second": launch.bytes / launch.seconds / 1e9 if launch.seconds else 0.0,
        }
        for launch in launches
    ]
    return {
        "peaks": {
            "gflops_one_core": peaks.gflops_one_core,
            "gflops": peaks.gflops,
            "threads": peaks.threads,
            "gbytes_per_second": peaks.gbytes_per_second,
        },
        "seconds": total,
        "kernels": rows,
    }


def _print_profile(profile: dict[str, Any]) -> None:
    peaks = profile["peaks"]
    click.echo(
        f"\nkernels: {seconds_text(profile['seconds'])} in all; measured peaks:"
        f" {peaks['gflops_one_core']:.0f} GFLOP/s on one core,"
        f" {peaks['gflops']:.0f} on {peaks['threads']} threads,"
        f" {peaks['gbytes_per_second']:.1f} GB/s from memory"
    )
    rows = []
    for row in profile["kernels"]:
        names = ", ".join(row["onnx"])
        rates = (
            f"{row['gflops']:.1f}",
            f"{row['gflops'] / peaks['gflops']:.0%}",
            f"{row['gbytes_per_second']:.1f}",
            f"{row['gbytes_per_second'] / peaks['gbytes_per_second']:.0%}",
        )
        rows.append(
            (
                seconds_text(row["seconds"]),
                f"{row['share']:.1%}",
                *(("",) * 4 if row["host"] else rates),
                row["kernel"],
                names if len(names) <= 80 else names[:77] + "...",
            )
        )
    header = ("time", "share", "GFLOP/s", "of peak", "GB/s", "of peak", "kernel", "ONNX nodes")
    click.echo(table(rows, header, right=range(6)))


def _parse_limit(text: str | None, baseline: str | None) -> float | None:
    """`5%` or `0.05` as 0.05. BadInput for anything else, or without --compare."""
    if text is None:
        return None
    if baseline is None:
        raise BadInput("--fail-over needs --compare OLD.json")
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text.strip())
    if match is None:
        raise BadInput(f"--fail-over {text!r}: expected a part, for example 5%")
    return float(match[1]) / (100 if match[2] else 1)


def _read_baseline(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        try:
            old = json.load(file)
            float(old["seconds"]["median"])
        except (ValueError, KeyError, TypeError):
            raise BadInput(f"{path}: no output of `tinyinfer bench --json`") from None
    return old


def _change(new: dict[str, Any], old: dict[str, Any]) -> float:
    """How much slower the median became, as a part of the old one."""
    before = float(old["seconds"]["median"])
    return new["seconds"]["median"] / before - 1 if before else 0.0
