"""The Device protocol: what a backend offers to the rest of the project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tinyinfer.config import CompileOptions
from tinyinfer.ir.node import Graph
from tinyinfer.runtime.plan import TensorSpec


@dataclass
class LaunchTime:
    """What profiling says of one launch; times in seconds, `flops` and `bytes` as counted by the compiler."""

    title: str
    origin: tuple[str, ...]
    seconds: float
    flops: int
    bytes: int


class Executable(Protocol):
    """A compiled model at fixed shapes."""

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    peak_bytes: int

    def run(self, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs for feeds that have exactly the shapes and dtypes of `inputs`, C-contiguous, in that order.
        """

    def profile(self, feeds: Sequence[np.ndarray], runs: int) -> list[LaunchTime]:
        """Median time of each launch over `runs` runs."""

    def stages(self) -> Mapping[str, str]:
        """The text of every compiler stage, by name, in order; may be made when looked at."""

    def close(self) -> None:
        """Free threads and memory; the executable cannot run afterwards."""


class Device(Protocol):
    """One kind of hardware."""

    name: str

    def available(self) -> str | None:
        """None if the device can be used here, else the reason in words."""

    def compile(self, graph: Graph, options: CompileOptions, threads: int) -> Executable:
        """Compile a graph of static shapes. `threads` = 0 means all cores."""
