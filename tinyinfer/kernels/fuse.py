"""Fusion: which values of the graph get a buffer, and which are computed inside their reader.

The graph is walked from the outputs. Each value collects its uses: the kernel that wants it and the indices,
over that kernel's axes, at which it is wanted. A value becomes the root of a kernel of its own (is
*materialised*) if

* it is an output, a part of a concatenation, what a scatter starts from, or what a loop reads,
* several kernels want it and it is not free,
* it is the operand of a contraction and not already a load,
* inlining would compute it more often than it has elements and it is not free, or
* it is a reduction whose readers cannot live in its epilogue or share its rows.

Everything else is inlined through its index map.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tinyinfer.ir.index import Atom, Axis, Index, atoms_of, index, substitute
from tinyinfer.ir.node import Graph, Node
from tinyinfer.ir.ops import ELEMENTWISE

ROW_LIMIT = 1 << 16
"""Rows this long are reduced by a kernel of their own unless there are many of them."""

RECOMPUTE_SLACK = 1.05


@dataclass(eq=False)
class KernelRoot:
    """A kernel to be: the value that it stores, and what it inlines."""

    root: Node
    axes: tuple[Axis, ...]
    contraction: Node | None = None
    full_reduces: list[Node] = field(default_factory=list)
    row_reduces: list[Node] = field(default_factory=list)
    inlined: list[Node] = field(default_factory=list)


@dataclass(frozen=True)
class _Use:
    kernel: KernelRoot
    indices: tuple[Index, ...]
    evaluations: int
    reduce: Node | None = None
    operand: bool = False


@dataclass
class Fusion:
    """The decision: kernels in execution order, and the concatenations that buffers are placed in."""

    kernels: list[KernelRoot]
    materialised: set[Node]
    concats: list[Node]


def is_contraction(node: Node) -> bool:
    """A SUM of a MUL of two values of which one does not depend on every axis: matmul, convolution,
    attention."""
    if node.op != "SUM" or node.dtype not in ("float32", "float64", "int32"):
        return False
    product = node.inputs[0]
    if product.op != "MUL":
        return False
    return any(_drops_axes(x) for x in product.inputs)


def _drops_axes(node: Node) -> bool:
    """Whether a view repeats its source along some axis."""
    if node.op != "VIEW":
        return False
    if node.inputs[0].size == 1 or len(node.inputs) > 1:
        return False
    used = set()
    for i in node.attrs.indices:
        used |= atoms_of(i)
    return any(a.size > 1 and a not in used for a in node.axes)


def fuse(graph: Graph, enabled: bool = True, also: set[Node] | None = None) -> Fusion:
    """Decide the kernels of `graph`. `enabled=False` materialises every elementwise and reduce value (for
    tests)."""
    order = graph.nodes()
    uses: dict[Node, list[_Use]] = {n: [] for n in order}
    forced = {n for n in graph.outputs.values() if n.op not in ("INPUT", "CONST")} | (also or set())
    result = Fusion([], set(), [])
    for node in reversed(order):
        if node.op in ("INPUT", "CONST"):
            continue
        if node.op == "CONCAT":
            result.concats.append(node)
            result.materialised.add(node)
            for part in node.inputs:
                if part.op not in ("INPUT", "CONCAT"):
                    forced.add(part)
            continue
        if node.op == "SCATTER":
            kernel = KernelRoot(node, node.inputs[1].axes)
            result.kernels.append(kernel)
            result.materialised.add(node)
            if not is_free(node.inputs[0]):
                forced.add(node.inputs[0])
            for x in node.inputs[1:]:
                uses[x].append(_Use(kernel, tuple(map(index, kernel.axes)), x.size))
            continue
        if node.op in ("LOOP", "LOOP_OUTPUT"):
            result.materialised.add(node)
            forced.update(x for x in node.inputs if x.op not in ("INPUT", "CONST"))
            continue
        if node.op == "CONST" or (node.op == "IOTA" and node not in forced):
            continue
        # paths that meet again bring the same use; kept, their number could double at each step
        wanted = list(dict.fromkeys(uses[node]))
        if node in forced or (wanted and not _may_inline(node, wanted, enabled)):
            kernel = KernelRoot(node, node.axes)
            result.kernels.append(kernel)
            result.materialised.add(node)
            wanted = [_Use(kernel, tuple(map(index, node.axes)), node.size)]
        if wanted:
            _inline(node, wanted, uses)
    result.kernels.reverse()
    result.concats.reverse()
    return result


def _inline(node: Node, wanted: list[_Use], uses: dict[Node, list[_Use]]) -> None:
    """Record what the inputs of an inlined `node` are wanted for."""
    for use in wanted:
        use.kernel.inlined.append(node)
        if node.op == "VIEW":
            replaced: dict[Atom, Index] = dict(zip(node.axes, use.indices, strict=True))
            indices = tuple(substitute(i, replaced) for i in node.attrs.indices)
            uses[node.inputs[0]].append(_Use(use.kernel, indices, use.evaluations, use.reduce, use.operand))
            for data in node.inputs[1:]:
                uses[data].append(_Use(use.kernel, use.indices, use.evaluations, use.reduce))
        elif node.is_elementwise:
            for x in node.inputs:
                uses[x].append(_Use(use.kernel, use.indices, use.evaluations, use.reduce, use.operand))
        elif node.is_reduce:
            _inline_reduce(node, use, uses)


def _inline_reduce(node: Node, use: _Use, uses: dict[Node, list[_Use]]) -> None:
    body = node.inputs[0]
    extent = body.size // max(node.size, 1)
    inner: list[Index] = []
    kept = iter(use.indices)
    for position, size in enumerate(body.shape):
        if position in node.attrs:
            inner.append(index(Axis(f"r{id(node)}_{position}", size)))
        else:
            inner.append(next(kept))
    rows = _axes_used(use.indices)
    evaluations = _product(rows) * extent
    if is_contraction(node):
        use.kernel.contraction = use.kernel.contraction or node
        for x in body.inputs:
            uses[x].append(_Use(use.kernel, tuple(inner), evaluations, node, operand=True))
        use.kernel.inlined.append(body)
        # the product itself is consumed here; its own turn finds no use and does nothing
        return
    target = use.kernel.full_reduces if len(rows) == _rank(use.kernel) else use.kernel.row_reduces
    if node not in target:
        target.append(node)
    uses[body].append(_Use(use.kernel, tuple(inner), evaluations, node))


def _rank(kernel: KernelRoot) -> int:
    return sum(1 for a in kernel.axes if a.size > 1)


def _axes_used(indices: tuple[Index, ...]) -> set[Axis]:
    found: set[Axis] = set()
    for i in indices:
        found |= {a for a in atoms_of(i) if isinstance(a, Axis)}
    return found


def _product(axes: set[Axis]) -> int:
    total = 1
    for a in axes:
        total *= a.size
    return total


def is_free(node: Node) -> bool:
    """A value that costs next to nothing to recompute: no load but scalars, few simple operations."""
    budget, stack, seen = 8, [node], set()
    while stack:
        part = stack.pop()
        if part in seen:
            continue
        seen.add(part)
        if part.op in ("CONCAT", "SCATTER", "LOOP", "LOOP_OUTPUT") or part.is_reduce:
            return False
        if part.op in ("INPUT", "CONST") and part.size > 1:
            return False
        if part.is_elementwise:
            budget -= 8 if ELEMENTWISE[part.op].transcendental else 1
            if budget < 0:
                return False
        stack.extend(part.inputs)
    return True


def _may_inline(node: Node, wanted: list[_Use], enabled: bool) -> bool:
    if node.op in ("VIEW", "IOTA"):
        return True
    kernels = {id(u.kernel) for u in wanted}
    if is_free(node):
        return True
    if any(u.operand for u in wanted):
        return False
    if len(kernels) > 1:
        return False
    kernel = wanted[0].kernel
    if kernel.root.op == "SCATTER":
        return enabled and not node.is_reduce and all(u.evaluations <= node.size for u in wanted)
    if node.is_reduce:
        return enabled and _may_inline_reduce(node, wanted, kernel)
    if not enabled:
        return wanted[0].reduce is not None and _feeds_only(node, wanted)
    if any(u.evaluations > node.size * RECOMPUTE_SLACK for u in wanted):
        return _is_row_statistic(node, wanted, kernel)
    if len({u.indices for u in wanted}) > 1:
        # the same element in several stages of a row: worth repeating only if it needs a statistic of that
        # row
        return bool(kernel.row_reduces) and _reduces_below(node, rows_only=True) > 0
    if all(u.reduce is None for u in wanted) or _reduces_below(node) == 0:
        return True
    return bool(kernel.row_reduces) and _reduces_below(node, rows_only=True) == _reduces_below(node)


def _feeds_only(node: Node, wanted: list[_Use]) -> bool:
    """Unfused mode keeps a reduction's product inside it: a product of large views must not be stored."""
    return all(u.evaluations <= node.size for u in wanted) and node.op == "MUL" and node.size > (1 << 22)


