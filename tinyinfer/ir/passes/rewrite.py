"""The driver of rewrite rules: rebuilds a graph bottom-up and keeps origins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tinyinfer.ir import build
from tinyinfer.ir.node import Graph, Node, node
from tinyinfer.ir.passes.steps import ROUNDING, deciding

MAX_STEPS = 16
"""Rules applied in a row to one node; rules that undo each other must not hang a compilation."""

LEAVES = frozenset(("INPUT", "CONST", "IOTA"))


class Users:
    """How many operands and outputs refer to each node; a node that a rule has just made has one user."""

    def __init__(self, graph: Graph, order: Sequence[Node]):
        self._count = Counter([id(x) for current in order for x in current.inputs])
        self._count.update(id(x) for x in graph.outputs.values())
        self._alive: list[Node] = []
        self._deciding = deciding(order, ROUNDING)

    def moved(self, old: Node, new: Node) -> None:
        """`new` takes the place of `old` among its users."""
        if old is not new:
            self._alive.append(new)
            self._count[id(new)] += self._count[id(old)]
            if id(old) in self._deciding:
                self._deciding.add(id(new))

    def single(self, current: Node) -> bool:
        """Whether nothing but the node being rewritten uses `current`."""
        return self._count[id(current)] <= 1

    def decides_step(self, current: Node) -> bool:
        """Whether a rounding to integers depends on the last bit of the node being rewritten."""
        return id(current) in self._deciding


Rule = Callable[[Node, Users], "Node | None"]
"""A rule looks at a node and gives what replaces it, or None. Tables list the rules of each op."""


def rewrite(graph: Graph, rules: Mapping[str, Sequence[Rule]]) -> Graph:
    """The graph with rules applied from the inputs up; the same object if no rule matched."""
    order = graph.nodes()
    users = Users(graph, order)

    def replaced(old: Node, current: Node) -> Node:
        users.moved(old, current)
        for _ in range(MAX_STEPS):
            found = None
            for rule in rules.get(current.op, ()):
                found = rule(current, users)
                if found is not None:
                    break
            if found is None or found is current:
                break
            inherit(found, current)
            users.moved(current, found)
            current = found
        return current

    return transform(graph, order, replaced)


def transform(graph: Graph, order: Sequence[Node], replaced: Callable[[Node, Node], Node]) -> Graph:
    """The graph with every node replaced by `replaced(node, node over its replaced inputs)`.

    `order` is `graph.nodes()`.
    """
    memo: dict[int, Node] = {}
    for old in order:
        current = rebuilt(old, tuple(memo[id(x)] for x in old.inputs))
        memo[id(old)] = replaced(old, current)
    outputs = {name: memo[id(x)] for name, x in graph.outputs.items()}
    if all(outputs[name] is x for name, x in graph.outputs.items()):
        return graph
    return Graph(graph.inputs, outputs, graph.name)


def rebuilt(old: Node, inputs: tuple[Node, ...]) -> Node:
    """`old` over other inputs of the same shapes and dtypes; a view of what is now a view becomes one."""
    if inputs == old.inputs:
        return old
    if old.op == "VIEW" and len(inputs) == 1:
        new = build.view(inputs[0], old.attrs.indices, old.shape, old.attrs.guards, old.attrs.fill)
        inherit(new, old)
        return new
    return node(old.op, inputs, old.attrs, old.shape, old.dtype, old.origin)


def inherit(new: Node, old: Node) -> None:
    """`new` stands for `old` now, so it also comes from where `old` came from. Leaves keep theirs."""
    if new.op not in LEAVES:
        new.origin = new.origin | old.origin


def joined(*nodes: Node) -> frozenset[str]:
    """The origins of nodes that one new node replaces."""
    return frozenset().union(*(x.origin for x in nodes))
