"""Stored values against the oracle's, and the first that is wrong."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from cli.main import main
from tinyinfer.backends.cpu.device import CpuDevice
from tinyinfer.backends.cpu.executable import CpuExecutable
from tinyinfer.config import CompileOptions
from tinyinfer.errors import NotImplemented
from tinyinfer.runtime.bisect import compare_stored
from tinyinfer.runtime.session import InferenceSession


def three_products() -> onnx.ModelProto:
    """Products that follow each other, each of whose results is stored."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((16, 16)).astype(np.float32) for _ in range(3)]
    weights = [onnx.numpy_helper.from_array(array, f"w{n}") for n, array in enumerate(arrays)]
    names = ["x", "a", "b", "y"]
    nodes = [
        helper.make_node("MatMul", [names[n], f"w{n}"], [names[n + 1]], name=f"product{n}") for n in range(3)
    ]
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [20, 16]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "products", value[:1], value[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def feeds() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((20, 16)).astype(np.float32)}


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose second product is wrong."""
    kept = CpuExecutable.kept_values

    def changed(self: CpuExecutable) -> list:
        found = [(node, np.array(value)) for node, value in kept(self)]
        for node, value in found:
            if node.origin & {"product1"}:
                value[3, 5] += 10
        return found

    monkeypatch.setattr(CpuExecutable, "kept_values", changed)


def test_a_right_device_differs_nowhere():
    graph = InferenceSession(three_products().SerializeToString()).graph()
    values = compare_stored(graph, CpuDevice(), CompileOptions(), feeds())
    assert len(values) >= 2 and all(value.found.passed for value in values)


def test_the_first_that_is_wrong_is_named(broken: None, tmp_path):
    onnx.save(three_products(), tmp_path / "m.onnx")
    graph = InferenceSession(tmp_path / "m.onnx").graph()
    values = compare_stored(graph, CpuDevice(), CompileOptions(), feeds())
    wrong = [value for value in values if not value.found.passed]
    assert wrong and "product1" in wrong[0].names
    told = CliRunner().invoke(main, ["compare", str(tmp_path / "m.onnx"), "--bisect"])
    assert told.exit_code == 1 and "DIFFERS FIRST" in told.output
    assert "the first value that differs is that of product1" in told.output


def test_a_device_that_keeps_nothing_says_so():
    from tinyinfer.backends.registry import find_device

    graph = InferenceSession(three_products().SerializeToString()).graph()
    with pytest.raises(NotImplemented, match="REFERENCE does not keep"):
        compare_stored(graph, find_device("REFERENCE"), CompileOptions(), feeds())
