"""OpenCL C to kernels that the direct route can launch, through the Mesa tree of `ir3.py`."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyinfer import config
from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.backends.qcom import ir3
from tinyinfer.backends.qcom.capabilities import AdrenoGpu
from tinyinfer.backends.qcom.ir3 import KernelText, Worker
from tinyinfer.backends.qcom.kgsl import mesa_kernel, mesa_launch
from tinyinfer.backends.qcom.kgsl.mesa_kernel import MesaKernel
from tinyinfer.errors import EPFail

WORKER = Path(ir3.__file__).with_name("ir3_launch_worker.py")
_READERS = (WORKER, Path(mesa_kernel.__file__), Path(mesa_launch.__file__))
_UNIFORM_BUFFER = re.compile(r"\bldc[. ]")
"""Constants that do not fit are read from memory, through a descriptor that `ShaderBinary` does not have."""

GENERATION = 6
"""Newer ones get their arguments from such buffers always."""


@dataclass(frozen=True)
class GroupKernel:
    """A kernel, and the work-items of its groups along three dimensions."""

    text: KernelText
    local: tuple[int, int, int]


def compile_kernels(
    kernels: Sequence[GroupKernel],
    gpu: AdrenoGpu,
    tree: Path | None = None,
    cache: KernelCache | None = None,
) -> list[MesaKernel]:
    """Every kernel compiled for `gpu`, in order; `tree` and `cache` as in `ir3.find_compiler`.

    EPFail where there is no compiler, where a kernel does not compile, and where its launch is not
    understood; the last two name the kernel.
    """
    if gpu.generation != GENERATION:
        raise EPFail(f"the direct route has kernels for a6xx only, {gpu.name} is none of them")
    folder, reason = ir3.find_tree(gpu, tree)
    if folder is None:
        raise EPFail(reason)
    cache = cache or KernelCache(config.cache_directory())
    made: list[MesaKernel] = []
    worker: Worker | None = None
    try:
        for kernel in kernels:
            key = _key(kernel, gpu, ir3.package_version(folder))
            kept = cache.get(key)
            if kept is None:
                worker = worker or Worker(folder, gpu, WORKER)
                kept = json.dumps(_compile(worker, kernel, gpu).to_json()).encode()
                cache.put(key, kept)
            made.append(MesaKernel.from_json(json.loads(kept)))
    finally:
        if worker is not None:
            worker.close()
    return made


def _compile(worker: Worker, kernel: GroupKernel, gpu: AdrenoGpu) -> MesaKernel:
    name, text = kernel.text.name, kernel.text
    request = {"source": text.source, "options": text.options.split(), "local": kernel.local}
    try:
        answer, log = worker.ask(request)
    except (BrokenPipeError, EOFError, TimeoutError):
        raise EPFail(f"kernel {name} ends the compiler for {gpu.name}, or takes too long") from None
    if "error" in answer:
        raise EPFail(f"kernel {name} does not compile for {gpu.name}: {answer['error']}")
    if _UNIFORM_BUFFER.search(log):
        raise EPFail(f"kernel {name} has more arguments and constants than {gpu.name} holds in registers")
    memory = mesa_launch.GpuMemory(zlib.decompress(base64.b64decode(answer["memory"])))
    return mesa_kernel.mesa_kernel(name, memory, answer["launches"], answer["local_bytes"])


def _key(kernel: GroupKernel, gpu: AdrenoGpu, version: str) -> str:
    readers = [path.read_text(encoding="utf-8") for path in _READERS]
    parts = (gpu.name, version, kernel.text.options, kernel.text.source, kernel.local, *readers)
    return "ir3-launch-" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()
