"""Running kernels of other machines here: a process of that machine under qemu maps the image and calls
them."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from compiled import CACHE, Feeds, plan_of

from tinyinfer.backends.cpu.code_image import CodeImage
from tinyinfer.backends.cpu.compile import link_sources
from tinyinfer.backends.cpu.loader import map_image
from tinyinfer.backends.cpu.target import host_target, named_target
from tinyinfer.config import CompileOptions
from tinyinfer.ir.node import Graph
from tinyinfer.runtime.plan import BufferRef, KernelSource
from tinyinfer.runtime.signature import numpy_dtype

HARNESS = Path(__file__).with_name("emulated_harness.c")
PAGE = 1 << 16

COMPILERS = {
    "aarch64": ("aarch64-linux-gnu-gcc", "aarch64-linux-musl"),
    "armv7": ("arm-linux-gnueabihf-gcc", "arm-linux-musleabihf"),
    "riscv64": ("riscv64-linux-gnu-gcc", "riscv64-linux-musl"),
}
"""A cross compiler by architecture, and Zig's name of the target, which serves as well."""

EMULATORS = {
    "aarch64": ("qemu-aarch64-static", "-cpu", "cortex-a57"),
    "aarch64-v8.2": ("qemu-aarch64-static", "-cpu", "cortex-a76"),
    "aarch64-v8.6": ("qemu-aarch64-static", "-cpu", "max"),
    "armv7": ("qemu-arm-static", "-cpu", "cortex-a15"),
    "riscv64": ("qemu-riscv64-static", "-cpu", "rv64,v=true,vlen=128,elen=64,vext_spec=v1.0"),
}
"""The command that runs programs for a target, on the least processor that has its features."""

TARGETS = list(EMULATORS)


def _lacking(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is missing")


@cache
def _harness(architecture: str) -> Path:
    """The harness for an architecture, or a skip."""
    gcc, zig = COMPILERS[architecture]
    if shutil.which(gcc):
        command = [gcc]
    elif importlib.util.find_spec("ziglang"):
        command = [sys.executable, "-m", "ziglang", "cc", "-target", zig]
    else:
        _lacking(f"a compiler for {architecture} ({gcc}, or ziglang)")
    made = Path(tempfile.mkdtemp()) / f"harness-{architecture}"
    subprocess.run([*command, "-O1", "-static", str(HARNESS), "-o", str(made)], check=True)
    return made


class Job:
    """Memory and calls, collected and then run in one process."""

    def __init__(self, target: str):
        self.name, self.target = target, named_target(target)
        self.memory = bytearray()
        self.calls: list[tuple[str, int, list[int]]] = []
        self.sources: dict[str, KernelSource] = {}

    def place(self, data: bytes | int) -> int:
        """Put bytes, or so many zeros, into the memory; returns where."""
        start = -(-len(self.memory) // 64) * 64
        # parts do not touch: what a kernel writes beside its own is seen
        self.memory += bytes(start - len(self.memory)) + (bytes(data) if isinstance(data, int) else data)
        return start

    def call(self, source: KernelSource, chunks: int, arguments: Sequence[int]) -> None:
        self.sources[source.key] = source
        self.calls.append((source.key, chunks, list(arguments)))

    def image(self) -> CodeImage:
        return link_sources(self.sources, self.target, 1, CACHE)

    def run(self) -> bytes:
        """The memory after all calls, made by a process of the target's machine."""
        image = self.image()
        if self.name not in EMULATORS:
            return self._run_here(image)
        command = EMULATORS[self.name]
        if shutil.which(command[0]) is None:
            _lacking(command[0])
        harness = _harness(self.target.architecture)
        numbers = [
            n
            for key, chunks, arguments in self.calls
            for n in (image.entries[key], chunks, len(arguments), *arguments)
        ]
        code_at = -(-8 * (5 + len(numbers)) // PAGE) * PAGE
        memory_at = code_at + -(-len(image.code) // PAGE) * PAGE
        head = np.array(
            [code_at, len(image.code), memory_at, len(self.memory), len(self.calls), *numbers], np.uint64
        )
        with tempfile.TemporaryDirectory() as folder:
            job, result = Path(folder, "job"), Path(folder, "result")
            job.write_bytes(
                head.tobytes().ljust(code_at, b"\0")
                + image.code.ljust(memory_at - code_at, b"\0")
                + self.memory
            )
            done = subprocess.run([*command, harness, job, result], capture_output=True, timeout=120)
            assert done.returncode == 0, f"{self.name}: status {done.returncode} {done.stderr.decode()}"
            return result.read_bytes()

    def _run_here(self, image: CodeImage) -> bytes:
        """As `run`, in this process."""
        if self.target.architecture != host_target().architecture:
            pytest.skip(f"{self.name} is another machine")
        mapped = map_image(image)
        memory = np.frombuffer(bytearray(self.memory), np.uint8)
        start = memory.ctypes.data
        for key, chunks, arguments in self.calls:
            function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(mapped.addresses[key])
            pointers = (ctypes.c_void_p * len(arguments))(*(start + at for at in arguments))
            for chunk in range(chunks):
                function(ctypes.addressof(pointers), chunk)
        return memory.tobytes()


class PlanInJob:
    """A plan whose launches are part of a job; loops are not run."""

    def __init__(self, job: Job, graph: Graph, feeds: Feeds, fuse: bool = True):
        plan = plan_of(graph, CompileOptions(fuse=fuse), job.target)
        self.plan = plan
        arena = job.place(plan.arena_bytes)
        spaces: Mapping[str, list[int]] = {
            "parameter": [job.place(np.ascontiguousarray(p).tobytes()) for p in plan.parameters],
            "input": [job.place(np.ascontiguousarray(feeds[name]).tobytes()) for name in graph.inputs],
            "output": [job.place(_bytes(spec)) for spec in plan.outputs],
        }
        self.outputs = spaces["output"]

        def address(ref: BufferRef) -> int:
            return (arena if ref.space == "arena" else spaces[ref.space][ref.number]) + ref.offset

        for launch in plan.launches:
            assert launch.loop is None
            job.call(launch.kernel, launch.chunks, [address(ref) for ref in launch.arguments])

    def results(self, memory: bytes) -> list[np.ndarray]:
        return [
            np.frombuffer(memory, numpy_dtype(spec.dtype), int(np.prod(spec.shape)), at).reshape(spec.shape)
            for spec, at in zip(self.plan.outputs, self.outputs)
        ]


def _bytes(spec) -> int:
    return int(np.prod(spec.shape, dtype=np.int64)) * numpy_dtype(spec.dtype).itemsize
