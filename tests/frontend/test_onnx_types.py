"""Every element type of ONNX: read from both fields of a tensor, fed, moved, converted and returned."""

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, defs, helper, numpy_helper

import tinyinfer
from tinyinfer.errors import InvalidArgument, InvalidGraph
from tinyinfer.frontend.onnx.tensors import ELEMENT_TYPES
from tinyinfer.ir.dtypes import COMPLEX, NARROW, codes, numpy_dtype

TYPES = {number: name for number, (name, _) in ELEMENT_TYPES.items() if name != "object"}
OPSET = 25
KNOWN = sorted(set(TYPES) & set(TensorProto.DataType.values()))


def values_of(number, count=7):
    """Seven values (so that packed ones do not fill their last byte) of an element type."""
    dtype = numpy_dtype(TYPES[number])
    if dtype.name in COMPLEX:
        return (np.arange(count) - 1j * np.arange(count)).astype(dtype)
    if dtype.name in NARROW:
        return np.arange(count).astype(np.float32).astype(dtype)
    return (np.arange(count) % 2 if dtype.kind == "b" else np.arange(count)).astype(dtype)


def session(nodes, inputs, outputs, initializers=(), opset=OPSET):
    graph = helper.make_graph(
        nodes,
        "types",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs],
        [helper.make_tensor_value_info(n, t, None) for n, t in outputs],
        list(initializers),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return tinyinfer.InferenceSession(model, providers=["CPU"])


def equal(a, b):
    assert a.dtype == b.dtype and a.shape == b.shape
    if a.dtype.name in NARROW:
        a, b = codes(a), codes(b)
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("number", KNOWN, ids=lambda n: TYPES[n])
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_initializers_and_feeds(number, raw):
    values = values_of(number)
    initializer = numpy_helper.from_array(values, "w")
    if not raw:
        initializer = helper.make_tensor("w", number, values.shape, values)
        assert not initializer.HasField("raw_data")
    if f"tensor({ELEMENT_TYPES[number][1]})" in defs.get_schema("Identity").inputs[0].types:
        attributes, to, expected = {}, number, values
    else:
        # some types only have Cast
        attributes, to = {"to": TensorProto.FLOAT}, TensorProto.FLOAT
        expected = values.astype(np.float32)
    op = "Cast" if attributes else "Identity"
    nodes = [helper.make_node(op, [a], [b], **attributes) for a, b in (("x", "y"), ("w", "z"))]
    s = session(nodes, [("x", number, ["n"])], [("y", to), ("z", to)], [initializer])
    fed, read = s.run(None, {"x": values[::-1]})
    equal(fed, expected[::-1])
    equal(read, expected)


def test_raw_data_of_another_length_is_refused():
    for number in (TensorProto.INT4, TensorProto.BFLOAT16, TensorProto.FLOAT8E5M2):
        broken = TensorProto(data_type=number, dims=[9], raw_data=b"abc", name="w")
        with pytest.raises(InvalidGraph, match="bytes"):
            session([helper.make_node("Identity", ["w"], ["y"])], [], [("y", number)], [broken])
        broken = TensorProto(data_type=number, dims=[9], int32_data=[1, 2], name="w")
        with pytest.raises(InvalidGraph):
            session([helper.make_node("Identity", ["w"], ["y"])], [], [("y", number)], [broken])


def test_feeds_of_another_type_are_refused():
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    s = session(nodes, [("x", TensorProto.BFLOAT16, [2])], [("y", TensorProto.BFLOAT16)])
    for dtype in (np.uint16, np.float16, ml_dtypes.float8_e5m2):
        with pytest.raises(InvalidArgument, match="bfloat16"):
            s.run(None, {"x": np.zeros(2, dtype)})
    equal(s.run(None, {"x": [1.0, 2.0]})[0], np.array([1, 2], ml_dtypes.bfloat16))


def test_operators_without_a_meaning_for_a_type_are_refused():
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    for number in (TensorProto.FLOAT8E4M3FN, TensorProto.INT4, TensorProto.COMPLEX64):
        with pytest.raises(InvalidGraph, match="does not take"):
            session(nodes, [("x", number, [2])], [("y", number)])


def cast(values, number, to, **attributes):
    node = helper.make_node("Cast", ["x"], ["y"], to=to, **attributes)
    return session([node], [("x", number, values.shape)], [("y", to)]).run(None, {"x": values})[0]


LIMITS = np.array([464, 465, -1e9, np.inf, -np.inf, np.nan, 0.1], np.float32)


@pytest.mark.parametrize("number", [17, 18, 19, 20], ids=lambda n: TYPES[n])
def test_saturation(number):
    dtype = numpy_dtype(TYPES[number])
    largest = float(ml_dtypes.finfo(dtype).max)
    with np.errstate(invalid="ignore"):
        clipped, plain = np.clip(LIMITS, -largest, largest).astype(dtype), LIMITS.astype(dtype)
    equal(cast(LIMITS, TensorProto.FLOAT, number), clipped)
    equal(cast(LIMITS, TensorProto.FLOAT, number, saturate=0), plain)


@pytest.mark.skipif(not hasattr(numpy_helper, "to_float8e8m0"), reason="an onnx package without the type")
@pytest.mark.parametrize("mode", ["up", "down", "nearest"])
@pytest.mark.parametrize("saturate", [0, 1])
def test_scales(mode, saturate):
    bits = np.random.default_rng(5).integers(0, 1 << 31, 3000, dtype=np.uint32)
    edges = np.arange(0, 256, dtype=np.uint32)[:, None] << 23
    edges = (edges + np.array([0, 1, 0x3FFFFF, 0x400000, 0x400001, 0x7FFFFF], np.uint32)).reshape(-1)
    values = np.concatenate([bits, edges]).view(np.float32)
    expected = numpy_helper.to_float8e8m0(values, bool(saturate), mode)
    got = cast(values, TensorProto.FLOAT, TensorProto.FLOAT8E8M0, saturate=saturate, round_mode=mode)
    equal(got, expected.astype(ml_dtypes.float8_e8m0fnu))


def test_bits_need_equal_widths():
    node = helper.make_node("BitCast", ["x"], ["y"], to=TensorProto.UINT8)
    with pytest.raises(InvalidGraph, match="bits"):
        session([node], [("x", TensorProto.INT4, [2])], [("y", TensorProto.UINT8)], opset=26)


def test_a_matrix_product_of_bfloat16():
    rng = np.random.default_rng(2)
    a, b = (rng.normal(size=s).astype(ml_dtypes.bfloat16) for s in ((5, 64), (64, 40)))
    nodes = [helper.make_node("MatMul", ["a", "b"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    s = session(nodes, [("a", 16, a.shape)], [("y", 16)], [numpy_helper.from_array(b, "b")])
    (got,) = s.run(None, {"a": a})
    exact = np.maximum(a.astype(np.float64) @ b.astype(np.float64), 0)
    np.testing.assert_allclose(got.astype(np.float64), exact, 2**-8, 1e-5)
