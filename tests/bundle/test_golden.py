"""Golden vectors: the generator as documented, sections that come back, and comparisons."""

from __future__ import annotations

import math
import random

import ml_dtypes
import numpy as np
import pytest

from tinyinfer.bundle.golden import (
    GoldenInput,
    GoldenOutput,
    GoldenVector,
    compare,
    hashes,
    read_golden,
    sampling,
    write_golden,
)
from tinyinfer.errors import InvalidBundle
from tinyinfer.runtime.plan import TensorSpec


def _hash(i: int, seed: int) -> int:
    """docs/bundle.md, word for word."""
    bits = 0xFFFFFFFF
    x = (i * 0x9E3779B9 + seed) & bits
    x ^= x >> 16
    x = x * 0x21F0AAAD & bits
    x ^= x >> 15
    x = x * 0x735A2D97 & bits
    return x ^ x >> 15


def test_the_hash_is_the_documented_one() -> None:
    for start, seed in ((0, 0), (0, 0xFFFFFFFF), ((1 << 32) - 5, 77), (1 << 33, 1)):
        assert hashes(start, 50, seed).tolist() == [_hash(start + i, seed) for i in range(50)]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_drawn_floats(dtype: str) -> None:
    made = GoldenInput.drawn(False, 5, -1.5, 2.25).array((10, 20), np.dtype(getattr(ml_dtypes, dtype, dtype)))
    wide = [-1.5 + 3.75 * (_hash(i, 5) >> 8) / 2**24 for i in range(200)]
    if dtype != "float64":
        wide = np.array(wide, np.float64).astype(np.float32)
    assert made.shape == (10, 20) and made.tobytes() == np.asarray(wide).astype(made.dtype).tobytes()
    assert made.min() < -1 and made.max() > 2


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("uint8", 0, 256),
        ("int8", -128, 128),
        ("bool", 0, 2),
        ("int64", -5, 7),
        ("int32", -(1 << 31), 1 << 31),
    ],
)
def test_drawn_integers(dtype: str, low: int, high: int) -> None:
    made = GoldenInput.drawn(True, 9, low, high).array((3000,), np.dtype(dtype))
    assert made.tolist() == [low + (_hash(i, 9) * (high - low) >> 32) for i in range(3000)]


def test_drawing_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = GoldenInput.drawn(False, 3, 0, 1).array((1000,), np.dtype("float32"))
    monkeypatch.setattr("tinyinfer.bundle.golden._BLOCK", 64)
    assert GoldenInput.drawn(False, 3, 0, 1).array((1000,), np.dtype("float32")).tobytes() == made.tobytes()


def test_what_cannot_be_drawn() -> None:
    for integers, low, high in ((True, 0, 0), (True, 0.5, 3), (True, 0, 1 << 33), (False, 0, math.inf)):
        with pytest.raises(ValueError, match="no range"):
            GoldenInput.drawn(integers, 0, low, high)
    with pytest.raises(ValueError, match="cannot be drawn"):
        GoldenInput.drawn(False, 0, 0, 1).array((2,), np.dtype("int8"))


@pytest.mark.parametrize(
    "shape", [(1, 1000), (1, 1000, 20, 20), (4096, 64), (1 << 20,), (3, 5, 7, 11, 13, 17)]
)
def test_samples_go_through_every_axis(shape: tuple[int, ...]) -> None:
    step = sampling(shape, 4)
    kept = np.arange(math.prod(shape))[::step]
    if math.prod(shape) * 4 <= 32 << 10:
        assert step == 1
        return
    assert kept.size <= 4096
    for axis, size in enumerate(shape):
        if size <= kept.size // 4 and axis >= len(shape) - 2:
            assert len(set(np.unravel_index(kept, shape)[axis].tolist())) == size


INPUTS = [
    TensorSpec("image", (2, 3), "float32"),
    TensorSpec("state", (4,), "int8"),
    TensorSpec("e", (0,), "bool"),
]
OUTPUTS = [TensorSpec("y", (100, 200), "float32"), TensorSpec("n", (), "int64")]


