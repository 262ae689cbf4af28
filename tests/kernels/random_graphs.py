"""Random small graphs of one kind each. A generator takes a numpy random generator and gives a `Case`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tinyinfer.ir import build
from tinyinfer.ir.node import Node

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = (*FLOATS, *INTEGERS, "bool")

Random = np.random.Generator


@dataclass
class Case:
    """Outputs, feeds, and the magnitude that each output's rounding is relative to (None: to each value)."""

    outputs: list[Node]
    feeds: dict[str, np.ndarray]
    scale: float | None = None
    factor: float = 1.0


@dataclass
class Feeder:
    """Makes inputs and constants and remembers what to feed."""

    rng: Random
    feeds: dict[str, np.ndarray] = field(default_factory=dict)

    def array(self, shape: Sequence[int], dtype: str = "float32") -> np.ndarray:
        """Random numbers: normal ones, integers of the whole range or (half of the time) small ones."""
        kind = np.dtype(dtype)
        if kind.kind == "f":
            return np.asarray(self.rng.standard_normal(tuple(shape))).astype(kind)
        if kind.kind == "b":
            return np.asarray(self.rng.integers(0, 2, tuple(shape))).astype(bool)
        limits = np.iinfo(kind)
        low, high = (limits.min, limits.max) if self.rng.random() < 0.5 else (max(limits.min, -4), 5)
        return np.asarray(self.rng.integers(low, high, tuple(shape), dtype=kind, endpoint=True))

    def value(self, shape: Sequence[int], dtype: str = "float32", constant: float = 0.3) -> Node:
        """An input, or with probability `constant` a constant."""
        array = self.array(shape, dtype)
        if self.rng.random() < constant:
            return build.constant(array)
        return self.input(array)

    def input(self, array: np.ndarray) -> Node:
        """An input that is fed this array."""
        name = f"x{len(self.feeds)}"
        self.feeds[name] = array
        return build.input_node(name, array.shape, array.dtype.name)


def _pick(rng: Random, *choices):
    return choices[int(rng.integers(len(choices)))]


def _sizes(rng: Random, rank: int, limit: int = 9) -> list[int]:
    return [int(rng.integers(1, limit)) for _ in range(rank)]


# ---- contractions


def convolution(rng: Random) -> Case:
    """A convolution over 1 to 3 axes: strides, dilations, uneven padding, groups, and an epilogue."""
    f = Feeder(rng)
    rank = int(_pick(rng, 1, 2, 2, 2, 3))
    kernel = [int(rng.integers(1, 4)) for _ in range(rank)]
    dilations = [int(_pick(rng, 1, 1, 2)) for _ in range(rank)]
    strides = [int(_pick(rng, 1, 1, 2, 3)) for _ in range(rank)]
    before = [int(rng.integers(0, 3)) for _ in range(rank)]
    after = [int(rng.integers(0, 3)) for _ in range(rank)]
    sizes = [
        max(1, (k - 1) * l + 1 - b - a + int(rng.integers(0, 8)))
        for k, l, b, a in zip(kernel, dilations, before, after)
    ]
    group = int(_pick(rng, 1, 1, 1, 2, 3, 8))
    inner = int(_pick(rng, 1, 2, 3, 5, 8, 16, 17, 35))
    outer = int(_pick(rng, 1, 2, 3, 7, 8, 9, 16, 17, 31, 33, 70))
    if group > 1:
        inner, outer = min(inner, 8), min(outer, 17)
    depthwise = rng.random() < 0.2
    if depthwise:
        group, inner, outer = int(_pick(rng, 3, 8, 16, 19, 33)), 1, int(_pick(rng, 1, 1, 2))
    x = f.value((int(_pick(rng, 1, 1, 2)), group * inner, *sizes), constant=0.0)
    if rng.random() < 0.4:
        x = build.elementwise("MAX", x, build.full(0.0, x.shape, "float32"))
    if rng.random() < 0.3:
        x = build.elementwise("SIGMOID", x)
    w = f.value((group * outer, inner, *kernel), constant=0.8)
    y = build.convolution(x, w, strides, dilations, before, after, group)
    outputs = _epilogue(f, y)
    return Case(outputs, f.feeds, scale=4.0 * max(1.0, float(np.sqrt(inner * np.prod(kernel)))))


