"""Operators that draw random numbers.

A node with the attribute `seed` starts from it, so that two sessions draw the same; one without starts from
`tinyinfer.set_seed` and its own name, else from fresh entropy. Every run draws anew, as in onnxruntime.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import EXACT, TRANSCENDENTAL, onnx_op
from tinyinfer.frontend.onnx.ops_elementwise import like
from tinyinfer.frontend.onnx.ops_reduce import drop_axes, position_of_extreme
from tinyinfer.frontend.onnx.random_bits import exponential, normal, uniform
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.node import Node
from tinyinfer.runtime.defaults import default_seed


def random_key(ctx: NodeContext) -> Node:
    """Two uint32 that no other run of the node has, unless its seed says so."""
    entropy: list[int]
    if ctx.has("seed"):
        entropy = [int(np.float32(ctx.number("seed")).view(np.uint32))]
    else:
        common = default_seed()
        chosen = np.random.SeedSequence().entropy if common is None else common & ((1 << 64) - 1)
        assert isinstance(chosen, int)
        entropy = [chosen, zlib.crc32(ctx.name.encode())]
    return build.constant(np.random.SeedSequence(entropy).generate_state(2).astype(np.uint32))


def _float_type(ctx: NodeContext, default: str) -> str:
    dtype = ctx.dtype("dtype", default) or default
    ctx.require(dtype.startswith(("float", "bfloat")), f"the attribute 'dtype' must be a float, not {dtype}")
    return dtype


def _shape(ctx: NodeContext) -> list[int]:
    return ctx.integers("shape", REQUIRED, minimum=0)


def _normal(ctx: NodeContext, shape: Sequence[int], dtype: str) -> Node:
    return normal(random_key(ctx), shape, dtype, ctx.number("mean", 0.0), ctx.number("scale", 1.0))


def _uniform(ctx: NodeContext, shape: Sequence[int], dtype: str) -> Node:
    low, high = ctx.number("low", 0.0), ctx.number("high", 1.0)
    ctx.require(low <= high, f"'low' {low} is above 'high' {high}")
    return uniform(random_key(ctx), shape, dtype, low, high)


@onnx_op("RandomNormal", tolerance=TRANSCENDENTAL)
def random_normal(ctx: NodeContext) -> Node:
    """Normal numbers of `mean` and deviation `scale`, in a shape."""
    return _normal(ctx, _shape(ctx), _float_type(ctx, "float32"))


@onnx_op("RandomNormalLike", tolerance=TRANSCENDENTAL)
def random_normal_like(ctx: NodeContext, x: Node) -> Node:
    """Normal numbers of `mean` and deviation `scale`, in the shape of the input."""
    return _normal(ctx, x.shape, _float_type(ctx, x.dtype))


@onnx_op("RandomUniform", tolerance=EXACT)
def random_uniform(ctx: NodeContext) -> Node:
    """Uniform numbers from `low` up to but without `high`, in a shape."""
    return _uniform(ctx, _shape(ctx), _float_type(ctx, "float32"))


@onnx_op("RandomUniformLike", tolerance=EXACT)
def random_uniform_like(ctx: NodeContext, x: Node) -> Node:
    """Uniform numbers from `low` up to but without `high`, in the shape of the input."""
    return _uniform(ctx, x.shape, _float_type(ctx, x.dtype))


@onnx_op("Bernoulli", since=15, tolerance=EXACT)
def bernoulli(ctx: NodeContext, x: Node) -> Node:
    """1 with the probability that the input holds, else 0."""
    ctx.floating(x)
    wide = x if x.dtype == "float64" else build.cast(x, "float32")
    drawn = uniform(random_key(ctx), x.shape, wide.dtype)
    return build.cast(elementwise("CMPLT", drawn, wide), ctx.dtype("dtype", x.dtype) or x.dtype)


@onnx_op("Multinomial", since=7, tolerance=EXACT)
def multinomial(ctx: NodeContext, x: Node) -> Node:
    """Classes drawn by unnormalised log probabilities [batch, classes], each `sample_size` times.

    Every class waits for an exponential time of its probability as rate; the first to arrive is drawn.
    """
    ctx.floating(x)
    ctx.require(len(x.shape) == 2 and x.shape[1] > 0, f"the input must be [N, classes], not {list(x.shape)}")
    count = ctx.integer("sample_size", 1, minimum=1)
    dtype = ctx.dtype("dtype", "int32") or "int32"
    ctx.require(dtype in ("int32", "int64"), f"the attribute 'dtype' must be int32 or int64, not {dtype}")
    shape = (x.shape[0], count, x.shape[1])
    scores = build.cast(x, "float64")
    largest = build.reduce("MAX", scores, [1], keepdims=True)
    rate = elementwise("EXP", elementwise("SUB", scores, build.expand(largest, scores.shape)))
    rate = build.expand(build.reshape(rate, [shape[0], 1, shape[2]]), shape)
    # the largest rate over time is the smallest time over rate, and is 0 for an impossible class
    race = elementwise("DIV", rate, exponential(random_key(ctx), shape))
    return build.cast(drop_axes(position_of_extreme(race, 2, "MAX", last=False), [2]), dtype)


# ---- dropout


@onnx_op("Dropout", until=11, tolerance=EXACT)
def dropout_by_attributes(ctx: NodeContext, x: Node) -> tuple[Node, Node]:
    """The input: inference drops nothing. The mask is all ones.

    `is_test` of opsets 1 to 6 is not read: its default, 0, stands in models that were exported for inference.
    """
    return x, build.full(1, x.shape, "bool" if ctx.opset >= 10 else x.dtype)


@onnx_op("Dropout", since=12, tolerance=EXACT)
def dropout(
    ctx: NodeContext, x: Node, ratio: Node | None = None, training: Node | None = None
) -> tuple[Node, Node]:
    """The input, or in training with a share `ratio` of its elements 0 and the others scaled up to match."""
    ctx.floating(x)
    kept_all = build.full(True, x.shape, "bool")
    if training is None:
        return x, kept_all
    ctx.require(training.size == 1 and training.dtype == "bool", "'training_mode' must be one bool")
    switch, share = ctx.known(training), None if ratio is None else ctx.known(ratio)
    if ratio is None:
        ratio, share = build.scalar(0.5, "float32"), np.array(0.5)
    ctx.require(ratio.size == 1, "'ratio' must be one number")
    ctx.floating(ratio)
    ctx.require(share is None or bool((0 <= share) & (share < 1)), f"'ratio' must be in [0, 1), not {share}")
    if (switch is not None and not switch.any()) or (share is not None and not share.any()):
        return x, kept_all
    drop = build.expand(build.cast(build.reshape(ratio, ()), "float64"), x.shape)
    drop = elementwise("WHERE", build.expand(build.reshape(training, ()), x.shape), drop, like(0, drop))
    kept = elementwise("CMPLE", drop, _dropout_numbers(ctx, x.shape))
    scale = build.cast(elementwise("RECIP", elementwise("SUB", like(1, drop), drop)), x.dtype)
    return elementwise("WHERE", kept, elementwise("MUL", x, scale), like(0, x)), kept


def _dropout_numbers(ctx: NodeContext, shape: Sequence[int]) -> Node:
    """Uniform numbers. An integer seed that the model names draws what ONNX's reference draws (numpy's)."""
    if not ctx.has("seed"):
        return uniform(random_key(ctx), shape, "float64")
    state = np.random.RandomState(ctx.integer("seed") & 0xFFFFFFFF)
    return build.constant(state.uniform(size=tuple(shape)))
