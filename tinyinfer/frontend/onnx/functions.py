"""Model-local functions, and the search for nodes that cannot be imported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from onnx import FunctionProto, ModelProto, NodeProto

from tinyinfer.frontend.onnx.model import OnnxModel, node_name
from tinyinfer.frontend.onnx.op_table import canonical_domain, find_op


def find_function(model: ModelProto, node: NodeProto) -> FunctionProto | None:
    """The model-local function that `node` calls, or None."""
    domain = canonical_domain(node.domain)
    for function in model.functions:
        if function.name == node.op_type and canonical_domain(function.domain) == domain:
            if getattr(function, "overload", "") == getattr(node, "overload", ""):
                return function
    return None


def blocker_line(node: NodeProto, name: str, opset: int) -> str:
    """What is said of a node that cannot be imported; the words are onnxruntime's."""
    domain = canonical_domain(node.domain)
    kind = node.op_type if domain == "ai.onnx" else f"{domain}.{node.op_type}"
    return f"Could not find an implementation for {kind}({opset}) node with name '{name}'"


def blockers(
    model: OnnxModel,
    nodes: Iterable[NodeProto],
    opsets: Mapping[str, int] | None = None,
    prefix: str = "",
    calls: tuple[str, ...] = (),
) -> list[str]:
    """A line for each node in `nodes`, and in the functions they call, that the op table does not have."""
    opsets = opsets if opsets is not None else model.opsets
    lines = []
    for position, node in enumerate(nodes):
        domain = canonical_domain(node.domain)
        opset = opsets.get(domain, 1)
        name = prefix + node_name(node, position)
        function = find_function(model.proto, node)
        if function is not None and (domain != "ai.onnx" or find_op(domain, node.op_type, opset) is None):
            key = f"{domain}.{node.op_type}"
            if key in calls:
                lines.append(f"The function '{key}' calls itself at node '{name}'")
                continue
            inner = {canonical_domain(o.domain): int(o.version) for o in function.opset_import}
            lines += blockers(model, function.node, inner or opsets, f"{name}/", (*calls, key))
        elif find_op(domain, node.op_type, opset) is None:
            lines.append(blocker_line(node, name, opset))
    return lines
