"""The QCOM-KGSL device: an Adreno GPU through the kernel's driver alone, without the vendor's OpenCL.

Not yet run on hardware (docs/kgsl.md). Nothing is put in its place where it cannot be used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyinfer.backends.opencl.target import plan_for
from tinyinfer.backends.qcom.capabilities import AdrenoGpu, find_gpu
from tinyinfer.backends.qcom.ir3 import find_tree
from tinyinfer.backends.qcom.kgsl import abi
from tinyinfer.backends.qcom.kgsl.device import KgslDevice
from tinyinfer.backends.qcom.kgsl.executable import KgslExecutable, plan_kernels
from tinyinfer.backends.qcom.kgsl.mesa_compiler import GENERATION, compile_kernels
from tinyinfer.backends.qcom.kgsl.system import KgslError, System
from tinyinfer.backends.qcom.options import DEFAULT, QcomOptions
from tinyinfer.backends.qcom.target import qcom_target
from tinyinfer.config import CompileOptions
from tinyinfer.errors import EPFail
from tinyinfer.ir.node import Graph

PRIORITIES = {"high": 1, "normal": 8, "low": 15, DEFAULT: 8}


class DirectDevice:
    """The Adreno GPU behind /dev/kgsl-3d0; with `selector` only if it is that one ("a630", "630").

    `storage` and `options` are those of `QcomDevice`; launches are not recorded, they are commands already.
    `system` and `tree` stand for this machine's in tests. ValueError for an unknown GPU.
    """

    def __init__(
        self,
        selector: str = "",
        storage: str = "float16",
        options: QcomOptions = QcomOptions(),
        system: System | None = None,
        tree: Path | None = None,
    ):
        self.selector, self.storage, self.options = selector, storage, options
        self.name = f"QCOM-KGSL:{selector}" if selector else "QCOM-KGSL"
        self._wanted = find_gpu(selector) if selector else None
        self._system, self._tree = system, tree

    def with_options(self, given: Mapping[str, Any]) -> DirectDevice:
        """This device with options of `QcomOptions`; InvalidArgument for others."""
        options = QcomOptions.of(given)
        return DirectDevice(self.selector, self.storage, options, self._system, self._tree)

    def available(self) -> str | None:
        """None if plans can be compiled for and run on the GPU behind the kernel's driver, else why not."""
        try:
            with self._open() as device:
                self._check(device)
        except EPFail as error:
            return str(error)
        return None

    def compile(self, graph: Graph, options: CompileOptions, threads: int) -> KgslExecutable:
        """Optimise, plan and compile `graph`; `threads` means nothing here. EPFail saying what is missing."""
        device = self._open()
        try:
            gpu = self._check(device)
            plan = plan_for(graph, options, qcom_target(gpu, self.storage), without_doubles=gpu.name)
            texts = plan_kernels(plan)
            made = compile_kernels(list(texts.values()), gpu, self._tree)
            return KgslExecutable(plan, device, dict(zip(texts, made, strict=True)))
        except BaseException:
            device.close()
            raise

    def _open(self) -> KgslDevice:
        priority, fast = PRIORITIES[self.options.priority], self.options.performance == "high"
        return KgslDevice(abi.PATH, self._system, priority, full_clock=fast)

    def _check(self, device: KgslDevice) -> AdrenoGpu:
        """The device's GPU; KgslError unless it is the wanted one and kernels can be made for it."""
        gpu = device.gpu.facts
        if self._wanted not in (None, gpu):
            raise KgslError(f"this machine's GPU is {gpu.name}, not the {self.selector} that was asked for")
        if gpu.generation != GENERATION:
            raise KgslError(f"the direct route has kernels for a6xx only, {gpu.name} is none of them")
        folder, reason = find_tree(gpu, self._tree)
        if folder is None:
            raise KgslError(f"the direct route needs a compiler on this machine: {reason}")
        return gpu
