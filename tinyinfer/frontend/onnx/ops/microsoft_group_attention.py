"""com.microsoft.GroupQueryAttention: grouped heads, caches with a length per batch element, rotation."""

from __future__ import annotations

import math

from tinyinfer.frontend.onnx.blocks import attention as att
from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import is_float, like
from tinyinfer.frontend.onnx.ops.microsoft_attention import DOMAIN, additive, table_rows
from tinyinfer.frontend.onnx.ops.reduce import reduce_mean
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.index import Slot, index
from tinyinfer.ir.node import Node, output_axis


@onnx_op("GroupQueryAttention", domain=DOMAIN, tolerance=ACCUMULATED)
def group_query_attention(
    ctx: NodeContext,
    query: Node,
    key: Node | None = None,
    value: Node | None = None,
    past_key: Node | None = None,
    past_value: Node | None = None,
    last: Node | None = None,
    total: Node | None = None,
    cosine: Node | None = None,
    sine: Node | None = None,
    positions: Node | None = None,
    bias: Node | None = None,
    sink: Node | None = None,
    key_scale: Node | None = None,
    value_scale: Node | None = None,
    query_norm: Node | None = None,
    key_norm: Node | None = None,
    query_lengths: Node | None = None,
) -> tuple[Node, Node, Node, Node]:
    """Causal attention of grouped heads; `last` is the position of the last key of each batch element."""
    _refuse_quantised(ctx, key_scale, value_scale)
    q, k, v = _heads(ctx, query, key, value)
    batch, _, queries, _ = q.shape
    ctx.require(last is not None and total is not None, "seqlens_k and total_sequence_length are required")
    assert last is not None and total is not None
    ctx.require(last.size == batch, f"seqlens_k must hold {batch} numbers, not {list(last.shape)}")
    ctx.require(total.size == 1, f"total_sequence_length must be one number, not {list(total.shape)}")
    longest = int(ctx.constant_scalar(total, "total_sequence_length"))
    ctx.require(
        queries <= longest <= ctx.importer.limits.max_elements,
        f"total_sequence_length {longest} is less than the {queries} queries, or too large",
    )
    # the cached keys of a batch element end where its new ones begin
    prompt = longest == queries and query_lengths is None
    start: Node | int = 0
    if not prompt:
        end = build.reshape(last, [batch])
        new = like(queries - 1, end)
        if query_lengths is not None:
            ctx.require(query_lengths.shape == (batch,), f"query_seqlens must be {[batch]}")
            new = elementwise("SUB", build.cast(query_lengths, end.dtype), like(1, end))
        start = elementwise("SUB", end, new)
        if batch == 1 and query_lengths is None:
            start = longest - queries
    q, k = _normalised(ctx, q, query_norm, "q"), _normalised(ctx, k, key_norm, "k")
    if ctx.flag("do_rotary"):
        q, k = _rotated(ctx, q, k, cosine, sine, positions, start)
    ctx.require((past_key is None) == (past_value is None), "past_key and past_value come together")
    k, v = (_appended(ctx, past, new, start, longest) for past, new in ((past_key, k), (past_value, v)))
    result, shown = _attend(ctx, q, k, v, start, build.reshape(last, [batch]), longest, bias, sink)
    return att.merge_heads(result), k, v, shown


def _refuse_quantised(ctx: NodeContext, *scales: Node | None) -> None:
    if any(s is not None for s in scales) or ctx.integer("kv_cache_bit_width", 0):
        ctx.unsupported("a quantised cache is not supported")
    if ctx.flag("sliding_window_cache"):
        ctx.unsupported("a cache of the size of the window is not supported")


