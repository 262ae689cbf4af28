"""QCOM as a device: where it can be used, what it plans, and that it never runs elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import graph_of
from image_graphs import image_case

from tinyinfer.backends import registry
from tinyinfer.backends.cpu.device import CpuDevice
from tinyinfer.backends.qcom import device as qcom
from tinyinfer.backends.qcom.device import QcomDevice
from tinyinfer.config import CompileOptions
from tinyinfer.errors import EPFail
from tinyinfer.ir import build


class NamedDevice:
    """What an OpenCL driver says of a device."""

    def __init__(self, name: str, version: str):
        self.name, self.version, self.driver_version = name, version, "1"
        self.platform = self


ADRENO = NamedDevice("QUALCOMM Adreno(TM)", "OpenCL 2.0 Adreno(TM) 630")
OTHER = NamedDevice("pthread", "OpenCL 1.2 pocl")


@pytest.fixture
def only_others(monkeypatch):
    monkeypatch.setattr(qcom, "list_devices", lambda: [OTHER])


def test_without_an_adreno_the_reason_says_what_is_missing(only_others):
    reason = QcomDevice().available()
    assert "Adreno" in reason and "libOpenCL.so" in reason
    assert QcomDevice().found() == []


def test_nothing_else_is_taken_instead(only_others, monkeypatch):
    monkeypatch.setattr(registry, "_LOADED", {})
    for name in ("QCOM", "qcom:a630"):
        with pytest.raises(ValueError, match="QCOM.*cannot be used: no OpenCL device .* Adreno"):
            registry.find_device(name)
        with pytest.raises(ValueError, match="Adreno"):
            registry.first_available([name])
    x = build.input_node("x", (4,), "float32")
    with pytest.raises(EPFail, match="Adreno"):
        QcomDevice("a630").compile(graph_of(build.elementwise("NEG", x)), CompileOptions(), 1)


def test_the_gpu_of_the_machine_is_found_by_its_number(monkeypatch):
    monkeypatch.setattr(qcom, "list_devices", lambda: [OTHER, ADRENO])
    assert QcomDevice().available() is None and QcomDevice().gpu.name == "a630"
    assert QcomDevice("630").available() is None
    assert QcomDevice().found()[0].startswith("qcom:a630 QUALCOMM Adreno")
    assert "not the a740" in QcomDevice("a740").available()


def test_an_unknown_gpu_is_an_error_that_lists_those_known():
    with pytest.raises(ValueError, match="'a999'.*a630"):
        QcomDevice("a999")


def test_plans_need_no_gpu_and_have_no_more_launches_than_the_cpu(only_others):
    chosen = image_case("convolutions", 1)
    graph = graph_of(*chosen.outputs)
    plan = QcomDevice("a740").plan(graph, CompileOptions())
    assert plan.images and plan.parameter_images
    assert len(plan.launches) <= 1.2 * len(CpuDevice().plan(graph, CompileOptions()).launches)
    assert all(x.work is not None and np.prod(x.work.group) <= 64 for x in plan.launches)
    assert plan.peak_bytes >= sum(image.nbytes for image in plan.images)


def test_doubles_are_refused():
    x = build.input_node("x", (4,), "float64")
    with pytest.raises(EPFail, match="a630 has no float64"):
        QcomDevice("a630").plan(graph_of(build.elementwise("ADD", x, x)), CompileOptions())
