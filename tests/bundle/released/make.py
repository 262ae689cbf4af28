"""Makes `VERSION.tinf`, the bundle that stays in the tests for every released version of the format.

usage: python tests/bundle/released/make.py

It is run once for a version, by the code of that version, and its result is never made again: later code must
load and verify it. The model has a loop, weights that are stored small, an input of one value, and integers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tinyinfer.bundle.build import BuildOptions, build_bundle
from tinyinfer.bundle.container import MAJOR, MINOR
from tinyinfer.bundle.targets import find_targets


def model():
    """logits = classes of a recurrent layer over x, doubled if mode is 1; best = the greatest's number."""
    generator = np.random.default_rng(1)
    hidden, width, classes = 16, 8, 80

    def floats(*shape):
        return generator.uniform(-0.5, 0.5, shape).astype(np.float32)

    weights = {
        "W": floats(1, 4 * hidden, width),
        "R": floats(1, 4 * hidden, hidden),
        "C": generator.integers(-8, 8, (hidden, classes)).astype(np.float32),
        "one": np.array(1, np.int64),
        "flat": np.array([1, hidden], np.int64),
    }
    kinds = {"then_branch": "Add", "else_branch": "Mul"}
    branches = {
        branch: helper.make_graph(
            [helper.make_node(op, ["scores", "scores"], [op])],
            op,
            [],
            [helper.make_tensor_value_info(op, TensorProto.FLOAT, [1, classes])],
        )
        for branch, op in kinds.items()
    }
    graph = helper.make_graph(
        [
            helper.make_node("LSTM", ["x", "W", "R"], ["", "last"], name="recurrent", hidden_size=hidden),
            helper.make_node("Reshape", ["last", "flat"], ["state"]),
            helper.make_node("MatMul", ["state", "C"], ["scores"], name="classify"),
            helper.make_node("Equal", ["mode", "one"], ["double"]),
            helper.make_node("If", ["double"], ["logits"], name="choose", **branches),
            helper.make_node("ArgMax", ["logits"], ["best"], axis=1, keepdims=0),
        ],
        "released",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [6, 1, width]),
            helper.make_tensor_value_info("mode", TensorProto.INT64, []),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes]),
            helper.make_tensor_value_info("best", TensorProto.INT64, [1]),
        ],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main() -> None:
    path = Path(__file__).with_name(f"{MAJOR}.{MINOR}.tinf")
    if path.exists():
        raise SystemExit(f"{path} exists: a released bundle is never made again")
    targets = find_targets(["cpu:x86_64-v3", "cpu:aarch64", "OPENCL"])
    build_bundle(model(), targets, path, BuildOptions(values={"mode": 1}))


if __name__ == "__main__":
    main()
