"""What stands in a model's way, found without importing it: every node is looked at, wherever it is.

The search for blockers that a session makes (`functions.blockers`) looks at what is certain to be imported.
This one also looks into branches, loop bodies and functions that may never run, and says where a node is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx
from onnx import AttributeProto, GraphProto, NodeProto

from tinyinfer.frontend.onnx.custom import PROCESS_OPS
from tinyinfer.frontend.onnx.model import OnnxModel, function_key, node_name
from tinyinfer.frontend.onnx.op_table import LAST_OPSET, OP_TABLE, canonical_domain
from tinyinfer.frontend.onnx.schema_functions import has_function
from tinyinfer.frontend.onnx.whole import supported_input, unsupported_input

MAX_NODES = 1_000_000
"""Nodes looked at, so that functions that call each other often cannot make the search endless."""


@dataclass(frozen=True)
class Blocker:
    """One thing that stands in the way of running a model.

    `kind`: "operator" (there is no rule for it), "attribute", "input" (of the model, of a type that cannot be
    fed), "import" (what only importing it showed) or "model". `where` says in which branch, body or function
    the node is, "" for the main graph. `certain` is False for what only matters if data wants it so: a branch
    that may never be taken, sizes that were assumed.
    """

    kind: str
    message: str
    node: str = ""
    op: str = ""
    domain: str = ""
    opset: int = 0
    where: str = ""
    certain: bool = True


@dataclass(frozen=True)
class _Place:
    """Where the search stands: a node list with its opsets, and how certain it is to run."""

    nodes: Iterable[NodeProto]
    opsets: Mapping[str, int]
    prefix: str
    where: str
    certain: bool
    calls: tuple[tuple[str, str, str], ...]
    attributes: frozenset[str] = frozenset()


def survey(model: OnnxModel) -> list[Blocker]:
    """Every input and node of the model for which there is no rule, and every attribute that breaks the
    schema of its operator.
    """
    found = [
        Blocker("input", unsupported_input(v), node=v.name) for v in model.inputs if not supported_input(v)
    ]
    for node, name, opset, place in _all_nodes(model):
        domain = canonical_domain(node.domain)
        rule = model.find_op(domain, node.op_type, opset)
        function = model.functions.get(function_key(node))
        facts: dict[str, Any] = dict(
            node=name, op=node.op_type, domain=domain, opset=opset, where=place.where
        )
        if function is not None and (rule is None or domain != "ai.onnx"):
            if function_key(node) in place.calls:
                found.append(Blocker("operator", "the function calls itself", **facts))
            continue
        if rule is None and not has_function(domain, node.op_type, opset):
            found.append(
                Blocker("operator", _why_not(model, domain, node, opset), **facts, certain=place.certain)
            )
            continue
        found += [
            Blocker("attribute", problem, **facts, certain=False)
            for problem in _attribute_problems(node, domain, opset, place.attributes)
        ]
    return found


def _all_nodes(model: OnnxModel) -> Iterator[tuple[NodeProto, str, int, _Place]]:
    """Every node with its name as errors spell it, its opset and its place; bodies of functions once."""
    stack = [_Place(model.nodes, model.opsets, "", "", True, ())]
    entered: set[tuple[str, str, str]] = set()
    count = 0
    while stack:
        place = stack.pop()
        inner: list[_Place] = []
        for position, node in enumerate(place.nodes):
            count += 1
            if count > MAX_NODES:
                return
            domain = canonical_domain(node.domain)
            opset = place.opsets.get(domain, 1)
            name = place.prefix + node_name(node, position)
            yield node, name, opset, place
            for title, graph in _subgraphs(node):
                kind = "branch" if node.op_type == "If" else "body"
                where = f"{kind} '{title}' of node '{name}'"
                certain = place.certain and node.op_type != "If"
                below = replace(place, nodes=graph.node, prefix=f"{name}/", where=where, certain=certain)
                inner.append(below)
            key = function_key(node)
            function = model.functions.get(key)
            taken = function is not None and (
                domain != "ai.onnx" or model.find_op(domain, node.op_type, opset) is None
            )
            if function is not None and taken and key not in place.calls and key not in entered:
                entered.add(key)
                opsets = {canonical_domain(o.domain): int(o.version) for o in function.opset_import}
                where = f"function '{function.name}', called by node '{name}'"
                inner.append(
                    _Place(
                        function.node,
                        opsets or place.opsets,
                        f"{name}/",
                        where,
                        place.certain,
                        (*place.calls, key),
                        frozenset((*function.attribute, *(a.name for a in function.attribute_proto))),
                    )
                )
        stack += reversed(inner)


def _subgraphs(node: NodeProto) -> list[tuple[str, GraphProto]]:
    result = []
    for attribute in node.attribute:
        if attribute.HasField("g"):
            result.append((attribute.name, attribute.g))
        result += [(attribute.name, g) for g in attribute.graphs]
    return result


def _why_not(model: OnnxModel, domain: str, node: NodeProto, opset: int) -> str:
    """Why there is no rule for an operator, in words."""
    name = node.op_type
    registries = (*model.custom, PROCESS_OPS)
    if domain not in _domains() and not any(e.domain == domain for r in registries for e in r.entries()):
        return f"a custom operator: its domain '{domain}' is not ONNX's (see tinyinfer.custom_op)"
    versions = sorted(
        s.since_version for s in _schemas().get(("" if domain == "ai.onnx" else domain, name), ())
    )
    if versions and versions[0] > opset:
        return f"the operator is new in opset {versions[0]} of '{domain}', but the model uses opset {opset}"
    known = [*OP_TABLE.get((domain, name), ())]
    known += [e for r in registries for e in r.entries() if (e.domain, e.name) == (domain, name)]
    if known:
        ranges = ", ".join(
            f"{e.since} and later" if e.until == LAST_OPSET else f"{e.since} to {e.until}" for e in known
        )
        return f"there is no implementation for opset {opset}; there is for {ranges}"
    if not versions:
        return f"'{domain}' has no such operator, and no function of the model has its name"
    return "there is no implementation"


def _domains() -> set[str]:
    return {domain for domain, _ in OP_TABLE} | {d or "ai.onnx" for d, _ in _schemas()}


_SCHEMAS: dict[tuple[str, str], list[Any]] = {}


def _schemas() -> dict[tuple[str, str], list[Any]]:
    """All versions of ONNX's schemas by domain and name."""
    if not _SCHEMAS:
        for schema in onnx.defs.get_all_schemas_with_history():
            _SCHEMAS.setdefault((schema.domain, schema.name), []).append(schema)
    return _SCHEMAS


