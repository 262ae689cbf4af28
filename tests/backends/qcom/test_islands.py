"""Islands of float32 among halves: found by computing, and right on a device with half images."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import graph_of
from image_runs import largest_error, run_plan

from tinyinfer.backends.opencl.device import OpenclDevice
from tinyinfer.backends.opencl.target import plan_for
from tinyinfer.backends.qcom import islands as search
from tinyinfer.backends.qcom.capabilities import find_gpu
from tinyinfer.backends.qcom.device import QcomDevice
from tinyinfer.backends.qcom.islands import BOUND, IslandFinder, Islands, output_error
from tinyinfer.backends.qcom.target import qcom_target
from tinyinfer.config import CompileOptions
from tinyinfer.errors import InvalidArgument
from tinyinfer.ir import build
from tinyinfer.ir.node import Graph, Node
from tinyinfer.ir.oracle import evaluate
from tinyinfer.runtime.plan import Plan

TARGET = qcom_target(find_gpu("a630"))
SHAPE = (1, 4, 6, 8)


def layer(x: Node, rng: np.random.Generator, scale: float = 1.0, bias: float = 0.0, sign: int = 0) -> Node:
    """A pointwise convolution to eight channels with a bias and a maximum with zero."""
    w = rng.standard_normal((8, x.shape[1], 1, 1)).astype(np.float32)
    w = np.abs(w) * sign if sign else w
    w = build.constant((w * scale / np.sqrt(x.shape[1])).astype(np.float32))
    y = build.convolution(x, w, [1, 1], [1, 1], [0, 0], [0, 0])
    y = build.apply("ADD", y, build.constant(np.full((1, 8, 1, 1), bias, np.float32)))
    return build.elementwise("MAX", y, build.full(0.0, y.shape, "float32"))


def overflowing() -> Graph:
    """Values of some 1e6 in the middle, which the next layer makes small again."""
    rng = np.random.default_rng(0)
    x = build.input_node("x", SHAPE, "float32")
    return graph_of(layer(layer(layer(layer(x, rng), rng, 1e6), rng, 1e-6), rng))


def cancelling() -> Graph:
    """Values near 3000 in the middle, whose differences from it matter: halves keep them to 2."""
    rng = np.random.default_rng(1)
    x = build.input_node("x", SHAPE, "float32")
    lifted = layer(layer(x, rng), rng, 1.0, 3000.0)
    eye = build.constant(np.eye(8, dtype=np.float32).reshape(8, 8, 1, 1))
    y = build.convolution(lifted, eye, [1, 1], [1, 1], [0, 0], [0, 0])
    y = build.apply("ADD", y, build.scalar(-3000.0, "float32"))
    return graph_of(layer(build.elementwise("TANH", y), rng))


def feeds() -> list[dict[str, np.ndarray]]:
    return [{"x": np.random.default_rng(n).uniform(-1, 1, SHAPE).astype(np.float32)} for n in range(2)]


def planned(graph: Graph) -> tuple[Plan, Islands]:
    finder, found = IslandFinder(feeds, 1), []

    def widen(optimised: Graph) -> frozenset[Node]:
        found.append(finder.find(optimised, TARGET, CompileOptions()))
        return found[0].nodes

    return plan_for(graph, CompileOptions(), TARGET, "", widen), found[0]


@pytest.mark.parametrize("make", [overflowing, cancelling])
def test_what_halves_cannot_hold_becomes_float32(make, images: OpenclDevice):
    graph = make()
    plan, islands = planned(graph)
    assert 1 <= len(islands.titles) < islands.stored
    assert not islands.before <= BOUND and islands.after <= BOUND
    assert {x.dtype for x in plan.images} == {"float16", "float32"}
    other = {"x": np.random.default_rng(9).uniform(-1, 1, SHAPE).astype(np.float32)}
    exact = evaluate(list(graph.outputs.values()), other)
    assert largest_error(run_plan(plan, other, images), exact) <= 2 * BOUND
    in_halves = run_plan(plan_for(graph, CompileOptions(), TARGET), other, images)
    assert not largest_error(in_halves, exact) <= 2 * BOUND


def test_a_graph_that_halves_serve_has_none():
    rng = np.random.default_rng(2)
    x = build.input_node("x", SHAPE, "float32")
    plan, islands = planned(graph_of(layer(layer(layer(x, rng), rng), rng)))
    assert islands.titles == () and islands.stored > 2 and 0 < islands.before <= BOUND
    assert {x.dtype for x in plan.images} == {"float16"}
    assert islands.as_dict()["float32"] == []


def test_the_same_values_are_searched_once():
    calls = []

    def counted() -> list[dict[str, np.ndarray]]:
        calls.append(1)
        return feeds()

    finder = IslandFinder(counted, 1)
    graph = overflowing()
    first = finder.find(graph, TARGET, CompileOptions())
    again = finder.find(overflowing(), TARGET, CompileOptions())
    assert again == first and len(calls) == 1


def test_what_was_found_is_kept_for_equal_weights_and_inputs(monkeypatch, tmp_path):
    monkeypatch.setenv("TINYINFER_CACHE", str(tmp_path))
    first = IslandFinder(feeds, 1).find(overflowing(), TARGET, CompileOptions())
    searched = []
    monkeypatch.setattr(search, "_Trial", lambda *given: searched.append(given) or _unreachable())
    assert IslandFinder(feeds, 1).find(overflowing(), TARGET, CompileOptions()) == first
    for finder, graph in (
        (IslandFinder(feeds, 1), cancelling()),
        (IslandFinder(lambda: feeds()[:1], 1), None),
    ):
        with pytest.raises(RuntimeError, match="searched again"):
            finder.find(graph or overflowing(), TARGET, CompileOptions())
    assert len(searched) == 2


def _unreachable() -> None:
    raise RuntimeError("searched again")


def test_what_is_written_to_halves_is_rounded_to_the_nearest(images: OpenclDevice):
    """PoCL's own stores to half images round towards zero."""
    x = build.input_node("x", (1, 8, 6, 8), "float32")
    eye = build.constant(np.eye(8, dtype=np.float32).reshape(8, 8, 1, 1))
    y = build.convolution(x, eye, [1, 1], [1, 1], [0, 0], [0, 0])
    z = build.convolution(y, eye, [1, 1], [1, 1], [0, 0], [0, 0])
    plan = plan_for(graph_of(build.elementwise("TANH", y), z), CompileOptions(), TARGET)
    assert any(image.dtype == "float16" for image in plan.images)
    values = np.random.default_rng(5).uniform(-4, 4, x.shape).astype(np.float32)
    values.reshape(-1)[:3] = 1e-6, 6.1e-5, 65519.0
    got = run_plan(plan, {"x": values}, images)[1]
    np.testing.assert_array_equal(got, values.astype(np.float16).astype(np.float32))


