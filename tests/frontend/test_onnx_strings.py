"""Strings: what moves them, and Cast from and to numbers, as onnxruntime has it."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from tinyinfer import InferenceSession
from tinyinfer.errors import Fail

STRING = TensorProto.STRING


def model(nodes, inputs, outputs, opset=19):
    graph = helper.make_graph(
        nodes,
        "strings",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs],
        [helper.make_tensor_value_info(n, t, None) for n, t in outputs],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def both(proto, feeds):
    onnxruntime = pytest.importorskip("onnxruntime")
    theirs = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return InferenceSession(proto).run(None, feeds), theirs.run(None, feeds)


def cast(to, source):
    return model([helper.make_node("Cast", ["x"], ["y"], to=to)], [("x", source, ["n"])], [("y", to)])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8", "bool", "int8"])
def test_numbers_as_text(dtype):
    x = np.array([1, 1.5, 0.1, 0, 7, 100, 3.14159274])
    if "float" in dtype:
        x = np.concatenate([x, [1e-7, -0.0, np.nan, np.inf, -np.inf, 12345.678]])
    x = x.astype(dtype)
    (y,), (wanted,) = both(cast(STRING, helper.np_dtype_to_tensor_dtype(x.dtype)), {"x": x})
    assert y.tolist() == wanted.tolist()


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "int32", "int64", "uint8", "int8", "bool"]
)
def test_text_as_numbers(dtype):
    texts = ["1", "0", "-5", "300"]
    if "float" in dtype:
        texts += ["1.5", "-1e3", "NaN", "INF", "-INF", "+INF", " 2 "]
    if dtype == "bool":
        texts = ["1", "0", "7"]
    to = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    (y,), (wanted,) = both(cast(to, STRING), {"x": np.array(texts, object)})
    assert y.dtype == wanted.dtype
    np.testing.assert_array_equal(y, wanted)


def test_text_that_is_no_number_names_the_node():
    with pytest.raises(Fail, match="Cast.*'abc' is no number"):
        InferenceSession(cast(TensorProto.FLOAT, STRING)).run(None, {"x": np.array(["abc"], object)})


MOVES = {
    "Concat": ([helper.make_node("Concat", ["x", "x"], ["y"], axis=0)], {}),
    "Transpose": ([helper.make_node("Transpose", ["x"], ["y"])], {}),
    "Where": ([helper.make_node("Where", ["c", "x", "x"], ["y"])], {"c": np.array([[True], [False]])}),
    "Reshape": ([helper.make_node("Reshape", ["x", "s"], ["y"])], {"s": np.array([3, 2])}),
    "Expand": ([helper.make_node("Expand", ["x", "s"], ["y"])], {"s": np.array([2, 2, 3])}),
    "Tile": ([helper.make_node("Tile", ["x", "s"], ["y"])], {"s": np.array([2, 1])}),
}


@pytest.mark.parametrize("name", MOVES)
def test_movement(name):
    nodes, feeds = MOVES[name]
    x = np.array([["b", "a", ""], ["c", "b", "zz"]], object)
    inputs = [("x", STRING, ["n", "m"])]
    inputs += [(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in feeds.items()]
    proto = model(nodes, inputs, [("y", STRING)], 18)
    (y,), (wanted,) = both(proto, {"x": x, **feeds})
    assert y.shape == wanted.shape and y.tolist() == wanted.tolist()


def test_rows_may_be_taken_twice():
    nodes = [helper.make_node("Gather", ["x", "i"], ["y"])]
    proto = model(nodes, [("x", STRING, [2, 2]), ("i", TensorProto.INT64, [3])], [("y", STRING)])
    x = np.array([["a", "b"], ["c", "d"]], object)
    (y,) = InferenceSession(proto).run(None, {"x": x, "i": np.array([1, 0, 1])})
    assert y.tolist() == [["c", "d"], ["a", "b"], ["c", "d"]]


def test_padding_is_the_empty_string():
    nodes = [helper.make_node("Pad", ["x", "p"], ["y"])]
    proto = model(nodes, [("x", STRING, [2]), ("p", TensorProto.INT64, [2])], [("y", STRING)], 18)
    (y,) = InferenceSession(proto).run(None, {"x": np.array(["ä", "b"], object), "p": np.array([1, 2])})
    assert y.tolist() == ["", "ä", "b", "", ""]


def test_strings_compare_and_come_from_initializers():
    labels = helper.make_tensor("labels", STRING, [3], [b"cat", b"dog", b"eel"])
    graph = helper.make_graph(
        [
            helper.make_node("ArgMax", ["p"], ["k"], axis=0, keepdims=0),
            helper.make_node("Gather", ["labels", "k"], ["y"]),
            helper.make_node("Equal", ["y", "labels"], ["same"]),
        ],
        "labelled",
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, [3])],
        [
            helper.make_tensor_value_info("y", STRING, []),
            helper.make_tensor_value_info("same", TensorProto.BOOL, [3]),
        ],
        [labels],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    y, same = InferenceSession(proto).run(None, {"p": np.array([0.1, 0.7, 0.2], np.float32)})
    assert y.item() == "dog" and same.tolist() == [False, True, False]
