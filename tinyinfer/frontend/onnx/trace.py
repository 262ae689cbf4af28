"""A model as segments with host actions between them, found while it runs.

Most models are one segment: a Graph whose outputs are the model's. Where a node's results cannot be part of a
graph (their shapes depend on data, or they are strings, maps, loops driven from outside), or a value decides
how to go on (a condition, a shape), the model is cut. The segment so far computes what the host action needs
and what the rest of the model still reads; when the action was carried out, `Cut.resume` imports the next
segment for the shapes, or the decision, that came out. So the segments of a model form a tree; the runtime
keeps it (`runtime.program`), and a path that was taken before costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import GraphProto

from tinyinfer.frontend.onnx import functions
from tinyinfer.frontend.onnx.errors import InvalidArgument, InvalidGraph, UnsupportedModel
from tinyinfer.frontend.onnx.importer import Importer, Pending
from tinyinfer.frontend.onnx.model import OnnxModel, ordered_nodes
from tinyinfer.frontend.onnx.scope import Frame, Scope, free_names
from tinyinfer.frontend.onnx.values import (
    HostCall,
    HostValue,
    Signature,
    Template,
    Value,
    nodes_of,
    replace_nodes,
    template,
    value_of,
)
from tinyinfer.frontend.onnx.whole import checked_shape, supported_input, unsupported_input
from tinyinfer.ir import build
from tinyinfer.ir.node import Graph, Node, topological_order
from tinyinfer.ir.work import work_of


@dataclass(frozen=True)
class Finish:
    """The outputs, in order: there is nothing more to do."""

    outputs: tuple[Template, ...]


@dataclass(frozen=True)
class Decide:
    """The values under `keys` decide how to go on."""

    keys: tuple[str, ...]
    title: str


@dataclass(frozen=True)
class Call:
    """A host function; its results go under `keys`. `bodies` are the subgraphs that it drives."""

    call: HostCall
    arguments: tuple[Template, ...]
    keys: tuple[str, ...]
    title: str
    bodies: tuple[Body, ...]


@dataclass
class Segment:
    """A part of a model: compute `graph` (None: nothing), whose inputs and outputs are keys of the run's
    environment, then do `action`, then go on with `cut` (None after Finish)."""

    graph: Graph | None
    action: Finish | Decide | Call
    cut: Cut | None
    whole: bool = False
    """Whether the graph is the whole model: its outputs are the model's, in order."""


class Names:
    """Keys of the environment that no input of the model has."""

    def __init__(self, taken: set[str]):
        prefix = "#"
        while any(name.startswith(prefix) for name in taken):
            prefix += "#"
        self.prefix = prefix

    def output(self, name: str) -> str:
        return f"{self.prefix}={name}"

    def owns(self, key: str) -> bool:
        """Whether a key was made here, so that nobody outside holds the array under it."""
        return key.startswith(self.prefix)


@dataclass(frozen=True)
class State:
    """Where an import stands: its frames, the nodes imported, the keys given, and what is assumed of
    values.
    """

    frames: list[Frame]
    count: int = 0
    keys: int = 0
    assumed: tuple[tuple[Node, np.ndarray], ...] = ()


