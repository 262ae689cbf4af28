"""FlexAttention: attention whose scores and probabilities go through subgraphs of the model."""

from __future__ import annotations

import math

from tinyinfer.frontend.onnx.blocks import attention as att
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import is_float
from tinyinfer.ir import build
from tinyinfer.ir.node import Node


@onnx_op("FlexAttention", domain="ai.onnx.preview", tolerance=ACCUMULATED)
def flex_attention(ctx: NodeContext, q: Node, k: Node, v: Node) -> Node:
    """prob_mod(softmax(score_mod(scale Q Kᵀ))) V by heads."""
    ctx.require(all(map(is_float, (q, k, v))), "Q, K and V must be floats")
    ctx.same_dtype(q, k, v)
    ctx.require(len(q.shape) == len(k.shape) == len(v.shape) == 4, "Q, K and V must have 4 dimensions")
    batch, heads, _, size = q.shape
    ctx.require(
        k.shape[0] == batch and k.shape[3] == size and v.shape[:3] == k.shape[:3],
        f"Q {list(q.shape)}, K {list(k.shape)} and V {list(v.shape)} do not fit together",
    )
    ctx.require(
        k.shape[1] > 0 and heads % k.shape[1] == 0,
        f"{heads} query heads are no multiple of {k.shape[1]} key heads",
    )
    scale = ctx.number("scale", None)
    root = math.sqrt(abs(1 / math.sqrt(size or 1) if scale is None else scale))
    precision = ctx.dtype("softmax_precision", att.wide(q.dtype)) or att.wide(q.dtype)
    scores = att.contract(att.scaled(q, root), att.scaled(k, math.copysign(root, scale or 1.0)))
    scores = _modified(ctx, "score_mod", build.cast(scores, precision))
    probabilities = att.softmax(scores, False)
    probabilities = _modified(ctx, "prob_mod", probabilities)
    return build.cast(att.weigh(probabilities, build.cast(v, precision)), q.dtype)


def _modified(ctx: NodeContext, attribute: str, x: Node) -> Node:
    """`x` through a subgraph of one input and one output of the same shape and type, where there is one."""
    if not ctx.has(attribute):
        return x
    graph = ctx.graph(attribute)
    ctx.require(
        len(graph.input) == len(graph.output) == 1,
        f"the subgraph '{attribute}' must have one input and one output",
    )
    result = ctx.importer.subgraph(ctx, graph, [x])[0]
    if not isinstance(result, Node):
        ctx.fail(f"the subgraph '{attribute}' makes no tensor")
    ctx.require(
        result.shape == x.shape and result.dtype == x.dtype,
        f"the subgraph '{attribute}' makes {result.dtype} {list(result.shape)} of {x.dtype} {list(x.shape)}",
    )
    return result
