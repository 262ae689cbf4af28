"""Models of unusual form: no nodes, outputs that are inputs or initializers, absent inputs, every opset."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tinyinfer import InferenceSession, InvalidArgument

X = np.arange(-3, 3, dtype=np.float32).reshape(2, 3)
PICTURE = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
MATRIX = np.arange(15, dtype=np.float32).reshape(3, 5)


def make(nodes, inputs, outputs, initializers=None, opset=17):
    """A model of float32 values; inputs map names to shapes, outputs are names."""
    tensors = [numpy_helper.from_array(array, name) for name, array in (initializers or {}).items()]
    declared = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()
    ]
    # before IR version 4 every initializer was an input
    version = 3 if opset < 9 else 8
    if version < 4:
        declared += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in tensors]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    for value in results:
        value.type.Clear()
    graph = helper.make_graph(nodes, "unusual", declared, results, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=version)


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs.split(" "), outputs.split(" "), **attributes)


@pytest.fixture(params=["CPU", "REFERENCE"])
def run(request):
    """`run(model, feeds)`: the outputs of a second run on the same session."""

    def second(model, feeds):
        session = InferenceSession(model, providers=[request.param])
        session.run(None, feeds)
        return session.run(None, feeds)

    return second


W = np.array([1, 2], np.float32)

FORMS: dict = {
    "no nodes": (make([], {"x": [2, 3]}, ["x"]), {"x": X}, [X]),
    "no inputs and no nodes": (make([], {}, ["w"], {"w": W}), {}, [W]),
    "an input among the outputs": (
        make([node("Neg", "x", "y")], {"x": [2, 3]}, ["y", "x"]), {"x": X}, [-X, X]),
    "an initializer among the outputs": (
        make([node("Neg", "x", "y")], {"x": [2, 3]}, ["w", "y"], {"w": W}), {"x": X}, [W, -X]),
    "an identity of an input": (
        make([node("Identity", "x", "y")], {"x": [2, 3]}, ["y"]), {"x": X}, [X]),
    "one value under two names": (
        make([node("Neg", "x", "y"), node("Neg", "x", "z")], {"x": [2, 3]}, ["y", "z"]), {"x": X}, [-X, -X]),
    "an output that another node reads": (
        make([node("Neg", "x", "y"), node("Abs", "y", "z")], {"x": [2, 3]}, ["y", "z"]),
        {"x": X}, [-X, np.abs(X)]),
    "views as outputs": (
        make([node("Transpose", "x", "y"), node("Slice", "x s e", "z")], {"x": [2, 3]}, ["y", "z"],
             {"s": np.array([1]), "e": np.array([2])}),
        {"x": X}, [X.T, X[1:2]]),
    "an input that nothing reads": (
        make([node("Neg", "x", "y")], {"x": [2, 3], "u": [5]}, ["y"]),
        {"x": X, "u": np.zeros(5, np.float32)}, [-X]),
    "a shape as the only result": (
        make([node("Shape", "x", "y")], {"x": ["a", "b"]}, ["y"]), {"x": X}, [np.array([2, 3])]),
    "nodes of one name": (
        make([node("Neg", "x", "a", name="n"), node("Abs", "a", "y", name="n")], {"x": [2, 3]}, ["y"]),
        {"x": X}, [np.abs(X)]),
    "an absent input in the middle": (
        make([node("Clip", "x  m", "y")], {"x": [2, 3]}, ["y"], {"m": np.array(1, np.float32)}),
        {"x": X}, [np.minimum(X, 1)]),
    "absent inputs at the end": (make([node("Clip", "x  ", "y")], {"x": [2, 3]}, ["y"]), {"x": X}, [X]),
    "a scalar": (make([node("Neg", "x", "y")], {"x": []}, ["y"]), {"x": np.float32(3)}, [np.float32(-3)]),
    "an empty batch": (
        make([node("Exp", "x", "y"), node("ReduceSum", "x", "z", keepdims=0)], {"x": ["n", 3]}, ["y", "z"]),
        {"x": np.zeros((0, 3), np.float32)}, [np.zeros((0, 3), np.float32), np.float32(0)]),
}


@pytest.mark.parametrize("form", FORMS)
def test_form(form, run):
    model, feeds, expected = FORMS[form]
    results = run(model, feeds)
    assert len(results) == len(expected)
    for result, wanted in zip(results, expected):
        assert result.shape == wanted.shape and result.dtype == wanted.dtype
        np.testing.assert_array_equal(result, wanted)
        assert not any(np.shares_memory(result, fed) for fed in feeds.values())


def by_opset(opset):
    """Operators whose inputs moved between attributes and values, as `opset` writes them."""
    nodes, values = [], {}

    def one(op, inputs, outputs, until, attributes=None, extra=None, **always):
        """A node with `attributes` before opset `until`, and with the values `extra` from then on."""
        if opset < until:
            nodes.append(node(op, inputs, outputs, **(attributes or {}), **always))
        else:
            stem = outputs.split(" ")[0]
            names = ["" if v is None else f"{stem}_{i}" for i, v in enumerate(extra or ())]
            values.update({n: v for n, v in zip(names, extra or ()) if n})
            nodes.append(helper.make_node(op, [inputs, *names], outputs.split(" "), **always))

    scales = np.array([1, 1, 2, 2], np.float32)
    if opset < 10:
        one("Upsample", "x", "resized", 9, {"scales": scales.tolist()}, [scales], mode="nearest")
    else:
        extra = [scales] if opset < 11 else [np.zeros(0, np.float32) if opset < 13 else None, scales]
        one("Resize", "x", "resized", 0, None, extra, mode="nearest")
    one("Pad", "x", "padded", 11, {"pads": [0, 0, 1, 0, 0, 0, 0, 2]}, [np.array([0, 0, 1, 0, 0, 0, 0, 2])])
    one("Slice", "x", "sliced", 10, {"starts": [1], "ends": [2], "axes": [3]},
        [np.array([1]), np.array([2]), np.array([3])])
    one("Squeeze", "x", "squeezed", 13, {"axes": [0]}, [np.array([0])])
    one("Unsqueeze", "x", "unsqueezed", 13, {"axes": [1]}, [np.array([1])])
    one("ReduceSum", "x", "summed", 13, {"axes": [1]}, [np.array([1])])
    one("ReduceMax", "x", "largest", 18, {"axes": [1]}, [np.array([1])])
    one("Clip", "x", "clipped", 11, {"min": 1.0, "max": 9.0}, [np.float32(1), np.float32(9)])
    one("Softmax", "x", "likely", 99, {"axis": 1})
    one("Split", "x", "left right", 13, {"split": [2, 2]}, [np.array([2, 2])], axis=3)
    one("AveragePool", "x", "pooled", 99, {"kernel_shape": [2, 2]})
    one("Flatten", "x", "flat", 99)
    one("Dropout", "x", "kept", 99)
    values["ones"] = np.ones(3, np.float32)
    nodes.append(node("Gemm", "m m ones", "product", transB=1))
    outputs = [name for n in nodes for name in n.output]
    return make(nodes, {"x": [1, 2, 3, 4], "m": [3, 5]}, outputs, values, opset)


@pytest.mark.parametrize("opset", range(7, 26))
def test_every_opset_as_onnxruntime(opset):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = by_opset(opset)
    feeds = {"x": PICTURE, "m": MATRIX}
    theirs = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    results = InferenceSession(model, providers=["CPU"]).run(None, feeds)
    for output, result, wanted in zip(model.graph.output, results, theirs.run(None, feeds), strict=True):
        assert result.shape == wanted.shape and result.dtype == wanted.dtype, output.name
        np.testing.assert_allclose(result, wanted, 1e-5, 1e-6, err_msg=output.name)


@pytest.mark.parametrize("device", ["CPU", "REFERENCE"])
def test_batches_come_and_go(device):
    model = make([node("Gemm", "x w", "y"), node("Softmax", "y", "z")], {"x": ["n", 3]}, ["y", "z"],
                 {"w": np.eye(3, dtype=np.float32)})
    session = InferenceSession(model, providers=[device])
    for rows in (1, 3, 1, 0, 2, 3):
        x = np.random.default_rng(rows).random((rows, 3), np.float32)
        y, z = session.run(None, {"x": x})
        np.testing.assert_array_equal(y, x)
        exponential = np.exp(x)
        np.testing.assert_allclose(z, exponential / exponential.sum(1, keepdims=True), 1e-5)


def test_an_initializer_declared_as_an_input_of_no_type():
    model = make([node("Add", "x w", "y")], {"x": [2]}, ["y"], {"w": W}, opset=8)
    next(value for value in model.graph.input if value.name == "w").type.tensor_type.elem_type = 0
    session = InferenceSession(model, providers=["CPU"])
    np.testing.assert_array_equal(session.run(None, {"x": W})[0], W + W)
    with pytest.raises(InvalidArgument, match="Invalid input name: 'w'"):
        session.run(None, {"x": W, "w": W})
