"""What the attention operators are made of: heads, visible keys, softmax of masked rows, weighted values.

Attention is two contractions with a softmax between them; nothing here is a kernel. Which keys a query sees
is index arithmetic over positions, so that lengths and offsets may be values that are fed: another value of
the same shape runs the same code.

Tensors are [batch, heads, sequence, head size] unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyinfer.frontend.onnx.ops.elementwise import like
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.index import index
from tinyinfer.ir.node import Node, output_axis

NARROW = frozenset(("float16", "bfloat16"))
"""Types whose statistics are computed in float32 and rounded to them once."""

MASKED = float("-inf")
"""The score of a key that is not seen."""

LOWEST = {
    "bfloat16": -3.3895313892515355e38,
    "float16": -65504.0,
    "float32": float(np.finfo(np.float32).min),
    "float64": float(np.finfo(np.float64).min),
}
"""The lowest finite number of each float type."""

_FAR = 1 << 30
"""Fed positions are clipped to this magnitude, so that 32 bits hold their sums."""


def wide(dtype: str) -> str:
    """The type to compute in for values of `dtype`."""
    return "float32" if dtype in NARROW else dtype


# ---- heads


def split_heads(x: Node, heads: int) -> Node:
    """[batch, sequence, heads · size] as [batch, heads, sequence, size]."""
    batch, sequence, hidden = x.shape
    return build.permute(build.reshape(x, [batch, sequence, heads, hidden // heads]), [0, 2, 1, 3])


def merge_heads(x: Node) -> Node:
    """[batch, heads, sequence, size] as [batch, sequence, heads · size]."""
    batch, heads, sequence, size = x.shape
    return build.reshape(build.permute(x, [0, 2, 1, 3]), [batch, sequence, heads * size])


def repeat_heads(x: Node, heads: int) -> Node:
    """Key or value heads for `heads` query heads: each serves a group of neighbouring query heads."""
    batch, own, sequence, size = x.shape
    if own == heads:
        return x
    grouped = build.reshape(x, [batch, own, 1, sequence, size])
    spread = build.expand(grouped, [batch, own, heads // own, sequence, size])
    return build.reshape(spread, [batch, heads, sequence, size])


def contract(q: Node, k: Node) -> Node:
    """q · kᵀ: a score for every query and key, [batch, heads, queries, keys]."""
    return build.matmul(q, build.permute(repeat_heads(k, q.shape[1]), [0, 1, 3, 2]))


def weigh(probabilities: Node, v: Node) -> Node:
    """Values summed by their probabilities, [batch, heads, queries, value size]."""
    return build.matmul(probabilities, repeat_heads(v, probabilities.shape[1]))


def scaled(x: Node, factor: float) -> Node:
    """`x` times a constant."""
    return x if factor == 1 else elementwise("MUL", x, like(factor, x))


def scores(q: Node, k: Node, factor: float) -> Node:
    """factor · q kᵀ. A single query is scaled itself, for less work; else the product's epilogue is free."""
    if q.shape[2] == 1:
        return contract(scaled(q, factor), k)
    return scaled(contract(q, k), factor)


def capped(x: Node, cap: float) -> Node:
    """cap · tanh(x / cap); `x` where cap is 0."""
    if not cap:
        return x
    return elementwise("MUL", elementwise("TANH", elementwise("DIV", x, like(cap, x))), like(cap, x))


# ---- which keys a query sees


def per_batch(x: Node, shape: Sequence[int]) -> Node:
    """One fed integer per batch element [batch], as int32 over `shape` = [batch, …]."""
    clipped = elementwise("MAX", elementwise("MIN", x, like(_FAR, x)), like(-_FAR, x))
    small = build.cast(clipped, "int32")
    return build.expand(build.reshape(small, [x.shape[0], *[1] * (len(shape) - 1)]), shape)


def distance(queries: int, keys: int, offset: Node | int) -> Node:
    """How far before its query a key stands: query + offset - key, int32.

    [1, 1, queries, keys] for a constant offset, [batch, 1, queries, keys] for one per batch element.
    """
    batch = 1 if isinstance(offset, int) else offset.shape[0]
    shape = (batch, 1, queries, keys)
    between = index(output_axis(2, queries)) - index(output_axis(3, keys))
    if isinstance(offset, int):
        return build.position(between + offset, shape, "int32")
    return elementwise("ADD", build.position(between, shape, "int32"), per_batch(offset, shape))


def at_least(x: Node, bound: int) -> Node:
    """Whether the integers of `x` are at least `bound`."""
    return elementwise("CMPLE", like(bound, x), x)


