"""The QCOM device: plans for Adreno GPUs, whose values and weights lie in images where those serve.

"QCOM" runs on the Adreno GPU of this machine, through its vendor's OpenCL. "qcom:a630" plans for that GPU,
on any machine, and runs only where it is one of this machine's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tinyinfer.backends.base import Executable
from tinyinfer.backends.opencl.capabilities import capabilities_of
from tinyinfer.backends.opencl.platforms import NoOpencl, describe, list_devices
from tinyinfer.backends.opencl.target import plan_for
from tinyinfer.backends.qcom.capabilities import ADRENO_GPUS, AdrenoGpu, find_gpu
from tinyinfer.backends.qcom.islands import IslandFinder
from tinyinfer.backends.qcom.options import AUTO, STORAGE, QcomOptions
from tinyinfer.backends.qcom.presence import missing_parts, without_adreno
from tinyinfer.backends.qcom.target import QcomTarget, qcom_target
from tinyinfer.config import CompileOptions
from tinyinfer.errors import EPFail
from tinyinfer.ir.node import Graph
from tinyinfer.runtime.plan import Plan

if TYPE_CHECKING:
    import pyopencl

DEFAULT_GPU = "a630"
"""What is planned for where neither the user nor the machine names a GPU."""


class QcomDevice:
    """One Adreno GPU: the one that `selector` names ("a630", "630"), or the first of this machine.

    `storage` is the type of elements in images; sums are float32. ValueError for an unknown GPU.
    """

    def __init__(self, selector: str = "", storage: str = "", options: QcomOptions = QcomOptions()):
        self.selector, self.storage, self.options = selector, storage or STORAGE[options.precision], options
        self.name = f"QCOM:{selector}" if selector else "QCOM"
        self._wanted = find_gpu(selector) if selector else None

    def with_options(self, given: Mapping[str, Any]) -> QcomDevice:
        """This device with options of `QcomOptions`; InvalidArgument for others."""
        return QcomDevice(self.selector, options=QcomOptions.of(given))

    def available(self) -> str | None:
        """None if such a GPU is here, else what is missing and how to install it."""
        try:
            self.opencl_device()
        except NoOpencl as error:
            return str(error)
        return None

    def found(self) -> list[str]:
        """Each Adreno GPU of this machine in words, with the name that selects it."""
        try:
            return [f"qcom:{gpu.name} {describe(device)}" for device, gpu in _adrenos()]
        except NoOpencl:
            return []

    def extensions(self) -> list[tuple[str, bool, str]]:
        """Of each extension of the driver that is known here its name, whether this machine's GPU has it, and
        what it is used for; empty where there is no such GPU."""
        from tinyinfer.backends.qcom.extensions import USES, extensions_of

        try:
            there = extensions_of(self.opencl_device()[0])
        except NoOpencl:
            return []
        return [(name, name in there, use) for name, use in USES.items()]

    @property
    def gpu(self) -> AdrenoGpu:
        """The GPU that plans are for."""
        if self._wanted is not None:
            return self._wanted
        try:
            return self.opencl_device()[1]
        except NoOpencl:
            return ADRENO_GPUS[DEFAULT_GPU]

    @property
    def target(self) -> QcomTarget:
        """What plans are made for."""
        return qcom_target(self.gpu, self.storage)

    def plan(self, graph: Graph, options: CompileOptions) -> Plan:
        """Optimise and plan `graph`, storing all in the device's type; no kernel is printed or compiled, and
        no GPU is needed."""
        return plan_for(graph, options, self.target, without_doubles=self.gpu.name)

    def plan_with_islands(self, graph: Graph, options: CompileOptions, threads: int = 0) -> Plan:
        """The same where what halves are too coarse for is float32, as far as drawn inputs show. Fail where
        no inputs make sense."""
        from tinyinfer.bundle.vectors import drawn_inputs

        finder, target = IslandFinder(lambda: drawn_inputs(graph, {}, {}), threads), self.target
        return plan_for(
            graph, options, target, self.gpu.name, lambda g: finder.find(g, target, options).nodes
        )

    def compile(self, graph: Graph, options: CompileOptions, threads: int) -> Executable:
        """Optimise, plan and compile `graph`, which processors' `threads` may help with. EPFail where no such
        GPU is."""
        from tinyinfer.backends.cpu.cache import KernelCache
        from tinyinfer.backends.opencl.executable import OpenclExecutable
        from tinyinfer.backends.qcom.vendor import QcomVendor
        from tinyinfer.config import cache_directory

        try:
            device, _ = self.opencl_device()
        except NoOpencl as error:
            raise EPFail(str(error)) from None
        automatic = self.storage == "float16" and self.options.precision == AUTO
        plan = self.plan_with_islands(graph, options, threads) if automatic else self.plan(graph, options)
        capabilities = capabilities_of(device)
        vendor, cache = QcomVendor(device, self.options), KernelCache(cache_directory())
        return OpenclExecutable(plan, vendor.context, capabilities, cache, vendor=vendor)

    def opencl_device(self) -> tuple[pyopencl.Device, AdrenoGpu]:
        """The OpenCL device; NoOpencl where there is none."""
        try:
            found = _adrenos()
            if not found:
                raise NoOpencl(without_adreno([describe(device) for device in list_devices()]))
        except NoOpencl as error:
            raise NoOpencl(f"{error}; {missing_parts()}") from None
        for device, gpu in found:
            if self._wanted in (None, gpu):
                return device, gpu
        here = "; ".join(describe(device) for device, _ in found)
        raise NoOpencl(f"this machine's GPU is not the {self.selector} that was asked for: {here}")


def _adrenos() -> list[tuple[pyopencl.Device, AdrenoGpu]]:
    """The OpenCL devices that are Adreno GPUs known here."""
    found = []
    for device in list_devices():
        words = f"{device.name} {device.version}".replace("(TM)", " ").lower()
        if "adreno" in words:
            number = next((w for w in words.split() if f"a{w}" in ADRENO_GPUS), None)
            found.append((device, find_gpu(number) if number else ADRENO_GPUS[DEFAULT_GPU]))
    return found
