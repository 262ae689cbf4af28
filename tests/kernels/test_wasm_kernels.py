"""Graphs as wasm32 bundles against the oracle, many in one Node process; and what their code is made of."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from compiled import assert_close, graph_of, plan_of
from device_cases import casts, operations
from loop_graphs import counted, recurrent
from random_graphs import DTYPES, GENERATORS, case
from wasm_tools import WASM32, Cases, bundle_of, outputs_of

from tinyinfer.backends.cpu.compile import assembly
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.node import Graph
from tinyinfer.ir.oracle import evaluate
from tinyinfer.ir.passes import optimize

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

Job = tuple[Graph, dict[str, np.ndarray], float | None, float]
"""A graph, its feeds, and the magnitude and factor of its rounding (`compiled.assert_close`)."""


def check_all(jobs: dict[str, Job], folder: Path) -> None:
    """Every graph gives under Node what the oracle gives."""
    cases = Cases(folder)
    for graph, feeds, _, _ in jobs.values():
        arrays = {x: np.ascontiguousarray(feeds[x]).reshape(n.shape) for x, n in graph.inputs.items()}
        cases.add(bundle_of(plan_of(graph, target=WASM32)), arrays)
    for (title, (graph, feeds, scale, factor)), result in zip(jobs.items(), cases.run(), strict=True):
        wanted = dict(zip(graph.outputs, evaluate(list(graph.outputs.values()), feeds)))
        try:
            got = outputs_of(result, wanted)
            for name, array in wanted.items():
                assert_close(got[name], array, scale, factor)
        except AssertionError as error:
            raise AssertionError(f"{title}: {error}") from None


@pytest.mark.parametrize("name", GENERATORS)
def test_random_graphs(name: str, tmp_path: Path):
    jobs = {}
    for seed in range(6):
        chosen = case(name, seed)
        graph = graph_of(*chosen.outputs)
        graph = optimize(graph) if seed % 2 else graph
        jobs[f"{name} {seed}"] = graph, chosen.feeds, chosen.scale, chosen.factor
    check_all(jobs, tmp_path)


@pytest.mark.parametrize("dtype", DTYPES)
def test_elementwise_ops_on_special_values(dtype: str, tmp_path: Path):
    made = {"operations": operations(dtype), "casts": casts(dtype)}
    check_all({n: (graph_of(*c.outputs), c.feeds, c.scale, c.factor) for n, c in made.items()}, tmp_path)


ULP = 3.0
"""What may be lost where sums of products are not fused."""


def test_transcendental_functions(tmp_path: Path):
    """Near 0, over their whole range, and where results are subnormal."""
    parts = (np.linspace(-0.01, 0.01, 999), np.linspace(-9, 9, 9999), np.linspace(-110, 88, 9999))
    x = np.concatenate(parts).astype(np.float32)
    size = np.abs(x) + np.float32(1e-6)
    input_x, input_size = (build.input_node(name, x.shape, "float32") for name in ("x", "size"))
    ops = ("EXP", "SIGMOID", "TANH", "ERF", "SIN", "COS")
    outputs = {op: elementwise(op, input_x) for op in ops}
    outputs["LOG"] = elementwise("LOG", input_size)
    outputs["POW"] = elementwise("POW", input_size, elementwise("SIN", input_x))
    cases = Cases(tmp_path)
    graph = Graph({"size": input_size, "x": input_x}, outputs)
    cases.add(bundle_of(plan_of(graph, target=WASM32)), {"size": size, "x": x})
    got = outputs_of(cases.run()[0], dict.fromkeys(outputs, x))
    wide, wide_size = x.astype(np.float64), size.astype(np.float64)
    e = np.exp(-np.abs(wide))
    wanted = {
        "EXP": np.exp(wide),
        "SIGMOID": np.where(wide >= 0, 1, e) / (1 + e),
        "TANH": np.tanh(wide),
        "ERF": np.array([math.erf(value) for value in wide.tolist()]),
        "SIN": np.sin(wide),
        "COS": np.cos(wide),
        "LOG": np.log(wide_size),
    }
    for op, values in wanted.items():
        error = np.abs(got[op] - values) / np.spacing(np.abs(values).astype(np.float32))
        assert error.max() <= ULP, (op, x[error.argmax()], error.max())
    # to an exponent that is rounded itself
    power = wide_size ** got["SIN"].astype(np.float64)
    error = np.abs(got["POW"] - power) / np.spacing(power.astype(np.float32))
    assert error.max() <= ULP + np.abs(np.log(wide_size)).max()


def test_loops(tmp_path: Path):
    random = np.random.default_rng(2)
    jobs: dict[str, Job] = {}
    for backwards in (False, True):
        feeds = {"x": random.normal(size=(9, 2, 7)), "start": random.normal(size=(2, 7))}
        given = {name: array.astype(np.float32) for name, array in feeds.items()}
        jobs[f"recurrent {backwards}"] = recurrent(backwards), given, 1.0, 4.0
    for count in (-1, 0, 3, 9):
        feeds = {"count": np.array(count), "start": np.ones(3, np.float32)}
        jobs[f"counted {count}"] = counted(), feeds, None, 1.0
    check_all(jobs, tmp_path)


def test_code_uses_vectors():
    """A convolution multiplies and adds four lanes at a time, and calls nothing."""
    x = build.input_node("x", (1, 8, 12, 12), "float32")
    weights = build.input_node("w", (16, 8, 3, 3), "float32")
    windows = build.window(x, [3, 3], [1, 1], [1, 1], [1, 1], [1, 1], 0)
    shape = (1, 16, 8, 3, 3, 12, 12)
    spread = build.reshape(build.permute(windows, [0, 1, 4, 5, 2, 3]), (1, 1, *shape[2:]))
    filters = build.reshape(weights, (1, 16, 8, 3, 3, 1, 1))
    product = elementwise("MUL", build.expand(spread, shape), build.expand(filters, shape))
    plan = plan_of(optimize(graph_of(build.reduce("SUM", product, [2, 3, 4]))), target=WASM32)
    listings = [assembly(launch.kernel.text(), WASM32) for launch in plan.launches]
    (contraction,) = (x for x in listings if x.count("f32x4.mul") > 8)
    assert contraction.count("f32x4.add") > 8 and "v128.load" in contraction
    called = set(re.findall(r"^\s+call\s+([\w.]+)", contraction, re.MULTILINE))
    assert called <= set(re.findall(r"^([\w.]+):", contraction, re.MULTILINE))
