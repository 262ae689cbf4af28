"""Preparation of features: picking, joining, scaling, normalising and filling in."""

from __future__ import annotations

import math

import numpy as np

from tinyinfer.frontend.onnx.blocks import ml_scores
from tinyinfer.frontend.onnx.blocks.ml_scores import DOMAIN, require_numbers
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, EXACT, ROUNDED, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import is_float, like
from tinyinfer.frontend.onnx.ops.index import wrapped
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.node import Node


@onnx_op("ArrayFeatureExtractor", domain=DOMAIN, tolerance=EXACT)
def array_feature_extractor(ctx: NodeContext, x: Node, places: Node) -> Node:
    """The elements of the last axis of x at the given positions; a vector counts as one row."""
    ctx.require(len(x.shape) >= 1, "does not take a scalar")
    ctx.require(places.size > 0, "picks nothing")
    axis = len(x.shape) - 1
    flat = wrapped(ctx, build.reshape(places, [places.size]), x.shape[axis], "Y")
    picked = build.gather(x, flat, axis)
    return picked if axis else build.reshape(picked, [1, *picked.shape])


@onnx_op("Binarizer", domain=DOMAIN, tolerance=EXACT)
def binarizer(ctx: NodeContext, x: Node) -> Node:
    """1 where x is above a threshold, else 0."""
    require_numbers(ctx, x)
    wide = x if is_float(x) else build.cast(x, "float64")
    above = elementwise("CMPLT", like(ctx.number("threshold", 0.0), wide), wide)
    return build.cast(above, x.dtype)


@onnx_op("FeatureVectorizer", domain=DOMAIN, tolerance=EXACT)
def feature_vectorizer(ctx: NodeContext, first: Node, *others: Node) -> Node:
    """The inputs side by side as rows of float32; each cut or filled with zeros to its given width."""
    ctx.all_given([first, *others])
    inputs = [first, *others]
    widths = ctx.integers("inputdimensions", None, length=len(inputs), minimum=0)
    parts = []
    for number, x in enumerate(inputs):
        ctx.require(x is not None and len(x.shape) >= 1, f"input {number} is missing or a scalar")
        require_numbers(ctx, x)
        count = 1 if len(x.shape) == 1 else x.shape[0]
        matrix = build.reshape(x, [count, x.size // count if count else math.prod(x.shape[1:])])
        width = matrix.shape[1] if widths is None else widths[number]
        fitted = build.pad(build.cast(matrix, "float32"), [0, 0], [0, width - matrix.shape[1]])
        parts.append(fitted)
    ctx.require(len({p.shape[0] for p in parts}) == 1, f"its inputs have {[p.shape[0] for p in parts]} rows")
    return build.concat(parts, 1)


def _per_feature(ctx: NodeContext, values: np.ndarray, x: Node, name: str) -> Node:
    """One value for all, or one for each feature (the second axis, or the only one), in the shape of `x`."""
    axis = min(1, len(x.shape) - 1)
    ctx.require(
        len(values) in (1, x.shape[axis]),
        f"'{name}' must hold 1 or {x.shape[axis]} numbers, not {len(values)}",
    )
    if len(values) == 1:
        return like(values[0], x)
    shape = [d if i == axis else 1 for i, d in enumerate(x.shape)]
    return build.expand(build.reshape(build.constant(values.astype(x.dtype)), shape), x.shape)


@onnx_op("Imputer", domain=DOMAIN, tolerance=EXACT)
def imputer(ctx: NodeContext, x: Node) -> Node:
    """x with one value, often NaN, replaced by another, that may differ by feature."""
    require_numbers(ctx, x)
    ctx.require(len(x.shape) >= 1, "does not take a scalar")
    if is_float(x):
        name, values = "imputed_value_floats", ctx.numbers("imputed_value_floats", None)
        replaced = ctx.number("replaced_value_float", 0.0)
    else:
        name, values = "imputed_value_int64s", ctx.integers("imputed_value_int64s", None)
        replaced = ctx.integer("replaced_value_int64", 0)
    ctx.require(bool(values), f"the attribute '{name}' is missing, which {x.dtype} needs")
    dtype = np.dtype(x.dtype)
    if dtype.kind == "i":
        limits = np.iinfo(dtype)
        ctx.require(
            all(limits.min <= v <= limits.max for v in (*values, replaced)), f"a value does not fit {dtype}"
        )
    filled = np.asarray(values, dtype)
    # as onnxruntime: a list of another length than the features stands for its first value
    filled = filled if len(filled) == x.shape[min(1, len(x.shape) - 1)] else filled[:1]
    missing = elementwise("CMPEQ", x, like(replaced, x))
    if is_float(x) and math.isnan(replaced):
        missing = elementwise("CMPNE", x, x)
    return elementwise("WHERE", missing, _per_feature(ctx, filled, x, name), x)


@onnx_op("Scaler", domain=DOMAIN, tolerance=ROUNDED)
def scaler(ctx: NodeContext, x: Node) -> Node:
    """(x - offset) · scale in float32, by feature or for all."""
    require_numbers(ctx, x)
    ctx.require(len(x.shape) >= 1, "does not take a scalar")
    x = x if x.dtype == "float64" else build.cast(x, "float32")
    scale, offset = ctx.numbers("scale", None), ctx.numbers("offset", None)
    result = x
    if offset:
        result = elementwise("SUB", result, _per_feature(ctx, np.asarray(offset), x, "offset"))
    if scale:
        result = elementwise("MUL", result, _per_feature(ctx, np.asarray(scale), x, "scale"))
    return build.cast(result, "float32")


@onnx_op("Normalizer", domain=DOMAIN, tolerance=ACCUMULATED)
def normalizer(ctx: NodeContext, x: Node) -> Node:
    """Each row divided by its largest element, its sum of magnitudes or its length, in float32."""
    require_numbers(ctx, x)
    norm = ctx.string("norm", "MAX", choices=("MAX", "L1", "L2"))
    matrix = ml_scores.rows(ctx, x)
    plain = build.cast(matrix, "float32")
    if norm == "MAX":
        by = build.reduce("MAX", plain, [1], keepdims=True)
    elif norm == "L1":
        by = build.reduce("SUM", build.cast(elementwise("ABS", matrix), "float32"), [1], keepdims=True)
    else:
        square = build.cast(elementwise("MUL", matrix, matrix), "float32")
        by = elementwise("SQRT", build.reduce("SUM", square, [1], keepdims=True))
    by = elementwise("WHERE", elementwise("CMPEQ", by, like(0, by)), like(1, by), by)
    return build.reshape(elementwise("DIV", plain, build.expand(by, plain.shape)), x.shape)
