"""A loop as one kernel of work-items: the kernels of its body as functions, between barriers.

A phase without barriers of its own spreads its work-items over all that there are. One with barriers keeps
its groups, which have as many work-items as the kernel's; those that share a group's local memory follow each
other in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

from tinyinfer.backends.clike.writer import Writer
from tinyinfer.kernels.whole_loop import WholeLoop, items_of
from tinyinfer.runtime.plan import BufferRef, Launch, Moving

_HEAD = re.compile(r"__kernel __attribute__\(\(reqd_work_group_size\([\d, ]+\)\)\) void (\w+)\((.*)\) \{")
_LOCAL = re.compile(r"^( *)__local (\w+) (\w+)((?:\[\d+\])+);$", re.MULTILINE)
_ID = re.compile(r"get_(global|group|local)_id\((\d)\)")

_SIZES = {"char": 1, "short": 2, "half": 2, "int": 4, "float": 4, "long": 8, "double": 8}
_POOL_UNIT = 16

BARRIER = "barrier(CLK_GLOBAL_MEM_FENCE | CLK_LOCAL_MEM_FENCE);"
PARAMETERS = "const int3 global_, const int3 group_, const int3 local_"
POOL = "pool"


@dataclass(frozen=True)
class Phase:
    """A kernel as a function of where a work-item stands, of local memory, of which it uses `local_bytes`,
    and of its own parameters; `meets` says that it has barriers."""

    text: str
    local_bytes: int
    meets: bool


def phase_of(kernel: str, name: str) -> Phase:
    """A kernel's text as the function `name`.

    What it reads may have been written by the same kernel, and what it writes be read by it: it must not take
    its arguments for the only way to their memory.
    """
    head = _HEAD.match(kernel)
    assert head is not None, "kernels of work-items begin with their head"
    meets = "barrier(" in kernel
    used = 0

    def share(found: re.Match[str]) -> str:
        nonlocal used
        indent, kind, array, sizes = found.groups()
        first, rest = sizes.partition("]")[0][1:], sizes.partition("]")[2]
        pointer = f"(*{array}){rest}" if rest else f"*{array}"
        cast = f"(__local {kind} (*){rest})" if rest else f"(__local {kind} *)"
        text = f"{indent}__local {kind} {pointer} = {cast}({POOL} + {used});"
        size = _bytes_of(kind) * int(first) * prod(int(n) for n in re.findall(r"\d+", rest))
        used += -(-size // _POOL_UNIT) * _POOL_UNIT
        return text

    body = _LOCAL.sub(share, kernel[head.end() :])
    body = _ID.sub(lambda m: f"{m[1]}_.s{m[2]}", body)
    parameters = head[2].replace(" *restrict ", " *")
    text = f"static void {name}({PARAMETERS}, __local uchar *{POOL}, {parameters}) {{{body}"
    return Phase(text, used, meets)


def _bytes_of(kind: str) -> int:
    """Bytes of a type, which may be a vector."""
    found = re.fullmatch(r"u?([a-z]+)(\d*)", kind)
    assert found is not None
    return _SIZES[found[1]] * int(found[2] or 1)


def fits(launches: tuple[Launch, ...], size: int, local_bytes: int) -> bool:
    """Whether kernels can be phases of groups of `size` work-items with so much local memory."""
    for launch in launches:
        if launch.work is None or any(ref.space == "image" for ref in launch.arguments):
            return False
        phase = phase_of(launch.kernel.text(), "phase")
        if phase.local_bytes > local_bytes or (phase.meets and prod(launch.work.group) != size):
            return False
        if items_of(launch) >= 1 << 31:
            return False
    return True


class ItemLoopPrinter:
    """Prints one loop as the kernel `name`."""

    def __init__(self, name: str, whole: WholeLoop):
        self.name, self.whole, self.loop = name, whole, whole.loop
        self.w = Writer("int")
        self.items = whole.groups * whole.size
        self.phases = [phase_of(x.kernel.text(), f"{name}_{i}") for i, x in enumerate(whole.loop.launches)]

    def text(self) -> str:
        """The functions and the kernel."""
        whole, loop, w = self.whole, self.loop, self.w
        pool = max(p.local_bytes for p in self.phases) if self.phases else 0
        if pool:
            w.do(f"__local float4 {POOL}_[{pool // _POOL_UNIT}];")
        w.do(f"__local uchar *{POOL} = {f'(__local uchar *){POOL}_' if pool else '0'};")
        for i in range(whole.arguments):
            w.do(f"a{i} += a{i}_at;")
        w.do("const int member = (int)get_local_id(0), item = (int)get_global_id(0);")
        if whole.meeting is not None:
            w.do("uint meetings = 0;")
        for target, size in loop.cleared:
            self._fill(target, size)
        for target, source, size in loop.before:
            self._copy(self._place(target), self._place(source), size, (target.offset, source.offset))
        self._meet()
        self._iterations()
        w.do("const int evens = (number + 1) / 2, odds = number / 2;")
        for target, moved, size in loop.after:
            steps = (target.offset, moved.ref.offset, moved.even, moved.odd)
            self._copy(self._place(target), self._moved(moved), size, steps)
        if loop.done is not None:
            w.do(f"if (item == 0) *(__global long *)({self._place(loop.done)}) = number;")
        if whole.meeting is not None:
            w.do(f"ti_part(a{whole.meeting}, {whole.groups});")
        parameters = ", ".join(f"__global uchar *a{i}, const ulong a{i}_at" for i in range(whole.arguments))
        group = f"__attribute__((reqd_work_group_size({whole.size}, 1, 1)))"
        head = f"__kernel {group} void {self.name}({parameters})"
        functions = [p.text for p in self.phases]
        return "\n\n".join([*functions, "\n".join([f"{head} {{", *w.lines, "}"])])

    # ---- iterations

    def _iterations(self) -> None:
        loop, w = self.loop, self.w
        w.do("int number = 0;")
        going = []
        if loop.count is not None:
            w.do(f"const long count = *(const __global long *)({self._place(loop.count)});")
            going.append("number < count")
        if loop.enter is not None:
            w.do(f"bool going = *({self._place(loop.enter)}) != 0;")
            going.append("going")
        with w.block(f"for (; {' && '.join([f'number < {loop.steps}', *going])}; ++number)"):
            w.do("const int evens = (number + 1) / 2, odds = number / 2;")
            if any(r.space == "input" and r.number == 0 for x in loop.launches for r in x.arguments):
                w.do(f"if (item == 0) *(__global long *)({self._place(loop.iteration)}) = number;")
                self._meet()
            for position, (launch, phase) in enumerate(zip(loop.launches, self.phases)):
                if position and launch.waits:
                    self._meet()
                self._phase(f"{self.name}_{position}", launch, phase)
            self._meet()
            if loop.go_on is not None:
                w.do(f"going = *({self._place(loop.go_on)}) != 0;")
                self._meet()

    def _phase(self, function: str, launch: Launch, phase: Phase) -> None:
        w, work = self.w, launch.work
        assert work is not None
        arguments = ", ".join(f"(__global void *)({self._place(r)}), 0" for r in launch.arguments)
        if phase.meets:
            blocks = tuple(t // g for t, g in zip(work.total, work.group))
            start, count, step = f"item / {self.whole.size}", prod(blocks), self.whole.groups
            with w.block(f"for (int v = {start}; v < {count}; v += {step})"):
                w.do(f"const int3 b = {_split('v', blocks)}, m = {_split('member', work.group)};")
                at = f"b * {_triple(work.group)} + m, b, m"
                w.do(f"{function}({at}, {POOL}, {arguments});")
                w.do("barrier(CLK_LOCAL_MEM_FENCE);")
            return
        with w.block(f"for (int v = item; v < {prod(work.total)}; v += {self.items})"):
            w.do(f"const int3 i = {_split('v', work.total)};")
            at = f"i, i / {_triple(work.group)}, i % {_triple(work.group)}"
            w.do(f"{function}({at}, {POOL}, {arguments});")

    def _meet(self) -> None:
        """All work-items have come here, and see what the others wrote."""
        if self.whole.meeting is None:
            self.w.do(BARRIER)
        else:
            self.w.do(f"ti_meet(a{self.whole.meeting}, {self.whole.groups} * ++meetings);")

    # ---- places

    def _place(self, ref: BufferRef) -> str:
        """A pointer to bytes."""
        loop = self.loop
        if ref.space == "arena":
            return _plus(self._place(loop.arena), ref.offset)
        if ref.space in ("input", "output"):
            moving = (loop.inputs if ref.space == "input" else loop.outputs)[ref.number]
            return _plus(self._moved(moving), ref.offset)
        assert ref.space == "argument"
        return _plus(f"a{ref.number}", ref.offset)

    def _moved(self, moving: Moving) -> str:
        """A place after `evens` even and `odds` odd iterations."""
        place, even, odd = self._place(moving.ref), moving.even, moving.odd
        if even == odd:
            return f"{place} + (long)number * {even}" if even else place
        return f"{place} + (long)evens * {even} + (long)odds * {odd}"

    def _fill(self, target: BufferRef, size: int) -> None:
        kind, count = _unit(size, (target.offset,))
        self._spread(count, f"((__global {kind} *)({self._place(target)}))[i] = 0;")

    def _copy(self, target: str, source: str, size: int, steps: tuple[int, ...]) -> None:
        kind, count = _unit(size, steps)
        value = f"((const __global {kind} *)({source}))[i]"
        self._spread(count, f"((__global {kind} *)({target}))[i] = {value};")

    def _spread(self, count: int, statement: str) -> None:
        if count:
            with self.w.block(f"for (int i = item; i < {count}; i += {self.items})"):
                self.w.do(statement)


def _plus(place: str, offset: int) -> str:
    return f"{place} + {offset}" if offset else place


def _unit(size: int, steps: tuple[int, ...]) -> tuple[str, int]:
    """The widest of two types that divides a size and what places move by, and how many of it there are."""
    return ("uint", size // 4) if not any(n % 4 for n in (size, *steps)) else ("uchar", size)


def _split(number: str, sizes: tuple[int, ...]) -> str:
    """A number as a place in three dimensions, the first of which runs fastest."""
    x, y, _ = sizes
    return f"(int3)({number} % {x}, {number} / {x} % {y}, {number} / {x * y})"


def _triple(sizes: tuple[int, ...]) -> str:
    return f"(int3)({', '.join(map(str, sizes))})"
