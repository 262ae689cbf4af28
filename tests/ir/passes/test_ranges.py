"""Intervals of values: every result of random graphs lies in the range that is claimed for it."""

import numpy as np
import pytest
from rules import feeds_of, graph_of

from tinyinfer.ir import build
from tinyinfer.ir.build import apply, cast, constant, input_node, scalar
from tinyinfer.ir.oracle import evaluate
from tinyinfer.ir.passes.ranges import Range, Ranges

BYTES = input_node("b", (4, 3), "uint8")
FLOATS = input_node("x", (4, 3), "float32")
CENTRED = apply("SUB", cast(BYTES, "int32"), scalar(128, "int32"))


def range_of(x):
    return Ranges().of(x)


def test_bytes_minus_their_zero_point():
    assert range_of(CENTRED) == Range(-128, 127, True)
    assert range_of(apply("MUL", CENTRED, CENTRED)) == Range(-16256, 16384, True)
    assert range_of(build.reduce("SUM", CENTRED, [0])) == Range(-512, 508, True)


def test_fed_floats_may_be_anything():
    assert range_of(FLOATS) is None
    assert range_of(apply("MAX", FLOATS, scalar(0, "float32"))) is None
    assert range_of(cast(FLOATS, "uint8")) == Range(0, 255, True)


def test_integers_that_may_wrap_around_fill_their_type():
    square = apply("MUL", BYTES, BYTES)
    assert range_of(square) == Range(0, 255, True)


def test_padding_counts():
    padded = build.pad(CENTRED, [1, 0], [0, 0], 200)
    assert range_of(padded) == Range(-128, 200, True)


def test_not_finite_literals_are_unknown():
    assert range_of(constant(np.array([1, np.inf], np.float32))) is None
    assert range_of(constant(np.array([1, np.nan], np.float32))) is None


def test_floats_that_may_overflow_are_unknown():
    large = apply("MUL", cast(CENTRED, "float32"), scalar(1e38, "float32"))
    assert range_of(large) is None


@pytest.mark.parametrize("seed", range(40))
def test_values_lie_in_their_range(seed):
    rng = np.random.default_rng(seed)
    values = [CENTRED, cast(CENTRED, "float32"), cast(BYTES, "int32")]
    for _ in range(12):
        a = values[rng.integers(len(values))]
        same = [v for v in values if v.dtype == a.dtype]
        b = same[rng.integers(len(same))]
        other = "float32" if a.dtype == "int32" else ("int32", "uint8", "int8")[rng.integers(3)]
        choices = [
            lambda a, b: apply("ADD", a, b),
            lambda a, b: apply("SUB", a, b),
            lambda a, b: apply("MUL", a, b),
            lambda a, b: apply("MAX", a, b),
            lambda a, b: apply("MIN", a, b),
            lambda a, b: build.elementwise("NEG", a),
            lambda a, b: build.elementwise("ABS", a),
            lambda a, b, other=other: cast(cast(a, other), a.dtype),
            lambda a, b: apply("WHERE", apply("CMPLT", a, b), a, b),
            lambda a, b: build.elementwise("ROUND", apply("MUL", a, scalar(0.37, a.dtype))),
        ]
        pick = int(rng.integers(len(choices) - (a.dtype == "int32")))
        values.append(choices[pick](a, b))
    ranges = Ranges()
    graph = graph_of(*values)
    for x, value in zip(values, evaluate(values, feeds_of(graph, seed))):
        found = ranges.of(x)
        if found is not None:
            assert found.low <= value.min() and value.max() <= found.high
            assert not found.integral or (value == np.trunc(value)).all()
