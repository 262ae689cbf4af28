"""DEBUG=1 … 5: what the compiler did, on standard error, more of it with every level. No result depends on
it.
"""

from __future__ import annotations

import sys

from tinyinfer.backends.base import Executable
from tinyinfer.config import debug_level
from tinyinfer.ir.node import Graph

# The level from which a stage is shown, by words that its name contains; other stages are shown from level 3.
_LEVELS = (("asm", 5), ("assembly", 5), ("llvm", 4), ("source", 4), ("code", 4), ("kernel", 2), ("plan", 2))


GRAPH_LEVEL = 3
"""The level from which the imported graph is shown."""


def stage_level(name: str) -> int:
    """The DEBUG level from which stage `name` is printed."""
    lowered = name.lower()
    return next((level for word, level in _LEVELS if word in lowered), 3)


def show_compile(title: str, graph: Graph, executable: Executable, seconds: float) -> None:
    """Print one compile's summary and the stages of the current level; nothing at DEBUG=0."""
    level = debug_level()
    if level < 1:
        return
    print(
        f"{title}: compiled in {seconds * 1e3:.0f} ms, {executable.peak_bytes} bytes at peak", file=sys.stderr
    )
    if level < 2:
        return
    if level >= GRAPH_LEVEL:
        from tinyinfer.ir.text import print_graph

        print(f"==== graph\n{print_graph(graph)}", file=sys.stderr)
    stages = executable.stages()
    for name in stages:
        if stage_level(name) <= level:
            print(f"==== {name}\n{stages[name]}", file=sys.stderr)
