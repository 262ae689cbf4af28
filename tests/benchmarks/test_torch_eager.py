"""The comparison with PyTorch: what it does before PyTorch runs anything."""

from __future__ import annotations

import sys

import onnx
import pytest
from onnx import helper

from benchmarks import torch_eager


def gelu(reader: str = "") -> list[onnx.NodeProto]:
    nodes = [
        helper.make_node("Div", ["x", "root"], ["a"]),
        helper.make_node("Erf", ["a"], ["b"]),
        helper.make_node("Add", ["b", "one"], ["c"]),
        helper.make_node("Mul", ["x", "c"], ["d"]),
        helper.make_node("Mul", ["d", "half"], ["y"]),
    ]
    return [*nodes, helper.make_node("Relu", [reader], ["z"])] if reader else nodes


def kinds(nodes: list[onnx.NodeProto], outputs: set[str]) -> list[list[str]]:
    return [[n.op_type for n in group] for group in torch_eager._together(nodes, outputs)]


def test_the_nodes_of_a_gelu_are_one():
    assert kinds(gelu("y"), {"z"}) == [["Div", "Erf", "Add", "Mul", "Mul"], ["Relu"]]


@pytest.mark.parametrize("reader, outputs", [("b", {"y", "z"}), ("", {"y", "d"})])
def test_they_are_not_where_something_else_reads_one_of_them(reader, outputs):
    assert all(len(group) == 1 for group in kinds(gelu(reader), outputs))


def test_it_says_what_to_install_where_pytorch_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(sys, "argv", ["torch_eager", "model.onnx"])
    with pytest.raises(SystemExit, match="install torch"):
        torch_eager.main()
