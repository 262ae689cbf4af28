"""Narrow types on the compiled CPU device against the oracle (ml_dtypes): every code, many floats."""

import ml_dtypes
import numpy as np
import pytest

from tinyinfer.backends.cpu.device import CpuDevice
from tinyinfer.config import CompileOptions
from tinyinfer.ir import build
from tinyinfer.ir.dtypes import COMPLEX, FLOAT_FORMATS, NARROW, NARROW_INTEGERS, PLAIN, codes, numpy_dtype
from tinyinfer.ir.index import Slot, index
from tinyinfer.ir.loop import BodyResults, loop
from tinyinfer.ir.node import Graph
from tinyinfer.ir.oracle import evaluate
from tinyinfer.ir.passes.storage_types import use_storage_types
from tinyinfer.ir.verify import verify

RNG = np.random.default_rng(3)
NARROW_FLOATS = sorted(NARROW - NARROW_INTEGERS.keys())
BYTES = sorted(d for d in NARROW if numpy_dtype(d).itemsize == 1)


def all_codes(dtype):
    """Every value of a narrow dtype, once."""
    bits = 16 if dtype == "bfloat16" else FLOAT_FORMATS[dtype].bits if dtype in FLOAT_FORMATS else 8
    bits = NARROW_INTEGERS.get(dtype, bits)
    return np.arange(1 << bits, dtype="uint16" if bits == 16 else "uint8").view(numpy_dtype(dtype))


def compiled(outputs, feeds):
    inputs = {name: build.input_node(name, x.shape, x.dtype.name) for name, x in feeds.items()}
    graph = Graph(inputs, {f"y{i}": y for i, y in enumerate(outputs)})
    verify(graph)
    stored = use_storage_types(graph)
    verify(stored)
    assert {x.dtype for x in stored.nodes()} <= PLAIN
    executable = CpuDevice().compile(graph, CompileOptions(), 1)
    try:
        return executable.run(list(feeds.values()))
    finally:
        executable.close()


def plain(x):
    """An array for comparison: codes would tell NaN from NaN."""
    return x.astype(np.float32) if x.dtype.name in NARROW else x


def results(make, arrays):
    """Pairs of what the device and the oracle give for the node or nodes that `make` makes of inputs."""
    feeds = {f"x{i}": x for i, x in enumerate(arrays)}
    made = make(*(build.input_node(name, x.shape, x.dtype.name) for name, x in feeds.items()))
    nodes = made if isinstance(made, list) else [made]
    return list(zip(compiled(nodes, feeds), evaluate(nodes, feeds), strict=True))


def check(make, *arrays):
    """The device and the oracle give the same values."""
    for got, expected in results(make, arrays):
        assert got.dtype == expected.dtype and got.shape == expected.shape
        np.testing.assert_array_equal(plain(got), plain(expected), err_msg=got.dtype.name)


def same_codes(make, *arrays):
    """The device and the oracle give the same bits."""
    for got, expected in results(make, arrays):
        assert got.dtype == expected.dtype and got.shape == expected.shape
        np.testing.assert_array_equal(codes(got), codes(expected), err_msg=got.dtype.name)


def floats():
    """float32 of all magnitudes, halfway cases of every format and their neighbours, and special values."""
    halves = []
    for dtype in NARROW_FLOATS:
        with np.errstate(invalid="ignore"):
            values = np.unique(all_codes(dtype).astype(np.float64))
        values = values[np.isfinite(values)]
        halves.append(((values[1:] + values[:-1]) / 2).astype(np.float32))
        halves.append(values.astype(np.float32))
    exact = np.concatenate(halves)
    near = [np.nextafter(exact, np.float32(sign * np.inf), dtype=np.float32) for sign in (-1, 1)]
    bits = RNG.integers(0, 1 << 32, 20000, dtype=np.uint32).view(np.float32)
    special = np.array([0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 3.4e38, -3.4e38], np.float32)
    return np.concatenate([exact, *near, bits, special])


FLOATS = floats()


def test_float32_to_narrow():
    same_codes(lambda x: [build.cast(x, dtype) for dtype in NARROW_FLOATS], FLOATS)


