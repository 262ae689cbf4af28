"""Which C compiler is taken, and what is said where there is none."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from pathlib import Path

import pytest

from tinyinfer.emit.c_compiler import TOOLCHAINS, CCompiler, find_c_compiler
from tinyinfer.errors import Fail, InvalidArgument, NotFound


def machine_with(monkeypatch: pytest.MonkeyPatch, *programs: str, zig: bool = False) -> None:
    """A Linux machine of x86-64 with these programs and no others."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name in programs else None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if zig else None)


@pytest.mark.parametrize(
    "architecture, programs, taken",
    [
        ("x86_64", ("clang", "gcc", "cc"), "cc"),
        ("x86_64", ("clang", "gcc"), "gcc"),
        ("x86_64", ("clang",), "clang"),
        ("aarch64", ("cc", "aarch64-linux-gnu-gcc"), "aarch64-linux-gnu-gcc"),
        ("riscv64", ("cc", "riscv64-linux-gnu-gcc"), "riscv64-linux-gnu-gcc"),
    ],
)
def test_the_usual_names(architecture: str, programs: tuple[str, ...], taken: str, monkeypatch):
    machine_with(monkeypatch, *programs, zig=True)
    assert find_c_compiler(architecture).command == (taken,)


def test_zig_where_there_is_no_other(monkeypatch):
    machine_with(monkeypatch, "cc", zig=True)
    command = find_c_compiler("armv7").command
    assert command[1:] == ("-m", "ziglang", "cc", "-target", "arm-linux-gnueabihf")


@pytest.mark.parametrize("architecture, package", [("x86_64", "gcc"), ("aarch64", "gcc-aarch64-linux-gnu")])
def test_none_says_what_to_install(architecture: str, package: str, monkeypatch):
    machine_with(monkeypatch)
    with pytest.raises(NotFound) as caught:
        find_c_compiler(architecture)
    assert str(caught.value).startswith(
        f"no C compiler for {architecture}: install one (Debian: apt install {package};"
    )
    assert "\n" not in str(caught.value)


def test_a_named_command(monkeypatch):
    machine_with(monkeypatch, "cc", "musl-gcc")
    assert find_c_compiler("x86_64", "musl-gcc -static-libgcc").command == ("musl-gcc", "-static-libgcc")
    with pytest.raises(NotFound, match="no C compiler 'icc -O1' on this machine"):
        find_c_compiler("x86_64", "icc -O1")
    with pytest.raises(InvalidArgument, match="no closing quotation"):
        find_c_compiler("x86_64", "cc 'a")


def test_an_architecture_without_libraries():
    with pytest.raises(
        InvalidArgument, match=f"no libraries are made for wasm32, only for {', '.join(TOOLCHAINS)}"
    ):
        find_c_compiler("wasm32")


def test_a_compiler_that_fails(tmp_path: Path):
    python = CCompiler(
        (sys.executable, "-c", "import sys; sys.exit('note: a\\nx.c:1: error: no such thing')"), ()
    )
    with pytest.raises(Fail, match="x.c:1: error: no such thing$"):
        python.run([], tmp_path)
    with pytest.raises(Fail, match="the C compiler /no/such does not run: No such file or directory"):
        CCompiler(("/no/such",), ()).run([], tmp_path)
