"""Normalisations: batch, instance, layer, group, RMS, Lp, local response, and the softmax family."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, LAST_OPSET, TRANSCENDENTAL, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import like
from tinyinfer.frontend.onnx.ops.reduce import reduce_mean
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.node import Node


def along_channels(x: Node, vector: Node) -> Node:
    """A vector of one number per channel as [C, 1, …], ready to broadcast to `x` [N, C, …]."""
    return build.reshape(vector, [vector.size, *[1] * (len(x.shape) - 2)])


def _channel_vector(ctx: NodeContext, x: Node, vector: Node, what: str) -> Node:
    channels = x.shape[1]
    ctx.require(
        vector.shape == (channels,),
        f"'{what}' must hold one number for each of {channels} channels, not {list(vector.shape)}",
    )
    return vector


def _statistics_shape(ctx: NodeContext, x: Node) -> tuple[int, ...]:
    """The shape of scale, B, mean and variance: [C], or one number per position with `spatial` = 0."""
    if ctx.opset >= 9 or ctx.flag("spatial", True):
        return (x.shape[1],)
    return x.shape[1:]


def _spread(x: Node, vector: Node) -> Node:
    """Statistics ready to broadcast to `x`."""
    return along_channels(x, vector) if len(vector.shape) == 1 else vector


def _trains(ctx: NodeContext) -> bool:
    """Whether a BatchNormalization takes the statistics of its batch.

    An attribute says so from opset 14 on. Before, the outputs beyond the first do: they exist in training
    only. `is_test` of opsets 1 to 6, whose default is 0 also in models made for inference, can only deny it.
    """
    if ctx.opset >= 14:
        return ctx.flag("training_mode")
    return any(list(ctx.proto.output)[1:]) and not (ctx.opset < 7 and ctx.flag("is_test"))


@onnx_op("BatchNormalization", tolerance=ACCUMULATED)
def batch_normalization(
    ctx: NodeContext, x: Node, scale: Node, bias: Node, mean: Node, variance: Node
) -> Node | tuple[Node, ...]:
    """(x - mean) / sqrt(variance + epsilon) · scale + bias; constant statistics fold to one MUL and ADD.

    In training the statistics are those of the batch, and the running ones are outputs too.
    """
    ctx.floating(x)
    ctx.require(len(x.shape) >= 2, f"the input must be [N, C, …], not {list(x.shape)}")
    wanted = _statistics_shape(ctx, x)
    vectors = [scale, bias, mean, variance]
    for vector, what in zip(vectors, ("scale", "B", "input_mean", "input_var")):
        ctx.floating(vector)
        ctx.require(
            vector.shape in (wanted, (x.shape[1],)),
            f"'{what}' must hold one number for each of {x.shape[1]} channels"
            f"{'' if len(wanted) == 1 else f' or position {list(wanted)}'}, not {list(vector.shape)}",
        )
    epsilon = ctx.number("epsilon", 1e-5)
    if _trains(ctx):
        return _batch_statistics(ctx, x, vectors, epsilon)
    known = [ctx.known(v) for v in vectors]
    if all(v is not None for v in known):
        s, b, m, v = (np.asarray(k, np.float64) for k in known)
        with np.errstate(all="ignore"):  # broken statistics give NaN, as they do at run time
            factor = s / np.sqrt(v + epsilon)
            scale, bias = (build.constant(a.astype(x.dtype)) for a in (factor, b - m * factor))
        return build.apply("ADD", build.apply("MUL", x, _spread(x, scale)), _spread(x, bias))
    s4, b4, m4, v4 = (_spread(x, build.cast(v, x.dtype)) for v in vectors)
    factor_node = build.apply("MUL", s4, elementwise("RECIP", elementwise("SQRT", _plus(v4, epsilon))))
    shift = build.apply("SUB", b4, build.apply("MUL", m4, factor_node))
    return build.apply("ADD", build.apply("MUL", x, factor_node), shift)


def _batch_statistics(
    ctx: NodeContext, x: Node, vectors: Sequence[Node], epsilon: float
) -> tuple[Node, ...]:
    """The normalised batch, the running mean and variance, and (opsets 1 to 13) those of the batch."""
    scale, bias, mean, variance = vectors
    axes = [0] if mean.shape != (x.shape[1],) else [i for i in range(len(x.shape)) if i != 1]
    # sums of float16 overflow and lose what the running statistics, which may be wider, keep
    wide = build.cast(x, variance.dtype if x.dtype == "float16" else x.dtype)
    wide = build.cast(wide, "float32") if wide.dtype == "float16" else wide
    centre = reduce_mean(wide, axes)
    centred = elementwise("SUB", wide, build.expand(centre, wide.shape))
    spread = reduce_mean(elementwise("MUL", centred, centred), axes)
    inverse = elementwise("RECIP", elementwise("SQRT", _plus(spread, epsilon)))
    result = elementwise("MUL", centred, build.expand(inverse, wide.shape))
    for op, vector in (("MUL", scale), ("ADD", bias)):
        result = build.apply(op, result, build.cast(_spread(x, vector), wide.dtype))
    momentum = ctx.number("momentum", 0.9)
    batch = [build.cast(build.reshape(b, v.shape), v.dtype) for b, v in ((centre, mean), (spread, variance))]
    running = [
        elementwise(
            "ADD",
            elementwise("MUL", old, like(momentum, old)),
            elementwise("MUL", new, like(1 - momentum, new)),
        )
        for old, new in zip((mean, variance), batch)
    ]
    return build.cast(result, x.dtype), *running, *batch


def _plus(x: Node, value: float) -> Node:
    return elementwise("ADD", x, like(value, x))


def _centred(x: Node, axes: Sequence[int]) -> Node:
    return elementwise("SUB", x, build.expand(reduce_mean(x, list(axes)), x.shape))


def _normalised(x: Node, axes: Sequence[int], epsilon: float) -> tuple[Node, Node, Node]:
    """(x - mean) / sqrt(variance + epsilon) over axes; also mean and reciprocal deviation, with size 1."""
    mean = reduce_mean(x, list(axes))
    centred = elementwise("SUB", x, build.expand(mean, x.shape))
    variance = reduce_mean(elementwise("MUL", centred, centred), list(axes))
    inverse = elementwise("RECIP", elementwise("SQRT", _plus(variance, epsilon)))
    return elementwise("MUL", centred, build.expand(inverse, x.shape)), mean, inverse


@onnx_op("InstanceNormalization", tolerance=ACCUMULATED)
def instance_normalization(ctx: NodeContext, x: Node, scale: Node, bias: Node) -> Node:
    """Each channel of each sample normalised over its spatial positions."""
    ctx.floating(x)
    ctx.require(len(x.shape) >= 3, f"the input must be [N, C, spatial …], not {list(x.shape)}")
    result, _, _ = _normalised(x, range(2, len(x.shape)), ctx.number("epsilon", 1e-5))
    for op, vector, what in (("MUL", scale, "scale"), ("ADD", bias, "B")):
        result = build.apply(op, result, along_channels(x, _channel_vector(ctx, x, vector, what)))
    return result


def _stash(ctx: NodeContext, x: Node, default: int = 1) -> tuple[Node, str]:
    """The input in the type that statistics are computed in."""
    wide = ctx.dtype("stash_type", "float32" if default == 1 else None) or "float32"
    return (build.cast(x, wide), wide) if x.dtype == "float16" else (x, x.dtype)


@onnx_op("LayerNormalization", domain="com.microsoft", tolerance=ACCUMULATED)
@onnx_op("LayerNormalization", since=1, tolerance=ACCUMULATED)
def layer_normalization(
    ctx: NodeContext, x: Node, scale: Node, bias: Node | None = None
) -> tuple[Node, Node, Node]:
    """Normalised over the axes from `axis` on, scaled, shifted; also mean and reciprocal deviation."""
    ctx.floating(x)
    axis = ctx.axis(ctx.integer("axis", -1), len(x.shape))
    wide, _ = _stash(ctx, x)
    result, mean, inverse = _normalised(wide, range(axis, len(x.shape)), ctx.number("epsilon", 1e-5))
    result = _scaled(ctx, build.cast(result, x.dtype), scale, bias)
    return result, mean, inverse


def _scaled(ctx: NodeContext, x: Node, scale: Node, bias: Node | None) -> Node:
    for op, other, what in (("MUL", scale, "scale"), ("ADD", bias, "bias")):
        if other is None:
            continue
        ctx.require(
            build.broadcast_shape(x.shape, other.shape) == x.shape,
            f"'{what}' of shape {list(other.shape)} does not broadcast to {list(x.shape)}",
        )
        x = build.apply(op, x, build.cast(other, x.dtype))
    return x


@onnx_op("RMSNormalization", since=23, tolerance=ACCUMULATED)
def rms_normalization(ctx: NodeContext, x: Node, scale: Node) -> Node:
    """x / sqrt(mean(x²) + epsilon) · scale over the axes from `axis` on."""
    ctx.floating(x)
    axis = ctx.axis(ctx.integer("axis", -1), len(x.shape))
    wide, _ = _stash(ctx, x)
    square = reduce_mean(elementwise("MUL", wide, wide), list(range(axis, len(x.shape))))
    inverse = elementwise("RECIP", elementwise("SQRT", _plus(square, ctx.number("epsilon", 1e-5))))
    result = build.cast(elementwise("MUL", wide, build.expand(inverse, x.shape)), x.dtype)
    return _scaled(ctx, result, scale, None)


def _grouped(ctx: NodeContext, x: Node, groups: int) -> Node:
    ctx.require(
        len(x.shape) >= 2 and x.shape[1] % groups == 0,
        f"the channels of {list(x.shape)} do not divide into {groups} groups",
    )
    split = build.reshape(x, [x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]])
    wide, _ = _stash(ctx, split)
    result, _, _ = _normalised(wide, range(2, len(split.shape)), ctx.number("epsilon", 1e-5))
    return build.cast(result, x.dtype)


@onnx_op("GroupNormalization", since=18, until=20, tolerance=ACCUMULATED)
def group_normalization_per_group(ctx: NodeContext, x: Node, scale: Node, bias: Node) -> Node:
    """Groups of channels normalised; one scale and bias per group."""
    ctx.floating(x)
    groups = ctx.integer("num_groups", REQUIRED, minimum=1)
    result = _grouped(ctx, x, groups)
    for op, vector in (("MUL", scale), ("ADD", bias)):
        ctx.require(
            vector.shape == (groups,), f"scale and bias must hold one number for each of {groups} groups"
        )
        result = build.apply(op, result, build.reshape(vector, [groups, *[1] * (len(result.shape) - 2)]))
    return build.reshape(result, x.shape)


@onnx_op("GroupNormalization", since=21, tolerance=ACCUMULATED)
def group_normalization(ctx: NodeContext, x: Node, scale: Node, bias: Node) -> Node:
    """Groups of channels normalised; one scale and bias per channel."""
    ctx.floating(x)
    result = build.reshape(_grouped(ctx, x, ctx.integer("num_groups", REQUIRED, minimum=1)), x.shape)
    for op, vector, what in (("MUL", scale, "scale"), ("ADD", bias, "bias")):
        result = build.apply(op, result, along_channels(x, _channel_vector(ctx, x, vector, what)))
    return result


@onnx_op("LpNormalization", tolerance=ACCUMULATED)
def lp_normalization(ctx: NodeContext, x: Node) -> Node:
    """x over its 1- or 2-norm along an axis; 0 where the norm is 0."""
    ctx.floating(x)
    axis = ctx.axis(ctx.integer("axis", -1), len(x.shape))
    if ctx.integer("p", 2, choices=(1, 2)) == 1:
        norm = build.reduce("SUM", elementwise("ABS", x), [axis], keepdims=True)
    else:
        norm = elementwise("SQRT", build.reduce("SUM", elementwise("MUL", x, x), [axis], keepdims=True))
    zero = elementwise("CMPEQ", norm, like(0, norm))
    inverse = elementwise("WHERE", zero, like(0, norm), elementwise("RECIP", norm))
    return elementwise("MUL", x, build.expand(inverse, x.shape))


@onnx_op("MeanVarianceNormalization", since=9, tolerance=ACCUMULATED)
def mean_variance_normalization(ctx: NodeContext, x: Node) -> Node:
    """(x - mean) / (sqrt(variance) + 1e-9) over axes."""
    ctx.floating(x)
    axes = ctx.axes(ctx.integers("axes", [0, 2, 3]), len(x.shape))
    centred = _centred(x, axes)
    variance = reduce_mean(elementwise("MUL", centred, centred), axes)
    deviation = _plus(elementwise("SQRT", variance), 1e-9)
    return elementwise("DIV", centred, build.expand(deviation, x.shape))


@onnx_op("LRN", tolerance=ACCUMULATED)
def local_response_normalization(ctx: NodeContext, x: Node) -> Node:
    """x / (bias + alpha / size · sum of squares of neighbouring channels) ** beta."""
    ctx.floating(x)
    ctx.require(len(x.shape) >= 2, f"the input must be [N, C, …], not {list(x.shape)}")
    size = ctx.integer("size", REQUIRED, minimum=1)
    order = [0, *range(2, len(x.shape)), 1]
    squares = build.permute(elementwise("MUL", x, x), order)
    windows = build.window(squares, [size], [1], [1], [(size - 1) // 2], [size - 1 - (size - 1) // 2])
    total = build.reduce("SUM", windows, [len(x.shape)])
    total = build.permute(total, [order.index(i) for i in range(len(order))])
    base = _plus(
        elementwise("MUL", total, like(ctx.number("alpha", 1e-4) / size, total)), ctx.number("bias", 1.0)
    )
    return elementwise("DIV", x, elementwise("POW", base, like(ctx.number("beta", 0.75), base)))


# ---- softmax


def softmax(x: Node, axes: Sequence[int]) -> Node:
    """exp(x - max) / sum over axes."""
    largest = build.reduce("MAX", x, axes, keepdims=True)
    powers = elementwise("EXP", elementwise("SUB", x, build.expand(largest, x.shape)))
    total = build.reduce("SUM", powers, axes, keepdims=True)
    return elementwise("MUL", powers, build.expand(elementwise("RECIP", total), x.shape))


def log_softmax(x: Node, axes: Sequence[int]) -> Node:
    """x - max - log(sum(exp(x - max))) over axes."""
    largest = build.reduce("MAX", x, axes, keepdims=True)
    shifted = elementwise("SUB", x, build.expand(largest, x.shape))
    total = build.reduce("SUM", elementwise("EXP", shifted), axes, keepdims=True)
    return elementwise("SUB", shifted, build.expand(elementwise("LOG", total), x.shape))


def _register_softmax(name: str, function: Callable[[Node, Sequence[int]], Node]) -> None:
    def flattened(ctx: NodeContext, x: Node) -> Node:
        ctx.floating(x)
        rank = len(x.shape)
        axis = ctx.integer("axis", 1)
        if axis == rank:  # rows of one element
            return build.reshape(function(build.reshape(x, [x.size, 1]), [1]), x.shape)
        return function(x, range(ctx.axis(axis, rank), rank))

    def along_axis(ctx: NodeContext, x: Node) -> Node:
        ctx.floating(x)
        return function(x, [ctx.axis(ctx.integer("axis", -1), len(x.shape))])

    flattened.__doc__ = f"{name} over all axes from `axis` on."
    along_axis.__doc__ = f"{name} along one axis."
    onnx_op(name, 1, 12, tolerance=TRANSCENDENTAL)(flattened)
    onnx_op(name, 13, LAST_OPSET, tolerance=TRANSCENDENTAL)(along_axis)


_register_softmax("Softmax", softmax)
_register_softmax("LogSoftmax", log_softmax)
