"""Weights of few bits, quantised in blocks (com.microsoft): products with them, and tables of them.

Packed integers lie low bits first within each byte. Constant weights are unpacked when the model is compiled.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from tinyinfer.frontend.onnx.blocks.quantised import SCALES, check_scale
from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, ROUNDED, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import like
from tinyinfer.frontend.onnx.ops.matmul import matmul
from tinyinfer.frontend.onnx.ops.quantise import MICROSOFT
from tinyinfer.ir import build
from tinyinfer.ir.index import index
from tinyinfer.ir.node import Node, output_axis

BITS = (2, 4, 8)


def unpacked(x: Node, bits: int, count: int) -> Node:
    """The first `count` integers along the last axis of bytes [..., ceil(count · bits / 8)], as uint8."""
    per = 8 // bits
    if per == 1 and count == x.shape[-1]:
        return x
    shape = (*x.shape[:-1], count)
    axes = [index(output_axis(i, d)) for i, d in enumerate(shape)]
    stored = build.view(x, [*axes[:-1], axes[-1] // per], shape)
    shift = build.position(axes[-1] % per * bits, shape, "uint8")
    return build.elementwise("AND", build.elementwise("SHR", stored, shift), like((1 << bits) - 1, stored))


def _blocks(x: Node, axis: int, block: int, size: int) -> Node:
    """A parameter of blocks at each of the `size` positions along `axis`."""
    shape = tuple(size if i == axis else d for i, d in enumerate(x.shape))
    axes = [index(output_axis(i, d)) for i, d in enumerate(shape)]
    axes[axis] = axes[axis] // block
    return build.view(x, axes, shape)


def _of_size(ctx: NodeContext, x: Node, shape: tuple[int, ...], what: str) -> Node:
    """`x` in `shape`: exporters differ in whether they flatten it."""
    wanted = int(np.prod(shape, dtype=np.int64))
    ctx.require(x.size == wanted, f"the input '{what}' must be of shape {list(shape)}, not {list(x.shape)}")
    return build.reshape(x, shape)


@onnx_op("MatMulNBits", domain=MICROSOFT, tolerance=ACCUMULATED)
def matmul_n_bits(
    ctx: NodeContext,
    a: Node,
    b: Node,
    scales: Node,
    zeros: Node | None = None,
    groups: Node | None = None,
    bias: Node | None = None,
) -> Node:
    """A times the transpose of weights [N, K] of 2, 4 or 8 bits, quantised in blocks along K; plus a bias."""
    n, k = ctx.integer("N", REQUIRED, minimum=1), ctx.integer("K", REQUIRED, minimum=1)
    bits = ctx.integer("bits", 4, choices=BITS)
    block = ctx.integer("block_size", REQUIRED, minimum=16)
    ctx.require(block & (block - 1) == 0, f"the attribute 'block_size' must be a power of 2, not {block}")
    ctx.integer("weight_prepacked", 0, choices=(0,))
    # accuracy_level lets an engine round A to 8 bits, which is not done here
    ctx.integer("accuracy_level", 0, minimum=0, maximum=4)
    check_scale(ctx, a, dtypes=SCALES)
    ctx.same_dtype(a, scales, bias)
    ctx.require(b.dtype == "uint8", f"B must be uint8, not {b.dtype}")
    ctx.require(
        len(a.shape) >= 1 and a.shape[-1] == k, f"A must end in {k} columns, but is of shape {list(a.shape)}"
    )
    ctx.require(bias is None or bias.shape == (n,), f"the bias must be of shape [{n}]")
    if not b.size:
        product = build.full(0, (*a.shape[:-1], n), a.dtype)
    else:
        weights = build.cast(_weights(ctx, b, scales, zeros, groups, n, k, bits, block), a.dtype)
        product = matmul(a, build.permute(weights, [1, 0]))
    return product if bias is None else build.apply("ADD", product, bias)


def _weights(
    ctx: NodeContext,
    b: Node,
    scales: Node,
    zeros: Node | None,
    groups: Node | None,
    n: int,
    k: int,
    bits: int,
    block: int,
) -> Node:
    """The weights [N, K] as float32."""
    count = ceil(k / block)
    packed = _of_size(ctx, b, (n, count, block * bits // 8), "B")
    integers = unpacked(build.reshape(packed, (n, count * block * bits // 8)), bits, k)
    spread = _columns(ctx, groups, count, block, k)
    scale = spread(build.cast(_of_size(ctx, scales, (n, count), "scales"), "float32"))
    if zeros is None:
        zero = build.full(1 << (bits - 1), (n, k), "float32")
    elif zeros.dtype == "uint8":
        stored = _of_size(ctx, zeros, (n, ceil(count * bits / 8)), "zero_points")
        zero = spread(build.cast(unpacked(stored, bits, count), "float32"))
    else:
        ctx.same_dtype(scales, zeros)
        zero = spread(build.cast(_of_size(ctx, zeros, (n, count), "zero_points"), "float32"))
    return build.elementwise("MUL", build.elementwise("SUB", build.cast(integers, "float32"), zero), scale)


def _columns(ctx: NodeContext, groups: Node | None, count: int, block: int, k: int):
    """The function that brings a parameter [N, blocks] to every column: by position, or by `groups`."""
    if groups is None:
        return lambda x: _blocks(x, 1, block, k)
    ctx.require(groups.dtype == "int32", f"'g_idx' must be int32, not {groups.dtype}")
    # exporters pad the indices of the last block
    ctx.require(
        len(groups.shape) == 1 and groups.shape[0] in (k, count * block),
        f"'g_idx' must be of shape [{k}], not {list(groups.shape)}",
    )
    places = build.shrink(groups, [0], [k])
    known = ctx.known(places)
    if known is not None:
        ctx.require(
            bool(((known >= 0) & (known < count)).all()), f"'g_idx' must lie between 0 and {count - 1}"
        )
    return lambda x: build.gather(x, places, 1)


NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip
FP4 = (
    0.0, 5.208333333e-03, 0.66666667, 1.0, 0.33333333, 0.5, 0.16666667, 0.25,
    -0.0, -5.208333333e-03, -0.66666667, -1.0, -0.33333333, -0.5, -0.16666667, -0.25,
)  # fmt: skip
"""The 16 values of each 4-bit type of bitsandbytes (arXiv:2305.14314, appendix E)."""


@onnx_op("MatMulBnb4", domain=MICROSOFT, tolerance=ACCUMULATED)
def matmul_bitsandbytes(ctx: NodeContext, a: Node, b: Node, largest: Node) -> Node:
    """A times weights [N, K], by default transposed, of 4-bit floats in blocks of the flattened matrix."""
    n, k = ctx.integer("N", REQUIRED, minimum=1), ctx.integer("K", REQUIRED, minimum=1)
    block = ctx.integer("block_size", REQUIRED, minimum=16)
    ctx.require(block & (block - 1) == 0, f"the attribute 'block_size' must be a power of 2, not {block}")
    kind = ctx.integer("quant_type", REQUIRED, choices=(0, 1))
    check_scale(ctx, a, dtypes=SCALES)
    ctx.same_dtype(a, largest)
    ctx.require(b.dtype == "uint8", f"B must be uint8, not {b.dtype}")
    stored = _of_size(ctx, b, (ceil(n * k / 2),), "B")
    position = index(output_axis(0, n * k))
    bytes_ = build.view(stored, [position // 2], (n * k,))
    shift = build.position(4 - position % 2 * 4, (n * k,), "uint8")
    codes = build.elementwise("AND", build.elementwise("SHR", bytes_, shift), like(15, bytes_))
    table = build.constant(np.array(NF4 if kind else FP4, np.float32))
    values = build.gather(table, build.cast(codes, "int32"), 0)
    scale = _blocks(_of_size(ctx, largest, (ceil(n * k / block),), "absmax"), 0, block, n * k)
    weights = build.elementwise("MUL", values, build.cast(scale, "float32"))
    matrix = build.cast(build.reshape(weights, (n, k)), a.dtype)
    transposed = ctx.flag("transB", True)
    width = k if transposed else n
    ctx.require(
        len(a.shape) >= 1 and a.shape[-1] == width, f"A must end in {width} columns, not {list(a.shape)}"
    )
    return matmul(a, build.permute(matrix, [1, 0]) if transposed else matrix)


@onnx_op("GatherBlockQuantized", domain=MICROSOFT, tolerance=ROUNDED)
def gather_block_quantized(
    ctx: NodeContext, data: Node, indices: Node, scales: Node, zeros: Node | None = None
) -> Node:
    """Slices of a table quantised in blocks, as floats; an index out of range gives zeros."""
    rank = len(data.shape)
    ctx.require(rank >= 1, "the table must not be a scalar")
    check_scale(ctx, scales, dtypes=SCALES)
    ctx.require(indices.dtype in ("int32", "int64"), f"'indices' must be int32 or int64, not {indices.dtype}")
    is_bytes, is_float = data.dtype == "uint8", data.dtype.startswith("float")
    ctx.require(
        is_bytes or is_float or data.dtype in ("int4", "uint4"), f"does not take a table of {data.dtype}"
    )
    bits = ctx.integer("bits", 4, choices=BITS) if is_bytes else 8
    gather_axis = ctx.axis(ctx.integer("gather_axis", 0), rank, "gather_axis")
    block_axis = ctx.axis(ctx.integer("quantize_axis", 1), rank, "quantize_axis")
    shape = (*data.shape[:-1], data.shape[-1] * (8 // bits))
    block = ctx.integer("block_size", 128, minimum=0) or max(shape[block_axis], 1)
    ctx.require(block & (block - 1) == 0 or is_float, f"'block_size' must be a power of 2, not {block}")
    blocks = tuple(ceil(d / block) if i == block_axis else d for i, d in enumerate(shape))
    ctx.require(
        len(scales.shape) == rank
        and all(
            s == d or (s == 1 and is_float and i != block_axis)
            for i, (s, d) in enumerate(zip(scales.shape, blocks))
        ),
        f"the scales must be of shape {list(blocks)}, not {list(scales.shape)}",
    )
    ctx.require(zeros is None or not is_float, "a table of floats has no zero points")
    table = _Table(
        unpacked(data, bits, shape[-1]),
        build.expand(scales, blocks),
        _zero_points(ctx, data, zeros, blocks, bits),
        block_axis,
        block,
    )
    if gather_axis == block_axis:
        return _gathered(ctx, table.value(), indices, gather_axis)
    moved = block_axis if block_axis < gather_axis else block_axis + len(indices.shape) - 1
    parts = [_gathered(ctx, x, indices, gather_axis) for x in (table.data, table.scale, table.zero)]
    return _Table(parts[0], parts[1], parts[2], moved, block).value()


class _Table:
    """Integers or small floats with the scales and zero points of blocks along `axis`."""

    def __init__(self, data: Node, scale: Node, zero: Node, axis: int, block: int):
        self.data, self.scale, self.zero, self.axis, self.block = data, scale, zero, axis, block

    def value(self) -> Node:
        """(data - zero point) · scale in the type of the scale."""
        size = self.data.shape[self.axis]
        scale, zero = (_blocks(x, self.axis, self.block, size) for x in (self.scale, self.zero))
        centred = build.elementwise("SUB", build.cast(self.data, "float32"), build.cast(zero, "float32"))
        return build.cast(build.elementwise("MUL", centred, build.cast(scale, "float32")), scale.dtype)


def _zero_points(
    ctx: NodeContext, data: Node, zeros: Node | None, blocks: tuple[int, ...], bits: int
) -> Node:
    if zeros is None:
        default = 1 << (bits - 1) if data.dtype == "uint8" else 0
        return build.full(default, blocks, "float32")
    ctx.same_dtype(data, zeros)
    stored = (*blocks[:-1], ceil(blocks[-1] * bits / 8))
    ctx.require(
        zeros.shape == stored, f"the zero points must be of shape {list(stored)}, not {list(zeros.shape)}"
    )
    return unpacked(zeros, bits, blocks[-1])


def _gathered(ctx: NodeContext, x: Node, indices: Node, axis: int) -> Node:
    """Slices of `x`; negative indices count from the end, others out of range read 0."""
    size = x.shape[axis]
    negative = build.elementwise("CMPLT", indices, like(0, indices))
    shifted = build.elementwise("ADD", indices, like(size, indices))
    return build.gather(x, build.elementwise("WHERE", negative, shifted, indices), axis)
