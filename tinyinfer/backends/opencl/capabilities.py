"""What an OpenCL device can do: what its driver says, as data for schedules and programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyinfer.backends.cpu.features import offered_bits
from tinyinfer.backends.opencl.platforms import opencl
from tinyinfer.kernels.schedule_gpu import GpuModel

if TYPE_CHECKING:
    import pyopencl

LANGUAGE = ("-cl-std=CL1.2",)
"""The option that says which language programs are in."""

MOST_ITEMS = 512
"""Larger groups leave too few registers to each work-item."""


@dataclass(frozen=True)
class Capabilities:
    """One device. Sizes are in bytes; `wave` is the number of work-items that run in step, or a guess."""

    name: str
    is_gpu: bool
    group_limit: int
    group_sizes: tuple[int, int, int]
    local_bytes: int
    compute_units: int
    wave: int
    fp16: bool
    fp64: bool
    images: bool
    subgroups: bool
    exact_division: bool
    shared_memory: bool
    """Whether device and host use the same memory, so that nothing need be copied."""
    largest_buffer: int
    version: str = ""
    """What the device says of itself besides its name: "OpenCL 3.0 Adreno(TM) 730"."""
    groups_meet: bool = False
    """Whether as many groups as there are compute units run at the same time where nothing else runs, so that
    they may wait for each other. OpenCL does not promise it; NVIDIA's GPUs start groups while there is room
    for them, and give the device to one process at a time."""
    near_local: bool = False
    """Whether local memory is memory of its own, not a part of what all work-items share."""

    @property
    def host_access(self) -> str:
        """How feeds get there and results back ("wrap", "map" or "pin"; `transfers`)."""
        if not self.shared_memory:
            return "pin"
        return "map" if self.is_gpu else "wrap"

    def model(self) -> GpuModel:
        """What schedules need of this."""
        return GpuModel(
            min(self.group_limit, MOST_ITEMS),
            tuple(min(s, MOST_ITEMS) for s in self.group_sizes),  # type: ignore[arg-type]
            min(self.local_bytes, 32 << 10),
            max(1, self.compute_units),
            self.wave,
            loop_groups=max(1, self.compute_units) if self.groups_meet else 1,
            tiles=self.is_gpu and self.near_local,
        )

    def build_options(self, stated: Sequence[str] = LANGUAGE) -> list[str]:
        """Options of the language's compiler: what a program states, and what the device can do besides."""
        exact = ["-cl-fp32-correctly-rounded-divide-sqrt"] if self.exact_division else []
        return [*stated, *exact]

    @property
    def features(self) -> int:
        """Those that bundles tell apart, as bits."""
        names = {
            "cl_khr_fp64": self.fp64,
            "cl_khr_fp16": self.fp16,
            "images": self.images,
            "cl_khr_subgroups": self.subgroups,
        }
        return offered_bits("opencl", frozenset(name for name, there in names.items() if there))


def capabilities_of(device: pyopencl.Device) -> Capabilities:
    """What the driver says of a device."""
    cl = opencl()
    extensions = set(device.extensions.split())
    sizes = [*device.max_work_item_sizes, 1, 1, 1][:3]
    exact = cl.device_fp_config.CORRECTLY_ROUNDED_DIVIDE_SQRT
    is_gpu = bool(device.type & cl.device_type.GPU)
    return Capabilities(
        device.name.strip(),
        is_gpu,
        device.max_work_group_size,
        (sizes[0], sizes[1], sizes[2]),
        device.local_mem_size,
        device.max_compute_units,
        _wave(device, is_gpu),
        "cl_khr_fp16" in extensions,
        "cl_khr_fp64" in extensions or bool(device.double_fp_config),
        bool(device.image_support),
        "cl_khr_subgroups" in extensions,
        bool(device.single_fp_config & exact),
        bool(device.host_unified_memory),
        device.max_mem_alloc_size,
        device.version.strip(),
        is_gpu and "cl_nv_device_attribute_query" in extensions,
        device.local_mem_type == cl.device_local_mem_type.LOCAL,
    )


def _wave(device: pyopencl.Device, is_gpu: bool) -> int:
    if not is_gpu:
        return 8
    for attribute in ("warp_size_nv", "wavefront_width_amd"):
        try:
            return int(getattr(device, attribute))
        except Exception:  # the property belongs to another vendor's extension
            continue
    return 32
