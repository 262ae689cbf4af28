"""Scatters: compiled against the oracle, and the schedules that keep colliding updates in order."""

import numpy as np
import pytest
from compiled import check, graph_of, plan_of, run

from tinyinfer.ir import build
from tinyinfer.ir.index import Slot, index
from tinyinfer.ir.node import COMBINATIONS, output_axis
from tinyinfer.ir.oracle import evaluate
from tinyinfer.ir.text import parse_graph, print_graph
from tinyinfer.ir.verify import VerificationError, verify

RNG = np.random.default_rng(3)
COMBINED = pytest.mark.parametrize("combine", COMBINATIONS)


def places(*shape):
    return [index(output_axis(i, d)) for i, d in enumerate(shape)]


def elements(base, updates, at, axis, combine):
    """ScatterElements: the updates' own position but along `axis`."""
    where = places(*updates.shape)
    where[axis] = index(Slot(0, 0, base.shape[axis] - 1))
    return build.scatter(base, updates, where, [at], combine)


def rows(base, updates, at, combine):
    """Whole rows of `base`, `updates[i]` at row `at[i]`."""
    spread = build.view(at, places(*updates.shape)[:1], updates.shape)
    where = [index(Slot(0, 0, base.shape[0] - 1)), *places(*updates.shape)[1:]]
    return build.scatter(base, updates, where, [spread], combine)


@COMBINED
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8", "float16", "bool"])
@pytest.mark.parametrize("fuse", [True, False])
def test_colliding_elements(combine, dtype, fuse):
    x = build.input_node("x", (6, 9), dtype)
    u = build.input_node("u", (5, 9), dtype)
    at = build.input_node("at", (5, 9), "int64")
    feeds = {
        "x": RNG.integers(0, 5, (6, 9)).astype(dtype),
        "u": RNG.integers(0, 5, (5, 9)).astype(dtype),
        "at": RNG.integers(-3, 9, (5, 9)),
    }
    check([elements(x, u, at, 0, combine)], feeds, fuse)
    v = build.shrink(u, [0, 0], [5, 7])
    check([elements(x, v, build.shrink(at, [0, 0], [5, 7]), 1, combine)], feeds, fuse)


@COMBINED
@pytest.mark.parametrize("inner", [(33,), (4, 17), (1,)])
def test_colliding_rows_are_vectors(combine, inner):
    x = build.input_node("x", (40, *inner), "float32")
    u = build.input_node("u", (70, *inner), "float32")
    at = build.input_node("at", (70,), "int32")
    feeds = {
        "x": RNG.normal(size=(40, *inner)).astype("float32"),
        "u": RNG.normal(size=(70, *inner)).astype("float32"),
        "at": RNG.integers(-9, 50, 70).astype("int32"),
    }
    check([rows(x, build.elementwise("ABS", u), at, combine)], feeds, threads=2)


def test_a_chain_is_stored_in_place_and_what_else_is_read_is_not_overwritten():
    x = build.input_node("x", (8, 16), "float32")
    u = build.input_node("u", (5, 16), "float32")
    at = build.input_node("at", (5,), "int64")
    feeds = {
        "x": RNG.normal(size=(8, 16)).astype("float32"),
        "u": RNG.normal(size=(5, 16)).astype("float32"),
        "at": RNG.integers(0, 8, 5),
    }
    first = build.elementwise("NEG", x)
    second = rows(first, u, at, "SUM")
    third = rows(second, build.elementwise("NEG", u), at, "MAX")
    check([third], feeds)
    assert len(plan_of(graph_of(third)).launches) == 3
    check([second, third, build.reduce("SUM", first, [0])], feeds)
    check([build.concat([third, second], 0), build.reduce("MAX", third, [1])], feeds)


def test_scatters_start_from_literals_views_inputs_and_concatenations():
    x = build.input_node("x", (8, 16), "float32")
    u = build.input_node("u", (5, 16), "float32")
    at = build.input_node("at", (5,), "int64")
    feeds = {
        "x": RNG.normal(size=(8, 16)).astype("float32"),
        "u": RNG.normal(size=(5, 16)).astype("float32"),
        "at": RNG.integers(0, 8, 5),
    }
    zeros = build.full(0, (8, 16), "float32")
    flipped = build.flip(x, [0])
    joined = build.concat([x, build.elementwise("ABS", x)], 0)
    table = build.constant(RNG.normal(size=(8, 16)).astype("float32"))
    bases = [zeros, zeros, flipped, joined, table, x]
    check([rows(b, u, at, c) for b, c in zip(bases, ["SUM", "MAX", "SET", "SUM", "PROD", "MIN"])], feeds)


def test_updates_of_a_reduction_and_readers_with_a_halo():
    x = build.input_node("x", (1, 1, 8, 9), "float32")
    u = build.input_node("u", (5, 9, 7), "float32")
    at = build.input_node("at", (5,), "int64")
    w = build.constant(RNG.normal(size=(4, 1, 3, 3)).astype("float32"))
    feeds = {
        "x": RNG.normal(size=(1, 1, 8, 9)).astype("float32"),
        "u": RNG.normal(size=(5, 9, 7)).astype("float32"),
        "at": RNG.integers(0, 8, 5),
    }
    made = rows(build.reshape(build.elementwise("EXP", x), (8, 9)), build.reduce("SUM", u, [2]), at, "SUM")
    picture = build.reshape(made, (1, 1, 8, 9))
    check([build.convolution(picture, w, [1, 1], [1, 1], [1, 1], [1, 1])], feeds, threads=2, factor=10)


def test_affine_places_with_guards():
    x = build.input_node("x", (10, 12), "float32")
    u = build.input_node("u", (7, 5), "float32")
    o = places(7, 5)
    where = [o[0] * 2 - 1, o[1] * 3 - 2]
    made = build.scatter(x, u, where, combine="SUM", guards=zip(where, x.shape))
    feeds = {"x": RNG.normal(size=(10, 12)).astype("float32"), "u": RNG.normal(size=(7, 5)).astype("float32")}
    check([made], feeds)


def test_text_and_verifier():
    x = build.input_node("x", (6, 9), "float32")
    u = build.input_node("u", (5, 9), "float32")
    at = build.input_node("at", (5, 9), "int64")
    graph = graph_of(elements(x, u, at, 0, "SUM"))
    verify(graph)
    assert parse_graph(print_graph(graph)).outputs["y0"] is graph.outputs["y0"]
    with pytest.raises(VerificationError, match="leaves an axis"):
        verify(graph_of(build.scatter(x, u, [index(Slot(0, 0, 6)), places(5, 9)[1]], [at])))
    with pytest.raises(ValueError, match="combination"):
        elements(x, u, at, 0, "AND")
    with pytest.raises(ValueError, match="updates of float32"):
        elements(at, u, at, 0, "SET")


def test_hostile_indices_write_nowhere():
    x = build.input_node("x", (4,), "float32")
    u = build.input_node("u", (6,), "float32")
    at = build.input_node("at", (6,), "int64")
    big = 1 << 62
    feeds = {
        "x": np.zeros(4, "float32"),
        "u": np.ones(6, "float32"),
        "at": np.array([-big, big, 4, -1, 3, np.iinfo(np.int64).min]),
    }
    made = elements(x, u, at, 0, "SET")
    (got,) = run(graph_of(made), feeds)
    np.testing.assert_array_equal(got, [0, 0, 0, 1])
    np.testing.assert_array_equal(evaluate([made], feeds)[0], got)