def _heads(ctx: NodeContext, query: Node, key: Node | None, value: Node | None) -> tuple[Node, Node, Node]:
    """Query, key and value by heads; `query` holds all three where there is no key."""
    count, groups = (ctx.integer(name, REQUIRED, minimum=1) for name in ("num_heads", "kv_num_heads"))
    ctx.require(count % groups == 0, f"{count} query heads are no multiple of {groups} key heads")
    ctx.require(is_float(query), f"expected a float input, not {query.dtype}")
    ctx.same_dtype(query, key, value)
    ctx.require(
        len(query.shape) == 3 and query.size > 0,
        f"query must be [batch, sequence, hidden], not {list(query.shape)}",
    )
    ctx.require((key is None) == (value is None), "key and value come together")
    batch, queries, width = query.shape
    if key is None or value is None:
        all_heads = count + 2 * groups
        ctx.require(width % all_heads == 0, f"{width} elements do not hold {all_heads} heads")
        size = width // all_heads
        heads = att.split_heads(query, all_heads)
        bounds = (0, count, count + groups, count + 2 * groups)
        q, k, v = (
            build.shrink(heads, [0, a, 0, 0], [batch, b, queries, size]) for a, b in zip(bounds, bounds[1:])
        )
        return q, k, v
    ctx.require(width % count == 0, f"{width} elements do not hold {count} heads")
    wanted = (batch, queries, width // count * groups)
    ctx.require(
        key.shape == wanted and value.shape == wanted,
        f"key and value must be {list(wanted)}, not {list(key.shape)} and {list(value.shape)}",
    )
    return att.split_heads(query, count), att.split_heads(key, groups), att.split_heads(value, groups)


def _normalised(ctx: NodeContext, x: Node, weight: Node | None, side: str) -> Node:
    """Each head over its root mean square, times a weight; `x` where there is none."""
    if weight is None:
        return x
    ctx.require(weight.shape == x.shape[3:], f"the norm's weight must be {list(x.shape[3:])}")
    epsilon = ctx.number(f"{side}_norm_epsilon", ctx.number("qk_norm_epsilon", 1e-6))
    wide = build.cast(x, att.wide(x.dtype))
    square = reduce_mean(elementwise("MUL", wide, wide), [3])
    root = elementwise("SQRT", elementwise("ADD", square, like(epsilon, square)))
    result = build.apply("MUL", build.apply("DIV", wide, root), build.cast(weight, wide.dtype))
    return build.cast(result, x.dtype)


def _rotated(
    ctx: NodeContext,
    q: Node,
    k: Node,
    cosine: Node | None,
    sine: Node | None,
    positions: Node | None,
    start: Node | int,
) -> tuple[Node, Node]:
    ctx.require(cosine is not None and sine is not None, "do_rotary needs cos_cache and sin_cache")
    assert cosine is not None and sine is not None
    ctx.same_dtype(q, cosine, sine)
    ctx.require(
        len(cosine.shape) == 2 and cosine.shape == sine.shape and 0 < 2 * cosine.shape[1] <= q.shape[3],
        f"tables of {list(cosine.shape)} and {list(sine.shape)} do not turn heads of {q.shape[3]}",
    )
    batch, _, queries, _ = q.shape
    if positions is None:
        here = index(output_axis(1, queries))
        if isinstance(start, int):
            positions = build.position(here + start, (batch, queries), "int32")
        else:
            positions = elementwise(
                "ADD",
                build.position(here, (batch, queries), "int32"),
                att.per_batch(start, (batch, queries)),
            )
    elif isinstance(start, int) and start == 0:
        # of a prompt only the first position counts
        ctx.require(positions.size > 0, "position_ids is empty")
        positions = build.shrink(build.reshape(positions, [positions.size]), [0], [1])
    tables = table_rows(ctx, cosine, sine, positions, batch, queries)
    turned = (
        att.rotate(build.permute(x, [0, 2, 1, 3]), *tables, ctx.flag("rotary_interleaved")) for x in (q, k)
    )
    q, k = (build.permute(x, [0, 2, 1, 3]) for x in turned)
    return q, k


def _appended(ctx: NodeContext, past: Node | None, new: Node, start: Node | int, longest: int) -> Node:
    """The cache with new rows from `start` on, and zeros after them; at least `longest` rows."""
    batch, heads, count, size = new.shape
    room = 0
    if past is not None:
        ctx.same_dtype(past, new)
        ctx.require(
            len(past.shape) == 4 and (*past.shape[:2], past.shape[3]) == (batch, heads, size),
            f"a cache of shape {list(past.shape)} does not fit new rows {list(new.shape)}",
        )
        room = past.shape[2]
    rows = max(longest, room)
    shape = (batch, heads, rows, size)
    if isinstance(start, int):
        ctx.require(start <= room, f"{start} keys are said to be cached, but there are {room}")
        new = build.pad(new, [0] * 4, [0, 0, rows - start - count, 0])
        if past is None or start == 0:
            return new
        return build.concat([build.shrink(past, [0] * 4, [batch, heads, start, size]), new], 2)
    if past is None:
        past = build.full(0, shape, new.dtype)
    past = build.pad(past, [0] * 4, [0, 0, rows - room, 0])
    here = build.position(index(output_axis(2, rows)), shape, "int32")
    place = elementwise("SUB", here, att.per_batch(start, shape))
    reads = [index(output_axis(i, d)) for i, d in enumerate(shape)]
    reads[2] = index(Slot(0, 0, count - 1))
    # beyond the new rows the view gives zeros
    written = build.indexed_view(new, reads, shape, [place])
    return elementwise("WHERE", att.at_most(place, -1), past, written)


def _attend(
    ctx: NodeContext,
    q: Node,
    k: Node,
    v: Node,
    start: Node | int,
    last: Node,
    longest: int,
    bias: Node | None,
    sink: Node | None,
) -> tuple[Node, Node]:
    """The result by heads, and the scores or probabilities that the attribute qk_output asks for."""
    dtype, (_, _, queries, size), keys = q.dtype, q.shape, k.shape[2]
    q, k, v = (build.cast(x, att.wide(dtype)) for x in (q, k, v))
    scale = ctx.number("scale", 0.0) or 1 / math.sqrt(size)
    scores = att.capped(att.scores(q, k, scale), ctx.number("softcap", 0.0))
    if bias is not None:
        if len(bias.shape) == 4 and bias.shape[3] == longest < keys:
            bias = build.pad(bias, [0] * 4, [0, 0, 0, keys - longest])
        bias = additive(ctx, bias, q if bias.dtype == q.dtype else build.cast(q, bias.dtype), keys)
        assert bias is not None
        scores = build.apply("ADD", scores, build.cast(bias, scores.dtype))
    visible: Node | None
    window = ctx.integer("local_window_size", -1, minimum=-1)
    if ctx.flag("causal", True):
        gap = att.distance(queries, keys, start)
        # a single query after all keys sees them all
        visible = None if start == keys - 1 else att.at_least(gap, 0)
        if window > 0:
            visible = att.both(visible, att.at_most(gap, window - 1))
    else:
        ctx.require(window <= 0, "local_window_size needs causal = 1")
        visible = att.before(elementwise("ADD", last, like(1, last)), keys)
    masked = att.hidden(scores, visible)
    if sink is not None:
        ctx.require(sink.shape == (q.shape[1],), f"head_sink must be {[q.shape[1]]}, not {list(sink.shape)}")
        sink = build.cast(build.reshape(sink, [1, q.shape[1], 1, 1]), scores.dtype)
    elif ctx.flag("smooth_softmax"):
        sink = build.full(0, (1, 1, 1, 1), scores.dtype)
    probabilities = att.softmax(masked, not isinstance(start, int), sink)
    mode = ctx.integer("qk_output", 0, choices=range(3))
    raw = scores
    if visible is not None:
        raw = build.apply("WHERE", visible, scores, build.scalar(0, scores.dtype))
    shown = build.cast(probabilities if mode == 2 else raw, dtype)
    shown = build.shrink(shown, [0] * 4, [*shown.shape[:3], longest])
    return build.cast(att.weigh(probabilities, v), dtype), shown
