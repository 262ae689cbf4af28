"""Bundles as `tinyinfer inspect` prints them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from cli.adreno import islands_text, summary_text
from cli.errors import BadInput
from cli.report import bytes_text, print_json, shape_text, table
from tinyinfer.bundle.container import Container
from tinyinfer.bundle.describe import describe_bundle

SHOWN = 12
"""Launches that are listed without -v."""


def inspect_bundle(path: str, target: str | None, as_json: bool, verbose: int) -> None:
    """Print what the bundle at `path` holds; BadInput for a target that it does not hold."""
    try:
        facts = describe_bundle(Container.open(path), target)
    except LookupError as error:
        raise BadInput(f"--target: {error.args[0]}") from None
    if as_json:
        print_json(facts)
        return
    manifest = facts["manifest"]
    _print_head(facts, manifest)
    for title in ("inputs", "outputs"):
        rows = [_value_row(entry) for entry in manifest.get(title, ())]
        if rows:
            click.echo(f"{title}\n" + table(rows, ("  name", "type", "shape", "")))
    rows = [
        (
            f"  {s['kind']}",
            s["target"] or "",
            bytes_text(s["size"]),
            "elsewhere" if s["held"] else str(s["offset"]),
        )
        for s in facts["sections"]
    ]
    click.echo("sections\n" + table(rows, ("  kind", "target", "size", "offset"), right=(2, 3)))
    click.echo("targets, best first")
    for entry in facts["targets"]:
        _print_target(entry, manifest, verbose > 0)
    _print_launches(facts, verbose)


def _print_head(facts: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    model, compiler = manifest.get("model", {}), manifest.get("compiler", {})
    click.echo(f"bundle {facts['version']}, {bytes_text(facts['size'])}")
    click.echo(
        f"model {model.get('name') or '(no name)'}, sha256 {model.get('sha256', 'unknown')}"
        + (f", licence {model['license']}" if model.get("license") else "")
    )
    opsets = ", ".join(f"{domain or 'ai.onnx'} {v}" for domain, v in model.get("opsets", {}).items())
    click.echo(
        f"opsets: {opsets}; compiled by {compiler.get('name', '?')} {compiler.get('version', '?')}"
        f" with LLVM {compiler.get('llvm', '?')}"
    )
    signed = facts["signed_by"]
    click.echo(
        f"signed by {signed} (valid; whether to trust that key is up to you)" if signed else "not signed"
    )
    if manifest.get("numerics"):
        click.echo(f"numerics: {manifest['numerics']}")


def _value_row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    only = f"only {entry['value']}" if "value" in entry else ""
    return f"  {entry.get('name')}", str(entry.get("dtype")), shape_text(entry.get("shape", ())), only


def _print_target(entry: Mapping[str, Any], manifest: Mapping[str, Any], verbose: bool) -> None:
    named = [t for t in manifest.get("targets", ()) if t.get("name") == entry["name"]]
    said: Mapping[str, Any] = named[0] if named else {}
    verdict = "runs here" if entry["runs_here"] else entry["reason"]
    if entry["chosen"]:
        verdict = "taken here"
    features = ", ".join(entry["features"]) or entry["architecture"]
    click.echo(
        f"  {entry['name']}: {verdict}; {bytes_text(said.get('peak_bytes', 0))} at peak,"
        f" {bytes_text(entry['code_bytes'])} of code for {features}"
    )
    if "check" in said:
        click.echo(f"    {summary_text(said['check'])}")
    if "islands" in said:
        click.echo(f"    {islands_text(said['islands'], verbose)}")
    elif "storage" in said:
        click.echo(f"    values and weights are stored in {said['storage']}")
    if "check" not in said and entry["name"].startswith("qcom:"):
        click.echo("    its kernels were not compiled for the GPU when it was made")


def _print_launches(facts: Mapping[str, Any], verbose: int) -> None:
    launches: Sequence[Mapping[str, Any]] = facts["launches"]
    if not launches:
        return
    ordered = sorted(launches, key=lambda launch: -launch["weight_bytes"] - launch["code_bytes"])
    shown = launches if verbose else ordered[:SHOWN]
    rows = []
    for launch in shown:
        nodes = ", ".join(launch["nodes"])
        rows.append(
            (
                bytes_text(launch["weight_bytes"]),
                bytes_text(launch["code_bytes"]),
                launch["kernel"],
                launch["title"] if len(nodes) > 80 or not nodes else nodes,
            )
        )
    some = "" if len(shown) == len(launches) else f", the largest {len(shown)} (-v: all)"
    click.echo(f"\nlaunches of {facts['shown_target']}: {len(launches)}{some}")
    click.echo(table(rows, ("weights", "code", "kernel", "ONNX nodes"), right=(0, 1)))
