"""The op table: which function imports which ONNX op in which opsets, how exactly, and why so exactly.

An import function takes a NodeContext and one Node per ONNX input (None for an optional one left out) and
returns a Node, or a tuple with one Node per ONNX output (None for an unsupported one). Its signature is
the contract on the number of inputs, and its first docstring line is the documentation of the op.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

LAST_OPSET = 1 << 30
DOMAINS = {"": "ai.onnx", "ai.onnx": "ai.onnx"}


@dataclass(frozen=True)
class Tolerance:
    """Largest error by dtype, relative to the largest magnitude of the output; and its reason."""

    by_dtype: Mapping[str, float]
    reason: str

    def __getitem__(self, dtype: str) -> float:
        return self.by_dtype.get(dtype, 0.0)


EXACT = Tolerance({}, "moves or compares values, rounds nothing")
ROUNDED = Tolerance(
    {"float64": 1e-15, "float32": 5e-7, "float16": 2e-3, "bfloat16": 1.6e-2},
    "a few correctly rounded operations",
)
TRANSCENDENTAL = Tolerance(
    {"float64": 1e-13, "float32": 4e-6, "float16": 4e-3, "bfloat16": 3e-2},
    "polynomials within a few units in the last place, composed",
)
ACCUMULATED = Tolerance(
    {"float64": 1e-12, "float32": 2e-5, "float16": 1e-2, "bfloat16": 3e-2},
    "sums in another order than the reference; the error grows with the square root of the length",
)
RECURRENT = Tolerance(
    {"float64": 1e-11, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1},
    "accumulated sums fed back through the time steps",
)


@dataclass(frozen=True)
class OpEntry:
    """One op for a range of opsets. `inputs` is (fewest, most), most = None for any number."""

    name: str
    domain: str
    since: int
    until: int
    function: Callable[..., Any]
    tolerance: Tolerance
    doc: str
    inputs: tuple[int, int | None]
    values: bool = False
    """Whether the function takes values of any kind: strings, sequences, optionals, maps."""


OP_TABLE: dict[tuple[str, str], list[OpEntry]] = {}


def onnx_op(
    name: str,
    since: int = 1,
    until: int = LAST_OPSET,
    domain: str = "ai.onnx",
    tolerance: Tolerance = ROUNDED,
    values: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register an import function for `name` in opsets `since` to `until`; ranges must not overlap.

    Without `values`, the function is only called with nodes: ops that move strings get numbers in their
    place.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        entries = OP_TABLE.setdefault((domain, name), [])
        if any(e.since <= until and since <= e.until for e in entries):
            raise ValueError(f"{domain}.{name}: opsets {since} to {until} are registered twice")
        doc = (inspect.getdoc(function) or "").split("\n")[0]
        count = input_count(function)
        entries.append(OpEntry(name, domain, since, until, function, tolerance, doc, count, values))
        return function

    return register


def input_count(function: Callable[..., Any]) -> tuple[int, int | None]:
    """The fewest and the most ONNX inputs that an import function takes; its first parameter is none."""
    fewest = most = 0
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if parameter.kind is parameter.VAR_POSITIONAL:
            return fewest, None
        most += 1
        fewest += parameter.default is parameter.empty
    return fewest, most


def canonical_domain(domain: str) -> str:
    """ONNX's two spellings of its own domain as one."""
    return DOMAINS.get(domain, domain)


def find_op(domain: str, name: str, opset: int) -> OpEntry | None:
    """The entry for `name` at `opset`, or None."""
    for entry in OP_TABLE.get((canonical_domain(domain), name), ()):
        if entry.since <= opset <= entry.until:
            return entry
    return None
