"""Random numbers as arithmetic: a counter-based generator in integer operations of the IR.

Threefry-2x32 with 20 rounds turns a key and a position into 64 random bits, so that every element is drawn on
its own, in any order, on any device, to the same bits.
Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.index import flatten
from tinyinfer.ir.node import Node, output_axis

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = 0x1BD11BDA
_ROUNDS = 20


def _fill(value: float, x: Node) -> Node:
    return build.full(value, x.shape, x.dtype)


def _rotated(x: Node, count: int) -> Node:
    left = elementwise("SHL", x, _fill(count, x))
    return elementwise("OR", left, elementwise("SHR", x, _fill(32 - count, x)))


def threefry(key: tuple[Node, Node], low: Node, high: Node) -> tuple[Node, Node]:
    """Two words of random bits for each counter (low, high); all uint32 of one shape."""
    parity = elementwise("XOR", elementwise("XOR", *key), _fill(_PARITY, key[0]))
    schedule = (*key, parity)
    x, y = elementwise("ADD", low, key[0]), elementwise("ADD", high, key[1])
    for step in range(_ROUNDS):
        x = elementwise("ADD", x, y)
        y = elementwise("XOR", _rotated(y, _ROTATIONS[step % 8]), x)
        if step % 4 == 3:
            turn = step // 4 + 1
            x = elementwise("ADD", x, schedule[turn % 3])
            y = elementwise("ADD", elementwise("ADD", y, schedule[(turn + 1) % 3]), _fill(turn, y))
    return x, y


def random_words(key: Node, shape: Sequence[int]) -> tuple[Node, Node]:
    """Two words of random bits for each position of `shape`, from a key of two uint32."""
    shape = tuple(shape)
    axes = [output_axis(i, d) for i, d in enumerate(shape)]
    place = build.position(flatten(axes, shape), shape, "uint64" if math.prod(shape) > 1 << 32 else "uint32")
    if place.dtype == "uint32":
        low, high = place, build.full(0, shape, "uint32")
    else:
        low = build.cast(place, "uint32")
        high = build.cast(elementwise("SHR", place, _fill(32, place)), "uint32")
    words = [build.expand(build.reshape(build.shrink(key, [i], [i + 1]), ()), shape) for i in (0, 1)]
    return threefry((words[0], words[1]), low, high)


def _unit(words: tuple[Node, Node], dtype: str) -> Node:
    """Uniform in [0, 1) of all the bits that the dtype holds."""
    if dtype == "float64":
        high, low = (
            build.cast(elementwise("SHR", w, _fill(drop, w)), "float64") for w, drop in zip(words, (5, 6))
        )
        whole = elementwise("MULACC", high, _fill(1 << 26, high), low)
        return elementwise("MUL", whole, _fill(2.0**-53, whole))
    bits = {"float16": 11}.get(dtype, 24)
    kept = build.cast(elementwise("SHR", words[0], _fill(32 - bits, words[0])), "float32")
    return build.cast(elementwise("MUL", kept, _fill(2.0**-bits, kept)), dtype)


def uniform(key: Node, shape: Sequence[int], dtype: str, low: float = 0.0, high: float = 1.0) -> Node:
    """Uniform in [low, high)."""
    u = _unit(random_words(key, shape), dtype)
    if (low, high) == (0.0, 1.0):
        return u
    spread = elementwise("MULACC", u, _fill(high - low, u), _fill(low, u))
    kind = np.dtype(dtype)
    if not low < high:
        return spread
    # rounding can reach the open end
    return elementwise("MIN", spread, _fill(float(np.nextafter(kind.type(high), kind.type(low))), spread))


def normal(key: Node, shape: Sequence[int], dtype: str, mean: float = 0.0, scale: float = 1.0) -> Node:
    """Normal, by Box and Muller's transform of the two words of a position."""
    wide = "float64" if dtype == "float64" else "float32"
    first, second = random_words(key, shape)
    if wide == "float64":
        # 32 bits of angle are enough, the radius takes what is left
        u, angle = build.cast(first, wide), build.cast(second, wide)
        u = elementwise("MUL", elementwise("ADD", u, _fill(0.5, u)), _fill(2.0**-32, u))
    else:
        u, angle = (build.cast(elementwise("SHR", w, _fill(8, w)), wide) for w in (first, second))
        u = elementwise("MUL", elementwise("ADD", u, _fill(1, u)), _fill(2.0**-24, u))
    turn = elementwise("MUL", angle, _fill(2 * math.pi * 2.0 ** (-32 if wide == "float64" else -24), angle))
    radius = elementwise("SQRT", elementwise("MUL", elementwise("LOG", u), _fill(-2, u)))
    unit = elementwise("MUL", radius, elementwise("COS", turn))
    return build.cast(elementwise("MULACC", unit, _fill(scale, unit), _fill(mean, unit)), dtype)


def exponential(key: Node, shape: Sequence[int]) -> Node:
    """Exponential with rate 1, float64, fine near 0: -log(1 - u)."""
    u = _unit(random_words(key, shape), "float64")
    # u is a multiple of 2^-53, for which 1 - u is exact; half a step keeps the logarithm from 0
    return elementwise("NEG", elementwise("LOG", elementwise("SUB", _fill(1 - 2.0**-54, u), u)))
