"""The devices of the shared suite: how each plans a graph, runs the plan, and how exact it is.

OPENCL and the two kinds of QCOM run on the first OpenCL device that this machine's loader finds, which for
QCOM needs images: the very same OpenCL C as on an Adreno. OCL_ICD_VENDORS chooses among several runtimes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_programs import compile_all
from compiled import CACHE, assert_close, graph_of
from device_cases import Cases, computed, joined
from opencl_runs import quick_builds
from random_graphs import DTYPES, Case

from tinyinfer.backends.clike.item_printer import ItemPrinter
from tinyinfer.backends.clike.printer import GENERAL, CPrinter
from tinyinfer.backends.cpu.device import CpuDevice, LlvmPrinter, compile_plan
from tinyinfer.backends.cpu.target import host_target
from tinyinfer.backends.opencl.device import OpenclDevice
from tinyinfer.backends.opencl.executable import OpenclExecutable
from tinyinfer.backends.qcom.device import QcomDevice
from tinyinfer.config import CompileOptions
from tinyinfer.ir.node import Graph
from tinyinfer.ir.oracle import evaluate
from tinyinfer.kernels.plan import KernelPrinter, build_plan
from tinyinfer.runtime.plan import Plan

HALVES = 2e-2
"""Where images hold halves: the largest error after several layers, of an output's own largest magnitude.
Some OpenCL devices round such stores towards zero."""

HALF = 4e-3
"""The same of one op, of each number by itself: functions are good to a half's precision there."""


class SuiteDevice:
    """One device. `dtypes` are those that it computes in."""

    name: str
    dtypes: tuple[str, ...] = DTYPES
    range_of: dict[str, str] = {}
    """By dtype the one whose range its functions are good for, where that is smaller."""

    def missing(self) -> str | None:
        """What this machine lacks to run it."""
        return None

    def printer(self) -> KernelPrinter:
        raise NotImplementedError

    def plan(self, graph: Graph) -> Plan:
        """The plan of a graph as it stands, without passes."""
        return build_plan(graph, self.printer(), CompileOptions())

    def model_plan(self, graph: Graph) -> Plan:
        """The plan that a session makes."""
        raise NotImplementedError

    def run(self, plan: Plan, feeds: Mapping[str, np.ndarray], folder: Path) -> list[np.ndarray]:
        """The outputs of two runs, which must be equal: the second finds what the first one left. `folder`
        may be written to."""
        raise NotImplementedError

    def compare(self, got: np.ndarray, wanted: np.ndarray, case: Case) -> None:
        """An output is what the oracle says, as exactly as the device promises."""
        assert_close(got, wanted, case.scale, case.factor)


def _twice(made: Any, plan: Plan, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    try:
        arrays = [np.ascontiguousarray(feeds[x.name]).reshape(x.shape) for x in plan.inputs]
        first, second = made.run(arrays), made.run(arrays)
        for a, b in zip(first, second, strict=True):
            assert a.tobytes() == b.tobytes()
        return first
    finally:
        made.close()


class Cpu(SuiteDevice):
    name = "CPU"

    def printer(self) -> KernelPrinter:
        return LlvmPrinter(host_target())

    def model_plan(self, graph: Graph) -> Plan:
        return CpuDevice().plan(graph, CompileOptions())

    def run(self, plan: Plan, feeds: Mapping[str, np.ndarray], folder: Path) -> list[np.ndarray]:
        return _twice(compile_plan(plan, host_target(), 1, CACHE), plan, feeds)


class C11(SuiteDevice):
    """The emitted C, compiled by the machine's compiler."""

    name = "C11"

    def printer(self) -> KernelPrinter:
        return CPrinter(GENERAL)

    def run(self, plan: Plan, feeds: Mapping[str, np.ndarray], folder: Path) -> list[np.ndarray]:
        return compile_all({"program": plan}, folder)["program"].run(feeds)


class Opencl(SuiteDevice):
    name = "OPENCL"

    def __init__(self) -> None:
        self.device = OpenclDevice()

    def missing(self) -> str | None:
        return self.device.available()

    def printer(self) -> KernelPrinter:
        return ItemPrinter(self.device.capabilities.model())

    def model_plan(self, graph: Graph) -> Plan:
        return self.device.plan(graph, CompileOptions())

    def run(self, plan: Plan, feeds: Mapping[str, np.ndarray], folder: Path) -> list[np.ndarray]:
        return _twice(OpenclExecutable(plan, self.device.context(), self.device.capabilities), plan, feeds)


class Qcom(Opencl):
    """OpenCL C for an Adreno GPU whose images hold `storage`."""

    dtypes = tuple(x for x in DTYPES if x != "float64")

    def __init__(self, storage: str, gpu: str = "a630"):
        super().__init__()
        self.name, self.storage, self.adreno = f"QCOM-{storage}", storage, QcomDevice(gpu, storage)
        self.range_of = {"float32": storage}

    def missing(self) -> str | None:
        reason = super().missing()
        if reason is None and not self.device.capabilities.images:
            reason = f"{self.device.capabilities.name} has no images"
        return reason

    def printer(self) -> KernelPrinter:
        target = self.adreno.target
        return ItemPrinter(target.model, target.dialect)

    def model_plan(self, graph: Graph) -> Plan:
        return self.adreno.plan(graph, CompileOptions())

    def compare(self, got: np.ndarray, wanted: np.ndarray, case: Case) -> None:
        if self.storage == "float32" or wanted.dtype != np.float32:
            super().compare(got, wanted, case)
            return
        assert got.shape == wanted.shape and got.dtype == wanted.dtype
        if case.scale is None:
            np.testing.assert_allclose(got, wanted, rtol=HALF, atol=np.finfo(np.float16).tiny)
        else:
            largest = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0))
            np.testing.assert_allclose(got, wanted, rtol=HALVES, atol=HALVES * largest)


SUITE = {device.name: device for device in (Cpu(), C11(), Opencl(), Qcom("float32"), Qcom("float16"))}


def usable(device: SuiteDevice) -> SuiteDevice:
    """The device: missing here, it fails in CI and skips elsewhere."""
    reason = device.missing()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return device


def check_program(cases: Cases, device: SuiteDevice, folder: Path) -> Plan:
    """Run as one program the cases that the device has the dtypes for, and compare each with the oracle."""
    chosen_cases = computed(cases, device.dtypes)
    program = joined(list(chosen_cases.values()))
    plan = device.plan(graph_of(*program.outputs))
    with quick_builds():
        results = iter(device.run(plan, program.feeds, folder))
    for name, chosen in chosen_cases.items():
        for number, wanted in enumerate(evaluate(chosen.outputs, chosen.feeds)):
            try:
                device.compare(next(results), wanted, chosen)
            except AssertionError as error:
                raise AssertionError(f"{name}, output {number}: {error}") from None
    return plan