def test_errors_are_parts_of_the_range_and_of_integers_parts_of_their_number():
    exact = np.array([0.0, 4.0, 2.0], np.float32)
    most, average = output_error(exact + np.float32(0.5), exact)
    assert most == pytest.approx(0.125) and average == pytest.approx(0.125)
    assert output_error(np.array([1.0, np.inf], np.float32), np.array([1.0, 2.0], np.float32))[0] == np.inf
    assert output_error(np.array([np.nan], np.float32), np.array([np.nan], np.float32)) == (0.0, 0.0)
    assert output_error(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5])) == (0.25, 0.25)
    assert output_error(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)) == (0.0, 0.0)


def test_a_device_looks_for_islands_by_itself_and_stores_what_its_precision_says():
    plan = QcomDevice("a630").plan_with_islands(overflowing(), CompileOptions(), 1)
    assert {x.dtype for x in plan.images} == {"float16", "float32"}
    wide = QcomDevice("a630").with_options({"precision": "fp32"})
    assert {x.dtype for x in wide.plan(overflowing(), CompileOptions()).images} == {"float32"}
    assert wide.target.storage == "float32"
    assert QcomDevice().with_options({"precision": "fp16"}).storage == "float16"
    with pytest.raises(InvalidArgument, match="precision is one of auto, fp16, fp32"):
        QcomDevice().with_options({"precision": "int8"})
