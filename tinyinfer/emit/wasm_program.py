"""A plan as one LLVM function without arguments, for memory that is laid out beforehand.

Arguments of kernels are tables of addresses in that memory. A place that moves in a loop is a word of a table
that the loop changes, and changes back when it is over, so that the next run finds what this one found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tinyinfer.runtime.plan import BufferRef, KernelSource, Launch, LoopLaunch, Moving

POINTER = 4

_HEAD = """
declare void @llvm.memset.p0.i32(ptr, i8, i32, i1)
declare void @llvm.memmove.p0.p0.i32(ptr, ptr, i32, i1)
"""
_ATTRIBUTES = 'attributes #0 = { nounwind "no-builtins" }\n'


def called_kernels(launches: Sequence[Launch]) -> Iterator[KernelSource]:
    """The kernels that launches call, in order, those inside of loops too; some may come again."""
    for launch in launches:
        if launch.loop is None:
            yield launch.kernel
        else:
            yield from called_kernels(launch.loop.launches)


@dataclass
class _Scope:
    """A loop around launches; `cursors` are {number of a word, even, odd} that it moves."""

    loop: LoopLaunch
    outer: _Scope | None
    cursors: list[tuple[int, int, int]] = field(default_factory=list)


class Program:
    """The function `run`, which calls the kernels `k<number>`.

    `bases` has the addresses of buffers by space and number, `kernels` the numbers of kernels by key, and
    `tables` is where the words lie that `words` has after the program was made.
    """

    def __init__(
        self,
        launches: Sequence[Launch],
        bases: Mapping[tuple[str, int], int],
        kernels: Mapping[str, int],
        tables: int,
    ):
        self.words: list[int] = []
        self._bases, self._kernels, self._tables = bases, kernels, tables
        self._lines: list[str] = []
        self._count = 0
        self._block = "entry"
        self._launches(launches, None)
        self._declared = sorted(set(kernels.values()))

    def text(self) -> str:
        """The module."""
        declared = "".join(f"declare void @k{number}(ptr, i64)\n" for number in self._declared)
        body = "\n".join(self._lines)
        return f"{_HEAD}{declared}define void @run() #0 {{\nentry:\n{body}\n  ret void\n}}\n{_ATTRIBUTES}"

    # ---- words

    def _word(self, ref: BufferRef, scope: _Scope | None) -> int:
        """A new word with the address of a reference among the launches of a loop, or of the plan."""
        number = len(self.words)
        self.words.append(0)
        self.words[number] = self._address(number, ref, ref.offset, scope)
        return number

    def _address(self, word: int, ref: BufferRef, offset: int, scope: _Scope | None) -> int:
        if scope is None or ref.space == "parameter":
            return self._bases[ref.space, ref.number] + offset
        if ref.space == "arena":
            arena = scope.loop.arena
            return self._address(word, arena, arena.offset + offset, scope.outer)
        places = scope.loop.inputs if ref.space == "input" else scope.loop.outputs
        return self._moving(word, places[ref.number], offset, scope)

    def _moving(self, word: int, place: Moving, offset: int, scope: _Scope) -> int:
        if place.even or place.odd:
            scope.cursors.append((word, place.even, place.odd))
        return self._address(word, place.ref, place.ref.offset + offset, scope.outer)

    # ---- lines

    def _do(self, text: str) -> None:
        self._lines.append(f"  {text}")

    def _emit(self, text: str) -> str:
        self._count += 1
        self._do(f"%v{self._count} = {text}")
        return f"%v{self._count}"

    def _label(self, name: str) -> None:
        self._lines.append(f"{name}:")
        self._block = name

    def _at(self, word: int) -> str:
        return f"inttoptr (i32 {self._tables + POINTER * word} to ptr)"

    def _pointer(self, word: int) -> str:
        """The address that a word has now."""
        return self._emit(f"load ptr, ptr {self._at(word)}")

    def _launches(self, launches: Sequence[Launch], scope: _Scope | None) -> None:
        for launch in launches:
            if launch.loop is not None:
                self._loop(launch.loop, scope)
                continue
            words = [self._word(ref, scope) for ref in launch.arguments]
            call = f"call void @k{self._kernels[launch.kernel.key]}(ptr {self._at(words[0])}, i64 "
            if launch.chunks == 1:
                self._do(f"{call}0)")
            elif launch.chunks > 1:
                self._chunks(call, launch.chunks)

    def _chunks(self, call: str, chunks: int) -> None:
        self._count += 1
        name, before = f"part{self._count}", self._block
        self._do(f"br label %{name}")
        self._label(name)
        self._do(f"%{name}.chunk = phi i64 [0, %{before}], [%{name}.next, %{name}]")
        self._do(f"{call}%{name}.chunk)")
        self._do(f"%{name}.next = add i64 %{name}.chunk, 1")
        more = self._emit(f"icmp ult i64 %{name}.next, {chunks}")
        self._do(f"br i1 {more}, label %{name}, label %{name}.end")
        self._label(f"{name}.end")

    def _copy(self, to: int, source: int, size: int) -> None:
        places = f"ptr {self._pointer(to)}, ptr {self._pointer(source)}"
        self._do(f"call void @llvm.memmove.p0.p0.i32({places}, i32 {size}, i1 false)")

    def _holds(self, ref: BufferRef | None, scope: _Scope | None) -> str:
        """Whether the bool at a place holds; none always does."""
        if ref is None:
            return "true"
        value = self._emit(f"load i8, ptr {self._pointer(self._word(ref, scope))}")
        return self._emit(f"icmp ne i8 {value}, 0")

    def _loop(self, loop: LoopLaunch, outer: _Scope | None) -> None:
        scope = _Scope(loop, outer)
        for ref, size in loop.cleared:
            place = self._pointer(self._word(ref, outer))
            self._do(f"call void @llvm.memset.p0.i32(ptr {place}, i8 0, i32 {size}, i1 false)")
        for to, source, size in loop.before:
            self._copy(self._word(to, outer), self._word(source, outer), size)
        limit = str(loop.steps)
        if loop.count is not None:
            count = self._emit(f"load i64, ptr {self._pointer(self._word(loop.count, outer))}, align 8")
            fewer = self._emit(f"icmp slt i64 {count}, {limit}")
            limit = self._emit(f"select i1 {fewer}, i64 {count}, i64 {limit}")
        entered = self._holds(loop.enter, outer)
        iteration = self._word(loop.iteration, outer)
        self._count += 1
        name, before = f"loop{self._count}", self._block
        step, going = f"%{name}.step", f"%{name}.going"
        self._do(f"br label %{name}")
        self._label(name)
        head = len(self._lines)
        within = self._emit(f"icmp slt i64 {step}, {limit}")
        run = self._emit(f"and i1 {within}, {going}")
        self._do(f"br i1 {run}, label %{name}.body, label %{name}.leave")
        self._label(f"{name}.body")
        self._do(f"store i64 {step}, ptr {self._pointer(iteration)}, align 8")
        self._launches(loop.launches, scope)
        sources = [self._after(moving, scope) for _, moving, _ in loop.after]
        low = self._emit(f"and i64 {step}, 1")
        is_odd = self._emit(f"icmp ne i64 {low}, 0")
        for word, even, odd in scope.cursors:
            self._move(word, self._emit(f"select i1 {is_odd}, i32 {_wrapped(odd)}, i32 {_wrapped(even)}"))
        again = self._holds(loop.go_on, outer)
        self._do(f"{step}.next = add i64 {step}, 1")
        self._do(f"br label %{name}")
        self._lines[head:head] = [
            f"  {step} = phi i64 [0, %{before}], [{step}.next, %{self._block}]",
            f"  {going} = phi i1 [{entered}, %{before}], [{again}, %{self._block}]",
        ]
        self._label(f"{name}.leave")
        for (to, _, size), word in zip(loop.after, sources):
            self._copy(self._word(to, outer), word, size)
        made = self._emit(f"trunc i64 {step} to i32")
        odds = self._emit(f"lshr i32 {made}, 1")
        evens = self._emit(f"sub i32 {made}, {odds}")
        for word, even, odd in scope.cursors:
            back = [self._emit(f"mul i32 {n}, {_wrapped(-by)}") for n, by in ((evens, even), (odds, odd))]
            self._move(word, self._emit(f"add i32 {back[0]}, {back[1]}"))
        if loop.done is not None:
            self._do(f"store i64 {step}, ptr {self._pointer(self._word(loop.done, outer))}, align 8")

    def _after(self, source: Moving, scope: _Scope) -> int:
        """A word that is where the source of a copy lies when the loop is over."""
        word = len(self.words)
        self.words.append(0)
        self.words[word] = self._moving(word, source, 0, scope)
        return word

    def _move(self, word: int, by: str) -> None:
        old = self._emit(f"load i32, ptr {self._at(word)}")
        self._do(f"store i32 {self._emit(f'add i32 {old}, {by}')}, ptr {self._at(word)}")


def _wrapped(value: int) -> int:
    """The number as a signed one of 32 bits."""
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)
