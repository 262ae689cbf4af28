"""Small ONNX models for the tests, and how to run a Graph by the oracle."""

from __future__ import annotations

import numpy as np
from onnx import ValueInfoProto, helper, numpy_helper

from tinyinfer import InferenceSession


def value_info(name, array):
    """The declaration of a value like `array`."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def one_op(op, inputs, outputs=1, opset=17, constants=(), domain="", **attributes):
    """A model of one node. `inputs` are arrays or None; those numbered in `constants` are initializers."""
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, name="the_node", domain=domain, **attributes)
    graph = helper.make_graph(
        [node],
        "test",
        [
            value_info(n, x)
            for i, (n, x) in enumerate(zip(names, inputs))
            if x is not None and i not in constants
        ],
        [ValueInfoProto(name=r) for r in results],
        [numpy_helper.from_array(np.asarray(inputs[i]), names[i]) for i in constants],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def feeds_of(model, inputs):
    """The arrays that are graph inputs of a model made by `one_op`."""
    declared = {v.name for v in model.graph.input}
    return {f"x{i}": np.asarray(x) for i, x in enumerate(inputs) if f"x{i}" in declared}


def run(model, feeds):
    """The outputs of a ModelProto by the importer and the oracle."""
    return InferenceSession(model, providers=["REFERENCE"]).run(None, feeds)


def run_op(op, inputs, outputs=1, opset=17, constants=(), **attributes):
    """The outputs of one node."""
    model = one_op(op, inputs, outputs, opset, constants, **attributes)
    return run(model, feeds_of(model, inputs))
