"""A model that was cut into segments, seen as one executable: what `compile` and `profile` say of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tinyinfer.backends.base import LaunchTime
from tinyinfer.runtime.plan import TensorSpec
from tinyinfer.runtime.program import Key, Program, Stage


class PathExecutable:
    """`backends.base.Executable` for a path of stages: those that `feed` walks, or the first one alone.

    `peak_bytes` is what all stages of the path hold, with what was compiled of bodies that the host runs.
    """

    def __init__(self, program: Program, key: Key, feed: Mapping[str, Any] | None):
        self._program, self._key, self._feed = program, key, feed
        path: list[Stage] = []
        if feed is None:
            path.append(program.root(key))
        else:
            environment: dict[str, Any] = {}
            for stage in program.walk(key, feed, environment):
                stage.compute(environment)
                path.append(stage)
        self._executables = [s.runnable.executable() for s in path if s.runnable is not None]
        self.inputs: list[TensorSpec] = self._executables[0].inputs if self._executables else []
        self.outputs: list[TensorSpec] = self._executables[-1].outputs if self._executables else []
        bodies = sum(body.held_bytes() for stage in path for body in stage.bodies)
        self.peak_bytes = sum(e.peak_bytes for e in self._executables) + bodies

    def run(self, feeds: Sequence[np.ndarray]) -> list[Any]:
        """The outputs for the inputs of the feed, in its order."""
        names = list(self._feed or ())
        return self._program.run(self._key, dict(zip(names, feeds)))

    def profile(self, feeds: Sequence[np.ndarray], runs: int) -> list[LaunchTime]:
        """Median time of each launch over `runs` runs, and of what the host does after each stage."""
        rows: list[LaunchTime] = []
        seconds: list[list[float]] = []
        for number in range(max(1, runs)):
            environment: dict[str, Any] = {}
            taken: list[LaunchTime] = []
            mark, title = time.perf_counter(), ""
            for position, stage in enumerate(self._program.walk(self._key, self._feed or {}, environment)):
                if position:
                    host = time.perf_counter() - mark
                    taken.append(LaunchTime(f"host: {title}", (title,), host, 0, 0))
                title = getattr(stage.segment.action, "title", "")
                if stage.runnable is not None:
                    taken += stage.runnable.profile([environment[n] for n in stage.runnable.names], 1)
                    stage.compute(environment)
                mark = time.perf_counter()
            if not number:
                rows, seconds = taken, [[] for _ in taken]
            for times, row in zip(seconds, taken):
                times.append(row.seconds)
        return [
            LaunchTime(r.title, r.origin, statistics.median(s), r.flops, r.bytes)
            for r, s in zip(rows, seconds)
        ]

    def stages(self) -> Mapping[str, str]:
        """The text of every compiler stage, those of all segments one after the other."""
        return _Joined([e.stages() for e in self._executables])

    def close(self) -> None:
        """Nothing: the program owns what was compiled."""


class _Joined(Mapping[str, str]):
    def __init__(self, parts: Sequence[Mapping[str, str]]):
        self._parts = parts

    def __getitem__(self, name: str) -> str:
        texts = [p[name] for p in self._parts if name in p]
        if not texts:
            raise KeyError(name)
        return "\n\n".join(f"; segment {i}\n{text}" for i, text in enumerate(texts))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for p in self._parts for name in p))

    def __len__(self) -> int:
        return len(list(iter(self)))
