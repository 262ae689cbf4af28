"""Products of quantised operands: exact int32 sums of products of (value - zero point), and what scales them.

Padding is where the value minus its zero point is 0. An int32 sum wraps around where the operands are so many
that it overflows, as in ONNX and onnxruntime.
"""

from __future__ import annotations

from tinyinfer.frontend.onnx.blocks.quantised import (
    BYTES,
    PER_TENSOR,
    SCALES,
    Granularity,
    centred,
    check_bytes,
    check_scale,
    dynamic_parameters,
    quantised,
    requantised,
    rounded,
    scalar_parameter,
)
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, EXACT, onnx_op
from tinyinfer.frontend.onnx.ops.cast import convert
from tinyinfer.frontend.onnx.ops.conv import convolve
from tinyinfer.frontend.onnx.ops.matmul import matmul
from tinyinfer.frontend.onnx.ops.quantise import MICROSOFT
from tinyinfer.ir import build
from tinyinfer.ir.node import Node

# ---- convolutions


def _convolution_sum(
    ctx: NodeContext, x: Node, zero: Node | None, w: Node, w_zero: Node | None, bias: Node | None = None
) -> Node:
    """The int32 convolution of centred operands [N, C, …] and [O, C / group, …], plus an int32 bias."""
    check_bytes(ctx, x, zero, "x")
    check_bytes(ctx, w, w_zero, "w")
    ctx.require(bias is None or bias.dtype == "int32", "the bias must be int32")
    ctx.require(len(w.shape) >= 3, f"the weights must be [O, C / group, kernel …], not {list(w.shape)}")
    if zero is not None:
        zero = scalar_parameter(ctx, zero, "the zero point of x")
    left = centred(x, zero)
    right = centred(w, w_zero, _along(ctx, w_zero, w, 0, "the zero point of w"))
    return convolve(ctx, left, right, bias)


def _along(ctx: NodeContext, parameter: Node | None, x: Node, axis: int, what: str) -> Granularity:
    """Per tensor, or one for each position of `axis`: what the shape of a parameter says."""
    if parameter is None or parameter.size == 1:
        return PER_TENSOR
    axis %= len(x.shape)
    ctx.require(
        parameter.shape == (x.shape[axis],),
        f"{what} must be one number or of shape [{x.shape[axis]}], not {list(parameter.shape)}",
    )
    return Granularity(axis)


@onnx_op("ConvInteger", since=10, tolerance=EXACT)
def conv_integer(
    ctx: NodeContext, x: Node, w: Node, x_zero: Node | None = None, w_zero: Node | None = None
) -> Node:
    """Convolution of 8-bit integers minus their zero points, as int32."""
    return _convolution_sum(ctx, x, x_zero, w, w_zero)


def _qlinear_conv(
    ctx: NodeContext,
    x: Node,
    x_scale: Node,
    x_zero: Node | None,
    w: Node,
    w_scale: Node,
    w_zero: Node | None,
    y_scale: Node,
    y_zero: Node | None,
    bias: Node | None,
) -> Node:
    check_scale(ctx, x_scale, w_scale, y_scale)
    total = _convolution_sum(ctx, x, x_zero, w, w_zero, bias)
    grain = _along(ctx, w_scale, w, 0, "the scale of w")
    multiplier = _multiplier(ctx, x_scale, w_scale, y_scale)
    dtype = _result_dtype(ctx, y_zero, x.dtype)
    return requantised(total, multiplier, y_zero, dtype, Granularity(1) if grain.axis is not None else grain)


def _multiplier(ctx: NodeContext, x_scale: Node, w_scale: Node, y_scale: Node | None) -> Node:
    """x_scale · w_scale / y_scale in the order that onnxruntime rounds in; as w_scale is, or a scalar."""
    w_scale = build.reshape(w_scale, ()) if w_scale.size == 1 else w_scale
    product = build.apply("MUL", scalar_parameter(ctx, x_scale, "the scale of the input"), w_scale)
    if y_scale is None:
        return product
    return build.apply("DIV", product, scalar_parameter(ctx, y_scale, "the scale of the output"))


def _result_dtype(ctx: NodeContext, zero: Node | None, default: str, dtypes: tuple[str, ...] = BYTES) -> str:
    if zero is None:
        return default
    scalar_parameter(ctx, zero, "the zero point of the output")
    ctx.require(
        zero.dtype in dtypes,
        f"the zero point of the output must be {' or '.join(dtypes)}, not {zero.dtype}",
    )
    return zero.dtype


