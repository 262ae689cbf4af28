"""Every name in a model must be text: protobuf hands out a string field with invalid UTF-8 as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from onnx import GraphProto, ModelProto, NodeProto

from tinyinfer.frontend.onnx.errors import InvalidProtobuf


def check_text(model: ModelProto) -> None:
    """Raise InvalidProtobuf for a name, type or symbol that is not valid UTF-8."""
    for text in _texts(model):
        if not isinstance(text, str):
            raise InvalidProtobuf(f"the model holds text that is not valid UTF-8: {bytes(text)[:80]!r}")


def _texts(model: ModelProto) -> Iterator[Any]:
    yield from (model.producer_name, model.producer_version, model.domain, model.doc_string)
    for entry in model.opset_import:
        yield entry.domain
    for pair in model.metadata_props:
        yield from (pair.key, pair.value)
    yield from _graph(model.graph)
    for function in model.functions:
        yield from (function.name, function.domain, getattr(function, "overload", ""))
        yield from (*function.input, *function.output, *function.attribute)
        yield from (entry.domain for entry in function.opset_import)
        yield from _attributes(function.attribute_proto)
        yield from _nodes(function.node)


def _graph(graph: GraphProto) -> Iterator[Any]:
    yield from (graph.name, graph.doc_string)
    for value in (*graph.input, *graph.output):
        yield value.name
        if value.type.HasField("tensor_type"):
            yield from (d.dim_param for d in value.type.tensor_type.shape.dim)
    for tensor in (*graph.initializer, *(s.values for s in graph.sparse_initializer)):
        yield tensor.name
        for entry in tensor.external_data:
            yield from (entry.key, entry.value)
    yield from _nodes(graph.node)


def _nodes(nodes: Iterable[NodeProto]) -> Iterator[Any]:
    for node in nodes:
        yield from (node.name, node.op_type, node.domain, getattr(node, "overload", ""))
        yield from node.input
        yield from node.output
        yield from _attributes(node.attribute)


def _attributes(attributes: Iterable[Any]) -> Iterator[Any]:
    for attribute in attributes:
        yield from (attribute.name, attribute.ref_attr_name)
        if attribute.HasField("t"):
            yield attribute.t.name
            for entry in attribute.t.external_data:
                yield from (entry.key, entry.value)
        if attribute.HasField("g"):
            yield from _graph(attribute.g)
        for graph in attribute.graphs:
            yield from _graph(graph)
