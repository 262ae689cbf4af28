"""An import of a whole model that goes on after errors and beyond cuts, with zeros in place of data.

What the host computes between segments is really called, on zeros, to see which shapes come out and what the
rest of the model makes of them. Up to the first cut all is as in a session; beyond it, another run may take
another way, so that what fails there need not fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinyinfer.errors import NoSuchFile, TinyInferError
from tinyinfer.frontend.onnx.errors import NeedsHost, NeedsValue, NotSupported, UnsupportedModel
from tinyinfer.frontend.onnx.importer import Importer
from tinyinfer.frontend.onnx.model import OnnxModel
from tinyinfer.frontend.onnx.scope import Frame, Scope, reads
from tinyinfer.frontend.onnx.survey import Blocker
from tinyinfer.frontend.onnx.trace import Call, Cut, Decide, Finish, Segment, first_segment
from tinyinfer.frontend.onnx.values import Signature, signature, store
from tinyinfer.ir.node import Graph
from tinyinfer.ir.oracle import evaluate
from tinyinfer.runtime.signature import numpy_dtype

MAX_SEGMENTS = 256
"""Segments and runs of bodies followed."""

CHEAP = 1 << 16
"""Elements computed by a segment up to which it is interpreted, since what follows may depend on it."""

FEW = 16
"""Integers of an input up to which they are taken to be 1."""

_BROKEN = "(an earlier node is not supported)"


@dataclass(frozen=True)
class DrySegment:
    """A part of the model that one set of kernels computes, and what follows it: the node whose results the
    host computes or whose inputs decide how to go on ("" at the end)."""

    graph: Graph | None
    action: str
    node: str
    body: bool = False
    """Whether it is in a body that the host runs again and again."""


@dataclass
class DryRun:
    """What a dry run found. `complete` says that it came to the end of the model."""

    segments: list[DrySegment] = field(default_factory=list)
    blockers: list[Blocker] = field(default_factory=list)
    complete: bool = False


def dry_run(model: OnnxModel, signatures: Mapping[str, Signature]) -> DryRun:
    """Import `model` for inputs of these signatures as far as it goes. Raises NoSuchFile for weights in a
    file that is not there, nothing else that a model can cause.
    """
    found = DryRun()
    walk = _Walk(model, found)

    def whole() -> None:
        segment = walk.first(signatures)
        environment: dict[str, Any] = {}
        for name, described in signatures.items():
            store(environment, name, _fed(described))
        walk.follow(segment, environment)

    walk.attempt(whole)
    return found


class _Stop(Exception):
    """There is no sense in going on."""


def _lenient(walk: _Walk) -> type[Importer]:
    class LenientImporter(Importer):
        """Notes what is wrong with a node and goes on without its results."""

        def _node(self, context: Any, frame: Frame) -> Any:
            scope = context.scope
            if not self.nested and any(_is_broken(scope, name) for name in reads(context.proto)):
                return _without_results(context, scope)
            try:
                return super()._node(context, frame)
            except (NeedsValue, NeedsHost, NoSuchFile):
                raise
            except Exception as error:
                if self.nested:
                    raise
                walk.note(error, context)
                return _without_results(context, scope)

        def _hand_over(self, frame: Frame, scope: Scope) -> None:
            whole = [pair for pair in frame.results if not _is_broken(frame.scope, pair[0])]
            for _, outer in set(frame.results) - set(whole):
                scope.unavailable[outer] = _BROKEN
            frame.results = tuple(whole)
            super()._hand_over(frame, scope)

    return LenientImporter


def _without_results(context: Any, scope: Scope) -> None:
    for name in context.proto.output:
        if name:
            scope.unavailable[name] = _BROKEN


def _is_broken(scope: Scope | None, name: str) -> bool:
    while scope is not None:
        if name in scope.values:
            return False
        if name in scope.unavailable:
            return scope.unavailable[name] == _BROKEN
        scope = scope.outer
    return False


class _Walk:
    def __init__(self, model: OnnxModel, found: DryRun):
        self._model, self._found = model, found
        self._importer = _lenient(self)
        self._steps = 0
        self._certain = True

    def first(self, signatures: Mapping[str, Signature]) -> Segment:
        return first_segment(self._model, signatures, self._importer)

    def note(self, error: Exception, context: Any = None) -> None:
        """Take an error down as a blocker."""
        if isinstance(error, NotSupported) and str(error) == _BROKEN:
            return
        expected = isinstance(error, TinyInferError)
        lines = error.blockers if isinstance(error, UnsupportedModel) else (str(error),)
        for line in lines:
            message = line if expected else f"{type(error).__name__}: {line}"
            facts: dict[str, Any] = {}
            if context is not None:
                message = message.removeprefix(f"{context.label}: ")
                facts = dict(
                    node=context.name, op=context.op_type, domain=context.domain, opset=context.opset
                )
            if not self._certain:
                facts["where"] = "what follows a value that data decides, with zeros for data"
            self._found.blockers.append(Blocker("import", message, **facts, certain=self._certain))

    def attempt(self, act: Callable[[], Any]) -> None:
        try:
            act()
            self._found.complete = True
        except NoSuchFile:
            raise
        except _Stop:
            pass
        except (Exception, RecursionError) as error:
            self.note(error)

    def follow(self, segment: Segment, environment: dict[str, Any], body: bool = False) -> list[Any]:
        """Walk from a segment to the end; the outputs, zeros where they are no constants."""
        while True:
            self._steps += 1
            action = segment.action
            title = "" if isinstance(action, Finish) else action.title
            kind = {Finish: "end", Decide: "decide", Call: "host"}[type(action)]
            if not body or self._steps < MAX_SEGMENTS:
                self._found.segments.append(DrySegment(segment.graph, kind, title, body))
            if self._steps > MAX_SEGMENTS:
                raise _Stop
            if segment.graph is not None:
                environment.update(_computed(segment.graph, environment))
            cut = segment.cut
            if isinstance(action, Finish) or cut is None:
                if segment.whole and segment.graph is not None:
                    return [environment[key] for key in segment.graph.outputs]
                return [t.take(environment) for t in action.outputs]  # type: ignore[union-attr]
            self._certain = False
            segment = self._beyond(segment, cut, environment)

    def _beyond(self, segment: Segment, cut: Cut, environment: dict[str, Any]) -> Segment:
        action = segment.action
        if isinstance(action, Decide):
            return cut.resume_with({key: environment[key] for key in action.keys})
        assert isinstance(action, Call)
        bodies = [self._driver(body) for body in action.bodies]
        arguments = [t.take(environment) for t in action.arguments]
        results = [_dense(r) for r in action.call.function(*bodies, *arguments)]
        for key, value in zip(action.keys, results):
            store(environment, key, value)
        return cut.resume_after([signature(r) for r in results], action.keys)

    def _driver(self, body: Any) -> Callable[[Sequence[Any]], list[Any]]:
        known: dict[Any, list[Any]] = {}

        def run(values: Sequence[Any]) -> list[Any]:
            values = [_dense(v) for v in values]
            key = tuple(map(signature, values))
            self._steps += 1
            if self._steps > MAX_SEGMENTS:
                raise _Stop
            if key not in known:
                environment: dict[str, Any] = {}
                for name, value in zip(body.inputs, values):
                    store(environment, name, value)
                known[key] = self.follow(body.start(key), environment, True)
            return known[key]

        return run


def _computed(graph: Graph, environment: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a graph if they take next to nothing to compute, else zeros."""
    work = sum(n.inputs[0].size if n.is_reduce else n.size for n in graph.nodes())
    if work <= CHEAP:
        feeds = {name: environment[name] for name in graph.inputs}
        return dict(zip(graph.outputs, evaluate(list(graph.outputs.values()), feeds)))
    return {key: _zero_array(node.dtype, node.shape) for key, node in graph.outputs.items()}