@onnx_op("QLinearConv", since=10, tolerance=EXACT)
def qlinear_conv(
    ctx: NodeContext,
    x: Node,
    x_scale: Node,
    x_zero: Node,
    w: Node,
    w_scale: Node,
    w_zero: Node,
    y_scale: Node,
    y_zero: Node,
    bias: Node | None = None,
) -> Node:
    """Convolution of quantised values by quantised weights, requantised; rounded before the zero point."""
    return _qlinear_conv(ctx, x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias)


@onnx_op("QLinearConv", domain=MICROSOFT, tolerance=EXACT)
def microsoft_qlinear_conv(
    ctx: NodeContext,
    x: Node,
    x_scale: Node,
    x_zero: Node,
    w: Node,
    w_scale: Node,
    w_zero: Node,
    y_scale: Node,
    y_zero: Node,
    bias: Node | None = None,
) -> Node:
    """QLinearConv whose activations may have their channels last."""
    if not ctx.flag("channels_last"):
        return _qlinear_conv(ctx, x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias)
    first = channels_first(ctx, x)
    result = _qlinear_conv(ctx, first, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias)
    return channels_last(result)


def channels_first(ctx: NodeContext, x: Node) -> Node:
    """[N, spatial …, C] as [N, C, spatial …]."""
    rank = len(x.shape)
    ctx.require(rank >= 3, f"the input must be [N, spatial …, C], not of rank {rank}")
    return build.permute(x, [0, rank - 1, *range(1, rank - 1)])


def channels_last(x: Node) -> Node:
    """[N, C, spatial …] as [N, spatial …, C]."""
    return build.permute(x, [0, *range(2, len(x.shape)), 1])


# ---- matrix products


def _row_parameter(ctx: NodeContext, parameter: Node, shape: tuple[int, ...], what: str) -> Node:
    """A parameter of the rows of A: one number, [M], or A's shape with 1 column; broadcasts to A."""
    if parameter.size == 1:
        return build.reshape(parameter, ())
    if len(parameter.shape) == 1 and len(shape) >= 2:
        parameter = build.reshape(parameter, [*parameter.shape, 1])
    _broadcasts(ctx, parameter, shape, what)
    return parameter


def _column_parameter(ctx: NodeContext, parameter: Node, shape: tuple[int, ...], what: str) -> Node:
    """A parameter of the columns of B: one number, [N], or B's shape with 1 row; broadcasts to B."""
    if parameter.size == 1:
        return build.reshape(parameter, ())
    _broadcasts(ctx, parameter, shape, what)
    return parameter


def _broadcasts(ctx: NodeContext, parameter: Node, shape: tuple[int, ...], what: str) -> None:
    same_rank = len(parameter.shape) <= len(shape)
    padded = (1,) * (len(shape) - len(parameter.shape)) + parameter.shape
    ctx.require(
        same_rank and all(p in (1, d) for p, d in zip(padded, shape)),
        f"{what} of shape {list(parameter.shape)} does not fit an operand of shape {list(shape)}",
    )


def _centred_operand(x: Node, zero: Node | None) -> Node:
    wide = build.cast(x, "int32")
    return wide if zero is None else build.apply("SUB", wide, build.cast(zero, "int32"))


def matmul_sum(ctx: NodeContext, a: Node, a_zero: Node | None, b: Node, b_zero: Node | None) -> Node:
    """The int32 matrix product of 8-bit operands minus their zero points."""
    check_bytes(ctx, a, a_zero, "A")
    check_bytes(ctx, b, b_zero, "B")
    ctx.require(len(a.shape) >= 1 and len(b.shape) >= 1, "its inputs must not be scalars")
    if a_zero is not None:
        a_zero = _row_parameter(ctx, a_zero, a.shape, "the zero point of A")
    if b_zero is not None:
        b_zero = _column_parameter(ctx, b_zero, b.shape, "the zero point of B")
    return matmul(_centred_operand(a, a_zero), _centred_operand(b, b_zero))


@onnx_op("MatMulInteger", since=10, tolerance=EXACT)
def matmul_integer(
    ctx: NodeContext, a: Node, b: Node, a_zero: Node | None = None, b_zero: Node | None = None
) -> Node:
    """Matrix product of 8-bit integers minus their zero points, as int32."""
    return matmul_sum(ctx, a, a_zero, b, b_zero)


