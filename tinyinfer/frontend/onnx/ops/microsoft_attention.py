"""com.microsoft attention as onnxruntime defines it: projected or not, with caches; rotary positions.

Masks of this domain hold 1 for keys to attend and 0 for keys whose score gets `mask_filter_value` added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinyinfer.frontend.onnx.blocks import attention as att
from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, ROUNDED, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import is_float, like
from tinyinfer.frontend.onnx.ops.index import wrapped
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.index import Slot, index
from tinyinfer.ir.node import Node, output_axis

DOMAIN = "com.microsoft"


@dataclass
class Masks:
    """What decides about the keys that a query attends, beside the scores."""

    visible: Node | None = None
    """Whether a key may be attended at all."""

    filtered: Node | None = None
    """What is added to the scores of padding: 0 or `mask_filter_value`."""

    bias: Node | None = None
    """What is added to the scores of all keys."""


def padding(
    ctx: NodeContext, mask: Node | None, batch: int, queries: int, keys: int, dtype: str
) -> Node | None:
    """The additive form of a mask or of key lengths, [batch, 1, 1 or queries, keys].

    `mask` is [batch] lengths, [2 batch] ends and starts, [3 batch + 2] lengths and offsets, [batch, keys],
    [batch, queries, keys] or [batch, 1, longest, longest], whose rows start at the first query.
    """
    if mask is None:
        return None
    ctx.require(mask.dtype in ("int32", "int64", "bool"), f"the mask must hold integers, not {mask.dtype}")
    shape = mask.shape
    if shape in ((batch, 1), (1, 1)) and keys != 1:
        return None  # one value for all keys changes nothing
    attended = _attended(ctx, mask, batch, queries, keys)
    value = ctx.number("mask_filter_value", -10000.0)
    return elementwise(
        "WHERE",
        attended,
        build.full(0, attended.shape, dtype),
        build.full(value, attended.shape, dtype),
    )


def _attended(ctx: NodeContext, mask: Node, batch: int, queries: int, keys: int) -> Node:
    shape = mask.shape
    if len(shape) == 1 and shape[0] in (batch, 2 * batch, 3 * batch + 2):
        ends = build.shrink(mask, [0], [batch])
        attended = att.before(ends, keys)
        if shape[0] == 2 * batch:
            starts = build.shrink(mask, [batch], [2 * batch])
            attended = elementwise("AND", attended, elementwise("NOT", att.before(starts, keys)))
        return attended
    if mask.dtype != "bool":
        mask = elementwise("CMPLT", like(0, mask), mask)
    if shape == (batch, keys):
        return build.reshape(mask, [batch, 1, 1, keys])
    if shape == (batch, queries, keys):
        return build.reshape(mask, [batch, 1, queries, keys])
    if len(shape) == 4 and shape[:2] == (batch, 1) and shape[2] >= keys and shape[3] >= keys:
        return build.shrink(mask, [0, 0, keys - queries, 0], [batch, 1, keys, keys])
    ctx.fail(
        f"a mask of shape {list(shape)} fits neither a batch of {batch} nor {queries} queries of {keys} keys"
    )


def additive(ctx: NodeContext, bias: Node | None, q: Node, keys: int) -> Node | None:
    """A checked attention_bias [batch or 1, heads or 1, queries, keys]."""
    if bias is not None:
        ctx.same_dtype(q, bias)
        wanted = (*q.shape[:3], keys)
        ctx.require(
            len(bias.shape) == 4
            and bias.shape[2:] == wanted[2:]
            and all(b in (1, w) for b, w in zip(bias.shape, wanted)),
            f"attention_bias of shape {list(bias.shape)} does not broadcast to {list(wanted)}",
        )
    return bias


def causal(ctx: NodeContext, queries: int, keys: int, past: int) -> Node | None:
    """Every query sees the cached keys and new ones up to its own; the last query sees all."""
    if queries == 1 or not ctx.flag("unidirectional"):
        return None
    visible = att.at_least(att.distance(queries, keys, past), 0)
    if past + queries < keys:
        last = build.position(index(output_axis(2, queries)), visible.shape, "int32")
        visible = elementwise("OR", visible, att.at_least(last, queries - 1))
    return visible


def attend(ctx: NodeContext, q: Node, k: Node, v: Node, masks: Masks) -> tuple[Node, Node]:
    """softmax(scale q kᵀ + masks) v by heads, [batch, heads, queries, size]; also the masked scores.

    In float32 for narrow floats, rounded where onnxruntime stores a result.
    """
    dtype = q.dtype
    q, k, v = (build.cast(x, att.wide(dtype)) for x in (q, k, v))
    scale = ctx.number("scale", 0.0) or 1 / math.sqrt(q.shape[3])
    scores = att.scores(q, k, scale)
    for bias in (masks.bias, masks.filtered):
        if bias is not None:
            scores = build.apply("ADD", scores, build.cast(bias, scores.dtype))
    if masks.visible is not None:
        lowest = build.scalar(att.LOWEST[scores.dtype], scores.dtype)
        scores = build.apply("WHERE", masks.visible, scores, lowest)
    probabilities = att.softmax(scores, False)
    return build.cast(att.weigh(probabilities, v), dtype), build.cast(scores, dtype)


def heads_of(ctx: NodeContext) -> int:
    """The attribute num_heads."""
    return ctx.integer("num_heads", REQUIRED, minimum=1)


def fitting(ctx: NodeContext, q: Node, k: Node, v: Node) -> None:
    """Fail unless query, key and value by heads fit together."""
    ctx.require(
        q.shape[:2] == k.shape[:2] == v.shape[:2] and q.shape[3] == k.shape[3] and k.shape[2] == v.shape[2],
        f"query {list(q.shape)}, key {list(k.shape)} and value {list(v.shape)} do not fit together",
    )
    ctx.require(min(*q.shape, *k.shape, *v.shape) > 0, "query, key and value must not be empty")


def _project(ctx: NodeContext, x: Node, weights: Node, bias: Node | None) -> Node:
    ctx.require(is_float(x), f"expected a float input, not {x.dtype}")
    ctx.same_dtype(x, weights, bias)
    ctx.require(
        len(x.shape) == 3 and len(weights.shape) == 2 and weights.shape[0] == x.shape[2],
        f"weights of shape {list(weights.shape)} do not fit an input of {list(x.shape)}",
    )
    result = build.matmul(x, weights)
    if bias is None:
        return result
    ctx.require(
        bias.shape == weights.shape[1:], f"the bias must be {list(weights.shape[1:])}, not {list(bias.shape)}"
    )
    return build.apply("ADD", result, bias)


def _part(x: Node, start: int, stop: int) -> Node:
    return build.shrink(x, [0] * (len(x.shape) - 1) + [start], [*x.shape[:-1], stop])


@onnx_op("Attention", domain=DOMAIN, tolerance=ACCUMULATED)
def attention(
    ctx: NodeContext,
    x: Node,
    weights: Node,
    bias: Node | None = None,
    mask: Node | None = None,
    past: Node | None = None,
    attention_bias: Node | None = None,
    past_length: Node | None = None,
) -> tuple[Node, Node]:
    """Self attention with its input projection; `past` and `present` are [2, batch, heads, keys, size]."""
    return attend_projected(ctx, _project(ctx, x, weights, bias), mask, past, attention_bias)


def attend_projected(
    ctx: NodeContext, made: Node, mask: Node | None, past: Node | None, attention_bias: Node | None
) -> tuple[Node, Node]:
    """Self attention of query, key and value side by side in [batch, queries, width], and the new state."""
    for name in ("do_rotary", "past_present_share_buffer"):
        if ctx.flag(name):
            ctx.unsupported(f"the attribute '{name}' is not supported")
    count = heads_of(ctx)
    batch, queries, width = made.shape
    sizes = ctx.integers("qkv_hidden_sizes", [width // 3] * 3, length=3, minimum=1)
    ctx.require(
        sum(sizes) == width and sizes[0] == sizes[1] and all(s % count == 0 for s in sizes),
        f"{width} columns of weights do not split into {sizes} by {count} heads",
    )
    q = att.split_heads(_part(made, 0, sizes[0]), count)
    if sizes[1] == sizes[2]:
        both = build.reshape(_part(made, sizes[0], width), [batch, queries, 2, count, sizes[1] // count])
        present = build.permute(both, [2, 0, 3, 1, 4])
        if past is not None:
            ctx.same_dtype(made, past)
            wanted = present.shape
            ctx.require(
                len(past.shape) == 5 and (*past.shape[:3], past.shape[4]) == (*wanted[:3], wanted[4]),
                f"'past' of shape {list(past.shape)} does not fit new keys and values {list(wanted)}",
            )
            present = build.concat([past, present], 3)
        k, v = (
            build.reshape(
                build.shrink(present, [i, 0, 0, 0, 0], [i + 1, *present.shape[1:]]), present.shape[1:]
            )
            for i in (0, 1)
        )
    else:
        ctx.require(past is None and ctx.outputs < 2, "a state needs values of the size of the keys")
        k = present = att.split_heads(_part(made, sizes[0], sizes[0] + sizes[1]), count)
        v = att.split_heads(_part(made, sizes[0] + sizes[1], width), count)
    fitting(ctx, q, k, v)
    keys = k.shape[2]
    masks = Masks(
        causal(ctx, queries, keys, keys - queries),
        padding(ctx, mask, batch, queries, keys, att.wide(made.dtype)),
        additive(ctx, attention_bias, q, keys),
    )
    result, _ = attend(ctx, q, k, v, masks)
    return att.merge_heads(result), present


@onnx_op("MultiHeadAttention", domain=DOMAIN, tolerance=ACCUMULATED)
def multi_head_attention(
    ctx: NodeContext,
    query: Node,
    key: Node | None = None,
    value: Node | None = None,
    bias: Node | None = None,
    mask: Node | None = None,
    attention_bias: Node | None = None,
    past_key: Node | None = None,
    past_value: Node | None = None,
    past_length: Node | None = None,
    indirection: Node | None = None,
) -> tuple[Node, Node, Node, Node]:
    """Self or cross attention of projected queries, keys and values; also the cache and the scores."""
    if past_length is not None or indirection is not None:
        ctx.unsupported("a cache that past and present share is not supported")
    q, k, v = _query_key_value(ctx, query, key, value, bias)
    k, v = _cached(ctx, past_key, past_value, k, v)
    fitting(ctx, q, k, v)
    batch, _, queries, _ = q.shape
    keys = k.shape[2]
    masks = Masks(
        causal(ctx, queries, keys, 0 if past_key is None else past_key.shape[2]),
        padding(ctx, mask, batch, queries, keys, att.wide(q.dtype)),
        additive(ctx, attention_bias, q, keys),
    )
    result, scores = attend(ctx, q, k, v, masks)
    return att.merge_heads(result), k, v, scores


def _cached(
    ctx: NodeContext, past_key: Node | None, past_value: Node | None, k: Node, v: Node
) -> tuple[Node, Node]:
    ctx.require((past_key is None) == (past_value is None), "past_key and past_value come together")
    if past_key is None or past_value is None:
        return k, v
    ctx.same_dtype(past_key, past_value, k)
    for past, new, what in ((past_key, k, "past_key"), (past_value, v, "past_value")):
        ctx.require(
            len(past.shape) == 4 and (*past.shape[:2], past.shape[3]) == (*new.shape[:2], new.shape[3]),
            f"'{what}' of shape {list(past.shape)} does not fit {list(new.shape)}",
        )
    return build.concat([past_key, k], 2), build.concat([past_value, v], 2)


def _query_key_value(
    ctx: NodeContext, query: Node, key: Node | None, value: Node | None, bias: Node | None
) -> tuple[Node, Node, Node]:
    """Query, key and value by heads from any of the packed or separate layouts, biased."""
    count = heads_of(ctx)
    ctx.require(is_float(query), f"expected a float input, not {query.dtype}")
    ctx.same_dtype(query, key, value, bias)
    if key is None:
        ctx.require(
            len(query.shape) == 5 and query.shape[2:4] == (count, 3),
            f"a query without key must be [batch, sequence, {count}, 3, size], not {list(query.shape)}",
        )
        query, key, value = _unpacked(query)
    elif len(key.shape) == 5:
        ctx.require(
            key.shape[2:4] == (count, 2) and value is None,
            f"a packed key must be [batch, sequence, {count}, 2, size], not {list(key.shape)}",
        )
        key, value = _unpacked(key)
    ctx.require(value is not None, "the value is missing")
    assert value is not None
    parts = [query, key, value]
    if bias is not None:
        ctx.require(all(len(p.shape) == 3 for p in parts), "a bias needs inputs of 3 dimensions")
        widths = [p.shape[2] for p in parts]
        ctx.require(bias.shape == (sum(widths),), f"the bias must be {[sum(widths)]}, not {list(bias.shape)}")
        starts = [0, widths[0], widths[0] + widths[1]]
        parts = [build.apply("ADD", p, _part(bias, s, s + w)) for p, s, w in zip(parts, starts, widths)]
    result = []
    for part in parts:
        if len(part.shape) == 4 and part is not query:
            ctx.require(part.shape[1] == count, f"{list(part.shape)} does not hold {count} heads")
            result.append(part)
            continue
        ctx.require(
            len(part.shape) == 3 and part.shape[2] % count == 0,
            f"{list(part.shape)} is not [batch, sequence, {count} heads · size]",
        )
        result.append(att.split_heads(part, count))
    return result[0], result[1], result[2]


def _unpacked(x: Node) -> list[Node]:
    """[batch, sequence, heads, parts, size] as `parts` times [batch, sequence, heads · size]."""
    batch, sequence, heads, parts, size = x.shape
    taken = (build.shrink(x, [0, 0, 0, i, 0], [batch, sequence, heads, i + 1, size]) for i in range(parts))
    return [build.reshape(t, [batch, sequence, heads * size]) for t in taken]


@onnx_op("DecoderMaskedMultiHeadAttention", domain=DOMAIN, tolerance=ACCUMULATED)
def decoder_masked_multi_head_attention(
    ctx: NodeContext,
    query: Node,
    key: Node | None = None,
    value: Node | None = None,
    mask: Node | None = None,
    attention_bias: Node | None = None,
    past_key: Node | None = None,
    past_value: Node | None = None,
    past_length: Node | None = None,
    beam_width: Node | None = None,
    indirection: Node | None = None,
    bias: Node | None = None,
) -> tuple[Node, Node, Node, Node]:
    """MultiHeadAttention of one query, whose key and value may be written into caches of fixed size."""
    if indirection is not None:
        ctx.unsupported("a cache that is read through beams (cache_indirection) is not supported")
    count = heads_of(ctx)
    if key is None:
        ctx.require(
            len(query.shape) == 3 and query.shape[2] % (3 * count) == 0,
            f"a query without key must hold three times {count} heads, not {list(query.shape)}",
        )
        width = query.shape[2] // 3
        query, key, value = (_part(query, i * width, (i + 1) * width) for i in range(3))
    q, k, v = _query_key_value(ctx, query, key, value, bias)
    batch, _, queries, _ = q.shape
    ctx.require(queries == 1, f"takes one query, not {queries}")
    lengths = None
    if ctx.flag("past_present_share_buffer") and past_key is not None and past_value is not None:
        ctx.require(
            past_length is not None and past_length.size == 1 and k.shape[2] == 1,
            "a shared buffer needs past_sequence_length and one new key",
        )
        assert past_length is not None
        start = build.expand(build.reshape(past_length, [1]), [batch])
        k, v = (written(past, new, start) for past, new in ((past_key, k), (past_value, v)))
        lengths = elementwise("ADD", start, like(1, start))
    else:
        k, v = _cached(ctx, past_key, past_value, k, v)
    fitting(ctx, q, k, v)
    keys = k.shape[2]
    visible = None if lengths is None else att.before(lengths, keys)
    if mask is not None and len(mask.shape) == 2 and mask.shape[1] < keys and lengths is not None:
        mask = build.pad(mask, [0, 0], [0, keys - mask.shape[1]])
    if attention_bias is not None and lengths is not None and len(attention_bias.shape) == 4:
        missing = keys - attention_bias.shape[3]
        attention_bias = build.pad(attention_bias, [0] * 4, [0, 0, 0, max(missing, 0)])
    masks = Masks(
        visible,
        padding(ctx, mask, batch, queries, keys, att.wide(q.dtype)),
        additive(ctx, attention_bias, q, keys),
    )
    result, scores = attend(ctx, q, k, v, masks)
    return att.merge_heads(result), k, v, scores


def written(cache: Node, new: Node, starts: Node) -> Node:
    """`new` [batch, heads, count, size] written into `cache` from a position per batch element on.

    Beyond what is written nothing changes.
    """
    place, inside = _place(cache.shape, new.shape[2], starts)
    reads = [index(a) for a in cache.axes]
    reads[2] = index(Slot(0, 0, new.shape[2] - 1))
    return elementwise("WHERE", inside, build.indexed_view(new, reads, cache.shape, [place]), cache)


def _place(shape: tuple[int, ...], count: int, starts: Node) -> tuple[Node, Node]:
    """For every position of a cache, which of `count` new rows stands there, and whether one does."""
    here = build.position(index(output_axis(2, shape[2])), shape, "int32")
    place = elementwise("SUB", here, att.per_batch(starts, shape))
    return place, elementwise("AND", att.at_least(place, 0), att.at_most(place, count - 1))


@onnx_op("RotaryEmbedding", domain=DOMAIN, tolerance=ROUNDED)
def rotary_embedding(ctx: NodeContext, x: Node, positions: Node, cosine: Node, sine: Node) -> Node:
    """Pairs of elements of each head turned by the angle of their position, or of the first position."""
    ctx.require(is_float(x), f"expected a float input, not {x.dtype}")
    ctx.same_dtype(x, cosine, sine)
    ctx.require(len(x.shape) in (3, 4), f"the input must have 3 or 4 dimensions, not {list(x.shape)}")
    ctx.require(
        len(cosine.shape) == 2 and cosine.shape == sine.shape and cosine.size > 0,
        f"tables of {list(cosine.shape)} and {list(sine.shape)} are not two matrices of one shape",
    )
    turned = 2 * cosine.shape[1]
    if len(x.shape) == 4:
        heads = build.permute(x, [0, 2, 1, 3])
    else:
        count = ctx.integer("num_heads", 0, minimum=0) or max(x.shape[2] // turned, 1)
        ctx.require(x.shape[2] % count == 0, f"{count} heads do not divide {list(x.shape)}")
        heads = build.reshape(x, [*x.shape[:2], count, x.shape[2] // count])
    batch, sequence, _, size = heads.shape
    wanted = ctx.integer("rotary_embedding_dim", 0, minimum=0) or turned
    ctx.require(
        wanted == turned and turned <= size, f"tables of {turned} elements do not turn {wanted} of {size}"
    )
    result = att.rotate(
        heads, *table_rows(ctx, cosine, sine, positions, batch, sequence), ctx.flag("interleaved")
    )
    if len(x.shape) == 4:
        return build.permute(result, [0, 2, 1, 3])
    return build.reshape(result, x.shape)


def table_rows(
    ctx: NodeContext, cosine: Node, sine: Node, positions: Node, batch: int, sequence: int
) -> tuple[Node, Node]:
    """Rows of two tables for [batch, sequence] positions, or for consecutive ones from one position on."""
    shape = (batch, sequence)
    if positions.shape == (1,) and shape != (1, 1) or positions.shape == ():
        first = build.expand(build.reshape(positions, [1, 1]), shape)
        later = build.position(index(output_axis(1, sequence)), shape, positions.dtype)
        positions = elementwise("ADD", first, later)
    positions = build.reshape(positions, shape) if positions.shape == (1,) else positions
    ctx.require(
        positions.shape == shape, f"position_ids must be [1] or {list(shape)}, not {list(positions.shape)}"
    )
    rows = wrapped(ctx, positions, cosine.shape[0], "position_ids")
    return build.gather(cosine, rows, 0), build.gather(sine, rows, 0)
