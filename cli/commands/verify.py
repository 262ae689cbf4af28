"""`tinyinfer verify`: whether a bundle computes on this machine what it says that is right."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from cli.errors import BadInput, reports_errors
from cli.options import json_option, verbose_option
from cli.report import bytes_text, print_json, table
from tinyinfer.errors import TinyInferError

if TYPE_CHECKING:
    from tinyinfer.bundle.container import Signer
    from tinyinfer.bundle.verify import VerifyReport


@click.command("verify")
@click.argument("bundle", type=click.Path())
@click.option(
    "--key",
    "keys",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="Ed25519 public key (PEM, or 32 bytes) that must have signed it; of several, one (repeatable).",
)
@click.option("--require-signature", is_flag=True, help="Refuse a bundle that nobody signed.")
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="NAME",
    help="Where to run it, best first (repeatable): CPU, OPENCL, opencl:0 or QCOM [default: CPU].",
)
@click.option(
    "--target",
    default="",
    metavar="NAME",
    help="Run this target and no other; an OpenCL one also on a device of another kind.",
)
@click.option(
    "--keep-program",
    is_flag=True,
    help="If it is right, keep in the bundle what the OpenCL driver here built of its source.",
)
@click.option(
    "--sign", "private", type=click.Path(), metavar="KEY", help="Key that signs it again, for --keep-program."
)
@click.option(
    "--bisect",
    is_flag=True,
    help="Show how far each kernel is off what it wrote when the bundle was made, and the first wrong one.",
)
@click.option(
    "--against",
    default="",
    metavar="DEVICE",
    help="With --bisect, compare with what this OpenCL device computes.",
)
@click.option(
    "--threads", type=click.IntRange(min=0), default=0, show_default=True, help="Threads; 0 takes all cores."
)
@json_option
@verbose_option
@reports_errors
def command(
    bundle: str,
    keys: tuple[str, ...],
    require_signature: bool,
    devices: tuple[str, ...],
    target: str,
    keep_program: bool,
    private: str | None,
    bisect: bool,
    against: str,
    threads: int,
    as_json: bool,
    verbose: int,
) -> None:
    """Replay a bundle's golden vectors on this machine. Exit code 1 if an output is out of tolerance."""
    from tinyinfer.bundle.recognise import is_bundle
    from tinyinfer.bundle.verify import verify_bundle

    if against and not bisect:
        raise BadInput("--against is what --bisect compares with")
    if private is not None and not keep_program:
        raise BadInput("--sign signs what --keep-program changes")
    if os.path.isfile(bundle) and not is_bundle(bundle):
        raise BadInput(f"{bundle}: not a bundle (tinyinfer compile makes one of a model)")
    try:
        report = verify_bundle(
            bundle,
            keys,
            require_signature,
            threads,
            devices,
            target,
            keep_program,
            _signer(private),
            bisect,
            against,
        )
    except ValueError as error:
        if isinstance(error, TinyInferError):
            raise
        raise BadInput(f"--device: {error}") from None
    if as_json:
        print_json({"file": bundle, **report.as_dict()})
    else:
        _print(bundle, report)
    raise SystemExit(0 if report.passed else 1)


def _signer(path: str | None) -> Signer | None:
    from tinyinfer.bundle.signature import signer

    return signer(path) if path is not None else None


def _print(bundle: str, report: VerifyReport) -> None:
    signed = f"signed by {report.signed_by}" if report.signed_by else "not signed"
    click.echo(f"{bundle}: target {report.target}, {report.vectors} golden vectors, {signed}")
    for reason in report.rejected:
        click.echo(f"  passed over: {reason}")
    rows = [
        (
            f"  {o.name}",
            f"{o.worst:.3g}",
            f"{o.absolute:.3g}" + (f" + {o.relative:.3g} x |wanted|" if o.relative else ""),
            str(o.elements),
            "good" if not o.failing else f"WRONG in {o.failing}",
        )
        for o in report.outputs
    ]
    click.echo(table(rows, ("  output", "error", "allowed", "elements", ""), right=(1, 3)))
    if report.kernels:
        _print_kernels(report)
    if report.program_bytes:
        click.echo(f"the driver's program is in the bundle now, {bytes_text(report.program_bytes)}")
    click.echo("verified" if report.passed else "FAILED: this machine does not compute what the bundle says")


def _print_kernels(report: VerifyReport) -> None:
    wrong = report.first_wrong
    rows = [
        (
            f"  {k.kernel}",
            f"{k.error:.3g}",
            f"{k.allowed:.3g}",
            "good" if k.passed else "WRONG FIRST" if k is wrong else "wrong",
            ", ".join(k.names) or k.title,
        )
        for k in report.kernels
    ]
    click.echo(table(rows, ("  kernel", "error", "allowed", "", "ONNX nodes"), right=(1, 2)))
    if wrong is not None:
        nodes = ", ".join(wrong.names) or wrong.title
        click.echo(f"the first kernel that is off is {wrong.kernel}, which computes {nodes}")
