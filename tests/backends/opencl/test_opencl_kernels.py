"""Kernels for work-items on an OpenCL device against the oracle: random graphs, every op, every dtype."""

from __future__ import annotations

import numpy as np
import pytest
from device_cases import random_cases
from opencl_runs import MODELS, check, quick_builds
from random_graphs import GENERATORS, Case

from tinyinfer.backends.clike import expression
from tinyinfer.ir import build
from tinyinfer.ir.ops import ELEMENTWISE

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture
def quick(opencl):
    """The device, whose programs are not optimised."""
    with quick_builds():
        yield opencl


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("model", ["tiny", "large"])
def test_random_graphs_cut_for_other_devices(name, model, quick):
    check(random_cases(name, 100, 2), quick, MODELS[model])


@pytest.mark.sweep
@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("fuse", [True, False])
def test_many_random_graphs_on_opencl(name, model, fuse, opencl):
    for first in range(1000, 1030, 3):
        check(random_cases(name, first, 3), opencl, MODELS[model], fuse)


@pytest.mark.parametrize("op", ["SQRT", "RECIP", "POW"])
def test_integer_ops_that_need_doubles(op, opencl):
    x = build.input_node("x", (6,), "int32")
    feeds = {"x": np.array([1, 4, 9, 10, 46340, 3], np.int32)}
    inputs = [x, build.full(2, (6,), "int32")][: ELEMENTWISE[op].arity]
    check({op: Case([build.elementwise(op, *inputs)], feeds)}, opencl)


@pytest.mark.parametrize("model", MODELS)
def test_long_sums_are_split(model, quick):
    rng = np.random.default_rng(0)
    made = {}
    for rows in (1, 3, 200):
        for k in (16, 500, 2048):
            x = build.input_node("x", (rows, k), "float32")
            y = build.matmul(x, build.constant(rng.standard_normal((k, 37)).astype(np.float32)))
            feeds = {"x": rng.standard_normal(x.shape).astype(np.float32)}
            made[f"{rows} rows of {k}"] = Case([y], feeds, scale=4.0 * k)
    check(made, quick, MODELS[model])


@pytest.mark.parametrize("name", ["convolution", "rows", "views", "gathers", "concats"])
def test_indices_beyond_32_bits(name, quick, monkeypatch):
    """Buffers that large do not fit in tests: a lower limit makes all counters long."""
    monkeypatch.setattr(expression, "INT32_LIMIT", 16)
    check(random_cases(name, 300, 3), quick)
