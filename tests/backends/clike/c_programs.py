"""Graphs as C, compiled by the machine's C compiler and called through ctypes."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tinyinfer.backends.clike.printer import GENERAL, CPrinter
from tinyinfer.config import CompileOptions
from tinyinfer.emit.c_source import COptions, CSource, emit_c
from tinyinfer.ir.node import Graph
from tinyinfer.kernels.plan import build_plan
from tinyinfer.kernels.schedule import MachineModel
from tinyinfer.runtime.plan import Plan, TensorSpec

STRICT = ("-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wdouble-promotion", "-pedantic", "-Werror")


def tool(name: str) -> str:
    """The path of a compiler or emulator: missing, it fails in CI and skips elsewhere."""
    found = shutil.which(name)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")
    return found


def command(arguments: Sequence[str | Path]) -> str:
    """What a command printed; its errors are the failure's text."""
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, arguments[:9]))} …\n{done.stderr[:4000]}"
    return done.stdout + done.stderr


def write(source: CSource, folder: Path) -> list[Path]:
    """Write the files of a model; returns what a compiler takes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in source.files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(data)
    return [folder / n for n in source.files if n.endswith((".c", ".S"))]


def plan_without_passes(graph: Graph, machine: MachineModel = GENERAL, fuse: bool = True) -> Plan:
    return build_plan(graph, CPrinter(machine), CompileOptions(fuse=fuse))


@dataclass
class Program:
    """A model in a shared library. `name` is that of its C files."""

    library: ctypes.CDLL
    name: str
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs for feeds by name."""
        given = [np.ascontiguousarray(feeds[s.name]).reshape(s.shape) for s in self.inputs]
        results = [np.full(s.shape, 77).astype(s.dtype) for s in self.outputs]
        for array, spec in zip(given, self.inputs):
            assert array.dtype.itemsize == np.dtype(spec.dtype).itemsize
        function = getattr(self.library, f"{self.name}_run")
        assert function(*(ctypes.c_void_p(x.ctypes.data) for x in [*given, *results])) == 0
        return results


def compile_all(
    plans: Mapping[str, Plan], folder: Path, compiler: str = "gcc", flags: Sequence[str] = ("-O1",)
) -> dict[str, Program]:
    """Programs by name, all in one shared library."""
    files = []
    for name, plan in plans.items():
        files += write(emit_c(plan, name, COptions()), folder)
    library = folder / "all.so"
    command([tool(compiler), *STRICT, *flags, "-shared", "-fPIC", "-o", library, *files, "-lm"])
    loaded = ctypes.CDLL(str(library))
    return {n: Program(loaded, n, p.inputs, p.outputs) for n, p in plans.items()}
