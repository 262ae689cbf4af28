"""The transpose of movement: where a VIEW reads, its gradient adds.

The gradient by the source of a view sums, for every source position, the gradients of all output positions
that read it. Where the view's indices are affine in the output axes, with divisions and remainders, the
positions that read a source position are found by solving its equations, and the sum is a reduction of a view
of the gradient: convolutions and matrix products stay contractions, and nothing is written twice. Otherwise
(indices from data, or solutions that would be tried in vain) it is a SCATTER.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

from tinyinfer.errors import NotImplemented as NotSupported
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.index import (
    Atom,
    Axis,
    FloorDiv,
    Index,
    Mod,
    flatten,
    floor_divide,
    index,
    modulo,
    substitute,
)
from tinyinfer.ir.node import Node, ScatterMap, ViewMap, node, output_axis

SEARCH_LIMIT = 8
"""A solution that tries more than so many times the elements of the gradient is a SCATTER instead."""


def spread_over(x: Node, shape: Sequence[int], axes: Sequence[int]) -> Node:
    """`x` repeated along new `axes`, which brings it to `shape`: the transpose of a sum over them."""
    kept = [index(output_axis(i, d)) for i, d in enumerate(shape) if i not in axes]
    return build.view(x, kept, shape)


def transposed_view(view: Node, gradient: Node) -> Node:
    """The gradient by the source of a VIEW, given the gradient by the view."""
    source = view.inputs[0]
    if not source.size or not gradient.size:
        return build.full(0, source.shape, source.dtype)
    solution = _solve(view) if len(view.inputs) == 1 else None
    return _scattered(view, gradient) if solution is None else _gathered(source, gradient, solution)


def _scattered(view: Node, gradient: Node) -> Node:
    """Every output position adds its gradient where it read."""
    source, places = view.inputs[0], view.attrs
    base = build.full(0, source.shape or (1,), source.dtype)
    target = ScatterMap(places.indices or (index(0),), places.guards, "SUM")
    total = node("SCATTER", (base, gradient, *view.inputs[1:]), target, base.shape, base.dtype)
    return build.reshape(total, source.shape)


def transposed_scatter(scatter: Node, gradient: Node) -> Sequence[Node | None]:
    """Gradients by base and updates of a SCATTER that adds or replaces."""
    base, updates, *slots = scatter.inputs
    places = scatter.attrs

    def read(x: Node, fill: int) -> Node:
        where = ViewMap(places.indices, places.guards, fill)
        return node("VIEW", (x, *slots), where, updates.shape, x.dtype)

    part = read(gradient, 0)
    if places.combine == "SUM":
        return [gradient, part, *[None] * len(slots)]
    if places.combine != "SET":
        raise NotSupported(f"SCATTER by {places.combine} has no gradient")
    # which update won each place: its number, or -1 where the base stayed
    number = build.position(flatten(updates.axes, updates.shape), updates.shape, "int64")
    nobody = build.full(-1, base.shape, "int64")
    target = ScatterMap(places.indices, places.guards, "SET")
    winner = node("SCATTER", (nobody, number, *slots), target, base.shape, "int64")
    zero, lost = (build.full(0, x.shape, gradient.dtype) for x in (base, updates))
    kept = elementwise("WHERE", elementwise("CMPEQ", winner, nobody), gradient, zero)
    won = elementwise("WHERE", elementwise("CMPEQ", read(winner, -1), number), part, lost)
    return [kept, won, *[None] * len(slots)]


# ---- solving for the output positions


@dataclass
class _Solution:
    """Each output axis as an index over the source's axes and `free` axes behind them, with conditions."""

    places: list[Index]
    guards: list[tuple[Index, int]]
    free: list[int]


@dataclass
class _Equation:
    """Σ coefficient · unknown = right, where `right` is over axes of the result."""

    unknowns: dict[Axis, int]
    right: Index


