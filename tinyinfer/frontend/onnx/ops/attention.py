"""ONNX's operators of transformers: Attention, RotaryEmbedding, TensorScatter."""

from __future__ import annotations

import math

from tinyinfer.frontend.onnx.blocks import attention as att
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, EXACT, ROUNDED, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import is_float, like
from tinyinfer.frontend.onnx.ops.index import wrapped
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.index import Slot, index
from tinyinfer.ir.node import Node, output_axis

_WIDTH = {"bfloat16": 0, "float16": 1, "float32": 2, "float64": 3}
"""Float types, narrow ones first."""


def _heads(ctx: NodeContext, x: Node, attribute: str, what: str) -> Node:
    """A query, key or value as [batch, heads, sequence, size]."""
    ctx.require(len(x.shape) in (3, 4), f"'{what}' must have 3 or 4 dimensions, not {list(x.shape)}")
    if len(x.shape) == 4:
        return x
    heads = ctx.integer(attribute, None, minimum=1)
    ctx.require(heads is not None, f"inputs of 3 dimensions need the attribute '{attribute}'")
    ctx.require(
        x.shape[2] % heads == 0,
        f"the last dimension of '{what}' {list(x.shape)} is no multiple of {heads} heads",
    )
    return att.split_heads(x, heads)


def _with_past(ctx: NodeContext, past: Node | None, new: Node, what: str) -> Node:
    """Cached keys or values followed by the new ones."""
    if past is None:
        return new
    ctx.same_dtype(past, new)
    ctx.require(
        len(past.shape) == 4 and (*past.shape[:2], past.shape[3]) == (*new.shape[:2], new.shape[3]),
        f"'past_{what}' of shape {list(past.shape)} does not fit the new {what} {list(new.shape)}",
    )
    return build.concat([past, new], 2)


def _mask(ctx: NodeContext, mask: Node, scores: Node) -> tuple[Node | None, Node | None]:
    """An attention mask as (visible, bias), padded to all keys; one of the two is None."""
    keys = scores.shape[3]
    ctx.require(
        1 <= len(mask.shape) <= 4 and mask.shape[-1] <= keys,
        f"'attn_mask' of shape {list(mask.shape)} does not fit scores of shape {list(scores.shape)}",
    )
    as_bool = mask.dtype == "bool"
    if not as_bool:
        mask = build.cast(mask, scores.dtype)
    missing = keys - mask.shape[-1]
    if missing:
        nothing = [0] * len(mask.shape)
        mask = build.pad(mask, nothing, [*nothing[1:], missing], False if as_bool else att.MASKED)
    ctx.require(
        build.broadcast_shape(mask.shape, scores.shape) == scores.shape,
        f"'attn_mask' of shape {list(mask.shape)} does not broadcast to {list(scores.shape)}",
    )
    return (mask, None) if as_bool else (None, mask)


