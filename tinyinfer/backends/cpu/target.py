"""What the code generator must know of a CPU: LLVM's names for it, its vector width and its registers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class CpuTarget:
    """One CPU that code is made for.

    `triple`, `cpu` and `features` are LLVM's; `lanes` counts the float32 lanes of the widest vector,
    `registers` the vector registers of that width, and `fma` says whether a fused multiply-add is one
    instruction.
    """

    triple: str
    cpu: str
    features: str
    lanes: int
    registers: int
    fma: bool

    @property
    def architecture(self) -> str:
        """First word of the triple: "x86_64", "aarch64" …"""
        return self.triple.split("-", 1)[0]

    def has(self, feature: str) -> bool:
        """Whether `features` names `feature` ("avx512vnni", "dotprod") as present."""
        return f"+{feature}" in self.features.split(",")

    def key(self) -> str:
        """Text that differs wherever machine code may differ."""
        return f"{self.triple}/{self.cpu}/{self.features}"


def make_target(triple: str, cpu: str, features: str) -> CpuTarget:
    """The target of LLVM's `triple`, `cpu` name and feature string ("+avx2,-avx512f"; later entries win).

    LLVM's preference for 256-bit vectors on some AVX-512 CPUs is switched off: explicit 512-bit vectors stay
    whole.
    """
    features = features.replace("+prefer-256-bit", "-prefer-256-bit")
    state = {entry[1:]: entry[0] == "+" for entry in features.split(",") if entry}
    if state.get("avx512f") and "prefer-256-bit" not in state:
        # the CPU's name alone may bring the preference
        features += ",-prefer-256-bit"
    architecture = triple.split("-", 1)[0]
    if architecture in ("x86_64", "i386", "i686"):
        wide = state.get("avx512f", False)
        lanes = 16 if wide else 8 if state.get("avx", False) else 4
        registers = 32 if wide else 16 if architecture == "x86_64" else 8
        fma = wide or state.get("fma", False)
    elif architecture.startswith(("aarch64", "arm64")):
        lanes, registers, fma = 4, 32, True
    else:
        # 128-bit vectors are what LLVM legalises well on every other architecture
        lanes, registers, fma = 4, 16, False
    return CpuTarget(triple, cpu, features, lanes, registers, fma)


@lru_cache(maxsize=1)
def host_target() -> CpuTarget:
    """The CPU that this process runs on, as LLVM detects it."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    return make_target(llvm.get_process_triple(), llvm.get_host_cpu_name(), features)


# Feature sets of the x86-64 psABI levels, as far as the code generator makes use of them.
_X86_V3 = "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+popcnt,+sse4.2,+xsave"
_NAMED = {
    "x86_64": ("x86_64", "x86-64", "+sse2"),
    "x86_64-v3": ("x86_64", "x86-64-v3", _X86_V3),
    "x86_64-v4": ("x86_64", "x86-64-v4", f"{_X86_V3},+avx512bw,+avx512cd,+avx512dq,+avx512f,+avx512vl"),
    "aarch64": ("aarch64", "generic", "+neon"),
    "aarch64-v8.2": ("aarch64", "generic", "+v8.2a,+neon,+dotprod,+fullfp16"),
}


def named_target(name: str, system: str | None = None) -> CpuTarget:
    """A target by name, for code that runs elsewhere: "host" or a row of the table above ("aarch64").

    `system` is "linux", "darwin" or "win32" and defaults to this one. Raises ValueError for an unknown name.
    """
    if name == "host":
        return host_target()
    if name not in _NAMED:
        raise ValueError(f"unknown CPU target {name!r}; known are {', '.join(['host', *_NAMED])}")
    architecture, cpu, features = _NAMED[name]
    vendors = {"darwin": "apple-macosx", "win32": "pc-windows-msvc"}
    suffix = vendors.get(system or sys.platform, "unknown-linux-gnu")
    return make_target(f"{architecture}-{suffix}", cpu, features)