def _may_inline_reduce(node: Node, wanted: list[_Use], kernel: KernelRoot) -> bool:
    tuples = {u.indices for u in wanted}
    if len(tuples) > 1:
        return False
    rows = _axes_used(wanted[0].indices)
    if _product(rows) != node.size or not all(a in kernel.axes for a in rows):
        return False
    full = len(rows) == _rank(kernel)
    if is_contraction(node):
        return (
            full
            and kernel.contraction is None
            and not kernel.full_reduces
            and not kernel.row_reduces
            and all(u.reduce is None for u in wanted)
        )
    if kernel.contraction is not None:
        return False
    if full:
        # a reduction inside the body of another one at the same position would run again for each step of it
        return all(u.reduce is None for u in wanted)
    length = node.inputs[0].size // max(node.size, 1)
    return node.size >= 16 or length <= ROW_LIMIT


def _reduces_below(node: Node, rows_only: bool = False) -> int:
    """How many reductions the elementwise tree under `node` meets before any other kind of value ends it.

    `rows_only` counts just those that are no contraction and have fewer elements than `node`: row statistics.
    """
    count = 0
    stack, seen = [node], set()
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.is_reduce:
            count += not rows_only or (not is_contraction(current) and current.size < node.size)
        elif current.is_elementwise or current.op == "VIEW":
            stack.extend(current.inputs)
    return count


def _is_row_statistic(node: Node, wanted: list[_Use], kernel: KernelRoot) -> bool:
    """Whether `node` can be computed once per row of `kernel`: it depends on row axes only and on
    reductions."""
    if kernel.contraction is not None:
        return False
    for u in wanted:
        used = _axes_used(u.indices)
        if (
            len(used) >= _rank(kernel)
            or not all(a in kernel.axes for a in used)
            or _product(used) != node.size
        ):
            return False
    return _reduces_below(node) > 0
