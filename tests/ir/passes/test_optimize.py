"""The passes together: fusion of multiply and add, order, origins, and networks as a whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rules import feeds_of, graph_of, ops, rewritten

from tinyinfer.ir import build
from tinyinfer.ir.build import apply, constant, elementwise, full, input_node, scalar
from tinyinfer.ir.node import Literal
from tinyinfer.ir.oracle import evaluate
from tinyinfer.ir.passes import LAST_PASSES, PASSES, fuse_multiply_add, optimize
from tinyinfer.ir.text import graph_literals, parse_graph, print_graph
from tinyinfer.ir.verify import verify

X = input_node("x", (3, 4), "float32")
Y = input_node("y", (3, 4), "float32")


def test_multiply_and_add_fuse():
    product = elementwise("MUL", X, Y, origin=["mul"])
    for made in (elementwise("ADD", product, Y), elementwise("ADD", Y, product)):
        result, = rewritten(fuse_multiply_add, made, tolerance=1e-6)
        assert result is elementwise("MULACC", X, Y, Y) and "mul" in result.origin


def test_a_product_with_other_users_does_not_fuse():
    product = elementwise("MUL", X, Y)
    graph = graph_of(elementwise("ADD", product, Y), product)
    assert fuse_multiply_add(graph) is graph
    doubled = graph_of(elementwise("ADD", product, product))
    assert fuse_multiply_add(doubled) is doubled


def test_integers_and_contractions_do_not_fuse():
    i = input_node("i", (4,), "int32")
    products = build.matmul(X, build.permute(X, (1, 0)))
    integers = elementwise("ADD", elementwise("MUL", i, i), i)
    graph = graph_of(integers, apply("ADD", products, scalar(1, "float32")))
    assert fuse_multiply_add(graph) is graph


def _network(x):
    rng = np.random.default_rng(5)
    for o in (8, 8, 16):
        w = constant(rng.standard_normal((o, x.shape[1], 3, 3)).astype(np.float32) / 8)
        shift, scale = (constant((rng.random((o, 1, 1)) + 0.5).astype(np.float32)) for _ in range(2))
        y = build.convolution(x, w, (1, 1), (1, 1), (1, 1), (1, 1), origin=[f"conv{o}"])
        y = apply("ADD", apply("MUL", y, scale), shift)
        y = apply("MIN", apply("MAX", y, scalar(0, "float32")), scalar(6, "float32"))
        x = apply("ADD", x, y) if x.shape == y.shape else y
    pooled = apply("DIV", build.reduce("SUM", build.reduce("SUM", x, (3,)), (2,)), scalar(64, "float32"))
    logits = build.matmul(pooled, constant(rng.standard_normal((16, 10)).astype(np.float32)))
    shifted = apply("SUB", logits, build.reduce("MAX", logits, (1,), keepdims=True))
    e = elementwise("EXP", shifted)
    return apply("DIV", e, build.reduce("SUM", e, (1,), keepdims=True))


def test_a_network_keeps_its_values_and_loses_its_normalisation():
    x = input_node("x", (2, 3, 8, 8), "float32")
    result, = rewritten(optimize, _network(x), tolerance=1e-5)
    found = ops(result)
    assert found.count("MUL") == 5  # four contractions, and the division by 64
    assert found.count("SUM") == 6 and "SUB" in found


def test_optimising_twice_changes_nothing():
    graph = optimize(graph_of(_network(input_node("x", (2, 3, 8, 8), "float32"))))
    assert optimize(graph) is graph


def test_a_printed_graph_optimises_alike():
    graph = graph_of(_network(input_node("x", (1, 3, 8, 8), "float32")))
    again = parse_graph(print_graph(graph), graph_literals(graph))
    assert print_graph(optimize(again)) == print_graph(optimize(graph))


def test_every_pass_is_named_once():
    assert list(PASSES) == ["remove_empty", "sum_integers", "fold_constants", "simplify", "fold_affine",
                            "widen_sums", "simplify_loops"]
    assert list(LAST_PASSES) == ["exact_sums_as_floats", "multiply_by_reciprocal", "fuse_multiply_add",
                                 "finish_bodies"]


def test_large_literals_that_nothing_computes_with_are_not_read():
    def load():
        raise AssertionError("a literal was read")

    w = constant(Literal(load=load, shape=(2000, 2000), dtype="float32", key="late"))
    x = input_node("x", (1, 2000), "float32")
    graph = graph_of(apply("MAX", build.matmul(x, w), scalar(0, "float32")))
    assert optimize(graph) is graph


def test_depth_does_not_matter():
    x = input_node("x", (2,), "float32")
    deep = x
    for _ in range(3000):
        deep = apply("ADD", elementwise("TANH", deep), x)
    assert optimize(graph_of(deep)).outputs["y0"] is deep


@st.composite
def _expressions(draw):
    """Random elementwise expressions of x, y and constants, rich in what the rules look for."""
    leaves = st.one_of(st.sampled_from((X, Y)), st.sampled_from((-2, -1, 0, 0.5, 1, 2, 3)).map(
        lambda v: full(v, (3, 4), "float32")), st.just(build.expand(
            constant(np.array([0.5, 2, -1, 4], np.float32)), (3, 4))))

    def grow(children):
        pairs = st.tuples(st.sampled_from(("ADD", "SUB", "MUL", "DIV", "MAX", "MIN")), children, children)
        singles = st.tuples(st.sampled_from(("NEG", "ABS", "TANH", "SIGMOID")), children)
        reduced = children.map(lambda x: build.expand(build.reduce("SUM", x, (1,), keepdims=True), (3, 4)))
        arithmetic = st.one_of(pairs, singles).map(lambda parts: elementwise(*parts))
        return st.one_of(arithmetic, reduced)

    return draw(st.recursive(leaves, grow, max_leaves=10))


@settings(max_examples=400, deadline=None, derandomize=True)
@given(_expressions(), st.integers(0, 3))
def test_random_expressions_keep_their_values(expression, seed):
    graph = graph_of(expression)
    after = optimize(graph)
    verify(after)
    # quarters keep sums and products of a few terms exact
    feeds = {name: np.round(value * 4) / 4 for name, value in feeds_of(graph, seed).items()}
    values = evaluate(graph.nodes(), feeds)
    scale = max(float(np.abs(v).max(initial=1)) for v in values)
    if not scale < 1e6:
        return  # overflow and division by zero may differ
    before, = evaluate([expression], feeds)
    result, = evaluate([after.outputs["y0"]], feeds)
    np.testing.assert_allclose(result, before, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("value", ["0", "1"])
def test_verification_after_each_pass_changes_no_result(monkeypatch, value):
    monkeypatch.setenv("TINYINFER_VERIFY", value)
    rewritten(optimize, apply("ADD", apply("MUL", X, scalar(1, "float32")), Y))