@onnx_op("Attention", since=23, tolerance=ACCUMULATED)
def attention(
    ctx: NodeContext,
    q: Node,
    k: Node,
    v: Node,
    mask: Node | None = None,
    past_key: Node | None = None,
    past_value: Node | None = None,
    lengths: Node | None = None,
) -> tuple[Node, Node, Node, Node]:
    """softmax(scale Q Kᵀ + mask) V by heads, with cached keys and values; also the cache and the scores."""
    ctx.require(all(map(is_float, (q, k, v))), "Q, K and V must be floats")
    ctx.same_dtype(q, k)
    ctx.require(len(q.shape) == len(k.shape) == len(v.shape), "Q, K and V must have one rank")
    ctx.require((past_key is None) == (past_value is None), "past_key and past_value come together")
    flat = len(q.shape) == 3
    q = _heads(ctx, q, "q_num_heads", "Q")
    k = _with_past(ctx, past_key, _heads(ctx, k, "kv_num_heads", "K"), "key")
    v = _with_past(ctx, past_value, _heads(ctx, v, "kv_num_heads", "V"), "value")
    batch, heads, queries, size = q.shape
    _, kv_heads, keys, _ = k.shape
    ctx.require(
        k.shape[0] == batch and k.shape[3] == size and v.shape[:3] == k.shape[:3],
        f"Q {list(q.shape)}, K {list(k.shape)} and V {list(v.shape)} (by heads) do not fit together",
    )
    ctx.require(
        kv_heads > 0 and heads % kv_heads == 0, f"{heads} query heads are no multiple of {kv_heads} key heads"
    )
    if lengths is not None:
        ctx.require(ctx.opset >= 24, "takes at most 6 inputs before opset 24")
        ctx.require(past_key is None, "nonpad_kv_seqlen and past_key exclude each other")
        ctx.require(
            lengths.shape == (batch,) and lengths.dtype == "int64",
            f"'nonpad_kv_seqlen' must be int64 of shape [{batch}], not {lengths.dtype} {list(lengths.shape)}",
        )
    raw = _scaled_scores(ctx, q, k)
    soft = att.capped(raw, ctx.number("softcap", 0.0))
    visible, may_be_empty = _visible(ctx, queries, keys, past_key, lengths)
    bias = None
    if mask is not None:
        allowed, bias = _mask(ctx, mask, raw)
        visible, may_be_empty = att.both(allowed, visible), True
    masked = att.hidden(att.biased(soft, bias), visible)
    precision = ctx.dtype("softmax_precision", raw.dtype) or raw.dtype
    ctx.require(precision in _WIDTH, f"'softmax_precision' must name a float type, not {precision}")
    probabilities = att.rounded_softmax(masked, precision, may_be_empty)
    common = max(q.dtype, v.dtype, key=lambda d: _WIDTH.get(d, 0))
    result = build.cast(att.weigh(build.cast(probabilities, common), build.cast(v, common)), q.dtype)
    mode = ctx.integer("qk_matmul_output_mode", 0, choices=range(4))
    shown = (raw, soft, masked, probabilities)[mode]
    return att.merge_heads(result) if flat else result, k, v, shown


def _scaled_scores(ctx: NodeContext, q: Node, k: Node) -> Node:
    """scale · Q Kᵀ; for narrow floats, its root goes to each side before the product, as ONNX does it."""
    scale = ctx.number("scale", None)
    scale = 1 / math.sqrt(q.shape[3] or 1) if scale is None else scale
    if q.dtype not in att.NARROW:
        return att.scores(q, k, scale)
    root = math.sqrt(abs(scale))
    return att.contract(att.scaled(q, root), att.scaled(k, math.copysign(root, scale)))


def _visible(
    ctx: NodeContext, queries: int, keys: int, past: Node | None, lengths: Node | None
) -> tuple[Node | None, bool]:
    """Which keys the causal and window attributes and the lengths leave; and whether a row may see none."""
    causal = ctx.flag("is_causal")
    left = right = -1
    if ctx.opset >= 25:
        left, right = (ctx.integer(f"{side}_window_size", -1, minimum=-1) for side in ("left", "right"))
    offset: Node | int = 0 if past is None else past.shape[2]
    visible: Node | None = None
    if lengths is not None:
        offset = elementwise("SUB", lengths, like(queries, lengths))
        visible = att.before(lengths, keys)
    if causal or left >= 0 or right >= 0:
        gap = att.distance(queries, keys, offset)
        # a single query after all keys sees them all
        if causal and (not isinstance(offset, int) or offset < keys - 1):
            visible = att.both(visible, att.at_least(gap, 0))
        if left >= 0:
            visible = att.both(visible, att.at_most(gap, left))
        if right >= 0:
            visible = att.both(visible, att.at_least(gap, -right))
    return visible, lengths is not None or left >= 0 or right >= 0


