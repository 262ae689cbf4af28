"""Golden vectors for a model: inputs that it makes sense of, the oracle's outputs, and what may differ.

Inputs are drawn, so that they take no bytes; which numbers make sense is tried with the oracle, on the graph
as it was imported, with which no compiler had to do. How much a right device may differ follows from the
output's type, or from what compiled code was seen to differ by where that is more: in a quantised model, a
value on the edge between two steps may fall either way.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import gcd, prod
from types import MappingProxyType

import numpy as np

from tinyinfer.bundle.golden import DRAWN_FLOATS, GoldenInput, GoldenOutput, GoldenVector, compare
from tinyinfer.bundle.index_ranges import index_ranges
from tinyinfer.bundle.source import Source
from tinyinfer.errors import Fail
from tinyinfer.ir.dtypes import COMPLEX, NARROW_INTEGERS, is_float
from tinyinfer.ir.node import Graph, Node
from tinyinfer.ir.oracle import evaluate
from tinyinfer.runtime.signature import numpy_dtype

VECTORS = 2
TRIES = 3
"""Sets of drawn inputs that are tried for each vector, until compiled code agrees with the oracle closely."""

STORED_BYTES = 64 << 10
"""Most bytes of wanted outputs in one bundle; of more, evenly spread elements are kept."""

CLOSE = {
    "float64": 1e-9,
    "complex128": 1e-9,
    "float32": 1e-4,
    "complex64": 1e-4,
    "float16": 4e-3,
    "bfloat16": 3e-2,
}
"""What two right devices may differ by, as a part of the output's range; integers not at all, and what is
narrower than these as much as bfloat16."""

MARGIN = 4
"""Devices may always differ by this many times what compiled code was seen to differ by."""

WRONG = 0.05
"""A difference of this part of the output's range is no rounding: the compiled code is wrong."""

HALVES = 0.01
"""What two right devices may differ by that store values in halves between kernels."""

WRONG_IN_HALVES = 0.25
"""As WRONG, of those: what is stored in halves may be amplified by all that follows. Beyond WRONG, other
inputs are tried."""

COARSE = (
    "it is wrong, or halves are too coarse for random inputs: give some that the model is made for"
    " (--input NAME=FILE), or leave golden vectors out (--no-golden)"
)

Runner = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
"""Compiled code: from the inputs, in the model's order, to the outputs."""


@dataclass(frozen=True)
class OutputError:
    """How much compiled code differs from the oracle in one output, over all vectors: `seen` at most,
    `allowed` by the vectors, of values that reach from `low` to `high`. `widened` says that what was seen
    is more than the type alone would allow."""

    name: str
    seen: float
    allowed: float
    low: float
    high: float
    widened: bool

    @property
    def scale(self) -> float:
        """What differences are measured by: the extent of the values or their size, whichever is more."""
        return max(self.high - self.low, abs(self.low), abs(self.high)) or 1.0

    @property
    def relative(self) -> float:
        """`seen` as a part of the scale."""
        return self.seen / self.scale


@dataclass(frozen=True)
class Golden:
    """Vectors of a model, and how compiled code does on them: `errors` by output, and by target those of
    targets that store halves, which the vectors' tolerances do not cover."""

    vectors: list[GoldenVector]
    errors: list[OutputError]
    in_halves: dict[str, list[OutputError]]


def make_vectors(
    source: Source,
    given: Mapping[str, np.ndarray],
    runners: Mapping[str, Runner],
    in_halves: Mapping[str, Runner | None] = MappingProxyType({}),
) -> Golden:
    """Vectors of a model, and how the `runners`, by target, do on them, and those that store values in halves
    (None where there is nothing to run one on). `given` are inputs of the first vector.

    Raises Fail where a runner computes something else than the oracle, and where no inputs make sense.
    """
    maker = _Maker(source.graph, source.values, runners, in_halves)
    trials = [maker.best(given if number == 0 else {}, number) for number in range(VECTORS)]
    names = list(source.graph.outputs)
    errors = [_joined(name, [t.errors[i] for t in trials]) for i, name in enumerate(names)]
    halves = {
        target: [_joined(name, [t.in_halves[target][i] for t in trials]) for i, name in enumerate(names)]
        for target in in_halves
    }
    most = _kept_elements([t.wanted for t in trials])
    vectors = []
    for trial in trials:
        outputs = []
        for error, wanted in zip(errors, trial.wanted):
            step = _step(wanted.shape, most)
            outputs.append(GoldenOutput(0, step, wanted.reshape(-1)[::step].copy(), error.allowed))
        vectors.append(GoldenVector(trial.inputs, outputs))
    return Golden(vectors, errors, halves)


def drawn_inputs(
    graph: Graph, values: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]
) -> list[dict[str, np.ndarray]]:
    """What golden vectors of a graph are drawn from first: `values` are inputs that are fixed, `given` inputs
    of the first one. Fail where no inputs make sense."""
    maker = _Maker(graph, values, {}, {})
    found = []
    for number in range(VECTORS):
        trial = maker.start(given if number == 0 else {}, number)
        arrays = maker.arrays(trial.inputs)
        found.append(dict(zip(graph.inputs, arrays)))
    return found


