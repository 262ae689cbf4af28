"""Fused normalisations and activations that onnxruntime's optimisers put into models."""

from __future__ import annotations

from collections.abc import Sequence

from tinyinfer.frontend.onnx.blocks import attention as att
from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, ROUNDED, TRANSCENDENTAL, onnx_op
from tinyinfer.frontend.onnx.ops.activation import gelu
from tinyinfer.frontend.onnx.ops.elementwise import is_float, like
from tinyinfer.frontend.onnx.ops.reduce import reduce_mean
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.node import Node

DOMAIN = "com.microsoft"


def _float(ctx: NodeContext, *inputs: Node | None) -> None:
    for x in inputs:
        ctx.require(x is None or is_float(x), f"expected a float input, not {x.dtype if x else ''}")


def _inverse_root(square: Node, epsilon: float) -> Node:
    """1 / sqrt(square + epsilon)."""
    return elementwise("RECIP", elementwise("SQRT", elementwise("ADD", square, like(epsilon, square))))


def normalised(x: Node, axes: Sequence[int], epsilon: float, centre: bool) -> tuple[Node, Node, Node]:
    """(x - mean) / deviation, or x / root mean square, in the wide type; also mean and 1 / deviation."""
    x = build.cast(x, att.wide(x.dtype))
    axes = list(axes)
    mean = reduce_mean(x, axes)
    if centre:
        x = elementwise("SUB", x, build.expand(mean, x.shape))
    inverse = _inverse_root(reduce_mean(elementwise("MUL", x, x), axes), epsilon)
    return elementwise("MUL", x, build.expand(inverse, x.shape)), mean, inverse


def _affine(x: Node, scale: Node, shift: Node | None, dtype: str) -> Node:
    x = build.apply("MUL", x, build.cast(scale, x.dtype))
    if shift is not None:
        x = build.apply("ADD", x, build.cast(shift, x.dtype))
    return build.cast(x, dtype)


def _vector(ctx: NodeContext, x: Node, vector: Node | None, what: str) -> None:
    ctx.require(
        vector is None or vector.shape == x.shape[-1:],
        f"'{what}' must be {list(x.shape[-1:])}, not {list(vector.shape) if vector else None}",
    )


# ---- layer normalisation


def _skip_sum(ctx: NodeContext, x: Node, skip: Node, bias: Node | None) -> Node:
    """x + skip + bias in the wide type; the skip may lack the batch."""
    _float(ctx, x)
    ctx.same_dtype(x, skip, bias)
    ctx.require(len(x.shape) in (2, 3), f"the input must have 2 or 3 dimensions, not {list(x.shape)}")
    ctx.require(
        skip.shape in (x.shape, (1, *x.shape[1:]), x.shape[1:]),
        f"a skip of shape {list(skip.shape)} does not fit {list(x.shape)}",
    )
    _vector(ctx, x, bias, "bias")
    wide = att.wide(x.dtype)
    total = build.apply("ADD", build.cast(x, wide), build.cast(skip, wide))
    return total if bias is None else build.apply("ADD", total, build.cast(bias, wide))


@onnx_op("SkipLayerNormalization", domain=DOMAIN, tolerance=ACCUMULATED)
def skip_layer_normalization(
    ctx: NodeContext, x: Node, skip: Node, scale: Node, shift: Node | None = None, bias: Node | None = None
) -> tuple[Node, Node, Node, Node]:
    """Layer normalisation of x + skip + bias; also mean, reciprocal deviation and the sum."""
    total = _skip_sum(ctx, x, skip, bias)
    for vector, what in ((scale, "gamma"), (shift, "beta")):
        _vector(ctx, x, vector, what)
    last = [len(x.shape) - 1]
    result, mean, inverse = normalised(total, last, ctx.number("epsilon", 1e-12), True)
    return _affine(result, scale, shift, x.dtype), mean, inverse, build.cast(total, x.dtype)


@onnx_op("SkipSimplifiedLayerNormalization", domain=DOMAIN, tolerance=ACCUMULATED)
def skip_simplified_layer_normalization(
    ctx: NodeContext, x: Node, skip: Node, scale: Node, bias: Node | None = None
) -> tuple[Node, Node, Node, Node]:
    """RMS normalisation of x + skip + bias; also mean, reciprocal root mean square and the sum."""
    total = _skip_sum(ctx, x, skip, bias)
    _vector(ctx, x, scale, "gamma")
    last = [len(x.shape) - 1]
    result, mean, inverse = normalised(total, last, ctx.number("epsilon", 1e-12), False)
    return _affine(result, scale, None, x.dtype), mean, inverse, build.cast(total, x.dtype)


