"""Relocatable objects joined into one WebAssembly module.

Functions of kernels are called `k0`, `k1`, … in the order of the objects. A module of kernels imports
memory and stack, whose place the loader chooses; a program has them itself (`Memory`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tinyinfer.backends.cpu.image import LinkError
from tinyinfer.backends.cpu.wasm import binary
from tinyinfer.backends.cpu.wasm.objects import (
    FUNCTION_INDEX,
    GLOBAL_INDEX,
    PADDED,
    TABLE_NUMBER,
    TYPE_INDEX,
    Function,
    WasmObject,
    parse_object,
)

PAGE = 1 << 16
"""Bytes of a WebAssembly memory's unit."""

Support = Callable[[str], bytes]
"""The object that defines a function which generated code calls, by the function's name."""

RUN_TEXT = """
define void @run(ptr %kernel, ptr %arguments, i32 %chunks) #0 {
entry:
  %count = zext i32 %chunks to i64
  br label %check
check:
  %chunk = phi i64 [0, %entry], [%next, %part]
  %more = icmp ult i64 %chunk, %count
  br i1 %more, label %part, label %out
part:
  call void %kernel(ptr %arguments, i64 %chunk)
  %next = add i64 %chunk, 1
  br label %check
out:
  ret void
}
attributes #0 = { nounwind "no-builtins" }
"""
"""All chunks of a launch in one call: 64-bit numbers are slow to hand over from JavaScript. In WebAssembly a
pointer to a function is its number in the table."""


@dataclass(frozen=True)
class Memory:
    """A module's own memory: its size in pages, where its stack begins (it grows downwards), and what it
    holds at first, by address."""

    pages: int
    stack_top: int
    data: Sequence[tuple[int, bytes]]


def link_kernels(objects: Sequence[tuple[str, bytes]], run: bytes, support: Support) -> bytes:
    """A module of kernels, for a loader that lays out the memory.

    `objects[i]` are the name that errors use and the object of kernel i, `run` is that of `RUN_TEXT`. The
    module imports the memory `env.memory` and the mutable i32 `env.stack_pointer`. It exports for every
    kernel `k<i>(arguments: i32, chunk: i64)`, and `run(kernel: i32, arguments: i32, chunks: i32)`, which runs
    the chunks 0 … chunks - 1 of one.
    Raises LinkError for an object that is not such as LLVM makes of kernels.
    """
    joined = _Joined(objects, run, support)
    kernels = range(len(objects))
    return joined.module({name: joined.names[name] for name in ["run", *(f"k{i}" for i in kernels)]}, kernels)


def link_program(
    objects: Sequence[tuple[str, bytes]],
    main: bytes,
    support: Support,
    memory: Memory,
    notes: Mapping[str, bytes],
) -> bytes:
    """A module that imports nothing: `main` defines the function `run()`, which calls the kernels `k<i>` of
    `objects`.

    It exports `memory` and `run`. `notes` become custom sections.
    """
    joined = _Joined(objects, main, support)
    return joined.module({"run": joined.names["run"]}, (), memory, notes)


class _Joined:
    """Functions of several objects, numbered in order: kernels `k<i>`, then `run`, then what those call."""

    def __init__(self, objects: Sequence[tuple[str, bytes]], run: bytes, support: Support):
        self.objects: list[WasmObject] = []
        self.bases: list[int] = []
        self.names: dict[str, int] = {}
        self._count = 0
        for number, (title, data) in enumerate(objects):
            self._add(data, f"k{number}", title)
        self._add(run, "run", "run")
        done = 0
        while done < len(self.objects):
            for needed in sorted(self.objects[done].called() - self.names.keys()):
                self._add(support(needed), needed, needed)
            done += 1

    def _add(self, data: bytes, name: str, title: str) -> None:
        try:
            item = parse_object(data)
        except binary.WasmFormatError as error:
            raise LinkError(f"{title}: {error}") from error
        defined = item.defined()
        if len(defined) != 1:
            raise LinkError(f"{title}: its object defines {', '.join(sorted(defined))}, not one function")
        self.objects.append(item)
        self.bases.append(self._count)
        self.names[name] = self._count + next(iter(defined.values()))
        self._count += len(item.functions)

    def module(
        self,
        exports: Mapping[str, int],
        table: Sequence[int],
        memory: Memory | None = None,
        notes: Mapping[str, bytes] | None = None,
    ) -> bytes:
        """The module's bytes. The functions of kernels `table` are those that pointers number."""
        types: dict[bytes, int] = {}
        signatures: list[bytes] = []
        bodies: list[bytes] = []
        for item, base in zip(self.objects, self.bases):
            numbers = [types.setdefault(x, len(types)) for x in item.types]
            for function in item.functions:
                signatures.append(binary.unsigned(numbers[function.type]))
                bodies.append(binary.block(self._code(item, base, function, numbers)))
        entries = [self.names[f"k{i}"] for i in table]
        exported = [
            binary.name(name) + bytes([binary.FUNCTION_KIND]) + binary.unsigned(number)
            for name, number in exports.items()
        ]
        stack = bytes([binary.I32, 1])
        imports, memories, globals_, segments = [], [], [], []
        if memory is None:
            for name, what in (
                ("memory", bytes([binary.MEMORY_KIND, 0, 1])),
                ("stack_pointer", bytes([binary.GLOBAL_KIND]) + stack),
            ):
                imports.append(binary.name("env") + binary.name(name) + what)
        else:
            memories.append(b"\0" + binary.unsigned(memory.pages))
            globals_.append(stack + binary.constant(memory.stack_top))
            exported.append(binary.name("memory") + bytes([binary.MEMORY_KIND, 0]))
            segments = [b"\0" + binary.constant(at) + binary.block(data) for at, data in memory.data]
        tables, elements = [], []
        if entries:
            size = binary.unsigned(len(entries))
            tables.append(bytes([binary.FUNCREF, 1]) + size + size)
            numbers_of = binary.vector([binary.unsigned(x) for x in entries])
            elements.append(b"\0" + binary.constant(0) + numbers_of)
        sections = (
            (binary.TYPE, list(types)),
            (binary.IMPORT, imports),
            (binary.FUNCTION, signatures),
            (binary.TABLE, tables),
            (binary.MEMORY, memories),
            (binary.GLOBAL, globals_),
            (binary.EXPORT, exported),
            (binary.ELEMENT, elements),
            (binary.CODE, bodies),
            (binary.DATA, segments),
        )
        custom = [
            bytes([binary.CUSTOM]) + binary.block(binary.name(name) + data)
            for name, data in (notes or {}).items()
        ]
        return binary.MAGIC + b"".join([*custom, *(binary.section(n, items) for n, items in sections)])

    def _code(self, item: WasmObject, base: int, function: Function, types: list[int]) -> bytes:
        """The function's code with its numbers filled in, as short as they are."""
        parts = []
        at = 0
        for r in function.relocations:
            if r.kind == TYPE_INDEX:
                value = types[r.index]
            elif r.kind in (GLOBAL_INDEX, TABLE_NUMBER):
                value = 0
            else:
                assert r.kind == FUNCTION_INDEX
                symbol = item.symbols[r.index]
                value = (
                    self.names[symbol.name] if symbol.undefined else base + symbol.index - len(item.imports)
                )
            parts += [function.code[at : r.offset], binary.unsigned(value)]
            at = r.offset + PADDED
        return b"".join([*parts, function.code[at:]])
