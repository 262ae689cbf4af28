"""The search for nodes that cannot be imported, also inside the model-local functions that are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from onnx import NodeProto

from tinyinfer.frontend.onnx.model import OnnxModel, function_key, node_name
from tinyinfer.frontend.onnx.op_table import canonical_domain
from tinyinfer.frontend.onnx.schema_functions import has_function

MAX_LINES = 1000
"""A list of blockers ends here, so that functions that call each other often cannot make it endless."""


def blocker_line(node: NodeProto, name: str, opset: int) -> str:
    """What is said of a node that cannot be imported; the words are onnxruntime's."""
    domain = canonical_domain(node.domain)
    kind = node.op_type if domain == "ai.onnx" else f"{domain}.{node.op_type}"
    return f"Could not find an implementation for {kind}({opset}) node with name '{name}'"


def blockers(
    model: OnnxModel, nodes: Iterable[NodeProto], opsets: Mapping[str, int] | None = None
) -> list[str]:
    """A line for each node in `nodes`, and in the functions they call, that the op table does not have."""
    return _Search(model).lines(nodes, opsets if opsets is not None else model.opsets, "", ())


class _Search:
    """One search; functions found to be free of blockers are not entered again."""

    def __init__(self, model: OnnxModel):
        self._model = model
        self._clean: set[tuple[str, str, str]] = set()

    def lines(
        self,
        nodes: Iterable[NodeProto],
        opsets: Mapping[str, int],
        prefix: str,
        calls: tuple[tuple[str, str, str], ...],
    ) -> list[str]:
        found: list[str] = []
        for position, node in enumerate(nodes):
            domain = canonical_domain(node.domain)
            opset = opsets.get(domain, 1)
            name = prefix + node_name(node, position)
            key = function_key(node)
            function = self._model.functions.get(key)
            if function is None or (domain == "ai.onnx" and self._model.find_op(domain, node.op_type, opset)):
                if self._model.find_op(domain, node.op_type, opset) is None and not has_function(
                    domain, node.op_type, opset
                ):
                    found.append(blocker_line(node, name, opset))
            elif key in calls:
                found.append(f"The function '{domain}.{node.op_type}' calls itself at node '{name}'")
            elif len(calls) >= self._model.limits.max_depth:
                found.append(f"Functions are nested more than {len(calls)} deep at node '{name}'")
            elif key not in self._clean:
                inner = {canonical_domain(o.domain): int(o.version) for o in function.opset_import}
                missing = self.lines(function.node, inner or opsets, f"{name}/", (*calls, key))
                if not missing:
                    self._clean.add(key)
                found += missing
            if len(found) >= MAX_LINES:
                return found[:MAX_LINES]
        return found
