"""Intrinsics that a target lacks, or that its back end in LLVM fails on, written out before LLVM sees the
text.

Printers use the intrinsics on every target. Where a row of the table says so, the declaration of one becomes
the definition of a function that is inlined.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tinyinfer.backends.cpu.target import CpuTarget

_DECLARED = re.compile(r"^declare (?P<type>.+?) @llvm\.(?P<name>\w+)\.(?P<suffix>\w+)\(.*\)$", re.MULTILINE)


def _fma_in_double(kind: str) -> str:
    """a · b + c of singles. The product is exact and the sum has 53 bits, so that the error of a product
    comes out exactly; a result is rounded twice, which shows where the first one is half-way between two
    singles."""
    wide = kind.replace("float", "double")
    extended = "\n".join(f"  %{x}.wide = fpext {kind} %{x} to {wide}" for x in "abc")
    return f"""({kind} %a, {kind} %b, {kind} %c) alwaysinline {{
{extended}
  %product = fmul {wide} %a.wide, %b.wide
  %sum = fadd {wide} %product, %c.wide
  %result = fptrunc {wide} %sum to {kind}
  ret {kind} %result
}}"""


def _extreme(compare: str, merge: str) -> Callable[[str], str]:
    """The larger or smaller, NaN if one is NaN; of equal ones, which may be zeros of both signs, the bits
    joined."""

    def write(kind: str) -> str:
        integer = kind.replace("double", "i64")
        lanes = re.match(r"<(\d+) x", kind)
        boolean = f"<{lanes[1]} x i1>" if lanes else "i1"
        return f"""({kind} %a, {kind} %b) alwaysinline {{
  %beyond = fcmp {compare} {kind} %a, %b
  %equal = fcmp oeq {kind} %a, %b
  %unordered = fcmp uno {kind} %a, %b
  %a.bits = bitcast {kind} %a to {integer}
  %b.bits = bitcast {kind} %b to {integer}
  %joined.bits = {merge} {integer} %a.bits, %b.bits
  %joined = bitcast {integer} %joined.bits to {kind}
  %nan = fadd {kind} %a, %b
  %apart = select {boolean} %beyond, {kind} %a, {kind} %b
  %number = select {boolean} %equal, {kind} %joined, {kind} %apart
  %result = select {boolean} %unordered, {kind} %nan, {kind} %number
  ret {kind} %result
}}"""

    return write


def _expansion(name: str, kind: str, target: CpuTarget) -> Callable[[str], str] | None:
    """How an intrinsic of a type is written out for a target, or None where LLVM does it well."""
    if name == "fma" and "float" in kind and not target.fma:
        return _fma_in_double
    if "double" in kind and target.architecture == "armv7":
        # LLVM 22 crashes on them
        return {"maximum": _extreme("ogt", "and"), "minimum": _extreme("olt", "or")}.get(name)
    return None


def _declare_fma(text: str) -> Callable[[re.Match[str]], str]:
    """A declaration of fmuladd as one of fma, unless the module has that already."""

    def write(found: re.Match[str]) -> str:
        declaration = found[0].replace("@llvm.fmuladd.", "@llvm.fma.")
        return "" if declaration in text else declaration

    return write


def legalise(text: str, target: CpuTarget) -> str:
    """The same module, with every intrinsic written out that the target is better without."""
    if target.fma and "@llvm.fmuladd." in text:
        # LLVM's own choice between one instruction and two is not to be left to it
        text = re.sub(r"^declare .*@llvm\.fmuladd\..*\n", _declare_fma(text), text, flags=re.MULTILINE)
        text = text.replace("@llvm.fmuladd.", "@llvm.fma.")
    for found in list(_DECLARED.finditer(text)):
        kind, name, suffix = found["type"], found["name"], found["suffix"]
        write = _expansion(name, kind, target)
        if write is not None:
            text = text.replace(found[0], f"define internal {kind} @{name}.{suffix}{write(kind)}")
            text = text.replace(f"@llvm.{name}.{suffix}(", f"@{name}.{suffix}(")
    return text
