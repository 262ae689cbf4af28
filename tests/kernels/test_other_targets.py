"""Kernels for processors that this machine is not: LLVM accepts them, and they call no unknown function."""

import re

import pytest
from compiled import graph_of, plan_of
from random_graphs import GENERATORS, case

from tinyinfer.backends.cpu.compile import assembly
from tinyinfer.backends.cpu.target import named_target

LIBRARY = {
    "fma",
    "fmaf",
    "fmod",
    "fmodf",
    "memcpy",
    "memset",
    "memmove",
    "floor",
    "floorf",
    "ceil",
    "ceilf",
    "trunc",
    "truncf",
    "rint",
    "rintf",
    "roundeven",
    "roundevenf",
    "sqrt",
    "sqrtf",
    "fmaximum",
    "fminimum",
}


@pytest.mark.parametrize("target", ["aarch64", "x86_64-v3", "x86_64-v4"])
@pytest.mark.parametrize("name", GENERATORS)
def test_kernels_compile_and_are_self_contained(name, target):
    chosen = named_target(target)
    for seed in range(3):
        for launch in plan_of(graph_of(*case(name, seed).outputs), target=chosen).launches:
            listing = assembly(launch.kernel.text(), chosen)
            called = set(re.findall(r"^\s+(?:callq?|bl)\s+([\w.]+)", listing, re.MULTILINE))
            own = set(re.findall(r"^([\w.]+):", listing, re.MULTILINE))
            unknown = called - own - LIBRARY
            assert not unknown, f"{name} {seed} calls {unknown}"
