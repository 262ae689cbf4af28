"""Indexed writes, running sums and TopK, compiled, against onnxruntime."""

import numpy as np
import pytest
from onnx_models import feeds_of, one_op

import tinyinfer
from tinyinfer.frontend.onnx.errors import InvalidGraph

ort = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(11)


def compare(op, inputs, outputs=1, opset=18, constants=(), **attributes):
    """The compiled outputs equal onnxruntime's."""
    model = one_op(op, inputs, outputs, opset, constants, **attributes)
    feeds = feeds_of(model, inputs)
    data = model.SerializeToString()
    expected = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, feeds)
    got = tinyinfer.InferenceSession(data, providers=["CPU"]).run(None, feeds)
    for a, b in zip(expected, got, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(b, a, 1e-5, 1e-4)


def normal(*shape):
    return RNG.normal(size=shape).astype("float32")


REDUCTIONS = pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
CONSTANTS = pytest.mark.parametrize("constants", [(), (1,)])


@REDUCTIONS
@CONSTANTS
def test_scatter_nd_of_a_block(reduction, constants):
    grid = np.stack(np.meshgrid([1, 3], [0, 1, 2], indexing="ij"), -1)
    compare("ScatterND", [normal(5, 4, 6), grid, normal(2, 3, 6)], constants=constants, reduction=reduction)
    rows = np.arange(1, 4)[:, None] - 5
    compare("ScatterND", [normal(5, 4), rows, normal(3, 4)], constants=constants, reduction=reduction)


@REDUCTIONS
@CONSTANTS
def test_scatter_nd_at_irregular_places(reduction, constants):
    few, many = np.array([[3], [0]]), RNG.permutation(12)[:11, None]
    for at in (few, many):
        inputs = [normal(12, 5), at, normal(len(at), 5)]
        compare("ScatterND", inputs, constants=constants, reduction=reduction)


@CONSTANTS
def test_colliding_updates_are_joined(constants):
    at = RNG.integers(-6, 6, (20, 1))
    compare("ScatterND", [normal(6, 7), at, normal(20, 7)], constants=constants, reduction="add")
    at = RNG.integers(-6, 6, (6, 7))
    compare("ScatterElements", [normal(6, 7), at, normal(6, 7)], constants=constants, reduction="add")


@CONSTANTS
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_scatter_elements(constants, axis):
    at = np.argsort(RNG.random((6, 6)), axis).astype(np.int32)
    compare("ScatterElements", [normal(6, 6), at, normal(6, 6)], constants=constants, axis=axis)
    line = np.broadcast_to(np.array([1, 3, 5]).reshape((3, 1) if axis == 0 else (1, 3)), (3, 3)).copy()
    compare("ScatterElements", [normal(6, 6), line, normal(3, 3)], constants=constants, axis=axis)
    compare("Scatter", [normal(6, 6), line, normal(3, 3)], opset=9, constants=constants, axis=axis)


def test_constant_indices_out_of_range_are_named():
    for op, at in (("ScatterND", np.array([[5]])), ("ScatterElements", np.full((1, 3), -6))):
        model = one_op(op, [normal(5, 3), at, normal(1, 3)], 1, 18, (1,))
        with pytest.raises(InvalidGraph, match="out of range for an axis of size 5"):
            tinyinfer.InferenceSession(model.SerializeToString(), providers=["CPU"])


@pytest.mark.parametrize("n", [1, 33, 700])
@pytest.mark.parametrize("exclusive,reverse", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_running_sums(n, exclusive, reverse):
    shape, axis = ((n, 3), 0) if exclusive else ((2, n), -1)
    x = RNG.integers(-9, 9, shape)
    compare("CumSum", [x, np.array(axis)], constants=(1,), exclusive=exclusive, reverse=reverse)


def test_a_long_running_sum():
    compare("CumSum", [RNG.integers(-9, 9, 100_000), np.array(0)], constants=(1,))


@pytest.mark.parametrize("n,k", [(7, 7), (60, 1), (300, 10), (700, 600)])
@pytest.mark.parametrize("largest", [0, 1])
def test_top_k_with_ties_and_not_a_number(n, k, largest):
    x = RNG.integers(-9, 9, (2, n)).astype("float32")
    x[RNG.random(x.shape) < 0.05] = np.nan
    x[RNG.random(x.shape) < 0.05] = -0.0
    compare("TopK", [x, np.array([k])], 2, constants=(1,), largest=largest)


@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_top_k_of_other_types_along_the_first_axis(dtype):
    compare("TopK", [(normal(250, 2) * 9).astype(dtype), np.array([9])], 2, constants=(1,), axis=0)


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_a_whole_long_axis_is_merged(dtype, monkeypatch):
    monkeypatch.setattr("tinyinfer.frontend.onnx.blocks.sorting.RANK_LIMIT", 64)
    x = RNG.integers(-99, 99, (2, 100)).astype(dtype)
    compare("TopK", [x, np.array([100])], 2, constants=(1,))
