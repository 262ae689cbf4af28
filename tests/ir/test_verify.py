"""Each rule of the verifier, broken once."""

import numpy as np
import pytest

from tinyinfer.ir import build
from tinyinfer.ir.index import Slot, index
from tinyinfer.ir.node import Graph, Literal, ViewMap, node, output_axis
from tinyinfer.ir.verify import VerificationError, check_node, verify

X = build.input_node("x", (4, 6), "float32")
I = build.input_node("i", (4, 6), "int64")
B = build.input_node("b", (4, 6), "bool")
O0, O1 = (index(output_axis(i, d)) for i, d in enumerate((4, 6)))


def _view(indices, guards=(), shape=(4, 6), inputs=(X,), dtype="float32"):
    return node("VIEW", inputs, ViewMap(tuple(indices), tuple(guards), 0), shape, dtype)


BROKEN = {
    "no op": node("MATMUL", (X, X), None, (4, 6), "float32"),
    "dtype": node("INPUT", (), "z", (1,), "float33"),
    "shape": node("INPUT", (), "z", (-1,), "float32"),
    "name as attribute": node("INPUT", (), 3, (1,), "float32"),
    "Literal as attribute": node("CONST", (), 3, (1,), "float32"),
    "literal of shape": node("CONST", (), Literal(np.zeros(3, np.float32)), (4,), "float32"),
    "literal of dtype": node("CONST", (), Literal(np.zeros(3, np.float32)), (3,), "float64"),
    "Index as attribute": node("IOTA", (), 3, (1,), "int64"),
    "gives integers": node("IOTA", (), O0, (4,), "float32"),
    "no axis": node("IOTA", (), O1, (4,), "int64"),
    "takes 2 inputs": node("ADD", (X,), None, (4, 6), "float32"),
    "operand of shape": node("NEG", (X,), None, (4,), "float32"),
    "operands of dtypes": node("ADD", (X, I), None, (4, 6), "float32"),
    "where operands give": node("CMPLT", (X, X), None, (4, 6), "float32"),
    "condition of WHERE": node("WHERE", (I, X, X), None, (4, 6), "float32"),
    "has no attribute": node("NEG", (X,), 5, (4, 6), "float32"),
    "changes the size": node("BITCAST", (X,), "int64", (4, 6), "int64"),
    "bools and integers": node("NOT", (X,), None, (4, 6), "float32"),
    "has axes as attribute": node("SUM", (X,), None, (4, 6), "float32"),
    "not in order": node("SUM", (X,), (1, 0), (), "float32"),
    "of rank 2": node("SUM", (X,), (2,), (4, 6), "float32"),
    "leave": node("SUM", (X,), (1,), (6,), "float32"),
    "of a reduction": node("SUM", (X,), (1,), (4,), "float64"),
    "CONCAT along": node("CONCAT", (X, X), 2, (4, 6), "float32"),
    "CONCAT of nothing": node("CONCAT", (), 0, (4, 6), "float32"),
    "CONCAT along 0 of": node("CONCAT", (X, B), 0, (8, 6), "float32"),
    "along an axis of": node("CONCAT", (X, X), 0, (9, 6), "float32"),
    "ViewMap as attribute": node("VIEW", (X,), None, (4, 6), "float32"),
    "of a view of": _view((O0, O1), dtype="float64"),
    "1 indices into": _view((O0,)),
    "index input of shape": _view((O0, O1), inputs=(X, build.reshape(I, (24,)))),
    "index input of dtype": _view((O0, O1), inputs=(X, X)),
    "reads index input": _view((index(Slot(1, 0, 3)), O1), inputs=(X, I)),
    "which is no axis": _view((O0, index(output_axis(1, 7)))),
    "guard of negative size": _view((O0, O1), [(O0, -1)]),
    "leaves an axis of 4": _view((O0 + 1, O1)),
    "leaves an axis of 6": _view((O0, O1 - 1), [(O0 - 1, 3)]),
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_nodes(message):
    with pytest.raises(VerificationError, match=message):
        check_node(BROKEN[message])


def test_errors_name_node_origin_and_stage():
    broken = node("SUM", (X,), (0,), (5,), "float32", ["conv_7"])
    with pytest.raises(VerificationError, match=r"after fold: node 1 <SUM float32\[5\]> of conv_7"):
        verify(Graph({"x": X}, {"y": broken}), "fold")


def test_inputs_of_the_graph():
    with pytest.raises(VerificationError, match="not among the graph's inputs"):
        verify(Graph({}, {"y": X}))
    with pytest.raises(VerificationError, match="not an INPUT of that name"):
        verify(Graph({"z": X}, {"y": X}))


SOUND = {
    "pad": build.pad(X, (1, 2), (3, 1)),
    "pad of a shrink": build.pad(build.shrink(X, (1, 1), (3, 5)), (1, 0), (0, 2)),
    "reshape of a pad": build.reshape(build.pad(X, (1, 2), (3, 1)), (72,)),
    "window": build.window(X, (3, 3), (2, 1), (1, 2), (1, 2), (1, 2)),
    "window of a reshape": build.window(build.reshape(X, (24,)), (5,), (3,), (2,), (4,), (4,)),
    "gather": build.gather(X, I, 1),
    "half of a padded axis": _view((O0, (O1 + 4) // 2), [(O1, 6)]),
    "a quotient under its guard": _view((O0, (O1 - 3) // 2), [(O1 - 3, 3)]),
    "never read": _view((O0 + 100, O1), [(O0 + 100, 4)]),
    "empty": build.reshape(build.shrink(X, (0, 0), (0, 6)), (0, 3, 2)),
    "bool minimum": build.reduce("MIN", B, (0, 1)),
    "shift": build.elementwise("SHL", I, I),
    "large": build.pad(build.input_node("l", (3000, 3000), "float32"), (7, 9), (5, 2)),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_nodes(name):
    made = SOUND[name]
    check_node(made)
    inputs = {x.attrs: x for x in Graph({}, {"y": made}).nodes() if x.op == "INPUT"}
    verify(Graph(inputs, {"y": made}))
