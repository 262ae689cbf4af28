"""Recurrent layers, Scan and Loop against onnxruntime: random forms, and what falls to the host."""

import random

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, parser
from onnx_models import one_op, run

import tinyinfer
from tinyinfer.frontend.onnx import import_graph, load_model
from tinyinfer.frontend.onnx.ops import recurrent as ops_recurrent

ort = pytest.importorskip("onnxruntime")

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
FUNCTIONS = {"RNN": 1, "GRU": 2, "LSTM": 3}
ACTIVATIONS = {  # activation: how many of alpha and beta it takes
    "Relu": 0, "Tanh": 0, "Sigmoid": 0, "Softsign": 0, "LeakyRelu": 1, "ThresholdedRelu": 1, "Elu": 1,
    "Affine": 2, "ScaledTanh": 2, "HardSigmoid": 2,
}  # fmt: skip


def _expected(model, feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def _check(model, feeds, session=None):
    session = session or tinyinfer.InferenceSession(model, providers=["CPU"])
    results = session.run(None, feeds)
    for result, wanted in zip(results, _expected(model, feeds), strict=True):
        assert result.shape == wanted.shape and result.dtype == wanted.dtype
        np.testing.assert_allclose(result, wanted, rtol=2e-4, atol=2e-5)
    return results


def _typed(name, dtype, shape):
    return helper.make_tensor_value_info(name, dtype, shape)


def _model(node, feeds, weights, outputs, opset):
    inputs = [_typed(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in feeds.items()]
    made = [_typed(name, TensorProto.FLOAT, None) for name in outputs]
    held = [numpy_helper.from_array(v, k) for k, v in weights.items()]
    graph = helper.make_graph([node], "g", inputs, made, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _recurrent(seed, op, steps, **given):
    """A recurrent model of random form, and its feeds."""
    choose, values = random.Random(seed), np.random.default_rng(seed)

    def array(*shape):
        return values.uniform(-0.6, 0.6, shape).astype(np.float32)

    batch, width, hidden = choose.choice([1, 2, 3]), choose.choice([1, 3, 8]), choose.choice([1, 4, 17])
    direction = choose.choice(["forward", "reverse", "bidirectional"])
    count, gates = 1 + (direction == "bidirectional"), GATES[op]
    attributes = {"hidden_size": hidden, "direction": direction, **given}
    if choose.random() < 0.5:
        names = [choose.choice(list(ACTIVATIONS)) for _ in range(FUNCTIONS[op] * count)]
        attributes["activations"] = names
        for number, name in enumerate(("activation_alpha", "activation_beta")):
            attributes[name] = [choose.uniform(0.1, 0.6) for a in names if ACTIVATIONS[a] > number] or None
    if choose.random() < 0.3:
        attributes["clip"] = choose.choice([0.3, 1.0])
    if op == "GRU":
        attributes["linear_before_reset"] = choose.randrange(2)
    if op == "LSTM":
        attributes["input_forget"] = int(choose.random() < 0.2)
    feeds = {"x": array(steps, batch, width)}
    weights = {"w": array(count, gates * hidden, width), "r": array(count, gates * hidden, hidden)}
    optional = {"b": array(count, 2 * gates * hidden), "lengths": None, "h": array(count, batch, hidden)}
    if op == "LSTM":
        optional |= {"c": array(count, batch, hidden), "p": array(count, 3 * hidden)}
    names = ["x", "w", "r"]
    for name, value in optional.items():
        if choose.random() < 0.4:
            names.append("")
            continue
        names.append(name)
        if name == "lengths":
            value = values.integers(1, steps + 1, batch).astype(np.int32)
        fed = name in ("h", "c") or (name == "lengths" and choose.random() < 0.6)
        (feeds if fed else weights)[name] = value
    outputs = ["y", "y_h", "y_c"][: 2 + (op == "LSTM")]
    node = helper.make_node(op, names, outputs, **{k: v for k, v in attributes.items() if v is not None})
    return _model(node, feeds, weights, outputs, choose.choice([7, 11, 14, 22])), feeds


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("steps", [1, 3, 7, 20])
@pytest.mark.parametrize("seed", range(5))
def test_recurrent_layers(op, steps, seed):
    _check(*_recurrent(seed * 100 + steps, op, steps))


@pytest.mark.parametrize("op", GATES)
def test_unrolled_steps_are_those_of_the_loop(op, monkeypatch):
    model, feeds = _recurrent(3, op, 6)
    monkeypatch.setattr(ops_recurrent, "UNROLLED", 100)
    unrolled = run(model, feeds)
    monkeypatch.setattr(ops_recurrent, "UNROLLED", 0)
    for one, other in zip(run(model, feeds), unrolled, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op", GATES)
def test_the_graph_does_not_grow_with_the_steps(op):
    sizes = []
    for steps in (10, 5000):
        model, feeds = _recurrent(11, op, steps)
        sizes.append(len(import_graph(load_model(model), {k: v.shape for k, v in feeds.items()}).nodes()))
    assert sizes[0] == sizes[1]
    _check(model, feeds)


@pytest.mark.parametrize("op", GATES)
def test_the_batch_may_come_first(op):
    random_values = np.random.default_rng(0)
    size = 5 * GATES[op]
    shapes = [(6, 2, 3), (1, size, 3), (1, size, 5), (1, 2 * size)]
    x, w, r, b = (random_values.uniform(-0.5, 0.5, s).astype(np.float32) for s in shapes)
    state = random_values.uniform(-0.5, 0.5, (1, 2, 5)).astype(np.float32)
    lengths = np.array([6, 4], np.int32)
    results = []
    for layout in (0, 1):
        given, start = (x.transpose(1, 0, 2), state.transpose(1, 0, 2)) if layout else (x, state)
        inputs = [np.ascontiguousarray(given), w, r, b, lengths, np.ascontiguousarray(start)]
        model = one_op(op, inputs, 2, opset=14, hidden_size=5, layout=layout)
        results.append(run(model, {f"x{i}": v for i, v in enumerate(inputs)}))
    (y, y_h), (y_first, y_h_first) = results
    np.testing.assert_allclose(y.transpose(2, 0, 1, 3), y_first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y_h.transpose(1, 0, 2), y_h_first, rtol=1e-5, atol=1e-6)


# ---- Scan


@pytest.mark.parametrize("opset", [8, 9, 11, 16, 21])
@pytest.mark.parametrize("seed", range(5))
def test_scans(opset, seed):
    choose, values = random.Random(seed), np.random.default_rng(seed)
    steps, batch, rows, columns = choose.choice([1, 2, 6]), choose.choice([1, 3]), 2, choose.choice([1, 5])
    count, batched = choose.choice([1, 2]), opset == 8
    axes = [0, 1, 2] + ([-1, -2] if opset >= 11 else [])
    input_axes = [0 if batched else choose.choice(axes) for _ in range(count)]
    directions = [choose.randrange(2) for _ in range(count)]
    lead = [batch] if batched else []
    feeds = {"s0": values.normal(size=[*lead, rows, columns]).astype(np.float32)}
    for number, axis in enumerate(input_axes):
        shape = [rows, columns]
        shape.insert(axis % 3, steps)
        feeds[f"x{number}"] = values.normal(size=[*lead, *shape]).astype(np.float32)
    names = list(feeds)
    attributes = {"num_scan_inputs": count}
    if batched:
        attributes["directions"] = directions
        names.insert(0, "")
        if choose.random() < 0.7:
            names[0] = "lengths"
            feeds["lengths"] = values.integers(1, steps + 1, batch).astype(np.int64)
    else:
        attributes |= {"scan_input_axes": input_axes, "scan_input_directions": directions}
        attributes["scan_output_axes"] = [choose.choice(axes), 0]
        attributes["scan_output_directions"] = [choose.randrange(2) for _ in range(2)]
    full = [rows, columns]
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["s", "w"], ["m"]),
            helper.make_node("Add", ["m", "r0"], ["a"]),
            helper.make_node("Tanh", ["a"], ["n"]),
            helper.make_node("Mul", ["n", f"r{count - 1}"], ["o"]),
            helper.make_node("ReduceMax", ["n"], ["q"], keepdims=0),
        ],
        "body",
        [_typed(name, TensorProto.FLOAT, full) for name in ("s", *(f"r{i}" for i in range(count)))],
        [_typed(name, TensorProto.FLOAT, shape) for name, shape in (("n", full), ("o", full), ("q", []))],
    )
    node = helper.make_node("Scan", names, ["final", "rows", "most"], body=body, **attributes)
    weights = {"w": values.normal(size=(columns, columns)).astype(np.float32)}
    _check(_model(node, feeds, weights, ["final", "rows", "most"], opset), feeds)


# ---- Loop


def _parsed(body, opset=16):
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {body}')


def _in_native_code(model, feeds):
    """Whether one graph holds the whole model, loop included."""
    graph = import_graph(load_model(model), {k: v.shape for k, v in feeds.items()})
    return any(x.op == "LOOP" for x in graph.nodes())


WHILE = """g (int64 most, bool enter, float[3] start, float limit) => (float[3] y, float[3] z) {
  one = Constant <value_float = 1.0> ()
  y, z = Loop (most, enter, start, start) <body = b (int64 i, bool c, float[3] a, float[3] d)
    => (bool on, float[3] n, float[3] e) {
    f = Cast <to = 1> (i)  n = Add (a, f)  least = ReduceMin <keepdims = 0> (n)
    on = Less (least, limit)  h = Mul (d, n)  e = Sub (h, one)
  }>
}"""


@pytest.mark.parametrize("opset", [11, 13, 16, 19, 21])
@pytest.mark.parametrize(
    "most, enter, limit", [(5, True, 1e9), (100, True, 7.5), (4, False, 9.0), (0, True, 9.0)]
)
def test_loops_with_a_fed_count_and_a_condition(opset, most, enter, limit):
    model = _parsed(WHILE, opset)
    feeds = {
        "most": np.array(most),
        "enter": np.array(enter),
        "start": np.array([0.5, 1, -1], np.float32),
        "limit": np.array(limit, np.float32),
    }
    assert _in_native_code(model, feeds)
    _check(model, feeds)


STACKS = """g (float[3] start) => (float[3] y, float[N, 3] rows, float[N] sums) {
  most = Constant <value_int = 4> ()  yes = Cast <to = 9> (most)
  y, rows, sums = Loop (most, yes, start) <body = b (int64 i, bool c, float[3] a)
    => (bool on, float[3] n, float[3] row, float sum) {
    n = Add (a, start)  row = Mul (n, n)  sum = ReduceSum <keepdims = 0> (row)  on = Identity (c)
  }>
}"""


def test_a_constant_number_of_iterations_stacks_in_native_code():
    model, feeds = _parsed(STACKS), {"start": np.array([1, 2, 3], np.float32)}
    assert _in_native_code(model, feeds)
    _check(model, feeds)


DECODER = """g (int64 most, float[1, 4] h0) => (int64[N] tokens, float[1, 4] h, float[N, 1, 4] states) {
  none = Constant <value = int64[0] {}> ()  zero = Constant <value_int = 0> ()
  endless = Constant <value_int = 9223372036854775807> ()
  some = Less (zero, most)
  tokens, h, states = Loop (endless, some, none, h0) <body = b (int64 i, bool c, int64[K] t, float[1, 4] a)
    => (bool on, int64[L] u, float[1, 4] n, float[1, 4] row) {
    one = Constant <value_int = 1> ()  half = Constant <value_float = 0.7> ()
    s = Sin (a)  p = Div (s, half)  f = Cast <to = 1> (i)  n = Add (p, f)  row = Neg (n)
    best = ArgMax <axis = 1, keepdims = 0> (s)  u = Concat <axis = 0> (t, best)
    j = Add (i, one)  on = Less (j, most)
  }>
}"""


def test_rows_of_an_unknown_number_of_iterations():
    model = _parsed(DECODER)
    session = tinyinfer.InferenceSession(model, providers=["CPU"])
    for most in (0, 1, 7, 300, 7):
        h0 = np.array([[0.3, -0.2, 1, 0.1]], np.float32) * (1 + most)
        feeds = {"most": np.array(most), "h0": h0}
        tokens, _, states = _check(model, feeds, session)
        assert len(tokens) == len(states) == most


GROWS = """g (float[2] x, int64 most) => (float[N] y) {
  yes = Constant <value_int = 1> ()  enter = Cast <to = 9> (yes)
  y = Loop (most, enter, x) <body = b (int64 i, bool c, float[K] a) => (bool on, float[L] n) {
    on = Identity (c)  d = Neg (a)  n = Concat <axis = 0> (a, d)
  }>
}"""


def test_a_value_that_grows_and_is_read_is_left_to_the_host():
    model = _parsed(GROWS)
    for most in (0, 3):
        _check(model, {"x": np.array([1, 2], np.float32), "most": np.array(most)})


SLICES = """g (float[5] x, int64 most) => (float[N, 1] y) {
  one = Constant <value_ints = [1]> ()  axes = Constant <value_ints = [0]> ()
  yes = Constant <value_int = 1> ()  enter = Cast <to = 9> (yes)
  y = Loop (most, enter) <body = b (int64 i, bool c) => (bool on, float[1] row) {
    on = Identity (c)  start = Unsqueeze (i, axes)  stop = Add (start, one)
    row = Slice (x, start, stop, axes)
  }>
}"""


def test_a_shape_that_the_iteration_decides_is_left_to_the_host():
    model = _parsed(SLICES)
    for most in (0, 3):
        _check(model, {"x": np.arange(5, dtype=np.float32), "most": np.array(most)})


NESTED = """g (float[2, 3] x, int64 most) => (float[3] y, float[2, 3] rows) {
  two = Constant <value_int = 2> ()  yes = Cast <to = 9> (two)
  start = ReduceSum <keepdims = 0, axes = [0]> (x)
  y, rows = Loop (two, yes, start) <body = b (int64 i, bool c, float[3] a)
    => (bool on, float[3] n, float[3] row) {
    on = Identity (c)  row = Gather (x, i)
    n = Loop (most, c, a) <body = d (int64 j, bool e, float[3] f) => (bool go, float[3] g) {
      k = Mul (f, row)  l = Cast <to = 1> (j)  m = Add (k, l)  g = Sin (m)  go = Identity (e)
    }>
  }>
}"""


@pytest.mark.parametrize("most", [0, 1, 5])
def test_loops_in_loops(most):
    model = _parsed(NESTED, 12)
    feeds = {"x": np.arange(6, dtype=np.float32).reshape(2, 3) / 6, "most": np.array(most)}
    assert _in_native_code(model, feeds)
    _check(model, feeds)


def test_an_endless_loop_is_not_started_in_native_code():
    text = GROWS.replace("n = Concat <axis = 0> (a, d)", "n = Identity (d)").replace("Loop (most,", "Loop (,")
    model = _parsed(text.replace("float[K]", "float[2]").replace("float[L]", "float[2]"))
    feeds = {"x": np.zeros(2, np.float32), "most": np.array(1)}
    with pytest.raises(tinyinfer.errors.NotImplemented, match="host"):
        import_graph(load_model(model), {k: v.shape for k, v in feeds.items()})
