"""Convolutions: a SUM of a MUL of two views, of any rank, grouped, dilated, transposed."""

from __future__ import annotations

from tinyinfer.frontend.onnx.blocks.spatial import AUTO_PAD, window_of
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, onnx_op
from tinyinfer.ir import build
from tinyinfer.ir.index import index
from tinyinfer.ir.node import Node, output_axis


def channel_bias(result: Node, bias: Node | None) -> Node:
    """`result` [N, C, …] plus a bias [C]."""
    if bias is None:
        return result
    return build.apply("ADD", result, build.reshape(bias, [bias.shape[0], *[1] * (len(result.shape) - 2)]))


def _check(ctx: NodeContext, x: Node, w: Node, bias: Node | None, channels_axis: int) -> list[int]:
    """Check ranks, types and kernel; the kernel's sizes."""
    ctx.same_dtype(x, w, bias)
    ctx.floating(x)
    return _check_kernel(ctx, x, w, channels_axis)


def _check_kernel(ctx: NodeContext, x: Node, w: Node, channels_axis: int) -> list[int]:
    """Check ranks, channels and kernel; the kernel's sizes."""
    rank = len(x.shape) - 2
    ctx.require(rank >= 1, f"the input must be [N, C, spatial …], not of rank {len(x.shape)}")
    ctx.require(len(w.shape) == rank + 2, f"the weights must be of rank {rank + 2}, not {list(w.shape)}")
    kernel = list(w.shape[2:])
    given = ctx.integers("kernel_shape", None, rank, 1)
    ctx.require(
        given is None or given == kernel,
        f"the attribute 'kernel_shape' is {given}, but the weights are {list(w.shape)}",
    )
    ctx.require(all(k > 0 for k in kernel), f"the weights {list(w.shape)} have an empty kernel")
    ctx.require(
        x.shape[1] == channels_axis,
        f"the input has {x.shape[1]} channels, but the weights {list(w.shape)} take {channels_axis}",
    )
    return kernel


def convolve(ctx: NodeContext, x: Node, w: Node, bias: Node | None = None) -> Node:
    """The convolution that the attributes describe, of operands of one dtype, whatever it is."""
    group = ctx.integer("group", 1, minimum=1)
    ctx.require(len(w.shape) >= 3, f"the weights must be [O, C / group, kernel …], not {list(w.shape)}")
    kernel = _check_kernel(ctx, x, w, w.shape[1] * group)
    ctx.require(w.shape[0] % group == 0, f"{w.shape[0]} output channels do not divide into {group} groups")
    ctx.require(bias is None or bias.shape == (w.shape[0],), f"the bias must be of shape [{w.shape[0]}]")
    window = window_of(ctx, x.shape[2:], kernel)
    result = build.convolution(x, w, window.strides, window.dilations, window.before, window.after, group)
    return channel_bias(result, bias)


@onnx_op("Conv", tolerance=ACCUMULATED)
def convolution(ctx: NodeContext, x: Node, w: Node, bias: Node | None = None) -> Node:
    """Convolution of [N, C, spatial …] by [O, C / group, kernel …], plus a bias per output channel."""
    ctx.same_dtype(x, w, bias)
    ctx.floating(x)
    return convolve(ctx, x, w, bias)


@onnx_op("ConvTranspose", tolerance=ACCUMULATED)
def transposed_convolution(ctx: NodeContext, x: Node, w: Node, bias: Node | None = None) -> Node:
    """Convolution by [C, O / group, kernel …] backwards: each input position adds its kernel."""
    return _transposed_convolution(ctx, x, w, bias, None)


@onnx_op("ConvTransposeWithDynamicPads", domain="com.microsoft", tolerance=ACCUMULATED)
def transposed_convolution_with_pads(
    ctx: NodeContext, x: Node, w: Node, pads: Node | None = None, bias: Node | None = None
) -> Node:
    """ConvTranspose whose pads are an input."""
    amounts = None
    if pads is not None:
        amounts = ctx.constant_ints(pads, "Pads", 2 * (len(x.shape) - 2))
        ctx.require(min(amounts, default=0) >= 0, f"'Pads' must not be negative: {amounts}")
    return _transposed_convolution(ctx, x, w, bias, amounts)


def _transposed_convolution(
    ctx: NodeContext, x: Node, w: Node, bias: Node | None, pads: list[int] | None
) -> Node:
    """ConvTranspose with the pads given, or with those of the attributes."""
    group = ctx.integer("group", 1, minimum=1)
    ctx.require(len(w.shape) >= 3, f"the weights must be [C, O / group, kernel …], not {list(w.shape)}")
    kernel = _check(ctx, x, w, bias, w.shape[0])
    ctx.require(x.shape[1] % group == 0, f"{x.shape[1]} channels do not divide into {group} groups")
    channels = w.shape[1] * group
    ctx.require(bias is None or bias.shape == (channels,), f"the bias must be of shape [{channels}]")
    rank = len(kernel)
    strides = ctx.integers("strides", [1] * rank, rank, 1)
    dilations = ctx.integers("dilations", [1] * rank, rank, 1)
    before, outputs = _transposed_geometry(ctx, list(x.shape[2:]), kernel, strides, dilations, pads)
    result = _transposed(x, w, group, strides, dilations, before, outputs)
    return channel_bias(result, bias)


