"""What is known of values during an import: those that depend on no input, and those that are assumed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyinfer.budget import TooManyTrips, fewer_trips
from tinyinfer.ir import build
from tinyinfer.ir.node import Node, topological_order
from tinyinfer.ir.oracle import evaluate
from tinyinfer.ir.passes.rewrite import rebuilt
from tinyinfer.limits import Limits


class KnownValues:
    """The values of nodes, computed when asked for and kept. `assumed` are values that depend on inputs, with
    what they are taken to be.
    """

    def __init__(self, limits: Limits, assumed: Sequence[tuple[Node, np.ndarray]] = ()):
        self._limits = limits
        self._alive: list[Node] = []
        self._known: dict[int, np.ndarray | None] = {}
        self._open: dict[int, bool] = {}
        self._assumed = {id(node): build.constant(value) for node, value in assumed}
        for node, value in assumed:
            self._alive.append(node)
            self._known[id(node)], self._open[id(node)] = value, False

    def of(self, x: Node) -> np.ndarray | None:
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
        try:
            with fewer_trips(self._limits.fold_elements):
                return evaluate([self._settled(x)], {})[0]
        except TooManyTrips:
            return None

    def _settled(self, x: Node) -> Node:
        """`x` over constants in place of the values that are assumed."""
        if not self._assumed:
            return x
        memo: dict[int, Node] = {}
        for current in topological_order([x]):
            found = self._assumed.get(id(current))
            inputs = tuple(memo[id(n)] for n in current.inputs)
            memo[id(current)] = found if found is not None else rebuilt(current, inputs)
        return memo[id(x)]

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
                    current.size > self._limits.constant_elements
                    or any(self._open[id(n)] for n in current.inputs)
                )
            )
        return self._open[id(x)]
