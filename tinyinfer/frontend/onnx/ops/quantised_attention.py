"""Attention whose input projection is a product of quantised matrices (com.microsoft)."""

from __future__ import annotations

from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, onnx_op
from tinyinfer.frontend.onnx.ops.integer import matmul_integer_to_float
from tinyinfer.frontend.onnx.ops.microsoft_attention import attend_projected
from tinyinfer.frontend.onnx.ops.quantise import MICROSOFT
from tinyinfer.ir.node import Node


@onnx_op("QAttention", domain=MICROSOFT, tolerance=ACCUMULATED)
def quantised_attention(
    ctx: NodeContext,
    x: Node,
    weights: Node,
    bias: Node,
    x_scale: Node,
    weight_scale: Node,
    mask: Node | None = None,
    x_zero: Node | None = None,
    weight_zero: Node | None = None,
    past: Node | None = None,
) -> tuple[Node, Node]:
    """Self attention of quantised values by quantised weights, in floats from the projection on."""
    ctx.require(
        len(x.shape) == 3 and len(weights.shape) == 2 and weights.shape[0] == x.shape[2],
        f"weights of shape {list(weights.shape)} do not fit an input of {list(x.shape)}",
    )
    ctx.require(x_scale.size == 1, f"the scale of the input must be one number, not {list(x_scale.shape)}")
    made = matmul_integer_to_float(ctx, x, weights, x_scale, weight_scale, x_zero, weight_zero, bias)
    return attend_projected(ctx, made, mask, past, None)
