"""A plan as portable C11: a header, a source file with kernels and launches, and the weights.

The code allocates nothing, prints nothing, and needs the C library's mathematical functions, memcpy and
memset only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from tinyinfer.backends.clike.c11 import C11
from tinyinfer.backends.clike.printer import GENERAL, CPrinter
from tinyinfer.backends.clike.writer import Writer
from tinyinfer.config import CompileOptions
from tinyinfer.emit.c_launches import LaunchWriter, Memory
from tinyinfer.emit.c_names import comment, distinct, identifier
from tinyinfer.emit.c_weights import Weights, numbers
from tinyinfer.ir.node import Graph
from tinyinfer.kernels.plan import build_plan
from tinyinfer.kernels.schedule import MachineModel
from tinyinfer.runtime.plan import KernelSource, Launch, Plan, TensorSpec, kernel_sources

ALIGNMENT = 64
"""Of the arena, in bytes."""


@dataclass(frozen=True)
class COptions:
    """How a model is written.

    `weights`: "array" for a C file with arrays, "binary" for a file of bytes that an assembler file links.
    `arena`: "static" for an array of the source file, "caller" for memory that the caller passes at each run.
    """

    weights: str = "array"
    arena: str = "static"

    def __post_init__(self) -> None:
        if self.weights not in ("array", "binary"):
            raise ValueError(f"weights of C are 'array' or 'binary', not {self.weights!r}")
        if self.arena not in ("static", "caller"):
            raise ValueError(f"the arena of C is 'static' or 'caller', not {self.arena!r}")


@dataclass(frozen=True)
class CSource:
    """Files by name, and the bytes that are known without a compiler: of static memory, of the arena (the
    same memory, if it is static) and of weights."""

    files: Mapping[str, str | bytes]
    ram_bytes: int
    arena_bytes: int
    weight_bytes: int


def plan_for_c(graph: Graph, options: CompileOptions, machine: MachineModel = GENERAL) -> Plan:
    """The plan of a graph whose kernels are printed as C11."""
    from tinyinfer.ir.passes import optimize
    from tinyinfer.ir.passes.storage_types import use_storage_types

    return build_plan(optimize(use_storage_types(graph)), CPrinter(machine), options)


def emit_c(
    plan: Plan,
    name: str = "model",
    options: COptions | None = None,
    about: str = "",
    fixed: Mapping[str, np.ndarray] | None = None,
) -> CSource:
    """The sources of a plan that `plan_for_c` made.

    `name` begins the names of files and symbols, made a valid C name where it is none; `about` is a line that
    says in the header what the model is. Values of types that C lacks are passed as their bits (float16 as
    uint16_t), bools as bytes of 0 or 1. `fixed` gives the values of inputs that the plan was made for; the
    code refuses others.
    """
    return _Emitter(plan, identifier(name, "model"), options or COptions(), about, fixed or {}).source()


class _Emitter:
    def __init__(self, plan: Plan, name: str, options: COptions, about: str, fixed: Mapping[str, np.ndarray]):
        self.plan, self.name, self.options, self.about = plan, name, options, about
        self.types = C11.types
        self.weights = Weights(plan.parameters, self.types, name)
        specs = [*plan.inputs, *plan.outputs]
        kernels = [s.name for s in kernel_sources(plan.launches).values()]
        names = distinct((s.name for s in specs), ["arena", f"{name}_run", *kernels])
        self.inputs, self.outputs = names[: len(plan.inputs)], names[len(plan.inputs) :]
        self.fixed = {
            c: np.ascontiguousarray(fixed[s.name]) for s, c in zip(plan.inputs, names) if s.name in fixed
        }
        self.static = options.arena == "static" and plan.arena_bytes > 0
        self.macro = name.upper()

    def source(self) -> CSource:
        files: dict[str, str | bytes] = {f"{self.name}.h": self._header(), f"{self.name}.c": self._code()}
        if self.weights.tensors:
            if self.options.weights == "array":
                files[f"{self.name}_weights.c"] = self.weights.source()
            else:
                files[f"{self.name}_weights.bin"] = self.weights.binary()
                files[f"{self.name}_weights.S"] = self.weights.assembly(f"{self.name}_weights.bin")
        arena = self.plan.arena_bytes
        return CSource(files, arena if self.static else 0, arena, self.weights.total)

    # ---- the header

    def _header(self) -> str:
        m, guard = self.macro, f"{self.macro}_H"
        arena = self.plan.arena_bytes
        lines = [f"/* {comment(self.about) or self.name}, compiled by tinyinfer to C11. */", ""]
        lines += [f"#ifndef {guard}", f"#define {guard}", "", "#include <stdint.h>", ""]
        lines += ["#ifdef __cplusplus", 'extern "C" {', "#endif", ""]
        lines += ["/* Bytes of the arena that intermediate values lie in. */"]
        lines += [f"#define {m}_ARENA_BYTES {arena}"]
        lines += ["/* Bytes of static memory that is written (.data and .bss). */"]
        lines += [f"#define {m}_RAM_BYTES {arena if self.static else 0}"]
        lines += ["/* Bytes of constant tensors; what the code itself takes depends on the compiler. */"]
        lines += [f"#define {m}_WEIGHT_BYTES {self.weights.total}", ""]
        for kind, specs, names in self._values():
            for spec, name in zip(specs, names):
                lines += [f'/* {kind} "{comment(spec.name)}": {_type_text(spec)}. Number of elements. */']
                lines += [f"#define {m}_{kind.upper()}_{name.upper()}_SIZE {prod(spec.shape)}"]
        lines += ["", "enum {", f"    {m}_OK = 0,", f"    {m}_NULL_POINTER = 1,"]
        lines += [f"    {m}_MISALIGNED_ARENA = 2,", f"    {m}_OTHER_VALUE = 3", "};", ""]
        lines += [f"/* Run the model once. Returns {m}_OK, or what is wrong with the arguments.", " *"]
        if self._arena_passed():
            lines.append(f" * arena: {m}_ARENA_BYTES bytes of any content at a multiple of {ALIGNMENT}.")
        for kind, specs, names in self._values():
            lines += [f" * {n}: {kind}, {_type_text(s)}, row-major." for s, n in zip(specs, names)]
        lines += [f" * {n} must have the value that the model was compiled for." for n in self.fixed]
        lines += [" * Inputs are only read; no two arguments may overlap."]
        if self.static:
            lines.append(" * Intermediate values lie in static memory: one run at a time.")
        lines += [" */", f"int {self._signature()};", ""]
        lines += ["#ifdef __cplusplus", "}", "#endif", "", "#endif", ""]
        return "\n".join(lines)

    def _values(self) -> list[tuple[str, list[TensorSpec], list[str]]]:
        return [("input", self.plan.inputs, self.inputs), ("output", self.plan.outputs, self.outputs)]

    def _arena_passed(self) -> bool:
        return self.options.arena == "caller" and self.plan.arena_bytes > 0

    def _signature(self) -> str:
        parameters = ["void *arena"] if self._arena_passed() else []
        for spec, name in zip(self.plan.inputs, self.inputs):
            parameters.append(f"const {self.types[spec.dtype].memory} *{name}")
        for spec, name in zip(self.plan.outputs, self.outputs):
            parameters.append(f"{self.types[spec.dtype].memory} *{name}")
        return f"{self.name}_run({', '.join(parameters) or 'void'})"

    # ---- the source file

    def _code(self) -> str:
        kernels = [self._kernel(s) for s in kernel_sources(self.plan.launches).values()]
        run = self._run()
        text = "\n\n".join(k for k in kernels if k)
        binary = self.options.weights == "binary"
        symbols = [f"extern const uint8_t {self.name}_weights[];"] if binary else self.weights.declarations()
        arena = f"static _Alignas({ALIGNMENT}) uint8_t arena[{self.name.upper()}_ARENA_BYTES];"
        parts = [
            f'#include "{self.name}.h"',
            "\n".join(f"#include <{h}.h>" for h in ("math", "stdbool", "stddef", "stdint", "string")),
            _PRECONDITIONS,
            "\n".join(symbols) if self.weights.tensors else "",
            arena if self.static else "",
            helpers(text),
            text,
            run,
        ]
        return "\n\n".join(p for p in parts if p) + "\n"

    def _kernel(self, source: KernelSource) -> str:
        text = source.text()
        if not text:
            return ""
        users = [x for x in _all_launches(self.plan.launches) if x.kernel.key == source.key]
        nodes = dict.fromkeys(n for x in users for n in x.origin)
        shown = _wrapped([comment(n) for n in nodes])
        return f"/* {shown} */\n{text}" if nodes else text

    def _run(self) -> str:
        w = Writer("int32_t")
        passed = ["arena"] if self._arena_passed() else []
        checks = [f"{n} == NULL" for n in (*passed, *self.inputs, *self.outputs)]
        if checks:
            with w.block(f"if ({' || '.join(checks)})"):
                w.do(f"return {self.macro}_NULL_POINTER;")
        if self._arena_passed():
            with w.block(f"if ((uintptr_t)arena % {ALIGNMENT} != 0)"):
                w.do(f"return {self.macro}_MISALIGNED_ARENA;")
        for name, array in self.fixed.items():
            kind = self.types[array.dtype.name].memory
            w.do(f"static const {kind} {name}_fixed[] = {{{', '.join(numbers(array.reshape(-1)))}}};")
            with w.block(f"if (memcmp({name}, {name}_fixed, sizeof {name}_fixed) != 0)"):
                w.do(f"return {self.macro}_OTHER_VALUE;")
        memory = Memory(
            "(uint8_t *)arena" if self._arena_passed() else "arena",
            [f"(const uint8_t *){n}" for n in self.inputs],
            [f"(uint8_t *){n}" for n in self.outputs],
            self.weights.of_parameter,
            f"{self.name}_weights" if self.options.weights == "binary" else None,
        )
        LaunchWriter(w).launches(self.plan.launches, memory)
        w.do(f"return {self.macro}_OK;")
        return "\n".join([f"int {self._signature()} {{", *w.lines, "}"])


_PRECONDITIONS = """\
#if defined(__FAST_MATH__)
#error "this file needs IEEE arithmetic: compile it without -ffast-math"
#endif
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off", "no-math-errno", "no-trapping-math")
#if defined(__OPTIMIZE__) && !defined(__OPTIMIZE_SIZE__)
/* -O3 would unroll the inner loops before it looks for vectors; this makes vectors of them first. */
#pragma GCC optimize("O2", "tree-vectorize", "vect-cost-model=dynamic", "peel-loops")
#endif
#endif"""


def helpers(text: str) -> str:
    """The definitions of the helper functions that C text refers to."""
    wanted: list[str] = []
    needed = set(re.findall(rf"\b{C11.helper_prefix}\w+", text))
    for name, definition in reversed(list(C11.helpers.items())):
        if name in needed:
            wanted.append(definition)
            needed |= set(re.findall(rf"\b{C11.helper_prefix}\w+", definition))
    return "\n\n".join(reversed(wanted))


def _all_launches(launches: list[Launch] | tuple[Launch, ...]) -> list[Launch]:
    found = []
    for launch in launches:
        found.append(launch)
        if launch.loop is not None:
            found += _all_launches(launch.loop.launches)
    return found


def _type_text(spec: TensorSpec) -> str:
    return f"{spec.dtype} [{', '.join(map(str, spec.shape))}]"


def _wrapped(names: list[str]) -> str:
    lines, line = [], ""
    for name in names:
        if line and len(line) + len(name) > 100:
            lines.append(line)
            line = ""
        line = f"{line}, {name}" if line else name
    return ",\n   ".join([*lines, line])