def _epilogue(f: Feeder, y: Node) -> list[Node]:
    rng = f.rng
    first = y
    if rng.random() < 0.6 and len(y.shape) > 1:
        bias = f.value((y.shape[1], *[1] * (len(y.shape) - 2)), constant=0.8)
        y = build.apply("ADD", y, bias)
    if rng.random() < 0.3:
        y = build.elementwise("ADD", y, f.value(y.shape))
    if rng.random() < 0.5:
        y = _pick(
            rng,
            lambda: build.elementwise("MAX", y, build.full(0.0, y.shape, "float32")),
            lambda: build.elementwise("TANH", y),
            lambda: build.elementwise("MUL", y, build.elementwise("SIGMOID", y)),
        )()
    outputs = [y]
    if rng.random() < 0.2:
        outputs.append(first)
    if rng.random() < 0.2:
        order = [int(i) for i in rng.permutation(len(y.shape))]
        outputs[0] = build.permute(y, order)
    elif rng.random() < 0.2:
        flat = build.reshape(y, [y.size])
        outputs[0] = build.elementwise("NEG", flat) if rng.random() < 0.5 else flat
    return outputs


def two_convolutions(rng: Random) -> Case:
    """Two convolutions after each other with a residual sum: layouts and halos between kernels."""
    f = Feeder(rng)
    channels, size = int(_pick(rng, 4, 8, 16, 19)), int(rng.integers(3, 9))
    x = f.value((int(_pick(rng, 1, 2)), channels, size, size + 1), constant=0.0)
    w1 = f.value((channels, channels, 3, 3), constant=1.0)
    w2 = f.value((channels, channels, 3, 3), constant=1.0)
    w3 = f.value((channels, 1, 3, 3), constant=1.0)
    pads = [int(_pick(rng, 0, 1)), 1]
    y = build.convolution(x, w1, [1, 1], [1, 1], [1, 1], [1, 1])
    y = build.elementwise("MAX", y, build.full(0.0, y.shape, "float32"))
    z = (
        build.convolution(y, w2, [1, 1], [1, 1], [1, 1], [1, 1])
        if rng.random() < 0.6
        else build.convolution(y, w3, [1, 1], [1, 1], [1, 1], [1, 1], channels)
    )
    z = build.elementwise("ADD", z, _pick(rng, x, y))
    if rng.random() < 0.5:
        z = build.concat([z, _pick(rng, x, y)], int(rng.integers(0, 4)))
    if rng.random() < 0.5:
        fill = float(_pick(rng, 0.0, -np.inf))
        windows = build.window(z, [3, 3], [2, 2], [1, 1], pads, pads, fill)
        z = build.reduce("MAX", windows, [4, 5])
    return Case([z], f.feeds, scale=100.0 * channels)


def matmul(rng: Random) -> Case:
    """Products of operands of rank 1 to 4 with broadcast batches, transposed or not, and an epilogue."""
    f = Feeder(rng)
    m, k, n = (int(_pick(rng, 1, 2, 3, 5, 8, 9, 15, 16, 17, 31, 33, 70)) for _ in range(3))
    batch = [int(_pick(rng, 1, 2, 3)) for _ in range(int(rng.integers(0, 3)))]

    def operand(rows: int, columns: int, constant: float) -> Node:
        lead = [d if rng.random() < 0.7 else 1 for d in batch]
        lead = lead[int(rng.integers(0, len(lead) + 1)) :]
        if rng.random() < 0.3:
            x = f.value((*lead, columns, rows), constant=constant)
            rank = len(x.shape)
            return build.permute(x, [*range(rank - 2), rank - 1, rank - 2])
        x = f.value((*lead, rows, columns), constant=constant)
        return build.elementwise("TANH", x) if rng.random() < 0.2 else x

    y = build.matmul(operand(m, k, 0.1), operand(k, n, 0.5))
    if rng.random() < 0.4:
        y = build.elementwise("ADD", y, build.expand(f.value((n,), constant=0.8), y.shape))
    if rng.random() < 0.3:
        y = build.elementwise("SIGMOID", y)
    outputs = [y]
    if rng.random() < 0.3:
        y = build.reshape(y, [y.size])
        outputs = [build.elementwise("NEG", y) if rng.random() < 0.5 else y]
    elif rng.random() < 0.3:
        outputs = [build.permute(y, [int(i) for i in rng.permutation(len(y.shape))])]
        if rng.random() < 0.5:
            outputs = [build.elementwise("ABS", outputs[0])]
    elif rng.random() < 0.2 and len(y.shape) >= 2:
        outputs = [build.reduce(_pick(rng, "SUM", "MAX"), y, [len(y.shape) - 1])]
    return Case(outputs, f.feeds, scale=4.0 * k)


