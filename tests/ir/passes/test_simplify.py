"""Each identity before and after: structure by identity of nodes, and values."""

import numpy as np
import pytest
from rules import graph_of, ops, rewritten

from tinyinfer.ir import build
from tinyinfer.ir.build import apply, elementwise, full, input_node, scalar
from tinyinfer.ir.passes.simplify import keeps_values, simplify

X = input_node("x", (3, 4), "float32")
Y = input_node("y", (3, 4), "float32")
I = input_node("i", (3, 4), "int32")
U = input_node("u", (3, 4), "uint8")
B = input_node("b", (3, 4), "bool")


def _c(value, dtype="float32", shape=(3, 4)):
    return full(value, shape, dtype)


def _e(op, *inputs):
    return elementwise(op, *inputs)


# name: (before, after)
CASES = {
    "x + 0": (_e("ADD", X, _c(0)), X),
    "x - 0": (_e("SUB", X, _c(0)), X),
    "x * 1": (_e("MUL", X, _c(1)), X),
    "1 * x": (_e("MUL", _c(1), X), X),
    "x / 1": (_e("DIV", X, _c(1)), X),
    "i // 1": (_e("IDIV", I, _c(1, "int32")), I),
    "x * -1": (_e("MUL", X, _c(-1)), _e("NEG", X)),
    "u * 255 is no negation": (_e("MUL", U, _c(255, "uint8")), _e("MUL", U, _c(255, "uint8"))),
    "i * 0": (_e("MUL", I, _c(0, "int32")), _c(0, "int32")),
    "x * 0 may be NaN": (_e("MUL", X, _c(0)), _e("MUL", X, _c(0))),
    "b and true": (_e("MUL", B, _c(True, "bool")), B),
    "x + -y": (_e("ADD", X, _e("NEG", Y)), _e("SUB", X, Y)),
    "-x + y": (_e("ADD", _e("NEG", X), Y), _e("SUB", Y, X)),
    "x - -y": (_e("SUB", X, _e("NEG", Y)), _e("ADD", X, Y)),
    "--x": (_e("NEG", _e("NEG", X)), X),
    "not not b": (_e("NOT", _e("NOT", B)), B),
    "||x||": (_e("ABS", _e("ABS", X)), _e("ABS", X)),
    "|-x|": (_e("ABS", _e("NEG", X)), _e("ABS", X)),
    "floor of round": (_e("FLOOR", _e("ROUND", X)), _e("ROUND", X)),
    "max(x, x)": (_e("MAX", X, X), X),
    "b and b": (_e("AND", B, B), B),
    "constants last": (_e("MAX", _c(2), X), _e("MAX", X, _c(2))),
    "a scalar of rank 2": (_e("ADD", X, build.expand(build.constant(np.full((1, 1), 2, np.float32)), (3, 4))),
                           _e("ADD", X, _c(2))),
    "where true": (_e("WHERE", _c(True, "bool"), X, Y), X),
    "where false": (_e("WHERE", _c(False, "bool"), X, Y), Y),
    "where of one": (_e("WHERE", B, X, X), X),
    "where not": (_e("WHERE", _e("NOT", B), X, Y), _e("WHERE", B, Y, X)),
    "max of max": (_e("MAX", _e("MAX", X, _c(-1)), _c(1)), _e("MAX", X, _c(1))),
    "min of min": (_e("MIN", _e("MIN", X, _c(-1)), _c(1)), _e("MIN", X, _c(-1))),
    "clamp order": (_e("MAX", _e("MIN", X, _c(2)), _c(-1)), _e("MIN", _e("MAX", X, _c(-1)), _c(2))),
    "crossed clamp": (_e("MAX", _e("MIN", X, _c(-1)), _c(2)), _e("MAX", _e("MIN", X, _c(-1)), _c(2))),
    "clamp of clamp": (_e("MIN", _e("MAX", _e("MIN", _e("MAX", X, _c(-2)), _c(2)), _c(-1)), _c(1)),
                       _e("MIN", _e("MAX", X, _c(-1)), _c(1))),
    "cast there and back": (build.cast(build.cast(I, "int64"), "int32"), I),
    "cast through float": (build.cast(build.cast(U, "float32"), "int32"), build.cast(U, "int32")),
    "cast that loses": (build.cast(build.cast(X, "int32"), "float32"),
                        build.cast(build.cast(X, "int32"), "float32")),
    "cast that wraps": (build.cast(build.cast(I, "float64"), "uint8"),
                        build.cast(build.cast(I, "float64"), "uint8")),
    "cast to bool": (build.cast(build.cast(I, "int64"), "bool"), build.cast(I, "bool")),
    "cast from bool": (build.cast(build.cast(B, "float32"), "bool"), B),
    "bitcast there and back": (
        elementwise("BITCAST", elementwise("BITCAST", X, dtype="int32"), dtype="float32"), X),
    "1 / x": (_e("DIV", _c(1), X), _e("RECIP", X)),
    "x ** 1": (_e("POW", X, _c(1)), X),
    "x ** 2": (_e("POW", X, _c(2)), _e("MUL", X, X)),
    "x ** 3": (_e("POW", X, _c(3)), _e("MUL", _e("MUL", X, X), X)),
    "x ** 0.5": (_e("POW", X, _c(0.5)), _e("SQRT", X)),
    "x ** -1": (_e("POW", X, _c(-1)), _e("RECIP", X)),
    "x ** y": (_e("POW", X, Y), _e("POW", X, Y)),
    "i ** 2": (_e("POW", I, _c(2, "int32")), _e("MUL", I, I)),
    "sigmoid": (_e("DIV", _c(1), _e("ADD", _c(1), _e("EXP", _e("NEG", X)))), _e("SIGMOID", X)),
    "sigmoid by -1": (_e("RECIP", _e("ADD", _e("EXP", _e("MUL", X, _c(-1))), _c(1))), _e("SIGMOID", X)),
    "x * sigmoid(x) stays": (_e("MUL", X, _e("SIGMOID", X)), _e("MUL", X, _e("SIGMOID", X))),
    "sum of sum": (build.reduce("SUM", build.reduce("SUM", X, (1,)), (0,)), build.reduce("SUM", X, (0, 1))),
    "max of max over axes": (build.reduce("MAX", build.reduce("MAX", X, (0,)), (0,)),
                             build.reduce("MAX", X, (0, 1))),
    "max of sum stays": (build.reduce("MAX", build.reduce("SUM", X, (0,)), (0,)),
                         build.reduce("MAX", build.reduce("SUM", X, (0,)), (0,))),
    "sum of one": (build.reduce("SUM", build.reshape(X, (3, 1, 4)), (1,)), X),
    "concat of concat": (build.concat([X, build.concat([Y, X], 0)], 0), build.concat([X, Y, X], 0)),
    "concat of another axis": (build.concat([build.concat([Y, X], 1), build.concat([X, Y], 1)], 0),
                               build.concat([build.concat([Y, X], 1), build.concat([X, Y], 1)], 0)),
}

