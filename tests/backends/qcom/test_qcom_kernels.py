"""Kernels over images against the oracle, executed on an OpenCL device of this machine."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import graph_of
from device_cases import joined
from image_graphs import GRAPHS, image_case
from image_runs import largest_error, plan_of, run_plan
from loop_graphs import normalised
from opencl_runs import quick_builds

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


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_random_graphs_for_a_gpu_of_fewer_registers(storage, images):
    """The device suite runs the kernels of a GPU with more of them."""
    cases = [image_case(name, 0) for name in GRAPHS]
    program = joined(cases)
    plan = plan_of(graph_of(*program.outputs), "a660", storage)
    wanted = [y for chosen in cases for y in evaluate(chosen.outputs, chosen.feeds)]
    with quick_builds():
        error = largest_error(run_plan(plan, program.feeds, images), wanted)
    assert error <= (EXACT if storage == "float32" else HALVES) and plan.images


def test_loops_of_one_wave(images):
    graph = normalised()
    random = np.random.default_rng(0)
    feeds = {n: random.random(x.shape, dtype=np.float32) for n, x in graph.inputs.items()}
    plan = plan_of(graph, "a630", "float32")
    assert all(x.loop is None for x in plan.launches)
    with quick_builds():
        got = run_plan(plan, feeds, images)
    assert largest_error(got, evaluate(list(graph.outputs.values()), feeds)) <= EXACT


@pytest.mark.sweep
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("gpu", ["a630", "a660", "a702", "a740"])
@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_many_random_graphs_in_images(name, gpu, storage, images):
    for seed in range(100, 125):
        check_case(name, seed, images, gpu, storage)


def test_weights_that_halves_do_not_hold_are_float32(images):
    """Numbers above 65504 would be infinite."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((8, 4, 1, 1)).astype(np.float32)
    x = build.input_node("x", (1, 4, 8, 8), "float32")
    feeds = {"x": (rng.standard_normal(x.shape) / 100).astype(np.float32)}
    for scale, dtype in ((1.0, "float16"), (1e5, "float32")):
        y = build.convolution(x, build.constant(w * np.float32(scale)), [1, 1], [1, 1], [0, 0], [0, 0])
        plan = plan_of(graph_of(y), "a630", "float16")
        assert [x.dtype for x in plan.parameter_images.values()] == [dtype]
        assert largest_error(run_plan(plan, feeds, images), evaluate([y], feeds)) < 2e-3
