"""Operators that draw random numbers: the generator's known answers, moments, and what decides the draw."""

import numpy as np
import pytest
from onnx import TensorProto
from onnx_models import one_op

import tinyinfer
from tinyinfer.frontend.onnx.blocks.random_bits import threefry
from tinyinfer.ir import build
from tinyinfer.ir.oracle import evaluate
from tinyinfer.runtime import defaults


def draw(op, inputs=(), opset=22, outputs=1, **attributes):
    model = one_op(op, list(inputs), outputs, opset, **attributes)
    session = tinyinfer.InferenceSession(model, providers=["CPU"])
    results = session.run(None, {f"x{i}": x for i, x in enumerate(inputs) if x is not None})
    return results if outputs > 1 else results[0]


@pytest.fixture
def seed():
    """Sets the seed of the process for one test."""
    before = defaults.default_seed()
    yield tinyinfer.set_seed
    defaults._SEED = before


@pytest.mark.parametrize(
    "key, counter, expected",
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_known_answers_of_threefry(key, counter, expected):
    """The vectors of the Random123 library, kat_vectors."""
    words = [build.full(v, [1], "uint32") for v in (*key, *counter)]
    with np.errstate(over="ignore"):
        result = evaluate(list(threefry((words[0], words[1]), words[2], words[3])), {})
    assert tuple(int(r[0]) for r in result) == expected


FLOATS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("like", [False, True])
def test_moments(dtype, like):
    n = 200_000
    inputs = [np.zeros(n, dtype)] if like else []
    shape = {} if like else {"shape": [n], "dtype": FLOATS[dtype]}
    suffix = "Like" if like else ""
    y = draw(f"RandomNormal{suffix}", inputs, mean=1.0, scale=2.0, **shape)
    assert y.dtype == dtype
    z = (y.astype(np.float64) - 1) / 2
    error = 6 / np.sqrt(n)
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < error * np.sqrt(spread) + 2e-3, power
    u = draw(f"RandomUniform{suffix}", inputs, low=-1.0, high=3.0, **shape)
    assert u.dtype == dtype and u.min() >= -1 and u.max() < 3
    u = (u.astype(np.float64) + 1) / 4
    assert abs(u.mean() - 0.5) < error * 0.3 + 5e-4 and abs(u.var() - 1 / 12) < error * 0.1
    assert np.abs(np.histogram(u, 16, (0, 1))[0] / n - 1 / 16).max() < error
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < error


def test_bernoulli_keeps_to_its_probabilities():
    p = np.repeat(np.linspace(0, 1, 11, dtype=np.float32), 20_000)
    y = draw("Bernoulli", [p], dtype=TensorProto.INT64)
    assert y.dtype == np.int64
    shares = y.reshape(11, -1).mean(1)
    assert shares[0] == 0 and shares[-1] == 1
    np.testing.assert_allclose(shares, np.linspace(0, 1, 11), atol=0.02)


@pytest.mark.parametrize("dtype, code", [("int32", TensorProto.INT32), ("int64", TensorProto.INT64)])
def test_multinomial_follows_the_log_probabilities(dtype, code):
    p = np.array([[0.1, 0.2, 0.3, 0.4], [0.9, 0, 0.1, 0]])
    with np.errstate(divide="ignore"):
        scores = (np.log(p) + 5).astype(np.float32)
    y = draw("Multinomial", [scores], sample_size=50_000, dtype=code)
    assert y.shape == (2, 50_000) and y.dtype == dtype
    for row, wanted in zip(y, p):
        shares = np.bincount(row, minlength=4) / row.size
        np.testing.assert_allclose(shares, wanted, atol=0.012)
        assert (shares[wanted == 0] == 0).all()


def test_a_seed_decides_the_draw():
    first, again = (draw("RandomNormal", shape=[100], seed=3.0) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (draw("RandomNormal", shape=[100], seed=4.0) != first).any()


def session_of(op, inputs=(), outputs=1, **attributes):
    model = one_op(op, list(inputs), outputs, 22, **attributes)
    for value in model.graph.input:
        for d in value.type.tensor_type.shape.dim:
            d.dim_param = "n"
    return tinyinfer.InferenceSession(model, providers=["CPU"])


@pytest.mark.parametrize("seed", [{}, {"seed": 3.0}])
def test_every_run_draws_anew_also_after_another_shape(seed):
    x = np.zeros(100, np.float32)
    session = session_of("RandomNormalLike", [x], **seed)
    draws = [session.run(None, {"x0": x[:n]})[0] for n in (100, 100, 60, 60, 100)]
    for i, a in enumerate(draws):
        for b in draws[:i]:
            assert (a[:60] != b[:60]).any()
    again = session_of("RandomNormalLike", [x], **seed)
    for n, wanted in zip((100, 100, 60), draws):
        assert (again.run(None, {"x0": x[:n]})[0] == wanted).all() == bool(seed)


def test_two_nodes_draw_different_numbers():
    from onnx import ValueInfoProto, helper

    nodes = [helper.make_node("RandomUniform", [], [name], shape=[50]) for name in "ab"]
    graph = helper.make_graph(nodes, "g", [], [ValueInfoProto(name="a"), ValueInfoProto(name="b")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    a, b = tinyinfer.InferenceSession(model, providers=["CPU"]).run(None, {})
    assert (a != b).any()


def test_every_iteration_of_a_loop_draws_anew():
    from onnx import ValueInfoProto, helper, numpy_helper

    def value(name, kind):
        return helper.make_tensor_value_info(name, kind, None if kind == 1 else [])

    body = helper.make_graph(
        [helper.make_node("RandomUniform", [], ["u"], shape=[4]), helper.make_node("Identity", ["c"], ["d"])],
        "body",
        [value("i", TensorProto.INT64), value("c", TensorProto.BOOL)],
        [value("d", TensorProto.BOOL), value("u", 1)],
    )
    start = [numpy_helper.from_array(np.array(5), "n"), numpy_helper.from_array(np.array(True), "t")]
    loop = helper.make_node("Loop", ["n", "t"], ["y"], body=body)
    graph = helper.make_graph([loop], "g", [], [ValueInfoProto(name="y")], start)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    (y,) = tinyinfer.InferenceSession(model, providers=["CPU"]).run(None, {})
    assert y.shape == (5, 4) and len(np.unique(y)) == 20


def test_the_seed_of_the_process_decides_where_the_model_names_none(seed):
    seed(7)
    first, again = (draw("RandomUniform", shape=[100]) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    seed(8)
    assert (draw("RandomUniform", shape=[100]) != first).any()


def test_dropout_drops_its_share_and_scales_the_rest():
    x = np.full(100_000, 3, np.float32)
    y, mask = draw("Dropout", [x, np.float32(0.25), np.array(True)], outputs=2)
    assert abs(mask.mean() - 0.75) < 0.01
    np.testing.assert_allclose(y, np.where(mask, 4, 0))
    y, mask = draw("Dropout", [x, None, np.array(True)], outputs=2)
    assert abs(mask.mean() - 0.5) < 0.02 and set(np.unique(y)) == {0, 6}
    for training, ratio in ((False, 0.25), (True, 0.0)):
        y, mask = draw("Dropout", [x, np.float32(ratio), np.array(training)], outputs=2)
        assert mask.all() and (y == x).all()


def test_dropout_with_a_seed_drops_what_the_reference_drops():
    from onnx.reference import ReferenceEvaluator

    x = np.arange(1, 61, dtype=np.float32).reshape(3, 4, 5)
    inputs = [x, np.float32(0.5), np.array(True)]
    model = one_op("Dropout", inputs, 2, 22, seed=5)
    wanted = ReferenceEvaluator(model).run(None, {f"x{i}": v for i, v in enumerate(inputs)})
    for result, expected in zip(draw("Dropout", inputs, outputs=2, seed=5), wanted):
        np.testing.assert_allclose(result, expected, 1e-6)
