"""Kernels that differ in any number have different keys: they meet in one cache."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import tinyinfer


def fully_connected(depth: int, columns: int) -> tuple[bytes, np.ndarray]:
    """y = x · weights with x [1, depth], as ONNX, and the weights."""
    weights = np.random.default_rng(depth).standard_normal((depth, columns)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "fully_connected",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, depth])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, columns])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString(), weights


@pytest.mark.parametrize(
    "first, second", [((256, 10), (1176, 10)), ((64, 16), (64, 48)), ((32, 10), (32, 12))]
)
def test_contractions_of_different_sizes_share_a_cache(first, second, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYINFER_CACHE", str(tmp_path))
    for size in (first, second, first):
        model, weights = fully_connected(*size)
        x = np.random.default_rng(1).standard_normal((1, size[0])).astype(np.float32)
        (y,) = tinyinfer.InferenceSession(model).run(None, {"x": x})
        np.testing.assert_allclose(y, x @ weights, rtol=1e-4, atol=1e-4)