def attention(rng: Random) -> Case:
    """Softmax of q·kᵀ times v, heads by reshape and permute."""
    f = Feeder(rng)
    heads, length, other, width = (
        int(_pick(rng, 1, 2, 3)),
        int(_pick(rng, 1, 5, 9, 17)),
        int(_pick(rng, 4, 9, 16, 33)),
        int(_pick(rng, 4, 8, 16)),
    )

    def split(rows: int) -> Node:
        x = build.reshape(f.value((2, rows, heads * width), constant=0.0), (2, rows, heads, width))
        return build.permute(x, [0, 2, 1, 3])

    q, k, v = split(length), split(other), split(other)
    scores = build.matmul(q, build.permute(k, [0, 1, 3, 2]))
    scores = build.apply("MUL", scores, build.scalar(1 / np.sqrt(width), "float32"))
    if rng.random() < 0.5:
        scores = build.apply("ADD", scores, f.value((length, other)))
    y = build.matmul(softmax(scores, 3), v)
    y = build.reshape(build.permute(y, [0, 2, 1, 3]), (2, length, heads * width))
    return Case([y], f.feeds, scale=8.0)


# ---- rows


def softmax(x: Node, axis: int) -> Node:
    top = build.expand(build.reduce("MAX", x, [axis], keepdims=True), x.shape)
    e = build.elementwise("EXP", build.elementwise("SUB", x, top))
    return build.elementwise("DIV", e, build.expand(build.reduce("SUM", e, [axis], keepdims=True), x.shape))


def log_softmax(x: Node, axis: int) -> Node:
    top = build.expand(build.reduce("MAX", x, [axis], keepdims=True), x.shape)
    moved = build.elementwise("SUB", x, top)
    total = build.reduce("SUM", build.elementwise("EXP", moved), [axis], keepdims=True)
    return build.elementwise("SUB", moved, build.expand(build.elementwise("LOG", total), x.shape))


def normalize(x: Node, axes: Sequence[int]) -> Node:
    """(x - mean) / sqrt(variance + epsilon) over `axes`: layer norm, instance norm."""
    count = float(np.prod([x.shape[a] for a in axes]))

    def mean(v: Node) -> Node:
        total = build.reduce("SUM", v, axes, keepdims=True)
        return build.apply("MUL", total, build.scalar(1 / count, x.dtype))

    centred = build.apply("SUB", x, mean(x))
    variance = mean(build.elementwise("MUL", centred, centred))
    spread = build.elementwise("SQRT", build.apply("ADD", variance, build.scalar(1e-3, x.dtype)))
    return build.apply("DIV", centred, spread)