def _attribute_problems(
    node: NodeProto, domain: str, opset: int, parameters: frozenset[str]
) -> Sequence[str]:
    """What is wrong with a node's attributes by the schema of its operator."""
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "" if domain == "ai.onnx" else domain)
    except (onnx.defs.SchemaError, TypeError):  # the latter for opsets beyond 32 bits
        return ()
    problems = []
    given = {a.name: a for a in node.attribute}
    kinds = AttributeProto.AttributeType
    for name, expected in schema.attributes.items():
        attribute = given.get(name)
        wanted = int(getattr(expected.type, "value", expected.type))  # type: ignore[arg-type]
        if attribute is None:
            if expected.required:
                problems.append(f"the attribute '{name}' is missing")
        elif attribute.ref_attr_name:
            if attribute.ref_attr_name not in parameters:
                problems.append(
                    f"the attribute '{name}' is the parameter '{attribute.ref_attr_name}', which no function "
                    "around it has"
                )
        elif attribute.type not in (wanted, AttributeProto.UNDEFINED):
            came = kinds.Name(attribute.type) if attribute.type in kinds.values() else attribute.type
            problems.append(f"the attribute '{name}' must be of type {kinds.Name(wanted)}, not {came}")
    problems += [f"the operator has no attribute '{name}'" for name in given if name not in schema.attributes]
    return problems