ROUNDS = {"x ** 3", "x ** -1", "sigmoid", "sigmoid by -1", "sum of sum"}


@pytest.mark.parametrize("name", CASES)
def test_rule(name):
    before, after = CASES[name]
    result, = rewritten(simplify, before, tolerance=5e-7 if name in ROUNDS else 0)
    assert result is after
    assert simplify(graph_of(result)).outputs["y0"] is result


def test_rules_keep_nan_and_infinities():
    special = np.array([[np.nan, np.inf, -np.inf, 0.0]] * 3, np.float32)
    for name in ("clamp order", "clamp of clamp", "max of max", "1 / x", "|-x|", "x ** 2"):
        rewritten(simplify, CASES[name][0], feeds={"x": special})


def test_a_shared_inner_node_is_not_duplicated():
    inner = build.reduce("SUM", X, (1,))
    outer, _ = rewritten(simplify, build.reduce("SUM", inner, (0,)), inner)
    assert outer.inputs[0] is inner


def test_nothing_to_do_gives_the_same_graph():
    graph = graph_of(_e("ADD", X, Y))
    assert simplify(graph) is graph


def test_per_channel_limits_clamp_in_order():
    low = build.expand(build.constant(np.array([-1, -2, 0, 1], np.float32)), (3, 4))
    made = _e("MAX", _e("MIN", X, _c(2)), low)
    result, = rewritten(simplify, made)
    assert result.op == "MIN" and ops(result) == ["MAX", "MIN"]


def test_origins_are_joined():
    a = input_node("origins", (7,), "float32")
    inner = elementwise("NEG", a, origin=["first"])
    outer = elementwise("ABS", inner, origin=["second"])
    result, = rewritten(simplify, apply("ADD", outer, scalar(0, "float32")))
    assert result.op == "ABS" and result.origin == {"first", "second"}


@pytest.mark.parametrize("first, second, expected", [
    ("int8", "float16", True), ("int16", "float16", False), ("int16", "float32", True),
    ("int32", "float32", False), ("int32", "float64", True), ("int64", "float64", False),
    ("uint8", "int8", False), ("uint8", "int16", True), ("float16", "bfloat16", False),
    ("bfloat16", "float32", True), ("float32", "float16", False), ("bool", "int8", True),
    ("int8", "bool", False), ("float16", "float64", True), ("float32", "int64", False),
])
def test_dtypes_that_keep_values(first, second, expected):
    assert keeps_values(first, second) is expected
