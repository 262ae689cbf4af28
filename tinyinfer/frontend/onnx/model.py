"""A loaded ONNX model: its signature and metadata, checked for what every model must satisfy."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto

from tinyinfer.frontend.onnx.custom import PROCESS_OPS, CustomOps
from tinyinfer.frontend.onnx.errors import InvalidGraph
from tinyinfer.frontend.onnx.model_file import ModelBytes, read_model
from tinyinfer.frontend.onnx.op_table import OpEntry, canonical_domain, find_op
from tinyinfer.frontend.onnx.tensors import ELEMENT_TYPES, TensorReader
from tinyinfer.frontend.onnx.text_check import check_text
from tinyinfer.limits import DEFAULT_LIMITS, Limits


@dataclass(frozen=True)
class ValueSpec:
    """A model input or output as the model declares it.

    `dtype` is a numpy name ("" for sequences, maps and the like), `onnx_type` text such as "tensor(float)".
    `shape` holds an int, a symbol's name, or None for an unknown dimension; it is None for an unknown rank.
    """

    name: str
    dtype: str
    onnx_type: str
    shape: tuple[int | str | None, ...] | None
    element_shape: tuple[int | str | None, ...] | None = None
    """The shape of the tensors in a sequence or an optional, where the model tells it."""


@dataclass
class OnnxModel:
    """A parsed model. Make it with `load_model`.

    `proto` holds tokens in place of long weights (see `full_proto`). `overridable` are the initializers that
    are also inputs. `content` and `reader` give access to the weights.
    """

    proto: ModelProto
    content: ModelBytes
    reader: TensorReader
    inputs: list[ValueSpec]
    outputs: list[ValueSpec]
    overridable: list[ValueSpec]
    opsets: dict[str, int]
    node_count: int
    limits: Limits = field(default=DEFAULT_LIMITS)
    draws: dict[str, Any] = field(default_factory=dict)
    """The state of each node that draws random numbers, which all shapes of one session share."""
    custom: tuple[CustomOps, ...] = ()
    """Registries of operators that this model sees before those of the process."""

    def find_op(self, domain: str, name: str, opset: int) -> OpEntry | None:
        """The rule for an operator: the op table's, or that of a custom operator; None where there is none.
        """
        found = find_op(domain, name, opset)
        for registry in () if found is not None else (*self.custom, PROCESS_OPS):
            found = found or registry.find(domain, name, opset)
        return found

    @property
    def ir_version(self) -> int:
        return int(self.proto.ir_version)

    @property
    def producer_name(self) -> str:
        return self.proto.producer_name

    @property
    def producer_version(self) -> str:
        return self.proto.producer_version

    @property
    def domain(self) -> str:
        return self.proto.domain

    @property
    def version(self) -> int:
        return int(self.proto.model_version)

    @property
    def description(self) -> str:
        return self.proto.doc_string

    @property
    def graph_name(self) -> str:
        return self.proto.graph.name

    @property
    def graph_description(self) -> str:
        return self.proto.graph.doc_string

    @cached_property
    def custom_metadata(self) -> dict[str, str]:
        return {p.key: p.value for p in self.proto.metadata_props}

    @cached_property
    def nodes(self) -> list[NodeProto]:
        """The nodes of the main graph, inputs before users."""
        return ordered_nodes(self.proto.graph, self.proto.graph.node, ())

    @cached_property
    def functions(self) -> dict[tuple[str, str, str], FunctionProto]:
        """The model-local functions by domain, name and overload."""
        return {
            (canonical_domain(f.domain), f.name, getattr(f, "overload", "")): f for f in self.proto.functions
        }

    def full_proto(self) -> ModelProto:
        """A copy of the model with its weights in it, whatever they take; external data stays external."""
        whole = ModelProto()
        whole.CopyFrom(self.proto)
        for tensor in tensors_of(whole):
            raw = self.content.raw(tensor.raw_data)
            if raw is not None:
                tensor.raw_data = bytes(raw)
        return whole


def load_model(
    source: str | os.PathLike[str] | bytes | ModelProto,
    limits: Limits = DEFAULT_LIMITS,
    custom: Sequence[CustomOps] = (),
) -> OnnxModel:
    """Parse and check a model from a path, bytes or a ModelProto. The weights stay in the file.

    Raises NoSuchFile, InvalidProtobuf, NoModel; InvalidGraph for duplicate, missing or cyclic names.
    """
    content = read_model(source)
    proto = content.proto
    check_text(proto)
    graph = proto.graph
    opsets = _opsets(proto)
    initializers = {t.name for t in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    declared = [_value_spec(v) for v in graph.input]
    model = OnnxModel(
        proto,
        content,
        TensorReader(content, limits),
        inputs=[v for v in declared if v.name not in initializers],
        outputs=[_value_spec(v) for v in graph.output],
        overridable=[v for v in declared if v.name in initializers],
        opsets=opsets,
        node_count=len(graph.node),
        limits=limits,
        custom=tuple(custom),
    )
    if model.node_count > limits.max_nodes:
        raise InvalidGraph(f"the model has {model.node_count} nodes, over the limit of {limits.max_nodes}")
    _ = model.nodes  # checks names and cycles
    return model


def _opsets(proto: ModelProto) -> dict[str, int]:
    opsets: dict[str, int] = {}
    for entry in proto.opset_import:
        name = canonical_domain(entry.domain)
        if entry.version < 1:
            raise InvalidGraph(f"the model imports opset {entry.version} of '{name}'; opsets start at 1")
        opsets[name] = max(int(entry.version), opsets.get(name, 0))
    if not opsets and proto.ir_version >= 3:
        raise InvalidGraph("the model says for no opset that it uses it, which IR version 3 and later must")
    if not opsets:
        opsets["ai.onnx"] = 1  # IR versions 1 and 2 had one opset and no field for it
    return opsets


def ordered_nodes(
    graph: GraphProto | None,
    nodes: Iterable[NodeProto],
    outer: Iterable[str],
    inputs: Iterable[str] = (),
    where: str = "graph",
) -> list[NodeProto]:
    """`nodes` with inputs before users; the given order where that already holds.

    `outer` are names visible from enclosing graphs. For a function, `graph` is None and `inputs` are its
    parameters.
    Raises InvalidGraph for a name that is made twice, a name that nothing makes, and cycles.
    """
    nodes = list(nodes)
    given = set(inputs)
    if graph is not None:
        given |= {v.name for v in graph.input} | {t.name for t in graph.initializer}
        given |= {s.values.name for s in graph.sparse_initializer}
        for kind, names in (
            ("input", [v.name for v in graph.input]),
            ("initializer", [t.name for t in graph.initializer]),
        ):
            if len(set(names)) != len(names):
                twice = next(n for n in names if names.count(n) > 1)
                raise InvalidGraph(f"the {where} has two {kind}s named '{twice}'")
    outer = set(outer)
    maker: dict[str, int] = {}
    for position, node in enumerate(nodes):
        for name in node.output:
            if not name:
                continue
            if name in maker or name in given:
                raise InvalidGraph(
                    f"{describe(node, position)} makes '{name}', which exists already: every name may be "
                    "made once only"
                )
            maker[name] = position
    in_order = True
    for position, node in enumerate(nodes):
        for name in node.input:
            if name and name not in maker and name not in given and name not in outer:
                raise InvalidGraph(
                    f"{describe(node, position)} reads '{name}', which is no input, no initializer and "
                    "no node's output"
                )
            in_order &= maker.get(name, -1) < position
    if graph is not None:
        for value in graph.output:
            if value.name not in maker and value.name not in given and value.name not in outer:
                raise InvalidGraph(f"the {where} output '{value.name}' is made by no node")
    return nodes if in_order else _sorted(nodes, maker)


def _sorted(nodes: list[NodeProto], maker: dict[str, int]) -> list[NodeProto]:
    """Depth-first topological order, iterative."""
    needs = [[maker[n] for n in _reads(node) if n in maker] for node in nodes]
    state = [0] * len(nodes)  # 0 new, 1 open, 2 done
    order: list[NodeProto] = []
    for root in range(len(nodes)):
        stack = [root] if state[root] == 0 else []
        while stack:
            current = stack[-1]
            if state[current] == 0:
                state[current] = 1
                for other in needs[current]:
                    if state[other] == 1:
                        raise InvalidGraph(
                            f"{describe(nodes[other], other)} is part of a cycle: it needs its own result"
                        )
                    if state[other] == 0:
                        stack.append(other)
            else:
                stack.pop()
                if state[current] == 1:
                    state[current] = 2
                    order.append(nodes[current])
    return order


def _reads(node: NodeProto) -> list[str]:
    """The names that a node reads, also from inside its subgraphs."""
    names = list(node.input)
    for attribute in node.attribute:
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            for inner in graph.node:
                names += _reads(inner)
    return names


def describe(node: NodeProto, position: int) -> str:
    """How errors call a node that has no context yet."""
    return f"node '{node_name(node, position)}' ({node.op_type})"


def node_name(node: NodeProto, position: int) -> str:
    """The ONNX node name, or `Op_position` where it has none."""
    return node.name or f"{node.op_type}_{position}"


def function_key(node: NodeProto) -> tuple[str, str, str]:
    """The key in `OnnxModel.functions` of the function that `node` would call."""
    return canonical_domain(node.domain), node.op_type, getattr(node, "overload", "")


def _value_spec(value: ValueInfoProto) -> ValueSpec:
    dtype, text = _type_text(value.type)
    shape: tuple[int | str | None, ...] | None = None
    if value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape"):
        shape = tuple(_dimension(d) for d in value.type.tensor_type.shape.dim)
    return ValueSpec(value.name, dtype, text, shape, None if dtype else _element_shape(value.type))


def _element_shape(kind: TypeProto) -> tuple[int | str | None, ...] | None:
    while (which := kind.WhichOneof("value")) in ("sequence_type", "optional_type"):
        kind = getattr(kind, which).elem_type
    if which != "tensor_type" or not kind.tensor_type.HasField("shape"):
        return None
    return tuple(_dimension(d) for d in kind.tensor_type.shape.dim)


def _dimension(dimension: object) -> int | str | None:
    which = dimension.WhichOneof("value")  # type: ignore[attr-defined]
    if which == "dim_value":
        size = int(dimension.dim_value)  # type: ignore[attr-defined]
        return size if size >= 0 else None
    return (dimension.dim_param or None) if which == "dim_param" else None  # type: ignore[attr-defined]


def _type_text(kind: TypeProto, depth: int = 0) -> tuple[str, str]:
    if depth > 8:
        raise InvalidGraph("a value's type is nested more than 8 deep")
    which = kind.WhichOneof("value")
    if which in ("tensor_type", "sparse_tensor_type"):
        name, text = ELEMENT_TYPES.get(getattr(kind, which).elem_type, ("", "undefined"))
        return (name, f"tensor({text})") if which == "tensor_type" else ("", f"sparse_tensor({text})")
    if which == "sequence_type":
        return "", f"seq({_type_text(kind.sequence_type.elem_type, depth + 1)[1]})"
    if which == "optional_type":
        return "", f"optional({_type_text(kind.optional_type.elem_type, depth + 1)[1]})"
    if which == "map_type":
        key = ELEMENT_TYPES.get(kind.map_type.key_type, ("", "undefined"))[1]
        return "", f"map({key},{_type_text(kind.map_type.value_type, depth + 1)[1]})"
    return "", ""


def tensors_of(model: ModelProto) -> Iterable[TensorProto]:
    """Every tensor that a model holds: initializers and attributes, in subgraphs and functions too."""
    stack: list[GraphProto] = [model.graph]
    bodies: list[Iterable[NodeProto]] = [f.node for f in model.functions]
    while stack or bodies:
        if stack:
            graph = stack.pop()
            yield from graph.initializer
            nodes: Iterable[NodeProto] = graph.node
        else:
            nodes = bodies.pop()
        for node in nodes:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
                if attribute.HasField("g"):
                    stack.append(attribute.g)
                stack.extend(attribute.graphs)
