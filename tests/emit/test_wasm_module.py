"""A model as one WebAssembly module, run under Node by the JavaScript module that comes with it."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from loop_graphs import counted, recurrent
from small_models import affine
from wasm_tools import WASM32, needed

from cli.main import main
from tinyinfer import InferenceSession
from tinyinfer.backends.cpu.device import LlvmPrinter
from tinyinfer.config import CompileOptions
from tinyinfer.emit.wasm import array_of, emit_wasm
from tinyinfer.ir import build
from tinyinfer.ir.node import Graph
from tinyinfer.ir.oracle import evaluate
from tinyinfer.ir.passes import optimize
from tinyinfer.kernels.plan import build_plan

_SCRIPT = """
import { readFile } from 'node:fs/promises';
const { load } = await import('./NAME.mjs');
const model = await load();
const results = [];
for (const feeds of JSON.parse(await readFile(process.argv[1], 'utf8'))) {
  const given = {};
  for (const [name, [array, data]] of Object.entries(feeds)) {
    given[name] = new globalThis[array](Uint8Array.from(Buffer.from(data, 'base64')).buffer);
  }
  try {
    const outputs = Object.entries(model.run(given));
    const base64 = ([name, array]) => [name, Buffer.from(array.buffer).toString('base64')];
    results.push(Object.fromEntries(outputs.map(base64)));
  } catch (error) {
    results.push(error.message);
  }
}
console.log(JSON.stringify({ inputs: model.inputs, results }));
"""

Feeds = Mapping[str, np.ndarray]


def run(folder: Path, name: str, calls: Sequence[Feeds]) -> dict[str, Any]:
    """The model's inputs, and for each call the outputs as base64 or a message."""
    listed = [
        {x: (array_of(a.dtype.name), base64.b64encode(a.tobytes()).decode()) for x, a in feeds.items()}
        for feeds in calls
    ]
    (folder / "calls.json").write_text(json.dumps(listed), encoding="utf-8")
    script = _SCRIPT.replace("NAME", name)
    command = [needed("node"), "--input-type=module", "-e", script, str(folder / "calls.json")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(results: Mapping[str, str], wanted: Mapping[str, np.ndarray], tolerance: float = 1e-5) -> None:
    assert isinstance(results, dict), results
    assert results.keys() == wanted.keys()
    for name, array in wanted.items():
        got = np.frombuffer(base64.b64decode(results[name]), array.dtype).reshape(array.shape)
        np.testing.assert_allclose(got, array, tolerance, tolerance, err_msg=name)


def write(graph: Graph, folder: Path, values: Feeds | None = None) -> None:
    """The files of a graph, called `graph`."""
    plan = build_plan(optimize(graph), LlvmPrinter(WASM32), CompileOptions())
    for name, content in emit_wasm(plan, WASM32, "graph", "a graph", values).items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("backwards", [False, True])
def test_a_recurrent_layer(backwards: bool, tmp_path: Path):
    graph = recurrent(backwards)
    write(graph, tmp_path)
    random = np.random.default_rng(1)
    calls = [
        {name: np.asarray(random.normal(size=x.shape)).astype(x.dtype) for name, x in graph.inputs.items()}
        for _ in range(3)
    ]
    answer = run(tmp_path, "graph", calls)
    for feeds, results in zip(calls, answer["results"], strict=True):
        check(results, dict(zip(graph.outputs, evaluate(list(graph.outputs.values()), feeds))))


def test_loops_in_loops(tmp_path: Path):
    graph = counted()
    write(graph, tmp_path)
    calls = [{"count": np.array(count), "start": np.ones(3, np.float32)} for count in (3, -1, 9, 0)]
    answer = run(tmp_path, "graph", calls)
    assert answer["inputs"][0] == {"name": "count", "dtype": "int64", "shape": []}
    for feeds, results in zip(calls, answer["results"], strict=True):
        check(results, dict(zip(graph.outputs, evaluate(list(graph.outputs.values()), feeds))))


def test_inputs_are_checked(tmp_path: Path):
    x, mode = build.input_node("x", (4,), "float32"), build.input_node("mode", (1,), "int32")
    double = build.elementwise("ADD", x, build.expand(build.cast(mode, "float32"), (4,)))
    write(Graph({"x": x, "mode": mode}, {"y": double}), tmp_path, {"mode": np.array([3], np.int32)})
    a, right, wrong = np.arange(4, dtype=np.float32), np.array([3], np.int32), np.array([4], np.int32)
    calls = [
        {"x": a},
        {"x": a, "mode": right},
        {"x": a, "mode": wrong},
        {},
        {"x": a[1:]},
        {"x": right},
        {"z": a},
    ]
    first, second, *messages = run(tmp_path, "graph", calls)["results"]
    check(first, {"y": a + 3})
    check(second, {"y": a + 3})
    assert messages == [
        "the model was compiled for another value of input mode",
        "input x is missing",
        "input x has 4 numbers, not 3",
        "input x has to be a Float32Array",
        "the model has no input z",
    ]


def test_the_command(tmp_path: Path):
    path = tmp_path / "affine.onnx"
    onnx.save(affine(2), path)
    folder = tmp_path / "out"
    done = CliRunner().invoke(main, ["compile", str(path), "--emit", "wasm", "-o", str(folder)])
    assert done.exit_code == 0, done.output
    assert sorted(x.name for x in folder.iterdir()) == ["affine.mjs", "affine.wasm"]
    assert '@typedef {{"x": Float32Array}} Inputs' in (folder / "affine.mjs").read_text(encoding="utf-8")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    session = InferenceSession(str(path))
    wanted = dict(zip(("y", "z"), session.run(None, {"x": x})))
    check(run(folder, "affine", [{"x": x}])["results"][0], wanted)
    refused = CliRunner().invoke(main, ["compile", str(path), "--emit", "wasm", "--device", "cpu:aarch64"])
    assert refused.exit_code != 0 and "--device has no meaning for --emit wasm" in refused.output


def test_a_model(shared_models: Path, model_feeds: Callable[[str], dict[str, np.ndarray]], tmp_path: Path):
    path = str(shared_models / "dtln_model_1.onnx")
    done = CliRunner().invoke(main, ["compile", path, "--emit", "wasm", "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    session, feeds = InferenceSession(path), model_feeds("dtln_model_1")
    wanted = dict(zip([x.name for x in session.get_outputs()], session.run(None, feeds)))
    (results,) = run(tmp_path / "out", "dtln_model_1", [feeds])["results"]
    check(results, wanted, 1e-4)
