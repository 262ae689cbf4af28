"""A whole model as one Graph, for those that need no cut; and the blockers of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tinyinfer.frontend.onnx import functions
from tinyinfer.frontend.onnx.errors import (
    InvalidArgument,
    InvalidGraph,
    NeedsHost,
    UnsupportedModel,
)
from tinyinfer.frontend.onnx.importer import Importer
from tinyinfer.frontend.onnx.model import OnnxModel, ValueSpec
from tinyinfer.frontend.onnx.scope import Frame, Scope
from tinyinfer.frontend.onnx.values import (
    describe,
)
from tinyinfer.ir import build
from tinyinfer.ir.dtypes import NUMERIC
from tinyinfer.ir.node import Graph, Node
from tinyinfer.limits import DEFAULT_LIMITS, Limits


def import_graph(
    model: OnnxModel,
    shapes: Mapping[str, Sequence[int]],
    known_values: Mapping[str, np.ndarray] | None = None,
) -> Graph:
    """The Graph of `model` at the given shapes of its inputs (one concrete shape for each).

    `known_values` gives inputs whose value is fixed; they stay in the signature, and the result is right for
    these values only. An overridable initializer becomes an input only if `shapes` names it.

    Raises UnsupportedModel with every node that has no implementation, InvalidGraph for a broken model,
    NeedsValue where a shape depends on an input's value, NeedsHost for what no single graph can hold,
    InvalidArgument for wrong shapes.
    """
    missing = blockers(model)
    if missing:
        raise UnsupportedModel(missing)
    importer = Importer(model)
    scope = Scope(opsets=model.opsets)
    importer.add_initializers(model.proto.graph, scope)
    inputs = _inputs(model, shapes, known_values or {}, scope)
    pending = importer.advance([Frame(model.nodes, scope)])
    if pending is not None:
        raise NeedsHost(f"{pending.context.label}: its results are computed by the host")
    outputs: dict[str, Node] = {}
    for value in model.outputs:
        found = scope.find(value.name)
        if found is None:
            raise InvalidGraph(f"the graph output '{value.name}' is made by no node")
        if not isinstance(found, Node):
            raise NeedsHost(f"the graph output '{value.name}' is a {describe(found)}, no tensor of numbers")
        outputs[value.name] = found
    return Graph(inputs, outputs, model.proto.graph.name)


def blockers(model: OnnxModel) -> list[str]:
    """One line for each input and node that cannot be imported. Branches of If are checked when taken."""
    inputs = [unsupported_input(v) for v in model.inputs if not supported_input(v)]
    return inputs + functions.blockers(model, model.nodes)


def supported_input(value: ValueSpec) -> bool:
    """Whether a model input is of a type that can be fed."""
    if value.dtype:
        return value.dtype in NUMERIC or value.dtype == "object"
    return value.onnx_type.startswith(("seq(", "optional(", "map("))


def unsupported_input(value: ValueSpec) -> str:
    """What is said of a model input whose type cannot be fed."""
    return f"the input '{value.name}' is a {value.onnx_type or 'value of no type'}, which is not supported"


def checked_shape(
    value: ValueSpec, shape: Sequence[int], limits: Limits = DEFAULT_LIMITS
) -> tuple[int, ...]:
    """`shape` if the model's input may have it, InvalidArgument otherwise."""
    shape = tuple(int(d) for d in shape)
    declared = value.shape
    if declared is not None and (
        len(declared) != len(shape) or any(isinstance(d, int) and d != s for d, s in zip(declared, shape))
    ):
        raise InvalidArgument(f"the input '{value.name}' has shape {list(declared)}, not {list(shape)}")
    if any(d < 0 for d in shape) or not limits.allows(shape):
        raise InvalidArgument(f"the input '{value.name}' cannot have shape {list(shape)}")
    return shape


def _inputs(
    model: OnnxModel,
    shapes: Mapping[str, Sequence[int]],
    known_values: Mapping[str, np.ndarray],
    scope: Scope,
) -> dict[str, Node]:
    inputs: dict[str, Node] = {}
    optional = [v for v in model.overridable if v.name in shapes]
    for value in [*model.inputs, *optional]:
        if value.dtype not in NUMERIC:
            raise NeedsHost(f"the input '{value.name}' is a {value.onnx_type}, no tensor of numbers")
        if value.name not in shapes:
            raise InvalidArgument(f"no shape is given for the input '{value.name}'")
        shape = checked_shape(value, shapes[value.name], model.limits)
        made = build.input_node(value.name, shape, value.dtype)
        inputs[value.name] = scope.values[value.name] = made
        if value.name in known_values:
            array = np.asarray(known_values[value.name])
            if array.shape != shape or array.dtype.name != value.dtype:
                raise InvalidArgument(
                    f"the known value of '{value.name}' is {array.dtype} of shape "
                    f"{list(array.shape)}, not {value.dtype} of {list(shape)}"
                )
            scope.values[value.name] = build.constant(array.copy(), name=value.name)
    return inputs
