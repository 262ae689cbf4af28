"""Kernels printed as C11, compiled without a warning by the machine's compiler, against the oracle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from c_programs import Program, compile_all, plan_without_passes
from compiled import assert_close, graph_of
from random_graphs import DTYPES, FLOATS, GENERATORS, INTEGERS, Case, case
from test_against_oracle import OPS, special_values
from test_scatter import elements, rows

from tinyinfer.backends.clike.printer import GENERAL, MICROCONTROLLER
from tinyinfer.ir import build
from tinyinfer.ir.node import COMBINATIONS
from tinyinfer.ir.ops import ELEMENTWISE
from tinyinfer.ir.oracle import evaluate
from tinyinfer.kernels.schedule import MachineModel

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

SEEDS = 6
SCALAR = MachineModel(lanes=1, registers=16)


def check_all(
    cases: Mapping[str, Case],
    folder: Path,
    machine: MachineModel = GENERAL,
    fuse: bool = True,
    **options,
) -> None:
    """Compile all cases into one library and compare each with the oracle."""
    plans = {n: plan_without_passes(graph_of(*c.outputs), machine, fuse) for n, c in cases.items()}
    programs: dict[str, Program] = compile_all(plans, folder, **options)
    for name, chosen in cases.items():
        got, wanted = programs[name].run(chosen.feeds), evaluate(chosen.outputs, chosen.feeds)
        try:
            for a, b in zip(got, wanted, strict=True):
                assert_close(a, b, chosen.scale, chosen.factor)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


def random_cases(first: int, count: int) -> dict[str, Case]:
    return {f"{n}_{s}": case(n, s) for n in GENERATORS for s in range(first, first + count)}


def test_random_graphs_as_c(tmp_path):
    check_all(random_cases(0, SEEDS), tmp_path)


@pytest.mark.parametrize(
    "machine, fuse, flags",
    [(SCALAR, True, ["-O1"]), (MICROCONTROLLER, True, ["-O1"]), (GENERAL, False, ["-O3", "-march=native"])],
    ids=["scalar", "microcontroller", "unfused"],
)
def test_random_graphs_compiled_otherwise(machine, fuse, flags, tmp_path):
    check_all(random_cases(100, 2), tmp_path, machine, fuse, flags=flags)


def test_random_graphs_with_another_compiler(tmp_path):
    check_all(random_cases(200, 2), tmp_path, compiler="clang")


def test_undefined_behaviour_is_not_met(tmp_path):
    """The sanitizer traps on what C leaves undefined: overflow, shifts, wild conversions, misaligned
    access."""
    flags = ["-O1", "-fsanitize=undefined,float-cast-overflow", "-fsanitize-undefined-trap-on-error"]
    check_all(random_cases(300, 2) | operations("int32") | operations("float32"), tmp_path, flags=flags)


def test_padding_that_a_step_lies_in_whole_is_a_literal(tmp_path):
    """Window steps beyond a table of one row: their guards are known, and nothing is read for them."""
    check_all({"padded": case("gathers", 2003)}, tmp_path)
    text = (tmp_path / "padded.c").read_text()
    assert not re.search(r"[(&] ?-?\d+ (>=|<) ", text)


@pytest.mark.sweep
@pytest.mark.parametrize("batch", range(20))
def test_many_random_graphs_as_c(batch, tmp_path):
    check_all(random_cases(1000 + 10 * batch, 10), tmp_path)


# ---- every op of the table


def operations(dtype: str) -> dict[str, Case]:
    """Every op that means something for a dtype, on all pairs of special values; shifts also beyond the
    width."""
    special = special_values(dtype)
    a, b = (v.ravel() for v in np.meshgrid(special, special, indexing="ij"))
    condition = np.arange(a.size) % 3 == 0
    x, y = (build.input_node(name, a.shape, dtype) for name in "ab")
    made = {}
    for op in (op for op, kind in OPS if kind == dtype):
        inputs = [build.input_node("c", a.shape, "bool"), x, y] if op == "WHERE" else [x, y, x]
        feeds = {"a": a, "b": b, "c": condition}
        if op in ("SIN", "COS"):
            feeds["a"] = np.where(np.abs(a) < 1e4, a, 1).astype(a.dtype)
        if op in ("SHL", "SHR"):
            feeds["b"] = (np.arange(a.size) % (8 * a.itemsize + 3)).astype(a.dtype)
        output = build.elementwise(op, *inputs[: ELEMENTWISE[op].arity])
        made[f"{op.lower()}_{dtype}"] = Case([output], feeds)
    return made


def casts(source: str) -> Case:
    special = np.resize(special_values(source), 37)
    if source in FLOATS:
        edges = [65504, 2.0**31, 2.0**32 - 1, 2.0**63, -(2.0**63), 2.0**64, 1e20, -1e20, 127.5, -0.75, 255.99]
        special = np.concatenate([special, np.array(edges).astype(source)])
    x = build.input_node("x", special.shape, source)
    return Case([build.cast(x, target) for target in DTYPES if target != source], {"x": special})


def bitcasts(source: str) -> Case:
    values = np.resize(special_values(source), 37)
    if source == "uint16":
        values = np.arange(1 << 16).astype(np.uint16)
    if source in ("int8", "uint8"):
        values = np.resize(np.array([0, 1], source), 37)
    x = build.input_node("x", values.shape, source)
    size = np.dtype(source).itemsize
    targets = [t for t in DTYPES if np.dtype(t).itemsize == size and t != source]
    return Case([build.elementwise("BITCAST", x, dtype=t) for t in targets], {"x": values})


def test_elementwise_ops_on_special_values_as_c(tmp_path):
    cases = {name: c for dtype in DTYPES for name, c in operations(dtype).items()}
    for op in ("SQRT", "RECIP", "POW"):
        x = build.input_node("x", (6,), "int32")
        feeds = {"x": np.array([1, 4, 9, 10, 46340, 3], np.int32)}
        inputs = [x, build.full(2, (6,), "int32")][: ELEMENTWISE[op].arity]
        cases[f"{op.lower()}_int32"] = Case([build.elementwise(op, *inputs)], feeds)
    check_all(cases, tmp_path)


def test_the_exponential_is_off_by_one_in_the_last_place_at_most(tmp_path):
    values = np.linspace(-87.3, 88.7, 400_001).astype(np.float32)
    x = build.input_node("x", values.shape, "float32")
    plan = plan_without_passes(graph_of(build.elementwise("EXP", x)))
    (got,) = compile_all({"exponential": plan}, tmp_path)["exponential"].run({"x": values})
    wanted = np.exp(values.astype(np.float64))
    assert (np.abs(got - wanted) <= np.spacing(wanted.astype(np.float32))).all()


def test_casts_as_c(tmp_path):
    check_all({f"cast_{d}": casts(d) for d in DTYPES}, tmp_path)


def test_bitcasts_as_c(tmp_path):
    cases = {f"bits_{d}": bitcasts(d) for d in DTYPES}
    plans = {n: plan_without_passes(graph_of(*c.outputs)) for n, c in cases.items()}
    for name, program in compile_all(plans, tmp_path).items():
        (array,) = cases[name].feeds.values()
        for got in program.run(cases[name].feeds):
            assert got.tobytes() == array.tobytes(), f"{name} to {got.dtype}"


@pytest.mark.parametrize("dtype", INTEGERS)
def test_literals_of_integers_keep_their_value(dtype, tmp_path):
    limits = np.iinfo(dtype)
    x = build.input_node("x", (3,), dtype)
    outputs = [
        build.apply("XOR", x, build.scalar(v, dtype)) for v in (limits.min, limits.max, limits.min + 1)
    ]
    check_all({"literals": Case(outputs, {"x": np.zeros(3, dtype)})}, tmp_path)


# ---- indices and scatters


def scatters() -> dict[str, Case]:
    """Updates in and out of range that collide, of single elements and of rows, set and joined."""
    rng = np.random.default_rng(5)
    made = {}
    for combine in COMBINATIONS:
        for dtype in ("float32", "int16", "bool", "float16"):
            x, u = (build.input_node(n, (d, 9), dtype) for n, d in (("x", 6), ("u", 5)))
            at, row = build.input_node("at", (5, 9), "int64"), build.input_node("row", (5,), "int32")
            feeds = {
                "x": rng.integers(0, 5, (6, 9)).astype(dtype),
                "u": rng.integers(0, 5, (5, 9)).astype(dtype),
            }
            feeds |= {"at": rng.integers(-3, 9, (5, 9)), "row": np.array([0, 5, -1, 6, 5], np.int32)}
            outputs = [elements(x, u, at, 0, combine), rows(x, u, row, combine)]
            made[f"{combine.lower()}_{dtype}"] = Case(outputs, feeds)
    return made


def test_scatters_as_c(tmp_path):
    check_all(scatters(), tmp_path)