@onnx_op("SimplifiedLayerNormalization", domain=DOMAIN, tolerance=ACCUMULATED)
@onnx_op("SimplifiedLayerNormalization", tolerance=ACCUMULATED)
def simplified_layer_normalization(ctx: NodeContext, x: Node, scale: Node) -> tuple[Node, Node]:
    """x / sqrt(mean(x²) + epsilon) · scale over the axes from `axis` on, as onnxruntime spells it."""
    _float(ctx, x, scale)
    axis = ctx.axis(ctx.integer("axis", -1), len(x.shape))
    ctx.require(
        build.broadcast_shape(x.shape, scale.shape) == x.shape,
        f"a scale of shape {list(scale.shape)} does not broadcast to {list(x.shape)}",
    )
    result, _, inverse = normalised(x, range(axis, len(x.shape)), ctx.number("epsilon", 1e-5), False)
    return _affine(result, scale, None, scale.dtype), inverse


@onnx_op("EmbedLayerNormalization", domain=DOMAIN, tolerance=ACCUMULATED)
def embed_layer_normalization(
    ctx: NodeContext,
    ids: Node,
    segments: Node | None = None,
    words: Node | None = None,
    places: Node | None = None,
    kinds: Node | None = None,
    scale: Node | None = None,
    shift: Node | None = None,
    mask: Node | None = None,
    positions: Node | None = None,
) -> tuple[Node, Node, Node]:
    """Layer normalisation of word + position + segment embeddings; also the masks' lengths and the sum."""
    ctx.require(
        not any(t is None for t in (words, places, scale, shift)),
        "word_embedding, position_embedding, gamma and beta are required",
    )
    assert words is not None and places is not None and scale is not None and shift is not None
    ctx.require(len(ids.shape) == 2, f"input_ids must be [batch, sequence], not {list(ids.shape)}")
    _float(ctx, words)
    ctx.same_dtype(words, places, kinds, scale, shift)
    ctx.require((segments is None) == (kinds is None), "segment_ids and segment_embedding come together")
    batch, sequence = ids.shape
    ctx.require(
        all(
            t is None or (len(t.shape) == 2 and t.shape[1:] == words.shape[1:])
            for t in (words, places, kinds)
        ),
        "the embeddings must be matrices of one width",
    )
    wide = att.wide(words.dtype)

    def rows(table: Node, indices: Node, what: str) -> Node:
        ctx.require(
            indices.shape in ((batch, sequence), (1, sequence)) and indices.dtype in ("int32", "int64"),
            f"'{what}' must hold integers of shape {[batch, sequence]}, not {list(indices.shape)}",
        )
        return build.cast(build.gather(table, indices, 0), wide)

    if positions is None:
        ctx.require(sequence <= places.shape[0], f"{sequence} positions, but {places.shape[0]} embeddings")
        positions = build.iota([1, sequence], 1)
    total = build.apply("ADD", rows(words, ids, "input_ids"), rows(places, positions, "position_ids"))
    if segments is not None and kinds is not None:
        total = build.apply("ADD", total, rows(kinds, segments, "segment_ids"))
    for vector, what in ((scale, "gamma"), (shift, "beta")):
        _vector(ctx, total, vector, what)
    result, _, _ = normalised(total, [2], ctx.number("epsilon", 1e-12), True)
    if mask is None:
        lengths = build.full(0, [batch], "int32")
    else:
        ctx.require(mask.shape == ids.shape, f"the mask must be {list(ids.shape)}, not {list(mask.shape)}")
        ones = elementwise("CMPEQ", mask, like(1, mask))
        lengths = build.reduce("SUM", build.cast(ones, "int32"), [1])
    return _affine(result, scale, shift, words.dtype), lengths, build.cast(total, words.dtype)


# ---- group normalisation of pictures


