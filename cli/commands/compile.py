"""`tinyinfer compile`: a model to a bundle, one file that runs without the model, onnx or a compiler."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import click
import numpy as np
from click.core import ParameterSource

from cli.emitters import EMITTERS, CFlags, Request
from cli.errors import BadInput, reports_errors
from cli.feeds import read_array
from cli.options import json_option, parse_shape, parse_size, refuse_halves, verbose_option
from tinyinfer.backends.qcom.options import AUTO, FP16, PRECISIONS


@click.command("compile")
@click.argument("model", type=click.Path())
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    metavar="FILE",
    help="The file, or folder [default: MODEL.tinf, libMODEL.so, MODEL.o, MODEL_c, …].",
)
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="NAME",
    help="Target, best first (repeatable): CPU (this machine's level and a portable one), cpu:LEVEL as"
    " cpu:x86_64-v3, cpu:ARCHITECTURE:CPU as cpu:aarch64:cortex-a76, OPENCL (any such device), opencl:0"
    " (cut for that one), QCOM (any Adreno GPU) or qcom:GPU as qcom:a630 [default: CPU].",
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
@click.option(
    "--tune",
    type=click.FloatRange(min=0, min_open=True),
    is_flag=False,
    flag_value=60.0,
    metavar="[SECONDS]",
    help="Look for better schedules of kernels for this long [without a number: 60]: measured on this"
    " machine, or for an Adreno ranked by what its compiler says.",
)
@click.option(
    "--tune-from",
    type=click.Path(),
    metavar="BUNDLE",
    help="Take the schedules that were found for this bundle; with --tune, look only for what it lacks.",
)
@click.option(
    "--emit", type=click.Choice(list(EMITTERS)), default="bundle", show_default=True, help="What to write."
)
@click.option(
    "--c-weights",
    type=click.Choice(["array", "binary"]),
    default="array",
    show_default=True,
    help="Weights of --emit c: arrays, or a file of bytes that an assembler file links.",
)
@click.option(
    "--c-arena",
    type=click.Choice(["static", "caller"]),
    default="static",
    show_default=True,
    help="Working memory of --emit c: its own, or the caller's at each run.",
)
@click.option(
    "--c-machine",
    type=click.Choice(["general", "microcontroller"]),
    default="general",
    show_default=True,
    help="Processor that --emit c suits its loops to: with vectors, or without.",
)
@click.option(
    "--cc",
    metavar="COMMAND",
    help="C compiler of --emit so and obj [default: the usual one for the target, or Zig's]; the one that "
    "tells the size of --emit c, as 'arm-none-eabi-gcc -mthumb -O2' [default: this machine's].",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default=AUTO,
    show_default=True,
    help="What QCOM stores between kernels: fp16 are halves, fp32 floats, auto halves where they are exact"
    " enough for the golden inputs; sums are floats. Other devices take the model's types: auto or fp32.",
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
    tune: float | None,
    tune_from: str | None,
    emit: str,
    c_weights: str,
    c_arena: str,
    c_machine: str,
    cc: str | None,
    precision: str,
    as_json: bool,
    verbose: int,
) -> None:
    """Compile a model to a bundle: plan, machine code, weights, and vectors with which it verifies itself.

    The bundle runs wherever one of its targets does, and is written whole or not at all. With --emit so
    or obj, it is in a library with a header of typed functions; with --emit c, the model is a folder with C11
    sources for compilers that are not known here; --emit opencl writes the kernels of OPENCL and QCOM.

    Kernels of QCOM targets go through the compiler for their GPUs where TINYINFER_MESA names one; -v shows
    what it says of each.
    """
    from tinyinfer.bundle.build import BuildOptions
    from tinyinfer.bundle.tuned import TuneOptions, read_tunings

    if precision == FP16:
        refuse_halves(devices or ("CPU",))
    if no_golden and inputs:
        raise BadInput("--input gives golden vectors, and --no-golden leaves them out")
    context = click.get_current_context()
    given = {
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    }
    options = BuildOptions(
        shapes=_named("--shape", map(parse_shape, shapes)),
        values=_named("--value", map(_value, values)),
        inputs=_named("--input", map(_input, inputs)),
        golden=not no_golden,
        expanded_weights=stored_weights == "expanded",
        max_bytes=parse_size("--max-memory", max_memory) if max_memory else None,
        signer=_signer(key) if key is not None else None,
        threads=threads,
        tune=TuneOptions(tune, read_tunings(tune_from) if tune_from is not None else None),
        precision=precision,
    )
    progress = _Progress()
    request = Request(
        model,
        output,
        devices,
        options,
        CFlags(c_weights, c_arena, c_machine),
        cc,
        frozenset(given),
        progress.show,
        as_json,
        verbose > 0,
    )
    try:
        EMITTERS[emit](request)
    finally:
        progress.show("")


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
    """One line on a terminal that the next one replaces; nothing elsewhere."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def show(self, text: str) -> None:
        if self._shown:
            click.echo(f"\r\x1b[K{text}", err=True, nl=False)
