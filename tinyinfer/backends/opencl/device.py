"""The OPENCL device: plans printed as OpenCL C and run by a driver."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from tinyinfer.backends.base import Executable
from tinyinfer.backends.opencl.capabilities import Capabilities, capabilities_of
from tinyinfer.backends.opencl.platforms import NoOpencl, choose_device, describe, list_devices, opencl
from tinyinfer.backends.opencl.target import device_target, plan_for
from tinyinfer.config import CompileOptions
from tinyinfer.ir.node import Graph
from tinyinfer.runtime.plan import Plan

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
        capabilities = self.capabilities
        without_doubles = "" if capabilities.fp64 else capabilities.name
        target = replace(device_target(capabilities), model=capabilities.model())
        return plan_for(graph, options, target, without_doubles)

    def compile(self, graph: Graph, options: CompileOptions, threads: int) -> Executable:
        """Optimise, plan and compile `graph`; `threads` means nothing here."""
        from tinyinfer.backends.cpu.cache import KernelCache
        from tinyinfer.backends.opencl.executable import OpenclExecutable
        from tinyinfer.config import cache_directory

        plan = self.plan(graph, options)
        return OpenclExecutable(plan, self.context(), self.capabilities, KernelCache(cache_directory()))

    def context(self) -> pyopencl.Context:
        """The context of this device, one for the whole process."""
        return context_of(choose_device(self.selector))


def context_of(device: pyopencl.Device) -> pyopencl.Context:
    """The context of a device, one for the whole process."""
    with _LOCK:
        context = _CONTEXTS.get(device.int_ptr)
        if context is None:
            context = _CONTEXTS[device.int_ptr] = opencl().Context([device])
        return context