def _dense(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_dense(v) for v in value]
    if isinstance(value, np.generic):
        value = np.asarray(value)
    return value.astype(object) if isinstance(value, np.ndarray) and value.dtype.kind in "SU" else value


def _zero_array(dtype: str, shape: Sequence[int]) -> np.ndarray:
    # one zero seen everywhere: these arrays may be as large as the model likes
    return np.broadcast_to(np.zeros((), numpy_dtype(dtype)), shape)


def _fed(described: Signature) -> Any:
    """What an input is taken to be: zeros, and ones where it is a few integers: counts, sizes, shapes."""
    value = _zeros(described)
    few = isinstance(value, np.ndarray) and value.size <= FEW and value.dtype.kind in "iu"
    return np.ones_like(value) if few else value


def _zeros(described: Signature) -> Any:
    """A value of zeros and empty strings with this signature."""
    if described is None:
        return None
    if described == "object":
        return {}
    kind, content = described
    if kind == "list":
        return [_zeros(element) for element in content]
    if kind == "string":
        return np.broadcast_to(np.array("", object), content)
    return _zero_array(kind, content)


def zero_signatures(
    model: OnnxModel, shapes: Mapping[str, Sequence[int]], leading: int, other: int
) -> dict[str, Any]:
    """Signatures of all required inputs: shapes as given or as the model has them; dimensions that neither
    tells are `leading` or `other`, symbols the same everywhere. Sequences and optionals have one element.
    """
    symbols: dict[str, int] = {}
    for spec in (*model.inputs, *model.overridable):
        if spec.name in shapes and spec.shape is not None:
            for dimension, size in zip(spec.shape, shapes[spec.name]):
                if isinstance(dimension, str):
                    symbols.setdefault(dimension, int(size))
    for spec in model.inputs:
        if spec.shape and isinstance(spec.shape[0], str):
            symbols.setdefault(spec.shape[0], leading)
    types = {v.name: v.type for v in model.proto.graph.input}
    result: dict[str, Any] = {}
    for spec in (*model.inputs, *(v for v in model.overridable if v.name in shapes)):
        given = shapes.get(spec.name)
        result[spec.name] = _signature_of(types[spec.name], given, symbols, leading, other)
    return result


def _signature_of(
    kind: Any, given: Sequence[int] | None, symbols: Mapping[str, int], leading: int, other: int
) -> Signature:
    from tinyinfer.frontend.onnx.tensors import ELEMENT_TYPES

    which = kind.WhichOneof("value")
    if which == "optional_type":
        return _signature_of(kind.optional_type.elem_type, given, symbols, leading, other)
    if which == "sequence_type":
        return ("list", (_signature_of(kind.sequence_type.elem_type, given, symbols, leading, other),))
    if which != "tensor_type":
        return "object"
    name = ELEMENT_TYPES.get(kind.tensor_type.elem_type, ("float32", ""))[0]
    shape = tuple(map(int, given)) if given is not None else tuple(_sizes(kind, symbols, leading, other))
    return ("string" if name == "object" else name, shape)


def _sizes(kind: Any, symbols: Mapping[str, int], leading: int, other: int) -> Iterator[int]:
    for axis, dimension in enumerate(kind.tensor_type.shape.dim):
        if dimension.WhichOneof("value") == "dim_value" and dimension.dim_value >= 0:
            yield int(dimension.dim_value)
        else:
            yield symbols.get(dimension.dim_param, other if axis else leading)