@onnx_op("MatMulInteger16", domain=MICROSOFT, tolerance=EXACT)
def matmul_integer_16(ctx: NodeContext, a: Node, b: Node) -> Node:
    """Matrix product of 16-bit integers as int32; as uint32 if both are unsigned."""
    for x in (a, b):
        ctx.require(x.dtype in ("int16", "uint16"), f"takes 16-bit integers, not {x.dtype}")
    ctx.require(len(a.shape) >= 1 and len(b.shape) >= 1, "its inputs must not be scalars")
    unsigned = a.dtype == b.dtype == "uint16"
    total = matmul(build.cast(a, "int32"), build.cast(b, "int32"))
    return build.cast(total, "uint32") if unsigned else total


@onnx_op("QLinearMatMul", since=10, tolerance=EXACT)
def qlinear_matmul(
    ctx: NodeContext,
    a: Node,
    a_scale: Node,
    a_zero: Node,
    b: Node,
    b_scale: Node,
    b_zero: Node,
    y_scale: Node,
    y_zero: Node,
) -> Node:
    """Matrix product of quantised matrices, requantised; rounded before the zero point is added."""
    check_scale(ctx, a_scale, b_scale, y_scale, dtypes=("float32",) if ctx.opset < 21 else SCALES)
    ctx.same_dtype(a_scale, b_scale, y_scale)
    a_scale, b_scale, y_scale = (build.cast(s, "float32") for s in (a_scale, b_scale, y_scale))
    rows = _row_parameter(ctx, a_scale, a.shape, "the scale of A")
    columns = _column_parameter(ctx, b_scale, b.shape, "the scale of B")
    target = scalar_parameter(ctx, y_scale, "the scale of the output")
    if ctx.opset >= 21 and a.dtype.startswith("float8"):
        return _float8_matmul(ctx, a, rows, b, columns, target, y_zero)
    total = matmul_sum(ctx, a, a_zero, b, b_zero)
    dtype = _result_dtype(ctx, y_zero, a.dtype)
    multiplier = build.apply("DIV", build.apply("MUL", *_as_result(a, b, rows, columns)), target)
    multiplier = build.expand(multiplier, total.shape)
    value = build.elementwise("MUL", build.cast(total, "float32"), multiplier)
    return rounded(value, y_zero, dtype)


def _as_result(a: Node, b: Node, rows: Node, columns: Node) -> tuple[Node, Node]:
    """Parameters of the rows of A and the columns of B without the axes that a vector loses in a product."""
    if rows.shape and len(b.shape) == 1:
        rows = build.reshape(rows, rows.shape[:-1])
    if len(columns.shape) >= 2 and len(a.shape) == 1:
        columns = build.reshape(columns, (*columns.shape[:-2], columns.shape[-1]))
    if columns.shape and len(b.shape) == 1:
        columns = build.reshape(columns, ())
    return rows, columns


def _float8_matmul(
    ctx: NodeContext, a: Node, rows: Node, b: Node, columns: Node, target: Node, zero: Node
) -> Node:
    """Operands of 8-bit floats: products and sums in float32, the result rounded to the zero point's type."""
    ctx.require(b.dtype.startswith("float8"), f"B must be a float of 8 bits like A, not {b.dtype}")
    ctx.require(zero.dtype.startswith("float8"), f"the result must be a float of 8 bits, not {zero.dtype}")
    product = matmul(build.cast(a, "float32"), build.cast(b, "float32"))
    multiplier = build.apply("DIV", build.apply("MUL", *_as_result(a, b, rows, columns)), target)
    return convert(build.apply("MUL", product, multiplier), zero.dtype)


def _scaled(total: Node, multiplier: Node, bias: Node | None) -> Node:
    """float32(total) · multiplier + bias, all broadcast to the shape of the sum."""
    value = build.apply("MUL", build.cast(total, "float32"), multiplier)
    return value if bias is None else build.apply("ADD", value, bias)


def _check_bias(ctx: NodeContext, bias: Node | None, b: Node) -> None:
    ctx.require(
        bias is None or bias.shape == (b.shape[-1],), f"the bias must be of shape [{b.shape[-1]}], like B"
    )


@onnx_op("MatMulIntegerToFloat", domain=MICROSOFT, tolerance=ACCUMULATED)
def matmul_integer_to_float(
    ctx: NodeContext,
    a: Node,
    b: Node,
    a_scale: Node,
    b_scale: Node,
    a_zero: Node | None = None,
    b_zero: Node | None = None,
    bias: Node | None = None,
) -> Node:
    """Matrix product of quantised matrices as floats, plus a bias."""
    dtype = ctx.same_dtype(a_scale, b_scale, bias)
    check_scale(ctx, a_scale, dtypes=("float32", "float16"))
    total = matmul_sum(ctx, a, a_zero, b, b_zero)
    _check_bias(ctx, bias, b)
    a_scale, b_scale = (build.cast(s, "float32") for s in (a_scale, b_scale))
    rows = _row_parameter(ctx, a_scale, a.shape, "the scale of A")
    columns = _column_parameter(ctx, b_scale, b.shape, "the scale of B")
    multiplier = build.apply("MUL", *_as_result(a, b, rows, columns))
    result = _scaled(total, multiplier, None if bias is None else build.cast(bias, "float32"))
    return build.cast(result, dtype)


