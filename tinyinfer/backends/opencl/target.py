"""OpenCL devices that code is made for, whether or not this machine has one, and plans as source for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from tinyinfer.backends.clike.dialect import Dialect
from tinyinfer.backends.clike.item_printer import ItemPrinter
from tinyinfer.backends.clike.opencl_c import OPENCL_C, program_text
from tinyinfer.backends.cpu.features import ARCHITECTURES, Needs, required_bits
from tinyinfer.backends.opencl.capabilities import LANGUAGE, Capabilities
from tinyinfer.backends.opencl.programs import all_launches, plan_sources
from tinyinfer.budget import check_bytes
from tinyinfer.config import CompileOptions
from tinyinfer.errors import EPFail
from tinyinfer.ir.dtypes import numpy_dtype
from tinyinfer.ir.node import Graph, Node
from tinyinfer.kernels.plan import build_plan
from tinyinfer.kernels.schedule_gpu import GpuModel
from tinyinfer.runtime.plan import Plan, TensorSpec, kernel_sources

ARCHITECTURE = "opencl"
NAME_BYTES = 32


@dataclass(frozen=True)
class OpenclTarget:
    """A kind of OpenCL device. `model` is what schedules are cut for; its defaults are what every GPU and
    PoCL have. `device` is what the device was called that the model was taken from, "" for none;
    `required` is a part of the name that a device must have to run the code, "" where any may; `best_for` are
    words, of which one stands in the name or version of a device that of all targets should take this one."""

    name: str = ARCHITECTURE
    model: GpuModel = GpuModel()
    device: str = ""
    required: str = ""
    best_for: str = ""
    dialect: Dialect = field(default=OPENCL_C, compare=False, repr=False)

    architecture = triple = ARCHITECTURE
    pointer_bytes = 8
    """Of the offsets of arguments."""

    @property
    def cpu(self) -> str:
        return self.device or "any"


@dataclass(frozen=True)
class ProgramSource:
    """One OpenCL C program: its text, where in it each kernel begins, by key (those of loops, which the host
    repeats, at 0), what it needs, bytes of local memory and work-items of a group."""

    text: bytes
    entries: dict[str, int]
    needs: Needs
    options: str
    local_bytes: int
    largest_group: int


def device_target(capabilities: Capabilities) -> OpenclTarget:
    """The target that is cut for a device and runs on others too: no groups wait for each other."""
    words = re.sub(r"[^a-z0-9]+", "-", capabilities.name.lower()).strip("-")
    name = f"{ARCHITECTURE}:{words}"[:NAME_BYTES].rstrip("-")
    return OpenclTarget(name, replace(capabilities.model(), loop_groups=1), capabilities.name)


def plan_for(
    graph: Graph,
    options: CompileOptions,
    target: OpenclTarget,
    without_doubles: str = "",
    widen: Callable[[Graph], Collection[Node]] = lambda graph: (),
) -> Plan:
    """Optimise and plan `graph`; no kernel is printed or compiled. EPFail, naming a node, if the graph
    computes in float64 and the device, which `without_doubles` then names, cannot. `widen` says of the
    optimised graph which values halves must not hold."""
    from tinyinfer.ir.passes import optimize
    from tinyinfer.ir.passes.storage_types import use_storage_types

    optimised = optimize(use_storage_types(graph))
    if without_doubles:
        _refuse_doubles(optimised, without_doubles)
    plan = build_plan(optimised, ItemPrinter(target.model, target.dialect), options, widen(optimised))
    results = sum(x.size * numpy_dtype(x.dtype).itemsize for x in graph.outputs.values())
    check_bytes(plan.peak_bytes + results, "the compiled graph with its outputs")
    # the bytes are those of the storage types, but callers see the arrays as what the model says
    plan.inputs = [TensorSpec(name, x.shape, x.dtype) for name, x in graph.inputs.items()]
    plan.outputs = [TensorSpec(name, x.shape, x.dtype) for name, x in graph.outputs.items()]
    return plan


def _refuse_doubles(graph: Graph, name: str) -> None:
    for node in graph.nodes():
        if node.dtype == "float64":
            origin = ", ".join(sorted(node.origin)) or "an input"
            raise EPFail(f"{name} has no float64 (cl_khr_fp64), which {origin} needs")


def program_source(plan: Plan, target: OpenclTarget) -> ProgramSource:
    """The kernels of a plan as one source."""
    sources = plan_sources(plan.launches)
    kernels = [source.text() for source in sources]
    doubles = any(re.search(r"\bdouble", kernel) for kernel in kernels)
    text = program_text(kernels, doubles)
    entries = {key: 0 for key in kernel_sources(plan.launches)}
    position = 0
    for source, kernel in zip(sources, kernels):
        position = entries[source.key] = text.index(kernel, position)
    if not text.isascii():
        raise ValueError("OpenCL C of a plan is ASCII")
    used = {"cl_khr_fp64": doubles, "images": bool(plan.images or plan.parameter_images)}
    bits = required_bits(ARCHITECTURE, frozenset(name for name, there in used.items() if there))
    needs = Needs(target.name, ARCHITECTURES[ARCHITECTURE], target.pointer_bytes, bits)
    local_bytes = target.model.local_bytes if "__local" in text else 0
    groups = [prod(x.work.group) for x in all_launches(plan.launches) if x.work is not None]
    options = " ".join(LANGUAGE)
    return ProgramSource(text.encode("ascii"), entries, needs, options, local_bytes, max(groups, default=1))


def is_best_for(words: str, capabilities: Capabilities) -> bool:
    """Whether one of the words stands in the name or version of a device."""
    known = re.findall(r"[a-z0-9]+", f"{capabilities.name} {capabilities.version}".lower())
    return any(word in known for word in words.lower().split())


def obstacles(
    needs: Needs, local_bytes: int, largest_group: int, device: str, capabilities: Capabilities
) -> Sequence[str]:
    """Why a device cannot run a program that needs this, in words; empty if it can."""
    found = []
    if device and device.casefold() not in capabilities.name.casefold():
        found.append(f"is for {device}")
    if needs.features & ~capabilities.features:
        from tinyinfer.backends.cpu.features import feature_names

        missing = feature_names(ARCHITECTURE, needs.features & ~capabilities.features)
        found.append(f"needs {', '.join(missing)}, which {capabilities.name} lacks")
    if largest_group > capabilities.group_limit:
        found.append(
            f"needs work-groups of {largest_group}; those of {capabilities.name} have at most"
            f" {capabilities.group_limit}"
        )
    if local_bytes > capabilities.local_bytes:
        found.append(
            f"needs {local_bytes} bytes of local memory, and {capabilities.name} has"
            f" {capabilities.local_bytes}"
        )
    return found