@dataclass
class _System:
    rank: int
    solved: dict[Axis, Index] = field(default_factory=dict)
    guards: list[tuple[Index, int]] = field(default_factory=list)
    free: list[int] = field(default_factory=list)
    equations: list[_Equation] = field(default_factory=list)
    parts: dict[tuple[Index, int], tuple[Axis, int, Axis]] = field(default_factory=dict)

    def linear(self, value: Index) -> tuple[dict[Axis, int], int]:
        """`value` over unknowns: quotients and remainders become unknowns with an equation of their own."""
        total: dict[Axis, int] = {}
        const = value.const
        for atom, c in value.terms:
            unknown: Atom = atom
            if isinstance(atom, (FloorDiv, Mod)):
                quotient, shift, rest = self._divided(atom.inner, atom.divisor)
                unknown = quotient if isinstance(atom, FloorDiv) else rest
                const += c * shift if isinstance(atom, FloorDiv) else 0
            assert isinstance(unknown, Axis)
            if unknown.size > 1:
                total[unknown] = total.get(unknown, 0) + c
        return {u: c for u, c in total.items() if c}, const

    def _divided(self, inner: Index, divisor: int) -> tuple[Axis, int, Axis]:
        """inner = divisor · (quotient + shift) + rest."""
        found = self.parts.get((inner, divisor))
        if found is None:
            low, high = inner.lo // divisor, inner.hi // divisor
            number = len(self.parts)
            quotient, rest = Axis(f"q{number}", high - low + 1), Axis(f"r{number}", divisor)
            found = self.parts[inner, divisor] = quotient, low, rest
            left, const = self.linear(inner)
            for unknown, c in ((quotient, divisor), (rest, 1)):
                if unknown.size > 1:
                    left[unknown] = left.get(unknown, 0) - c
            self.equations.append(_Equation(left, index(divisor * low - const)))
        return found

    def release(self, unknown: Axis) -> None:
        """Try every value of `unknown`."""
        self.solved[unknown] = index(output_axis(self.rank + len(self.free), unknown.size))
        self.free.append(unknown.size)

    def settle(self, equation: _Equation, released: Sequence[Axis]) -> None:
        """Solve `equation`; what is left of its unknowns without `released` is told apart by size."""
        for unknown in released:
            self.release(unknown)
        right, rest = equation.right, []
        for unknown, c in equation.unknowns.items():
            if unknown in self.solved:
                right = right - self.solved[unknown] * c
            else:
                rest.append((unknown, c))
        for unknown, c in rest:
            if c < 0:  # count it from its end
                right = right - c * (unknown.size - 1)
        for unknown, c in sorted(rest, key=_by_step, reverse=True):
            step = abs(c)
            value, right = floor_divide(right, step), modulo(right, step)
            self.guards.append((value, unknown.size))
            self.solved[unknown] = value if c > 0 else index(unknown.size - 1) - value
        # what is left over must be nothing
        self.guards.append((right, 1))

    def cheapest(self, equation: _Equation) -> tuple[int, int, list[Axis]]:
        """How many values must be tried, for how many unknowns, and which unknowns, to solve `equation`."""
        unknowns = [(u, c) for u, c in equation.unknowns.items() if u not in self.solved]
        best: tuple[int, int, list[Axis]] | None = None
        for count in range(len(unknowns) + 1):
            for chosen in combinations(unknowns, count):
                if _distinct([u for u in unknowns if u not in chosen]):
                    tries = math.prod(u.size for u, _ in chosen)
                    if best is None or tries < best[0]:
                        best = tries, len(unknowns), [u for u, _ in chosen]
        assert best is not None
        return best


def _by_step(item: tuple[Axis, int]) -> int:
    return abs(item[1])


def _distinct(unknowns: Sequence[tuple[Axis, int]]) -> bool:
    """Whether a sum tells its unknowns: each step is larger than all smaller ones reach together."""
    reach = 0
    for unknown, c in sorted(unknowns, key=_by_step):
        if abs(c) <= reach:
            return False
        reach += abs(c) * (unknown.size - 1)
    return True


def _solve(view: Node) -> _Solution | None:
    """Which output positions of a view read a source position; None where a SCATTER is better."""
    source = view.inputs[0]
    system = _System(len(source.shape))
    renamed: dict[Atom, Index] = {}
    outputs = []
    for position, size in enumerate(view.shape):
        outputs.append(Axis(f"u{position}", size))
        renamed[output_axis(position, size)] = index(outputs[-1])
    for position, (place, size) in enumerate(zip(view.attrs.indices, source.shape)):
        unknowns, const = system.linear(substitute(place, renamed))
        system.equations.append(_Equation(unknowns, index(output_axis(position, size)) - const))
    pending = list(system.equations)
    while pending:
        costs = [system.cheapest(e) for e in pending]
        chosen = min(range(len(pending)), key=lambda i: costs[i][:2])
        system.settle(pending.pop(chosen), costs[chosen][2])
    for unknown in outputs:
        if unknown.size > 1 and unknown not in system.solved:
            system.release(unknown)
    if source.size * math.prod(system.free) > SEARCH_LIMIT * max(view.size, source.size):
        return None
    solved: dict[Atom, Index] = {
        output_axis(i, u.size): system.solved.get(u, index(0)) for i, u in enumerate(outputs)
    }
    guards = system.guards + [(substitute(g, solved), n) for g, n in view.attrs.guards]
    return _Solution([solved[output_axis(i, u.size)] for i, u in enumerate(outputs)], guards, system.free)


def _gathered(source: Node, gradient: Node, solution: _Solution) -> Node:
    shape = (*source.shape, *solution.free)
    seen = _viewed(gradient, solution, shape)
    return build.reduce("SUM", seen, range(len(source.shape), len(shape)))


def _viewed(x: Node, solution: _Solution, shape: Sequence[int]) -> Node:
    """The view of a gradient; that of a product is a product of views, so that contractions are seen."""
    if x.op == "MUL":
        return elementwise("MUL", *(_viewed(part, solution, shape) for part in x.inputs))
    return build.view(x, solution.places, shape, solution.guards, 0)
