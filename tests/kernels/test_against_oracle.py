"""Random graphs through the whole compiler against the oracle, and against themselves compiled otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import check, graph_of, run
from random_graphs import GENERATORS, INTEGERS, case

from tinyinfer.backends.cpu.target import named_target
from tinyinfer.ir import build
from tinyinfer.ir.node import Node

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

CASES = {name: 32 for name in GENERATORS} | {"two_convolutions": 16}
BATCH = 8
"""Random graphs in one test."""

SWEEP_BATCHES = 40


def check_case(name: str, seed: int, **options) -> None:
    """Compile and compare one random graph; the failing seed is in the traceback."""
    chosen = case(name, seed)
    scales = [chosen.scale] * len(chosen.outputs)
    check(chosen.outputs, chosen.feeds, scales=scales, factor=chosen.factor, **options)


def batches(count: dict[str, int]) -> list[tuple[str, int]]:
    return [(name, start) for name, most in count.items() for start in range(0, most, BATCH)]


@pytest.mark.parametrize("name, start", batches(CASES))
def test_random_graphs(name, start):
    for seed in range(start, start + BATCH):
        check_case(name, seed)


@pytest.mark.sweep
@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("batch", range(SWEEP_BATCHES))
def test_many_random_graphs(name, batch):
    for seed in range(1000 + batch * BATCH, 1000 + (batch + 1) * BATCH):
        check_case(name, seed)


# ---- the same graph compiled otherwise


@pytest.mark.parametrize("name", GENERATORS)
def test_unfused(name):
    for seed in range(500, 504):
        check_case(name, seed, fuse=False)


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("target", ["x86_64-v3", "x86_64"])
def test_other_vectors(name, target):
    chosen = named_target(target)
    if chosen.architecture != named_target("host").architecture:
        pytest.skip(f"code for {target} does not run here")
    for seed in range(600, 603):
        check_case(name, seed, target=chosen)


@pytest.mark.sweep
@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("options", [{"fuse": False}, {"target": "x86_64-v3"}, {"target": "x86_64"}], ids=str)
def test_many_compiled_otherwise(name, options):
    if "target" in options:
        options = {"target": named_target(options["target"])}
    for seed in range(2000, 2100):
        check_case(name, seed, **options)


@pytest.mark.parametrize("name", GENERATORS)
def test_threads_change_no_bit(name):
    for seed in range(700, 703):
        chosen = case(name, seed)
        graph = graph_of(*chosen.outputs)
        for one, two in zip(
            run(graph, chosen.feeds, threads=1), run(graph, chosen.feeds, threads=2), strict=True
        ):
            assert one.tobytes() == two.tobytes()


def large_shared(rng: np.random.Generator) -> tuple[list[Node], dict[str, np.ndarray]]:
    """Kernels of many chunks, so that threads really share them."""
    x = build.input_node("x", (1, 32, 40, 40), "float32")
    w = build.constant(rng.standard_normal((48, 32, 3, 3)).astype(np.float32))
    d = build.constant(rng.standard_normal((48, 1, 3, 3)).astype(np.float32))
    y = build.convolution(x, w, [1, 1], [1, 1], [1, 1], [1, 1])
    z = build.convolution(build.elementwise("TANH", y), d, [1, 1], [1, 1], [1, 1], [1, 1], 48)
    total = build.reduce("SUM", build.elementwise("SIGMOID", z), [2, 3])
    return [y, z, total], {"x": rng.standard_normal(x.shape).astype(np.float32)}


def test_threads_change_no_bit_of_shared_kernels():
    outputs, feeds = large_shared(np.random.default_rng(3))
    graph = graph_of(*outputs)
    for one, two in zip(run(graph, feeds, threads=1), run(graph, feeds, threads=2, repeats=5), strict=True):
        assert one.tobytes() == two.tobytes()
    check(outputs, feeds, threads=2, scales=[100.0, 100.0, 100.0])


# ---- numbers with edges


def test_subnormals_count_as_zero():
    tiny = np.finfo(np.float32).tiny
    values = np.array([tiny / 2, -tiny / 4, tiny, 0, 1] * 7, np.float32)
    x = build.input_node("x", values.shape, "float32")
    half = build.apply("MUL", x, build.scalar(0.5, "float32"))
    (got,) = run(graph_of(half), {"x": values})
    np.testing.assert_array_equal(got, np.array([0, 0, 0, 0, 0.5] * 7, np.float32))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_division_never_traps(dtype):
    limits = np.iinfo(dtype)
    a = np.array([limits.min, limits.max, 7, -7 % (limits.max + 1), 0], dtype).repeat(4)
    b = np.tile(np.array([0, 1, -1 % (limits.max + 1) if limits.min == 0 else -1, 3], dtype), 5)
    x, y = (build.input_node(name, a.shape, dtype) for name in "ab")
    check([build.elementwise(op, x, y) for op in ("IDIV", "MOD", "FMOD")], {"a": a, "b": b})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_remainder_of_tiny_numbers_takes_the_sign_of_the_divisor(dtype):
    tiny = float(np.finfo(dtype).tiny)
    a = np.array([tiny * 4, -tiny * 4, 3 * tiny, -1e-20], dtype)
    b = np.array([-0.5, 0.5, -tiny * 2, 1e-20 * 0.75], dtype)
    x, y = (build.input_node(name, a.shape, dtype) for name in "ab")
    check([build.elementwise("MOD", x, y)], {"a": a, "b": b})


# ---- edges of shapes


@pytest.mark.parametrize(
    "shape, axes",
    [
        ((4, 0, 3), (1,)),
        ((4, 0, 3), (0,)),
        ((0,), (0,)),
        ((5, 1), (1,)),
        ((1, 1), (0, 1)),
        ((3, 200), (1,)),
        ((200, 3), (0,)),
        ((2, 100, 19), (1,)),
        ((2, 1, 130, 3), (1, 2)),
        ((2000,), (0,)),
    ],
)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64", "uint32", "bool"])
def test_reductions(shape, axes, dtype):
    rng = np.random.default_rng(5)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        array = rng.uniform(0.5, 1.5, shape).astype(kind)
    else:
        array = rng.integers(0, 2 if dtype == "bool" else 100, shape).astype(kind)
    x = build.input_node("x", shape, dtype)
    outputs = [build.reduce(op, x, axes) for op in ("SUM", "MAX", "MIN", "PROD")]
    check(outputs, {"x": array}, factor=4.0)
    if kind.kind == "f" and array.size:
        array[tuple(d // 2 for d in shape)] = np.nan
        check(outputs, {"x": array}, factor=4.0)


# ---- what once went wrong


def test_half_precision_sums_are_accumulated_in_single_precision():
    rng = np.random.default_rng(0)
    h = build.input_node("h", (5, 600), "float16")
    array = rng.uniform(0, 4, (5, 600)).astype(np.float16)
    weights = build.constant(rng.uniform(0, 1, (600, 20)).astype(np.float16))
    check([build.matmul(h, weights), build.reduce("SUM", h, [1])], {"h": array}, factor=0.5)


def test_padding_around_indices_is_guarded():
    """A gather below a pad reads no index outside of its table, and does not believe the table's range."""
    rng = np.random.default_rng(0)
    x = build.input_node("x", (7, 16), "float32")
    feeds = {"x": rng.standard_normal((7, 16)).astype(np.float32), "i": np.array([6, 0, 3])}
    table = build.constant(np.array([2, 3, 4], np.int32))
    indices = build.input_node("i", (3,), "int64")
    outputs = [
        build.gather(x, build.pad(table, [1], [2], 100), 0),
        build.pad(build.gather(x, table, 0), [1, 0], [2, 0]),
        build.pad(build.gather(x, indices, 0), [400, 0], [2, 0], 3.0),
    ]
    check(outputs, feeds)


