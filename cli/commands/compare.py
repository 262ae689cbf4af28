"""`tinyinfer compare`: a device's outputs against the oracle's and onnxruntime's, on the same inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
from cli.report import print_json, table
from cli.values import describe

if TYPE_CHECKING:
    from tinyinfer.runtime.session import InferenceSession

ORACLE, ONNXRUNTIME = "oracle", "onnxruntime"


@click.command("compare")
@session_options
@input_options
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help="Largest error of float outputs, as a part of their range [default: 1e-4, float16 2e-2].",
)
@click.option(
    "--against",
    type=click.Choice([ORACLE, ONNXRUNTIME]),
    multiple=True,
    help="What to compare with [default: the oracle, and onnxruntime where it is installed].",
)
@click.option(
    "--bisect",
    is_flag=True,
    help="Compare every value that kernels store with the oracle's, and name the first that differs.",
)
@json_option
@verbose_option
@reports_errors
def command(
    choice: SessionChoice,
    inputs: InputChoice,
    tolerance: float | None,
    against: tuple[str, ...],
    bisect: bool,
    as_json: bool,
    verbose: int,
) -> None:
    """Compare a device's outputs with the oracle's and onnxruntime's. Exit code 1 if they differ."""
    from tinyinfer.runtime.comparison import compare_values

    session = choice.open()
    feeds = gather_feeds(session, inputs, choice.input_shapes, fill_missing=True)
    with feeds.explaining():
        actual = session.run(None, feeds.arrays)
    if bisect:
        raise SystemExit(_bisect(choice, session, feeds.arrays, tolerance, as_json))
    names = [output.name for output in session.get_outputs()]
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for reference in against or (ORACLE, ONNXRUNTIME):
        if reference == ORACLE:
            expected: list[Any] | None = choice.open(("REFERENCE",)).run(None, feeds.arrays)
        else:
            expected = _onnxruntime(choice.model, feeds.arrays, names, bool(against), notes)
        if expected is None:
            continue
        for name, a, e in zip(names, actual, expected):
            found = compare_values(a, e, tolerance)
            rows.append(
                {
                    "against": reference,
                    "output": name,
                    "shape": list(a.shape) if isinstance(a, np.ndarray) else None,
                    "type": describe(a),
                    "max_abs_error": found.absolute,
                    "range_error": found.relative,
                    "passed": found.passed,
                    "problem": found.problem,
                }
            )
    good = all(row["passed"] for row in rows)
    if as_json:
        print_json(
            {
                "model": choice.title,
                "device": session.get_providers()[0],
                "tolerance": tolerance,
                "passed": good,
                "notes": notes,
                "results": rows,
            }
        )
    else:
        cells = [
            (
                r["against"],
                r["output"],
                r["type"],
                f"{r['max_abs_error']:.3e}",
                f"{r['range_error']:.3e}",
                "ok" if r["passed"] else f"DIFFERS: {r['problem']}",
            )
            for r in rows
        ]
        header = ("against", "output", "type", "max abs error", "of range", "verdict")
        click.echo(table(cells, header, right=(3, 4)))
        for note in notes:
            click.echo(note)
    raise SystemExit(0 if good else 1)


def _bisect(
    choice: SessionChoice,
    session: InferenceSession,
    arrays: dict[str, Any],
    tolerance: float | None,
    as_json: bool,
) -> int:
    """The exit code after a row for each stored value, of the model's first segment."""
    from tinyinfer.backends.registry import find_device
    from tinyinfer.runtime.bisect import compare_stored

    graph = session.graph({name: np.shape(array) for name, array in arrays.items()})
    device = find_device(session.get_providers()[0])
    options = session.get_session_options().compile_options()
    values = compare_stored(graph, device, options, arrays, tolerance, choice.threads)
    first = next((value for value in values if not value.found.passed), None)
    rows = [
        {
            "computes": list(value.names) or [value.op],
            "shape": list(value.shape),
            "max_abs_error": value.found.absolute,
            "range_error": value.found.relative,
            "passed": value.found.passed,
            "problem": value.found.problem,
        }
        for value in values
    ]
    if as_json:
        first_row = rows[values.index(first)] if first is not None else None
        print_json({"model": choice.title, "device": device.name, "values": rows, "first": first_row})
    else:
        verdicts = ["ok" if v.found.passed else "DIFFERS FIRST" if v is first else "differs" for v in values]
        lines = [
            (f"{v.found.absolute:.3e}", f"{v.found.relative:.3e}", verdict, ", ".join(v.names) or v.op)
            for v, verdict in zip(values, verdicts)
        ]
        click.echo(table(lines, ("max abs error", "of range", "verdict", "ONNX nodes"), right=(0, 1)))
        if first is not None:
            click.echo(f"the first value that differs is that of {', '.join(first.names) or first.op}")
    return 0 if first is None else 1


def _onnxruntime(
    model: str, arrays: dict[str, Any], names: list[str], wanted: bool, notes: list[str]
) -> list[Any] | None:
    """onnxruntime's outputs; None with a note where it is not installed or cannot run the model."""
    try:
        import onnxruntime
    except ImportError:
        if wanted:
            raise BadInput("onnxruntime is not installed (pip install 'tinyinfer[bench]')") from None
        notes.append("onnxruntime is not installed: compared with the oracle only")
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return session.run(names, arrays)
    except Exception as error:  # onnxruntime's classes share no base but Exception
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        if wanted:
            raise BadInput(f"onnxruntime cannot run this: {line}") from None
        notes.append(f"onnxruntime cannot run this: {line}")
        return None
