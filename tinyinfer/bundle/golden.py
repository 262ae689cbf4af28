"""`GOLD`: inputs, and the outputs that belong to them, with which a bundle verifies itself (docs/bundle.md).

Inputs are stored, or drawn: then a hash of each element's number makes them, the same in every language. Of
large outputs only some elements are kept; `sampling` chooses them so that every channel is among them.

    vector = GoldenVector([GoldenInput.drawn(False, seed, -1, 1)], [GoldenOutput.of(wanted, absolute=1e-4)])
    data = write_golden([vector])
    for vector in read_golden(data, plan.inputs, plan.outputs, "GOLD"):
        feeds = [x.array(spec.shape, numpy_dtype(spec.dtype)) for x, spec in zip(vector.inputs, plan.inputs)]
        differences = compare(vector, run(feeds))
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, gcd, isfinite, prod
from typing import Any

import numpy as np

from tinyinfer.bundle import types
from tinyinfer.errors import InvalidBundle
from tinyinfer.ir.dtypes import numpy_dtype
from tinyinfer.runtime.plan import TensorSpec

HEADER = struct.Struct("<III4x")
INPUT = struct.Struct("<IIddQQ8x")
OUTPUT = struct.Struct("<QQQddQ")
STORED, FLOATS, INTEGERS = 0, 1, 2
"""Kinds of inputs."""
DRAWN_FLOATS = ("float16", "bfloat16", "float32", "float64")
WHOLE_BYTES = 32 << 10
"""Outputs up to this size are kept whole."""
MOST_ELEMENTS = 4096
"""Elements kept of larger ones."""
ALIGNMENT = 16
_BLOCK = 1 << 20
"""Elements that are drawn at a time."""


def hashes(start: int, count: int, seed: int) -> np.ndarray:
    """The hash of each number from `start` on, as uint32."""
    x = np.arange(start, start + count, dtype=np.uint64).astype(np.uint32)
    x *= np.uint32(0x9E3779B9)
    x += np.uint32(seed)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x21F0AAAD)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x735A2D97)
    x ^= x >> np.uint32(15)
    return x


@dataclass(frozen=True)
class GoldenInput:
    """An input: the bytes of an array, or numbers from `low` up to `high`, drawn with a seed."""

    kind: int
    seed: int = 0
    low: float = 0.0
    high: float = 0.0
    data: bytes = b""

    @classmethod
    def stored(cls, array: np.ndarray) -> GoldenInput:
        """Exactly these numbers."""
        return cls(STORED, data=np.ascontiguousarray(array).tobytes())

    @classmethod
    def drawn(cls, integers: bool, seed: int, low: float, high: float) -> GoldenInput:
        """Whole numbers `low` … `high` - 1 for an input of integers or bools, or floats in [`low`, `high`].
        ValueError for what is no range of those."""
        made = cls(INTEGERS if integers else FLOATS, seed & 0xFFFFFFFF, float(low), float(high))
        if made._bad_range():
            raise ValueError(f"no range of {'integers' if integers else 'floats'}: {low} to {high}")
        return made

    def _bad_range(self) -> bool:
        if self.kind == STORED:
            return False
        low, high = self.low, self.high
        if not (isfinite(low) and isfinite(high) and isfinite(high - low)):
            return True
        if self.kind == FLOATS:
            return False
        whole = floor(low) == low and floor(high) == high and abs(low) <= 1 << 53
        return not (whole and 1 <= high - low <= 1 << 32)

    def wrong_for(self, shape: Sequence[int], dtype: str) -> str | None:
        """Why it is no input of this shape and type, or None."""
        if self.kind == STORED:
            nbytes = prod(shape) * types.width(dtype)
            return None if len(self.data) == nbytes else f"has {len(self.data)} bytes, not {nbytes}"
        if self.kind not in (FLOATS, INTEGERS) or self._bad_range():
            return f"is made in an unknown way (kind {self.kind}, {self.low} to {self.high})"
        if self.kind == FLOATS:
            fits = dtype in DRAWN_FLOATS
        else:
            fits = dtype == "bool" or np.dtype(numpy_dtype(dtype)).kind in "iu"
        return None if fits else f"of type {dtype} cannot be drawn"

    def array(self, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """The input's numbers. ValueError where they are none of this shape and type."""
        wrong = self.wrong_for(shape, dtype.name)
        if wrong is not None:
            raise ValueError(f"the input {wrong}")
        if self.kind == STORED:
            return np.frombuffer(self.data, dtype).reshape(shape)
        result = np.empty(prod(shape), dtype)
        for start in range(0, result.size, _BLOCK):
            part = result[start : start + _BLOCK]
            drawn = hashes(start, part.size, self.seed)
            if self.kind == INTEGERS:
                steps = drawn.astype(np.uint64) * np.uint64(self.high - self.low) >> np.uint64(32)
                part[...] = (steps.astype(np.int64) + np.int64(self.low)).astype(dtype)
            else:
                wide = self.low + (self.high - self.low) * (drawn >> np.uint32(8)) / 2.0**24
                with np.errstate(over="ignore"):
                    part[...] = (wide if dtype.name == "float64" else wide.astype(np.float32)).astype(dtype)
        return result.reshape(shape)


