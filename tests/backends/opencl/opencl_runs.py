"""Running graphs on an OpenCL device without passes, and comparing them with the oracle."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from compiled import assert_close, graph_of
from random_graphs import Case

from tinyinfer.backends.clike.item_printer import ItemPrinter
from tinyinfer.backends.opencl.device import OpenclDevice
from tinyinfer.backends.opencl.executable import OpenclExecutable
from tinyinfer.config import CompileOptions
from tinyinfer.ir.node import Graph
from tinyinfer.ir.oracle import evaluate
from tinyinfer.kernels.plan import build_plan
from tinyinfer.kernels.schedule_gpu import GpuModel

MODELS = {
    "device": None,
    "tiny": GpuModel(group_limit=16, group_sizes=(16, 8, 4), local_bytes=2048, compute_units=1, wave=4),
    "large": GpuModel(compute_units=128, wave=32),
}
"""Kernels may be cut for another device than the one that runs them: for groups as small as the smallest, and
for so many compute units that every sum is split."""


def executable(
    graph: Graph,
    device: OpenclDevice,
    model: GpuModel | None = None,
    fuse: bool = True,
    keep_values: bool = False,
) -> OpenclExecutable:
    options = CompileOptions(fuse=fuse, keep_values=keep_values)
    plan = build_plan(graph, ItemPrinter(model or device.capabilities.model()), options)
    return OpenclExecutable(plan, device.context(), device.capabilities)


def run(
    graph: Graph,
    feeds: Mapping[str, np.ndarray],
    device: OpenclDevice,
    model: GpuModel | None = None,
    fuse: bool = True,
) -> list[np.ndarray]:
    """The outputs of two runs, which must be equal: the second finds what the first one left."""
    made = executable(graph, device, model, fuse)
    try:
        arrays = [np.ascontiguousarray(feeds[name]).reshape(x.shape) for name, x in graph.inputs.items()]
        first, second = made.run(arrays), made.run(arrays)
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)
        return first
    finally:
        made.close()


def check(case: Case, device: OpenclDevice, model: GpuModel | None = None, fuse: bool = True) -> None:
    got = run(graph_of(*case.outputs), case.feeds, device, model, fuse)
    for a, b in zip(got, evaluate(case.outputs, case.feeds), strict=True):
        assert_close(a, b, case.scale, case.factor)
