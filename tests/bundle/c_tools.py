"""Compilers and emulators for the tests of C code: what is missing skips with a word, and fails in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
RUNTIME = REPOSITORY / "tinyinfer" / "bundle" / "c"
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Wshadow", "-Werror"]


@dataclass(frozen=True)
class Machine:
    """How to compile for an architecture, and how to run what comes out."""

    architecture: str
    compiler: str
    runner: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


MACHINES = [
    Machine("x86_64", "gcc"),
    Machine("aarch64", "aarch64-linux-gnu-gcc", ("qemu-aarch64-static",)),
    Machine("armv7", "arm-linux-gnueabihf-gcc", ("qemu-arm-static",)),
    Machine("riscv64", "riscv64-linux-gnu-gcc", ("qemu-riscv64-static", "-cpu", "rv64,v=true")),
]


def needed(*programs: str) -> None:
    """Skips the test where a program is missing, and fails it in CI."""
    missing = [name for name in programs if shutil.which(name) is None]
    if not missing:
        return
    reason = f"not installed: {', '.join(missing)}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def compiled(to: Path, compiler: str, sources: Sequence[Path], *flags: str) -> Path:
    """`to`, compiled from C files with the runtime's folder among the includes."""
    needed(compiler)
    command = [compiler, *flags, "-pthread", "-I", str(RUNTIME), *map(str, sources), "-lm", "-o", str(to)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return to


def run(*command: str | Path, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    """A finished command with what it printed."""
    words = [str(word) for word in command]
    variables = {**os.environ, **environment}
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout, env=variables)
