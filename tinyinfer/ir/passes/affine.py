"""Scales and shifts by constants: folded into the weights of the contraction that they follow, or joined.

Batch normalisation after a convolution, Gemm's alpha and chains of biases all disappear by these rules, which
know no operator: a contraction is a SUM of a MUL, a constant is what no input reaches. Constants are computed
on the axes that they vary along (`constants.combine`), never at the size of a feature map.

Numbers: each rule is an identity of real numbers that rounds differently, by about one unit in the last place
of the largest term (of each weight, for a scale that moves into weights). Rules that could lose more say when
they do not apply. Where a rounding to integers depends on the value, only contractions are touched, whose
sums of floats have no defined last bit anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from tinyinfer.ir import build
from tinyinfer.ir.dtypes import is_float
from tinyinfer.ir.index import Axis, Index, index
from tinyinfer.ir.node import Graph, Node
from tinyinfer.ir.oracle import is_contraction
from tinyinfer.ir.passes.constants import (
    SMALL,
    combine,
    compact_value,
    is_constant,
    literal_size,
    uniform_value,
    used_axes,
)
from tinyinfer.ir.passes.rewrite import Users, inherit, joined, rewrite

FLOATS = {"float16": (10, 2.0**-14), "bfloat16": (7, 2.0**-126), "float32": (23, 2.0**-126),
          "float64": (52, 2.0**-1022)}
"""Digits after the leading one, and the smallest normal number, of each float dtype that rules apply to."""

Movement = Callable[[Node], Node]

MAX_ROUNDS = 8

SHARED = 1 << 16
"""Elements above which weights that other views read as well are not duplicated with a scale."""


def fold_affine(graph: Graph) -> Graph:
    """The graph with constant scales and shifts joined and folded into contractions."""
    for _ in range(MAX_ROUNDS):
        before = graph
        graph = rewrite(graph, JOIN_RULES)
        if graph is before:
            break
    return rewrite(graph, WEIGHT_RULES)


# ---- scales of contractions


def scale_into_weights(x: Node, users: Users) -> Node | None:
    """SUM(a · w) · s = SUM(a · (w·s)), also SUM(a · w) / s, also through one bijective view after the SUM."""
    value, scale = x.inputs
    if x.dtype not in FLOATS or not is_constant(scale):
        return None
    parts = _contraction(value, users)
    if parts is None:
        return None
    total, inverse = parts
    product = total.inputs[0]
    for other, weights in (product.inputs, product.inputs[::-1]):
        if not is_constant(weights) or is_constant(other):
            continue
        at_total = inverse(scale)
        kept = [a for i, a in enumerate(product.axes) if i not in total.attrs]
        at_product = build.view(at_total, [index(a) for a in kept], product.shape)
        if not _foldable(weights, at_product, users) or (users.decides_step(x) and _is_scale(weights)):
            return None
        scaled = combine(x.op, weights, at_product)
        if not _weights_survive(weights, scaled):
            return None
        product = build.elementwise("MUL", other, scaled, origin=joined(product))
        result = build.reduce("SUM", product, total.attrs, origin=joined(total))
        if value is not total:
            result = build.view(result, value.attrs.indices, value.shape)
            inherit(result, value)
        return result
    return None


def _contraction(value: Node, users: Users) -> tuple[Node, Movement] | None:
    """(SUM node, function that brings a node of `value`'s shape to the SUM's) of a contraction, else None."""
    if not users.single(value):
        return None
    if is_contraction(value) and users.single(value.inputs[0]):
        return value, lambda scale: scale
    if value.op != "VIEW" or len(value.inputs) != 1 or value.attrs.guards:
        return None
    total = value.inputs[0]
    if not is_contraction(total) or not users.single(total) or not users.single(total.inputs[0]):
        return None
    inverse = _inverse(value)
    return None if inverse is None else (total, inverse)


def _inverse(value: Node) -> Movement | None:
    """The movement that undoes a view that is a reshape or permutes axes; None for other views."""
    source = value.inputs[0]
    if value.size != source.size:
        return None
    if build.reshape(source, value.shape) is value:
        return lambda x: build.reshape(x, source.shape)
    places = value.attrs.indices
    if all(_single_axis(i) or d == 1 for i, d in zip(places, source.shape)):
        axes = source.axes
        found: dict[Axis, Index] = {i.terms[0][0]: index(axes[d]) for d, i in enumerate(places) if i.terms}
        if len(found) == sum(d > 1 for d in source.shape):
            back = [found.get(a, index(0)) for a in value.axes]
            return lambda x: build.view(x, back, source.shape)
    return None


def _single_axis(place: Index) -> bool:
    return place.const == 0 and len(place.terms) == 1 and place.terms[0][1] == 1 and isinstance(
        place.terms[0][0], Axis)


def _foldable(weights: Node, scale: Node, users: Users) -> bool:
    """Whether scaled weights are no larger than the weights."""
    axes = used_axes(weights)
    size = literal_size(weights)
    source = weights if weights.op == "CONST" else weights.inputs[0]
    return (used_axes(scale) <= axes and prod(weights.shape[i] for i in axes) <= max(SMALL, size)
            and (size <= SHARED or users.single(source)))


def _weights_survive(weights: Node, scaled: Node) -> bool:
    """Whether scaling overflows nowhere, and weights that it takes to zero do not count beside others."""
    digits, tiny = FLOATS[scaled.dtype]
    value = compact_value(scaled)
    largest = max(value.max(initial=0), -value.min(initial=0))
    return bool(np.isfinite(largest)) and (largest >= tiny * 2.0**digits or not compact_value(weights).any())


def _representable(result: Node, operands: tuple[Node, Node]) -> bool:
    """Whether every element is finite, and none is zero or short of digits but for a zero operand."""
    value = np.abs(compact_value(result))
    sound = np.isfinite(value) & (value >= FLOATS[result.dtype][1])
    return bool(sound.all()) or bool(np.all(
        np.isfinite(value) & (sound | (compact_value(operands[0]) == 0) | (compact_value(operands[1]) == 0))))


def distribute_scale(x: Node, users: Users) -> Node | None:
    """(y + b) · s = y·s + b·s, and the same for a quotient, if y is a contraction or scaled by a constant.

    Only then: such a y has been rounded, so the error of y·s + b·s is no larger than what y brings along.
    """
    value, scale = x.inputs
    if not (x.dtype in FLOATS and is_constant(scale) and value.op == "ADD" and users.single(value)):
        return None
    y, shift = value.inputs
    if not is_constant(shift):
        return None
    scaled = y.op in ("MUL", "DIV") and is_constant(y.inputs[1]) and users.single(y)
    free = scaled and (not users.decides_step(x) or _has_weights(y.inputs[0], users))
    if not free and not _has_weights(y, users):
        return None
    return build.elementwise("ADD", build.elementwise(x.op, y, scale), combine(x.op, shift, scale),
                             origin=joined(value))


def _unscaled(y: Node) -> Node:
    """`y` below its scale by a constant, if it has one."""
    return y.inputs[0] if y.op in ("MUL", "DIV") and is_constant(y.inputs[1]) else y


def _has_weights(y: Node, users: Users) -> bool:
    parts = _contraction(y, users)
    if parts is None:
        return False
    weights = [x for x in parts[0].inputs[0].inputs if is_constant(x)]
    return bool(weights) and not (users.decides_step(y) and any(map(_is_scale, weights)))


def _is_scale(weights: Node) -> bool:
    """Whether a contraction by these weights is a plain sum, scaled."""
    return uniform_value(weights) is not None


# ---- chains


def join_scales(x: Node, users: Users) -> Node | None:
    """y·s·t = y·(s·t), y/s·t = y·(t/s), y·s/t = y·(s/t), y/s/t = y/(s·t)."""
    value, outer = x.inputs
    if value.op not in ("MUL", "DIV") or not is_constant(outer) or not users.single(value):
        return None
    y, inner = value.inputs
    if not is_constant(inner) or (users.decides_step(x) and not _has_weights(y, users)):
        return None
    if x.dtype not in FLOATS:
        if is_float(x.dtype) or (value.op, x.op) != ("MUL", "MUL"):
            return None
        return build.elementwise("MUL", y, combine("MUL", inner, outer), origin=joined(value))
    if value.op == x.op:
        op, factors = "MUL", (inner, outer)
    elif value.op == "MUL":
        op, factors = "DIV", (inner, outer)
    else:
        op, factors = "DIV", (outer, inner)
    factor = combine(op, *factors)
    if not _representable(factor, factors):
        return None
    result_op = "DIV" if (value.op, x.op) == ("DIV", "DIV") else "MUL"
    return build.elementwise(result_op, y, factor, origin=joined(value))


def join_shifts(x: Node, users: Users) -> Node | None:
    """y + b + c = y + (b + c), unless b is there to round y (the trick of adding 1.5 · 2**23)."""
    value, outer = x.inputs
    if value.op != "ADD" or x.dtype == "bool" or not is_constant(outer) or not users.single(value):
        return None
    if is_float(x.dtype) and x.dtype not in FLOATS:
        return None
    y, inner = value.inputs
    if not is_constant(inner) or (users.decides_step(x) and not _has_weights(_unscaled(y), users)):
        return None
    shift = combine("ADD", inner, outer)
    if x.dtype in FLOATS:
        large, left = np.abs(compact_value(inner)), np.abs(compact_value(shift))
        digits, _ = FLOATS[x.dtype]
        if not np.all((large < 2.0 ** (digits - 3)) | (left * 2 >= large)):
            return None
    return build.elementwise("ADD", y, shift, origin=joined(value))


def subtract_constant(x: Node, users: Users) -> Node | None:
    """y - c = y + (-c), which rounds the same."""
    y, c = x.inputs
    if x.dtype == "bool" or not is_constant(c) or is_constant(y):
        return None
    return build.elementwise("ADD", y, _negated(c))


def _negated(c: Node) -> Node:
    return combine("NEG", c)


def divide_by_power_of_two(x: Node, users: Users) -> Node | None:
    """y / c = y · (1/c) where 1/c is exact."""
    y, c = x.inputs
    if x.dtype not in FLOATS or not is_constant(c) or literal_size(c) > SMALL:
        return None
    mantissa, exponent = np.frexp(compact_value(c).astype(np.float64))
    limit = -np.log2(FLOATS[x.dtype][1]) - 1
    if not np.all((np.abs(mantissa) == 0.5) & (np.abs(exponent) < limit)):
        return None
    return build.elementwise("MUL", y, combine("RECIP", c))


def negate_scale(x: Node, users: Users) -> Node | None:
    """-(y · c) = y · (-c)."""
    (value,) = x.inputs
    if value.op not in ("MUL", "DIV") or not is_constant(value.inputs[1]) or not users.single(value):
        return None
    return build.elementwise(value.op, value.inputs[0], _negated(value.inputs[1]), origin=joined(value))


JOIN_RULES = {
    "MUL": (distribute_scale, join_scales),
    "DIV": (divide_by_power_of_two, distribute_scale, join_scales),
    "ADD": (join_shifts,),
    "SUB": (subtract_constant,),
    "NEG": (negate_scale,),
}

# Weights are the large constants: they are scaled once, after all scales have been joined.
WEIGHT_RULES = {"MUL": (scale_into_weights,), "DIV": (scale_into_weights,)}
