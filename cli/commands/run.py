"""`tinyinfer run`: one run, its outputs summarised or written."""

from __future__ import annotations

import tempfile
import time
from errno import ENOENT
from pathlib import Path
from typing import Any

import click
import numpy as np

from cli.errors import BadInput, reports_errors
from cli.feeds import Feeds, gather_feeds
from cli.labels import CLASSIFIER_SIZES, class_count, read_labels, top_classes
from cli.options import (
    InputChoice,
    SessionChoice,
    input_options,
    json_option,
    session_options,
    verbose_option,
)
from cli.report import bytes_text, print_json, seconds_text, shape_text
from cli.values import describe, structure, write_values


@click.command("run")
@session_options
@input_options
@click.option(
    "--labels", "labels_path", type=click.Path(), metavar="FILE", help="Class names: lines, or JSON."
)
@click.option(
    "--output",
    "folder",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Write each output as DIR/NAME.npy (strings and maps: .json).",
)
@json_option
@verbose_option
@reports_errors
def command(
    choice: SessionChoice,
    inputs: InputChoice,
    labels_path: str | None,
    folder: str | None,
    as_json: bool,
    verbose: int,
) -> None:
    """Run a model once and summarise its outputs.

    Inputs come from --input, or from files named after the model: `tinyinfer run model.onnx picture.png`.
    Without any, all inputs are random numbers.
    """
    labels = read_labels(labels_path) if labels_path else None
    session = choice.open()
    feeds = gather_feeds(session, inputs, choice.input_shapes, fill_missing=False)
    with feeds.explaining():
        executable = session.prepare(feeds.arrays)
    place = _make_folder(folder) if folder is not None else None
    if verbose or not as_json:
        for name, note in feeds.notes.items():
            click.echo(f"input {name}: {describe(feeds.arrays[name])}, {note}", err=as_json)
    if not as_json:
        click.echo(f"device {session.get_providers()[0]}, {bytes_text(executable.peak_bytes)} at peak")
    start = time.perf_counter()
    results = session.run(None, feeds.arrays)
    seconds = time.perf_counter() - start
    names = [output.name for output in session.get_outputs()]
    outputs = [_summary(name, value, labels, feeds) for name, value in zip(names, results)]
    if place is not None:
        write_values(place, names, results)
    if as_json:
        print_json(
            {
                "model": choice.title,
                "device": session.get_providers()[0],
                "seconds": seconds,
                "peak_bytes": executable.peak_bytes,
                "inputs": feeds.notes,
                "outputs": outputs,
            }
        )
        return
    for output in outputs:
        _print(output)
    click.echo(f"ran in {seconds_text(seconds)}")


def _summary(name: str, value: Any, labels: list[str] | None, feeds: Feeds) -> dict[str, Any]:
    summary: dict[str, Any] = {"name": name, **structure(value)}
    if not isinstance(value, np.ndarray):
        return summary | {"text": describe(value)}
    if value.size and value.dtype.kind in "biuf":
        wide = value.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            summary |= {"min": float(wide.min()), "mean": float(wide.mean()), "max": float(wide.max())}
        bad = int(value.size - np.isfinite(wide).sum())
        if bad:
            summary["not_finite"] = bad
        if value.size <= 8:
            summary["values"] = value.reshape(-1).tolist()
        classes = class_count(value.shape)
        known = labels is not None or feeds.picture or classes in CLASSIFIER_SIZES
        if classes is not None and known and not bad and value.dtype.kind == "f":
            summary["top"] = [
                {"class": c.index, "probability": c.probability, "label": c.label}
                for c in top_classes(value, labels)
            ]
    return summary


def _print(output: dict[str, Any]) -> None:
    if "shape" not in output:
        click.echo(f"output {output['name']}: {output['text']}")
        _print_parts(output)
        return
    text = f"output {output['name']}: {shape_text(output['shape'])} {output['dtype']}"
    if "min" in output:
        text += f", min {output['min']:.6g}, mean {output['mean']:.6g}, max {output['max']:.6g}"
    if "not_finite" in output:
        text += f", {output['not_finite']} not finite"
    if "values" in output and "top" not in output:
        text += f", values {output['values']}"
    click.echo(text)
    for entry in output.get("top", ()):
        label = f"  {entry['label']}" if entry["label"] is not None else ""
        click.echo(f"  {entry['probability']:7.2%}  class {entry['class']}{label}")


def _print_parts(output: dict[str, Any]) -> None:
    """The entries of a map, also of those in a sequence."""
    for element in output.get("elements", ()):
        _print_parts(element)
    if output.get("type") == "map":
        shown = output["entries"]
        entries = [
            f"{key}: {value:.6g}" if isinstance(value, float) else f"{key}: {value}"
            for key, value in shown.items()
        ]
        click.echo("  " + ", ".join(entries) + (", …" if output["length"] > len(shown) else ""))


def _make_folder(folder: str) -> Path:
    """`folder`, made if need be; BadInput where files cannot be written there."""
    place = Path(folder)
    try:
        if not folder:
            raise FileNotFoundError(ENOENT, "an empty path")
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise BadInput(f"--output {folder!r}: {error.strerror}") from None
    return place
