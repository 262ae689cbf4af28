"""How much a model may ask for. Defaults are far above real models and far below what hurts."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np

from tinyinfer.budget import spending


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 36

MAX_RANK = 64 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 32
"""Dimensions of one tensor: as many as numpy's arrays may have."""


@dataclass(frozen=True)
class Limits:
    """Bounds on importing, compiling and running one model.

    Exceeding one raises an error in words: InvalidGraph or NotImplemented while importing, Fail while
    compiling, RuntimeException while running.
    """

    max_nodes: int = 200_000
    """ONNX nodes imported, with functions and branches inlined."""

    max_depth: int = 32
    """Nesting of model-local functions and branches."""

    max_elements: int = 1 << 34
    """Elements of one tensor, weights and intermediate values alike."""

    loop_trips: int = 10_000_000
    """Trips of one loop in one run."""

    max_sequence: int = 1 << 20
    """Elements of one sequence."""

    max_text: int = 1 << 26
    """Characters, or strings, of one tensor of strings."""

    max_bytes: int = field(default_factory=_physical_memory)
    """Memory of one compiled graph: its arena, parameters and outputs. The default is the machine's memory.
    """

    compile_seconds: float = 600.0
    """Seconds that one import, or one compilation, may take; in a run, all of them together."""

    max_inverse: int = 64
    """Rows of a matrix to invert; each is a step of the graph."""

    max_tree_depth: int = 1024
    """Branches on one path through a decision tree."""

    fold_elements: int = 4096
    """Nodes with only constant inputs and outputs of at most this size are computed during the import."""

    constant_elements: int = 1 << 24
    """Elements of a value that an op needs as a number during the import."""

    hard_links: bool = False
    """Whether external data may lie in a file that has other names, which may be outside of the folder."""

    def allows(self, shape: Iterable[int]) -> bool:
        """Whether a tensor may have this shape. Sizes beside one of 0 count too: nothing can hold them."""
        sizes = [max(d, 1) for d in shape]
        return len(sizes) <= MAX_RANK and math.prod(sizes) <= self.max_elements

    def spending(self) -> AbstractContextManager[None]:
        """The budget of one import or compilation, from now on."""
        return spending(self.compile_seconds, self.max_bytes, self.loop_trips)


DEFAULT_LIMITS = Limits()
