"""`tinyinfer inspect`: what an ONNX file holds, without compiling it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from cli.errors import reports_errors
from cli.options import json_option, verbose_option
from cli.report import bytes_text, print_json, shape_text, table

if TYPE_CHECKING:
    from tinyinfer.frontend.onnx import OnnxModel


@click.command("inspect")
@click.argument("model", type=click.Path())
@json_option
@verbose_option
@reports_errors
def command(model: str, as_json: bool, verbose: int) -> None:
    """Show a model's inputs, outputs, operators and metadata."""
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
    from onnx import TensorProto

    from tinyinfer.frontend.onnx import blockers

    def values(specs: list[Any]) -> list[dict[str, Any]]:
        return [
            {"name": s.name, "type": s.onnx_type, "shape": None if s.shape is None else list(s.shape)}
            for s in specs
        ]

    operators: Counter[str] = Counter()
    elements: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    tensors = 0
    graphs = [model.proto.graph]
    while graphs:
        graph = graphs.pop()
        held = list(graph.initializer)
        for node in graph.node:
            domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}."
            operators[domain + node.op_type] += 1
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    graphs.append(attribute.g)
                graphs.extend(attribute.graphs)
                if node.op_type == "Constant" and attribute.HasField("t"):
                    held.append(attribute.t)
        for tensor in held:
            count = 1
            for size in tensor.dims:
                count *= size
            known = tensor.data_type in TensorProto.DataType.values()
            dtype = TensorProto.DataType.Name(tensor.data_type).lower() if known else "unknown"
            elements[dtype] += count
            sizes[dtype] += (count * _bits(dtype) + 7) // 8
            tensors += 1
    return {
        "inputs": values(model.inputs),
        "outputs": values(model.outputs),
        "overridable": values(model.overridable),
        "opsets": dict(model.opsets),
        "ir_version": model.ir_version,
        "nodes": sum(operators.values()),
        "operators": dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
        "tensors": tensors,
        "parameters": sum(elements.values()),
        "parameter_bytes": sum(sizes.values()),
        "bytes_by_dtype": dict(sizes.most_common()),
        "blockers": blockers(model),
        "producer": " ".join(filter(None, (model.producer_name, model.producer_version))),
        "domain": model.domain,
        "version": model.version,
        "graph": model.graph_name,
        "description": model.description or model.graph_description,
        "metadata": dict(model.custom_metadata),
    }


def _bits(dtype: str) -> int:
    """Size of one element by ONNX's name of the type: the digits in it, where there are any."""
    special = {
        "float": 32,
        "double": 64,
        "bool": 8,
        "string": 0,
        "undefined": 0,
        "unknown": 0,
        "bfloat16": 16,
        "complex64": 64,
        "complex128": 128,
    }
    if dtype in special:
        return special[dtype]
    if dtype.startswith("float8"):
        return 8
    if dtype.startswith("float4"):
        return 4
    return int("".join(filter(str.isdigit, dtype)) or 0)
