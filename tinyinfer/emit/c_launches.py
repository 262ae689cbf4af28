"""The launches of a plan as straight-line C: calls of kernels, and loops in braces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tinyinfer.backends.clike.writer import INDENT, Writer
from tinyinfer.emit.c_names import comment
from tinyinfer.emit.c_weights import Stored
from tinyinfer.runtime.plan import BufferRef, Launch, LoopLaunch, Moving


@dataclass(frozen=True)
class Memory:
    """How memory is called where launches stand: addresses of bytes, by number. `read` and `written` tell
    whether constness must be kept."""

    arena: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    parameters: Sequence[Stored]
    binary: str | None = None
    """The symbol of the binary weights; None: each tensor is an array."""

    def address(self, ref: BufferRef) -> str:
        """The address of a reference as a pointer to bytes."""
        if ref.space == "parameter":
            stored = self.parameters[ref.number]
            if self.binary is not None:
                return _plus(self.binary, stored.offset + ref.offset)
            return _plus(f"(const uint8_t *){stored.name}", ref.offset)
        if ref.space == "arena":
            return _plus(self.arena, ref.offset)
        return _plus((self.inputs if ref.space == "input" else self.outputs)[ref.number], ref.offset)

    def argument(self, ref: BufferRef) -> str:
        """The reference as an argument of a kernel."""
        if ref.space == "parameter" and self.binary is None:
            stored = self.parameters[ref.number]
            place = ref.offset // stored.array.itemsize
            return f"{stored.name} + {place}" if place else stored.name
        found = re.fullmatch(r"\((?:const )?uint8_t \*\)(\w+)", self.address(ref))
        if found:
            return found[1]
        constant = "const " if ref.space in ("input", "parameter") else ""
        address = self.address(ref)
        return f"({constant}void *){address if address.isidentifier() else f'({address})'}"


def _plus(base: str, offset: int) -> str:
    return f"{base} + {offset}" if offset else base


class LaunchWriter:
    """Writes launches; names of loops' variables are counted over the whole function."""

    def __init__(self, w: Writer):
        self.w = w

    def launches(self, launches: Sequence[Launch], memory: Memory) -> None:
        """Calls in order."""
        for launch in launches:
            self.w.do(f"/* {comment(launch.title)} */")
            if launch.loop is not None:
                self._loop(launch.loop, memory)
            else:
                self.w.do(f"{launch.kernel.name}({', '.join(memory.argument(a) for a in launch.arguments)});")

    def _loop(self, loop: LoopLaunch, memory: Memory) -> None:
        w = self.w
        number = w.name("")
        step, limit, going = f"step{number}", f"limit{number}", f"going{number}"
        cursors: list[tuple[str, Moving]] = []
        inputs = [self._place(x, memory, f"from{number}_{i}", cursors) for i, x in enumerate(loop.inputs)]
        outputs = [self._place(x, memory, f"to{number}_{i}", cursors) for i, x in enumerate(loop.outputs)]
        after = [
            (to, self._place(x, memory, f"last{number}_{i}", cursors), size)
            for i, (to, x, size) in enumerate(loop.after)
        ]
        inner = Memory(memory.address(loop.arena), inputs, outputs, memory.parameters, memory.binary)
        with w.block():
            first = len(w.lines)
            for ref, size in loop.cleared:
                w.do(f"memset({memory.address(ref)}, 0, {size});")
            for to, source, size in loop.before:
                w.do(f"memcpy({memory.address(to)}, {memory.address(source)}, {size});")
            w.do(f"{'const ' if loop.count is None else ''}int64_t {limit} = INT64_C({loop.steps});")
            if loop.count is not None:
                count = self._read("int64_t", memory.address(loop.count))
                w.do(f"{limit} = {count} < {limit} ? {count} : {limit};")
            if loop.enter is not None or loop.go_on is not None:
                entered = f"*({memory.address(loop.enter)}) != 0" if loop.enter is not None else "true"
                w.do(f"bool {going} = {entered};")
                condition = f"{step} < {limit} && {going}"
            else:
                condition = f"{step} < {limit}"
            w.do(f"int64_t {step} = 0;")
            with w.block(f"for (; {condition}; ++{step})"):
                w.do(f"*(int64_t *)(void *)({memory.address(loop.iteration)}) = {step};")
                self.launches(loop.launches, inner)
                body = "\n".join(w.lines[first:]) + " ".join(place for _, place, _ in after)
                used = [(n, m) for n, m in cursors if re.search(rf"\b{n}\b", body)]
                for name, moving in used:
                    w.do(f"{name} += {_advance(moving, step)};")
                if loop.go_on is not None:
                    w.do(f"{going} = *({memory.address(loop.go_on)}) != 0;")
            for to, place, size in after:
                w.do(f"memcpy({memory.address(to)}, {place}, {size});")
            if loop.done is not None:
                w.do(f"*(int64_t *)(void *)({memory.address(loop.done)}) = {step};")
            heads = [f"{INDENT * w.depth}ptrdiff_t {name} = 0;" for name, _ in used]
            w.lines[first:first] = heads

    def _place(self, x: Moving, memory: Memory, name: str, cursors: list[tuple[str, Moving]]) -> str:
        """The address of a place that moves: where it begins, and a variable that `cursors` gets."""
        if not (x.even or x.odd):
            return memory.address(x.ref)
        cursors.append((name, x))
        return f"{memory.address(x.ref)} + {name}"

    def _read(self, kind: str, address: str) -> str:
        return f"*(const {kind} *)(const void *)({address})"


def _advance(moving: Moving, step: str) -> str:
    if moving.even == moving.odd:
        return str(moving.even)
    return f"({step} % 2 == 0) ? {moving.even} : {moving.odd}"
