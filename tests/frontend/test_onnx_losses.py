"""Losses against onnxruntime: ranks, reductions, weights, ignored classes."""

import itertools

import numpy as np
import pytest
from onnx_models import one_op, run

onnxruntime = pytest.importorskip("onnxruntime")

CASES = list(
    itertools.product(
        ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"],
        [(5, 4), (3, 4, 6), (2, 3, 2, 4), (2, 3, 2, 2, 3)],
        ["none", "sum", "mean", None],
        [False, True],
        [None, 1, -1, 9],
    )
)


@pytest.mark.parametrize("op", ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])
def test_losses_as_onnxruntime(op):
    rng = np.random.default_rng(5)
    for number, (name, shape, reduction, weighted, ignored) in enumerate(CASES):
        if name != op:
            continue
        x = rng.standard_normal(shape).astype(np.float32)
        target = rng.integers(0, shape[1], (shape[0], *shape[2:])).astype([np.int32, np.int64][number % 2])
        if ignored is not None:
            target[rng.random(target.shape) < 0.3] = ignored
        inputs = [x, target] + ([rng.random(shape[1], dtype=np.float32)] if weighted else [])
        attributes = {"reduction": reduction, "ignore_index": ignored}
        attributes = {k: v for k, v in attributes.items() if v is not None}
        outputs = 1 + (op.startswith("Softmax") and number % 3 != 0)
        model = one_op(op, inputs, outputs, (12, 13)[number % 2], **attributes)
        feeds = {f"x{i}": v for i, v in enumerate(inputs)}
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        for result, wanted in zip(run(model, feeds), session.run(None, feeds), strict=True):
            assert result.shape == wanted.shape
            np.testing.assert_allclose(result, wanted, 1e-5, 1e-6, err_msg=f"{shape} {attributes}")


def test_an_ignored_target_of_an_infinite_loss_counts_nothing():
    x = np.array([[-np.inf, 0], [-1, 0]], np.float32)
    target = np.array([0, 0], np.int64)
    x[0, 0] = -np.inf
    model = one_op("NegativeLogLikelihoodLoss", [x, np.array([7, 0])], 1, 22, reduction="sum", ignore_index=7)
    np.testing.assert_array_equal(run(model, {"x0": x, "x1": np.array([7, 0])})[0], np.float32(1))
    model = one_op("NegativeLogLikelihoodLoss", [x, target], 1, 22, reduction="none")
    np.testing.assert_array_equal(run(model, {"x0": x, "x1": target})[0], np.array([np.inf, 1], np.float32))
