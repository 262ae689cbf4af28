"""What a plan stores in halves, and the graph that computes as if it did."""

from __future__ import annotations

import numpy as np
from compiled import graph_of

from tinyinfer.backends.clike.item_printer import ItemPrinter
from tinyinfer.backends.qcom.capabilities import find_gpu
from tinyinfer.backends.qcom.target import qcom_target
from tinyinfer.config import CompileOptions
from tinyinfer.ir import build
from tinyinfer.ir.node import Graph
from tinyinfer.ir.oracle import evaluate
from tinyinfer.kernels.halves import LARGEST, SWITCH, WEIGHTS, simulation, stored_halves, weights_of
from tinyinfer.kernels.plan import build_plan

TARGET = qcom_target(find_gpu("a630"))
PRINTER = ItemPrinter(TARGET.model, TARGET.dialect)


def two_layers(scale: float = 1.0) -> tuple[Graph, dict[str, np.ndarray]]:
    """Two pointwise convolutions with biases, of which the first one's result is stored."""
    rng = np.random.default_rng(3)
    x = build.input_node("x", (1, 4, 6, 8), "float32")
    first, second = (rng.standard_normal((8, n, 1, 1)).astype(np.float32) for n in (4, 8))
    bias = build.constant(rng.standard_normal((1, 8, 1, 1)).astype(np.float32))
    y = build.convolution(x, build.constant(first * np.float32(scale)), [1, 1], [1, 1], [0, 0], [0, 0])
    y = build.apply("ADD", y, bias)
    y = build.elementwise("MAX", y, build.full(0.0, y.shape, "float32"))
    z = build.convolution(y, build.constant(second / np.float32(scale)), [1, 1], [1, 1], [0, 0], [0, 0])
    return graph_of(z), {"x": rng.standard_normal(x.shape).astype(np.float32)}


def test_values_and_weights_in_half_images_are_listed_and_biases_are_not():
    graph, _ = two_layers()
    stored = stored_halves(graph, PRINTER, CompileOptions())
    constants = [item.nodes[0].shape for item in stored if item.is_constant]
    assert sorted(constants) == [(8, 4, 1, 1), (8, 8, 1, 1)]
    assert any(n.op == "MAX" for item in stored if not item.is_constant for n in item.nodes)
    assert all(item.nbytes > 0 for item in stored)


def test_what_is_widened_is_float32_in_the_plan():
    graph, _ = two_layers()
    stored = stored_halves(graph, PRINTER, CompileOptions())
    every = {node for item in stored for node in item.nodes}
    plan = build_plan(graph, PRINTER, CompileOptions(), every)
    assert plan.images and {x.dtype for x in plan.images} == {"float32"}
    assert {x.dtype for x in plan.parameter_images.values()} == {"float32"}
    constant = next(item for item in stored if item.is_constant)
    plan = build_plan(graph, PRINTER, CompileOptions(), set(constant.nodes))
    assert {x.dtype for x in plan.images} == {"float16"}
    assert {x.dtype for x in plan.parameter_images.values()} == {"float16", "float32"}


def test_switches_round_what_they_stand_for():
    graph, feeds = two_layers()
    stored = stored_halves(graph, PRINTER, CompileOptions())
    simulated = simulation(graph, stored)

    def run(on: set[int]) -> dict[str, np.ndarray]:
        given = dict(feeds)
        for number, item in enumerate(stored):
            if item.is_constant:
                given[f"{WEIGHTS}{number}"] = weights_of(item, number in on)
            else:
                given[f"{SWITCH}{number}"] = np.array(number in on)
        return dict(zip(simulated.outputs, evaluate(list(simulated.outputs.values()), given)))

    exact = evaluate(list(graph.outputs.values()), feeds)[0]
    off = run(set())
    np.testing.assert_array_equal(off["y0"], exact)
    value = next(i for i, item in enumerate(stored) if any(n.op == "MAX" for n in item.nodes))
    hidden = next(n for n in stored[value].nodes if n.op == "MAX")
    held = evaluate([hidden], feeds)[0]
    assert float(off[f"{LARGEST}{value}"]) == np.abs(held).max()
    weights = next(n for n in graph.nodes() if n.op == "CONST" and n.shape == (8, 8, 1, 1)).attrs.array
    rounded = held.astype(np.float16).astype(np.float64)
    wanted = np.einsum("nchw,kc->nkhw", rounded, weights[:, :, 0, 0].astype(np.float64))
    np.testing.assert_allclose(run({value})["y0"], wanted, rtol=1e-5, atol=1e-5)
    assert np.abs(run({value})["y0"] - exact).max() > 1e-5
