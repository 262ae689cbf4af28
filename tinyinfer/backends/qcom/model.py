"""How kernels are cut for an Adreno GPU: what docs/qcom.md found out, as the numbers that schedules read."""

from __future__ import annotations

from tinyinfer.backends.qcom.capabilities import AdrenoGpu
from tinyinfer.kernels.image import ImageLimits
from tinyinfer.kernels.schedule_gpu import GpuModel, LoopCosts

WRITTEN_OUT = 18
"""Two neighbours' windows of 3 x 3; larger windows are loops, whose reads do not all wait in registers."""

LARGE_FILE = 96
"""Registers that let blocks of four float vectors keep at least 12 waves in flight."""

LOOP_COSTS = LoopCosts(launch=15.0, read=100.0, phase=2.0, nbytes=6e3, flops=20e3)
"""Not measured: a single wave waits 400 cycles for the 4 KiB that it asks for, and issues in every fourth."""


def adreno_model(gpu: AdrenoGpu, storage: str = "float16") -> GpuModel:
    """The model of a GPU whose images hold `storage`, "float16" or "float32"; sums are float32 either way.

    A group is one single wave: double waves halve a kernel's registers, and what takes many registers cannot
    be launched in groups of several waves.
    """
    group = gpu.wave_size
    rows = (1, 2, 4) if gpu.registers >= LARGE_FILE else (1, 2)
    return GpuModel(
        group_limit=group,
        group_sizes=(group, group, group),
        local_bytes=gpu.local_bytes,
        compute_units=gpu.shader_processors,
        wave=gpu.wave_size,
        images=ImageLimits(gpu.image_side, gpu.image_side, storage),
        rows=rows,
        vectors=(1,),
        group=group,
        written_out=WRITTEN_OUT,
        latency=40.0,
        most_split=16,
        split_steps=16,
        loop_costs=LOOP_COSTS,
    )
