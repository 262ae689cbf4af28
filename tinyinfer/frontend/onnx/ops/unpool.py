"""The transposes of windows: Col2Im adds patches back into an image, MaxUnpool puts maxima back."""

from __future__ import annotations

from math import prod

from tinyinfer.frontend.onnx.context import REQUIRED, NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, EXACT, onnx_op
from tinyinfer.ir import build
from tinyinfer.ir.index import Index, Slot, index
from tinyinfer.ir.node import Node, output_axis


@onnx_op("Col2Im", since=18, tolerance=ACCUMULATED)
def column_to_image(ctx: NodeContext, x: Node, image: Node, block: Node) -> Node:
    """The image whose every pixel is the sum of its places in overlapping blocks."""
    ctx.require(len(x.shape) == 3, f"the input must be [N, C · block, blocks], not {list(x.shape)}")
    ctx.require(x.dtype != "bool", "does not add values of type bool")
    sizes = ctx.constant_ints(image, "image_shape")
    rank = len(sizes)
    kernel = ctx.constant_ints(block, "block_shape", rank)
    ctx.require(
        rank >= 1 and all(d >= 1 for d in (*sizes, *kernel)),
        f"'image_shape' {sizes} and 'block_shape' {kernel} must hold positive numbers",
    )
    strides = ctx.integers("strides", [1] * rank, rank, 1)
    dilations = ctx.integers("dilations", [1] * rank, rank, 1)
    pads = ctx.integers("pads", [0] * (2 * rank), 2 * rank, 0)
    spans = [
        d + pads[i] + pads[rank + i] - (k - 1) * dilations[i] - 1
        for i, (d, k) in enumerate(zip(sizes, kernel))
    ]
    ctx.require(all(s >= 0 for s in spans), f"blocks of {kernel} do not fit into {sizes} with their padding")
    blocks = [s // t + 1 for s, t in zip(spans, strides)]
    n, columns, count = x.shape
    ctx.require(
        count == prod(blocks) and columns % prod(kernel) == 0,
        f"the input {list(x.shape)} does not hold {prod(blocks)} blocks of {kernel} per channel",
    )
    channels = columns // prod(kernel)
    split = build.reshape(x, [n, channels, *kernel, *blocks])
    shape = [n, channels, *sizes, *kernel]
    axes = [index(output_axis(i, d)) for i, d in enumerate(shape)]
    places, guards = [], []
    for i in range(rank):
        # pixel p is in block b at offset k if p + padding = b · stride + k · dilation
        start = axes[2 + i] + pads[i] - axes[2 + rank + i] * dilations[i]
        number = start // strides[i]
        places.append(number)
        guards += [(number, blocks[i]), (start % strides[i], 1)]
    spread = build.view(split, [*axes[:2], *axes[2 + rank :], *places], shape, guards)
    return build.reduce("SUM", spread, range(2 + rank, len(shape)))


@onnx_op("MaxUnpool", since=9, tolerance=EXACT)
def max_unpool(ctx: NodeContext, x: Node, places: Node, shape: Node | None = None) -> Node:
    """Zeros with the values of x at the places that MaxPool found them at."""
    rank = len(x.shape) - 2
    ctx.require(rank >= 1, f"the input must be [N, C, spatial …], not of rank {len(x.shape)}")
    ctx.require(
        places.shape == x.shape and places.dtype == "int64",
        f"the indices must be int64 of shape {list(x.shape)}, not {places.dtype}{list(places.shape)}",
    )
    kernel = ctx.integers("kernel_shape", REQUIRED, rank, 1)
    strides = ctx.integers("strides", [1] * rank, rank, 1)
    pads = ctx.integers("pads", [0] * (2 * rank), 2 * rank, 0)
    sizes = [
        (d - 1) * s + k - pads[i] - pads[rank + i]
        for i, (d, s, k) in enumerate(zip(x.shape[2:], strides, kernel))
    ]
    ctx.require(all(d >= 0 for d in sizes), f"pads {pads} leave nothing of the output")
    full = [*x.shape[:2], *sizes]
    total = prod(full)
    ctx.table_size(total, "the output size")
    flat = build.reshape(places, [x.size])
    where: list[Index] = [index(Slot(0, 0, max(total - 1, 0)))]
    base = build.full(0, [total], x.dtype)
    result = build.reshape(build.scatter(base, build.reshape(x, [x.size]), where, [flat]), full)
    if shape is None:
        return result
    # the indices count in the shape that the attributes give; the wanted one may be larger
    wanted = ctx.constant_ints(shape, "output_shape", rank + 2)
    ctx.require(all(d >= 0 for d in wanted), f"'output_shape' must not hold negative sizes: {wanted}")
    ctx.table_size(prod(wanted), "the output size")
    return build.pad(result, [0] * len(full), [w - d for w, d in zip(wanted, full)])
