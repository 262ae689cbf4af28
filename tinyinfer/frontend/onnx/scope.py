"""Where the import stands: the names that are visible, and the node lists that are being walked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from onnx import AttributeProto, GraphProto, NodeProto

from tinyinfer.frontend.onnx.errors import NotSupported

if TYPE_CHECKING:
    from tinyinfer.frontend.onnx.values import Value


@dataclass
class Scope:
    """The values visible in one graph: its own, then those of the graph around it."""

    values: dict[str, Value] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    outer: Scope | None = None
    opsets: Mapping[str, int] = field(default_factory=dict)
    prefix: str = ""
    depth: int = 0
    attributes: Mapping[str, AttributeProto] = field(default_factory=dict)
    functions: tuple[tuple[str, str, str], ...] = ()
    """The functions that are being inlined, outermost first."""

    def find(self, name: str) -> Value | None:
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

    def chain(self) -> list[Scope]:
        """This scope and those around it, innermost first."""
        result = [self]
        while result[-1].outer is not None:
            result.append(result[-1].outer)
        return result


@dataclass
class Frame:
    """A list of nodes being imported: those before `position` are done.

    `results` are pairs of a name in `scope` and the name that it gets in the scope of the frame below.
    """

    nodes: Sequence[NodeProto]
    scope: Scope
    results: tuple[tuple[str, str], ...] = ()
    position: int = 0
    what: str = "graph"
    asked: int = 0
    """How many values were asked for in it."""

    def needs(self) -> set[str]:
        """The names that the nodes from `position` on read, or that are results."""
        names = {inner for inner, _ in self.results}
        for node in self.nodes[self.position :]:
            names |= reads(node)
        return names


def reads(node: NodeProto) -> set[str]:
    """The names that a node reads, also from inside its subgraphs."""
    names = {name for name in node.input if name}
    for graph in subgraphs(node):
        names |= free_names(graph)
    return names


def subgraphs(node: NodeProto) -> list[GraphProto]:
    """The graphs in a node's attributes."""
    result: list[GraphProto] = []
    for attribute in node.attribute:
        if attribute.HasField("g"):
            result.append(attribute.g)
        result.extend(attribute.graphs)
    return result


def free_names(graph: GraphProto) -> set[str]:
    """The names that a subgraph reads from outside of it; a name that it also makes may be among them."""
    own = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    own |= {s.values.name for s in graph.sparse_initializer}
    made = {name for node in graph.node for name in node.output}
    names = {v.name for v in graph.output} - made
    for node in graph.node:
        names |= reads(node)
    return names - own - made
