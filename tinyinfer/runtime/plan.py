"""The plan: what a device runs. Launches in order, every buffer at an offset of one arena, nothing decided
later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from tinyinfer.ir.node import Node


class StageTexts(Mapping[str, str]):
    """The text of every compiler stage by name, in order; each is made when it is looked at."""

    def __init__(self, makers: Mapping[str, Callable[[], str]]):
        self._makers = dict(makers)

    def __getitem__(self, name: str) -> str:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


@dataclass(frozen=True)
class BufferRef:
    """Where a kernel argument points. `space` is "arena", "parameter", "input" or "output".

    arena: `offset` bytes into the arena. parameter, input, output: `offset` bytes into number `number`.
    """

    space: str
    number: int
    offset: int = 0


@dataclass(frozen=True)
class KernelSource:
    """One kernel to compile. Symbol `name`, C signature `void name(void **arguments, int64_t chunk)`.

    `key` identifies the machine code together with the target: equal keys are equal kernels. `text` prints
    the device's source (LLVM IR for the CPU) and is called only where no cached object is found.
    """

    key: str
    name: str
    text: Callable[[], str]


@dataclass(frozen=True)
class Launch:
    """One kernel over `chunks` independent chunks, which any thread may run in any order.

    `waits` says that it reads or overwrites what an earlier launch since the last waiting one touches, so
    that all of those must be complete before its first chunk.
    """

    kernel: KernelSource
    arguments: tuple[BufferRef, ...]
    chunks: int
    waits: bool
    title: str = ""
    origin: tuple[str, ...] = ()
    flops: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of a fed or returned array."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class KeptValue:
    """Where a value of the graph lies in the arena after a run: byte offset and byte strides of `node.shape`.
    """

    node: Node
    offset: int
    strides: tuple[int, ...]


@dataclass
class Plan:
    """All that a device needs to run one model at one set of shapes."""

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    launches: list[Launch]
    parameters: list[np.ndarray]
    arena_bytes: int
    stages: dict[str, Callable[[], str]] = field(default_factory=dict)
    """Printable text of each compiler stage, by name, made when asked for."""
    kept: list[KeptValue] = field(default_factory=list)
    """With CompileOptions.keep_values: every stored value, each in memory of its own."""

    @property
    def peak_bytes(self) -> int:
        """Arena and parameters: what the plan holds besides its inputs and outputs."""
        return self.arena_bytes + sum(p.nbytes for p in self.parameters)