@onnx_op("DynamicQuantizeMatMul", domain=MICROSOFT, tolerance=ACCUMULATED)
def dynamic_quantize_matmul(
    ctx: NodeContext,
    a: Node,
    b: Node,
    b_scale: Node,
    b_zero: Node | None = None,
    bias: Node | None = None,
) -> Node:
    """Matrix product of floats, quantised to uint8 by their own range, and quantised weights; plus a bias."""
    check_scale(ctx, a, b_scale, bias)
    scale, zero = dynamic_parameters(a)
    total = matmul_sum(ctx, quantised(a, scale, zero, "uint8"), zero, b, b_zero)
    _check_bias(ctx, bias, b)
    columns = _column_parameter(ctx, b_scale, b.shape, "the scale of B")
    return _scaled(total, build.apply("MUL", *_as_result(a, b, scale, columns)), bias)


@onnx_op("QGemm", domain=MICROSOFT, tolerance=ACCUMULATED)
def quantised_gemm(
    ctx: NodeContext,
    a: Node,
    a_scale: Node,
    a_zero: Node,
    b: Node,
    b_scale: Node,
    b_zero: Node,
    c: Node | None = None,
    y_scale: Node | None = None,
    y_zero: Node | None = None,
) -> Node:
    """alpha A B + C of quantised matrices: floats, or requantised where the output has a scale."""
    check_scale(ctx, a_scale, b_scale, y_scale)
    ctx.require(
        len(a.shape) == 2 and len(b.shape) == 2,
        f"A and B must be matrices, not {list(a.shape)} and {list(b.shape)}",
    )
    ctx.require(y_scale is not None or y_zero is None, "the output has a zero point, but no scale")
    a = build.permute(a, [1, 0]) if ctx.flag("transA") else a
    b = build.permute(b, [1, 0]) if ctx.flag("transB") else b
    total = matmul_sum(ctx, a, a_zero, b, b_zero)
    if c is not None:
        ctx.require(c.dtype == "int32", f"C must be int32, not {c.dtype}")
        _broadcasts(ctx, c, total.shape, "C")
        total = build.apply("ADD", total, c)
    alpha = build.scalar(ctx.number("alpha", 1.0), "float32")
    grain = _along(ctx, b_scale, b, 1, "the scale of B")
    scale = build.elementwise("MUL", alpha, scalar_parameter(ctx, a_scale, "the scale of A"))
    multiplier = _multiplier(ctx, scale, b_scale, y_scale)
    if y_scale is None:
        return _scaled(total, multiplier, None)
    return requantised(total, multiplier, y_zero, _result_dtype(ctx, y_zero, a.dtype), grain)


# ---- other integer arithmetic


@onnx_op("MulInteger", domain=MICROSOFT, tolerance=EXACT)
def multiply_integers(
    ctx: NodeContext, a: Node, a_zero: Node | None = None, b: Node | None = None, b_zero: Node | None = None
) -> Node:
    """Product of 8-bit integers minus their zero points, as int32."""
    if b is None:
        ctx.fail("the input B is missing")
    check_bytes(ctx, a, a_zero, "A")
    check_bytes(ctx, b, b_zero, "B")
    zeros = [None if z is None else scalar_parameter(ctx, z, "a zero point") for z in (a_zero, b_zero)]
    return build.apply("MUL", centred(a, zeros[0]), centred(b, zeros[1]))


@onnx_op("ReduceSumInteger", domain=MICROSOFT, tolerance=EXACT)
def reduce_sum_integer(ctx: NodeContext, x: Node) -> Node:
    """Sum of 8-bit integers over axes: int32, of unsigned ones uint32."""
    ctx.require(x.dtype in BYTES, f"takes int8 or uint8, not {x.dtype}")
    axes = ctx.axes(ctx.integers("axes", list(range(len(x.shape)))), len(x.shape))
    wide = build.cast(x, "int32" if x.dtype == "int8" else "uint32")
    return build.reduce("SUM", wide, axes, keepdims=ctx.flag("keepdims", True))
