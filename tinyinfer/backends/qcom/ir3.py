"""Mesa's ir3 compiler, run without a GPU: OpenCL C in, machine code and its statistics out.

The compiler lives in a folder of its own, a small Debian tree that `python -m
tinyinfer.backends.qcom.mesa_tree` makes and the environment variable TINYINFER_MESA names. Its OpenCL driver
talks to a device that does nothing, so that only compilation is real. The vendor's compiler is another one:
these statistics rank schedules, they do not promise what a phone's driver makes of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tinyinfer import config
from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.backends.qcom.capabilities import AdrenoGpu
from tinyinfer.backends.qcom.statistics import CompiledKernel, parse_log, parse_loops
from tinyinfer.errors import EPFail

ICD_FILE = "etc/OpenCL/vendors/rusticl.icd"
_WORKER = Path(__file__).with_name("ir3_worker.py")
_PARSER = Path(__file__).with_name("statistics.py")
_SECONDS_TO_START = 60.0
_SECONDS_A_KERNEL = 120.0
_LOG_LINES = 40


@dataclass(frozen=True)
class KernelText:
    """OpenCL C of exactly one `__kernel` function, and the build options."""

    name: str
    """For messages; the function may be called anything."""

    source: str
    options: str = ""


class Ir3Compiler(Protocol):
    """A compiler for one GPU."""

    gpu: AdrenoGpu
    version: str

    def compile(self, kernels: Sequence[KernelText]) -> list[CompiledKernel]:
        """Every kernel compiled, in order. EPFail with the compiler's log and the name of the first that is
        not.
        """

    def close(self) -> None:
        """End the processes that it started."""


def find_compiler(
    gpu: AdrenoGpu, tree: Path | None = None, cache: KernelCache | None = None
) -> tuple[Ir3Compiler | None, str]:
    """A compiler for `gpu` and "", or None and the reason in words.

    `tree` is the folder of the Mesa tree, by default the one that the configuration names; `cache` keeps
    results, by default beside the compiled CPU kernels.
    """
    folder, reason = find_tree(gpu, tree)
    if folder is None:
        return None, reason
    try:
        return MesaTreeCompiler(gpu, folder, cache or KernelCache(config.cache_directory())), ""
    except EPFail as error:
        return None, str(error)


def find_tree(gpu: AdrenoGpu, tree: Path | None = None) -> tuple[Path | None, str]:
    """The folder of a Mesa tree that knows `gpu` and "", or None and the reason in words."""
    folder = tree if tree is not None else config.mesa_tree()
    if folder is None:
        return None, f"no compiler for Adreno GPUs: {config.MESA_VARIABLE} does not name a Mesa tree"
    if gpu.ir3_id is None:
        return None, f"Mesa's stand-in device does not know {gpu.name}"
    if not (folder / ICD_FILE).is_file():
        return None, f"no Mesa tree at {folder}: {ICD_FILE} is missing"
    if shutil.which("chroot") is None:
        return None, "the program chroot is missing"
    if os.geteuid() != 0 and shutil.which("unshare") is None:
        return None, "entering the Mesa tree needs root or the program unshare"
    return folder, ""


class MesaTreeCompiler:
    """The ir3 compiler of a Mesa tree, through one process that compiles kernel after kernel.

    The process starts with the first kernel that the cache lacks, and again after a kernel that killed it.
    """

    def __init__(self, gpu: AdrenoGpu, tree: Path, cache: KernelCache):
        self.gpu = gpu
        self.version = package_version(tree)
        self._tree = tree
        self._cache = cache
        self._worker: Worker | None = None

    def compile(self, kernels: Sequence[KernelText]) -> list[CompiledKernel]:
        """See `Ir3Compiler`."""
        return [self._compile(kernel) for kernel in kernels]

    def close(self) -> None:
        """End the compiling process; the next kernel starts another."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def __enter__(self) -> MesaTreeCompiler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _compile(self, kernel: KernelText) -> CompiledKernel:
        key = self._key(kernel)
        kept = self._cache.get(key)
        if kept is not None:
            return CompiledKernel.from_json({**json.loads(kept), "name": kernel.name})
        compiled = self._ask(kernel)
        self._cache.put(key, json.dumps(compiled.to_json()).encode())
        return compiled

    def _key(self, kernel: KernelText) -> str:
        sources = [path.read_text(encoding="utf-8") for path in (_WORKER, _PARSER)]
        parts = (self.gpu.name, self.version, kernel.options, kernel.source, *sources)
        return "ir3-" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _ask(self, kernel: KernelText) -> CompiledKernel:
        if self._worker is None:
            self._worker = Worker(self._tree, self.gpu, _WORKER)
        request = {"source": kernel.source, "options": kernel.options.split()}
        try:
            answer, log = self._worker.ask(request)
        except (BrokenPipeError, EOFError, TimeoutError) as error:
            log = self._worker.take_log()
            self.close()
            what = "takes too long to compile" if isinstance(error, TimeoutError) else "ends the compiler"
            raise EPFail(f"kernel {kernel.name} {what} for {self.gpu.name}{_lines(log)}") from None
        if "error" in answer:
            # the first lines are the front end's; what Mesa logged of itself says nothing more
            raise EPFail(
                f"kernel {kernel.name} does not compile for {self.gpu.name}{_lines(answer['error'])}"
            )
        try:
            statistics, listing = parse_log(log)
        except ValueError as error:
            raise EPFail(f"kernel {kernel.name} for {self.gpu.name}: {error}") from None
        return CompiledKernel(
            name=kernel.name,
            gpu=self.gpu.name,
            statistics=statistics,
            loops=parse_loops(listing),
            max_work_group=answer["max_work_group"],
            local_bytes=answer["local_bytes"],
            private_bytes=answer["private_bytes"],
            listing=listing,
        )


