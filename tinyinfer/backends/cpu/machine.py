"""What this machine is, and which code it can run. Needs no compiler."""

from __future__ import annotations

import ctypes
import platform
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tinyinfer.backends.cpu.features import (
    ARCHITECTURES,
    FEATURES,
    Needs,
    architecture_name,
    feature_names,
    offered_bits,
)

_CPUINFO = Path("/proc/cpuinfo")
_ARCHITECTURES = {
    "x86_64": "x86_64",
    "amd64": "x86_64",
    "aarch64": "aarch64",
    "arm64": "aarch64",
    "armv7l": "armv7",
    "armv8l": "armv7",
    "riscv64": "riscv64",
}
"""`platform.machine()` in lower case."""


@dataclass(frozen=True)
class Machine:
    """The architecture (empty: none that code is made for), bytes of a pointer in this process, and
    features."""

    architecture: str
    pointer_bytes: int
    features: int


@lru_cache(maxsize=1)
def this_machine() -> Machine:
    """The machine that this process runs on."""
    pointer = struct.calcsize("P")
    architecture = _ARCHITECTURES.get(platform.machine().lower(), "")
    if architecture == "aarch64" and pointer == 4:
        # a process of 32 bits sees the 64-bit kernel's name
        architecture = "armv7"
    find = _FINDERS.get((sys.platform, architecture))
    found = frozenset(find()) if find is not None else frozenset()
    return Machine(architecture, pointer, offered_bits(architecture, found))


def choose(targets: Sequence[Needs], machine: Machine | None = None) -> tuple[int | None, list[str]]:
    """Number of the first target that the machine (this one) can run, or None, and for each one before it why
    it cannot."""
    machine = machine or this_machine()
    reasons: list[str] = []
    for number, needs in enumerate(targets):
        reason = _obstacle(needs, machine)
        if reason is None:
            return number, reasons
        reasons.append(f"{needs.name}: {reason}")
    return None, reasons


def _obstacle(needs: Needs, machine: Machine) -> str | None:
    wanted = architecture_name(needs.architecture)
    if wanted == "opencl":
        return "is for OpenCL devices: it runs where one is asked for (OPENCL, QCOM)"
    if ARCHITECTURES.get(machine.architecture) != needs.architecture:
        return f"is for {wanted}, and this machine is {machine.architecture or platform.machine()}"
    if needs.pointer_bytes != machine.pointer_bytes:
        bits = 8 * needs.pointer_bytes, 8 * machine.pointer_bytes
        return "has pointers of {} bits, and those of this process have {}".format(*bits)
    missing = needs.features & ~machine.features
    if missing:
        return f"needs {', '.join(feature_names(machine.architecture, missing))}, which this machine lacks"
    return None


# ---- finding features: LLVM's names of what the machine has

_X86_FLAGS = {"abm": "lzcnt", "bmi1": "bmi", "avx_vnni": "avxvnni"}
"""Names of /proc/cpuinfo that LLVM spells otherwise, underscores aside."""


def _x86_linux() -> list[str]:
    flags = _cpuinfo("flags").split()
    return [_X86_FLAGS.get(flag, flag.replace("_", "")) for flag in flags]


def _cpuinfo(field: str) -> str:
    """The first value of a field of /proc/cpuinfo, or nothing."""
    with suppress(OSError):
        for line in _CPUINFO.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == field:
                return value
    return ""


def _sysctl(name: str) -> bytes:
    """A value of macOS's sysctl, empty where there is none."""
    libc = ctypes.CDLL(None)
    size = ctypes.c_size_t(0)
    if libc.sysctlbyname(name.encode(), None, ctypes.byref(size), None, ctypes.c_size_t(0)):
        return b""
    value = ctypes.create_string_buffer(size.value)
    if libc.sysctlbyname(name.encode(), value, ctypes.byref(size), None, ctypes.c_size_t(0)):
        return b""
    return value.raw[: size.value]


_X86_SYSCTL = {"avx1.0": "avx", "bmi1": "bmi"}


def _x86_macos() -> list[str]:
    names = ("machdep.cpu.features", "machdep.cpu.leaf7_features", "machdep.cpu.extfeatures")
    words = (
        " ".join(_sysctl(name).decode(errors="replace") for name in names).replace("\0", " ").lower().split()
    )
    return [_X86_SYSCTL.get(word, word) for word in words]


_ARM_MACOS = {
    "FEAT_FP16": "fullfp16",
    "FEAT_DotProd": "dotprod",
    "FEAT_I8MM": "i8mm",
    "FEAT_BF16": "bf16",
}


def _aarch64_macos() -> list[str]:
    return ["neon"] + [name for key, name in _ARM_MACOS.items() if any(_sysctl(f"hw.optional.arm.{key}"))]


_HWCAP, _HWCAP2 = 16, 26
_AARCH64_BITS = {
    _HWCAP: {1: "neon", 10: "fullfp16", 20: "dotprod", 22: "sve"},
    _HWCAP2: {1: "sve2", 13: "i8mm", 14: "bf16"},
}
_ARMV7_BITS = {_HWCAP: {12: "neon", 16: "vfp4", 17: "hwdiv-arm"}}
_RISCV64_BITS = {_HWCAP: {ord("v") - ord("a"): "v"}}
"""Bits of the words that Linux hands to a process (asm/hwcap.h): word, bit, LLVM's name."""


def _auxiliary(table: dict[int, dict[int, str]]) -> Callable[[], list[str]]:
    def find() -> list[str]:
        read = ctypes.CDLL(None).getauxval
        read.restype, read.argtypes = ctypes.c_ulong, (ctypes.c_ulong,)
        return [name for word, bits in table.items() for bit, name in bits.items() if read(word) >> bit & 1]

    return find


def _riscv64_linux() -> list[str]:
    """V by the word of the kernel, extensions of more letters by the ISA string."""
    named = {name for row in FEATURES["riscv64"] for name in row[1] if len(name) > 1}
    return _auxiliary(_RISCV64_BITS)() + [x for x in _cpuinfo("isa").strip().split("_") if x in named]


_FINDERS: dict[tuple[str, str], Callable[[], list[str]]] = {
    ("linux", "x86_64"): _x86_linux,
    ("darwin", "x86_64"): _x86_macos,
    ("linux", "aarch64"): _auxiliary(_AARCH64_BITS),
    ("darwin", "aarch64"): _aarch64_macos,
    ("linux", "armv7"): _auxiliary(_ARMV7_BITS),
    ("linux", "riscv64"): _riscv64_linux,
}
