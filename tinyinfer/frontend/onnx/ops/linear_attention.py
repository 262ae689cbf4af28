"""Attention with a state of fixed size instead of a cache, and the short causal convolution before it."""

from __future__ import annotations

import math

from tinyinfer.frontend.onnx.blocks import attention as att
from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, RECURRENT, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import is_float
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.loop import BodyResults, loop
from tinyinfer.ir.node import Node

RULES = {
    # update rule: (state decays, what the state already knows of a key is replaced)
    "linear": (False, False),
    "gated": (True, False),
    "delta": (False, True),
    "gated_delta": (True, True),
}


@onnx_op("LinearAttention", since=27, tolerance=RECURRENT)
def linear_attention(
    ctx: NodeContext,
    q: Node,
    k: Node,
    v: Node,
    past_state: Node | None = None,
    decay: Node | None = None,
    beta: Node | None = None,
) -> tuple[Node, Node]:
    """A state of key by value sizes, decayed and written at each step, read by the query; in float32."""
    ctx.require(all(map(is_float, (q, k, v))), "query, key and value must be floats")
    ctx.same_dtype(q, k, v, decay, beta)
    heads, kv_heads = (ctx.integer(f"{name}_num_heads", REQUIRED, minimum=1) for name in ("q", "kv"))
    gated, replaces = RULES[ctx.string("update_rule", "gated_delta", tuple(RULES))]
    ctx.require((decay is not None) == gated, "'decay' belongs to the gated update rules, and only to them")
    ctx.require((beta is not None) == replaces, "'beta' belongs to the delta update rules, and only to them")
    ctx.require(
        len(q.shape) == len(k.shape) == len(v.shape) == 3 and q.shape[:2] == k.shape[:2] == v.shape[:2],
        f"query {list(q.shape)}, key {list(k.shape)}, value {list(v.shape)} are not [batch, time, heads]",
    )
    batch, steps, hidden = q.shape
    ctx.require(
        heads % kv_heads == 0 and hidden % heads == 0 and hidden > 0 and v.shape[2] % kv_heads == 0,
        f"{heads} and {kv_heads} heads do not divide query {list(q.shape)} and value {list(v.shape)}",
    )
    size, value_size = hidden // heads, v.shape[2] // kv_heads
    ctx.require(k.shape[2] == kv_heads * size, f"key {list(k.shape)} must hold {kv_heads} heads of {size}")
    shape = (batch, kv_heads, size, value_size)
    if past_state is None:
        state, state_dtype = build.full(0, shape, "float32"), q.dtype
    else:
        given = list(past_state.shape)
        ctx.require(past_state.shape == shape, f"past_state must be {list(shape)}, not {given}")
        state, state_dtype = build.cast(past_state, "float32"), past_state.dtype
    dtype = q.dtype
    q, k, v = (
        att.split_heads(build.cast(x, "float32"), n) for x, n in ((q, heads), (k, kv_heads), (v, kv_heads))
    )
    if decay is not None:
        ctx.require(
            decay.shape in ((batch, steps, kv_heads), (batch, steps, kv_heads * size)),
            f"decay of shape {list(decay.shape)} is neither one per head nor one per element of a key",
        )
        decay = att.split_heads(build.cast(decay, "float32"), kv_heads)
    if beta is not None:
        ctx.require(
            beta.shape in ((batch, steps, kv_heads), (batch, steps, 1)),
            f"beta of shape {list(beta.shape)} is neither one per head nor one for all",
        )
        beta = att.split_heads(build.cast(beta, "float32"), beta.shape[2])
    scale = ctx.number("scale", 0.0) or 1 / math.sqrt(size)
    rows = [(build.permute(x, [2, 0, 1, 3]), False) for x in (q, k, v, decay, beta) if x is not None]

    def body(number: Node, carried: list[Node], given: list[Node]) -> BodyResults:
        query, key, value, *rest = given
        (state,) = carried
        if decay is not None:
            factor = elementwise("EXP", rest[0])
            state = build.apply("MUL", state, build.reshape(factor, [*factor.shape, 1]))
        if beta is not None:
            known = build.matmul(build.reshape(key, [batch, kv_heads, 1, size]), state)
            fresh = elementwise("SUB", value, build.reshape(known, value.shape))
            value = build.apply("MUL", fresh, rest[-1])
        written = build.apply(
            "MUL",
            build.reshape(key, [batch, kv_heads, size, 1]),
            build.reshape(value, [batch, kv_heads, 1, value_size]),
        )
        state = elementwise("ADD", state, written)
        grouped = build.reshape(query, [batch, kv_heads, heads // kv_heads, size])
        read = build.reshape(build.matmul(grouped, state), [batch, heads * value_size])
        return BodyResults([state], [read])

    made = loop(body, [state], steps, rows)
    result = att.scaled(build.permute(made.stacked[0], [1, 0, 2]), scale)
    state = made.final[0]
    return build.cast(result, dtype), build.cast(state, state_dtype)


@onnx_op("CausalConvWithState", since=27, tolerance=ACCUMULATED)
def causal_convolution(
    ctx: NodeContext, x: Node, weight: Node, bias: Node | None = None, past_state: Node | None = None
) -> tuple[Node, Node]:
    """Each channel convolved over its present and past, which continues a state; perhaps SiLU after it."""
    ctx.require(is_float(x), f"expected a float input, not {x.dtype}")
    ctx.same_dtype(x, weight, bias, past_state)
    ctx.require(len(x.shape) == 3, f"the input must be [batch, channels, length], not {list(x.shape)}")
    batch, channels, _ = x.shape
    ctx.require(
        len(weight.shape) == 3 and weight.shape[:2] == (channels, 1) and weight.shape[2] > 0,
        f"the weight must be {[channels, 1, 'k']}, not {list(weight.shape)}",
    )
    width = weight.shape[2]
    before = (batch, channels, width - 1)
    if past_state is None:
        past_state = build.full(0, before, x.dtype)
    given = list(past_state.shape)
    ctx.require(past_state.shape == before, f"past_state must be {list(before)}, not {given}")
    line = build.concat([past_state, x], 2)
    state = build.shrink(line, [0, 0, line.shape[2] - (width - 1)], line.shape)
    if not x.size:
        return x, state
    result = build.convolution(line, weight, [1], [1], [0], [0], channels)
    if bias is not None:
        ctx.require(bias.shape == (channels,), f"the bias must be {[channels]}, not {list(bias.shape)}")
        result = build.apply("ADD", result, build.reshape(bias, [channels, 1]))
    if ctx.string("activation", "none", ("none", "silu", "swish")) != "none":
        exact = build.cast(result, att.wide(x.dtype))
        result = build.cast(elementwise("MUL", exact, elementwise("SIGMOID", exact)), x.dtype)
    return result, state


# ---- com.microsoft, which had both first

_EXTENSIONS = (
    "dilation",
    "ndim",
    "state_window",
    "channels_last",
    "state_update_capacity",
    "state_length",
    "input_channels",
    "input_channel_offset",
)
"""Attributes of com.microsoft beyond those of ONNX."""


def _without_extensions(ctx: NodeContext) -> None:
    for name in _EXTENSIONS:
        usual = 1 if name in ("dilation", "ndim") else 0
        if ctx.integer(name, usual) != usual:
            ctx.unsupported(f"the attribute '{name}' = {ctx.integer(name)} is not supported")


@onnx_op("LinearAttention", domain="com.microsoft", tolerance=RECURRENT)
def microsoft_linear_attention(
    ctx: NodeContext,
    q: Node,
    k: Node,
    v: Node,
    past_state: Node | None = None,
    decay: Node | None = None,
    beta: Node | None = None,
) -> tuple[Node, Node]:
    """LinearAttention as ONNX has it."""
    _without_extensions(ctx)
    return linear_attention(ctx, q, k, v, past_state, decay, beta)


@onnx_op("CausalConvWithState", domain="com.microsoft", tolerance=ACCUMULATED)
def microsoft_causal_convolution(
    ctx: NodeContext, x: Node, weight: Node, bias: Node | None = None, past_state: Node | None = None
) -> tuple[Node, Node]:
    """CausalConvWithState as ONNX has it."""
    _without_extensions(ctx)
    return causal_convolution(ctx, x, weight, bias, past_state)
