"""Kernels for work-items on an OpenCL device against the oracle: random graphs, every op, every dtype."""

from __future__ import annotations

import numpy as np
import pytest
from device_cases import random_cases
from opencl_runs import MODELS, check, forced_tiles, quick_builds
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


CONTRACTIONS = ("convolution", "two_convolutions", "matmul", "attention")


@pytest.mark.parametrize("name", CONTRACTIONS)
def test_contractions_of_tiles_in_local_memory(name, quick):
    with forced_tiles(0) as model:
        check(random_cases(name, 500, 4), quick, model)


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", CONTRACTIONS)
def test_many_contractions_of_tiles_in_local_memory(name, seed, opencl):
    with forced_tiles(seed) as model:
        check(random_cases(name, 2000 + 10 * seed, 10), opencl, model)


def test_tiles_of_integers_of_rows_side_by_side_and_of_uneven_chunks(quick):
    rng = np.random.default_rng(0)
    made = {}
    for dtype, shape, columns in (
        ("int32", (70, 45), 19),
        ("float32", (33, 64), 130),
        ("float32", (130, 7), 8),
    ):
        a = rng.integers(-9, 9, shape).astype(dtype)
        b = rng.integers(-9, 9, (shape[1], columns)).astype(dtype)
        x = build.input_node("x", shape, dtype)
        turned = build.permute(build.input_node("x", shape[::-1], dtype), [1, 0])
        w = build.input_node("w", b.shape, dtype)
        made[f"{shape}"] = Case([build.matmul(x, build.constant(b))], {"x": a})
        made[f"{shape} turned"] = Case([build.matmul(turned, w)], {"x": a.T.copy(), "w": b})
    with forced_tiles(1) as model:
        check(made, quick, model)


@pytest.mark.parametrize("name", ["convolution", "rows", "views", "gathers", "concats"])
def test_indices_beyond_32_bits(name, quick, monkeypatch):
    """Buffers that large do not fit in tests: a lower limit makes all counters long."""
    monkeypatch.setattr(expression, "INT32_LIMIT", 16)
    check(random_cases(name, 300, 3), quick)
