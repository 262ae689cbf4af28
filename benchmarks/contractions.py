"""The convolutions of ResNet-50, each as a kernel of a small network, beside the measured peak: one thread.

python -m benchmarks.contractions
"""

from __future__ import annotations

import numpy as np

from tinyinfer.backends.cpu.device import CpuDevice
from tinyinfer.config import CompileOptions
from tinyinfer.ir import build
from tinyinfer.ir.node import Graph, Node
from tinyinfer.runtime.peaks import measure_peaks

# channels, size, outputs, kernel, stride
LAYERS = (
    (64, 56, 64, 3, 1),
    (128, 28, 128, 3, 1),
    (256, 14, 256, 3, 1),
    (512, 7, 512, 3, 1),
    (512, 14, 512, 3, 2),
    (64, 56, 256, 1, 1),
    (256, 56, 64, 1, 1),
    (512, 28, 128, 1, 1),
    (128, 28, 512, 1, 1),
    (1024, 14, 256, 1, 1),
    (256, 14, 1024, 1, 1),
    (512, 7, 2048, 1, 1),
    (2048, 7, 512, 1, 1),
)


def convolution(x: Node, outputs: int, kernel: int, stride: int, generator: np.random.Generator) -> Node:
    """A convolution with random weights and a rectifier, padded by half its kernel."""
    weights = generator.standard_normal((outputs, x.shape[1], kernel, kernel), np.float32)
    around = [kernel // 2] * 2
    y = build.convolution(x, build.constant(weights), [stride] * 2, [1, 1], around, around)
    return build.apply("MAX", y, build.scalar(0, "float32"))


def main() -> None:
    """Print GFLOP/s of each layer, standing between two 1×1 convolutions as in a network."""
    generator = np.random.default_rng(0)
    for channels, size, outputs, kernel, stride in LAYERS:
        x = build.input_node("x", (1, channels, size, size), "float32")
        y = convolution(convolution(x, channels, 1, 1, generator), outputs, kernel, stride, generator)
        graph = Graph({"x": x}, {"y": convolution(y, 8, 1, 1, generator)})
        executable = CpuDevice().compile(graph, CompileOptions(), 1)
        times = executable.profile([generator.standard_normal(x.shape, np.float32)], 30)
        flops = 2 * y.size * channels * kernel * kernel
        rate = next(flops / t.seconds for t in times[::-1] if t.flops == flops)
        # the clock of a shared machine moves: each layer stands beside a peak of its own moment
        peak = measure_peaks(1).gflops_one_core * 1e9
        layer = f"{kernel}x{kernel} stride {stride} {size}x{size} {channels}->{outputs}"
        print(f"{layer}: {rate / 1e9:.0f} of {peak / 1e9:.0f} GFLOP/s, {rate / peak:.0%}")
        executable.close()


if __name__ == "__main__":
    main()
