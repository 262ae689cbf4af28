"""Random graphs whose values have channels that fill texels: what images are for, and what not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from random_graphs import Case, Feeder

from tinyinfer.ir import build
from tinyinfer.ir.node import Node


def _weights(f: Feeder, *shape: int) -> Node:
    scale = 1 / np.sqrt(max(1, int(np.prod(shape[1:]))))
    return build.constant((f.array(shape) * scale).astype(np.float32))


def _conv(f: Feeder, x: Node, out: int, size: int = 1, stride: int = 1, dilation: int = 1, group: int = 1):
    around = [dilation * (size // 2)] * 2
    w = _weights(f, out, x.shape[1] // group, size, size)
    return build.convolution(x, w, [stride] * 2, [dilation] * 2, around, around, group)


def _act(f: Feeder, x: Node) -> Node:
    op = str(f.rng.choice(["MAX", "TANH", "SIGMOID"]))
    return (
        build.elementwise("MAX", x, build.full(0.0, x.shape, "float32"))
        if op == "MAX"
        else build.elementwise(op, x)
    )


def _start(f: Feeder, channels: int) -> Node:
    """A first layer: from three channels, which do not fill a texel."""
    h, w = (int(n) for n in f.rng.integers(5, 14, 2))
    return _act(f, _conv(f, f.input(f.array((1, 3, h, w))), channels, 3))


def _channels(f: Feeder) -> int:
    return int(f.rng.choice([4, 8, 12, 20, 24]))


def convolutions(f: Feeder) -> list[Node]:
    """Pointwise, wide, strided and dilated convolutions with activations and a sum of two branches."""
    x = _start(f, _channels(f))
    for _ in range(int(f.rng.integers(1, 4))):
        size, stride, dilation = (int(f.rng.choice(n)) for n in ((1, 3, 5), (1, 2), (1, 2)))
        x = _act(f, _conv(f, x, _channels(f), size, stride, dilation))
    return [build.elementwise("ADD", x, _conv(f, x, x.shape[1]))]


def first_layers(f: Feeder) -> list[Node]:
    """Two or three channels, first or last in memory, in windows that reach outside or do not."""
    channels, (h, w) = int(f.rng.choice([2, 3])), (int(n) for n in f.rng.integers(6, 12, 2))
    first = f.input(f.array((1, channels, h, w)))
    last = build.permute(f.input(f.array((1, h, w, channels))), [0, 3, 1, 2])
    found = [_conv(f, _conv(f, first, channels, 3), 8, 3), _conv(f, last, 8, 3, 2)]
    weights = _weights(f, 8, channels, 2, 2)
    bent = build.elementwise("TANH", first)
    return [*found, build.convolution(bent, weights, [2, 2], [1, 1], [0, 0], [0, 0])]


def depthwise(f: Feeder) -> list[Node]:
    x = _start(f, _channels(f))
    y = _act(f, _conv(f, x, x.shape[1], int(f.rng.choice([3, 5, 7])), 1, 1, x.shape[1]))
    return [_conv(f, y, _channels(f)), build.reduce("SUM", y, [2, 3])]


def groups(f: Feeder) -> list[Node]:
    """Groups whose channels are whole texels, and groups whose are not."""
    x = _start(f, 24)
    return [_conv(f, _act(f, _conv(f, x, 24, 3, 1, 1, n)), 8) for n in (2, 3, 4)]


def joined(f: Feeder) -> list[Node]:
    """Concatenations along channels, some of parts that end inside a texel, and along rows."""
    x = _start(f, _channels(f))
    parts = [_conv(f, x, int(n), 1) for n in f.rng.choice([4, 6, 8, 12], 3)]
    rows = build.concat([x, build.flip(x, [2])], 2)
    halves = build.concat([_conv(f, x, 6), _act(f, _conv(f, x, 6))], 1)
    return [_conv(f, _act(f, build.concat(parts, 1)), 8, 3), _conv(f, rows, 4, 3), _conv(f, halves, 8, 3)]


def pooled(f: Feeder) -> list[Node]:
    """Windows over a halo of minus infinity, means, and nearest neighbours."""
    x = _conv(f, _start(f, _channels(f)), _channels(f))
    low = float("-inf")
    windows = build.window(
        build.pad(x, [0, 0, 1, 1], [0, 0, 1, 1], low), [3, 3], [2, 2], [1, 1], [0, 0], [0, 0]
    )
    pooled = build.reduce("MAX", windows, [4, 5])
    n, c, h, w = x.shape
    doubled = build.reshape(
        build.expand(build.reshape(x, (n, c, h, 1, w, 1)), (n, c, h, 2, w, 2)), (n, c, 2 * h, 2 * w)
    )
    return [_conv(f, pooled, 8), _conv(f, doubled, 4, 3), build.reduce("SUM", x, [2, 3])]


def rows_of_features(f: Feeder) -> list[Node]:
    """Matrix products of stored operands, a softmax and a normalisation along channels."""
    rows, width = int(f.rng.integers(8, 30)), int(f.rng.choice([8, 16, 40]))
    x = build.matmul(f.input(f.array((rows, 12))), _weights(f, 12, width))
    q, k, v = (build.matmul(x, _weights(f, width, width)) for _ in range(3))
    scores = build.matmul(q, build.permute(k, [1, 0]))
    scores = build.elementwise("MUL", scores, build.full(0.2, scores.shape, "float32"))
    top = build.reduce("MAX", scores, [1], keepdims=True)
    power = build.elementwise("EXP", build.apply("SUB", scores, top))
    weights = build.apply(
        "MUL", power, build.elementwise("RECIP", build.reduce("SUM", power, [1], keepdims=True))
    )
    mixed = build.apply("ADD", x, build.matmul(weights, v))
    mean = build.apply(
        "MUL", build.reduce("SUM", mixed, [1], keepdims=True), build.scalar(1 / width, "float32")
    )
    centred = build.apply("SUB", mixed, mean)
    return [build.matmul(centred, _weights(f, width, 12)), centred]


def moved(f: Feeder) -> list[Node]:
    """Slices, transpositions and indices that data decide, of values in images."""
    x = _conv(f, _start(f, 16), 16)
    n, c, h, w = x.shape
    part = build.shrink(x, [0, 2, 1, 0], [n, c - 2, h, w - 1])
    turned = build.permute(x, [0, 1, 3, 2])
    places = f.input(f.rng.integers(0, h, 5))
    picked = build.gather(x, places, 2)
    return [_conv(f, part, 4), _conv(f, turned, 8, 3), _conv(f, picked, 4), build.reshape(x, (c, h * w))]


GRAPHS: dict[str, Callable[[Feeder], list[Node]]] = {
    f.__name__: f
    for f in (convolutions, first_layers, depthwise, groups, joined, pooled, rows_of_features, moved)
}


def image_case(name: str, seed: int) -> Case:
    f = Feeder(np.random.default_rng([seed, *name.encode()]))
    return Case(GRAPHS[name](f), f.feeds)
