"""Measuring kernels: every schedule gets a time, whatever it reads; no test says how long anything takes."""

import math

import numpy as np
import pytest

from tinyinfer.backends.cpu.measure import KernelTimer, cannot_tune, tune
from tinyinfer.backends.cpu.target import host_target, named_target
from tinyinfer.config import CompileOptions
from tinyinfer.ir import build
from tinyinfer.ir.node import Graph
from tinyinfer.kernels.tune import find_choices


def graph_of(x, y):
    return Graph({"x": x}, {"y": y})


def constant(*shape):
    return build.constant(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def matmul(m, k, n):
    x = build.input_node("x", (m, k), "float32")
    return graph_of(x, build.matmul(x, constant(k, n)))


def padded_convolution():
    x = build.input_node("x", (1, 8, 19, 19), "float32")
    y = build.elementwise("ABS", x)
    return graph_of(x, build.convolution(y, constant(24, 8, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1]))


def elementwise(*shape):
    x = build.input_node("x", shape, "float32")
    return graph_of(x, build.elementwise("EXP", x))


def softmax(*shape):
    x = build.input_node("x", shape, "float32")
    lower = build.elementwise(
        "SUB", x, build.expand(build.reshape(build.reduce("MAX", x, [1]), (shape[0], 1)), shape)
    )
    e = build.elementwise("EXP", lower)
    total = build.expand(build.reshape(build.reduce("SUM", e, [1]), (shape[0], 1)), shape)
    return graph_of(x, build.elementwise("DIV", e, total))


GRAPHS = {
    "small": lambda: matmul(7, 9, 20),
    "constants beyond the cache": lambda: matmul(8, 512, 128),
    "a halo": padded_convolution,
    "a large map": lambda: elementwise(64, 500),
    "statistics of rows": lambda: softmax(20, 70),
}
KERNELS = {
    "small": 1,
    "constants beyond the cache": 1,
    "a halo": 2,
    "a large map": 1,
    "statistics of rows": 1,
}


@pytest.mark.parametrize("name", GRAPHS)
def test_every_schedule_gets_a_time(name):
    timer = KernelTimer(host_target())
    found = find_choices(GRAPHS[name](), timer.printer.machine, CompileOptions())
    assert len(found) == KERNELS[name]
    for choice, count in found.values():
        first = choice.heuristic()
        schedules = [first, *(s for step in choice.steps() for s in choice.neighbours(first, step)[:1])]
        seconds = timer(choice, schedules)
        assert count == 1 and len(seconds) == len(schedules) > 1
        assert all(s > 0 and math.isfinite(s) for s in seconds)


def test_tuning_a_graph_records_every_kernel_with_a_choice():
    tuning, left = tune(padded_convolution(), host_target(), CompileOptions())
    assert len(tuning.entries) == 2 and left == 0 and tuning.machine == host_target().cpu
    again, _ = tune(padded_convolution(), host_target(), CompileOptions(tuning=tuning))
    assert again == tuning


def test_without_time_nothing_is_recorded():
    tuning, left = tune(padded_convolution(), host_target(), CompileOptions(), seconds=0)
    assert not tuning and left == 2


def test_other_machines_cannot_be_tuned_for():
    other = named_target("riscv64" if host_target().architecture != "riscv64" else "aarch64")
    assert "this machine is" in (cannot_tune(other) or "")
    assert cannot_tune(host_target()) is None
    with pytest.raises(ValueError, match="this machine is"):
        tune(matmul(4, 4, 8), other, CompileOptions())
