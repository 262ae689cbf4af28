"""Kernels printed as C11, compiled without a warning by the machine's compiler, against the oracle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from c_programs import Program, compile_all, plan_without_passes
from compiled import assert_close, graph_of
from device_cases import casts, operations
from random_graphs import DTYPES, GENERATORS, INTEGERS, Case, case

from tinyinfer.backends.clike.printer import GENERAL, MICROCONTROLLER
from tinyinfer.ir import build
from tinyinfer.ir.ops import ELEMENTWISE
from tinyinfer.ir.oracle import evaluate
from tinyinfer.kernels.schedule import MachineModel

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

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
    of_dtypes = {f"{make.__name__}_{d}": make(d) for d in DTYPES for make in (operations, casts)}
    check_all(random_cases(300, 1) | of_dtypes, tmp_path, flags=flags)


def test_padding_that_a_step_lies_in_whole_is_a_literal(tmp_path):
    """Window steps beyond a table of one row: their guards are known, and nothing is read for them."""
    check_all({"padded": case("gathers", 2003)}, tmp_path)
    text = (tmp_path / "padded.c").read_text()
    assert not re.search(r"[(&] ?-?\d+ (>=|<) ", text)


@pytest.mark.sweep
@pytest.mark.parametrize("batch", range(20))
def test_many_random_graphs_as_c(batch, tmp_path):
    check_all(random_cases(1000 + 10 * batch, 10), tmp_path)


# ---- numbers


def test_integer_ops_that_need_doubles(tmp_path):
    cases = {}
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


@pytest.mark.parametrize("dtype", INTEGERS)
def test_literals_of_integers_keep_their_value(dtype, tmp_path):
    limits = np.iinfo(dtype)
    x = build.input_node("x", (3,), dtype)
    outputs = [
        build.apply("XOR", x, build.scalar(v, dtype)) for v in (limits.min, limits.max, limits.min + 1)
    ]
    check_all({"literals": Case(outputs, {"x": np.zeros(3, dtype)})}, tmp_path)
