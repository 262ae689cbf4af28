"""Convolutions and matrix products that exporters fuse with what follows them (com.microsoft)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, EXACT, onnx_op
from tinyinfer.frontend.onnx.ops.activation import elu, hard_sigmoid, leaky_relu, relu, softplus
from tinyinfer.frontend.onnx.ops.conv import convolve
from tinyinfer.frontend.onnx.ops.elementwise import like
from tinyinfer.frontend.onnx.ops.integer import channels_first, channels_last
from tinyinfer.frontend.onnx.ops.matmul import general_product, matmul
from tinyinfer.frontend.onnx.ops.pool import max_pool
from tinyinfer.frontend.onnx.ops.quantise import MICROSOFT
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.node import Node


def _clip(x: Node, low: float, high: float) -> Node:
    return elementwise("MIN", elementwise("MAX", x, like(low, x)), like(high, x))


def _hard_swish(x: Node, alpha: float, beta: float) -> Node:
    return elementwise("MUL", x, hard_sigmoid(x, alpha, beta))


def _gelu(x: Node) -> Node:
    half = elementwise("MUL", x, like(0.5, x))
    error = elementwise("ERF", elementwise("MUL", x, like(0.7071067811865476, x)))
    return elementwise("MUL", half, elementwise("ADD", error, like(1, x)))


# name -> (function, defaults of its parameters)
ACTIVATIONS: dict[str, tuple[Callable[..., Node], tuple[float, ...]]] = {
    "Relu": (relu, ()),
    "Sigmoid": (lambda x: elementwise("SIGMOID", x), ()),
    "Tanh": (lambda x: elementwise("TANH", x), ()),
    "Softplus": (softplus, ()),
    "Gelu": (_gelu, ()),
    "LeakyRelu": (leaky_relu, (0.01,)),
    "Elu": (elu, (1.0,)),
    "Clip": (_clip, (-3.4028234663852886e38, 3.4028234663852886e38)),
    "HardSigmoid": (hard_sigmoid, (0.2, 0.5)),
    "HardSwish": (_hard_swish, (1 / 6, 0.5)),
}


def _activated(ctx: NodeContext, x: Node, parameters: Sequence[float | None]) -> Node:
    """`x` through the function that the attribute 'activation' names; none if it is not given."""
    name = ctx.string("activation", "")
    if not name:
        return x
    found = ACTIVATIONS.get(name)
    if found is None:
        ctx.fail(f"the activation '{name}' is not one of {sorted(ACTIVATIONS)}")
    function, defaults = found
    given = [*parameters, *[None] * len(defaults)]
    return function(x, *(d if g is None else g for d, g in zip(defaults, given)))


def _fused_convolution(ctx: NodeContext, x: Node, w: Node, bias: Node | None, added: Node | None) -> Node:
    ctx.same_dtype(x, w, bias, added)
    ctx.floating(x)
    result = convolve(ctx, x, w, bias)
    if added is not None:
        ctx.require(
            added.shape == result.shape,
            f"Z must be of shape {list(result.shape)} like the result, not {list(added.shape)}",
        )
        result = elementwise("ADD", result, added)
    return _activated(ctx, result, ctx.numbers("activation_params", []))


@onnx_op("FusedConv", domain=MICROSOFT, tolerance=ACCUMULATED)
def fused_convolution(
    ctx: NodeContext, x: Node, w: Node, bias: Node | None = None, added: Node | None = None
) -> Node:
    """Convolution plus a bias and another tensor, through an activation."""
    return _fused_convolution(ctx, x, w, bias, added)


def _nhwc_convolution(ctx: NodeContext, x: Node, w: Node, bias: Node | None, added: Node | None) -> Node:
    first = None if added is None else channels_first(ctx, added)
    return channels_last(_fused_convolution(ctx, channels_first(ctx, x), w, bias, first))


@onnx_op("NhwcConv", domain=MICROSOFT, tolerance=ACCUMULATED)
def nhwc_convolution(ctx: NodeContext, x: Node, w: Node, bias: Node | None = None) -> Node:
    """Convolution of [N, spatial …, C] by [O, C / group, kernel …]."""
    return _nhwc_convolution(ctx, x, w, bias, None)


@onnx_op("NhwcFusedConv", domain=MICROSOFT, tolerance=ACCUMULATED)
def nhwc_fused_convolution(
    ctx: NodeContext, x: Node, w: Node, bias: Node | None = None, added: Node | None = None
) -> Node:
    """Convolution of [N, spatial …, C] plus a bias and another tensor, through an activation."""
    return _nhwc_convolution(ctx, x, w, bias, added)


@onnx_op("NhwcMaxPool", domain=MICROSOFT, tolerance=EXACT)
def nhwc_max_pool(ctx: NodeContext, x: Node) -> Node:
    """Largest value of each window of [N, spatial …, C]."""
    return channels_last(max_pool(ctx, channels_first(ctx, x)))


def _matmul(ctx: NodeContext, a: Node, b: Node) -> Node:
    ctx.same_dtype(a, b)
    ctx.require(len(a.shape) >= 1 and len(b.shape) >= 1, "its inputs must not be scalars")
    a = _transposed(ctx, a, ctx.flag("transA"), ctx.flag("transBatchA"))
    b = _transposed(ctx, b, ctx.flag("transB"), ctx.flag("transBatchB"))
    product = matmul(a, b)
    alpha = ctx.number("alpha", 1.0)
    return product if alpha == 1 else elementwise("MUL", product, like(alpha, product))


def _transposed(ctx: NodeContext, x: Node, matrix: bool, batch: bool) -> Node:
    """Swap the last two axes; first, with `batch`, the first axis goes behind the other batch axes."""
    rank = len(x.shape)
    order = list(range(rank))
    if batch:
        ctx.require(rank >= 3, f"batch axes cannot be transposed in a tensor of rank {rank}")
        order = [*range(1, rank - 1), 0, rank - 1]
    if matrix and rank >= 2:
        order[-1], order[-2] = order[-2], order[-1]
    return build.permute(x, order)


@onnx_op("FusedMatMul", domain=MICROSOFT, tolerance=ACCUMULATED)
def fused_matmul(ctx: NodeContext, a: Node, b: Node) -> Node:
    """alpha A B with axes of A and B transposed on demand."""
    return _matmul(ctx, a, b)


@onnx_op("TransposeMatMul", domain=MICROSOFT, tolerance=ACCUMULATED)
def transpose_matmul(ctx: NodeContext, a: Node, b: Node) -> Node:
    """alpha A B with A and B transposed on demand: the old name of FusedMatMul."""
    return _matmul(ctx, a, b)


def _named_parameters(ctx: NodeContext) -> list[float | None]:
    return [ctx.number(f"activation_{name}") for name in ("alpha", "beta", "gamma")]


@onnx_op("FusedMatMulActivation", domain=MICROSOFT, tolerance=ACCUMULATED)
def fused_matmul_activation(ctx: NodeContext, a: Node, b: Node) -> Node:
    """FusedMatMul through an activation."""
    ctx.string("activation", REQUIRED)
    return _activated(ctx, _matmul(ctx, a, b), _named_parameters(ctx))


@onnx_op("FusedGemm", domain=MICROSOFT, tolerance=ACCUMULATED)
def fused_gemm(ctx: NodeContext, a: Node, b: Node, c: Node | None = None) -> Node:
    """alpha A B + beta C through an activation."""
    return _activated(ctx, general_product(ctx, a, b, c), _named_parameters(ctx))