def test_indices_computed_by_contractions_and_transcendentals():
    rng = np.random.default_rng(0)
    x = build.input_node("x", (7, 16), "float32")
    w = build.constant(rng.standard_normal((16, 32)).astype(np.float32))
    y = build.matmul(x, w)
    table = build.constant(np.arange(50, dtype=np.float32))
    picked = build.gather(table, build.cast(build.elementwise("ABS", y), "int32"), 0)
    powers = build.gather(table, build.cast(build.elementwise("EXP", x), "int32"), 0)
    feeds = {"x": rng.standard_normal((7, 16)).astype(np.float32)}
    check([build.elementwise("ADD", y, picked), powers], feeds, scales=[50.0, None])


@pytest.mark.parametrize("batch", [2, 5])
def test_windows_minus_row_statistics(batch):
    """A short reduction whose neighbours form a tile, in a kernel that also needs a statistic of each row."""
    x = build.input_node("x", (batch, 3, 40), "float32")
    windows = build.reduce("SUM", build.window(x, [3], [1], [1], [1], [1]), [3])
    mean = build.reduce("SUM", x, [1, 2], keepdims=True)
    array = np.random.default_rng(1).standard_normal((batch, 3, 40)).astype(np.float32)
    check([build.apply("SUB", windows, mean)], {"x": array}, scales=[20.0])


def test_literals_beyond_a_dtype():
    h = build.input_node("h", (3, 4), "float16")
    check([build.pad(h, [1, 1], [1, 1], -1e9)], {"h": np.ones((3, 4), np.float16)})


@pytest.mark.parametrize("target", ["x86_64-v3", "host"])
@pytest.mark.parametrize("dtype", ["uint64", "float64"])
def test_masks_of_vectors_of_two_registers(target, dtype):
    """LLVM's AVX2 back end lost the mask of an upper half that is all false."""
    chosen = named_target(target)
    if chosen.architecture != named_target("host").architecture:
        pytest.skip(f"code for {target} does not run here")
    x = build.input_node("x", (3, 5, 3), dtype)
    y = build.reduce("MAX", build.pad(x, [1, 1, 1], [1, 1, 1], 1), [0])
    twice = build.pad(
        build.shrink(build.pad(x, [0, 0, 2], [0, 0, 1]), [0, 1, 0], [3, 5, 6]), [1, 1, 2], [1, 0, 9]
    )
    array = np.arange(1000, 1045).reshape(3, 5, 3).astype(dtype)
    check([y, twice], {"x": array}, target=chosen)
