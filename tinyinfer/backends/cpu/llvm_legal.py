"""Intrinsics that a target lacks, or that its back end in LLVM fails on, written out before LLVM sees the
text.

Printers use the intrinsics on every target. Where a row of the table says so, the declaration of one becomes
the definition of a function that is inlined.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tinyinfer.backends.cpu.target import CpuTarget

_DECLARED = re.compile(
    r"^declare (?P<type>.+?) @llvm\.(?P<name>\w+(?:\.sat)?)\.(?P<suffix>[\w.]+)\((?P<arguments>.*)\)$",
    re.MULTILINE,
)

_FLOATS = {"half": "f16", "float": "f32", "double": "f64"}


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


def _fma_in_halves(kind: str) -> str:
    """As `_fma_in_double`, of four singles in two halves: WebAssembly converts two numbers at a time. The
    back end finds that instruction only for halves in whole vectors, which nothing may look through."""
    lines = []
    for half, lanes in (("low", "i32 0, i32 1"), ("high", "i32 2, i32 3")):
        for x in "abc":
            part = f"shufflevector {kind} %{x}, {kind} poison, <2 x i32> <{lanes}>"
            lines.append(f"%{x}.{half} = {part}")
            lines.append(f"%{x}.{half}.wide = fpext <2 x float> %{x}.{half} to <2 x double>")
        lines += [
            f"%{half}.product = fmul <2 x double> %a.{half}.wide, %b.{half}.wide",
            f"%{half}.sum = fadd <2 x double> %{half}.product, %c.{half}.wide",
            f"%{half}.narrow = fptrunc <2 x double> %{half}.sum to <2 x float>",
            f"%{half}.four = shufflevector <2 x float> %{half}.narrow, <2 x float> zeroinitializer,"
            " <4 x i32> <i32 0, i32 1, i32 2, i32 3>",
            f'%{half} = call {kind} asm "", "=r,0"({kind} %{half}.four)',
        ]
    body = "\n  ".join(lines)
    return f"""({kind} %a, {kind} %b, {kind} %c) alwaysinline {{
  {body}
  %result = shufflevector {kind} %low, {kind} %high, <4 x i32> <i32 0, i32 1, i32 4, i32 5>
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


def _saturating(source: str, signed: bool) -> Callable[[str], str]:
    """Vectors of floats to integers, held within their range, NaN to 0, without a conversion that truncates.

    The nearest integer is one too far from zero where it is further away than the float. Conversions that
    take their rounding from the mode do that, and the mode is to nearest.
    """

    def write(kind: str) -> str:
        lanes, bits = (int(x) for x in re.match(r"<(\d+) x i(\d+)>", kind).groups())  # type: ignore[union-attr]
        if source != f"<{lanes} x float>" or bits > 32 or (bits == 32 and not signed):
            return _lane_by_lane(source, kind, signed)
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        most = high if bits < 32 else 2**31 - 128
        wide, boolean = f"<{lanes} x i32>", f"<{lanes} x i1>"
        narrow = (
            f"%result = trunc {wide} %exact to {kind}" if bits < 32 else f"%result = add {kind} %exact, %last"
        )
        return f"""({source} %x) alwaysinline {{
  %below = fcmp olt {source} %x, splat (float {low}.0)
  %raised = select {boolean} %below, {source} splat (float {low}.0), {source} %x
  %above = fcmp ogt {source} %raised, splat (float {most}.0)
  %held = select {boolean} %above, {source} splat (float {most}.0), {source} %raised
  %ordered = fcmp ord {source} %x, %x
  %number = select {boolean} %ordered, {source} %held, {source} zeroinitializer
  %nearest = call {wide} @llvm.lrint.v{lanes}i32.v{lanes}f32({source} %number)
  %rounded = sitofp {wide} %nearest to {source}
  %positive = fcmp ogt {source} %number, zeroinitializer
  %greater = fcmp ogt {source} %rounded, %number
  %less = fcmp olt {source} %rounded, %number
  %negative = xor {boolean} %positive, splat (i1 true)
  %down = and {boolean} %greater, %positive
  %up = and {boolean} %less, %negative
  %down.one = sext {boolean} %down to {wide}
  %up.one = zext {boolean} %up to {wide}
  %lowered = add {wide} %nearest, %down.one
  %exact = add {wide} %lowered, %up.one
  %last = select {boolean} %above, {wide} splat (i32 127), {wide} zeroinitializer
  {narrow}
  ret {kind} %result
}}
declare {wide} @llvm.lrint.v{lanes}i32.v{lanes}f32({source})"""

    return write


def _lane_by_lane(source: str, kind: str, signed: bool) -> str:
    lanes = int(re.match(r"<(\d+)", kind)[1])  # type: ignore[index]
    from_one, to_one = source.split(" x ")[1][:-1], kind.split(" x ")[1][:-1]
    name = f"@llvm.fpto{'s' if signed else 'u'}i.sat.{to_one}.{_FLOATS[from_one]}"
    lines = [f"({source} %x) alwaysinline {{"]
    for i in range(lanes):
        lines += [
            f"  %lane{i} = extractelement {source} %x, i32 {i}",
            f"  %one{i} = call {to_one} {name}({from_one} %lane{i})",
            f"  %to{i} = insertelement {kind} {f'%to{i - 1}' if i else 'poison'}, {to_one} %one{i}, i32 {i}",
        ]
    return "\n".join([*lines, f"  ret {kind} %to{lanes - 1}", "}", f"declare {to_one} {name}({from_one})"])


def _truncation(kind: str) -> str:
    """Toward zero: the floor of the magnitude, with the sign."""
    tail = _tail(kind)
    return f"""({kind} %x) alwaysinline {{
  %magnitude = call {kind} @llvm.fabs.{tail}({kind} %x)
  %floor = call {kind} @llvm.floor.{tail}({kind} %magnitude)
  %result = call {kind} @llvm.copysign.{tail}({kind} %floor, {kind} %x)
  ret {kind} %result
}}
declare {kind} @llvm.fabs.{tail}({kind})
declare {kind} @llvm.floor.{tail}({kind})
declare {kind} @llvm.copysign.{tail}({kind}, {kind})"""


def _tail(kind: str) -> str:
    lanes, element = re.match(r"<(\d+) x (\w+)>", kind).groups()  # type: ignore[union-attr]
    return f"v{lanes}{_FLOATS[element]}"


def _expansion(name: str, kind: str, arguments: str, target: CpuTarget) -> Callable[[str], str] | None:
    """How an intrinsic of a type is written out for a target, or None where LLVM does it well."""
    if name == "fma" and "float" in kind and not target.fma:
        halves = target.architecture == "wasm32" and kind == "<4 x float>"
        return _fma_in_halves if halves else _fma_in_double
    if "double" in kind and target.architecture == "armv7":
        # LLVM 22 crashes on them
        return {"maximum": _extreme("ogt", "and"), "minimum": _extreme("olt", "or")}.get(name)
    if target.architecture == "riscv64" and kind.startswith("<"):
        # vector conversions toward zero stop QEMU 7, where this code has to run too
        if name.endswith(".sat"):
            return _saturating(arguments, name == "fptosi.sat")
        if name == "trunc":
            return _truncation
    return None


def _declare_fma(text: str) -> Callable[[re.Match[str]], str]:
    """A declaration of fmuladd as one of fma, unless the module has that already."""

    def write(found: re.Match[str]) -> str:
        declaration = found[0].replace("@llvm.fmuladd.", "@llvm.fma.")
        return "" if declaration in text else declaration

    return write


_ON_HALVES = re.compile(
    r"^  (?P<result>\S+) = (?P<op>fcmp \w+|frem) (?P<kind>half|<\d+ x half>) (?P<a>[^,\n]+), (?P<b>[^,\n]+)$",
    re.MULTILINE,
)
_WIDENED = re.compile(
    r"^  (?P<result>\S+) = fpext (?P<kind>half|<\d+ x half>) (?P<value>.+) to (?P<wide>.+)$", re.MULTILINE
)


def _in_single(found: re.Match[str]) -> str:
    """A comparison or remainder of halves, which is the same of singles."""
    name, kind = found["result"], found["kind"]
    wide = kind.replace("half", "float")
    lines = [f"{name}.{side} = fpext {kind} {found[side]} to {wide}" for side in "ab"]
    result = f"{found['op']} {wide} {name}.a, {name}.b"
    if found["op"] == "frem":
        lines += [f"{name}.single = {result}", f"{name} = fptrunc {wide} {name}.single to {kind}"]
    else:
        lines.append(f"{name} = {result}")
    return "\n".join("  " + line for line in lines)


def _hidden(found: re.Match[str]) -> str:
    """A half as a single, or as a double by way of one, of which no pass sees that it was a half."""
    name, kind = found["result"], found["kind"]
    single = kind.replace("half", "float")
    lines = [f"{name}.half = fpext {kind} {found['value']} to {single}"]
    hide = f'call {single} asm "", "=r,0"({single} {name}.half)'
    if found["wide"] == single:
        lines.append(f"{name} = {hide}")
    else:
        lines += [f"{name}.single = {hide}", f"{name} = fpext {single} {name}.single to {found['wide']}"]
    return "\n".join("  " + line for line in lines)


def _converted_halves(text: str) -> str:
    """The module with halves that are only calculated with, and converted to singles and back.

    On wasm32 LLVM 22 crashes on comparisons of halves, does not come to an end on others, and passes a half
    in 64 bits where it is converted to double. Passes would make such of singles that they know for halves.
    """
    return _WIDENED.sub(_hidden, _ON_HALVES.sub(_in_single, text))


def legalise(text: str, target: CpuTarget) -> str:
    """The same module, with every intrinsic written out that the target is better without."""
    if target.fma and "@llvm.fmuladd." in text:
        # LLVM's own choice between one instruction and two is not to be left to it
        text = re.sub(r"^declare .*@llvm\.fmuladd\..*\n", _declare_fma(text), text, flags=re.MULTILINE)
        text = text.replace("@llvm.fmuladd.", "@llvm.fma.")
    if target.architecture == "wasm32":
        text = _converted_halves(text)
    for found in list(_DECLARED.finditer(text)):
        kind, name, suffix = found["type"], found["name"], found["suffix"]
        write = _expansion(name, kind, found["arguments"], target)
        if write is not None:
            definition, *needed = re.split(r"\n(?=declare )", write(kind))
            text = text.replace(found[0], f"define internal {kind} @{name}.{suffix}{definition}")
            text = text.replace(f"@llvm.{name}.{suffix}(", f"@{name}.{suffix}(")
            text = "\n".join([*(d for d in needed if d not in text), text])
    return text