@onnx_op("RotaryEmbedding", since=23, tolerance=ROUNDED)
def rotary_embedding(
    ctx: NodeContext, x: Node, cosine: Node, sine: Node, positions: Node | None = None
) -> Node:
    """Pairs of elements of each head turned by the angle of their position."""
    ctx.require(is_float(x), f"expected a float input, not {x.dtype}")
    ctx.same_dtype(x, cosine, sine)
    ctx.require(len(x.shape) in (3, 4), f"the input must have 3 or 4 dimensions, not {list(x.shape)}")
    if len(x.shape) == 4:
        heads = build.permute(x, [0, 2, 1, 3])
    else:
        count = ctx.integer("num_heads", 0)
        ctx.require(
            count > 0 and x.shape[2] % count == 0,
            f"'num_heads' {count} does not divide the last dimension of an input of shape {list(x.shape)}",
        )
        heads = build.reshape(x, [*x.shape[:2], count, x.shape[2] // count])
    batch, sequence, _, size = heads.shape
    turned = ctx.integer("rotary_embedding_dim", 0, minimum=0) or size
    ctx.require(turned % 2 == 0 and turned <= size, f"{turned} of {size} elements cannot be turned in pairs")
    ctx.require(cosine.shape == sine.shape, f"tables of {list(cosine.shape)} and {list(sine.shape)} differ")
    if positions is not None:
        ctx.require(
            len(cosine.shape) == 2 and positions.shape == (batch, sequence) and positions.dtype == "int64",
            f"position_ids must be int64 of shape {[batch, sequence]} with tables of rank 2",
        )
        places = wrapped(ctx, positions, cosine.shape[0], "position_ids")
        cosine, sine = (build.gather(t, places, 0) for t in (cosine, sine))
    ctx.require(
        cosine.shape == (batch, sequence, turned // 2),
        f"the tables give {list(cosine.shape)}, but {[batch, sequence, turned // 2]} is needed",
    )
    result = att.rotate(heads, cosine, sine, ctx.flag("interleaved"))
    if len(x.shape) == 4:
        return build.permute(result, [0, 2, 1, 3])
    return build.reshape(result, x.shape)


@onnx_op("TensorScatter", since=24, tolerance=EXACT)
def tensor_scatter(ctx: NodeContext, cache: Node, update: Node, starts: Node | None = None) -> Node:
    """A cache with an update written along its sequence axis, from a place per batch element on."""
    ctx.same_dtype(cache, update)
    rank = len(cache.shape)
    axis = ctx.axis(ctx.integer("axis", -2), rank)
    ctx.require(axis > 0, "the attribute 'axis' must not name the batch dimension")
    circular = ctx.string("mode", "linear", ("linear", "circular")) == "circular"
    ctx.require(
        len(update.shape) == rank
        and all(u == c or (i == axis and u <= c) for i, (u, c) in enumerate(zip(update.shape, cache.shape))),
        f"an update of {list(update.shape)} does not fit a cache of {list(cache.shape)} along axis {axis}",
    )
    shape, longest, length = cache.shape, cache.shape[axis], update.shape[axis]
    if not length or not cache.size:
        return cache
    place = build.position(index(output_axis(axis, longest)), shape, "int64")
    if starts is not None:
        ctx.require(
            starts.shape == shape[:1] and starts.dtype == "int64",
            f"'write_indices' must be int64 of shape {[shape[0]]}, not {starts.dtype} {list(starts.shape)}",
        )
        first = build.expand(build.reshape(starts, [shape[0], *[1] * (rank - 1)]), shape)
        place = elementwise("SUB", place, first)
        if circular:
            place = elementwise("MOD", place, like(longest, place))
    inside = elementwise("AND", att.at_least(place, 0), att.at_most(place, length - 1))
    reads = [index(a) for a in cache.axes]
    reads[axis] = index(Slot(0, 0, length - 1))
    return elementwise("WHERE", inside, build.indexed_view(update, reads, shape, [place]), cache)
