"""What the models of ai.onnx.ml share: inputs as rows of floats, transforms of scores, labels of classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.ops.elementwise import like
from tinyinfer.frontend.onnx.ops.reduce import position_of_extreme
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.node import Node

DOMAIN = "ai.onnx.ml"

TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
"""In the order of the numbers that TreeEnsemble uses."""

NUMBERS = ("float32", "float64", "int64", "int32")


def require_numbers(ctx: NodeContext, x: Node, allowed: Sequence[str] = NUMBERS) -> None:
    """Fail unless `x` is of a type that the operators of this domain take."""
    ctx.require(x.dtype in allowed, f"takes {', '.join(allowed)}, not {x.dtype}")


def rows(ctx: NodeContext, x: Node, dtype: str | None = None) -> Node:
    """`x` as [rows, features], one row if it has one dimension; as `dtype` if given."""
    ctx.require(len(x.shape) in (1, 2), f"takes one row or a matrix of rows, not shape {list(x.shape)}")
    matrix = build.reshape(x, [1, *x.shape]) if len(x.shape) == 1 else x
    return matrix if dtype is None else build.cast(matrix, dtype)


def post_transform(ctx: NodeContext) -> str:
    """The attribute `post_transform` where it is a string."""
    return str(ctx.string("post_transform", "NONE", choices=TRANSFORMS))


# ---- scores


def transform_scores(scores: Node, transform: str) -> Node:
    """`transform` of scores [rows, classes]."""
    return {
        "NONE": lambda x: x,
        "SOFTMAX": _softmax,
        "LOGISTIC": lambda x: elementwise("SIGMOID", x),
        "SOFTMAX_ZERO": _softmax_of_nonzero,
        "PROBIT": probit,
    }[transform](scores)


def _softmax(x: Node) -> Node:
    largest = build.reduce("MAX", x, [1], keepdims=True)
    shifted = elementwise("EXP", elementwise("SUB", x, build.expand(largest, x.shape)))
    total = build.reduce("SUM", shifted, [1], keepdims=True)
    return elementwise("DIV", shifted, build.expand(total, x.shape))


def _softmax_of_nonzero(x: Node) -> Node:
    """Softmax in which scores of (almost) zero take no part: they are scaled, and stay almost zero."""
    largest = build.expand(build.reduce("MAX", x, [1], keepdims=True), x.shape)
    some = elementwise("CMPLT", like(1e-7, x), elementwise("ABS", x))
    power = elementwise("EXP", elementwise("SUB", x, largest))
    total = build.reduce("SUM", elementwise("WHERE", some, power, like(0, x)), [1], keepdims=True)
    scaled = elementwise("MUL", x, elementwise("EXP", elementwise("NEG", largest)))
    return elementwise("DIV", elementwise("WHERE", some, power, scaled), build.expand(total, x.shape))


def probit(x: Node) -> Node:
    """The inverse of the normal distribution by Winitzki's approximation of erf⁻¹ (a = 0.147)."""
    a = float(np.float32(0.147))
    y = elementwise("SUB", elementwise("MUL", x, like(2, x)), like(1, x))
    one = like(1, y)
    log = elementwise("LOG", elementwise("MUL", elementwise("SUB", one, y), elementwise("ADD", one, y)))
    v = elementwise("ADD", like(2 / (math.pi * a), y), elementwise("MUL", like(0.5, y), log))
    w = elementwise("MUL", like(1 / a, y), log)
    inner = elementwise("SUB", elementwise("SQRT", elementwise("SUB", elementwise("MUL", v, v), w)), v)
    magnitude = elementwise("MUL", elementwise("SQRT", inner), like(math.sqrt(2), y))
    negative = elementwise("CMPLT", y, like(0, y))
    return elementwise("WHERE", negative, elementwise("NEG", magnitude), magnitude)


def columns(*parts: Node) -> Node:
    """Vectors [rows] side by side."""
    return build.concat([build.reshape(p, [*p.shape, 1]) for p in parts], 1)


def column(x: Node, number: int) -> Node:
    """One column of a matrix."""
    return build.reshape(build.shrink(x, [0, number], [x.shape[0], number + 1]), x.shape[:1])


def both_classes(score: Node, transform: str, probability: bool) -> Node:
    """The scores [rows, 2] of two classes from the one of the second, as onnxruntime has them.

    The opposite of a score is 1 minus it if `probability`, else its negative. SOFTMAX is not applied.
    """
    if transform == "PROBIT":
        first = probit(score)
        return columns(first, elementwise("NEG", first))  # onnxruntime leaves the second undefined
    opposite = elementwise("NEG", score)
    if transform == "LOGISTIC":
        return columns(elementwise("SIGMOID", opposite), elementwise("SIGMOID", score))
    return columns(elementwise("SUB", like(1, score), score) if probability else opposite, score)


# ---- labels


def class_labels(ctx: NodeContext, integers: str) -> list[int] | list[str]:
    """The labels of the classes: strings, or the integers of the attribute `integers`."""
    strings = ctx.strings("classlabels_strings", []) or []
    numbers = ctx.integers(integers, []) or []
    ctx.require(not (strings and numbers), f"has both 'classlabels_strings' and '{integers}'")
    return strings or numbers


def best_class(scores: Node) -> Node:
    """The position of the largest score of each row, the first of equal ones."""
    return build.reshape(position_of_extreme(scores, 1, "MAX", last=False), scores.shape[:1])


def labelled(ctx: NodeContext, classes: Node, labels: Sequence[int] | Sequence[str], scores: Node) -> Any:
    """The results of a classifier: the label of each class number in `classes`, and the scores.

    Integer labels are an int64 tensor; strings are looked up by the host.
    """
    if labels and isinstance(labels[0], str):
        names = np.asarray(labels, object)
        return ctx.host_call(lambda numbers, values: (names[numbers], values), [classes, scores], outputs=2)
    return numbered_labels(classes, labels), scores


def numbered_labels(classes: Node, labels: Sequence[Any]) -> Node:
    """The int64 label of each class number."""
    numbers = np.asarray(labels, np.int64)
    if (numbers == np.arange(len(numbers))).all():
        return classes
    if len(numbers) == 2:
        second = elementwise("CMPEQ", classes, like(1, classes))
        return elementwise("WHERE", second, like(int(numbers[1]), classes), like(int(numbers[0]), classes))
    return build.gather(build.constant(numbers), classes, 0)
