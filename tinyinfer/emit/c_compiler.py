"""The C compiler for a target: found by its usual name, or named by the user."""

from __future__ import annotations

import importlib.util
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyinfer.config import child_environment
from tinyinfer.errors import Fail, InvalidArgument, NotFound


@dataclass(frozen=True)
class Toolchain:
    """What compilers for an architecture are called. `package` is Debian's name for one.

    `flags` keep a file from promising that every indirect call lands on an instruction made for it: kernels
    of a bundle have none, and a system that holds the file to such a promise would end the program.
    """

    machines: tuple[str, ...]
    """What the kernel calls a machine that the native compiler makes code for."""
    cross: tuple[str, ...]
    zig: str
    package: str
    flags: tuple[str, ...] = ()


TOOLCHAINS = {
    "x86_64": Toolchain(
        ("x86_64", "amd64"),
        ("x86_64-linux-gnu-gcc",),
        "x86_64-linux-gnu",
        "gcc-x86-64-linux-gnu",
        ("-fcf-protection=return",),
    ),
    "aarch64": Toolchain(
        ("aarch64", "arm64"),
        ("aarch64-linux-gnu-gcc",),
        "aarch64-linux-gnu",
        "gcc-aarch64-linux-gnu",
        # atomic operations are instructions, not calls of the compiler's own library
        ("-mno-outline-atomics", "-mbranch-protection=pac-ret"),
    ),
    "armv7": Toolchain(
        ("armv7l",), ("arm-linux-gnueabihf-gcc",), "arm-linux-gnueabihf", "gcc-arm-linux-gnueabihf"
    ),
    "riscv64": Toolchain(
        ("riscv64",), ("riscv64-linux-gnu-gcc",), "riscv64-linux-gnu", "gcc-riscv64-linux-gnu"
    ),
}
"""By architecture: what libraries can be made for."""

NATIVE = ("cc", "gcc", "clang")


@dataclass(frozen=True)
class CCompiler:
    """A command that compiles and links C for an architecture's Linux."""

    command: tuple[str, ...]
    flags: tuple[str, ...]

    def run(self, arguments: Sequence[str], folder: Path) -> None:
        """Runs it in a folder. Fail with the compiler's first complaint where it does not succeed."""
        command = [*self.command, *self.flags, *arguments]
        # messages in English and without colours, whatever the terminal
        environment = child_environment(LC_ALL="C")
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
        except OSError as error:
            raise Fail(f"the C compiler {self.command[0]} does not run: {error.strerror}") from None
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            wrong = next((line for line in lines if "error" in line or "undefined" in line), None)
            told = wrong or (lines[-1] if lines else f"exit code {done.returncode}")
            raise Fail(f"the C compiler failed ({' '.join(self.command)}): {told.strip()}")


def find_c_compiler(architecture: str, command: str | None = None) -> CCompiler:
    """The compiler that a user names (a command with its first arguments), or the first there is: the native
    one where the architecture is this machine's, the cross compiler, Zig. InvalidArgument for an
    architecture without libraries, NotFound where there is no compiler: the message says what to install."""
    chain = TOOLCHAINS.get(architecture)
    if chain is None:
        raise InvalidArgument(f"no libraries are made for {architecture}, only for {', '.join(TOOLCHAINS)}")
    if command is not None:
        try:
            words = tuple(shlex.split(command))
        except ValueError as error:
            raise InvalidArgument(f"the C compiler {command!r}: {str(error).lower()}") from None
        if not words or shutil.which(words[0]) is None:
            raise NotFound(f"no C compiler {command!r} on this machine")
        return CCompiler(words, chain.flags)
    native = _is_native(chain)
    for name in (*(NATIVE if native else ()), *chain.cross):
        if shutil.which(name) is not None:
            return CCompiler((name,), chain.flags)
    if importlib.util.find_spec("ziglang") is not None:
        return CCompiler((sys.executable, "-m", "ziglang", "cc", "-target", chain.zig), chain.flags)
    package = "gcc" if native else chain.package
    raise NotFound(
        f"no C compiler for {architecture}: install one (Debian: apt install {package}; anywhere: pip install"
        " ziglang), or name one with --cc COMMAND"
    )


def _is_native(chain: Toolchain) -> bool:
    return sys.platform == "linux" and platform.machine().lower() in chain.machines
