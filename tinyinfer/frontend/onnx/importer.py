"""From a loaded model to a Graph: walk the nodes, call the op table, fold small constants, record origins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto

from tinyinfer.frontend.onnx import functions
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.errors import InvalidArgument, InvalidGraph, NotSupported, UnsupportedModel
from tinyinfer.frontend.onnx.limits import Limits
from tinyinfer.frontend.onnx.model import OnnxModel, ValueSpec, function_key, node_name, ordered_nodes
from tinyinfer.frontend.onnx.op_table import OpEntry, canonical_domain, find_op
from tinyinfer.frontend.onnx.tensors import NUMERIC
from tinyinfer.ir import build
from tinyinfer.ir.node import Graph, Node
from tinyinfer.ir.oracle import evaluate


@dataclass
class Scope:
    """The values visible in one graph: its own, then those of the graph around it."""

    values: dict[str, Node] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    outer: Scope | None = None
    opsets: Mapping[str, int] = field(default_factory=dict)
    prefix: str = ""
    depth: int = 0
    attributes: Mapping[str, AttributeProto] = field(default_factory=dict)

    def find(self, name: str) -> Node | None:
        """The value of `name` here or further out; None if there is none."""
        scope: Scope | None = self
        while scope is not None:
            found = scope.values.get(name)
            if found is not None:
                return found
            if name in scope.unavailable:
                raise NotSupported(scope.unavailable[name])
            scope = scope.outer
        return None

    def names(self) -> set[str]:
        """Every visible name."""
        scope: Scope | None = self
        found: set[str] = set()
        while scope is not None:
            found |= scope.values.keys() | scope.unavailable.keys()
            scope = scope.outer
        return found


def import_graph(
    model: OnnxModel,
    shapes: Mapping[str, Sequence[int]],
    known_values: Mapping[str, np.ndarray] | None = None,
) -> Graph:
    """The Graph of `model` at the given shapes of its inputs (one concrete shape for each).

    `known_values` gives inputs whose value is fixed; they stay in the signature, and the result is right for
    these values only. An overridable initializer becomes an input only if `shapes` names it.

    Raises UnsupportedModel with every node that has no implementation, InvalidGraph for a broken model,
    NeedsValue where a shape depends on an input's value, InvalidArgument for wrong shapes.
    """
    return Importer(model, model.limits).run(shapes, known_values or {})


def blockers(model: OnnxModel) -> list[str]:
    """One line for each input and node that cannot be imported. Branches of If are checked when taken."""
    inputs = [_unsupported_input(v) for v in model.inputs if v.dtype not in NUMERIC]
    return inputs + functions.blockers(model, model.nodes)


def _unsupported_input(value: ValueSpec) -> str:
    return f"the input '{value.name}' is a {value.onnx_type or 'value of no type'}, which is not supported"


class Importer:
    """The state of one import."""

    def __init__(self, model: OnnxModel, limits: Limits):
        self.model, self.limits, self.reader = model, limits, model.reader
        self._seen: set[int] = set()
        self._alive: list[Node] = []
        self._known: dict[int, np.ndarray | None] = {}
        self._open: dict[int, bool] = {}
        self._count = 0

    def run(self, shapes: Mapping[str, Sequence[int]], known_values: Mapping[str, np.ndarray]) -> Graph:
        """The whole model as a Graph."""
        missing = blockers(self.model)
        if missing:
            raise UnsupportedModel(missing)
        proto = self.model.proto.graph
        scope = Scope(opsets=self.model.opsets)
        self._add_initializers(proto, scope)
        inputs = self._inputs(shapes, known_values, scope)
        self.import_nodes(self.model.nodes, scope)
        outputs: dict[str, Node] = {}
        for value in self.model.outputs:
            found = scope.find(value.name)
            if found is None:
                raise InvalidGraph(f"the graph output '{value.name}' is made by no node")
            outputs[value.name] = found
        return Graph(inputs, outputs, proto.name)

    def _inputs(
        self, shapes: Mapping[str, Sequence[int]], known_values: Mapping[str, np.ndarray], scope: Scope
    ) -> dict[str, Node]:
        inputs: dict[str, Node] = {}
        optional = [v for v in self.model.overridable if v.name in shapes]
        for value in [*self.model.inputs, *optional]:
            if value.dtype not in NUMERIC:
                raise NotSupported(_unsupported_input(value))
            if value.name not in shapes:
                raise InvalidArgument(f"no shape is given for the input '{value.name}'")
            shape = tuple(int(d) for d in shapes[value.name])
            declared = value.shape
            if declared is not None and (
                len(declared) != len(shape)
                or any(isinstance(d, int) and d != s for d, s in zip(declared, shape))
            ):
                raise InvalidArgument(
                    f"the input '{value.name}' has shape {list(declared)}, not {list(shape)}"
                )
            if any(d < 0 for d in shape):
                raise InvalidArgument(f"the input '{value.name}' cannot have shape {list(shape)}")
            made = build.input_node(value.name, shape, value.dtype)
            inputs[value.name] = scope.values[value.name] = made
            if value.name in known_values:
                array = np.asarray(known_values[value.name])
                if array.shape != shape or array.dtype.name != value.dtype:
                    raise InvalidArgument(
                        f"the known value of '{value.name}' is {array.dtype} of shape "
                        f"{list(array.shape)}, not {value.dtype} of {list(shape)}"
                    )
                scope.values[value.name] = build.constant(array.copy(), name=value.name)
        return inputs

    def _add_initializers(self, graph: GraphProto, scope: Scope) -> None:
        for tensor in graph.initializer:
            what = f"initializer '{tensor.name}'"
            try:
                scope.values[tensor.name] = build.constant(self.reader.literal(tensor, what))
            except NotSupported as error:
                scope.unavailable[tensor.name] = str(error)
        for sparse in graph.sparse_initializer:
            name = sparse.values.name
            scope.values[name] = build.constant(self.reader.sparse(sparse, f"sparse initializer '{name}'"))

    # ---- nodes

    def import_nodes(self, nodes: Iterable[NodeProto], scope: Scope) -> None:
        """Import nodes that stand in order, adding their outputs to `scope`."""
        for position, node in enumerate(nodes):
            self._count += 1
            if self._count > self.limits.max_nodes:
                raise InvalidGraph(
                    f"the model has more than {self.limits.max_nodes} nodes with its functions inlined"
                )
            name = scope.prefix + node_name(node, position)
            domain = canonical_domain(node.domain)
            function = self.model.functions.get(function_key(node))
            opset = scope.opsets.get(domain, 1)
            entry = find_op(domain, node.op_type, opset)
            context = NodeContext(node, name, domain, opset, self._attributes(node, scope), self, scope)
            inputs = [self._input(context, n, scope) for n in node.input]
            if entry is None or (function is not None and domain != "ai.onnx"):
                if function is None:
                    raise UnsupportedModel([functions.blocker_line(node, name, opset)])
                self._call(function, context, inputs, scope)
            else:
                self._import(entry, context, inputs, scope)

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
    def _input(context: NodeContext, name: str, scope: Scope) -> Node | None:
        if not name:
            return None
        found = scope.find(name)
        if found is None:
            context.fail(f"reads '{name}', which is no input, no initializer and no earlier node's output")
        return found

    def _import(self, entry: OpEntry, context: NodeContext, inputs: list[Node | None], scope: Scope) -> None:
        fewest, most = entry.inputs
        while inputs and inputs[-1] is None:
            inputs.pop()
        if len(inputs) < fewest or any(x is None for x in inputs[:fewest]):
            context.fail(
                f"takes at least {fewest} inputs, but {sum(x is not None for x in inputs)} are given"
            )
        if most is not None and len(inputs) > most:
            context.fail(f"takes at most {most} inputs, not {len(inputs)}")
        try:
            result = entry.function(context, *inputs)
        except (ValueError, IndexError, OverflowError, ZeroDivisionError) as error:
            if isinstance(error, (InvalidGraph, InvalidArgument)):
                raise
            raise InvalidGraph(f"{context.label}: {error}") from error
        results = list(result) if isinstance(result, (tuple, list)) else [result]
        names = list(context.proto.output)
        results += [None] * (len(names) - len(results))
        results = self._fold(inputs, results[: len(names)])
        self._record_origin([r for r in results if r is not None], context.name)
        for name, value in zip(names, results):
            if not name:
                continue
            if value is None:
                scope.unavailable[name] = f"{context.label}: the output '{name}' is not supported"
            else:
                if value.size > self.limits.max_elements:
                    context.fail(
                        f"the output '{name}' of shape {list(value.shape)} is over the limit of "
                        f"{self.limits.max_elements} elements"
                    )
                scope.values[name] = value

    # ---- functions and branches

    def _call(
        self, function: FunctionProto, context: NodeContext, inputs: list[Node | None], scope: Scope
    ) -> None:
        """Inline a model-local function."""
        if scope.depth >= self.limits.max_depth:
            context.fail(f"functions and branches are nested more than {self.limits.max_depth} deep")
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
        self.import_nodes([_without(n, absent) for n in nodes] if absent else nodes, inner)
        for name, made in zip(context.proto.output, function.output):
            if name:
                found = inner.find(made)
                if found is None:
                    context.fail(f"the function makes no '{made}'")
                scope.values[name] = found

    def branch(
        self, context: NodeContext, graph: GraphProto, opsets: Mapping[str, int], inputs: Sequence[Node] = ()
    ) -> list[Node]:
        """The outputs of a subgraph, inlined where `context` stands; `inputs` stand for its own inputs."""
        scope = context.scope
        if scope.depth >= self.limits.max_depth:
            context.fail(f"functions and branches are nested more than {self.limits.max_depth} deep")
        inner = Scope(
            outer=scope,
            opsets=opsets,
            prefix=f"{context.name}/",
            depth=scope.depth + 1,
            attributes=scope.attributes,
        )
        self._add_initializers(graph, inner)
        inner.values.update(zip((value.name for value in graph.input), inputs))
        nodes = ordered_nodes(graph, graph.node, scope.names(), where=f"branch '{graph.name}'")
        missing = functions.blockers(self.model, nodes, opsets)
        if missing:
            raise UnsupportedModel(missing)
        self.import_nodes(nodes, inner)
        results = []
        for value in graph.output:
            found = inner.find(value.name)
            if found is None:
                context.fail(f"the branch '{graph.name}' makes no '{value.name}'")
            results.append(found)
        return results

    # ---- constants and origins

    def known(self, x: Node) -> np.ndarray | None:
        """The value of `x` if it depends on no graph input and is small enough to compute here, else None."""
        if x.op == "CONST":
            return x.attrs.array
        if id(x) not in self._known:
            self._alive.append(x)
            self._known[id(x)] = self._compute(x)
        return self._known[id(x)]

    def _compute(self, x: Node) -> np.ndarray | None:
        if self._is_open(x):
            return None
        return evaluate([x], {})[0]

    def _is_open(self, x: Node) -> bool:
        """Whether `x` depends on a graph input, or needs a value that is too large to compute here."""
        stack = [x]
        while stack:
            current = stack[-1]
            if id(current) in self._open:
                stack.pop()
                continue
            waiting = [n for n in current.inputs if id(n) not in self._open]
            if current.op != "CONST" and waiting:
                stack += waiting
                continue
            stack.pop()
            self._alive.append(current)
            self._open[id(current)] = current.op == "INPUT" or (
                current.op != "CONST"
                and (
                    current.size > self.limits.constant_elements
                    or any(self._open[id(n)] for n in current.inputs)
                )
            )
        return self._open[id(x)]

    def _fold(self, inputs: list[Node | None], results: list[Node | None]) -> list[Node | None]:
        """Results computed at once if everything about them is small and constant."""
        limit = self.limits.fold_elements
        if any(x is not None and (x.op != "CONST" or x.size > limit) for x in inputs):
            return results
        folded: list[Node | None] = []
        for result in results:
            if result is None or result.op == "CONST" or result.size > limit:
                folded.append(result)
                continue
            value = self.known(result)
            folded.append(result if value is None else build.constant(value))
        return folded

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
