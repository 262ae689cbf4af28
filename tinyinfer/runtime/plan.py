"""The plan: what a device runs. Launches in order, every buffer at an offset of one arena, nothing decided
later."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from tinyinfer.ir.node import Node
from tinyinfer.kernels.image import Image


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
    """Where a kernel argument points. `space` is "arena", "parameter", "input", "output" or "image".

    arena: `offset` bytes into the arena. parameter, input, output: `offset` bytes into number `number`.
    image: number `number` of the plan's images; a parameter may be an image, too. In
    the launches of a loop's body, arena, input and output are those of `LoopLaunch`.
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
class WorkSizes:
    """Work-items of a launch on a device that counts in them: `total` along each of three dimensions, in
    groups of `group`, which divides it."""

    total: tuple[int, int, int]
    group: tuple[int, int, int]


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
    loop: LoopLaunch | None = None
    """Set where the launch runs others repeatedly; `kernel` is then the device's code that does so."""
    work: WorkSizes | None = None
    """Set on devices of work-items, where `chunks` is 1."""
    once: bool = False
    """Whether what it writes stays: it may be run before the first run, and never again."""
    meets: bool = False
    """Whether its groups wait for each other, so that all of them must run at the same time."""


@dataclass(frozen=True)
class Moving:
    """A place that moves from iteration to iteration: `even` bytes on after iterations 0, 2, … and `odd`
    bytes on after iterations 1, 3, …"""

    ref: BufferRef
    even: int = 0
    odd: int = 0


@dataclass(frozen=True)
class LoopLaunch:
    """A launch of one chunk that runs `launches` in order, again and again, on one thread.

    References in `launches` are local: "input" and "output" `i` are `inputs[i]` and `outputs[i]`, "arena" is
    `arena`. All other references are those of the launches around it. Before the first iteration `cleared`
    (place, bytes) is set to zero and `before` (to, from, bytes) is copied; after the last one `after` is
    copied, from where its sources then are. `iteration` holds the number of the iteration (int64) while it
    runs. There are at most `steps` iterations, at most the int64 at `count` where there is one, and only as
    long as the bool at `enter`, later at `go_on`, holds. `done` gets the number of iterations.
    """

    launches: tuple[Launch, ...]
    steps: int
    arena: BufferRef
    inputs: tuple[Moving, ...]
    outputs: tuple[Moving, ...]
    iteration: BufferRef
    cleared: tuple[tuple[BufferRef, int], ...] = ()
    before: tuple[tuple[BufferRef, BufferRef, int], ...] = ()
    after: tuple[tuple[BufferRef, Moving, int], ...] = ()
    count: BufferRef | None = None
    enter: BufferRef | None = None
    go_on: BufferRef | None = None
    done: BufferRef | None = None


def kernel_sources(launches: Iterable[Launch]) -> dict[str, KernelSource]:
    """Every kernel of `launches` once, by key, those inside loops too."""
    found: dict[str, KernelSource] = {}
    for launch in launches:
        found.setdefault(launch.kernel.key, launch.kernel)
        if launch.loop is not None:
            for key, source in kernel_sources(launch.loop.launches).items():
                found.setdefault(key, source)
    return found


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
    images: list[Image] = field(default_factory=list)
    """The images that values are stored in."""
    parameter_images: dict[int, Image] = field(default_factory=dict)
    """By number: parameters that lie in images, their arrays being (height, width, 4)."""

    @property
    def peak_bytes(self) -> int:
        """Arena, images and parameters: what the plan holds besides its inputs and outputs."""
        images = sum(image.nbytes for image in self.images)
        return self.arena_bytes + images + sum(p.nbytes for p in self.parameters)
