"""`tinyinfer compile`: a model to a bundle, one file that runs without the model, onnx or a compiler."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from cli.errors import BadInput, reports_errors
from cli.feeds import read_array
from cli.options import json_option, parse_shape, parse_size, verbose_option
from cli.report import bytes_text, print_json

if TYPE_CHECKING:
    from tinyinfer.bundle.build import BuildReport


@click.command("compile")
@click.argument("model", type=click.Path())
@click.option("-o", "--output", type=click.Path(), metavar="FILE", help="The bundle [default: MODEL.tinf].")
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="NAME",
    help="Target, best first (repeatable): CPU (this machine's level and a portable one), cpu:LEVEL as"
    " cpu:x86_64-v3, or cpu:ARCHITECTURE:CPU as cpu:aarch64:cortex-a76 [default: CPU].",
)
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME:1x3x224x224",
    help="Shape of an input whose dimensions are open (repeatable) [default: open dimensions are 1].",
)
@click.option(
    "--value",
    "values",
    multiple=True,
    metavar="NAME=NUMBER",
    help="The only value that an input will have: a number, a JSON list or a .npy file (repeatable).",
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=FILE",
    help="Input of the first golden vector, a .npy, .npz or .pb file (repeatable) [default: random].",
)
@click.option("--no-golden", is_flag=True, help="No golden vectors: the bundle cannot verify itself.")
@click.option(
    "--stored-weights",
    type=click.Choice(["compact", "expanded"]),
    default="compact",
    show_default=True,
    help="Weights as small as they go, or as they lie in memory.",
)
@click.option("--max-memory", default="", metavar="SIZE", help="Refuse a bundle that takes more (512K, 64M).")
@click.option(
    "--sign", "key", type=click.Path(), metavar="KEY", help="Ed25519 private key (PEM) to sign with."
)
@click.option(
    "--threads",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Threads to compile on; 0: all.",
)
@json_option
@verbose_option
@reports_errors
def command(
    model: str,
    output: str | None,
    devices: tuple[str, ...],
    shapes: tuple[str, ...],
    values: tuple[str, ...],
    inputs: tuple[str, ...],
    no_golden: bool,
    stored_weights: str,
    max_memory: str,
    key: str | None,
    threads: int,
    as_json: bool,
    verbose: int,
) -> None:
    """Compile a model to a bundle: plan, machine code, weights, and vectors with which it verifies itself.

    The bundle runs wherever one of its targets does, and is written whole or not at all.
    """
    from tinyinfer.bundle.build import BuildOptions, build_bundle
    from tinyinfer.bundle.targets import find_targets

    place = Path(output if output is not None else f"{Path(model).stem}.tinf")
    _check_place(place)
    try:
        targets = find_targets(devices or ("CPU",))
    except ValueError as error:
        raise BadInput(f"--device: {error}") from None
    options = BuildOptions(
        shapes=_named("--shape", map(parse_shape, shapes)),
        values=_named("--value", map(_value, values)),
        inputs=_named("--input", map(_input, inputs)),
        golden=not no_golden,
        expanded_weights=stored_weights == "expanded",
        max_bytes=parse_size("--max-memory", max_memory) if max_memory else None,
        signer=_signer(key) if key is not None else None,
        threads=threads,
    )
    if no_golden and inputs:
        raise BadInput("--input gives golden vectors, and --no-golden leaves them out")
    progress = _Progress()
    try:
        report = build_bundle(model, targets, place, options, progress.show)
    finally:
        progress.clear()
    if as_json:
        print_json({"model": os.path.basename(model), "file": str(place), **report.as_dict()})
    else:
        _print(model, place, report)


def _check_place(place: Path) -> None:
    if place.is_dir():
        raise BadInput(f"{place}: is a directory")
    if not place.resolve().parent.is_dir():
        raise BadInput(f"{place}: no such directory")


def _named(flag: str, pairs: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise BadInput(f"{flag} {name}: given twice")
        found[name] = value
    return found


def _split(flag: str, text: str, what: str) -> tuple[str, str]:
    name, separator, rest = text.partition("=")
    if not separator or not name or not rest:
        raise BadInput(f"{flag} {text!r}: expected NAME={what}")
    return name, rest


def _value(text: str) -> tuple[str, Any]:
    name, rest = _split("--value", text, "NUMBER")
    if rest.endswith(".npy"):
        return name, read_array(name, rest)
    try:
        value = json.loads(rest)
        np.asarray(value)
    except ValueError:
        raise BadInput(f"--value {text!r}: expected a number, a JSON list or a .npy file") from None
    return name, value


def _input(text: str) -> tuple[str, np.ndarray]:
    name, path = _split("--input", text, "FILE")
    return name, read_array(name, path)


def _signer(path: str) -> Callable[[bytes], bytes]:
    from tinyinfer.bundle.signature import signer

    return signer(path)


class _Progress:
    """One line on a terminal that is written over; nothing elsewhere."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def show(self, text: str) -> None:
        if self._shown:
            click.echo(f"\r\x1b[K{text}", err=True, nl=False)

    def clear(self) -> None:
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)


def _print(model: str, place: Path, report: BuildReport) -> None:
    click.echo(f"{place}: {os.path.basename(model)}, {bytes_text(report.size)}")
    for note in report.notes:
        click.echo(f"  {note}")
    click.echo("  " + ", ".join(f"{kind} {bytes_text(size)}" for kind, size in report.sections.items()))
    for target in report.targets:
        click.echo(
            f"  {target.name}: {bytes_text(target.peak_bytes)} at peak, {target.launches} launches,"
            f" {bytes_text(target.code_bytes)} of code"
        )
    for error in report.errors:
        click.echo(
            f"  golden {error.name}: differs by {error.seen:.3g} at most, {error.allowed:.3g} allowed"
            + (" (more than its type would be: rounding decides between steps)" if error.widened else "")
        )
