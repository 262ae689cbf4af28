"""Kernels of other machines, linked and run under emulation, agree with the oracle."""

import numpy as np
import pytest
from compiled import assert_close, graph_of
from emulated import TARGETS, Job, PlanInJob
from random_graphs import GENERATORS, case

from tinyinfer.ir import build
from tinyinfer.ir.oracle import evaluate

SEEDS = 2


def check_seeds(target: str, names, seeds) -> None:
    job = Job(target)
    cases = [(name, seed, case(name, seed)) for name in names for seed in seeds]
    plans = [PlanInJob(job, graph_of(*c.outputs), c.feeds) for _, _, c in cases]
    memory = job.run()
    for (name, seed, c), plan in zip(cases, plans):
        for got, wanted in zip(plan.results(memory), evaluate(c.outputs, c.feeds), strict=True):
            try:
                assert_close(got, wanted, c.scale, c.factor)
            except AssertionError as error:
                raise AssertionError(f"{target}, {name}, seed {seed}: {error}") from None


@pytest.mark.parametrize("target", TARGETS)
def test_random_graphs(target):
    check_seeds(target, GENERATORS, range(SEEDS))


INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


@pytest.mark.parametrize("target", TARGETS)
def test_floats_to_integers(target):
    generator = np.random.default_rng(0)
    special = [0.0, -0.0, 0.5, -0.5, 0.99999994, -1.5, 2.5, 127.5, -128.9, 255.99, 65535.5, 2147483520.0]
    special += [np.inf, -np.inf, np.nan, 3e9, -3e9, 1e20, -1e20, 8388607.5, -8388608.0, 16777215.0]
    values = np.concatenate(
        [np.array(special, np.float32), generator.normal(0, 300, 200), generator.normal(0, 2e9, 70)]
    ).astype(np.float32)
    x = build.input_node("x", values.shape, "float32")
    outputs = [build.cast(x, dtype) for dtype in INTEGERS] + [build.elementwise("TRUNC", x)]
    job = Job(target)
    plan = PlanInJob(job, graph_of(*outputs), {"x": values})
    for got, wanted in zip(plan.results(job.run()), evaluate(outputs, {"x": values}), strict=True):
        np.testing.assert_array_equal(got, wanted, err_msg=f"{target}, {wanted.dtype}")