def _joined(name: str, errors: Sequence[OutputError]) -> OutputError:
    """One tolerance for all vectors: what one of them showed may happen in any."""
    return OutputError(
        name,
        max(e.seen for e in errors),
        max(e.allowed for e in errors),
        min(e.low for e in errors),
        max(e.high for e in errors),
        any(e.widened for e in errors),
    )


def _kept_elements(wanted: Sequence[Sequence[np.ndarray]]) -> int:
    """Most elements kept of one output so that all fit into STORED_BYTES, small ones whole where possible."""
    left, most = STORED_BYTES, 1
    arrays = sorted((array for row in wanted for array in row), key=lambda array: array.nbytes)
    for number, array in enumerate(arrays):
        share = left // (len(arrays) - number)
        most = max(most, min(array.size, share // array.itemsize))
        left -= min(array.nbytes, share)
    return most


def _step(shape: Sequence[int], most: int) -> int:
    """The distance of kept elements. It has no factor with any dimension, so that they go through all indices
    of every axis."""
    step = max(1, -(-prod(shape) // most))
    while step > 1 and any(gcd(step, dimension) > 1 for dimension in shape):
        step += 1
    return step


@dataclass(frozen=True)
class _Trial:
    inputs: list[GoldenInput]
    wanted: list[np.ndarray]
    errors: list[OutputError]
    in_halves: dict[str, list[OutputError]]

    @property
    def close(self) -> bool:
        """Whether compiled code comes as near as rounding explains."""
        halves = chain.from_iterable(self.in_halves.values())
        return not any(e.widened for e in self.errors) and all(e.relative <= WRONG for e in halves)

    @property
    def worst(self) -> float:
        errors = chain(self.errors, *self.in_halves.values())
        return max((e.relative for e in errors), default=0.0)


class _Maker:
    def __init__(
        self,
        graph: Graph,
        values: Mapping[str, np.ndarray],
        runners: Mapping[str, Runner],
        in_halves: Mapping[str, Runner | None],
    ):
        self._graph, self._values, self._runners, self._in_halves = graph, values, runners, in_halves
        self._choices = list(_choices(graph))
        self._first: int | None = None
        """The first choice that makes sense."""
        self._choice: int | None = None
        """The one that the last vector was drawn from."""

    def best(self, given: Mapping[str, np.ndarray], number: int) -> _Trial:
        """The vector with this number: the first that compiled code comes close to, else the best one."""
        best = self.start(given, number)
        chosen = self._choice
        for attempt, choice in enumerate(self._more_choices(), 1):
            if best.close or len(given) == len(self._graph.inputs):
                break
            trial = self._trial(given, number + attempt * VECTORS, choice)
            if trial is not None and trial.worst < best.worst:
                best, chosen = trial, choice
        self._choice = chosen
        for error in best.errors:
            _refuse_wrong(error, "compiled code", WRONG, "it is wrong, and makes no bundle")
        for target, errors in best.in_halves.items():
            for error in errors:
                _refuse_wrong(error, f"the code of {target}", WRONG_IN_HALVES, COARSE)
        return best

    def start(self, given: Mapping[str, np.ndarray], number: int) -> _Trial:
        """The vector from the numbers that were chosen before, or the first that make sense."""
        for choice in range(len(self._choices)) if self._choice is None else [self._choice]:
            trial = self._trial(given, number, choice)
            last = choice == len(self._choices) - 1
            if trial is not None and (self._choice is not None or last or all(map(_is_finite, trial.wanted))):
                self._choice = choice
                self._first = choice if self._first is None else self._first
                return trial
        raise Fail(
            "no random inputs make sense for this model: give some for its golden vectors"
            " (--input NAME=FILE), or leave them out (--no-golden)"
        )

    def _more_choices(self) -> Iterator[int]:
        """What to draw from where compiled code does not come close: where halves are stored, numbers that
        they may not be too coarse for, then the same once more."""
        current = self._choice
        assert current is not None and self._first is not None
        if self._in_halves:
            yield from (c for c in range(self._first, len(self._choices)) if c != current)
        for _ in range(TRIES - 1):
            yield current

    def _trial(self, given: Mapping[str, np.ndarray], seed: int, number: int) -> _Trial | None:
        """A vector drawn from the choice of this number; None where the model makes no sense of it."""
        choice = self._choices[number]
        inputs = [self._input(name, choice, given, seed) for name in self._graph.inputs]
        arrays = self.arrays(inputs)
        try:
            wanted = evaluate(list(self._graph.outputs.values()), dict(zip(self._graph.inputs, arrays)))
        except IndexError:
            return None
        halves = {
            target: self._errors(arrays, wanted, [run] if run is not None else [], HALVES)
            for target, run in self._in_halves.items()
        }
        return _Trial(inputs, wanted, self._errors(arrays, wanted, list(self._runners.values())), halves)

    def arrays(self, inputs: Sequence[GoldenInput]) -> list[np.ndarray]:
        """The inputs' numbers."""
        return [
            golden.array(node.shape, numpy_dtype(node.dtype))
            for golden, node in zip(inputs, self._graph.inputs.values())
        ]

    def _input(
        self, name: str, choice: Mapping[str, _Numbers], given: Mapping[str, np.ndarray], seed: int
    ) -> GoldenInput:
        stored = self._values.get(name, given.get(name))
        if stored is not None:
            return GoldenInput.stored(stored)
        node, numbers = self._graph.inputs[name], choice[name]
        mixed = zlib.crc32(f"{seed}/{name}".encode())
        if numbers.integers or node.dtype in DRAWN_FLOATS:
            return GoldenInput.drawn(numbers.integers, mixed, numbers.low, numbers.high)
        generator = np.random.default_rng(mixed)
        drawn = generator.uniform(numbers.low, numbers.high, node.shape).astype(np.float32)
        return GoldenInput.stored(drawn.astype(numpy_dtype(node.dtype)))

    def _errors(
        self,
        arrays: list[np.ndarray],
        wanted: list[np.ndarray],
        runners: Sequence[Runner],
        least: float = 0.0,
    ) -> list[OutputError]:
        results = [run(arrays) for run in runners]
        return [
            _error(node, name, want, [result[number] for result in results], least)
            for number, ((name, node), want) in enumerate(zip(self._graph.outputs.items(), wanted))
        ]


@dataclass(frozen=True)
class _Numbers:
    """Numbers from `low` up to `high`, which is not among them."""

    integers: bool
    low: float
    high: float


def _choices(graph: Graph) -> Iterator[dict[str, _Numbers]]:
    """What to draw each input from, the most telling first."""
    positions = index_ranges(graph)
    rows = {name: list(_candidates(node, positions.get(name))) for name, node in graph.inputs.items()}
    for number in range(max(map(len, rows.values()), default=1)):
        yield {name: row[min(number, len(row) - 1)] for name, row in rows.items()}


def _candidates(node: Node, positions: tuple[int, int] | None) -> Iterator[_Numbers]:
    """Ranges for one input. Floats of either sign, positive ones, far from 0, and as pictures have them;
    positions; all values of bytes, and of other integers those that are most often flags or counts."""
    if positions is not None:
        yield _Numbers(True, positions[0], positions[1] + 1)
        yield _Numbers(True, positions[0], positions[0] + 1)
    elif node.dtype == "bool":
        yield _Numbers(True, 0, 2)
        yield _Numbers(True, 1, 2)
    elif is_float(node.dtype) or node.dtype in COMPLEX:
        yield _Numbers(False, -1, 1)
        yield _Numbers(False, 0, 1)
        yield _Numbers(False, 0.5, 1)
        yield _Numbers(False, 0, 255)
    else:
        if node.dtype in NARROW_INTEGERS or numpy_dtype(node.dtype).itemsize == 1:
            yield _Numbers(True, *_all_values(node.dtype))
        yield _Numbers(True, 0, 2)
        yield _Numbers(True, 1, 2)


def _all_values(dtype: str) -> tuple[int, int]:
    bits = NARROW_INTEGERS.get(dtype, 8)
    return (0, 1 << bits) if dtype.startswith("u") else (-(1 << bits - 1), 1 << bits - 1)


def _is_finite(array: np.ndarray) -> bool:
    return array.dtype.kind == "c" or bool(np.isfinite(array.astype(np.float64)).all())


def _refuse_wrong(error: OutputError, what: str, wrong: float, verdict: str) -> None:
    if not error.relative <= wrong:
        raise Fail(
            f"output {error.name!r}: {what} differs from the oracle by {error.seen:.3g}, of values from"
            f" {error.low:.3g} to {error.high:.3g}: {verdict}"
        )


def _error(
    node: Node, name: str, wanted: np.ndarray, results: Sequence[np.ndarray], least: float
) -> OutputError:
    """The error over the results. `least` is allowed to an output that is not exact, whatever its type."""
    whole = GoldenVector([], [GoldenOutput(0, 1, wanted.reshape(-1))])
    seen = max((compare(whole, [result])[0].error for result in results), default=0.0)
    size = np.abs(wanted) if wanted.dtype.kind == "c" else wanted.astype(np.float64)
    finite = size[np.isfinite(size)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    found = OutputError(name, seen, 0.0, low, high, False)
    exact = wanted.dtype.kind in "iub" or node.dtype in NARROW_INTEGERS
    close = 0.0 if exact else max(least, CLOSE.get(node.dtype, CLOSE["bfloat16"])) * found.scale
    return replace(found, allowed=max(close, MARGIN * seen), widened=not seen <= close)