class Cut:
    """The state of an import at a cut; it may be resumed any number of times.

    `deciding` is set where the decision was taken before the segment, which then starts anew with it: the
    node under each key.
    """

    def __init__(self, trace: Trace, state: State, deciding: Mapping[str, Node] | None = None):
        self._trace, self._state, self._deciding = trace, state, deciding

    def resume_with(self, values: Mapping[str, np.ndarray]) -> Segment:
        """The next segment, the values under these keys being these."""
        state = self._state
        if self._deciding is not None:
            more = tuple((self._deciding[key], np.array(value)) for key, value in values.items())
            frames = _copy(state.frames, lambda node: node)
            return self._trace.segment(replace(state, frames=frames, assumed=(*state.assumed, *more)))
        known = {key: build.constant(np.array(value)) for key, value in values.items()}

        def settle(node: Node) -> Node:
            return known.get(node.attrs, node) if node.op == "INPUT" else _settled_view(node, known)

        frames = _copy(state.frames, settle)
        frames[-1].asked += 1
        return self._trace.segment(replace(state, frames=frames))

    def resume_after(self, signatures: Sequence[Signature], keys: Sequence[str]) -> Segment:
        """The next segment, the host call having given values of these signatures under these keys."""
        frames = _copy(self._state.frames, lambda node: node)
        frame = frames[-1]
        results = [value_of(s, key) for s, key in zip(signatures, keys)]
        for name, value in zip(frame.nodes[frame.position].output, results):
            if name:
                frame.scope.values[name] = value
        frame.position += 1
        return self._trace.segment(replace(self._state, frames=frames))


def _settled_view(node: Node, known: Mapping[str, Node]) -> Node:
    """A view whose source was an input that has become known."""
    if node.op == "VIEW" and node.inputs[0].op == "INPUT" and node.inputs[0].attrs in known:
        source = known[node.inputs[0].attrs]
        return build.view(source, node.attrs.indices, node.shape, node.attrs.guards, node.attrs.fill)
    return node


def _copy(frames: list[Frame], change: Any) -> list[Frame]:
    """Frames with scopes of their own, `change` applied to every node that they hold."""
    scopes: dict[int, Scope] = {}

    def scope_of(old: Scope) -> Scope:
        found = scopes.get(id(old))
        if found is None:
            outer = scope_of(old.outer) if old.outer is not None else None
            values = {name: replace_nodes(value, change) for name, value in old.values.items()}
            found = scopes[id(old)] = Scope(
                values, dict(old.unavailable), outer, old.opsets, old.prefix, old.depth, old.attributes
            )
        return found

    return [replace(f, scope=scope_of(f.scope)) for f in frames]


