"""What the code generator must know of a CPU: LLVM's names for it, its vector width and its registers.

Code is the same for every operating system: objects are ELF, calls follow the architecture's standard, and
the register that some systems keep for themselves (x18 of aarch64) is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

from tinyinfer.backends.cpu.features import ARCHITECTURES, POINTER_BYTES, Needs, required_bits

TRIPLES = {
    "x86_64": "x86_64-unknown-linux-gnu",
    "aarch64": "aarch64-unknown-linux-gnu",
    "armv7": "armv7-unknown-linux-gnueabihf",
    "riscv64": "riscv64-unknown-linux-gnu",
    "wasm32": "wasm32-unknown-unknown",
}
_OTHER_NAMES = {"arm64": "aarch64", "amd64": "x86_64", "armv7l": "armv7", "armv8l": "armv7"}


@dataclass(frozen=True)
class CpuTarget:
    """One CPU that code is made for.

    `triple`, `cpu` and `features` are LLVM's; `lanes` counts the float32 lanes of the widest vector,
    `registers` the vector registers of that width, and `fma` says whether a fused multiply-add is one
    instruction. `tune` is LLVM's name of the CPU whose pipeline the code is ordered for (empty: that of
    `cpu`).
    """

    triple: str
    cpu: str
    features: str
    lanes: int
    registers: int
    fma: bool
    name: str = "host"
    tune: str = ""

    @property
    def architecture(self) -> str:
        """First word of the triple, a key of `TRIPLES` where code can be linked."""
        return self.triple.split("-", 1)[0]

    @property
    def pointer_bytes(self) -> int:
        return POINTER_BYTES.get(self.architecture, 8)

    @cached_property
    def _present(self) -> frozenset[str]:
        state = {entry[1:]: entry[0] == "+" for entry in self.features.split(",") if entry}
        return frozenset(name for name, present in state.items() if present)

    def has(self, feature: str) -> bool:
        """Whether `features` names `feature` ("avx512vnni", "dotprod") as present."""
        return feature in self._present

    @property
    def needs(self) -> Needs:
        """What a machine must have to run this target's code, in a bundle's numbers."""
        architecture = self.architecture
        bits = required_bits(architecture, self._present)
        return Needs(self.name, ARCHITECTURES.get(architecture, 0), self.pointer_bytes, bits)

    def key(self) -> str:
        """Text that differs wherever machine code may differ."""
        return f"{self.triple}/{self.cpu}/{self.tune}/{self.features}"


def make_target(triple: str, cpu: str, features: str, name: str = "host", tune: str = "") -> CpuTarget:
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
    if architecture == "x86_64":
        wide = state.get("avx512f", False)
        lanes = 16 if wide else 8 if state.get("avx", False) else 4
        registers = 32 if wide else 16
        fma = wide or state.get("fma", False)
    else:
        # 128-bit vectors are what every other architecture has in common
        lanes, (registers, fma) = 4, _REGISTERS.get(architecture, (16, False))
        if architecture == "aarch64" and "reserve-x18" not in state:
            features += ",+reserve-x18"
    return CpuTarget(triple, cpu, features.strip(","), lanes, registers, fma, name, tune)


# Vector registers of 128 bits, and whether there is a fused multiply-add.
_REGISTERS = {"aarch64": (32, True), "armv7": (16, True), "riscv64": (32, True), "wasm32": (16, False)}


@lru_cache(maxsize=1)
def host_target() -> CpuTarget:
    """The CPU that this process runs on, as LLVM detects it."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    architecture = llvm.get_process_triple().split("-", 1)[0]
    architecture = _OTHER_NAMES.get(architecture, architecture)
    triple = TRIPLES.get(architecture, llvm.get_process_triple())
    return make_target(triple, llvm.get_host_cpu_name(), features)


# Feature sets of the x86-64 psABI levels, as far as the code generator makes use of them.
_X86_V3 = "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+popcnt,+sse4.2,+xsave"
_AARCH64_V82 = "+v8.2a,+neon,+dotprod,+fullfp16"
_NAMED = {
    "x86_64": ("x86_64", "x86-64", "+sse2"),
    "x86_64-v3": ("x86_64", "x86-64-v3", _X86_V3),
    "x86_64-v4": ("x86_64", "x86-64-v4", f"{_X86_V3},+avx512bw,+avx512cd,+avx512dq,+avx512f,+avx512vl"),
    "aarch64": ("aarch64", "generic", "+neon"),
    "aarch64-v8.2": ("aarch64", "generic", _AARCH64_V82),
    "aarch64-v8.6": ("aarch64", "generic", f"{_AARCH64_V82},+i8mm,+bf16"),
    "armv7": ("armv7", "generic", "+v7,+neon,+vfp4,+hwdiv-arm,-thumb-mode"),
    "riscv64": ("riscv64", "generic-rv64", "+m,+a,+f,+d,+c,+v"),
    "wasm32": ("wasm32", "generic", "+simd128,+nontrapping-fptoint,+sign-ext,+bulk-memory"),
}
_LEVELS = {
    "x86_64-v3": "haswell broadwell skylake alderlake raptorlake znver1 znver2 znver3",
    "x86_64-v4": "skylake-avx512 cascadelake cooperlake icelake-client icelake-server tigerlake rocketlake "
    "sapphirerapids emeraldrapids graniterapids znver4 znver5",
    "aarch64": "cortex-a35 cortex-a53 cortex-a57 cortex-a72 cortex-a73 thunderx2t99 a64fx",
    "aarch64-v8.2": "cortex-a55 cortex-a75 cortex-a76 cortex-a77 cortex-a78 cortex-x1 neoverse-n1 apple-m1 "
    "tsv110",
    "aarch64-v8.6": "cortex-a510 cortex-a710 cortex-a715 cortex-a720 cortex-x2 cortex-x3 cortex-x4 "
    "neoverse-v1 neoverse-n2 neoverse-v2 apple-m2 apple-m3 apple-m4 ampere1",
    "armv7": "cortex-a7 cortex-a15 cortex-a17",
    "riscv64": "sifive-x280 sifive-p670 spacemit-x60 xt-c920v2",
}
"""CPUs by LLVM's names, and the level whose features they all have: their code uses exactly those."""
_CPUS = {
    f"{level.partition('-')[0]}:{cpu}": (level, cpu)
    for level, cpus in _LEVELS.items()
    for cpu in cpus.split()
}
# LLVM's back ends that order code for a CPU other than the one whose features it may use.
_TUNED = ("x86_64", "aarch64", "riscv64")


def target_names() -> list[str]:
    """Names of all levels, best of each architecture last; `cpu_names` has the CPUs."""
    return list(_NAMED)


def cpu_names() -> list[str]:
    """Names of the CPUs that code can be ordered for: "aarch64:cortex-a76" …"""
    return list(_CPUS)


def named_target(name: str) -> CpuTarget:
    """A target by name: "host", a level ("aarch64-v8.2"), or an architecture and a CPU
    ("aarch64:cortex-a76").

    Raises ValueError for an unknown name.
    """
    if name == "host":
        return host_target()
    level, tune = _CPUS.get(name, (name, ""))
    if level not in _NAMED:
        architecture = name.partition(":")[0]
        of = [cpu for cpu in _CPUS if cpu.startswith(architecture + ":")]
        known = of if ":" in name and of else ["host", *_NAMED, "ARCHITECTURE:CPU"]
        raise ValueError(f"unknown CPU target {name!r}; known are {', '.join(known)}")
    architecture, cpu, features = _NAMED[level]
    return make_target(TRIPLES[architecture], cpu, features, name, tune if architecture in _TUNED else "")
