"""Running a model that may be cut into segments: the tree of what was compiled, and the walk through it.

A `Stage` is one segment of a model with its executable. Its children are the segments that followed it, by
what came out of the host action between them: the shapes of a host function's results, or a decision's value.
Roots are kept by the shapes of what is fed. A path that was walked before costs no import and no compilation;
what was used least recently leaves when there is too much.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyinfer.backends.base import Device, Executable, LaunchTime
from tinyinfer.budget import one_run
from tinyinfer.config import CompileOptions
from tinyinfer.errors import EPFail, Fail, RuntimeException, TinyInferError
from tinyinfer.ir.node import Graph
from tinyinfer.ir.work import work_of
from tinyinfer.runtime.debug import show_compile
from tinyinfer.runtime.ranges import Ranges

if TYPE_CHECKING:
    from tinyinfer.frontend.onnx.trace import Call, Segment
    from tinyinfer.limits import Limits

ROOTS = 16
"""How many sets of input shapes one program keeps compiled."""

STAGES = 64
"""How many stages one program keeps at least."""

CHEAP = 1 << 17
"""Elements computed by a graph up to which its first runs are interpreted: compiling takes longer."""

PATIENCE = 2
"""Interpreted runs of a cheap graph before it is compiled."""

Key = Any
"""Signatures of inputs (a root), of a host function's results, or the content of deciding values."""


class Evicted(Exception):
    """A stage left the cache while a run was on its way through it."""


