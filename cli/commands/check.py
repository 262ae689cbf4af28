"""`tinyinfer check`: whether a model can run, everything that keeps it from it, and what it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.errors import BadInput, reports_errors
from cli.options import SessionChoice, json_option, session_options, verbose_option
from cli.report import bytes_text, count_text, print_json, shape_text

if TYPE_CHECKING:
    from tinyinfer.frontend.onnx.survey import Blocker
    from tinyinfer.runtime.check import CheckReport


@click.command("check")
@session_options
@json_option
@verbose_option
@reports_errors
def command(choice: SessionChoice, as_json: bool, verbose: int) -> None:
    """Say whether a model can run, what keeps it from it, and what it takes. Nothing is compiled or run.

    Open dimensions are 1 unless --shape gives them. Exit code 1 if the model cannot run.
    """
    from tinyinfer.backends.registry import first_available
    from tinyinfer.runtime.check import check_model

    try:
        device = first_available(list(choice.devices)).name if choice.devices else None
    except ValueError as error:
        raise BadInput(str(error)) from None
    options = choice.options().compile_options()
    report = check_model(choice.model, choice.input_shapes, device, options=options, limits=choice.limits())
    if as_json:
        print_json({"model": choice.title, **report.as_dict()})
    else:
        _print(choice.title, report, verbose)
    raise SystemExit(0 if report.runs else 1)


def _print(title: str, report: CheckReport, verbose: int) -> None:
    count = len(report.blockers)
    verdict = "can run" if report.runs else f"cannot run: {count} blocker{'s' if count > 1 else ''}"
    click.echo(f"{title} {verdict} on {report.device}")
    for blocker in report.blockers:
        click.echo(f"  {_line(blocker)}")
    if report.assumed and any(b.kind == "import" for b in report.blockers):
        shapes = ", ".join(f"{n}:{shape_text(report.shapes.get(n) or ())}" for n in report.assumed)
        click.echo(f"  with open dimensions as in {shapes}; give others with --shape")
    for blocker in report.possible:
        click.echo(f"  perhaps: {_line(blocker)}")
    opsets = ", ".join(f"{domain} {version}" for domain, version in report.opsets.items())
    if report.ir_version:
        click.echo(f"opsets: {opsets}; IR version {report.ir_version}; {report.nodes} nodes")
    sizes = "".join(f"; {dtype} {bytes_text(size)}" for dtype, size in report.weight_bytes.items())
    click.echo(
        f"weights: {report.parameters:,} numbers,"
        f" {bytes_text(sum(report.weight_bytes.values()))}{sizes}"
    )
    if report.segments is None:
        return
    shapes = ", ".join(
        f"{name} {'any' if shape is None else shape_text(shape)}"
        + (" (assumed)" if name in report.assumed else "")
        for name, shape in report.shapes.items()
    )
    if shapes:
        click.echo(f"at {shapes}:")
    click.echo(
        f"  {count_text(report.flops or 0)}FLOP in {report.launches} launches of {report.kernels} kernels,"
        f" {bytes_text(report.peak_bytes or 0)} at peak (weights and arena)"
    )
    if not report.complete:
        click.echo("  not followed to its end: with other data or shapes (--shape) there is more")
    if len(report.segments) == 1:
        return
    click.echo(f"  {len(report.segments)} segments, with zeros for data; the host acts between them:")
    for segment in report.segments:
        what = {
            "host": f"computes {segment.node} on the host",
            "decide": f"looks at what decides {segment.node}",
            "end": "end of the body" if segment.body else "end",
        }[segment.action]
        inside = "in a body: " if segment.body and segment.action != "end" else ""
        click.echo(f"    {segment.launches} launches, {count_text(segment.flops)}FLOP; then {inside}{what}")


def _line(blocker: Blocker) -> str:
    if not blocker.node:
        return blocker.message
    if not blocker.op:
        return blocker.message
    kind = blocker.op if blocker.domain == "ai.onnx" else f"{blocker.domain}.{blocker.op}"
    where = f", in {blocker.where}" if blocker.where else ""
    return f"node '{blocker.node}' ({kind}, opset {blocker.opset}){where}: {blocker.message}"
