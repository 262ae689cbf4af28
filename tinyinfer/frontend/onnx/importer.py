"""Importing nodes: call the op table, fold small constants, record origins, enter functions and branches.

`Importer.advance` walks a stack of frames (the graph, the functions and branches entered) until it is done or
comes to a node whose results the host computes. `trace` cuts the model there; `whole` is for models that
need no such cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto

from tinyinfer.budget import check_time
from tinyinfer.errors import TinyInferError
from tinyinfer.frontend.onnx import functions
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.errors import (
    InvalidArgument,
    InvalidGraph,
    NeedsHost,
    NeedsValue,
    NotSupported,
    UnsupportedModel,
)
from tinyinfer.frontend.onnx.known import KnownValues
from tinyinfer.frontend.onnx.model import OnnxModel, function_key, node_name, ordered_nodes
from tinyinfer.frontend.onnx.op_table import OpEntry, canonical_domain
from tinyinfer.frontend.onnx.schema_functions import function_body
from tinyinfer.frontend.onnx.scope import Frame, Scope
from tinyinfer.frontend.onnx.strings import on_strings
from tinyinfer.frontend.onnx.type_check import refuse_foreign_types
from tinyinfer.frontend.onnx.values import (
    HostCall,
    HostValue,
    SequenceValue,
    Value,
    describe,
    nodes_of,
    replace_nodes,
)
from tinyinfer.ir import build
from tinyinfer.ir.node import Node
from tinyinfer.limits import MAX_RANK, Limits


@dataclass
class Pending:
    """A node that waits: for the results of a host call, or for what `wanted` is, which some of its inputs
    (`values`) decide."""

    context: NodeContext
    call: HostCall | None = None
    wanted: Node | None = None
    values: tuple[Node, ...] = ()


class Importer:
    """The state of importing one graph. `count` is the number of nodes that were imported before; `assumed`
    are values that depend on inputs, with what they are taken to be.
    """

    def __init__(
        self,
        model: OnnxModel,
        limits: Limits | None = None,
        count: int = 0,
        assumed: Sequence[tuple[Node, np.ndarray]] = (),
    ):
        self.model, self.reader = model, model.reader
        self.limits = limits if limits is not None else model.limits
        self.count = count
        self.nested = 0
        """How many subgraphs around the node that is being imported cannot be cut."""
        self._seen: set[int] = set()
        self._alive: list[Node] = []
        self._known = KnownValues(self.limits, assumed)

    # ---- frames

    def advance(self, frames: list[Frame]) -> Pending | None:
        """Import until the lowest frame is done (None) or a node has to wait for the host."""
        while frames:
            frame = frames[-1]
            if frame.position == len(frame.nodes):
                frames.pop()
                if frames:
                    self._hand_over(frame, frames[-1].scope)
                continue
            node = frame.nodes[frame.position]
            self.count += 1
            check_time()
            if self.count > self.limits.max_nodes:
                raise InvalidGraph(
                    f"the model has more than {self.limits.max_nodes} nodes (max_nodes) with its functions "
                    "inlined"
                )
            context = self._context(node, frame)
            outcome = self._node(context, frame)
            if isinstance(outcome, HostCall):
                return Pending(context, outcome)
            frame.position += 1
            if isinstance(outcome, Frame):
                frames.append(outcome)
        return None

    def advance_or_ask(self, frames: list[Frame]) -> Pending | None:
        """As `advance`; a node that needs the value of one of its inputs waits for it."""
        try:
            return self.advance(frames)
        except NeedsValue as error:
            frame = frames[-1]
            context = self._context(frame.nodes[frame.position], frame)
            values = self._deciding(context, frame.scope, error.node)
            if error.node is None or frame.asked > self.limits.max_nodes:
                raise
            self.count -= 1
            return Pending(context, None, error.node, values)

    def _deciding(self, context: NodeContext, scope: Scope, wanted: Node | None) -> tuple[Node, ...]:
        """The unknown inputs of a node on which the value `wanted` depends."""
        if wanted is None:
            return ()
        inputs = [scope.find(name) for name in context.proto.input if name]
        outer = [value for s in scope.chain() for value in s.values.values()]
        # a subgraph of the node may need what the node itself does not read
        for values in (inputs, outer):
            named = {id(n) for value in values for n in nodes_of(value) if self.known(n) is None}
            found: dict[int, Node] = {}
            stack, seen = [wanted], set()
            while stack:
                current = stack.pop()
                if id(current) in named:
                    found[id(current)] = current
                elif id(current) not in seen:
                    seen.add(id(current))
                    stack.extend(current.inputs)
            if found:
                return tuple(found.values())
        return ()

    def _hand_over(self, frame: Frame, scope: Scope) -> None:
        for inner, outer in frame.results:
            found = frame.scope.find(inner)
            if found is None:
                raise InvalidGraph(f"the {frame.what} makes no '{inner}'")
            scope.values[outer] = found

    def _context(self, node: NodeProto, frame: Frame) -> NodeContext:
        scope = frame.scope
        domain = canonical_domain(node.domain)
        name = scope.prefix + node_name(node, frame.position)
        opset = scope.opsets.get(domain, 1)
        return NodeContext(node, name, domain, opset, self._attributes(node, scope), self, scope)

    def _node(self, context: NodeContext, frame: Frame) -> HostCall | Frame | None:
        """Import one node: its results are in the scope, or a frame to enter, or a host call to wait for."""
        node, scope = context.proto, frame.scope
        inputs = [self._input(context, n, scope) for n in node.input]
        function = self.model.functions.get(function_key(node))
        entry = self.model.find_op(context.domain, node.op_type, context.opset)
        if function is not None and (entry is None or context.domain != "ai.onnx"):
            return self._call(function, context, inputs)
        if entry is None:
            body = function_body(context.domain, node, context.opset, inputs)
            if body is None:
                raise UnsupportedModel([functions.blocker_line(node, context.name, context.opset)])
            return self._call(body, context, inputs)
        return self._import(entry, context, inputs)

    @staticmethod
    def _attributes(node: NodeProto, scope: Scope) -> dict[str, AttributeProto]:
        """The attributes of a node; a reference to a parameter of the function around it is resolved."""
        result = {}
        for attribute in node.attribute:
            if attribute.name in result:
                raise InvalidGraph(
                    f"node '{node.name}' ({node.op_type}) has two attributes '{attribute.name}'"
                )
            if attribute.ref_attr_name:
                given = scope.attributes.get(attribute.ref_attr_name)
                if given is not None:
                    result[attribute.name] = given
            else:
                result[attribute.name] = attribute
        return result

    @staticmethod
    def _input(context: NodeContext, name: str, scope: Scope) -> Value | None:
        if not name:
            return None
        found = scope.find(name)
        if found is None:
            context.fail(f"reads '{name}', which is no input, no initializer and no earlier node's output")
        return found

    def _import(
        self, entry: OpEntry, context: NodeContext, inputs: list[Value | None]
    ) -> HostCall | Frame | None:
        fewest, most = entry.inputs
        while inputs and inputs[-1] is None:
            inputs.pop()
        if len(inputs) < fewest or any(x is None for x in inputs[:fewest]):
            context.fail(
                f"takes at least {fewest} inputs, but {sum(x is not None for x in inputs)} are given"
            )
        if most is not None and len(inputs) > most:
            context.fail(f"takes at most {most} inputs, not {len(inputs)}")
        refuse_foreign_types(context, inputs)
        try:
            result: Any = self._results(entry, context, inputs)
        except (ValueError, IndexError, OverflowError, ZeroDivisionError) as error:
            if isinstance(error, (InvalidGraph, InvalidArgument)):
                raise
            raise InvalidGraph(f"{context.label}: {error}") from error
        if isinstance(result, HostCall):
            try:
                known = self._call_now(context, result)
            except (ValueError, IndexError, TypeError, OverflowError, KeyError) as error:
                if isinstance(error, TinyInferError):
                    raise
                raise InvalidGraph(f"{context.label}: {error}") from error
            if known is None:
                return result
            result = known
        if isinstance(result, Frame):
            return result
        results = list(result) if isinstance(result, (tuple, list)) else [result]
        self.bind(context, inputs, results)
        return None

    def _results(self, entry: OpEntry, context: NodeContext, inputs: list[Value | None]) -> Any:
        other = [x for x in inputs if x is not None and not isinstance(x, Node)]
        if other and not entry.values:
            if all(isinstance(x, HostValue) and x.kind == "string" for x in other):
                return on_strings(entry, context, inputs)
            context.fail(f"takes tensors, not a {describe(other[0])}")
        return entry.function(context, *inputs)

    def bind(
        self, context: NodeContext, inputs: Sequence[Value | None], results: Sequence[Value | None]
    ) -> None:
        """Give the results of a node their names in its scope."""
        names = list(context.proto.output)
        results = [*results, *[None] * (len(names) - len(results))][: len(names)]
        for name, value in zip(names, results):
            for made in nodes_of(value):
                if not self.limits.allows(made.shape):
                    context.fail(
                        f"the output '{name}' of shape {list(made.shape)} is over the limits: max_elements = "
                        f"{self.limits.max_elements}, {MAX_RANK} dimensions"
                    )
            if isinstance(value, SequenceValue) and len(value.elements) > self.limits.max_sequence:
                context.fail(
                    f"the sequence '{name}' has {len(value.elements)} elements, over the limit "
                    f"max_sequence = {self.limits.max_sequence}"
                )
        folded = self._fold(inputs, results) if context.folds else results
        self._record_origin([n for r in folded for n in nodes_of(r)], context.name)
        for name, value in zip(names, folded):
            if not name:
                continue
            if value is None:
                context.scope.unavailable[name] = f"{context.label}: the output '{name}' is not supported"
                continue
            context.scope.values[name] = value

    def _call_now(self, context: NodeContext, call: HostCall) -> list[Value] | None:
        """The results of a host call whose inputs are all known and small; None if they are not."""
        if call.bodies or call.fresh:
            return None
        arguments: list[Any] = []
        for value in call.inputs:
            if value is None:
                arguments.append(None)
            elif isinstance(value, Node):
                known = self.known(value)
                if known is None or known.size > self.limits.fold_elements:
                    return None
                arguments.append(known)
            elif isinstance(value, HostValue) and value.known is not None:
                arguments.append(value.known)
            else:
                return None
        results: list[Value] = []
        for made in call.function(*arguments):
            if not isinstance(made, np.ndarray):
                return None
            string = made.dtype.kind in "OSU"
            results.append(HostValue("string", "", made.shape, made) if string else build.constant(made))
        return results

    # ---- functions and branches

    def _call(self, function: FunctionProto, context: NodeContext, inputs: Sequence[Value | None]) -> Frame:
        """The frame of a model-local function, or of the body that ONNX gives for an op."""
        scope = context.scope
        self._check_depth(context)
        if len(inputs) > len(function.input):
            context.fail(f"the function takes {len(function.input)} inputs, not {len(inputs)}")
        attributes = {a.name: a for a in function.attribute_proto}
        attributes.update(self._attributes(context.proto, scope))
        opsets = {canonical_domain(o.domain): int(o.version) for o in function.opset_import}
        inner = Scope(
            opsets=opsets or scope.opsets,
            prefix=f"{context.name}/",
            depth=scope.depth + 1,
            attributes=attributes,
        )
        for name, value in zip(function.input, [*inputs, *[None] * len(function.input)]):
            if value is not None:
                inner.values[name] = value
        nodes = ordered_nodes(None, function.node, (), function.input, f"function '{function.name}'")
        absent = set(function.input) - inner.values.keys()
        results = tuple((made, name) for name, made in zip(context.proto.output, function.output) if name)
        return Frame(
            [_without(n, absent) for n in nodes] if absent else nodes,
            inner,
            results,
            what=f"function '{function.name}' of {context.label}",
        )

    def _check_depth(self, context: NodeContext) -> None:
        if context.scope.depth >= self.limits.max_depth:
            context.fail(f"functions and branches are nested more than {self.limits.max_depth} deep")

    def enter(
        self,
        context: NodeContext,
        graph: GraphProto,
        inputs: Sequence[Value | None] = (),
        results: Sequence[str] | None = None,
    ) -> Frame:
        """The frame of a subgraph of `context`, its inputs bound to these values.

        `results` are the names that its outputs get; None: those of the node's outputs.
        """
        scope = context.scope
        self._check_depth(context)
        if len(graph.input) > len(inputs):
            context.fail(f"the subgraph '{graph.name}' takes {len(graph.input)} inputs, not {len(inputs)}")
        inner = Scope(
            outer=scope,
            opsets=scope.opsets,
            prefix=f"{context.name}/",
            depth=scope.depth + 1,
            attributes=scope.attributes,
        )
        self.add_initializers(graph, inner)
        for declared, value in zip(graph.input, inputs):
            if value is not None:
                inner.values[declared.name] = value
        nodes = ordered_nodes(graph, graph.node, scope.names(), where=f"branch '{graph.name}'")
        missing = functions.blockers(self.model, nodes, scope.opsets)
        if missing:
            raise UnsupportedModel(missing)
        names = list(context.proto.output) if results is None else list(results)
        if len(graph.output) < len(names):
            context.fail(f"the branch '{graph.name}' has {len(graph.output)} outputs, not {len(names)}")
        bound = tuple((v.name, name) for v, name in zip(graph.output, names) if name)
        return Frame(nodes, inner, bound, what=f"branch '{graph.name}' of {context.label}")

    def subgraph(
        self, context: NodeContext, graph: GraphProto, inputs: Sequence[Value | None] = ()
    ) -> list[Value]:
        """The outputs of a subgraph with its inputs bound to these values, inlined where `context` stands.

        NeedsHost or NeedsValue where something in it cannot be part of one graph.
        """
        frame = self.enter(context, graph, inputs, [])
        self.nested += 1
        try:
            pending = self.advance([frame])
        finally:
            self.nested -= 1
        if pending is not None:
            raise NeedsHost(f"{pending.context.label}: its results are computed by the host")
        results = []
        for value in graph.output:
            found = frame.scope.find(value.name)
            if found is None:
                context.fail(f"the branch '{graph.name}' makes no '{value.name}'")
            results.append(found)
        return results

    def add_initializers(self, graph: GraphProto, scope: Scope) -> None:
        """The weights of a graph as values of its scope."""
        for tensor in graph.initializer:
            what = f"initializer '{tensor.name}'"
            try:
                scope.values[tensor.name] = self.reader.value(tensor, what)
            except NotSupported as error:
                scope.unavailable[tensor.name] = str(error)
        for sparse in graph.sparse_initializer:
            name = sparse.values.name
            scope.values[name] = build.constant(self.reader.sparse(sparse, f"sparse initializer '{name}'"))

    # ---- constants and origins

    def known(self, x: Node) -> np.ndarray | None:
        """The value of `x` if it depends on no graph input and is small enough to compute here, else None."""
        return self._known.of(x)

    def _fold(self, inputs: Sequence[Value | None], results: Sequence[Value | None]) -> list[Value | None]:
        """Results computed at once if everything about them is small and constant."""
        limit = self.limits.fold_elements
        if any(n.op != "CONST" or n.size > limit for x in inputs for n in nodes_of(x)):
            return list(results)

        def fold(made: Node) -> Node:
            if made.op == "CONST" or made.size > limit:
                return made
            value = self.known(made)
            return made if value is None else build.constant(value)

        return [replace_nodes(result, fold) for result in results]

    def _record_origin(self, results: list[Node], name: str) -> None:
        """Give every node that was made for `name` its origin; nodes of earlier ONNX nodes keep theirs."""
        stack = [r for r in results if r.op not in ("INPUT", "CONST")]
        for result in stack:
            result.origin = result.origin | {name}
        while stack:
            current = stack.pop()
            if id(current) in self._seen:
                continue
            self._seen.add(id(current))
            self._alive.append(current)
            if current.op not in ("INPUT", "CONST"):
                current.origin = current.origin | {name}
                stack.extend(current.inputs)


def _without(node: NodeProto, absent: set[str]) -> NodeProto:
    """`node` with the names in `absent` (optional parameters that the caller left out) as missing inputs."""
    if not absent.intersection(node.input):
        return node
    copy = NodeProto()
    copy.CopyFrom(node)
    for position, name in enumerate(copy.input):
        if name in absent:
            copy.input[position] = ""
    return copy