def _group_norm(ctx: NodeContext, x: Node, scale: Node, shift: Node) -> Node:
    """Groups of channels normalised, scaled, shifted, perhaps through SiLU; in the layout of `x`."""
    _float(ctx, x, scale, shift)
    ctx.require(len(x.shape) >= 3, f"the input must be a picture, not of shape {list(x.shape)}")
    last = ctx.flag("channels_last", True)
    channel = len(x.shape) - 1 if last else 1
    groups, channels = ctx.integer("groups", REQUIRED, minimum=1), x.shape[channel]
    ctx.require(channels % groups == 0, f"{channels} channels do not divide into {groups} groups")
    for vector, what in ((scale, "gamma"), (shift, "beta")):
        ctx.require(vector.shape == (channels,), f"'{what}' must be {[channels]}, not {list(vector.shape)}")
    split = build.reshape(x, [*x.shape[:channel], groups, channels // groups, *x.shape[channel + 1 :]])
    axes = [a for a in range(1, len(split.shape)) if a != channel]
    result, _, _ = normalised(split, axes, ctx.number("epsilon", 1e-5), True)
    behind = [1] * (len(x.shape) - 1 - channel)
    scale, shift = (build.reshape(v, [channels, *behind]) for v in (scale, shift))
    result = build.reshape(result, x.shape)
    result = build.apply("MUL", result, build.cast(scale, result.dtype))
    result = build.apply("ADD", result, build.cast(shift, result.dtype))
    if ctx.integer("activation", REQUIRED, choices=(0, 1)):
        result = elementwise("MUL", result, elementwise("SIGMOID", result))
    return build.cast(result, x.dtype)


@onnx_op("GroupNorm", domain=DOMAIN, tolerance=ACCUMULATED)
def group_norm(ctx: NodeContext, x: Node, scale: Node, shift: Node) -> Node:
    """Groups of channels normalised, scaled and shifted by channel, perhaps through SiLU."""
    return _group_norm(ctx, x, scale, shift)


@onnx_op("SkipGroupNorm", domain=DOMAIN, tolerance=ACCUMULATED)
def skip_group_norm(
    ctx: NodeContext, x: Node, scale: Node, shift: Node, skip: Node, bias: Node | None = None
) -> tuple[Node, Node]:
    """GroupNorm of x + skip + bias; also the sum."""
    ctx.same_dtype(x, skip, bias)
    ctx.require(len(x.shape) == 4, f"the input must have 4 dimensions, not {list(x.shape)}")
    last = ctx.flag("channels_last", True)
    channels = x.shape[3 if last else 1]
    behind = [] if last else [1, 1]
    if len(skip.shape) == 2:
        ones = [1, 1]
        skip = build.reshape(skip, [skip.shape[0], *(ones if last else []), skip.shape[1], *behind])
    ctx.require(
        len(skip.shape) == 4 and build.broadcast_shape(x.shape, skip.shape) == x.shape,
        f"a skip of shape {list(skip.shape)} does not fit {list(x.shape)}",
    )
    wide = att.wide(x.dtype)
    total = build.apply("ADD", build.cast(x, wide), build.cast(skip, wide))
    if bias is not None:
        ctx.require(bias.shape == (channels,), f"the bias must be {[channels]}, not {list(bias.shape)}")
        total = build.apply("ADD", total, build.cast(build.reshape(bias, [channels, *behind]), wide))
    total = build.cast(total, x.dtype)
    return _group_norm(ctx, total, scale, shift), total


# ---- activations


def _biased(ctx: NodeContext, x: Node, bias: Node | None) -> Node:
    _float(ctx, x)
    if bias is None:
        return x
    ctx.same_dtype(x, bias)
    _vector(ctx, x, bias, "bias")
    return build.apply("ADD", x, bias)


def _wide_gelu(x: Node, tanh: bool) -> Node:
    return build.cast(gelu(build.cast(x, att.wide(x.dtype)), tanh), x.dtype)


@onnx_op("Gelu", domain=DOMAIN, tolerance=TRANSCENDENTAL)
def plain_gelu(ctx: NodeContext, x: Node) -> Node:
    """x times the normal distribution function of x."""
    return _wide_gelu(_biased(ctx, x, None), False)


@onnx_op("BiasGelu", domain=DOMAIN, tolerance=TRANSCENDENTAL)
def bias_gelu(ctx: NodeContext, x: Node, bias: Node) -> Node:
    """Gelu of x + bias."""
    return _wide_gelu(_biased(ctx, x, bias), False)


@onnx_op("FastGelu", domain=DOMAIN, tolerance=TRANSCENDENTAL)
def fast_gelu(ctx: NodeContext, x: Node, bias: Node | None = None) -> Node:
    """The tanh approximation of Gelu of x + bias."""
    return _wide_gelu(_biased(ctx, x, bias), True)


@onnx_op("QuickGelu", domain=DOMAIN, tolerance=TRANSCENDENTAL)
def quick_gelu(ctx: NodeContext, x: Node) -> Node:
    """x sigmoid(alpha x)."""
    _float(ctx, x)
    wide = build.cast(x, att.wide(x.dtype))
    curve = elementwise("SIGMOID", elementwise("MUL", wide, like(ctx.number("alpha", 1.702), wide)))
    return build.cast(elementwise("MUL", wide, curve), x.dtype)


@onnx_op("BiasSplitGelu", domain=DOMAIN, tolerance=TRANSCENDENTAL)
def bias_split_gelu(ctx: NodeContext, x: Node, bias: Node) -> Node:
    """The left half of x + bias times Gelu of its right half."""
    ctx.require(len(x.shape) == 3 and x.shape[2] % 2 == 0, f"{list(x.shape)} has no two halves")
    total = _biased(ctx, x, bias)
    half = x.shape[2] // 2
    left = build.shrink(total, [0, 0, 0], [*x.shape[:2], half])
    right = build.shrink(total, [0, 0, half], x.shape)
    return elementwise("MUL", left, _wide_gelu(right, False))


@onnx_op("BiasAdd", domain=DOMAIN, tolerance=ROUNDED)
def bias_add(ctx: NodeContext, x: Node, bias: Node, skip: Node) -> Node:
    """x + bias + skip."""
    ctx.same_dtype(x, skip)
    ctx.require(skip.shape == x.shape, f"a skip of shape {list(skip.shape)} does not fit {list(x.shape)}")
    return elementwise("ADD", _biased(ctx, x, bias), skip)
