"""Kernels of other machines, linked and run under emulation, agree with the oracle."""

import pytest
from compiled import assert_close, graph_of
from emulated import TARGETS, Job, PlanInJob
from random_graphs import GENERATORS, case

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
