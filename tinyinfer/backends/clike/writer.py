"""Writing statements of a C-like language: indentation, blocks, counted loops, names that occur once in a
function."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

INDENT = "    "


class Writer:
    """Lines of one function's body. `index` is the type of loop counters."""

    def __init__(self, index: str):
        self.index = index
        self.lines: list[str] = []
        self.depth = 1
        self.count = 0

    def name(self, stem: str) -> str:
        """A name that this function has not used: `stem` and a number."""
        self.count += 1
        return f"{stem}{self.count}"

    def do(self, text: str) -> None:
        """Write one statement or line."""
        self.lines.append(f"{INDENT * self.depth}{text}")

    def constant(self, kind: str, text: str, stem: str = "t") -> str:
        """Define a name for a value; returns it."""
        name = self.name(stem)
        self.do(f"const {kind} {name} = {text};")
        return name

    @contextmanager
    def block(self, head: str = "") -> Iterator[None]:
        """Statements in braces after `head`."""
        self.do(f"{head} {{" if head else "{")
        self.depth += 1
        yield
        self.depth -= 1
        self.do("}")

    @contextmanager
    def loop(self, name: str, stop: int, start: int = 0, step: int = 1) -> Iterator[str]:
        """A loop of the counter `name` from `start` below `stop`; gives the name."""
        advance = f"++{name}" if step == 1 else f"{name} += {step}"
        with self.block(f"for ({self.index} {name} = {start}; {name} < {stop}; {advance})"):
            yield name
