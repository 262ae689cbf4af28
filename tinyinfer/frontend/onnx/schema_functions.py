"""The function bodies that ONNX itself gives for some of its operators: what an op without a rule here
means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import FunctionProto, NodeProto, TypeProto

from tinyinfer.frontend.onnx.tensors import ELEMENT_TYPES
from tinyinfer.frontend.onnx.values import HostValue, SequenceValue, Value
from tinyinfer.ir.node import Node

_ELEMENT = {name: number for number, (name, _) in ELEMENT_TYPES.items()}

_LAST = (1 << 31) - 1
"""What the onnx package takes as an opset at most."""


def has_function(domain: str, name: str, opset: int) -> bool:
    """Whether ONNX defines the op by a function body at this opset."""
    schema = _schema(domain, name, opset)
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def function_body(
    domain: str, node: NodeProto, opset: int, inputs: Sequence[Value | None]
) -> FunctionProto | None:
    """The body of the op that `node` is, for inputs of these types; None where ONNX has none."""
    schema = _schema(domain, node.op_type, opset)
    if schema is None:
        return None
    found = b""
    if schema.has_function:
        version = _newest(schema.function_opset_versions, opset)
        found = schema.get_function_with_opset_version(version)
    elif schema.has_context_dependent_function:
        version = _newest(schema.context_dependent_function_opset_versions, opset)
        types = [_type(x).SerializeToString() for x in inputs]
        found = schema.get_context_dependent_function_with_opset_version(
            version, node.SerializeToString(), types
        )
    if not found:
        return None
    function = FunctionProto()
    function.ParseFromString(found)
    if not any(o.domain == "" for o in function.opset_import):
        function.opset_import.add(version=onnx.defs.onnx_opset_version())
    given = {a.name for a in function.attribute_proto}
    for attribute in schema.attributes.values():
        if attribute.default_value.name and attribute.name not in given:
            function.attribute_proto.append(attribute.default_value)
    return function


def _schema(domain: str, name: str, opset: int) -> Any:
    try:
        return onnx.defs.get_schema(name, min(max(opset, 1), _LAST), "" if domain == "ai.onnx" else domain)
    except onnx.defs.SchemaError:
        return None


def _newest(versions: Sequence[int], opset: int) -> int:
    usable = [v for v in versions if v <= opset]
    return max(usable) if usable else min(versions)


def _type(value: Value | None) -> TypeProto:
    result = TypeProto()
    if isinstance(value, (Node, HostValue)):
        result.tensor_type.elem_type = _ELEMENT.get(
            "object" if isinstance(value, HostValue) else value.dtype, 0
        )
        for size in value.shape:
            result.tensor_type.shape.dim.add().dim_value = size
        result.tensor_type.shape.SetInParent()
    elif isinstance(value, SequenceValue):
        inner = _type(value.elements[0]) if value.elements else TypeProto()
        if not value.elements:
            inner.tensor_type.elem_type = _ELEMENT.get(value.dtype or "float32", 1)
        result.sequence_type.elem_type.CopyFrom(inner)
    return result
