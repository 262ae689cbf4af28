"""The OPENCL device: plans printed as OpenCL C and run by a driver."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tinyinfer.backends.base import Executable
from tinyinfer.backends.clike.item_printer import ItemPrinter
from tinyinfer.backends.opencl.capabilities import Capabilities, capabilities_of
from tinyinfer.backends.opencl.platforms import NoOpencl, choose_device, describe, list_devices, opencl
from tinyinfer.budget import check_bytes
from tinyinfer.config import CompileOptions
from tinyinfer.errors import EPFail
from tinyinfer.ir.dtypes import numpy_dtype
from tinyinfer.ir.node import Graph
from tinyinfer.kernels.plan import build_plan
from tinyinfer.runtime.plan import Plan, TensorSpec

if TYPE_CHECKING:
    import pyopencl

_CONTEXTS: dict[int, pyopencl.Context] = {}
_LOCK = threading.Lock()


class OpenclDevice:
    """One OpenCL device: the first one, or what `selector` means (`platforms.choose_device`)."""

    def __init__(self, selector: str = ""):
        self.selector = selector
        self.name = f"OPENCL:{selector}" if selector else "OPENCL"

    def available(self) -> str | None:
        """None if there is such a device, else what is missing and how to install it."""
        try:
            choose_device(self.selector)
        except NoOpencl as error:
            return str(error)
        return None

    def found(self) -> list[str]:
        """Each OpenCL device of this machine in words, with the number that selects it."""
        try:
            return [f"opencl:{i} {describe(d)}" for i, d in enumerate(list_devices())]
        except NoOpencl:
            return []

    @property
    def capabilities(self) -> Capabilities:
        return capabilities_of(choose_device(self.selector))

    def plan(self, graph: Graph, options: CompileOptions) -> Plan:
        """Optimise and plan `graph`; no kernel is printed or compiled."""
        from tinyinfer.ir.passes import optimize
        from tinyinfer.ir.passes.storage_types import use_storage_types

        return self._plan(optimize(use_storage_types(graph)), options, graph)

    def _plan(self, optimised: Graph, options: CompileOptions, graph: Graph) -> Plan:
        capabilities = self.capabilities
        if not capabilities.fp64:
            _refuse_doubles(optimised, capabilities.name)
        plan = build_plan(optimised, ItemPrinter(capabilities.model()), options)
        results = sum(x.size * numpy_dtype(x.dtype).itemsize for x in graph.outputs.values())
        check_bytes(plan.peak_bytes + results, "the compiled graph with its outputs")
        return plan

    def compile(self, graph: Graph, options: CompileOptions, threads: int) -> Executable:
        """Optimise, plan and compile `graph`; `threads` means nothing here."""
        from tinyinfer.backends.cpu.cache import KernelCache
        from tinyinfer.backends.opencl.executable import OpenclExecutable
        from tinyinfer.config import cache_directory

        plan = self.plan(graph, options)
        # the bytes are those of the storage types, but callers see the arrays as what the model says
        plan.inputs = [TensorSpec(name, x.shape, x.dtype) for name, x in graph.inputs.items()]
        plan.outputs = [TensorSpec(name, x.shape, x.dtype) for name, x in graph.outputs.items()]
        return OpenclExecutable(plan, self.context(), self.capabilities, KernelCache(cache_directory()))

    def context(self) -> pyopencl.Context:
        """The context of this device, one for the whole process."""
        device = choose_device(self.selector)
        with _LOCK:
            context = _CONTEXTS.get(device.int_ptr)
            if context is None:
                context = _CONTEXTS[device.int_ptr] = opencl().Context([device])
            return context


def _refuse_doubles(graph: Graph, name: str) -> None:
    """EPFail, naming a node, if a graph computes in float64."""
    for node in graph.nodes():
        if node.dtype == "float64":
            origin = ", ".join(sorted(node.origin)) or "an input"
            raise EPFail(f"{name} has no float64 (cl_khr_fp64), which {origin} needs")
