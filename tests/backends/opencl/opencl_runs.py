"""Running graphs on an OpenCL device without passes, and comparing them with the oracle."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from unittest import mock

import numpy as np
from compiled import assert_close, graph_of
from device_cases import Cases, joined

from tinyinfer.backends.clike.item_printer import ItemPrinter
from tinyinfer.backends.opencl.device import OpenclDevice
from tinyinfer.backends.opencl.executable import OpenclExecutable
from tinyinfer.config import CompileOptions
from tinyinfer.ir.node import Graph
from tinyinfer.ir.oracle import evaluate
from tinyinfer.kernels import schedule_gpu_contraction
from tinyinfer.kernels.physical import ContractionNest
from tinyinfer.kernels.plan import build_plan
from tinyinfer.kernels.schedule_gpu import GpuModel
from tinyinfer.kernels.schedule_gpu_tile import GpuTile

MODELS = {
    "device": None,
    "tiny": GpuModel(group_limit=16, group_sizes=(16, 8, 4), local_bytes=2048, compute_units=1, wave=4),
    "large": GpuModel(compute_units=128, wave=32),
}
"""Kernels may be cut for another device than the one that runs them: for groups as small as the smallest, and
for so many compute units that every sum is split."""


@contextmanager
def forced_tiles(seed: int) -> Iterator[GpuModel]:
    """A model for which every contraction stages its operands in local memory, with tiles of all kinds."""

    def cost(nest: ContractionNest, tile: GpuTile, model: GpuModel) -> int:
        return zlib.crc32(f"{seed} {nest.text()} {tile}".encode())

    with (
        mock.patch.object(schedule_gpu_contraction, "tile_cost", cost),
        mock.patch.object(schedule_gpu_contraction, "block_cost", lambda *_: float("inf")),
    ):
        yield GpuModel(tiles=True)


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


def check(cases: Cases, device: OpenclDevice, model: GpuModel | None = None, fuse: bool = True) -> None:
    """Run the cases as one program and compare each with the oracle."""
    program = joined(list(cases.values()))
    results = iter(run(graph_of(*program.outputs), program.feeds, device, model, fuse))
    for name, case in cases.items():
        for number, wanted in enumerate(evaluate(case.outputs, case.feeds)):
            try:
                assert_close(next(results), wanted, case.scale, case.factor)
            except AssertionError as error:
                raise AssertionError(f"{name}, output {number}: {error}") from None


@contextmanager
def quick_builds() -> Iterator[None]:
    """Programs that the driver does not optimise: a third of the time to build them, and the same source."""
    before = os.environ.get("PYOPENCL_BUILD_OPTIONS")
    os.environ["PYOPENCL_BUILD_OPTIONS"] = f"{before or ''} -cl-opt-disable"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYOPENCL_BUILD_OPTIONS"]
        else:
            os.environ["PYOPENCL_BUILD_OPTIONS"] = before