class Trace:
    """What all segments of one model, or one loop body, share."""

    def __init__(
        self,
        model: OnnxModel,
        names: Names,
        outputs: Sequence[str],
        importer: type[Importer] = Importer,
    ):
        self.model, self.names, self.outputs, self._importer = model, names, outputs, importer

    def start(self, frame: Frame) -> Segment:
        """The first segment."""
        frame.results = tuple((name, name) for name in self.outputs)
        return self.segment(State([frame]))

    def segment(self, state: State) -> Segment:
        """Import from where the frames stand, which the import changes, to the end or the next cut."""
        importer = self._importer(self.model, count=state.count, assumed=state.assumed)
        before = replace(state, frames=_copy(state.frames, lambda node: node))
        bottom = state.frames[0]
        pending = importer.advance_or_ask(state.frames)
        if pending is None:
            return self._finish(bottom.scope)
        wanted = pending.wanted
        if wanted is not None and _is_cheap(wanted):
            return self._decide_first(before, wanted, pending.context.label)
        if pending.call is None and not pending.values:
            pending.context.unsupported("it needs a value that cannot be computed before it")
        return self._cut(importer, state, pending)

    def _decide_first(self, before: State, wanted: Node, label: str) -> Segment:
        """A segment that only computes a value which decides; the import then starts anew, knowing it."""
        if wanted.op == "INPUT":
            return Segment(None, Decide((wanted.attrs,), label), Cut(self, before, {wanted.attrs: wanted}))
        key = f"{self.names.prefix}{before.keys}"
        cut = Cut(self, replace(before, keys=before.keys + 1), {key: wanted})
        return Segment(_graph({key: wanted}), Decide((key,), label), cut)

    def _finish(self, scope: Scope) -> Segment:
        outputs: dict[str, Node] = {}

        def place(name: str, node: Node) -> Template:
            if node.op == "INPUT" and self.names.owns(node.attrs):
                return Template("key", node.attrs)
            key = self.names.output(name)
            outputs[key] = node
            return Template("key", key)

        templates = []
        for name in self.outputs:
            found = scope.find(name)
            if found is None:
                raise InvalidGraph(f"the graph output '{name}' is made by no node")
            if isinstance(found, Node):
                templates.append(place(name, found))
            else:
                numbers = iter(range(1 << 30))
                made = template(found, lambda n: place(f"{name}/{next(numbers)}", n))  # noqa: B023
                templates.append(Template(made.kind, made.content, True))
        graph = _graph(outputs) if outputs else None
        whole = all(
            t.kind == "key" and t.content == self.names.output(name)
            for name, t in zip(self.outputs, templates)
        )
        return Segment(graph, Finish(tuple(templates)), None, graph is not None and whole)

    def _cut(self, importer: Importer, state: State, pending: Pending) -> Segment:
        frames = state.frames
        outputs: dict[str, Node] = {}
        placed: dict[int, Node] = {}
        counter = state.keys

        def place(node: Node) -> Node:
            """The node as the next segment sees it: a leaf where its value has to be handed on."""
            nonlocal counter
            found = placed.get(id(node))
            if found is None:
                found = node
                if not _is_free(node) and importer.known(node) is None:
                    key = f"{self.names.prefix}{counter}"
                    counter += 1
                    outputs[key] = node
                    found = build.input_node(key, node.shape, node.dtype)
                placed[id(node)] = found
            return found

        def key_of(node: Node) -> Template:
            known = importer.known(node)
            if known is not None:
                return Template("known", known)
            made = place(node)
            if made.op != "INPUT":
                nonlocal counter
                key = f"{self.names.prefix}{counter}"
                counter += 1
                outputs[key] = made
                return Template("key", key)
            return Template("key", made.attrs)

        action: Decide | Call
        label = pending.context.label
        if pending.call is not None:
            call = pending.call
            arguments = tuple(template(x, key_of) for x in call.inputs)
            results = tuple(f"{self.names.prefix}{counter + i}" for i in range(call.outputs))
            counter += call.outputs
            action = Call(call, arguments, results, label, tuple(call.bodies))
        else:
            for node in pending.values:
                placed[id(node)] = build.input_node(key_of(node).content, node.shape, node.dtype)
            action = Decide(tuple(placed[id(n)].attrs for n in pending.values), label)
        needed = self._needed(frames, skip_top=pending.call is not None)
        for scope, names in needed:
            scope.values = {
                name: replace_nodes(value, place) for name, value in scope.values.items() if name in names
            }
        graph = _graph(outputs) if outputs else None
        return Segment(graph, action, Cut(self, State(frames, importer.count, counter, state.assumed)))

    def _needed(self, frames: list[Frame], skip_top: bool) -> list[tuple[Scope, set[str]]]:
        """Every scope with the names in it that are still read."""
        result: dict[int, tuple[Scope, set[str]]] = {}
        for number, frame in enumerate(frames):
            top = number == len(frames) - 1
            if top and skip_top:
                frame = replace(frame, position=frame.position + 1)
            names = frame.needs()
            for scope in frame.scope.chain():
                result.setdefault(id(scope), (scope, set()))[1].update(names)
        return list(result.values())


def _is_free(node: Node) -> bool:
    """Whether the next segment can read a value as cheaply as this one: an input, or a view of one."""
    return node.op == "INPUT" or (
        node.op == "VIEW" and len(node.inputs) == 1 and node.inputs[0].op in ("INPUT", "CONST")
    )


CHEAP = 4096
"""Elements computed up to which a value that decides is computed twice: before the segment, and in it."""


def _is_cheap(node: Node) -> bool:
    """Whether a value takes next to nothing to compute from the leaves."""
    return work_of(topological_order([node])) <= CHEAP


def _graph(outputs: dict[str, Node]) -> Graph:
    inputs = {n.attrs: n for n in topological_order(outputs.values()) if n.op == "INPUT"}
    return Graph(inputs, outputs)


# ---- whole models