def rows(rng: Random) -> Case:
    """Softmax, log-softmax and normalisations over any axes, alone or mixed with windows and whole sums."""
    f = Feeder(rng)
    dtype = str(_pick(rng, "float32", "float32", "float32", "float64", "float16"))
    shape = [int(_pick(rng, 1, 2, 3, 8, 17, 37)) for _ in range(int(rng.integers(1, 5)))]
    while np.prod(shape) > 20000:
        shape.pop()
    x = f.value(shape, dtype, constant=0.0)
    if rng.random() < 0.3:
        x = build.permute(x, [int(i) for i in rng.permutation(len(shape))])
    rank = len(x.shape)
    axis = int(rng.integers(rank))
    axes = sorted({int(rng.integers(rank)) for _ in range(int(rng.integers(1, rank + 1)))})
    kind = int(rng.integers(6))
    if kind == 0:
        y = softmax(x, axis)
    elif kind == 1:
        y = log_softmax(x, axis)
    elif kind == 2:
        y = normalize(x, axes)
        y = build.elementwise(
            "MULACC",
            y,
            build.expand(f.value(y.shape[-1:], dtype, 0.9), y.shape),
            build.expand(f.value(y.shape[-1:], dtype, 0.9), y.shape),
        )
    elif kind == 3:
        y = softmax(normalize(x, axes), axis)
    elif kind == 4:
        size = min(3, x.shape[-1])
        windows = build.window(x, [size], [1], [1], [size // 2], [(size - 1) // 2])
        total = build.reduce("SUM", windows, [rank])
        y = build.apply("SUB", total, build.reduce(_pick(rng, "SUM", "MAX"), x, axes, keepdims=True))
    else:
        y = build.apply(
            "ADD", build.reduce("SUM", x, axes, keepdims=True), build.reduce("MAX", x, [axis], keepdims=True)
        )
        y = build.apply("MUL", y, x)
    if rng.random() < 0.2:
        y = build.reduce("MAX", y, axes)
    scale = 2.0 * float(np.sqrt(np.prod(shape))) + 4.0
    return Case([y], f.feeds, scale, factor=4.0)


def reductions(rng: Random) -> Case:
    """Every reduce op over random axes of random expressions, size-1 axes included."""
    f = Feeder(rng)
    dtype = str(_pick(rng, *DTYPES))
    shape = [int(_pick(rng, 1, 1, 2, 3, 5, 16, 19, 40)) for _ in range(int(rng.integers(1, 5)))]
    while np.prod(shape) > 6000:
        shape.pop()
    x = f.value(shape, dtype)
    if rng.random() < 0.4:
        x = view(rng, x)
    rank = len(x.shape)
    if not rank:
        return Case([x], f.feeds)
    outputs = []
    for op in ("SUM", "MAX", "MIN", "PROD"):
        axes = {int(rng.integers(rank)) for _ in range(int(rng.integers(1, rank + 1)))}
        y = build.reduce(op, x, axes, keepdims=bool(rng.random() < 0.5))
        if rng.random() < 0.3 and dtype != "bool":
            y = build.elementwise("NEG", y)
        outputs.append(y)
    if np.dtype(dtype).kind == "f" and rng.random() < 0.3:
        for array in f.feeds.values():
            # a long product may underflow, and then 0 times infinity depends on the range of the accumulator
            special = _pick(rng, np.nan, np.inf, -np.inf)
            array.reshape(-1)[int(rng.integers(array.size))] = special if x.size < 30 else np.nan
    return Case(outputs, f.feeds, scale=20.0 + 4 * float(np.sqrt(x.size)), factor=2.0)


def pooling(rng: Random) -> Case:
    """Windows reduced to their largest or their mean, with -inf or zero padding."""
    f = Feeder(rng)
    rank = int(_pick(rng, 1, 2, 2))
    dtype = str(_pick(rng, "float32", "float32", "float16", "float64", "int8", "uint8"))
    kernel = [int(rng.integers(1, 6)) for _ in range(rank)]
    before = [int(rng.integers(0, k)) for k in kernel]
    after = [int(rng.integers(0, k)) for k in kernel]
    sizes = [k + int(rng.integers(0, 12)) for k in kernel]
    x = f.value((int(_pick(rng, 1, 2)), int(_pick(rng, 1, 3, 16, 21)), *sizes), dtype, constant=0.1)
    if rng.random() < 0.5:
        x = build.elementwise("ABS", x)
    largest = rng.random() < 0.5 or dtype in ("int8", "uint8")
    fill: float = -np.inf if largest else 0.0
    if dtype in ("int8", "uint8"):
        fill = int(np.iinfo(dtype).min)
    strides = [int(rng.integers(1, 4)) for _ in range(rank)]
    windows = build.window(x, kernel, strides, [1] * rank, before, after, fill)
    y = build.reduce("MAX" if largest else "SUM", windows, range(2 + rank, 2 + 2 * rank))
    return Case([y], f.feeds, scale=20.0)


# ---- movement


def view(rng: Random, x: Node, steps: int | None = None) -> Node:
    """A random chain of reshapes, permutations, expansions, paddings, slices, flips and windows."""
    for _ in range(steps if steps is not None else int(rng.integers(1, 5))):
        x = _movement(rng, x)
    return x


def _movement(rng: Random, x: Node) -> Node:
    rank = len(x.shape)
    kind = int(rng.integers(8))
    if kind == 0:
        return build.reshape(x, _factors(rng, x.size))
    if kind == 1:
        return build.permute(x, [int(i) for i in rng.permutation(rank)])
    if kind == 2 and x.size <= 500:
        return build.expand(
            x, [int(rng.integers(1, 4)), *[d if d > 1 else int(rng.integers(1, 4)) for d in x.shape]]
        )
    if kind == 3 and x.size <= 2000:
        fill: float | int | bool = 0
        if rng.random() < 0.5:
            fill = (
                True
                if x.dtype == "bool"
                else int(_pick(rng, 1, 7))
                if "float" not in x.dtype
                else float(_pick(rng, 1.5, -np.inf, np.nan))
            )
        return build.pad(
            x, [int(rng.integers(0, 3)) for _ in x.shape], [int(rng.integers(0, 3)) for _ in x.shape], fill
        )
    if kind == 4:
        starts = [int(rng.integers(0, d)) for d in x.shape]
        return build.shrink(x, starts, [int(rng.integers(s + 1, d + 1)) for s, d in zip(starts, x.shape)])
    if kind == 5:
        return build.flip(x, [i for i in range(rank) if rng.random() < 0.5])
    if kind == 6:
        return build.shrink(x, [0] * rank, list(x.shape), [int(rng.integers(1, 4)) for _ in x.shape])
    if kind == 7 and rank and x.size <= 1500:
        size = int(rng.integers(1, min(3, x.shape[-1]) + 1))
        return build.window(x, [size], [int(rng.integers(1, 3))], [1], [1], [1], 0)
    return x


def _factors(rng: Random, size: int) -> list[int]:
    """A random shape of `size` elements."""
    factors, rest, divisor = [], size, 2
    while rest > 1:
        while rest % divisor == 0:
            factors.append(divisor)
            rest //= divisor
        divisor += 1
    rng.shuffle(factors)
    shape: list[int] = []
    for factor in factors:
        if shape and rng.random() < 0.5:
            shape[-1] *= factor
        else:
            shape.append(factor)
    for _ in range(int(rng.integers(0, 2))):
        shape.insert(int(rng.integers(0, len(shape) + 1)), 1)
    return shape


def views(rng: Random) -> Case:
    """Chains of movements, with arithmetic between and after them."""
    f = Feeder(rng)
    dtype = str(_pick(rng, "float32", "float32", *DTYPES))
    x = view(rng, f.value(_sizes(rng, int(rng.integers(0, 5)), 8), dtype, 0.2))
    if rng.random() < 0.5 and dtype != "bool":
        x = view(rng, build.elementwise("ABS", x))
    outputs = [x]
    if rng.random() < 0.5:
        other = view(rng, f.value(_sizes(rng, int(rng.integers(1, 4)), 8), dtype, 0.5), 2)
        outputs.append(other)
        if other.size == x.size:
            outputs.append(
                build.elementwise("CMPLT", build.reshape(x, [x.size]), build.reshape(other, [x.size]))
            )
    return Case(outputs, f.feeds)


def gathers(rng: Random) -> Case:
    """Indexed reads with indices in and out of range, from inputs, constants and computed tables."""
    f = Feeder(rng)
    dtype = str(_pick(rng, "float32", "float32", *DTYPES))
    table = f.value(_sizes(rng, int(rng.integers(1, 4)), 9), dtype)
    if rng.random() < 0.3 and dtype != "bool":
        table = build.elementwise("ABS", table)
    if rng.random() < 0.4:
        table = view(rng, table, 2)
    if not table.shape:
        table = build.reshape(table, [1])
    outputs = []
    for _ in range(int(rng.integers(1, 3))):
        axis = int(rng.integers(len(table.shape)))
        size = table.shape[axis]
        shape = _sizes(rng, int(rng.integers(0, 3)), 20)
        low, high = (0, size) if rng.random() < 0.6 else (-2, size + 3)
        kind = str(_pick(rng, "int64", "int32", "int8", "uint8"))
        picked = np.asarray(rng.integers(low, high, tuple(shape))).astype(kind)
        if rng.random() < 0.2 and kind == "int64" and picked.size:
            picked.reshape(-1)[0] = _pick(rng, np.iinfo(np.int64).max, np.iinfo(np.int64).min)
        indices = build.constant(picked) if rng.random() < 0.3 else f.input(picked)
        if rng.random() < 0.3:
            indices = view(rng, indices, 2)
        elif rng.random() < 0.3 and kind in ("int32", "int64"):
            wide = build.cast(indices, "float32")
            indices = build.cast(build.elementwise("FLOOR", wide), kind)
        y = build.gather(table, indices, axis)
        if rng.random() < 0.5:
            y = view(rng, y, 2)
        if rng.random() < 0.3 and dtype != "bool":
            y = build.elementwise("ABS", y)
        if rng.random() < 0.3 and y.shape and y.size < 3000:
            y = build.reduce("MAX", y, [int(rng.integers(len(y.shape)))])
        outputs.append(y)
    return Case(outputs, f.feeds)


def concats(rng: Random) -> Case:
    """Concatenations: nested, of one part twice, of inputs and constants, read again and returned."""
    f = Feeder(rng)
    dtype = str(_pick(rng, "float32", "float32", *DTYPES))
    shape = _sizes(rng, int(rng.integers(1, 4)), 7)
    pool = [f.value(shape, dtype, 0.2) for _ in range(2)]
    pool.append(build.elementwise("MAX", pool[0], pool[1]))
    axis = int(rng.integers(len(shape)))
    joined = build.concat([pool[int(rng.integers(len(pool)))] for _ in range(int(rng.integers(2, 4)))], axis)
    outputs = [joined] if rng.random() < 0.5 else []
    second = int(rng.integers(len(shape)))
    more = [joined, build.elementwise("MIN", joined, build.flip(joined, [second]))]
    if rng.random() < 0.5:
        more.append(joined)
    nested = build.concat(more, second)
    outputs.append(nested)
    if rng.random() < 0.5:
        outputs.append(build.elementwise("MAX", nested, build.flip(nested, [0])))
    if rng.random() < 0.3:
        outputs.append(view(rng, nested, 2))
    if rng.random() < 0.4:
        outputs.append(pool[2])
    if rng.random() < 0.3:
        outputs.append(outputs[0])
    if rng.random() < 0.3:
        padded = build.pad(joined, [1] * len(shape), [1] * len(shape), 1)
        outputs.append(build.reduce("MAX", padded, [0]))
    return Case(outputs, f.feeds)


# ---- arithmetic

_ANY = ("MAX", "MIN", "WHERE")
_NUMBERS = ("ADD", "SUB", "MUL", "ABS", "NEG", "MULACC")
_FLOAT = ("TANH", "SIGMOID", "FLOOR", "CEIL", "ROUND", "TRUNC", "SIN", "COS", "ERF")
_INTEGER = ("AND", "OR", "XOR", "NOT", "IDIV", "MOD", "FMOD")
_BOOL = ("AND", "OR", "XOR", "NOT")


def chains(rng: Random) -> Case:
    """Random elementwise graphs over integers and bools, exact, and over tame floats."""
    f = Feeder(rng)
    dtype = str(_pick(rng, *INTEGERS, "bool", "float32", "float64"))
    shape = _sizes(rng, int(rng.integers(0, 4)), 12)
    pool = [f.value(shape, dtype) for _ in range(3)]
    names = [
        *_ANY,
        *(_BOOL if dtype == "bool" else _NUMBERS),
        *(_FLOAT if dtype.startswith("float") else ()),
        *(_INTEGER if "int" in dtype else ()),
    ]
    for _ in range(int(rng.integers(2, 10))):
        op = str(_pick(rng, *names))
        a, b, c = (pool[int(rng.integers(len(pool)))] for _ in range(3))
        if op == "WHERE":
            made = build.elementwise(
                op, build.elementwise(str(_pick(rng, "CMPLT", "CMPLE", "CMPEQ", "CMPNE")), a, b), b, c
            )
        elif op == "MULACC":
            made = build.elementwise(op, a, b, c)
        elif op in ("ABS", "NEG", "NOT", *_FLOAT):
            made = build.elementwise(op, a)
        else:
            made = build.elementwise(op, a, b)
        if dtype.startswith("float"):
            # tame: discontinuous ops would turn one rounding into a difference of 1
            made = build.elementwise("TANH", made) if op in ("MUL", "MULACC") else made
            if op in ("FLOOR", "CEIL", "ROUND", "TRUNC"):
                made = build.elementwise("MUL", made, build.full(0.0, made.shape, dtype))
        pool.append(made)
    outputs = [pool[-1], pool[int(rng.integers(len(pool)))]]
    return Case(outputs, f.feeds, scale=50.0, factor=3.0)


GENERATORS: dict[str, Callable[[Random], Case]] = {
    g.__name__: g
    for g in (
        convolution,
        two_convolutions,
        matmul,
        attention,
        rows,
        reductions,
        pooling,
        views,
        gathers,
        concats,
        chains,
    )
}


def case(name: str, seed: int) -> Case:
    """Case number `seed` of a generator; the same everywhere."""
    return GENERATORS[name](np.random.default_rng([seed, sum(map(ord, name))]))