class Worker:
    """A program inside the tree that answers requests, and the file that its standard error goes to."""

    def __init__(self, tree: Path, gpu: AdrenoGpu, source: Path):
        enter = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user"]
        program = source.read_text(encoding="utf-8")
        variables = [f"{name}={value}" for name, value in _environment(gpu).items()]
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [
                *enter,
                "chroot",
                str(tree),
                "/usr/bin/env",
                "-i",
                *variables,
                "/usr/bin/python3",
                "-c",
                program,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
        )
        try:
            self._read_line(_SECONDS_TO_START)
        except (EOFError, TimeoutError):
            log = self.take_log()
            self.close()
            raise EPFail(
                f"the Mesa tree at {tree} cannot run its compiler for {gpu.name}{_lines(log)}"
            ) from None

    def ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """The answer, and what was logged since the last one."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._read_line(_SECONDS_A_KERNEL)
        return answer, self.take_log()

    def take_log(self) -> str:
        """What was logged since the last call."""
        # the process shares the offset and writes nothing between answers, so it goes on at the start
        descriptor = self._log.fileno()
        text = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.ftruncate(descriptor, 0)
        return text.decode("utf-8", "replace")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()

    def _read_line(self, seconds: float) -> dict[str, Any]:
        # one line a request: nothing waits in the stream's buffer, where select would not see it
        stream = self._process.stdout
        assert stream is not None
        if not select.select([stream], [], [], seconds)[0]:
            raise TimeoutError
        line = stream.readline()
        if not line:
            raise EOFError
        return json.loads(line)


def _lines(log: str) -> str:
    """The first lines of a log, to follow a message."""
    lines = log.strip().splitlines()
    return ":\n" + "\n".join(lines[:_LOG_LINES]) if lines else ""


def _environment(gpu: AdrenoGpu) -> dict[str, str]:
    """Of the caller's environment nothing is kept: it is another system inside."""
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "LD_PRELOAD": "libfreedreno_noop_drm_shim.so",
        "FD_GPU_ID": str(gpu.ir3_id),
        "FD_MESA_DEBUG": "serialc",
        "IR3_SHADER_DEBUG": "cs",
        "MESA_SHADER_CACHE_DISABLE": "1",
        "OCL_ICD_VENDORS": "/" + ICD_FILE,
        "PYOPENCL_NO_CACHE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONWARNINGS": "ignore",
        "RUSTICL_ENABLE": "freedreno",
    }


def package_version(tree: Path) -> str:
    """The version of the tree's OpenCL driver, from the list of its packages."""
    try:
        text = (tree / "var/lib/dpkg/status").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise EPFail(f"the Mesa tree at {tree} has no list of packages: {error}") from None
    for paragraph in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " "
        )
        if fields.get("Package") == "mesa-opencl-icd":
            return f"mesa {fields.get('Version', 'unknown')}"
    raise EPFail(f"the Mesa tree at {tree} lacks the package mesa-opencl-icd")
