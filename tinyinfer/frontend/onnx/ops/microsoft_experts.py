"""com.microsoft.MoE: expert networks, of which each token takes the few that its router prefers."""

from __future__ import annotations

from tinyinfer.frontend.onnx.blocks import attention as att
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, onnx_op
from tinyinfer.frontend.onnx.ops.activation import gelu, relu
from tinyinfer.frontend.onnx.ops.elementwise import is_float, like
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.node import Node

ACTIVATIONS = ("relu", "gelu", "silu", "swiglu", "identity")


@onnx_op("MoE", domain="com.microsoft", tolerance=ACCUMULATED)
def mixture_of_experts(
    ctx: NodeContext,
    x: Node,
    router: Node,
    weights1: Node,
    bias1: Node | None = None,
    weights2: Node | None = None,
    bias2: Node | None = None,
    weights3: Node | None = None,
    bias3: Node | None = None,
) -> Node:
    """The networks of the k experts of largest router value, summed by softmax of those values.

    Every expert sees every token, and gates that are zero drop what is not wanted.
    """
    ctx.require(is_float(x), f"expected a float input, not {x.dtype}")
    ctx.same_dtype(x, router, weights1, bias1, weights2, bias2, weights3, bias3)
    ctx.require(weights2 is not None, "fc2_experts_weights is missing")
    assert weights2 is not None
    if ctx.flag("use_sparse_mixer") or ctx.flag("swiglu_limit_after_activation"):
        ctx.unsupported("use_sparse_mixer and swiglu_limit_after_activation are not supported")
    ctx.require(
        len(x.shape) in (2, 3) and x.size > 0, f"the input must be [tokens, size], not {list(x.shape)}"
    )
    size = x.shape[-1]
    tokens = x.size // size
    wide = att.wide(x.dtype)
    flat = build.cast(build.reshape(x, [1, tokens, size]), wide)
    ctx.require(
        len(router.shape) == 2 and router.shape[0] == tokens,
        f"router_probs must be [{tokens}, experts], not {list(router.shape)}",
    )
    experts = router.shape[1]
    gates = _gates(ctx, build.cast(router, wide))
    first = _layer(ctx, flat, weights1, bias1, experts, "fc1")
    third = None if weights3 is None else _layer(ctx, flat, weights3, bias3, experts, "fc3")
    inner = _activated(ctx, first, third)
    made = _layer(ctx, inner, weights2, bias2, experts, "fc2")  # [experts, tokens, size]
    ctx.require(made.shape[2] == size, f"fc2_experts_weights makes {made.shape[2]} elements of {size}")
    share = build.reshape(build.permute(gates, [1, 0]), [experts, tokens, 1])
    total = build.reduce("SUM", build.apply("MUL", made, share), [0])
    return build.cast(build.reshape(total, x.shape), x.dtype)


def _gates(ctx: NodeContext, router: Node) -> Node:
    """The weight of each expert for each token [tokens, experts], zero beyond the first k."""
    tokens, experts = router.shape
    count = ctx.integer("k", 1, minimum=1)
    ctx.require(count <= experts, f"k = {count} is more than {experts} experts")
    probabilities = att.softmax(router, False)
    # an expert's rank: how many have more, or as much and stand before it
    shape = (tokens, experts, experts)
    own = build.expand(build.reshape(router, [tokens, experts, 1]), shape)
    other = build.expand(build.reshape(router, [tokens, 1, experts]), shape)
    earlier = elementwise("CMPLT", build.iota(shape, 2, "int32"), build.iota(shape, 1, "int32"))
    ahead = elementwise("AND", elementwise("CMPEQ", other, own), earlier)
    ahead = elementwise("OR", elementwise("CMPLT", own, other), ahead)
    rank = build.reduce("SUM", build.cast(ahead, "int32"), [2])
    chosen = elementwise("WHERE", att.at_most(rank, count - 1), probabilities, like(0, probabilities))
    if not ctx.flag("normalize_routing_weights"):
        return chosen
    total = build.reduce("SUM", chosen, [1], keepdims=True)
    return elementwise("DIV", chosen, build.expand(total, chosen.shape))


def _layer(ctx: NodeContext, x: Node, weights: Node, bias: Node | None, experts: int, what: str) -> Node:
    """x [experts or 1, tokens, in] · weights [experts, out, in]ᵀ + bias: [experts, tokens, out]."""
    ctx.require(
        len(weights.shape) == 3 and weights.shape[0] == experts and weights.shape[2] == x.shape[2],
        f"{what}_experts_weights must be [{experts}, out, {x.shape[2]}], not {list(weights.shape)}",
    )
    result = build.matmul(x, build.permute(build.cast(weights, x.dtype), [0, 2, 1]))
    if bias is None:
        return result
    ctx.require(
        bias.shape == weights.shape[:2],
        f"{what}_experts_bias must be {list(weights.shape[:2])}, not {list(bias.shape)}",
    )
    return build.apply("ADD", result, build.cast(build.reshape(bias, [experts, 1, bias.shape[1]]), x.dtype))


def _activated(ctx: NodeContext, first: Node, third: Node | None) -> Node:
    """What the activation makes of the first layer, gated by the third one where there is one."""
    kind = ctx.string("activation_type", "relu", ACTIVATIONS)
    if kind == "swiglu":
        return _swiglu(ctx, first, third)
    if kind == "relu":
        first = relu(first)
    elif kind == "gelu":
        first = gelu(first, True)
    elif kind == "silu":
        first = elementwise("MUL", first, elementwise("SIGMOID", first))
    if third is None:
        return first
    ctx.require(third.shape == first.shape, "fc1 and fc3 must make as much")
    return elementwise("MUL", first, third)


def _swiglu(ctx: NodeContext, first: Node, third: Node | None) -> Node:
    """gate sigmoid(alpha gate) (linear + beta), both clamped."""
    fusion = ctx.integer("swiglu_fusion", 0, choices=range(3))
    experts, tokens, width = first.shape
    if fusion:
        ctx.require(
            third is None and width % 2 == 0, "a fused swiglu has an even number of outputs and no fc3"
        )
        half = width // 2
        split = [experts, tokens, half, 2] if fusion == 1 else [experts, tokens, 2, half]
        both = build.reshape(first, split)
        axis = 3 if fusion == 1 else 2
        gate, linear = (
            build.reshape(
                build.shrink(
                    both,
                    [i if a == axis else 0 for a in range(4)],
                    [i + 1 if a == axis else d for a, d in enumerate(split)],
                ),
                [experts, tokens, half],
            )
            for i in range(2)
        )
    else:
        ctx.require(third is not None and third.shape == first.shape, "a swiglu that is not fused needs fc3")
        assert third is not None
        gate, linear = first, third
    limit = ctx.number("swiglu_limit", None)
    if limit is not None:
        gate = elementwise("MIN", gate, like(limit, gate))
        linear = elementwise("MAX", elementwise("MIN", linear, like(limit, linear)), like(-limit, linear))
    curve = elementwise("SIGMOID", att.scaled(gate, ctx.number("activation_alpha", 1.0)))
    shifted = elementwise("ADD", linear, like(ctx.number("activation_beta", 0.0), linear))
    return elementwise("MUL", elementwise("MUL", gate, curve), shifted)
