"""Architectures and the features of their processors, as numbers that a bundle keeps (docs/bundle.md)."""

from __future__ import annotations

from dataclasses import dataclass

ARCHITECTURES = {"x86_64": 1, "aarch64": 2, "armv7": 3, "riscv64": 4, "wasm32": 5, "opencl": 16}
"""A bundle's number of an architecture, by the project's name of it. "opencl" is source for any processor's
OpenCL device."""

POINTER_BYTES = {"x86_64": 8, "aarch64": 8, "armv7": 4, "riscv64": 8, "wasm32": 4}

FEATURES: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "x86_64": (
        (
            "the x86-64-v3 level (AVX2, FMA, F16C, BMI)",
            ("avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe"),
        ),
        (
            "the x86-64-v4 level (AVX-512 F, BW, CD, DQ, VL)",
            ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
        ),
        ("AVX512-VNNI", ("avx512vnni",)),
        ("AVX512-BF16", ("avx512bf16",)),
        ("AVX-VNNI", ("avxvnni",)),
        ("AVX512-FP16", ("avx512fp16",)),
    ),
    "aarch64": (
        ("Advanced SIMD", ("neon",)),
        ("half precision arithmetic (FEAT_FP16)", ("fullfp16",)),
        ("dot products (FEAT_DotProd)", ("dotprod",)),
        ("8-bit matrix products (FEAT_I8MM)", ("i8mm",)),
        ("bfloat16 (FEAT_BF16)", ("bf16",)),
        ("SVE", ("sve",)),
        ("SVE2", ("sve2",)),
    ),
    "armv7": (("NEON", ("neon",)), ("VFPv4", ("vfp4",)), ("integer division", ("hwdiv-arm",))),
    "riscv64": (
        ("the vector extension V 1.0", ("v",)),
        ("Zvfh", ("zvfh",)),
        ("Zba", ("zba",)),
        ("Zbb", ("zbb",)),
    ),
    "wasm32": (("simd128", ("simd128",)), ("relaxed-simd", ("relaxed-simd",))),
    "opencl": (
        ("float64 (cl_khr_fp64)", ("cl_khr_fp64",)),
        ("half precision arithmetic (cl_khr_fp16)", ("cl_khr_fp16",)),
        ("images", ("images",)),
        ("sub-groups (cl_khr_subgroups)", ("cl_khr_subgroups",)),
    ),
}
"""Each feature's bit is its place in the row: its name in words, and LLVM's names of what it takes
(OpenCL's of extensions). Code that
uses any of these needs the bit; a machine that has all of them offers it."""


@dataclass(frozen=True)
class Needs:
    """What code needs of a machine: numbers of the tables above; `name` is the target's."""

    name: str
    architecture: int
    pointer_bytes: int
    features: int


def architecture_name(number: int) -> str:
    """The project's name of an architecture, or its number in words."""
    names = {code: name for name, code in ARCHITECTURES.items()}
    return names.get(number, f"architecture {number}")


def required_bits(architecture: str, features: frozenset[str]) -> int:
    """The bits of all features that code using these of LLVM's needs."""
    rows = FEATURES.get(architecture, ())
    return sum(1 << bit for bit, (_, names) in enumerate(rows) if features.intersection(names))


def offered_bits(architecture: str, features: frozenset[str]) -> int:
    """The bits of all features that a machine with these of LLVM's has."""
    rows = FEATURES.get(architecture, ())
    return sum(1 << bit for bit, (_, names) in enumerate(rows) if features.issuperset(names))


def feature_names(architecture: str, bits: int) -> list[str]:
    """Those bits in words."""
    rows = FEATURES.get(architecture, ())
    known = [name for bit, (name, _) in enumerate(rows) if bits >> bit & 1]
    return known + [f"feature {bit}" for bit in range(len(rows), 64) if bits >> bit & 1]
