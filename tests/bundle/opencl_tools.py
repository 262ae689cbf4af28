"""OpenCL targets for tests: a device that runs them, and bundles of graphs that no ONNX file holds."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tinyinfer.backends.opencl.target import OpenclTarget, plan_for, program_source
from tinyinfer.backends.registry import unavailable_reason
from tinyinfer.bundle.container import Section, save_bundle
from tinyinfer.bundle.golden import GoldenInput, GoldenOutput, GoldenVector, write_golden
from tinyinfer.bundle.manifest import canonical_json
from tinyinfer.bundle.plan_section import PlanSection, ProgramNeeds, write_plan
from tinyinfer.bundle.weights import WeightStore
from tinyinfer.config import CompileOptions
from tinyinfer.ir.node import Graph


def needed_opencl() -> None:
    """Skips the test where there is no OpenCL device, and fails it in CI."""
    reason = unavailable_reason("OPENCL")
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def opencl_section(graph: Graph, store: WeightStore) -> tuple[PlanSection, bytes]:
    """A graph's plan for OpenCL devices, and its program."""
    target = OpenclTarget()
    plan = plan_for(graph, CompileOptions(), target)
    program = program_source(plan, target)
    needs = ProgramNeeds(program.options, program.local_bytes, program.largest_group)
    tensors = [store.add(parameter) for parameter in plan.parameters]
    features = program.needs.features
    return PlanSection("opencl", 8, features, plan, tensors, program.entries, program=needs), program.text


def save_graph(
    path: Path,
    graph: Graph,
    feeds: dict[str, np.ndarray],
    wanted: list[np.ndarray],
    tolerances: list[float],
    more_options: str = "",
) -> None:
    """A bundle of a graph for OpenCL devices, with one golden vector; `more_options` are for the language's
    compiler."""
    store = WeightStore()
    section, text = opencl_section(graph, store)
    assert section.program is not None
    section.program = replace(section.program, options=section.program.options + more_options)
    inputs = [GoldenInput.stored(np.ascontiguousarray(feeds[name])) for name in graph.inputs]
    outputs = [
        GoldenOutput(0, 1, array.reshape(-1).copy(), tolerance, tolerance)
        for array, tolerance in zip(wanted, tolerances)
    ]
    sections = [
        Section("MANI", canonical_json({})),
        Section("PLAN", write_plan(section), 1, "opencl"),
        Section("CODE", text, 1, "opencl"),
        Section("WIDX", store.index()),
        Section("WGHT", store.content()),
        Section("GOLD", write_golden([GoldenVector(inputs, outputs)])),
    ]
    save_bundle(path, sections, minor=1)