def _vectors() -> list[GoldenVector]:
    y = np.linspace(-1, 1, 20000, dtype=np.float32).reshape(100, 200)
    return [
        GoldenVector(
            [
                GoldenInput.drawn(False, seed, -1, 1),
                GoldenInput.stored(np.arange(4, dtype=np.int8)),
                GoldenInput.stored(np.zeros(0, bool)),
            ],
            [GoldenOutput.of(y, 1e-4, 1e-3), GoldenOutput.of(np.array(seed))],
        )
        for seed in (1, 2)
    ]


def test_vectors_come_back() -> None:
    data = np.frombuffer(write_golden(_vectors()), np.uint8)
    again = read_golden(data, INPUTS, OUTPUTS, "GOLD")
    assert write_golden(again) == data.tobytes() and len(again) == 2
    for vector, wanted in zip(again, _vectors()):
        assert list(vector.inputs) == list(wanted.inputs)
        for a, b in zip(vector.outputs, wanted.outputs):
            assert (a.first, a.step, a.absolute, a.relative) == (b.first, b.step, b.absolute, b.relative)
            assert a.wanted.dtype == b.wanted.dtype and a.wanted.tobytes() == b.wanted.tobytes()


def test_changed_vectors_are_refused_or_harmless() -> None:
    data = write_golden(_vectors())
    chooser = random.Random(3)
    for _ in range(3000):
        changed = bytearray(data)
        for _ in range(3):
            changed[chooser.randrange(420)] = chooser.choice((0, 1, 0x7F, 0x80, 0xFF, chooser.randrange(256)))
        if chooser.random() < 0.1:
            del changed[chooser.randrange(len(changed)) :]
        try:
            vectors = read_golden(np.frombuffer(bytes(changed), np.uint8), INPUTS, OUTPUTS, "GOLD")
        except InvalidBundle as error:
            assert str(error).startswith("GOLD: ")
            continue
        for vector in vectors:
            compare(vector, [np.zeros((100, 200), np.float32), np.array(1)])
            for x, spec in zip(vector.inputs, INPUTS):
                assert x.array(spec.shape, np.dtype(spec.dtype)).shape == spec.shape


def _compared(wanted: list, got: list, dtype: str, absolute: float = 0.0, relative: float = 0.0):
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    output = GoldenOutput(0, 1, np.array(wanted).astype(kind), absolute, relative)
    return compare(GoldenVector([], [output]), [np.array(got).astype(kind)])[0]


def test_comparisons() -> None:
    nan, inf = math.nan, math.inf
    assert _compared([1, 2], [1.05, 2], "float32", 0.1).passed
    worst = _compared([1, 100, 5], [1.2, 101, 5], "float64", 0.1, 0.02)
    assert (worst.elements, worst.failed, worst.element, worst.got, worst.wanted) == (3, 1, 0, 1.2, 1)
    assert worst.error == pytest.approx(1) and worst.tolerance == pytest.approx(0.12)
    assert _compared([nan, inf, -inf, 0], [nan, inf, -inf, -0.0], "float32").passed
    for wanted, got in ((nan, 0), (0, nan), (inf, -inf), (inf, 1e30), (1, inf)):
        found = _compared([wanted], [got], "float32", 1e9, 1e9)
        assert not found.passed and found.error == inf
    assert _compared([1, 2], [1, 3], "int8", 1).passed
    assert _compared([-128], [127], "int8").error == 255
    assert _compared([-(1 << 62)], [(1 << 62) - 1], "int64").error == float(1 << 63)
    assert not _compared([(1 << 62) + 1], [1 << 62], "int64").passed
    assert not _compared([True], [False], "bool").passed
    assert _compared([1 + 1j], [1 + 1.1j], "complex64", 0.2).passed
    assert _compared([1.0], [1.0078125], "bfloat16", 0.01).passed
    with pytest.raises(ValueError, match="elements"):
        _compared([1, 2], [1], "float32")
