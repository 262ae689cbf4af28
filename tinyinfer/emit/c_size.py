"""What emitted C takes in a device's memories: figures known without a compiler, and those that one gives."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyinfer.emit.c_source import CSource
from tinyinfer.errors import RuntimeException

COMPILERS = ("cc", "gcc", "clang")
TOOL = re.compile(r"(gcc|clang|cc|c\+\+|g\+\+)(-[\d.]+)?(\.exe)?$")
DEFAULT_FLAGS = ("-O2",)


@dataclass(frozen=True)
class Sizes:
    """The sums that `size` prints for the object files of a model, in bytes, and the compiler that made
    them."""

    text: int
    data: int
    bss: int
    compiler: str

    @property
    def ram(self) -> int:
        """Static memory that is written."""
        return self.data + self.bss

    @property
    def rom(self) -> int:
        """Code, constants, and the initial values of what is written."""
        return self.text + self.data


def default_compiler() -> list[str] | None:
    """The first C compiler of this machine with what it is asked to do; None where there is none."""
    found = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    return [found, *DEFAULT_FLAGS] if found else None


def measure(source: CSource, compiler: Sequence[str]) -> Sizes:
    """Compile the files with `compiler` (a command with its flags) and add up what `size` says of each.

    Raises RuntimeException, with what the tools said, where compiler or `size` are missing or fail.
    """
    with tempfile.TemporaryDirectory(prefix="tinyinfer_c_") as name:
        folder = Path(name)
        for file, content in source.files.items():
            (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        objects = []
        for file in source.files:
            if file.endswith((".c", ".S")):
                standard = ["-std=c11"] if file.endswith(".c") else []
                objects.append(f"{file}.o")
                _output([*compiler, *standard, "-c", file, "-o", objects[-1]], folder)
        text, data, bss = _sums(_output([_size_tool(compiler[0]), *objects], folder))
    return Sizes(text, data, bss, " ".join([Path(compiler[0]).name, *compiler[1:]]))


def report(source: CSource, sizes: Sizes | None) -> list[str]:
    """Lines that say what the model takes."""
    lines = [f"static RAM {source.ram_bytes} bytes, weights {source.weight_bytes} bytes"]
    if source.arena_bytes and not source.ram_bytes:
        lines[0] += f", arena of the caller {source.arena_bytes} bytes"
    if sizes is None:
        return [*lines, "no C compiler was found to tell the size of the code"]
    lines.append(f"compiled by {sizes.compiler}: RAM {sizes.ram} bytes, ROM {sizes.rom} bytes")
    lines.append(f"  text {sizes.text}, data {sizes.data}, bss {sizes.bss} as size prints them, without libc")
    return lines


def _size_tool(compiler: str) -> str:
    """The `size` that belongs to a compiler: of the same prefix, or the machine's own."""
    path = Path(compiler)
    for name in (TOOL.sub("size", path.name), "size", "llvm-size"):
        beside = str(path.with_name(name)) if path.parent != Path(".") else name
        found = shutil.which(beside) or shutil.which(name)
        if found:
            return found
    raise RuntimeException(f"no size program was found beside the compiler {compiler}")


def _output(command: Sequence[str], folder: Path) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except OSError as error:
        raise RuntimeException(f"{command[0]} cannot be run: {error.strerror or error}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it says nothing"]
        raise RuntimeException(f"{Path(command[0]).name} failed on the emitted C: {said[0]}")
    return done.stdout


def _sums(table: str) -> tuple[int, int, int]:
    """The sums of the columns text, data and bss of what `size` prints in Berkeley format."""
    head, *rows = [line.split() for line in table.splitlines() if line.strip()]
    if head[:3] != ["text", "data", "bss"]:
        raise RuntimeException("size prints no table of text, data and bss")
    text, data, bss = (sum(int(row[i]) for row in rows) for i in range(3))
    return text, data, bss