@dataclass(frozen=True, eq=False)
class GoldenOutput:
    """Elements `first`, `first + step`, … of a flat output: what they are to be, and how far from that they
    may be: `absolute` + `relative` of the wanted value's size."""

    first: int
    step: int
    wanted: np.ndarray
    absolute: float = 0.0
    relative: float = 0.0

    @classmethod
    def of(
        cls, output: np.ndarray, absolute: float = 0.0, relative: float = 0.0, full: bool = False
    ) -> GoldenOutput:
        """The elements of an output that `sampling` chooses; all of them, with `full`."""
        step = 1 if full else sampling(output.shape, output.itemsize)
        return cls(0, step, output.reshape(-1)[::step].copy(), absolute, relative)


@dataclass(frozen=True, eq=False)
class GoldenVector:
    """All inputs and all outputs, in the plan's order."""

    inputs: Sequence[GoldenInput]
    outputs: Sequence[GoldenOutput]


def loosened(vector: GoldenVector, tolerances: Mapping[int, float]) -> GoldenVector:
    """The vector for a target that may differ by at least these absolute tolerances, by number of output."""
    outputs = [
        replace(output, absolute=max(output.absolute, tolerances.get(number, 0.0)))
        for number, output in enumerate(vector.outputs)
    ]
    return GoldenVector(vector.inputs, outputs)


def sampling(shape: Sequence[int], itemsize: int) -> int:
    """The step that keeps at most MOST_ELEMENTS of an output of more than WHOLE_BYTES. It has no factor with
    any dimension, so that the kept elements go through all indices of every axis in turn."""
    size = prod(shape)
    if size * itemsize <= WHOLE_BYTES:
        return 1
    step = -(-size // MOST_ELEMENTS)
    while any(gcd(step, dimension) > 1 for dimension in shape):
        step += 1
    return step


# ---- the section


def write_golden(vectors: Sequence[GoldenVector]) -> bytes:
    """The bytes of `GOLD`. ValueError where the vectors do not all have as many inputs and outputs."""
    counts = {(len(vector.inputs), len(vector.outputs)) for vector in vectors}
    if len(counts) != 1:
        raise ValueError("golden vectors must have the same inputs and outputs, and there must be some")
    ((inputs, outputs),) = counts
    position = HEADER.size + len(vectors) * (INPUT.size * inputs + OUTPUT.size * outputs)
    records: list[bytes] = [HEADER.pack(len(vectors), inputs, outputs)]
    contents: list[bytes] = []

    def place(data: bytes) -> int:
        nonlocal position
        if not data:
            return 0
        gap = -position % ALIGNMENT
        contents.extend((bytes(gap), data))
        start = position + gap
        position = start + len(data)
        return start

    for vector in vectors:
        for x in vector.inputs:
            records.append(INPUT.pack(x.kind, x.seed, x.low, x.high, place(x.data), len(x.data)))
    for vector in vectors:
        for y in vector.outputs:
            data = np.ascontiguousarray(y.wanted).tobytes()
            where = place(data)
            records.append(OUTPUT.pack(y.first, y.step, y.wanted.size, y.absolute, y.relative, where))
    return b"".join((*records, *contents))


def read_golden(
    data: np.ndarray, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], where: str
) -> list[GoldenVector]:
    """The vectors in a section, for a plan's inputs and outputs. `where` begins messages of InvalidBundle."""
    if data.size < HEADER.size:
        raise InvalidBundle(f"{where}: {data.size} bytes are too few for golden vectors")
    count, *numbers = HEADER.unpack_from(data.data)
    if numbers != [len(inputs), len(outputs)]:
        raise InvalidBundle(
            f"{where}: golden vectors of {numbers[0]} inputs and {numbers[1]} outputs; the plan has "
            f"{len(inputs)} and {len(outputs)}"
        )
    middle = HEADER.size + count * INPUT.size * len(inputs)
    end = middle + count * OUTPUT.size * len(outputs)
    if end > data.size:
        raise InvalidBundle(f"{where}: {count} golden vectors end outside of the section")
    if not inputs and not outputs:
        raise InvalidBundle(f"{where}: golden vectors of nothing")
    head = data[:end].tobytes()
    given = list(INPUT.iter_unpack(head[HEADER.size : middle]))
    wanted = list(OUTPUT.iter_unpack(head[middle:end]))

    def content(offset: int, nbytes: int, what: str) -> np.ndarray:
        if nbytes and offset + nbytes > data.size:
            raise InvalidBundle(f"{where}: the golden data of {what} lie outside of the section")
        return data[offset : offset + nbytes]

    vectors = []
    for number in range(count):
        made_inputs = []
        for spec, (kind, seed, low, high, offset, nbytes) in zip(inputs, given[number * len(inputs) :]):
            stored = content(offset, nbytes, repr(spec.name)).tobytes() if kind == STORED else b""
            made = GoldenInput(kind, seed, low, high, stored)
            wrong = made.wrong_for(spec.shape, spec.dtype)
            if wrong is not None:
                raise InvalidBundle(f"{where}: the golden input {spec.name!r} {wrong}")
            made_inputs.append(made)
        made_outputs = []
        for spec, record in zip(outputs, wanted[number * len(outputs) :]):
            first, step, elements, absolute, relative, offset = record
            if elements and (not step or first + step * (elements - 1) >= prod(spec.shape)):
                raise InvalidBundle(f"{where}: golden elements outside of the output {spec.name!r}")
            found = content(offset, elements * types.width(spec.dtype), repr(spec.name))
            values = np.frombuffer(found.tobytes(), numpy_dtype(spec.dtype))
            made_outputs.append(GoldenOutput(first, step if elements > 1 else 1, values, absolute, relative))
        vectors.append(GoldenVector(made_inputs, made_outputs))
    return vectors