def at_most(x: Node, bound: int) -> Node:
    """Whether the integers of `x` are at most `bound`."""
    return elementwise("CMPLE", x, like(bound, x))


def before(lengths: Node, keys: int) -> Node:
    """Whether a key stands within the length of its batch element: [batch, 1, 1, keys]."""
    shape = (lengths.shape[0], 1, 1, keys)
    place = build.position(index(output_axis(3, keys)), shape, "int32")
    return elementwise("CMPLT", place, per_batch(lengths, shape))


def both(a: Node | None, b: Node | None) -> Node | None:
    """Both conditions, broadcast; None holds everywhere."""
    if a is None or b is None:
        return b if a is None else a
    return build.apply("AND", a, b)


def hidden(scores: Node, visible: Node | None) -> Node:
    """Scores with -inf where a key is not visible, whatever its score was."""
    if visible is None:
        return scores
    return build.apply("WHERE", visible, scores, build.scalar(MASKED, scores.dtype))


def biased(scores: Node, bias: Node | None) -> Node:
    """Scores plus a broadcast float mask, whose -inf hides a key whatever its score was."""
    if bias is None:
        return scores
    bias = build.expand(bias, scores.shape)
    gone = elementwise("CMPEQ", bias, like(MASKED, bias))
    return elementwise("WHERE", gone, like(MASKED, scores), elementwise("ADD", scores, bias))


def softmax(scores: Node, may_be_empty: bool, sink: Node | None = None) -> Node:
    """exp(x - max) / sum along the last axis, every step rounded to the dtype of `scores`.

    `may_be_empty`: a row of -inf alone gives zeros instead of NaN. `sink`, broadcast to the rows, is one more
    score per row that takes its share and has no value.
    """
    largest = build.reduce("MAX", scores, [-1], keepdims=True)
    if sink is not None:
        sink = build.expand(sink, largest.shape)
        largest = elementwise("MAX", largest, sink)
    elif may_be_empty:
        largest = elementwise("MAX", largest, like(LOWEST[scores.dtype], largest))
    powers = elementwise("EXP", elementwise("SUB", scores, build.expand(largest, scores.shape)))
    total = build.reduce("SUM", powers, [-1], keepdims=True)
    if sink is not None:
        total = elementwise("ADD", total, elementwise("EXP", elementwise("SUB", sink, largest)))
    elif may_be_empty:
        # the largest score of a row that is not empty adds exactly 1
        total = elementwise("MAX", total, like(1, total))
    if scores.dtype in NARROW:  # a rounded reciprocal would lose a bit
        return elementwise("DIV", powers, build.expand(total, scores.shape))
    return elementwise("MUL", powers, build.expand(elementwise("RECIP", total), scores.shape))


def rounded_softmax(scores: Node, precision: str, may_be_empty: bool) -> Node:
    """Softmax computed in `precision`; in the dtype of `scores`."""
    return build.cast(softmax(build.cast(scores, precision), may_be_empty), scores.dtype)


# ---- rotary positions


def rotate(x: Node, cosine: Node, sine: Node, interleaved: bool) -> Node:
    """Rotary embedding of the first 2 · half elements of the last axis of `x` [batch, sequence, heads, size].

    `cosine` and `sine` are [batch or 1, sequence or 1, half]. Pairs are neighbours if `interleaved`, else
    elements half apart. One expression, a · cos ± b · sin, for both halves.
    """
    half = cosine.shape[-1]
    *lead, size = x.shape
    turned = build.shrink(x, [0] * len(x.shape), [*lead, 2 * half])
    pair = [half, 2] if interleaved else [2, half]
    axis = 4 if interleaved else 3
    pairs = build.reshape(turned, [*lead, *pair])

    def spread(table: Node) -> Node:
        shape = [*table.shape[:2], 1, half, 1] if interleaved else [*table.shape[:2], 1, 1, half]
        return build.expand(build.reshape(table, shape), pairs.shape)

    first = build.position(index(output_axis(axis, 2)), pairs.shape, "int32")
    sign = spread(sine)
    sign = elementwise("WHERE", at_most(first, 0), elementwise("NEG", sign), sign)
    result = elementwise(
        "ADD",
        elementwise("MUL", pairs, spread(cosine)),
        elementwise("MUL", build.flip(pairs, [axis]), sign),
    )
    result = build.reshape(result, turned.shape)
    if size == 2 * half:
        return result
    rest = build.shrink(x, [0] * (len(x.shape) - 1) + [2 * half], x.shape)
    return build.concat([result, rest], len(x.shape) - 1)
