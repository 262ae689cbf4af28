"""Which register blocks suit an Adreno: contraction kernels in OpenCL C, compiled by ir3, as tables.

    TINYINFER_MESA=FOLDER python -m benchmarks.adreno_contractions a630 a660 a740 [--all]

Values are images of four half channels a texel ("quads"). A work-item computes `pixels` neighbours of a row
for `quads` quads of output channels. Sizes are literals, as in generated kernels. Nothing is executed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tinyinfer.backends.qcom.capabilities import AdrenoGpu, find_gpu
from tinyinfer.backends.qcom.ir3 import KernelText, find_compiler
from tinyinfer.backends.qcom.statistics import CompiledKernel

LANES = "xyzw"
CHANNELS = 32
"""Quads of input and of output channels."""

WEIGHTS = {
    "image": "read_only image2d_t weights",
    "global": "__global const half4 *restrict weights",
    "constant": "__constant half4 *weights",
}


@dataclass(frozen=True)
class Block:
    """A register block of a contraction, and how its operands are read."""

    kind: str
    """"1x1", "3x3" with the taps of a row side by side, "taps" (3x3, a loop over channels for each tap), or
    "depthwise" (3x3).
    """

    pixels: int
    quads: int = 1
    unroll: int = 1
    """Steps over quads of input channels in one trip of the loop."""

    accumulate: str = "float"
    """"half"; "mixed", half within a trip of the loop, whose sum is added to floats; "float", with reads that
    give floats; "converted", float with reads that give halves.
    """

    weights: str = "image"
    layout: str = "planar"
    """Of activations: "planar", x is the column and y is row * quads + quad; "packed", x is column * quads +
    quad and y the row.
    """

    work_group: tuple[int, int] = (32, 4)

    @property
    def name(self) -> str:
        """The block in one word."""
        parts = (f"{self.kind}_{self.pixels}x{self.quads}", f"u{self.unroll}", self.accumulate, self.weights)
        return "_".join((*parts, self.layout, str(self.work_group[0] * self.work_group[1])))

    @property
    def taps(self) -> int:
        """Taps of a row that are side by side in the loop."""
        return 3 if self.kind in ("3x3", "depthwise") else 1

    @property
    def values(self) -> str:
        """The type that is multiplied."""
        return "half4" if self.accumulate in ("half", "mixed") else "float4"

    @property
    def total(self) -> str:
        """The type that is summed over the whole loop."""
        return "half4" if self.accumulate == "half" else "float4"


def opencl(block: Block) -> str:
    """The kernel of a block."""
    places = list(itertools.product(range(block.pixels), range(block.quads)))
    x, y = block.work_group
    lines = [
        "#pragma OPENCL EXTENSION cl_khr_fp16 : enable",
        f"__kernel __attribute__((reqd_work_group_size({x}, {y}, 1))) void contraction(",
        f"    read_only image2d_t source, {WEIGHTS[block.weights]}, write_only image2d_t result) {{",
        f"  const int column = (int)get_global_id(0) * {block.pixels};",
        f"  const int quad = (int)get_global_id(1) * {block.quads};",
        "  const int row = (int)get_global_id(2);",
        *(f"  {block.total} c{p}_{q} = 0;" for p, q in places),
        *_loop(block, [f"{p}_{q}" for p, q in places]),
    ]
    for p, q in places:
        value = f"c{p}_{q}" if block.total == "half4" else f"convert_half4(c{p}_{q})"
        lines.append(f"  write_imageh(result, {_place(block, p, 'row', f'quad + {q}')}, {value});")
    return "\n".join([*lines, "}", ""])


def _loop(block: Block, places: list[str]) -> Iterator[str]:
    channels = f"int k = 0; k < {CHANNELS}; k += {block.unroll}"
    rows, taps = "int r = 0; r < 3; r++", "int t = 0; t < 3; t++"
    nests = {"1x1": [channels], "3x3": [channels, rows], "taps": [rows, taps, channels], "depthwise": [rows]}
    *outer, inner = nests[block.kind]
    yield from (f"  for ({loop})" for loop in outer)
    yield f"  for ({inner}) {{"
    mixed = block.accumulate == "mixed"
    if mixed:
        yield from (f"    half4 s{place} = 0;" for place in places)
    for step in range(block.unroll):
        yield from ("    {", *_step(block, step, "s" if mixed else "c"), "    }")
    if mixed:
        yield from (f"    c{place} += convert_float4(s{place});" for place in places)
    yield "  }"


def _step(block: Block, step: int, sums: str) -> Iterator[str]:
    row = "row" if block.kind == "1x1" else "(row + r)"
    quad = "quad" if block.kind == "depthwise" else f"(k + {step})"
    for i in range(block.pixels + block.taps - 1):
        yield f"    const {block.values} a{i} = {_read(block, 'source', _place(block, i, row, quad))};"
    for tap in range(block.taps):
        yield "    {"
        if block.kind == "depthwise":
            yield f"    const {block.values} w = {_weight(block, f'3 * r + {tap}', 'quad')};"
            yield from (f"    {sums}{p}_0 = mad(a{p + tap}, w, {sums}{p}_0);" for p in range(block.pixels))
        else:
            yield from _outer_products(block, step, tap, sums)
        yield "    }"


def _outer_products(block: Block, step: int, tap: int, sums: str) -> Iterator[str]:
    tap_of_9 = {"1x1": "k", "3x3": f"9 * k + 3 * r + {tap}", "taps": f"(3 * r + t) * {CHANNELS} + k"}[
        block.kind
    ]
    channel = f"4 * ({tap_of_9} + {step})"
    for q, j in itertools.product(range(block.quads), range(4)):
        yield f"    const {block.values} w{q}_{j} = {_weight(block, f'{channel} + {j}', f'quad + {q}')};"
    for q, (j, lane), p in itertools.product(range(block.quads), enumerate(LANES), range(block.pixels)):
        # mad, never fma: that is emulated, at hundreds of instructions each
        yield f"    {sums}{p}_{q} = mad(({block.values})(a{p + tap}.{lane}), w{q}_{j}, {sums}{p}_{q});"


def _place(block: Block, pixel: int, row: str, quad: str) -> str:
    column = "column + t" if block.kind == "taps" and row != "row" else "column"
    if block.layout == "planar":
        return f"(int2)({column} + {pixel}, {row} * {CHANNELS} + {quad})"
    return f"(int2)(({column} + {pixel}) * {CHANNELS} + {quad}, {row})"


def _weight(block: Block, channel: str, quad: str) -> str:
    if block.weights == "image":
        return _read(block, "weights", f"(int2)({quad}, {channel})")
    value = f"weights[({channel}) * {CHANNELS} + {quad}]"
    return value if block.values == "half4" else f"convert_float4({value})"


def _read(block: Block, image: str, place: str) -> str:
    """A texel: as halves, as floats that the texture unit makes, or as floats that instructions make."""
    if block.values == "half4":
        return f"read_imageh({image}, {place})"
    if block.accumulate == "float":
        return f"read_imagef({image}, {place})"
    return f"convert_float4(read_imageh({image}, {place}))"


@dataclass(frozen=True)
class Row:
    """What the compiler made of a block."""

    block: Block
    registers: int
    waves: int
    wave_size: int
    slots: float
    """Issue slots for one multiply-add of a work-item, in the innermost loop where one is left."""

    reads: float
    """Texture reads for one multiply-add."""

    spills: bool

    @property
    def text(self) -> str:
        """The row of a Markdown table."""
        cells = (
            self.block.name,
            f"{self.registers}",
            f"{self.waves} x {self.wave_size}",
            f"{self.waves * self.wave_size}",
            f"{self.slots:.2f}",
            f"{self.reads:.3f}",
            "yes" if self.spills else "",
        )
        return f"| {' | '.join(cells)} |"


HEADER = """| block | registers | waves | items | slots / multiply-add | reads / multiply-add | spills |
|---|---|---|---|---|---|---|"""


def row_of(block: Block, kernel: CompiledKernel, gpu: AdrenoGpu) -> Row:
    """The row of a compiled block."""
    said = kernel.statistics
    counted = max(kernel.loops, key=lambda loop: (loop.depth, loop.instructions), default=said)
    return Row(
        block,
        said.full_registers,
        said.waves,
        gpu.wave_size * (2 if said.double_wave else 1),
        counted.instructions / counted.multiply_adds,
        counted.texture_reads / counted.multiply_adds,
        said.spills,
    )


def blocks() -> list[Block]:
    """The blocks that are compared."""
    accumulations = ("half", "float", "mixed", "converted")
    groups = ((32, 4), (16, 4))
    shapes = [(p, q) for p, q in itertools.product((1, 2, 4, 8), (1, 2, 4)) if p * q <= 16]
    chosen = [
        Block("1x1", p, q, u, how, layout=layout, work_group=group)
        for how, layout, group, u, (p, q) in itertools.product(
            accumulations, ("planar", "packed"), groups, (1, 2), shapes
        )
    ]
    chosen += [
        Block(kind, p, q, 1, how, work_group=group)
        for kind, how, group, (p, q) in itertools.product(("3x3", "taps"), accumulations, groups, shapes)
    ]
    chosen += [
        Block("depthwise", p, 1, 1, how, work_group=group)
        for how, group, p in itertools.product(("half", "float"), groups, (1, 2, 4, 8))
    ]
    chosen += [
        Block("1x1", p, q, 1, how, weights)
        for how, weights, (p, q) in itertools.product(
            ("half", "float"), ("global", "constant"), ((4, 1), (4, 2))
        )
    ]
    return chosen


def best(rows: Iterable[Row]) -> Iterator[Row]:
    """For each kind and accumulation, the fewest slots with at least 12 waves, at least 8, and any."""
    rows = [row for row in rows if not row.spills]
    for kind, how in dict.fromkeys((row.block.kind, row.block.accumulate) for row in rows):
        among = [row for row in rows if (row.block.kind, row.block.accumulate) == (kind, how)]
        winners = []
        for waves in (12, 8, 1):
            enough = [row for row in among if row.waves >= waves]
            winners += sorted(enough, key=lambda row: (round(row.slots, 2), -row.waves * row.wave_size))[:1]
        yield from dict.fromkeys(winners)


def main() -> int:
    """Print a table a GPU; 1 where there is no compiler."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("gpus", nargs="+")
    parser.add_argument("--all", action="store_true", help="every block, not only the best")
    arguments = parser.parse_args()
    for name in arguments.gpus:
        gpu = find_gpu(name)
        compiler, reason = find_compiler(gpu)
        if compiler is None:
            print(reason, file=sys.stderr)
            return 1
        kernels = compiler.compile([KernelText(block.name, opencl(block)) for block in blocks()])
        compiler.close()
        rows = [row_of(block, kernel, gpu) for block, kernel in zip(blocks(), kernels)]
        print(f"\n{gpu.name}, {compiler.version}\n\n{HEADER}")
        for row in rows if arguments.all else best(rows):
            print(row.text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
