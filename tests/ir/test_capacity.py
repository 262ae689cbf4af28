"""Capacity graphs: for every size up to the capacity they give what the graph of that size gives."""

import numpy as np
import onnx
import pytest

from tinyinfer.frontend.onnx import import_graph, load_model
from tinyinfer.ir.capacity import NotAffine, capacity_graph
from tinyinfer.ir.oracle import evaluate

C = 12
SYMBOL = "#n"


def model(body, inputs="float[n, 4] x", outputs="float[a, b] y"):
    text = f'<ir_version: 8, opset_import: ["": 17]> g ({inputs}) => ({outputs}) {{ {body} }}'
    return load_model(onnx.parser.parse_model(text))


def shapes(loaded, n):
    return {v.name: tuple(d if isinstance(d, int) else n for d in v.shape) for v in loaded.inputs}


def made(loaded):
    return capacity_graph(C, [import_graph(loaded, shapes(loaded, C - i)) for i in range(3)], SYMBOL)


def check(loaded, sizes=(1, 2, 5, C - 1, C)):
    found = made(loaded)
    rng = np.random.default_rng(0)
    for n in sizes:
        feeds = {k: rng.standard_normal(s).astype(np.float32) for k, s in shapes(loaded, n).items()}
        graph = import_graph(loaded, {k: x.shape for k, x in feeds.items()})
        expected = evaluate(list(graph.outputs.values()), feeds)
        padded = {SYMBOL: np.array(n)}
        for name, x in feeds.items():
            whole = np.zeros(found.graph.inputs[name].shape, np.float32)
            whole[tuple(slice(0, d) for d in x.shape)] = x
            padded[name] = whole
        results = evaluate(list(found.graph.outputs.values()), padded)
        for result, wanted, dims in zip(results, expected, found.outputs.values()):
            cut = result[tuple(slice(0, s.at(n)) for s in dims)]
            assert cut.shape == wanted.shape
            np.testing.assert_allclose(cut, wanted, 1e-5, 1e-6)


AXIS_0 = "k = Constant <value_ints = [0]> ()"
MEAN = "ReduceMean <axes = [0], keepdims = 1>"
LARGEST = "ReduceMax <axes = [0], keepdims = 1>"
TRANSPOSED = "t = Transpose <perm = [1, 0]> (x)"
FLAT = "a = Constant <value_ints = [-1]> ()"

BODIES = {
    "elementwise": "y = Exp(x)",
    "largest along the growing axis": f"y = {LARGEST} (x)",
    "mean": f"y = {MEAN} (x)",
    "exp then sum": f"e = Exp(x)  {AXIS_0}  y = ReduceSum <keepdims = 1> (e, k)",
    "softmax along it": "y = Softmax <axis = 0> (x)",
    "gram matrix": f"{TRANSPOSED}  y = MatMul(t, x)",
    "scores": f"{TRANSPOSED}  s = MatMul(x, t)  p = Softmax <axis = 1> (s)  y = MatMul(p, x)",
    "flattened and back": (
        f"{FLAT}  b = Constant <value_ints = [-1, 4]> ()  f = Reshape(x, a)  g = Exp(f)  y = Reshape(g, b)"
    ),
    "joined with an outer axis": (
        f"{TRANSPOSED}  {FLAT}  f = Reshape(t, a)  e = Exp(f)  b = Constant <value_ints = [4, -1]> ()"
        " g = Reshape(e, b)  y = ReduceMean <axes = [1], keepdims = 1> (g)"
    ),
    "sum over joined axes": (
        f"{TRANSPOSED}  a = Constant <value_ints = [1, -1]> ()  f = Reshape(t, a)  e = Exp(f)"
        " y = ReduceMean <axes = [1], keepdims = 1> (e)"
    ),
    "last row": (
        f"s = Constant <value_ints = [-1]> ()  e = Constant <value_ints = [2147483647]> ()  {AXIS_0}"
        " y = Slice(x, s, e, k)"
    ),
    "appended": f"e = Exp(x)  m = {LARGEST} (x)  y = Concat <axis = 0> (e, m)",
    "prepended": f"e = Exp(x)  m = {LARGEST} (x)  y = Concat <axis = 0> (m, e)",
    "twice": "e = Exp(x)  y = Concat <axis = 0> (x, e)",
    "padded": (
        "p = Constant <value_ints = [1, 0, 2, 0]> ()  v = Constant <value_float = 3.0> ()"
        f" q = Pad(x, p, v)  y = {MEAN} (q)"
    ),
    "reversed": (
        f"s = Constant <value_ints = [-1]> ()  e = Constant <value_ints = [-2147483648]> ()  {AXIS_0}"
        " d = Constant <value_ints = [-1]> ()  y = Slice(x, s, e, k, d)"
    ),
    "length as a value": (
        "s = Shape(x)  c = Cast <to = 1> (s)  z = Constant <value_ints = [0]> ()  n = Gather(c, z)"
        " y = Div(x, n)"
    ),
    "causal mask": (
        "s = Shape <start = 0, end = 1> (x)  z = Constant <value_int = 0> ()  o = Constant <value_int = 1> ()"
        " n = Squeeze(s)  r = Range(z, n, o)  k = Constant <value_ints = [1]> ()  c = Unsqueeze(r, k)"
        f" m = LessOrEqual(r, c)  {TRANSPOSED}  w = MatMul(x, t)  b = Constant <value_float = -10000.0> ()"
        " q = Where(m, w, b)  p = Softmax <axis = 1> (q)  y = MatMul(p, x)"
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_every_size(name):
    check(model(BODIES[name]))


def test_windows_along_the_growing_axis():
    body = "y = MaxPool <kernel_shape = [3], pads = [1, 1]> (x)"
    check(model(body, "float[1, 4, n] x", "float[a, b, c] y"))


def test_a_cache_that_grows_with_what_is_new():
    body = """
    k = Concat <axis = 1> (past, x)  t = Transpose <perm = [0, 2, 1]> (k)
    s = MatMul(x, t)  p = Softmax <axis = 2> (s)  y = MatMul(p, k)"""
    check(model(body, "float[2, 1, 4] x, float[2, n, 4] past", "float[a, b, c] y, float[2, m, 4] k"))


def test_what_depends_on_the_size_otherwise_is_refused():
    with pytest.raises(NotAffine):
        made(model("a = Constant <value_ints = [-1]> ()  y = Reshape(x, a)", "float[n, n] x"))
    with pytest.raises(NotAffine):
        made(model("y = AveragePool <kernel_shape = [2], strides = [2]> (x)", "float[1, 1, n] x"))
