"""Kernels over images against the oracle, executed on an OpenCL device of this machine."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import assert_close, graph_of
from image_graphs import GRAPHS, image_case
from image_runs import largest_error, plan_of, run_plan
from random_graphs import GENERATORS, case

from tinyinfer.ir import build
from tinyinfer.ir.oracle import evaluate

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

EXACT = 2e-5
"""Largest error where images hold float32: only sums are in another order."""

HALVES = 2e-2
"""The same where they hold halves, which some OpenCL devices round towards zero."""


def check_case(name: str, seed: int, device, gpu: str, storage: str) -> int:
    chosen = image_case(name, seed)
    plan = plan_of(graph_of(*chosen.outputs), gpu, storage)
    got = run_plan(plan, chosen.feeds, device)
    error = largest_error(got, evaluate(chosen.outputs, chosen.feeds))
    assert error <= (EXACT if storage == "float32" else HALVES), f"{name} {seed}: {error}"
    return len(plan.images)


@pytest.mark.parametrize("gpu", ["a630", "a660"])
@pytest.mark.parametrize("name", GRAPHS)
def test_random_graphs_in_images(name, gpu, images):
    assert sum(check_case(name, seed, images, gpu, "float32") for seed in range(3))


@pytest.mark.parametrize("name", GRAPHS)
def test_random_graphs_in_half_images(name, images):
    for seed in range(10, 12):
        check_case(name, seed, images, "a630", "float16")


@pytest.mark.parametrize("name", GENERATORS)
def test_random_graphs_of_any_kind_for_adreno(name, images):
    """Mostly values that stay in buffers: other types, odd sizes."""
    for seed in range(2):
        chosen = case(name, seed)
        plan = plan_of(graph_of(*chosen.outputs), "a630", "float32") if _has_no_doubles(chosen) else None
        if plan is None:
            continue
        got = run_plan(plan, chosen.feeds, images)
        for a, b in zip(got, evaluate(chosen.outputs, chosen.feeds), strict=True):
            assert_close(a, b, chosen.scale, 2 * chosen.factor)


@pytest.mark.sweep
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("gpu", ["a630", "a660", "a702", "a740"])
@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_many_random_graphs_in_images(name, gpu, storage, images):
    for seed in range(100, 125):
        check_case(name, seed, images, gpu, storage)


def _has_no_doubles(chosen) -> bool:
    return all(x.dtype != "float64" for x in graph_of(*chosen.outputs).nodes())


def test_weights_that_halves_do_not_hold_stay_in_a_buffer(images):
    """Numbers above 65504 would be infinite."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((8, 4, 1, 1)).astype(np.float32)
    x = build.input_node("x", (1, 4, 8, 8), "float32")
    feeds = {"x": (rng.standard_normal(x.shape) / 100).astype(np.float32)}
    for scale, in_image in ((1.0, True), (1e5, False)):
        y = build.convolution(x, build.constant(w * np.float32(scale)), [1, 1], [1, 1], [0, 0], [0, 0])
        plan = plan_of(graph_of(y), "a630", "float16")
        assert bool(plan.parameter_images) == in_image
        assert largest_error(run_plan(plan, feeds, images), evaluate([y], feeds)) < 2e-3
