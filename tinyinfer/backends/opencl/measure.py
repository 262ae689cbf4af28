"""Times of a contraction's schedules on an OpenCL device, by its own clock."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyinfer.backends.clike.item_printer import ItemPrinter
from tinyinfer.backends.clike.opencl_c import program_text
from tinyinfer.backends.opencl.capabilities import Capabilities
from tinyinfer.backends.opencl.platforms import opencl
from tinyinfer.ir.dtypes import numpy_dtype
from tinyinfer.kernels.physical import PackedConstant
from tinyinfer.kernels.plan import contraction_source
from tinyinfer.kernels.schedule_gpu import GpuModel
from tinyinfer.kernels.schedule_gpu_contraction import GpuContractionChoice

if TYPE_CHECKING:
    import pyopencl


class ScheduleTimer:
    """Measures on one device. Operands are numbers between 0.5 and 1, wherever they are floats."""

    def __init__(self, context: pyopencl.Context, capabilities: Capabilities, model: GpuModel):
        cl = opencl()
        self._context, self._options = context, capabilities.build_options()
        self._printer = ItemPrinter(model)
        self._queue = cl.CommandQueue(context, properties=cl.command_queue_properties.PROFILING_ENABLE)

    def __call__(self, choice: GpuContractionChoice, schedules: Sequence[Any], runs: int = 7) -> list[float]:
        """Median seconds of the kernel with each schedule; infinite for one that the driver refuses. All run
        in turn, so that a change of the clock meets all of them."""
        cl = opencl()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            bound = list(pool.map(lambda s: self._bound(choice, s), schedules))
        times: list[list[float]] = [[] for _ in schedules]
        for number in range(runs + 1):
            events: list[Any] = []
            # the first launch after a pause takes longer: it is the last schedule's, and does not count
            for (kernel, _), schedule in zip([bound[-1], *bound], [schedules[-1], *schedules]):
                work = schedule.work
                try:
                    events.append(
                        kernel and cl.enqueue_nd_range_kernel(self._queue, kernel, work.total, work.group)
                    )
                except cl.Error:
                    events.append(None)
            self._queue.finish()
            for event, found in zip(events[1:], times):
                if number and event is not None:
                    found.append((event.profile.end - event.profile.start) * 1e-9)
        return [statistics.median(found) if found else float("inf") for found in times]

    def _bound(self, choice: GpuContractionChoice, schedule: Any) -> tuple[Any, list[Any]]:
        """The kernel, None if the driver refuses it, and its arguments: memory of their sizes, which lives as
        long as somebody knows it."""
        cl = opencl()
        source, _ = contraction_source(choice, schedule, self._printer)
        text = program_text([source.text()], "double" in source.text())
        try:
            program = cl.Program(self._context, text).build(self._options)
            kernel = cl.Kernel(program, source.name)
        except cl.Error:
            return None, []
        nest = choice.nest(schedule.vectors)
        offsets = nest.physical.offsets or (0,) * len(nest.physical.arguments)
        bound: list[Any] = []
        for argument, offset, name in zip(nest.physical.arguments, offsets, nest.physical.nest.dtypes):
            dtype = numpy_dtype(name)
            if isinstance(argument, PackedConstant):
                count = prod(argument.shape)
            else:
                count = -(-argument.nbytes // dtype.itemsize)
            bound += [self._memory(count, dtype), np.uint64(offset * dtype.itemsize)]
        kernel.set_args(*bound)
        return kernel, bound

    def _memory(self, count: int, dtype: np.dtype) -> Any:
        cl = opencl()
        if dtype.kind == "f":
            array = np.random.default_rng(0).random(count, np.float32).astype(dtype) / 2 + dtype.type(0.5)
        else:
            array = np.zeros(count, dtype)
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
        return cl.Buffer(self._context, flags, hostbuf=array if count else np.zeros(1, dtype))