def start(model: OnnxModel, signatures: Mapping[str, Signature]) -> Segment:
    """The first segment of a model whose inputs, by name, have these signatures.

    The graph of a model that is one segment takes all tensor inputs in the model's order. Raises what
    importing a model raises (`import_graph`), but NeedsValue only where a value is no value of a tensor.
    """
    missing = [unsupported_input(v) for v in model.inputs if not supported_input(v)]
    missing += functions.blockers(model, model.nodes)
    if missing:
        raise UnsupportedModel(missing)
    return first_segment(model, signatures, Importer)


def first_segment(
    model: OnnxModel, signatures: Mapping[str, Signature], importer: type[Importer]
) -> Segment:
    """`start` without the search for blockers, by an importer of this class."""
    scope = Scope(opsets=model.opsets)
    importer(model).add_initializers(model.proto.graph, scope)
    inputs: dict[str, Node] = {}
    for value in [*model.inputs, *(v for v in model.overridable if v.name in signatures)]:
        described = signatures.get(value.name)
        if described is None and not value.onnx_type.startswith("optional("):
            raise InvalidArgument(f"no shape is given for the input '{value.name}'")
        if isinstance(described, tuple) and described[0] not in ("list", "string"):
            checked_shape(value, described[1], model.limits)
        made = value_of(described, value.name)
        scope.values[value.name] = made
        inputs.update({n.attrs: n for n in nodes_of(made)})
    names = Names({v.name for v in (*model.inputs, *model.overridable)})
    trace = Trace(model, names, [v.name for v in model.outputs], importer)
    segment = trace.start(Frame(model.nodes, scope))
    if segment.whole and segment.graph is not None:
        outputs = dict(zip(trace.outputs, segment.graph.outputs.values()))
        segment.graph = Graph(inputs, outputs, model.proto.graph.name)
    return segment


# ---- subgraphs that the host drives


class Body:
    """A subgraph that a host call runs again and again: a loop's body, a map's function.

    `captured` are the names of the outer values that it reads; they follow the subgraph's own inputs in a
    call. Outer values that are constants are part of the body.
    """

    def __init__(self, model: OnnxModel, graph: GraphProto, scope: Scope, prefix: str):
        self.model, self.graph = model, graph
        self._scope = Scope(
            opsets=scope.opsets, prefix=f"{prefix}/", depth=scope.depth + 1, attributes=scope.attributes
        )
        self.captured: list[str] = []
        self.outer: list[Value] = []
        importer = Importer(model)
        for name in sorted(free_names(graph)):
            value = scope.find(name)
            if value is None:
                continue
            constant = isinstance(value, HostValue) and value.known is not None
            if constant or (isinstance(value, Node) and importer.known(value) is not None):
                self._scope.values[name] = value
            else:
                self.captured.append(name)
                self.outer.append(value)
        names = [v.name for v in graph.input]
        self.inputs = [*names, *self.captured]
        keys = Names(set(self.inputs))
        self._trace = Trace(model, keys, [v.name for v in graph.output])

    def start(self, signatures: Sequence[Signature]) -> Segment:
        """The first segment for inputs of these signatures, in the order of `inputs`."""
        base = self._scope
        scope = Scope(dict(base.values), {}, None, base.opsets, base.prefix, base.depth, base.attributes)
        importer = Importer(self.model)
        count = len(self.graph.input)
        for name, described in zip(self.inputs[count:], signatures[count:]):
            scope.values[name] = value_of(described, name)
        outer = set(scope.values)
        importer.add_initializers(self.graph, scope)
        for name, described in zip(self.inputs[:count], signatures[:count]):
            scope.values[name] = value_of(described, name)
        nodes = ordered_nodes(self.graph, self.graph.node, outer, where=f"subgraph '{self.graph.name}'")
        missing = functions.blockers(self.model, nodes, scope.opsets)
        if missing:
            raise UnsupportedModel(missing)
        return self._trace.start(Frame(nodes, scope, what=f"subgraph '{self.graph.name}'"))
