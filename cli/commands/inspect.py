"""`tinyinfer inspect`: what an ONNX file or a bundle holds, without compiling or running it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli.errors import BadInput, reports_errors
from cli.options import json_option, verbose_option
from cli.report import bytes_text, print_json, shape_text, table

if TYPE_CHECKING:
    from tinyinfer.frontend.onnx import OnnxModel


@click.command("inspect")
@click.argument("model", type=click.Path())
@click.option("--target", metavar="NAME", help="Of a bundle: show the launches of this target.")
@json_option
@verbose_option
@reports_errors
def command(model: str, target: str | None, as_json: bool, verbose: int) -> None:
    """Show a model's inputs, outputs, operators and metadata; a bundle's sections, targets and launches."""
    from tinyinfer.bundle.recognise import is_bundle

    if is_bundle(model):
        from cli.bundles import inspect_bundle

        inspect_bundle(model, target, as_json, verbose)
        return
    if target is not None:
        raise BadInput(f"--target {target}: {model} is no bundle")
    from tinyinfer.frontend.onnx import load_model

    facts = _facts(load_model(model))
    if as_json:
        print_json(facts)
        return
    for title, key in (
        ("inputs", "inputs"),
        ("outputs", "outputs"),
        ("overridable initializers", "overridable"),
    ):
        rows = [
            (f"  {v['name']}", v["type"], "any" if v["shape"] is None else shape_text(v["shape"]))
            for v in facts[key]
        ]
        if rows:
            click.echo(f"{title}\n" + table(rows, ("  name", "type", "shape")))
    opsets = ", ".join(f"{domain} {version}" for domain, version in facts["opsets"].items())
    click.echo(f"opsets: {opsets}; IR version {facts['ir_version']}")
    click.echo(
        f"weights: {facts['parameters']} numbers in {facts['tensors']} tensors,"
        f" {bytes_text(facts['parameter_bytes'])}"
        + "".join(f"; {dtype} {bytes_text(size)}" for dtype, size in facts["bytes_by_dtype"].items())
    )
    counts = ", ".join(f"{op} {count}" for op, count in facts["operators"].items())
    click.echo(f"operators ({facts['nodes']}): {counts}")
    for blocker in facts["blockers"]:
        click.echo(f"not supported: {blocker}")
    for key in ("producer", "domain", "version", "graph", "description"):
        if facts[key]:
            click.echo(f"{key}: {facts[key]}")
    for key, value in facts["metadata"].items():
        text = str(value)
        click.echo(f"metadata {key}: {text if verbose or len(text) <= 200 else text[:200] + ' …'}")


def _facts(model: OnnxModel) -> dict[str, Any]:
    from tinyinfer.frontend.onnx import blockers
    from tinyinfer.frontend.onnx.contents import count_operators, count_weights

    def values(specs: list[Any]) -> list[dict[str, Any]]:
        return [
            {"name": s.name, "type": s.onnx_type, "shape": None if s.shape is None else list(s.shape)}
            for s in specs
        ]

    operators, weights = count_operators(model), count_weights(model)
    return {
        "inputs": values(model.inputs),
        "outputs": values(model.outputs),
        "overridable": values(model.overridable),
        "opsets": dict(model.opsets),
        "ir_version": model.ir_version,
        "nodes": sum(operators.values()),
        "operators": dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
        "tensors": weights.tensors,
        "parameters": weights.parameters,
        "parameter_bytes": weights.bytes,
        "bytes_by_dtype": weights.bytes_by_dtype,
        "blockers": blockers(model),
        "producer": " ".join(filter(None, (model.producer_name, model.producer_version))),
        "domain": model.domain,
        "version": model.version,
        "graph": model.graph_name,
        "description": model.description or model.graph_description,
        "metadata": dict(model.custom_metadata),
    }
