"""A plan made runnable on the direct route: its memory, and all of its launches as one command stream."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from tinyinfer.backends.base import LaunchTime
from tinyinfer.backends.clike.opencl_c import program_text
from tinyinfer.backends.opencl.programs import all_launches, plan_sources
from tinyinfer.backends.qcom.compile_check import BUILD_OPTIONS
from tinyinfer.backends.qcom.ir3 import KernelText
from tinyinfer.backends.qcom.kgsl.device import KgslDevice
from tinyinfer.backends.qcom.kgsl.mesa_compiler import GroupKernel
from tinyinfer.backends.qcom.kgsl.mesa_kernel import MesaKernel
from tinyinfer.backends.qcom.kgsl.plan_memory import PlanMemory, tensor_bytes
from tinyinfer.backends.qcom.kgsl.plan_steps import HostCopy, Run, Step, check_loops, plan_steps
from tinyinfer.backends.qcom.kgsl.plan_stream import PlanStream
from tinyinfer.runtime.plan import Plan, StageTexts, TensorSpec
from tinyinfer.runtime.signature import numpy_dtype


@dataclass(frozen=True)
class Stream:
    """Commands, and for each dispatch among them the number of the launch that it belongs to."""

    stream: PlanStream
    launches: list[int]


Stage = Stream | HostCopy


def plan_kernels(plan: Plan) -> dict[str, GroupKernel]:
    """The kernels of a plan by key, as `mesa_compiler` takes them. EPFail naming a loop that ends by a
    condition."""
    check_loops(plan.launches)
    groups = {x.kernel.key: x.work.group for x in all_launches(plan.launches) if x.work is not None}
    return {
        source.key: GroupKernel(
            KernelText(source.name, program_text([source.text()], False), BUILD_OPTIONS), groups[source.key]
        )
        for source in plan_sources(plan.launches)
    }


class KgslExecutable:
    """`backends.base.Executable` on an open KGSL device, which it closes in the end.

    `kernels` are those of `plan_kernels`, compiled for the device's GPU, by key. ValueError names a kernel
    that does not fit it, KgslError says what the driver refuses. `timeout` is how long a run may take.
    """

    def __init__(
        self,
        plan: Plan,
        device: KgslDevice,
        kernels: Mapping[str, MesaKernel],
        timeout: float = 10.0,
    ):
        self.inputs: list[TensorSpec] = list(plan.inputs)
        self.outputs: list[TensorSpec] = list(plan.outputs)
        self.peak_bytes: int = plan.peak_bytes
        self.device = device
        self._texts, self._timeout = dict(plan.stages), timeout
        self._lock = threading.Lock()
        self._memory = PlanMemory(plan, device)
        self.launches = [x for x in plan.launches if not x.once]
        once = self._make(plan_steps([x for x in plan.launches if x.once], kernels, self._memory))
        self._perform(once)
        _close(once)
        self._steps = plan_steps(self.launches, kernels, self._memory)
        self.stages_of_a_run = self._make(self._steps)

    def run(self, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
        """New outputs for feeds with exactly the shapes and dtypes of `inputs`, C-contiguous, in that order.

        Callers on several threads take turns. ValueError for a feed of another size, RuntimeError after
        `close`, KgslTimeout and GpuFault of the GPU.
        """
        with self._lock:
            return self._run(feeds, self.stages_of_a_run)

    def profile(self, feeds: Sequence[np.ndarray], runs: int = 10) -> list[LaunchTime]:
        """Median seconds of each launch over `runs` runs, by the GPU's own counter."""
        with self._lock:
            stages = self._make(self._steps, profile=True)
            times = np.zeros((max(1, runs), len(self.launches)))
            try:
                for row in times:
                    self._run(feeds, stages)
                    for stage in stages:
                        if isinstance(stage, Stream):
                            np.add.at(row, stage.launches, stage.stream.seconds())
            finally:
                _close(stages)
        return [
            LaunchTime(x.title or x.kernel.name, x.origin, float(median), x.flops, x.bytes)
            for x, median in zip(self.launches, np.median(times, axis=0))
        ]

    def stages(self) -> Mapping[str, str]:
        """The text of every compiler stage, by name, in order: each is made when it is looked at."""
        return StageTexts(self._texts)

    def close(self) -> None:
        """Give up the GPU's memory and the device; later runs raise RuntimeError."""
        with self._lock:
            self.device.close()

    def _run(self, feeds: Sequence[np.ndarray], stages: Sequence[Stage]) -> list[np.ndarray]:
        if self.device.closed:
            raise RuntimeError("the executable is closed")
        if len(feeds) != len(self.inputs):
            raise ValueError(f"{len(self.inputs)} inputs are needed, not {len(feeds)}")
        for spec, feed, buffer in zip(self.inputs, feeds, self._memory.inputs):
            size = tensor_bytes(spec)
            if feed.nbytes != size or not feed.flags.c_contiguous:
                raise ValueError(f"input {spec.name!r} must be a C-contiguous array of {size} bytes")
            if feed.nbytes:
                buffer.view(0, feed.shape, feed.dtype)[...] = feed
                buffer.sync_to_gpu()
        self._perform(stages)
        results = []
        for spec, buffer in zip(self.outputs, self._memory.outputs):
            buffer.sync_from_gpu()
            results.append(buffer.view(0, tuple(spec.shape), numpy_dtype(spec.dtype)).copy())
        return results

    def _make(self, steps: Sequence[Step], profile: bool = False) -> list[Stage]:
        """Dispatches that follow each other as one stream each, and the host's copies between them."""
        stages: list[Stage] = []
        for host, group in groupby(steps, lambda step: isinstance(step, HostCopy)):
            if host:
                stages += [step for step in group if isinstance(step, HostCopy)]
                continue
            runs = [step for step in group if isinstance(step, Run)]
            stream = PlanStream(self.device, [run.dispatch for run in runs], profile)
            stages.append(Stream(stream, [run.launch for run in runs]))
        return stages

    def _perform(self, stages: Sequence[Stage]) -> None:
        for stage in stages:
            if isinstance(stage, HostCopy):
                stage.run()
            else:
                stage.stream.run(self._timeout)


def _close(stages: Sequence[Stage]) -> None:
    for stage in stages:
        if isinstance(stage, Stream):
            stage.stream.close()
