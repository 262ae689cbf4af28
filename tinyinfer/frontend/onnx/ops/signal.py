"""Signal processing: Fourier transforms, window functions, mel filters."""

from __future__ import annotations

import numpy as np

from tinyinfer.frontend.onnx.blocks.fourier import fourier, real_inverse
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import ACCUMULATED, ROUNDED, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import is_float
from tinyinfer.ir import build
from tinyinfer.ir.index import index
from tinyinfer.ir.node import Node, output_axis


def _parts(ctx: NodeContext, x: Node, what: str) -> int:
    """1 for a real signal and 2 for a complex one, which the last axis tells."""
    ctx.require(is_float(x), f"'{what}' must be a float tensor, not {x.dtype}")
    ctx.require(
        len(x.shape) >= 2 and x.shape[-1] in (1, 2),
        f"'{what}' must have a last axis of size 1 (real) or 2 (complex), not the shape {list(x.shape)}",
    )
    return x.shape[-1]


def _wide(x: Node) -> Node:
    """`x` in at least single precision."""
    return x if x.dtype in ("float32", "float64") else build.cast(x, "float32")


def _length(ctx: NodeContext, length: int, what: str) -> int:
    ctx.require(length >= 1, f"'{what}' must be positive, not {length}")
    ctx.table_size(length, f"'{what}'")
    return length


