"""Milliseconds a token of decoders with a cache, engine against engine.

Both engines generate the same number of tokens greedily from the same prompt, taking turns, each token fed
back with the cache that came out. `python -m benchmarks.decode gpt2_6l_384_kv --tokens 64 --threads 1 2`.

A decoder's first input is the ids and its first output the logits; the other inputs are the cache, in the
order of the other outputs, and grow along the dimension that the model calls "past" in some form.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import onnx

from benchmarks import options as shared
from benchmarks.engines import ENGINES

ROUNDS = 5


def main() -> None:
    """Print one line an engine and number of threads."""
    parser = shared.parser(__doc__ or "")
    parser.add_argument("--tokens", type=int, default=64)
    chosen = parser.parse_args()
    chosen.names = chosen.names or ["gpt2_6l_384_kv"]
    with shared.models(chosen) as found:
        for model, _ in found:
            inputs = _inputs(str(model.path))
            for threads in chosen.threads:
                runs = {name: ENGINES[name]()(str(model.path), threads) for name in chosen.engines}
                _measure(model.name, inputs, runs, threads, chosen.tokens)


def _measure(title: str, inputs: list[tuple[str, list[Any]]], runs: Any, threads: int, tokens: int) -> None:
    texts: dict[str, list[int]] = {}
    times: dict[str, list[float]] = {name: [] for name in runs}
    first: dict[str, float] = {}
    for turn in range(ROUNDS + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            texts[name], taken = _generate(run, inputs, tokens)
            if turn:
                times[name] += taken[1:]
            else:
                first[name] = time.perf_counter() - start
    equal = len({tuple(t) for t in texts.values()}) == 1
    for name, taken in times.items():
        median, worst = statistics.median(taken) * 1e3, max(taken) * 1e3
        print(
            f"{title} {threads} threads {name}: {median:.3f} ms a token (most {worst:.3f}), first {tokens} "
            f"tokens {first[name]:.2f} s"
        )
    print(f"{title} {threads} threads: tokens {'equal' if equal else 'DIFFER'}")


def _generate(run: Any, inputs: list[tuple[str, list[Any]]], tokens: int) -> tuple[list[int], list[float]]:
    names = [name for name, _ in inputs]
    ids = np.array([[5, 17, 3]], np.int64)
    cache = {name: np.zeros(shape, np.float32) for name, shape in inputs[1:]}
    made: list[int] = []
    taken = []
    for _ in range(tokens):
        start = time.perf_counter()
        logits, *present = run({names[0]: ids, **cache})
        taken.append(time.perf_counter() - start)
        made.append(int(logits[0, -1].argmax()))
        ids, cache = np.array([[made[-1]]], np.int64), dict(zip(names[1:], present))
    return made, taken


def _inputs(path: str) -> list[tuple[str, list[int]]]:
    """Names and first shapes: one sequence, nothing in the cache."""
    graph = onnx.load(path, load_external_data=False).graph
    sizes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.input]
    return [
        (v.name, [d if isinstance(d, int) else 0 if "past" in d else 1 for d in dims])
        for v, dims in zip(graph.input, sizes)
    ]


if __name__ == "__main__":
    main()