class Runnable:
    """A graph with its executable, made when first needed, and a lock, since its arena serves one run at a
    time.
    """

    def __init__(self, graph: Graph, compile_graph: Callable[[Graph], Executable], lazy: bool):
        self.names = list(graph.inputs)
        self.results = list(graph.outputs)
        self._graph: Graph | None = graph
        self._compile = compile_graph
        self._executable: Executable | None = None
        self._patience = PATIENCE if lazy and work_of(graph.nodes()) <= CHEAP else 0
        self._lock = threading.Lock()
        self._closed = False
        if not lazy:
            self.executable()

    def executable(self) -> Executable:
        """The executable, compiled now if it was not."""
        if self._executable is None:
            assert self._graph is not None
            self._executable = self._compile(self._graph)
            self._graph = None
        return self._executable

    @property
    def held_bytes(self) -> int:
        """Arena and parameters of the executable, where it was made."""
        return 0 if self._executable is None else self._executable.peak_bytes

    def run(self, feeds: Sequence[np.ndarray]) -> list[np.ndarray] | None:
        """The outputs, or None where this was closed meanwhile."""
        with self._lock:
            if self._closed:
                return None
            if self._executable is None and self._patience:
                self._patience -= 1
                return self._interpret(feeds)
            return self.executable().run(feeds)

    def profile(self, feeds: Sequence[np.ndarray], runs: int) -> list[LaunchTime]:
        """Median time of each launch; empty where this was closed meanwhile."""
        with self._lock:
            return [] if self._closed else self.executable().profile(feeds, runs)

    def close(self) -> None:
        """Free the executable, after the run that may be using it."""
        with self._lock:
            if not self._closed:
                self._closed = True
                if self._executable is not None:
                    self._executable.close()

    def _interpret(self, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
        from tinyinfer.ir.oracle import evaluate

        assert self._graph is not None
        return evaluate(list(self._graph.outputs.values()), dict(zip(self.names, feeds)))


class Stage:
    """One segment in the tree of a program."""

    def __init__(self, program: Program, segment: Segment, parent: Stage | None, key: Key):
        self.program, self.segment, self.parent, self.key = program, segment, parent, key
        self.children: dict[Key, Stage] = {}
        self.runnable: Runnable | None = None
        if segment.graph is not None:
            self.runnable = Runnable(
                segment.graph, program.compile, lazy=not program.eager or parent is not None
            )
            if self.runnable._graph is None:
                segment.graph = None  # what it holds of weights is in the executable now
        self.bodies = [program.body(b) for b in getattr(segment.action, "bodies", ())]

    @property
    def whole(self) -> bool:
        """Whether this stage is all of the model."""
        return self.segment.whole

    def compute(self, environment: dict[str, Any]) -> None:
        """Run the kernels of this stage; Evicted where it left the cache."""
        if self.runnable is None:
            return
        results = self.runnable.run([environment[name] for name in self.runnable.names])
        if results is None:
            raise Evicted
        environment.update(zip(self.runnable.results, results))

    def close(self) -> None:
        """Free what was compiled, here and further on."""
        if self.runnable is not None:
            self.runnable.close()
        for body in self.bodies:
            body.close()


class Program:
    """A model, or a subgraph that a host function drives, on one device. Safe to call from several threads.

    `start` gives the first segment for a key, which is a tuple of signatures or of pairs with input names;
    `eager` compiles that segment at once.
    """

    def __init__(
        self,
        start: Callable[[Key], Segment],
        device: Device,
        options: CompileOptions,
        threads: int,
        title: str,
        logger: logging.Logger,
        eager: bool = True,
        roots: int = ROOTS,
        limits: Limits | None = None,
    ):
        from tinyinfer.limits import DEFAULT_LIMITS

        self._limits = limits if limits is not None else DEFAULT_LIMITS
        self._start, self._device, self._options, self._threads = start, device, options, threads
        self._title, self._logger = title, logger
        self.eager, self._limit = eager, roots
        self._roots: OrderedDict[Key, Stage] = OrderedDict()
        self._stages: OrderedDict[int, Stage] = OrderedDict()
        self._lock = threading.Lock()
        self._compiling = threading.RLock()
        self.ranges = Ranges(self._graph_of, self.compile, logger, title) if eager else None

    # ---- the tree

    def root(self, key: Key) -> Stage:
        """The first stage for inputs of these signatures; imported and compiled now if it is not kept."""
        return self._find(None, key, lambda: self._start(key))

    def kept(self, key: Key) -> Stage | None:
        """The first stage for these signatures if it is kept."""
        with self._lock:
            return self._roots.get(key)

    def prepare(self, key: Key) -> None:
        """Compile the first stage for these signatures."""
        self.root(key)

    def kept_whole(self, key: Key) -> Runnable | None:
        """The runnable of a key that is compiled exactly, if it is one segment."""
        root = self.kept(key)
        return root.runnable if root is not None and root.whole else None

    def executable(self, key: Key, inputs: Mapping[str, Any] | None) -> Executable:
        """What runs inputs of this key; of a model that is cut, the path that they take, or its start where
        `inputs` is None.
        """
        from tinyinfer.runtime.program_view import PathExecutable

        root = self.root(key)
        if root.whole and root.runnable is not None:
            return root.runnable.executable()
        return PathExecutable(self, key, inputs)

    def compile(self, graph: Graph) -> Executable:
        """A graph on the program's device."""
        start = time.perf_counter()
        try:
            with self._limits.spending():
                executable = self._device.compile(graph, self._options, self._threads)
        except (MemoryError, OSError) as error:
            if isinstance(error, TinyInferError):
                raise
            raise EPFail(f"{self._title}: there is not enough memory to compile it ({error})") from error
        seconds = time.perf_counter() - start
        described = " ".join(f"{name}:{'x'.join(map(str, n.shape))}" for name, n in graph.inputs.items())
        self._logger.info("%s compiled for %s in %.0f ms", self._title, described, seconds * 1e3)
        show_compile(f"{self._title} [{described}] on {self._device.name}", graph, executable, seconds)
        return executable

    def body(self, body: Any) -> Program:
        """The program of a subgraph that a host function drives."""
        title = f"{self._title}: {body.graph.name or 'subgraph'}"
        return Program(
            body.start,
            self._device,
            self._options,
            self._threads,
            title,
            self._logger,
            eager=False,
            limits=self._limits,
        )

    def held_bytes(self) -> int:
        """What the stages that are compiled hold, those of bodies too."""
        with self._lock:
            stages = list(self._stages.values())
        own = sum(s.runnable.held_bytes for s in stages if s.runnable is not None)
        return own + sum(body.held_bytes() for s in stages for body in s.bodies)

    def close(self) -> None:
        """Free everything that is kept."""
        with self._lock:
            kept = list(self._stages.values())
            self._stages.clear()
            self._roots.clear()
        for stage in kept:
            stage.close()
        if self.ranges is not None:
            self.ranges.close()

    def __len__(self) -> int:
        return len(self._stages)

    def _find(self, parent: Stage | None, key: Key, make: Callable[[], Segment]) -> Stage:
        children: Any = self._roots if parent is None else parent.children
        with self._lock:
            found = children.get(key)
            if found is not None:
                if parent is None:
                    self._roots.move_to_end(key)
                return found
        with self._compiling:
            with self._lock:
                found = children.get(key)
            if found is not None:
                return found
            with self._limits.spending():
                segment = make()
            made = Stage(self, segment, parent, key)
            with self._lock:
                children[key] = made
                self._stages[id(made)] = made
                dropped = self._over_limit()
        for stage in dropped:
            stage.close()
        return made

    def _over_limit(self) -> list[Stage]:
        """Stages that leave the cache: of the oldest root, and leaves of the tree."""
        dropped = []
        if len(self._roots) > self._limit:
            dropped += self._subtree(self._roots.popitem(last=False)[1])
        depth = 1
        newest = next(reversed(self._stages.values()), None)
        while newest is not None and newest.parent is not None:
            newest, depth = newest.parent, depth + 1
        while len(self._stages) - len(dropped) > max(STAGES, self._limit, 2 * depth):
            oldest = next(s for s in self._stages.values() if s not in dropped and not s.children)
            siblings = self._roots if oldest.parent is None else oldest.parent.children
            siblings.pop(oldest.key, None)
            dropped.append(oldest)
        for stage in dropped:
            self._stages.pop(id(stage), None)
        return dropped

    def _subtree(self, stage: Stage) -> list[Stage]:
        return [stage, *(s for child in stage.children.values() for s in self._subtree(child))]

    def _touch(self, path: Sequence[Stage]) -> None:
        """A path was used: its stages are the newest, the root last, so that only leaves get old."""
        if len(path) < 2:
            return
        with self._lock:
            for stage in reversed(path):
                if id(stage) in self._stages:
                    self._stages.move_to_end(id(stage))

    # ---- running

    def run(self, key: Key, inputs: Mapping[str, Any]) -> list[Any]:
        """The outputs for inputs by name whose signatures are those of `key`."""
        while True:
            try:
                results = self._in_range(key, inputs)
                return self._walked(key, inputs) if results is None else results
            except Evicted:
                continue
            except MemoryError:
                raise RuntimeException(f"{self._title}: there is not enough memory to run it") from None

    def _in_range(self, key: Key, inputs: Mapping[str, Any]) -> list[Any] | None:
        """The outputs from a compilation for a range of sizes; None where there is none for this key."""
        ranges = self.ranges
        if ranges is None or key in self._roots:
            return None
        found = ranges.find(key) or ranges.consider(key, inputs, self.kept_whole)
        if found is None:
            return None
        results = found[0].run(found[1], inputs)
        if results is None:
            raise Evicted
        return results

    def _graph_of(self, key: Key) -> Graph | None:
        with self._limits.spending():
            segment = self._start(key)
        return segment.graph if segment.whole else None

    def _walked(self, key: Key, inputs: Mapping[str, Any]) -> list[Any]:
        with one_run():
            return self._walk_through(key, inputs)

    def _walk_through(self, key: Key, inputs: Mapping[str, Any]) -> list[Any]:
        environment: dict[str, Any] = {}
        path: list[Stage] = []
        for stage in self.walk(key, inputs, environment):
            stage.compute(environment)
            path.append(stage)
        self._touch(path)
        last = path[-1]
        if last.whole and last.runnable is not None:
            return [environment[name] for name in last.runnable.results]
        return [t.take(environment) for t in last.segment.action.outputs]  # type: ignore[union-attr]

    def walk(self, key: Key, inputs: Mapping[str, Any], environment: dict[str, Any]) -> Iterator[Stage]:
        """The stages of a run, each to be computed by the caller before the next one is asked for."""
        from tinyinfer.frontend.onnx.trace import Call, Decide
        from tinyinfer.frontend.onnx.values import signature, store

        for name, value in inputs.items():
            store(environment, name, value)
        stage = self.root(key)
        while True:
            yield stage
            action, cut = stage.segment.action, stage.segment.cut
            if cut is None:
                return
            if isinstance(action, Decide):
                values = {k: environment[k] for k in action.keys}
                chosen = tuple(_content(v) for v in values.values())
                stage = self._find(stage, chosen, lambda: cut.resume_with(values))  # noqa: B023
            else:
                assert isinstance(action, Call)
                results = _called(action, stage, environment)
                for name, value in zip(action.keys, results):
                    store(environment, name, value)
                made = tuple(map(signature, results))
                keys = action.keys
                stage = self._find(stage, made, lambda: cut.resume_after(made, keys))  # noqa: B023


def _content(value: np.ndarray) -> bytes:
    content = value.tobytes()
    return content if len(content) <= 256 else hashlib.sha256(content).digest()


def _called(action: Call, stage: Stage, environment: dict[str, Any]) -> list[Any]:
    """The results of a host function, arrays in the layout that kernels read."""
    arguments = [t.take(environment) for t in action.arguments]
    bodies = [_driver(p, b) for p, b in zip(stage.bodies, action.bodies)]
    try:
        results = list(action.call.function(*bodies, *arguments))
    except (ValueError, IndexError, TypeError, OverflowError, KeyError) as error:
        if isinstance(error, TinyInferError):
            raise
        raise Fail(f"{action.title}: {error}") from error
    if len(results) != len(action.keys):
        raise Fail(f"{action.title}: the host function gave {len(results)} results, not {len(action.keys)}")
    return [_dense(r) for r in results]


def _dense(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "SU":
            value = value.astype(object)
        return value if value.flags.c_contiguous and value.flags.aligned else np.array(value, order="C")
    if isinstance(value, (list, tuple)):
        return [_dense(v) for v in value]
    return value


def _driver(program: Program, body: Any) -> Callable[[Sequence[Any]], list[Any]]:
    """A subgraph as a function from a list of values to a list of values."""
    from tinyinfer.frontend.onnx.values import signature

    names = body.inputs

    def run(values: Sequence[Any]) -> list[Any]:
        dense = [_dense(v) for v in values]
        return program.run(tuple(map(signature, dense)), dict(zip(names, dense)))

    return run