# ---- comparing


@dataclass(frozen=True)
class Difference:
    """How an output differs from what is wanted, over the `elements` that were compared.

    `failed` of them are out of tolerance; `error` is the greatest absolute error (infinite where one is NaN
    or infinite and the other something else). `element` is the flat index of the one that is farthest beyond
    its tolerance, or nearest to it, with what came (`got`), what was `wanted`, and its `tolerance`.
    """

    elements: int
    failed: int
    error: float
    element: int
    got: Any
    wanted: Any
    tolerance: float

    @property
    def passed(self) -> bool:
        return not self.failed


def compare(vector: GoldenVector, outputs: Sequence[np.ndarray]) -> list[Difference]:
    """How each output of a run differs from the vector's. ValueError for outputs of other types or too few
    elements."""
    if len(outputs) != len(vector.outputs):
        raise ValueError(f"{len(vector.outputs)} outputs are wanted, not {len(outputs)}")
    return [_difference(golden, output) for golden, output in zip(vector.outputs, outputs)]


def _difference(golden: GoldenOutput, output: np.ndarray) -> Difference:
    wanted = golden.wanted
    if not wanted.size:
        return Difference(0, 0, 0.0, 0, None, None, golden.absolute)
    places = golden.first + golden.step * np.arange(wanted.size)
    if output.dtype != wanted.dtype or places[-1] >= output.size:
        raise ValueError(f"{output.size} elements of {output.dtype} where {wanted.dtype} is wanted")
    got = output.reshape(-1)[places]
    error, size = _errors(got, wanted)
    with np.errstate(all="ignore"):
        tolerance = golden.absolute + golden.relative * np.where(np.isfinite(size), size, 0.0)
        beyond = np.where(error == 0, -np.inf, error - tolerance)
        failed = ~(error <= tolerance)
    worst = int(np.argmax(beyond)) if (error > 0).any() else 0
    return Difference(
        wanted.size,
        int(failed.sum()),
        float(error.max()),
        int(places[worst]),
        got[worst].item(),
        wanted[worst].item(),
        float(tolerance[worst]),
    )


def _errors(got: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The absolute error of each element, and the size of what is wanted."""
    if wanted.dtype.kind in "iu":
        # 64 bits do not fit into a double, but most differences do
        above = got > wanted
        larger, smaller = np.where(above, got, wanted), np.where(above, wanted, got)
        distance = larger.astype(np.uint64) - smaller.astype(np.uint64)
        return distance.astype(np.float64), np.abs(wanted.astype(np.float64))
    wide = np.complex128 if wanted.dtype.kind == "c" else np.float64
    with np.errstate(all="ignore"):
        a, b = got.astype(wide), wanted.astype(wide)
        error = np.abs(a - b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(same, 0.0, np.where(np.isfinite(error), error, np.inf)), np.abs(b)
