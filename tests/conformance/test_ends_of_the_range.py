"""Functions at the ends of their range, compiled: nothing inside may overflow before the result does."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from tinyinfer import InferenceSession

ELEMENT = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "float16": TensorProto.FLOAT16}
TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "float16": 4e-3}

TRUTH: dict = {
    "Exp": np.exp,
    "Log": np.log,
    "Sqrt": np.sqrt,
    "Tanh": np.tanh,
    "Atan": np.arctan,
    "Sinh": np.sinh,
    "Cosh": np.cosh,
    "Asinh": np.arcsinh,
    "Acosh": np.arccosh,
    "Atanh": np.arctanh,
    "Softplus": lambda x: np.logaddexp(0, x),
    "Softsign": lambda x: np.where(np.isinf(x), np.nan, x / (1 + np.abs(x))),
    "Sigmoid": lambda x: np.exp(-np.logaddexp(0, -x)),
    "Reciprocal": lambda x: 1 / x,
}


def numbers(dtype):
    """Both signs of every magnitude that the dtype has, its limits, and where e^x overflows."""
    limits = np.finfo(dtype)
    span = {"float16": 4, "float32": 30, "float64": 200}[dtype]
    edge = float(np.log(np.float64(limits.max)))
    special = [0, 1, limits.max, limits.tiny, edge, edge + 0.4, np.inf]
    positive = [*10.0 ** np.linspace(-span, span, 201), *special]
    with np.errstate(over="ignore"):
        return np.array([*positive, *np.negative(positive), np.nan]).astype(dtype)


@pytest.mark.parametrize("dtype", ELEMENT)
@pytest.mark.parametrize("op", TRUTH)
def test_function(op, dtype):
    x = numbers(dtype)
    value = helper.make_tensor_value_info("x", ELEMENT[dtype], x.shape)
    result = helper.make_tensor_value_info("y", ELEMENT[dtype], x.shape)
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"])], op, [value], [result])
    # opset 22 gave the last of these functions all float types
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    (y,) = InferenceSession(model, providers=["CPU"]).run(None, {"x": x})
    with np.errstate(all="ignore"):
        wanted = TRUTH[op](x.astype(np.longdouble)).astype(dtype)
    finite = np.isfinite(wanted) & np.isfinite(y)
    tiny = float(np.finfo(dtype).tiny)
    np.testing.assert_allclose(
        y[finite].astype(np.float64), wanted[finite].astype(np.float64), TOLERANCE[dtype], 4 * tiny
    )
    # within a rounding of the largest number, either side of it is right
    largest = np.finfo(dtype).max * (1 - 4 * TOLERANCE[dtype])
    clear = finite | ~((np.abs(y) >= largest) & (np.abs(wanted) >= largest) & (np.sign(y) == np.sign(wanted)))
    np.testing.assert_array_equal(np.isnan(y), np.isnan(wanted))
    np.testing.assert_array_equal(y[clear & ~finite], wanted[clear & ~finite])
