"""Sessions whose sizes keep changing: few compilations, the results of exact ones."""

import logging

import numpy as np
import onnx
import pytest

from tinyinfer import InferenceSession

CACHE = """<ir_version: 8, opset_import: ["": 17]>
g (float[2, 1, 4] x, float[2, past, 4] cache) => (float[2, 1, 4] y, float[2, total, 4] k) {
  k = Concat <axis = 1> (cache, x)  t = Transpose <perm = [0, 2, 1]> (k)
  s = MatMul(x, t)  p = Softmax <axis = 2> (s)  y = MatMul(p, k) }"""
HALVES = """<ir_version: 8, opset_import: ["": 17]>
g (float[1, 1, n] x) => (float[1, 1, m] y) { y = AveragePool <kernel_shape = [2], strides = [2]> (x) }"""


def truth(x, cache):
    k = np.concatenate([cache, x], 1)
    s = np.exp(x @ k.transpose(0, 2, 1))
    return s / s.sum(-1, keepdims=True) @ k, k


@pytest.fixture
def compilations(caplog):
    caplog.set_level(logging.INFO, "tinyinfer")
    return lambda: sum(" compiled for " in r.getMessage() for r in caplog.records)


def test_a_growing_cache_is_compiled_a_few_times(compilations):
    session = InferenceSession(onnx.parser.parse_model(CACHE), providers=["CPU"])
    rng = np.random.default_rng(0)
    for _ in range(2):
        cache = np.zeros((2, 0, 4), np.float32)
        for _ in range(80):
            x = rng.standard_normal((2, 1, 4)).astype(np.float32)
            y, k = session.run(None, {"x": x, "cache": cache})
            expected = truth(x, cache)
            np.testing.assert_allclose(y, expected[0], 1e-5, 1e-6)
            np.testing.assert_array_equal(k, expected[1])
            assert k.flags.c_contiguous
            cache = k
    assert compilations() <= 5


def test_sizes_in_any_order(compilations):
    session = InferenceSession(onnx.parser.parse_model(CACHE), providers=["CPU"])
    rng = np.random.default_rng(0)
    for size in [5, 9, 60, 3, 17, 63, 1, 40, 2, 64, 7]:
        x = rng.standard_normal((2, 1, 4)).astype(np.float32)
        cache = rng.standard_normal((2, size, 4)).astype(np.float32)
        y, _ = session.run(None, {"x": x, "cache": cache})
        np.testing.assert_allclose(y, truth(x, cache)[0], 1e-5, 1e-6)
    assert compilations() <= 5


def test_what_no_one_graph_covers_is_compiled_exactly():
    session = InferenceSession(onnx.parser.parse_model(HALVES), providers=["CPU"])
    for size in (4, 6, 9, 10, 13):
        x = np.arange(size, dtype=np.float32).reshape(1, 1, size)
        (y,) = session.run(None, {"x": x})
        np.testing.assert_array_equal(y[0, 0], x[0, 0, : size // 2 * 2].reshape(-1, 2).mean(1))


BATCH = """<ir_version: 8, opset_import: ["": 17]>
g (float[n, 256] x, float[256, 8192] w) => (float[n, 8192] y) { y = MatMul(x, w) }"""


def test_a_batch_is_not_computed_for_a_capacity_that_is_much_larger(compilations):
    session = InferenceSession(onnx.parser.parse_model(BATCH), providers=["CPU"])
    w = np.random.default_rng(0).standard_normal((256, 8192)).astype(np.float32)
    ranges = session._program.ranges
    for size in (2, 3, 1, 5, 6, 30, 31, 9):
        x = np.full((size, 256), size, np.float32)
        (y,) = session.run(None, {"x": x, "w": w})
        np.testing.assert_allclose(y, x @ w, 1e-4, 1e-2)
        found = ranges.find(tuple((k, ("float32", v.shape)) for k, v in (("x", x), ("w", w))))
        assert found is None or found[0].made.capacity <= 2 * size + 1


def test_a_size_that_stays_is_compiled_exactly():
    session = InferenceSession(onnx.parser.parse_model(BATCH), providers=["CPU"])
    w = np.zeros((256, 8192), np.float32)
    for size in [4, 5, 6, *[9] * 8]:
        session.run(None, {"x": np.zeros((size, 256), np.float32), "w": w})
    program = session._program
    assert program.kept((("x", ("float32", (9, 256))), ("w", ("float32", (256, 8192))))) is not None