def _dft(ctx: NodeContext, x: Node, length: Node | None, axis: int) -> Node:
    parts = _parts(ctx, x, "input")
    rank = len(x.shape)
    axis = ctx.axis(axis, rank)
    ctx.require(axis != rank - 1, "the transform cannot run along the last axis, which holds the parts")
    inverse, onesided = ctx.flag("inverse"), ctx.flag("onesided")
    size = x.shape[axis]
    if length is not None:
        count = int(ctx.constant_scalar(length, "dft_length"))
    else:
        count = 2 * (size - 1) if inverse and onesided else size
    count = _length(ctx, count, "dft_length")
    order = [i for i in range(rank - 1) if i != axis] + [axis, rank - 1]
    moved = build.permute(_wide(x), order)
    lead = moved.shape[:-2]
    signal = build.reshape(moved, [int(np.prod(lead, dtype=np.int64)), size, parts])
    used = count // 2 + 1 if inverse and onesided else count
    if size > used:
        signal = build.shrink(signal, [0, 0, 0], [signal.shape[0], used, parts])
    if inverse and onesided:
        signal = build.pad(signal, [0, 0, 0], [0, max(used - size, 0), 2 - parts])
        result = real_inverse(signal, count)
    elif onesided:
        ctx.require(parts == 1, "a one-sided transform takes a real signal, not a complex one")
        result = fourier(signal, count, bins=count // 2 + 1)
    else:
        result = fourier(signal, count, inverse, scale=1 / count if inverse else 1.0)
    result = build.reshape(result, [*lead, *result.shape[1:]])
    return build.cast(build.permute(result, [order.index(i) for i in range(rank)]), x.dtype)


@onnx_op("DFT", since=17, until=19, tolerance=ACCUMULATED)
def dft_17(ctx: NodeContext, x: Node, length: Node | None = None) -> Node:
    """Discrete Fourier transform along the axis of an attribute."""
    return _dft(ctx, x, length, ctx.integer("axis", 1))


@onnx_op("DFT", since=20, tolerance=ACCUMULATED)
def dft(ctx: NodeContext, x: Node, length: Node | None = None, axis: Node | None = None) -> Node:
    """Discrete Fourier transform along the axis of an input."""
    return _dft(ctx, x, length, -2 if axis is None else int(ctx.constant_scalar(axis, "axis")))


@onnx_op("STFT", since=17, tolerance=ACCUMULATED)
def stft(
    ctx: NodeContext, x: Node, step: Node, window: Node | None = None, length: Node | None = None
) -> Node:
    """Discrete Fourier transforms of overlapping frames of a signal, each times a window."""
    parts = _parts(ctx, x, "signal")
    ctx.require(len(x.shape) == 3, f"'signal' must be [batch, length, parts], not {list(x.shape)}")
    batch, samples, _ = x.shape
    ctx.require(
        window is None or (len(window.shape) == 1 and window.dtype == x.dtype),
        "'window' must be one-dimensional and of the signal's type",
    )
    hop = _length(ctx, int(ctx.constant_scalar(step, "frame_step")), "frame_step")
    count = samples if window is None else window.shape[0]
    if length is not None:
        count = int(ctx.constant_scalar(length, "frame_length"))
    count = _length(ctx, count, "frame_length")
    ctx.require(
        window is None or window.shape[0] == count,
        f"'window' of {window.shape[0] if window else 0} does not fit frames of {count}",
    )
    ctx.require(count <= samples, f"a frame of {count} does not fit into a signal of {samples}")
    onesided = ctx.flag("onesided", True)
    ctx.require(not onesided or parts == 1, "a one-sided transform takes a real signal, not a complex one")
    frames = (samples - count) // hop + 1
    shape = (batch, frames, count, parts)
    b, f, n, p = (index(output_axis(i, d)) for i, d in enumerate(shape))
    framed = build.reshape(build.view(_wide(x), [b, f * hop + n, p], shape), [batch * frames, count, parts])
    known = None if window is None else ctx.known(window)
    if window is not None and known is None:
        framed = build.apply("MUL", framed, build.reshape(_wide(window), [count, 1]))
    bins = count // 2 + 1 if onesided else count
    weights = None if known is None else known.astype(np.float64)
    result = fourier(framed, count, bins=bins, window=weights)
    return build.cast(build.reshape(result, [batch, frames, bins, 2]), x.dtype)


# ---- tables

_COSINES: dict[str, tuple[float, ...]] = {
    "HannWindow": (0.5, -0.5),
    "HammingWindow": (25 / 46, 25 / 46 - 1),
    "BlackmanWindow": (0.42, -0.5, 0.08),
}
"""Windows as sums a₀ + a₁ cos t + a₂ cos 2t over one period."""


def _register_window(name: str, terms: tuple[float, ...]) -> None:
    def function(ctx: NodeContext, size: Node) -> Node:
        count = int(ctx.constant_scalar(size, "size"))
        ctx.require(count >= 0, f"'size' must not be negative, but is {count}")
        ctx.table_size(count, "'size'")
        period = count if ctx.flag("periodic", True) else count - 1
        t = 2 * np.pi * np.arange(count) / max(period, 1)
        values = sum(a * np.cos(k * t) for k, a in enumerate(terms))
        return build.constant(np.asarray(values), ctx.dtype("output_datatype", "float32"))

    function.__doc__ = f"{name}: a sum of {len(terms)} cosines."
    onnx_op(name, since=17, tolerance=ROUNDED)(function)


for _name, _terms in _COSINES.items():
    _register_window(_name, _terms)


@onnx_op("MelWeightMatrix", since=17, tolerance=ROUNDED)
def mel_weight_matrix(
    ctx: NodeContext, bands: Node, length: Node, rate: Node, lower: Node, upper: Node
) -> Node:
    """Triangular filters, evenly spaced in mel, from the bins of a spectrum to bands."""
    count = int(ctx.constant_scalar(bands, "num_mel_bins"))
    size = _length(ctx, int(ctx.constant_scalar(length, "dft_length")), "dft_length")
    samples = int(ctx.constant_scalar(rate, "sample_rate"))
    low = float(ctx.constant_scalar(lower, "lower_edge_hertz"))
    high = float(ctx.constant_scalar(upper, "upper_edge_hertz"))
    ctx.require(count >= 1 and samples >= 1, "'num_mel_bins' and 'sample_rate' must be positive")
    ctx.require(
        0 <= low <= high < float("inf"), f"the edges {low} and {high} must not be negative, nor out of order"
    )
    bins = size // 2 + 1
    ctx.table_size(bins * count, "the number of weights")
    low_mel, high_mel = (2595 * np.log10(1 + f / 700) for f in (low, high))
    mels = low_mel + np.arange(count + 2) * ((high_mel - low_mel) / (count + 2))
    edges = ((size + 1) * (700 * (10 ** (mels / 2595) - 1)) // samples).astype(np.int64)
    ctx.require(int(edges[-1]) < bins, f"the upper edge {high} Hz is beyond half of the rate {samples}")
    here = np.arange(bins)[:, None]
    left, center, right = edges[:-2], edges[1:-1], edges[2:]
    rising = np.where((left <= here) & (here <= center), (here - left) / np.maximum(center - left, 1), 0)
    rising = np.where(left == center, here == center, rising)
    falling = (right - here) / np.maximum(right - center, 1)
    weights = np.where((center <= here) & (here < right), falling, rising)
    return build.constant(weights, ctx.dtype("output_datatype", "float32"))