@pytest.mark.parametrize("source", ["float32", "float16", "int8", "uint8", "int32", "int64", "uint16"])
def test_floats_and_integers_to_narrow_integers(source):
    values = np.linspace(-20, 20, 161, dtype=np.float32) if "f" in source else np.arange(256) * 3
    with np.errstate(over="ignore"):
        values = values.astype(source)
    same_codes(lambda x: [build.cast(x, dtype) for dtype in sorted(NARROW_INTEGERS)], values)


def without_subnormals(values):
    """`values` but for those that are subnormal float32, which a device may count as zero."""
    wide = values.astype(np.float32)
    return values[~((np.abs(wide) < np.finfo(np.float32).tiny) & (wide != 0))]


@pytest.mark.parametrize("dtype", sorted(NARROW))
def test_every_code_to_plain(dtype):
    targets = ("float32", "float16", "int8", "uint8", "int32", "int64", "bool")
    check(lambda x: [build.cast(x, target) for target in targets], all_codes(dtype))
    check(lambda x: build.cast(x, "float64"), without_subnormals(all_codes(dtype)))


@pytest.mark.parametrize("dtype", sorted(NARROW))
def test_every_code_to_every_narrow(dtype):
    targets = sorted(NARROW - {dtype})
    same_codes(lambda x: [build.cast(x, target) for target in targets], all_codes(dtype))


@pytest.mark.parametrize("source", ["float64", "float16", "int32", "int64", "int8", "bool"])
def test_other_plain_types_to_narrow(source):
    values = RNG.uniform(-600, 600, 3000)
    values = (values / 5).astype(source) if source == "int8" else values.astype(source)
    same_codes(lambda x: [build.cast(x, dtype) for dtype in NARROW_FLOATS], values)


@pytest.mark.parametrize("dtype", BYTES)
def test_movement_and_choice(dtype):
    table = build.constant(all_codes(dtype), name="table")

    def moved(x, where, numbers):
        return [
            build.pad(build.permute(x, [1, 0]), [1, 0], [0, 2], fill=1),
            build.concat([x, build.flip(x, [0])], 1),
            build.elementwise("WHERE", where, x, build.flip(x, [1])),
            build.gather(table, numbers, 0),
        ]

    where = np.array([[True, False], [False, True]])
    numbers = RNG.integers(0, table.size, (3, 5))
    same_codes(moved, all_codes(dtype)[:4].reshape(2, 2), where, numbers)


@pytest.mark.parametrize("op", ["ADD", "MUL", "DIV", "MAX", "MIN", "POW", "MULACC"])
def test_arithmetic_of_bfloat16_is_rounded_after_each_op(op):
    count = 3 if op == "MULACC" else 2
    operands = [RNG.uniform(0.5, 3, 500).astype(ml_dtypes.bfloat16) for _ in range(count)]
    check(lambda *x: build.elementwise(op, *x), *operands)


@pytest.mark.parametrize("op", ["NEG", "ABS", "FLOOR", "CEIL", "ROUND", "TRUNC"])
def test_every_bfloat16_through_ops_that_do_not_round(op):
    check(lambda x: build.elementwise(op, x), without_subnormals(all_codes("bfloat16")))


@pytest.mark.parametrize("op", ["CMPLT", "CMPLE", "CMPEQ", "CMPNE"])
def test_comparison_of_bfloat16(op):
    values = np.array([0, -0.0, 1, -1, np.inf, np.nan, 2.5], ml_dtypes.bfloat16)
    a, b = (np.array(x, order="C") for x in np.broadcast_arrays(values[:, None], values))
    check(lambda x, y: build.elementwise(op, x, y), a, b)


def test_sums_of_bfloat16_are_rounded_once():
    a, b = (RNG.uniform(0, 1, (40, 500)).astype(ml_dtypes.bfloat16) for _ in range(2))
    (got,) = compiled([build.reduce("SUM", build.input_node("x0", a.shape, "bfloat16"), [1])], {"x0": a})
    exact = a.astype(np.float64).sum(1).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(got, exact)
    check(lambda x, y: build.matmul(x, build.permute(y, [1, 0])), a, b)
    check(lambda x: [build.reduce(op, x, [0]) for op in ("MAX", "MIN")], a)


