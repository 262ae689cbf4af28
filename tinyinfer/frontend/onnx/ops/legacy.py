"""Operators that ONNX once had and removed, which models of opsets 1 to 9 still carry.

Most were "experimental": ONNX left them out of its numbered opsets from 10 on, so they are accepted in every
opset. Sources: Operators.md of ONNX 1.2 and 1.4, and, where those say nothing, what onnxruntime computes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, EXACT, ROUNDED, TRANSCENDENTAL, onnx_op
from tinyinfer.frontend.onnx.ops.activation import softplus
from tinyinfer.frontend.onnx.ops.elementwise import like
from tinyinfer.frontend.onnx.ops.reduce import reduce_mean
from tinyinfer.frontend.onnx.ops.shape import sliced
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.node import Node


def _times(x: Node, factor: float) -> Node:
    return elementwise("MUL", x, like(factor, x))


@onnx_op("Affine", tolerance=ROUNDED)
def affine(ctx: NodeContext, x: Node) -> Node:
    """alpha x + beta."""
    ctx.floating(x)
    return elementwise("ADD", _times(x, ctx.number("alpha", 1.0)), like(ctx.number("beta", 0.0), x))


@onnx_op("Scale", tolerance=ROUNDED)
def scale(ctx: NodeContext, x: Node) -> Node:
    """scale x."""
    ctx.floating(x)
    return _times(x, ctx.number("scale", 1.0))


@onnx_op("ScaledTanh", tolerance=TRANSCENDENTAL)
def scaled_tanh(ctx: NodeContext, x: Node) -> Node:
    """alpha tanh(beta x)."""
    ctx.floating(x)
    return _times(elementwise("TANH", _times(x, ctx.number("beta", REQUIRED))), ctx.number("alpha", REQUIRED))


@onnx_op("ParametricSoftplus", tolerance=TRANSCENDENTAL)
def parametric_softplus(ctx: NodeContext, x: Node) -> Node:
    """alpha log(1 + e^(beta x))."""
    ctx.floating(x)
    return _times(softplus(_times(x, ctx.number("beta", REQUIRED))), ctx.number("alpha", REQUIRED))


@onnx_op("ImageScaler", tolerance=ROUNDED)
def image_scaler(ctx: NodeContext, x: Node) -> Node:
    """scale x, plus a bias for each channel of [N, C, H, W]."""
    ctx.floating(x)
    ctx.require(len(x.shape) == 4, f"the input must be [N, C, H, W], not {list(x.shape)}")
    bias = ctx.numbers("bias", [0.0] * x.shape[1], x.shape[1])
    vector = build.reshape(build.constant(np.array(bias), x.dtype), [x.shape[1], 1, 1])
    return build.apply("ADD", _times(x, ctx.number("scale", 1.0)), vector)


@onnx_op("Crop", tolerance=EXACT)
def crop(ctx: NodeContext, x: Node) -> Node:
    """[N, C, H, W] without `border` (left, top, right, bottom), or `scale` (height, width) of it."""
    ctx.require(len(x.shape) == 4, f"the input must be [N, C, H, W], not {list(x.shape)}")
    left, top, right, bottom = ctx.integers("border", REQUIRED, 4, 0)
    height, width = x.shape[2] - top - bottom, x.shape[3] - left - right
    size = ctx.integers("scale", None, 2, 0)
    if size is not None:
        height, width = size
    ctx.require(
        height >= 0 and width >= 0 and top + height <= x.shape[2] and left + width <= x.shape[3],
        f"border {[left, top, right, bottom]} and scale {size} leave {height} x {width} of {list(x.shape)}",
    )
    return build.shrink(x, [0, 0, top, left], [*x.shape[:2], top + height, left + width])


@onnx_op("MeanVarianceNormalization", since=1, until=8, tolerance=ACCUMULATED)
def mean_variance_normalization_1(ctx: NodeContext, x: Node) -> Node:
    """(x - mean) / sqrt(variance) over [N, H, W] of each channel, or over everything."""
    ctx.floating(x)
    ctx.require(len(x.shape) == 4, f"the input must be [N, C, H, W], not {list(x.shape)}")
    axes = [0, 1, 2, 3] if ctx.flag("across_channels") else [0, 2, 3]
    centred = elementwise("SUB", x, build.expand(reduce_mean(x, axes), x.shape))
    if not ctx.flag("normalize_variance", True):
        return centred
    variance = reduce_mean(elementwise("MUL", centred, centred), axes)
    return elementwise("DIV", centred, build.expand(elementwise("SQRT", variance), x.shape))


# ---- made of nothing


def _filled_shape(ctx: NodeContext, x: Node | None) -> list[int]:
    """The shape that GivenTensorFill and ConstantFill make: of an attribute, or by an input."""
    extra = ctx.integers("extra_shape", [], minimum=0)
    if x is None:
        return [*ctx.integers("shape", REQUIRED, minimum=0), *extra]
    ctx.require(not ctx.has("shape"), "the attribute 'shape' must not be set where an input gives the shape")
    base = ctx.constant_ints(x, "input") if ctx.flag("input_as_shape") else list(x.shape)
    ctx.require(all(d >= 0 for d in base), f"the shape {base} holds a negative size")
    return [*base, *extra]


@onnx_op("ConstantFill", tolerance=EXACT)
def constant_fill(ctx: NodeContext, x: Node | None = None) -> Node:
    """One value over a shape."""
    dtype = ctx.dtype("dtype", "float32") or "float32"
    return build.full(ctx.number("value", 0.0), _filled_shape(ctx, x), dtype)


@onnx_op("GivenTensorFill", tolerance=EXACT)
def given_tensor_fill(ctx: NodeContext, x: Node | None = None) -> Node:
    """The numbers of an attribute in a shape."""
    shape = _filled_shape(ctx, x)
    values = ctx.numbers("values", REQUIRED, math.prod(shape))
    return build.constant(np.array(values, np.float32).reshape(shape))


# ---- others


@onnx_op("DynamicSlice", tolerance=EXACT)
def dynamic_slice(ctx: NodeContext, x: Node, starts: Node, ends: Node, axes: Node | None = None) -> Node:
    """Part of the input; bounds and axes from inputs."""
    where: Sequence[int] | None = None if axes is None else ctx.constant_ints(axes, "axes")
    first, last = ctx.constant_ints(starts, "starts"), ctx.constant_ints(ends, "ends")
    return sliced(ctx, x, first, last, where, None)


@onnx_op("GRUUnit", tolerance=TRANSCENDENTAL)
def gru_unit(ctx: NodeContext, hidden: Node, gates: Node, lengths: Node, step: Node) -> Node:
    """One step of Caffe2's GRU from hidden [1, N, D] and gates [1, N, 3 D] (reset, update, output).

    The result is h s(update) + tanh(output) (1 - s(update)); a sequence that has ended keeps its state, or
    drops it to 0 with `drop_states`. The reset gate was applied already when `gates` was made.
    """
    ctx.same_dtype(hidden, gates)
    ctx.floating(hidden)
    size = hidden.shape[-1] if hidden.shape else 0
    ctx.require(
        len(hidden.shape) == 3 and gates.shape == (*hidden.shape[:2], 3 * size),
        f"gates of shape {list(gates.shape)} do not fit a state of shape {list(hidden.shape)}",
    )
    ctx.require(lengths.shape == (hidden.shape[1],), "there must be one sequence length for each sequence")
    ctx.require(step.size == 1 and step.dtype == lengths.dtype, "the step must be an integer, as the lengths")
    start, stop = [0, 0, 0], list(gates.shape)
    update, output = (
        build.shrink(gates, [*start[:2], i * size], [*stop[:2], (i + 1) * size]) for i in (1, 2)
    )
    kept = elementwise("SIGMOID", update)
    new = elementwise("TANH", output)
    mixed = elementwise(
        "ADD",
        elementwise("MUL", hidden, kept),
        elementwise("MUL", new, elementwise("SUB", like(1, kept), kept)),
    )
    running = build.apply("CMPLT", build.reshape(step, ()), build.reshape(lengths, [1, hidden.shape[1], 1]))
    ended = like(0, hidden) if ctx.flag("drop_states") else hidden
    return elementwise("WHERE", build.expand(running, mixed.shape), mixed, ended)
