"""ONNX models of a few nodes for the tests of sessions and of the command line."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def model(nodes, inputs, outputs, initializers=(), opset=17, **fields) -> onnx.ModelProto:
    """A checked model. `inputs` and `outputs` are (name, element type, shape); `fields` are ModelProto's."""
    graph = helper.make_graph(
        nodes,
        fields.pop("graph_name", "test"),
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(array, name) for name, array in initializers],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **fields)
    onnx.checker.check_model(made)
    return made


def affine(batch="batch") -> onnx.ModelProto:
    """y[batch, 2] = x[batch, 3] · W + b, and z = -y."""
    return model(
        [
            helper.make_node("Gemm", ["x", "W", "b"], ["y"], name="gemm"),
            helper.make_node("Neg", ["y"], ["z"], name="negate"),
        ],
        [("x", TensorProto.FLOAT, [batch, 3])],
        [("y", TensorProto.FLOAT, [batch, 2]), ("z", TensorProto.FLOAT, [batch, 2])],
        [("W", AFFINE_WEIGHTS), ("b", AFFINE_BIAS)],
        producer_name="tests",
        model_version=7,
        doc_string="what it is for",
    )


AFFINE_WEIGHTS = np.arange(6, dtype=np.float32).reshape(3, 2)
AFFINE_BIAS = np.array([0.5, -0.5], np.float32)


def sum_of_two(rows="n", columns=4) -> onnx.ModelProto:
    """c = a + b, all [rows, columns]: both inputs share the symbol."""
    shape = [rows, columns]
    return model(
        [helper.make_node("Add", ["a", "b"], ["c"], name="add")],
        [("a", TensorProto.FLOAT, shape), ("b", TensorProto.FLOAT, shape)],
        [("c", TensorProto.FLOAT, shape)],
    )


def reshape_by_input() -> onnx.ModelProto:
    """y = Reshape(x, shape): the output's shape is the value of an input."""
    return model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"], name="reshape")],
        [("x", TensorProto.FLOAT, ["n", "m"]), ("shape", TensorProto.INT64, [2])],
        [("y", TensorProto.FLOAT, [None, None])],
    )


def one_node(op, element=TensorProto.FLOAT, shape=(2, 3), **attributes) -> onnx.ModelProto:
    """y = op(x) for an op of one input that keeps shape and type."""
    return model(
        [helper.make_node(op, ["x"], ["y"], name="the_node", **attributes)],
        [("x", element, shape)],
        [("y", element, shape)],
    )


def overridable() -> onnx.ModelProto:
    """y = x + w, where the initializer w is also an input."""
    return model(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [("x", TensorProto.FLOAT, [2]), ("w", TensorProto.FLOAT, [2])],
        [("y", TensorProto.FLOAT, [2])],
        [("w", np.array([1, 2], np.float32))],
    )


def unsupported() -> onnx.ModelProto:
    """Two nodes of a domain that nobody has."""
    graph = helper.make_graph(
        [
            helper.make_node("Foo", ["x"], ["t"], name="/blocks.3/foo", domain="nobody"),
            helper.make_node("Bar", ["t"], ["y"], name="/blocks.3/bar", domain="nobody"),
        ],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("nobody", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def channel_means(height=4, width=5, channels=3, layout="NCHW", element=TensorProto.FLOAT) -> onnx.ModelProto:
    """The mean of each channel of a picture, after a cast to float32: [1, channels]."""
    shape = [1, channels, height, width] if layout == "NCHW" else [1, height, width, channels]
    axes = [2, 3] if layout == "NCHW" else [1, 2]
    return model(
        [
            helper.make_node("Cast", ["image"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["wide"], ["means"], axes=axes, keepdims=0),
        ],
        [("image", element, shape)],
        [("means", TensorProto.FLOAT, [1, channels])],
    )
