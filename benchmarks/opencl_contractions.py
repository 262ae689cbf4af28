"""Schedules of contractions on an OpenCL device: what each takes, and what the cost model makes of it.

usage: python -m benchmarks.opencl_contractions [--device opencl:0] [--all] [--only WORD]

A line a contraction: the picked schedule, the fastest one, and the fastest without local memory, in
microseconds by the device's clock. With `--all` every schedule that was measured.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tinyinfer.backends.opencl.device import OpenclDevice
from tinyinfer.backends.opencl.measure import ScheduleTimer
from tinyinfer.ir import build
from tinyinfer.ir.node import Graph, Node, topological_order
from tinyinfer.ir.passes import optimize
from tinyinfer.kernels.assign import LoopKernel, assign
from tinyinfer.kernels.physical import to_physical
from tinyinfer.kernels.schedule_gpu import GpuModel
from tinyinfer.kernels.schedule_gpu_contraction import (
    GpuContractionChoice,
    GpuContractionSchedule,
    block_cost,
    schedule_gpu_contraction,
)
from tinyinfer.kernels.schedule_gpu_cost import tile_cost
from tinyinfer.kernels.schedule_gpu_tile import GpuTileSchedule, tile_schedule, tiles
from tinyinfer.kernels.tuning import Tuning

Schedule = GpuContractionSchedule | GpuTileSchedule

CONVOLUTIONS = (
    # channels in and out, kernel, stride, size of the result
    (64, 64, 3, 1, 56),
    (128, 128, 3, 1, 28),
    (256, 256, 3, 1, 14),
    (512, 512, 3, 1, 7),
    (3, 64, 7, 2, 112),
    (64, 256, 1, 1, 56),
    (256, 64, 1, 1, 56),
    (512, 128, 1, 1, 28),
    (256, 1024, 1, 1, 14),
    (1024, 256, 1, 1, 14),
    (512, 2048, 1, 1, 7),
    (2048, 512, 1, 1, 7),
    (16, 96, 1, 1, 112),
    (96, 24, 1, 1, 56),
    (160, 960, 1, 1, 7),
    (960, 160, 1, 1, 7),
)
PRODUCTS = ((1024, 1024, 1024), (64, 768, 3072), (64, 3072, 768), (1, 2048, 1000))
"""Rows, steps, columns."""


def graphs() -> Iterator[tuple[str, Node]]:
    """Each contraction and its name. What convolutions read lies as another one leaves it."""
    rng = np.random.default_rng(0)

    def weights(shape: tuple[int, ...]) -> Node:
        return build.constant(rng.standard_normal(shape, np.float32))

    for channels, outputs, size, stride, side in CONVOLUTIONS:
        before = side * stride
        x = build.input_node("x", (1, 8, before, before), "float32")
        x = build.convolution(x, weights((channels, 8, 1, 1)), [1, 1], [0, 0], [0, 0], [1, 1])
        w = weights((outputs, channels, size, size))
        pad = size // 2
        y = build.convolution(x, w, [stride, stride], [pad, pad], [pad, pad], [1, 1])
        yield f"{size}x{size} {side} {channels}-{outputs}", y
    for rows, steps, columns in PRODUCTS:
        x = build.elementwise("TANH", build.input_node("x", (rows, steps), "float32"))
        yield f"{rows}x{steps}x{columns}", build.matmul(x, weights((steps, columns)))


def choice_of(y: Node, model: GpuModel) -> GpuContractionChoice:
    """The last contraction before `y`, with an activation."""
    y = build.elementwise("MAX", y, build.full(0.0, y.shape, "float32"))
    result = build.elementwise("TANH", build.permute(y, list(reversed(range(len(y.shape))))))
    inputs = {n.attrs: n for n in topological_order([y]) if n.op == "INPUT"}
    assigned = assign(optimize(Graph(inputs, {"y": result})), True)
    for buffer in assigned.buffers.values():
        buffer.place()
    for lowered, roles in reversed(list(zip(assigned.kernels, assigned.contractions))):
        if roles is not None and not isinstance(lowered, LoopKernel):
            return GpuContractionChoice(to_physical(lowered, assigned.buffers), roles, model)
    raise ValueError("the graph has no contraction")


def cost(choice: GpuContractionChoice, schedule: Schedule) -> float:
    """What the model makes of a schedule."""
    c, model = choice.nest(1), choice.model
    if isinstance(schedule, GpuTileSchedule):
        return tile_cost(c, schedule.tile, model)
    return block_cost(choice.nest(schedule.vectors), schedule.rows, schedule.vectors, schedule.split, model)


def candidates(choice: GpuContractionChoice, count: int, spread: int) -> list[Schedule]:
    """The picked schedule, those that the model finds cheapest of both forms, and some others."""
    c, model = choice.nest(1), choice.model
    every = [(r, v, s) for r, v in choice.blocks() for s in choice.splits(choice.nest(v), r, v)]
    blocks = sorted(every, key=lambda b: block_cost(choice.nest(b[1]), b[0], b[1], b[2], model))[: count // 2]
    best = sorted(tiles(c, model), key=lambda t: tile_cost(c, t, model))
    best = [*best[:count], *random.Random(0).sample(best[count:], min(spread, len(best[count:])))]

    def block(rows: int, vectors: int, split: int) -> GpuContractionSchedule:
        return schedule_gpu_contraction(choice.nest(vectors), vectors, rows, split, model)

    made: list[Schedule] = [tile_schedule(c, t, model) for t in best]
    return list(dict.fromkeys([choice.pick(Tuning()), *made, *(block(*b) for b in blocks)]))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="opencl:0", help="as `tinyinfer devices` names it")
    parser.add_argument("--only", default="", help="a part of the contractions' names")
    parser.add_argument("--count", type=int, default=24, help="tiles that are measured")
    parser.add_argument("--spread", type=int, default=0, help="further tiles, taken at random")
    parser.add_argument("--all", action="store_true", help="every schedule that was measured")
    chosen = parser.parse_args()
    device = OpenclDevice(chosen.device.partition(":")[2])
    model = replace(device.capabilities.model(), tiles=True)
    timer = ScheduleTimer(device.context(), device.capabilities, model)
    print(f"{'contraction':20s} {'GFLOP/s':>8s} {'picked':>8s} {'fastest':>8s} {'no tile':>8s}  schedules")
    for name, node in graphs():
        if chosen.only not in name:
            continue
        choice = choice_of(node, model)
        schedules = candidates(choice, chosen.count, chosen.spread)
        times = timer(choice, schedules)
        order = sorted(range(len(times)), key=times.__getitem__)
        blocks = [i for i in order if not isinstance(schedules[i], GpuTileSchedule)]
        best = order[0]
        figures = " ".join(f"{times[i] * 1e6:8.1f}" for i in (0, best, blocks[0]))
        rate = 2 * choice.work / times[0] / 1e9
        names = " ".join(schedules[i].name for i in (0, best, blocks[0]))
        print(f"{name:20s} {rate:8.0f} {figures}  {names}", flush=True)
        for i in order if chosen.all else ():
            made = cost(choice, schedules[i])
            print(f"    {times[i] * 1e6:8.1f} us  cost {made:10.0f}  {schedules[i].name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
