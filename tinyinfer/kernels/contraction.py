"""Contraction analysis: which axes of a SUM of a MUL of two loads are m, n, k and batch.

Matrix products, convolutions, grouped convolutions and attention all fall out of this one classification;
nothing here knows an operator. An axis in both operands and in the output is batch, in one operand m or n, a
reduced one k.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinyinfer.ir.index import Axis, Index, Slot, atoms_of
from tinyinfer.ir.node import Node
from tinyinfer.kernels.access import payloads, walk_with_indices
from tinyinfer.kernels.expression import Expr, walk
from tinyinfer.kernels.lower import LoweredKernel

MINIMUM_N = 4
"""Fewer columns than this leave most of a vector empty: such kernels are scheduled as maps."""

ACCUMULATED = frozenset(("float32", "int32"))
"""Dtypes that register tiles accumulate in, all of one width."""


@dataclass(frozen=True)
class Contraction:
    """The roles of the axes of one kernel. `vector` is the column axis that registers hold; `a` is read as
    scalars."""

    reduce: Expr
    a: Expr
    b: Expr
    vector: Axis
    n_outer: tuple[Axis, ...]
    m: tuple[Axis, ...]
    batch: tuple[Axis, ...]
    k: tuple[Axis, ...]


def has_columns(total: Node, least: int) -> bool:
    """Whether one operand of the contraction node `total` has an axis of its own with at least `least`
    elements."""
    product = total.inputs[0]
    used = []
    for x in product.inputs:
        if x.op != "VIEW":
            return False
        used.append({a for i in x.attrs.indices for a in atoms_of(i)})
    kept = [a for d, a in enumerate(product.axes) if d not in total.attrs]
    return any(a.size >= least and (a in used[0]) != (a in used[1]) for a in kept)


def access_axes(load: Expr) -> set[Axis]:
    """The axes that the address of a load depends on."""
    found: set[Axis] = set()
    for i in load.attrs.indices:
        found |= {a for a in atoms_of(i) if isinstance(a, Axis)}
    return found


def index_data(root: Expr) -> list[Expr]:
    """The expressions that data-dependent indices of the loads under `root` are read from."""
    return [p for e in walk(root) for p in payloads(e)]


def _affine(indices: tuple[Index, ...]) -> bool:
    return all(isinstance(atom, Axis) for i in indices for atom, _ in i.terms)


def find_contraction(kernel: LoweredKernel) -> Contraction | None:
    """The contraction of a lowered kernel, or None if it has none that register tiles suit."""
    reduces = [e for e in walk(kernel.body) if e.op == "REDUCE"]
    hidden = (e for data in index_data(kernel.body) for e in walk_with_indices(data))
    if len(reduces) != 1 or any(e.op == "REDUCE" for e in hidden):
        return None
    total = reduces[0]
    op, k = total.attrs
    product = total.args[0]
    if op != "SUM" or product.op != "MUL" or product.dtype not in ACCUMULATED:
        return None
    left, right = product.args
    if left.op != "LOAD" or right.op != "LOAD" or left is right:
        return None
    for load in (left, right):
        if not _affine(load.attrs.indices) or any(
            isinstance(a, Slot) for i in load.attrs.indices for a in atoms_of(i)
        ):
            return None
    candidates = []
    for a, b in ((left, right), (right, left)):
        in_a, in_b = access_axes(a), access_axes(b)
        n = [x for x in kernel.axes if x in in_b and x not in in_a]
        if not n or b.attrs.guards:
            continue
        vector = max(n, key=lambda x: (x.size >= MINIMUM_N, kernel.axes.index(x)))
        if vector.size < MINIMUM_N:
            continue
        constant = b.attrs.value.op == "CONST"
        candidates.append(((constant, kernel.axes.index(vector)), a, b, vector, n, in_a, in_b))
    if not candidates:
        return None
    _, a, b, vector, n, in_a, in_b = max(candidates, key=lambda c: c[0])
    return Contraction(
        total,
        a,
        b,
        vector,
        tuple(x for x in n if x is not vector),
        tuple(x for x in kernel.axes if x not in in_b),
        tuple(x for x in kernel.axes if x in in_a and x in in_b),
        tuple(k),
    )
