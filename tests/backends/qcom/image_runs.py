"""Plans for Adreno GPUs run on whatever OpenCL device has images: the very same OpenCL C."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyinfer.backends.opencl.device import OpenclDevice
from tinyinfer.backends.opencl.executable import OpenclExecutable
from tinyinfer.backends.qcom.device import QcomDevice
from tinyinfer.config import CompileOptions
from tinyinfer.ir.node import Graph
from tinyinfer.runtime.plan import Plan


def run_plan(plan: Plan, feeds: dict[str, np.ndarray], device: OpenclDevice) -> list[np.ndarray]:
    """The outputs of two runs, which must be equal: the second finds what the first one left."""
    made = OpenclExecutable(plan, device.context(), device.capabilities)
    try:
        arrays = [np.ascontiguousarray(feeds[x.name]).reshape(x.shape) for x in plan.inputs]
        first, second = made.run(arrays), made.run(arrays)
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)
        return first
    finally:
        made.close()


def plan_of(graph: Graph, gpu: str, storage: str) -> Plan:
    return QcomDevice(gpu, storage).plan(graph, CompileOptions())


def largest_error(got: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """Of an output's own largest magnitude; infinite where a number is none."""
    errors = [0.0]
    for a, b in zip(got, wanted, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        if b.size:
            difference = np.abs(a.astype(np.float64) - b.astype(np.float64)).max()
            error = float(difference / max(1e-30, np.abs(b.astype(np.float64)).max()))
            errors.append(np.inf if np.isnan(error) else error)
    return max(errors)
