"""Kernels for work-items on an OpenCL device against the oracle: random graphs, every op, every dtype."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import graph_of
from opencl_runs import MODELS, check, run
from random_graphs import DTYPES, FLOATS, GENERATORS, Case, case
from test_c_kernels import bitcasts, casts, operations, scatters

from tinyinfer.backends.clike import expression
from tinyinfer.ir import build
from tinyinfer.ir.ops import ELEMENTWISE

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

SEEDS = 3


def check_seeds(name: str, device, seeds: range, **options) -> None:
    for seed in seeds:
        try:
            check(case(name, seed), device, **options)
        except AssertionError as error:
            raise AssertionError(f"{name} {seed}: {error}") from None


@pytest.mark.parametrize("name", GENERATORS)
def test_random_graphs_on_opencl(name, opencl):
    check_seeds(name, opencl, range(SEEDS))


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("model", ["tiny", "large"])
def test_random_graphs_cut_for_other_devices(name, model, opencl):
    check_seeds(name, opencl, range(100, 102), model=MODELS[model])


@pytest.mark.sweep
@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("fuse", [True, False])
def test_many_random_graphs_on_opencl(name, model, fuse, opencl):
    check_seeds(name, opencl, range(1000, 1030), model=MODELS[model], fuse=fuse)


# ---- every op of the table


def joined(cases: list[Case]) -> list[Case]:
    """Cases of the same feeds as one, so that they are one program."""
    groups: dict[tuple, list[Case]] = {}
    for chosen in cases:
        key = tuple((name, array.tobytes()) for name, array in chosen.feeds.items())
        groups.setdefault(key, []).append(chosen)
    return [Case([y for c in group for y in c.outputs], group[0].feeds) for group in groups.values()]


@pytest.mark.parametrize("dtype", DTYPES)
def test_elementwise_ops_on_special_values_on_opencl(dtype, opencl):
    for chosen in joined(list(operations(dtype).values())):
        check(chosen, opencl)


@pytest.mark.parametrize("op", ["SQRT", "RECIP", "POW"])
def test_integer_ops_that_need_doubles(op, opencl):
    x = build.input_node("x", (6,), "int32")
    feeds = {"x": np.array([1, 4, 9, 10, 46340, 3], np.int32)}
    inputs = [x, build.full(2, (6,), "int32")][: ELEMENTWISE[op].arity]
    check(Case([build.elementwise(op, *inputs)], feeds), opencl)


@pytest.mark.parametrize("dtype", DTYPES)
def test_casts_on_opencl(dtype, opencl):
    check(casts(dtype), opencl)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bitcasts_on_opencl(dtype, opencl):
    chosen = bitcasts(dtype)
    if not chosen.outputs:
        pytest.skip("no other dtype of this size")
    (array,) = chosen.feeds.values()
    for got in run(graph_of(*chosen.outputs), chosen.feeds, opencl):
        if {dtype, got.dtype.name} & set(FLOATS) and array.dtype.itemsize == 2:
            # a half that is loaded as a float may have a NaN's payload changed
            kept = ~np.isnan(array.view(np.float16))
            assert np.array_equal(got.view(np.uint16)[kept], array.view(np.uint16)[kept])
            continue
        assert got.tobytes() == array.tobytes(), f"{dtype} to {got.dtype}"


@pytest.mark.parametrize("name", scatters())
def test_scatters_on_opencl(name, opencl):
    check(scatters()[name], opencl)


# ---- sizes


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2), ()])
def test_empty_and_scalar_shapes(shape, opencl):
    x = build.input_node("x", shape, "float32")
    outputs = [build.elementwise("NEG", x), build.reduce("SUM", x, range(len(shape)))]
    check(Case(outputs, {"x": np.ones(shape, np.float32)}), opencl)


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 31, 64, 130])
@pytest.mark.parametrize("size", [1, 7, 14])
def test_convolutions_of_odd_sizes(channels, size, opencl):
    rng = np.random.default_rng(channels)
    x = build.input_node("x", (1, channels, size, size), "float32")
    w = build.constant(rng.standard_normal((channels + 3, channels, 3, 3)).astype(np.float32))
    y = build.convolution(x, w, [1, 1], [1, 1], [1, 1], [1, 1])
    y = build.elementwise("MAX", y, build.full(0.0, y.shape, "float32"))
    feeds = {"x": rng.standard_normal(x.shape).astype(np.float32)}
    check(Case([y], feeds, scale=12.0 * channels), opencl)


@pytest.mark.parametrize("rows", [1, 3, 200])
@pytest.mark.parametrize("k", [16, 500, 2048])
def test_long_sums_are_split(rows, k, opencl):
    rng = np.random.default_rng(k)
    x = build.input_node("x", (rows, k), "float32")
    y = build.matmul(x, build.constant(rng.standard_normal((k, 37)).astype(np.float32)))
    feeds = {"x": rng.standard_normal(x.shape).astype(np.float32)}
    for model in MODELS.values():
        check(Case([y], feeds, scale=4.0 * k), opencl, model)


@pytest.mark.parametrize("name", ["convolution", "rows", "views", "gathers", "concats"])
def test_indices_beyond_32_bits(name, opencl, monkeypatch):
    """Buffers that large do not fit in tests: a lower limit makes all counters long."""
    monkeypatch.setattr(expression, "INT32_LIMIT", 16)
    check_seeds(name, opencl, range(300, 303))
