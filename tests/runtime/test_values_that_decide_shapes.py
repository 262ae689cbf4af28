"""Shapes that are the values of inputs: a session compiles for the value, also when the value changes."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from tinyinfer import InferenceSession

ELEMENT = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}

INTEGERS = np.arange(12, dtype=np.float32)


def session_of(nodes, feeds, device):
    """A session of nodes given as (op, inputs, attributes); the last one makes y, the others v0, v1 …"""
    names = [f"v{i}" for i in range(len(nodes) - 1)] + ["y"]
    made = [
        helper.make_node(op, inputs.split(" "), [name], **attributes)
        for (op, inputs, attributes), name in zip(nodes, names)
    ]
    inputs = [
        helper.make_tensor_value_info(name, ELEMENT[value.dtype.name], [None] * value.ndim)
        for name, value in feeds.items()
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    output.type.Clear()
    graph = helper.make_graph(made, "values", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return InferenceSession(model, providers=[device])


def pad(x, p):
    return np.pad(x, [(p[0], p[2]), (p[1], p[3])])


CASES: dict = {
    "Reshape": (
        [("Reshape", "x s", {})], lambda x, s: x.reshape(s), INTEGERS, [{"s": [3, 4]}, {"s": [2, -1]}]),
    "computed": (
        [("Add", "a b", {}), ("Reshape", "x v0", {})],
        lambda x, a, b: x.reshape(np.add(a, b)),
        INTEGERS,
        [{"a": [1, 2], "b": [2, 2]}, {"a": [1, 3], "b": [1, 3]}],
    ),
    "Expand": (
        [("Expand", "x s", {})],
        lambda x, s: np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(s))),
        INTEGERS.reshape(12, 1),
        [{"s": [12, 3]}, {"s": [2, 1, 5]}],
    ),
    "Tile": (
        [("Tile", "x r", {})],
        lambda x, r: np.tile(x, r),
        INTEGERS.reshape(3, 4),
        [{"r": [1, 2]}, {"r": [3, 1]}],
    ),
    "Pad": ([("Pad", "x p", {})], pad, INTEGERS.reshape(3, 4), [{"p": [1, 0, 0, 2]}, {"p": [0, 0, 0, 0]}]),
    "Slice": (
        [("Slice", "x a b", {})],
        lambda x, a, b: x[a[0] : b[0]],
        INTEGERS,
        [{"a": [1], "b": [4]}, {"a": [0], "b": [11]}, {"a": [5], "b": [5]}],
    ),
    "Unsqueeze": (
        [("Unsqueeze", "x k", {})], lambda x, k: np.expand_dims(x, k[0]), INTEGERS, [{"k": [0]}, {"k": [1]}]),
    "ReduceSum": (
        [("ReduceSum", "x k", {"keepdims": 0})],
        lambda x, k: x.sum(k[0]),
        INTEGERS.reshape(3, 4),
        [{"k": [0]}, {"k": [1]}],
    ),
    "Range": (
        [("Range", "x n d", {})],
        lambda x, n, d: np.arange(float(x), float(n), float(d)).astype(np.float32),
        np.float32(1),
        [{"n": np.float32(7), "d": np.float32(2)}, {"n": np.float32(-3), "d": np.float32(-0.5)}],
    ),
}


@pytest.mark.parametrize("device", ["CPU", "REFERENCE"])
@pytest.mark.parametrize("name", CASES)
def test_values_may_change_between_runs(name, device):
    nodes, truth, x, values = CASES[name]
    x = np.asarray(x)
    values = [{k: np.asarray(v) for k, v in given.items()} for given in values]
    session = session_of(nodes, {"x": x, **values[0]}, device)
    for given in [*values, values[0], values[-1]]:
        (y,) = session.run(None, {"x": x, **given})
        wanted = np.asarray(truth(x, **given))
        assert y.shape == wanted.shape and y.dtype == wanted.dtype
        np.testing.assert_array_equal(y, wanted)


def test_many_values_keep_the_session_bounded():
    feeds = {"x": INTEGERS, "a": np.array([0]), "b": np.array([1])}
    session = session_of(CASES["Slice"][0], feeds, "REFERENCE")
    for end in [*range(1, 12), *range(1, 12), *range(-11, 0)]:
        (y,) = session.run(None, {**feeds, "b": np.array([end])})
        np.testing.assert_array_equal(y, INTEGERS[:end])