def test_bits():
    check(lambda x: build.elementwise("BITCAST", x, dtype="int16"), all_codes("bfloat16"))
    check(lambda x: build.elementwise("BITCAST", x, dtype="bfloat16"), np.arange(-3, 3).astype(np.float16))
    for dtype in ("int4", "float4_e2m1fn"):
        same_codes(lambda x: build.elementwise("BITCAST", x, dtype="uint4"), all_codes(dtype))
    signed = np.arange(-9, 9).astype(np.int8)
    same_codes(lambda x: build.elementwise("BITCAST", x, dtype="float8_e5m2"), signed)


def test_unused_bits_of_a_feed_do_not_matter():
    values = np.arange(256, dtype=np.uint8).view(ml_dtypes.int4)
    ((got, _),) = results(lambda x: build.concat([x, x], 0), [values])
    assert got.view(np.uint8).max() == 15
    np.testing.assert_array_equal(got, np.concatenate([values, values]))


@pytest.mark.parametrize("dtype", sorted(COMPLEX))
def test_movement_of_complex_numbers(dtype):
    values = (RNG.normal(size=(3, 4)) + 1j * RNG.normal(size=(3, 4))).astype(dtype)
    check(lambda x: build.pad(build.permute(x, [1, 0]), [1, 0], [0, 2], fill=1 - 2j), values)
    check(lambda x: build.concat([build.reshape(x, (4, 3)), build.constant(values.reshape(4, 3))], 1), values)
    check(lambda c, x: build.elementwise("WHERE", c, x, build.flip(x, [1])), values.real > 0, values)
    check(lambda x, i: build.gather(x, i, 0), values, np.array([[2, 0], [1, 1]]))


@pytest.mark.parametrize("target", ["int64", "uint64", "float64"])
def test_bits_of_complex_numbers(target):
    values = np.array([1 + 2j, -0.5j, 3e30], np.complex64)
    check(lambda x: build.elementwise("BITCAST", x, dtype=target), values)
    check(lambda x: build.elementwise("BITCAST", x, dtype="complex64"), values.view(target))


def test_a_graph_of_plain_types_is_left_alone():
    x = build.input_node("x", (3,), "float32")
    graph = Graph({"x": x}, {"y": build.elementwise("NEG", x)})
    assert use_storage_types(graph) is graph


def test_origins_stay():
    x = build.input_node("x", (3,), "bfloat16")
    y = build.elementwise("EXP", x, origin=("the exponential",))
    z = build.elementwise("ADD", y, y, origin=("the sum",))
    stored = use_storage_types(Graph({"x": x}, {"z": z}))
    (exponential,) = [n for n in stored.nodes() if n.op == "EXP"]
    assert exponential.origin == {"the exponential"}
    assert "the sum" in stored.outputs["z"].origin


@pytest.mark.parametrize("combine", ["SET", "SUM", "PROD", "MAX", "MIN"])
def test_scatter_of_bfloat16(combine):
    base, updates = (RNG.uniform(0.5, 2, n).astype(ml_dtypes.bfloat16) for n in (5, 12))
    places = RNG.integers(0, 5, 12)
    slot = [index(Slot(0, 0, 4))]
    check(lambda x, u, i: build.scatter(x, u, slot, [i], combine), base, updates, places)


def test_scatter_of_complex_numbers():
    base, updates = (RNG.normal(size=n).astype(np.complex64) * 1j for n in (5, 3))
    places = np.array([4, 0, 2])
    check(lambda x, u, i: build.scatter(x, u, [index(Slot(0, 0, 4))], [i]), base, updates, places)


@pytest.mark.parametrize("dtype", ["bfloat16", "int4", "complex64"])
def test_loops_carry_scan_and_stack_them(dtype):
    def make(start, rows):
        def body(number, carried, scanned):
            (x,), (row,) = carried, scanned
            following = build.flip(x, [0]) if dtype == "complex64" else build.elementwise("ADD", x, row)
            return BodyResults([following], [build.concat([x, row], 0)])

        made = loop(body, [start], 4, [(rows, False)])
        return [*made.final, *made.stacked]

    values = RNG.uniform(1, 3, (5, 3))
    values = values.astype(np.float32) if dtype != "complex64" else values * (1 - 1j)
    values = values.astype(numpy_dtype(dtype))
    check(make, values[0], values[1:])