def _transposed_geometry(
    ctx: NodeContext,
    sizes: list[int],
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    pads: list[int] | None,
) -> tuple[list[int], list[int]]:
    """Padding cut off in front, and output sizes; `pads` None: those of the attributes."""
    rank = len(sizes)
    extra = ctx.integers("output_padding", [0] * rank, rank, 0)
    for e, s, d in zip(extra, strides, dilations):
        ctx.require(
            e < max(s, d), f"output_padding {extra} must be below the stride {strides} or the dilation"
        )
    full = [
        (n - 1) * s + (k - 1) * d + 1 + e for n, s, k, d, e in zip(sizes, strides, kernel, dilations, extra)
    ]
    auto = ctx.string("auto_pad", "NOTSET", AUTO_PAD)
    wanted = ctx.integers("output_shape", None)
    if wanted is not None:
        wanted = wanted[-rank:] if len(wanted) == rank + 2 else wanted
        ctx.require(
            len(wanted) == rank and all(d > 0 for d in wanted),
            f"the attribute 'output_shape' must hold {rank} positive numbers, not {wanted}",
        )
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [n * s for n, s in zip(sizes, strides)]
    if wanted is None:
        if pads is None:
            pads = ctx.integers("pads", [0] * (2 * rank), 2 * rank, 0)
        if auto == "VALID":
            pads = [0] * (2 * rank)
        outputs = [f - pads[i] - pads[rank + i] for i, f in enumerate(full)]
        ctx.require(all(o > 0 for o in outputs), f"pads {pads} leave nothing of {full}")
        return pads[:rank], outputs
    total = [f - o for f, o in zip(full, wanted)]
    # a size beyond what the input reaches is filled with zeros behind
    halves = [(max(t, 0) // 2, max(t, 0) - max(t, 0) // 2) for t in total]
    before = [small if auto == "SAME_UPPER" else large for small, large in halves]
    return before, list(wanted)


def _transposed(
    x: Node,
    w: Node,
    group: int,
    strides: list[int],
    dilations: list[int],
    before: list[int],
    outputs: list[int],
) -> Node:
    """One contraction with the residues of the strides as axes of its result.

    Along one axis, output position P = s q + r (before cropping) meets input i through tap k where
    P = i s + k d.
    With d = 1 and k = s t + r that is i = q - t for every residue r. With s = 1 it is i = q - d t.
    """
    rank = len(strides)
    n, channels = x.shape[:2]
    cg, og = channels // group, w.shape[1]
    for i in range(rank):
        if strides[i] > 1 and dilations[i] > 1:
            w = _inflate(w, 2 + i, dilations[i])
    kernel = w.shape[2:]
    steps = [d if s == 1 else 1 for s, d in zip(strides, dilations)]
    quotients = [-(-(b + o) // s) for b, o, s in zip(before, outputs, strides)]
    taps = [-(-k // s) for k, s in zip(kernel, strides)]
    places = [size for pair in zip(quotients, strides) for size in pair]
    shape = (n, group, og, *places, cg, *taps)
    axes = [index(output_axis(i, d)) for i, d in enumerate(shape)]
    c, ts = axes[3 + 2 * rank], axes[4 + 2 * rank :]
    channel = axes[1] * cg + c
    sources = [axes[3 + 2 * i] - ts[i] * steps[i] for i in range(rank)]
    weights = [ts[i] * strides[i] + axes[4 + 2 * i] for i in range(rank)]
    a = build.view(x, [axes[0], channel, *sources], shape, zip(sources, x.shape[2:]))
    b = build.view(w, [channel, axes[2], *weights], shape, zip(weights, kernel))
    total = build.reduce("SUM", build.elementwise("MUL", a, b), range(3 + 2 * rank, len(shape)))
    spread = build.reshape(total, [n, group * og, *(q * s for q, s in zip(quotients, strides))])
    return build.shrink(spread, [0, 0, *before], [n, group * og, *(b + o for b, o in zip(before, outputs))])


def _inflate(w: Node, axis: int, dilation: int) -> Node:
    """`w` with zeros between its taps along `axis`."""
    shape = w.shape
    split = build.reshape(w, [*shape[: axis + 1], 1, *shape[axis + 1 :]])
    behind = [0] * len(split.shape)
    behind[axis + 1] = dilation - 1
    spread = build.pad(split, [0] * len(split.shape), behind)
    joined = build.reshape(spread, [*shape[:axis], shape[axis] * dilation, *shape[axis + 1 :]])
    stops = list(joined.shape)
    stops[axis] -= dilation - 1
    return build.shrink(joined, [0] * len(stops), stops)
