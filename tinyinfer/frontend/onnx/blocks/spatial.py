"""Window geometry that convolution and pooling share: kernel, strides, dilations, padding, output sizes.

Source: ONNX Conv, MaxPool, AveragePool, ConvTranspose (attributes auto_pad, pads, ceil_mode, output_shape).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinyinfer.frontend.onnx.context import NodeContext


@dataclass(frozen=True)
class Window:
    """A sliding window over `sizes`: one number per spatial axis in every field."""

    sizes: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def extents(self) -> tuple[int, ...]:
        """How many positions the dilated kernel spans."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations))

    @property
    def padded(self) -> bool:
        """Whether any position lies outside of the input."""
        return any(self.before) or any(self.after)


AUTO_PAD = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


def window_of(
    ctx: NodeContext, sizes: Sequence[int], kernel: Sequence[int], ceil_mode: bool = False
) -> Window:
    """The window that a node's attributes describe over `sizes`; every attribute checked.

    With `ceil_mode`, padding behind is enlarged so that floor rounding gives the ONNX output size.
    """
    rank = len(sizes)
    strides = tuple(ctx.integers("strides", [1] * rank, rank, 1))
    dilations = tuple(ctx.integers("dilations", [1] * rank, rank, 1))
    kernel = tuple(kernel)
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    auto = ctx.string("auto_pad", "NOTSET", AUTO_PAD)
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        before, after = same_padding(sizes, extents, strides, auto == "SAME_UPPER")
    elif auto == "VALID":
        before, after = [0] * rank, [0] * rank
    else:
        pads = ctx.integers("pads", [0] * (2 * rank), 2 * rank, 0)
        before, after = pads[:rank], pads[rank:]
    for i in range(rank):
        span = sizes[i] + before[i] + after[i] - extents[i]
        if span < 0 and not (ceil_mode and span > -strides[i]):
            ctx.fail(
                f"the kernel spans {extents[i]} along spatial axis {i}, more than the padded size "
                f"{sizes[i] + before[i] + after[i]}"
            )
        ctx.table_size(span // strides[i] + 1, "the output size")
        if ceil_mode and span % strides[i]:
            outputs = -(-span // strides[i]) + 1
            # a last window that would start in the padding behind does not count
            if (outputs - 1) * strides[i] < sizes[i] + before[i]:
                after[i] += (outputs - 1) * strides[i] - span
    return Window(tuple(sizes), kernel, strides, dilations, tuple(before), tuple(after))


def same_padding(
    sizes: Sequence[int], extents: Sequence[int], strides: Sequence[int], upper: bool
) -> tuple[list[int], list[int]]:
    """Padding for output size ceil(size / stride); an odd amount has its extra at the end if `upper`."""
    before, after = [], []
    for size, extent, stride in zip(sizes, extents, strides):
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        small, large = total // 2, total - total // 2
        before.append(small if upper else large)
        after.append(large if upper else small)
    return before, after
