"""Schedules of a contraction, timed on an OpenCL device."""

from __future__ import annotations

import numpy as np
from compiled import graph_of

from tinyinfer.backends.opencl.measure import ScheduleTimer
from tinyinfer.ir import build
from tinyinfer.kernels.assign import assign
from tinyinfer.kernels.physical import to_physical
from tinyinfer.kernels.schedule_gpu import GpuModel
from tinyinfer.kernels.schedule_gpu_contraction import GpuContractionChoice
from tinyinfer.kernels.schedule_gpu_tile import GpuTile, tile_schedule


def test_every_schedule_of_a_contraction_is_timed(opencl):
    x = build.input_node("x", (40, 24), "float32")
    assigned = assign(graph_of(build.matmul(x, build.constant(np.ones((24, 20), np.float32)))), True)
    for buffer in assigned.buffers.values():
        buffer.place()
    model = GpuModel(tiles=True)
    physical = to_physical(assigned.kernels[0], assigned.buffers)
    choice = GpuContractionChoice(physical, assigned.contractions[0], model)
    tile = tile_schedule(choice.nest(1), GpuTile((4, 4), 2, 1, 8, 1, 1), model)
    schedules = [choice.heuristic(), *choice.neighbours(choice.heuristic(), "block")[:2], tile]
    seconds = ScheduleTimer(opencl.context(), opencl.capabilities, model)(choice, schedules, runs=2)
    assert len(seconds) == 4 and all(0 < s < 1 for s in seconds)
