"""Recurrent layers with quantised weights (com.microsoft)."""

from __future__ import annotations

from tinyinfer.frontend.onnx.blocks.quantised import (
    check_bytes,
    check_scale,
    dequantised,
    dynamic_parameters,
    quantised,
    required,
)
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import RECURRENT, onnx_op
from tinyinfer.frontend.onnx.ops.quantise import MICROSOFT
from tinyinfer.frontend.onnx.ops.recurrent import long_short_term_memory
from tinyinfer.ir import build
from tinyinfer.ir.node import Node


def _as_bytes_would_hold(x: Node) -> Node:
    """`x` rounded to the 256 values that its own range gives."""
    scale, zero = dynamic_parameters(x)
    return dequantised(quantised(x, scale, zero, "uint8"), scale, zero)


def _weights(ctx: NodeContext, x: Node, scale: Node, zero: Node, what: str) -> Node:
    """[directions, gates, inputs] of float32 from quantised [directions, inputs, gates]."""
    check_bytes(ctx, x, zero, what)
    check_scale(ctx, scale)
    ctx.require(len(x.shape) == 3, f"{what} must be of rank 3, not {list(x.shape)}")
    directions, _, gates = x.shape
    values = []
    for parameter, part in ((scale, "scale"), (zero, "zero point")):
        ctx.require(
            parameter.shape in ((directions,), (directions, gates)),
            f"the {part} of {what} must be of shape {[directions]} or {[directions, gates]}, "
            f"not {list(parameter.shape)}",
        )
        columns = parameter.size // max(directions, 1)
        values.append(build.expand(build.reshape(parameter, (directions, 1, columns)), x.shape))
    wide_scale, wide_zero = values
    centred = build.elementwise("SUB", build.cast(x, "int32"), build.cast(wide_zero, "int32"))
    made = build.elementwise("MUL", build.cast(centred, "float32"), wide_scale)
    return build.permute(made, [0, 2, 1])


@onnx_op("DynamicQuantizeLSTM", domain=MICROSOFT, tolerance=RECURRENT)
def dynamic_quantize_lstm(
    ctx: NodeContext,
    x: Node,
    w: Node,
    r: Node,
    b: Node | None = None,
    lengths: Node | None = None,
    initial_h: Node | None = None,
    initial_c: Node | None = None,
    p: Node | None = None,
    w_scale: Node | None = None,
    w_zero: Node | None = None,
    r_scale: Node | None = None,
    r_zero: Node | None = None,
) -> list[Node]:
    """LSTM whose weights are 8-bit integers, and whose inputs and states are rounded to 8 bits as it runs."""
    check_scale(ctx, x)
    w_scale, w_zero, r_scale, r_zero = required(
        ctx, W_scale=w_scale, W_zero_point=w_zero, R_scale=r_scale, R_zero_point=r_zero
    )
    weights = _weights(ctx, w, w_scale, w_zero, "W"), _weights(ctx, r, r_scale, r_zero, "R")
    rounded = _as_bytes_would_hold(x)
    return long_short_term_memory(
        ctx, rounded, *weights, b, lengths, initial_h, initial_c, p, _as_bytes_would_hold
    )
