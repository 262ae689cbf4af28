"""Assignment of buffers: walks the kernels in execution order, gives each result a layout, inserts layout
copies.

What comes out is a list of lowered kernels (copies included) whose every load names a value that has a
buffer, and whose contractions find their vectorised operand contiguous and their scalar operand without
guards.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from math import prod

from tinyinfer.ir.index import Axis, Index, index
from tinyinfer.ir.node import Graph, Node, node
from tinyinfer.kernels.access import ValueAccess, rebuild, walk_with_indices
from tinyinfer.kernels.contraction import MINIMUM_N, Contraction, find_contraction, has_columns
from tinyinfer.kernels.expression import Expr, expression
from tinyinfer.kernels.fuse import Fusion, fuse
from tinyinfer.kernels.image import TEXEL
from tinyinfer.kernels.layout import Buffer, axis_strides, dense_strides
from tinyinfer.kernels.lower import LoweredKernel, lower

MINIMUM_ROWS_TO_COPY = 16
"""With fewer rows, reordering the vectorised operand costs as much as the contraction itself."""

READS_FOR_A_COPY = 8
"""Reads of each texel of an operand from which on it is copied if it is not in texels."""


@dataclass
class LoopKernel:
    """A LOOP in execution order: where its inputs lie (dense buffers), and what reads its outputs.

    `outputs` are LOOP_OUTPUT nodes by their number, and the LOOP node itself as number -1.
    """

    root: Node
    operands: list[Node]
    outputs: dict[int, Node]


@dataclass
class Assigned:
    """The kernels in execution order, the contraction of each (or None), and every value's buffer."""

    kernels: list[LoweredKernel | LoopKernel]
    contractions: list[Contraction | None]
    buffers: dict[Node, Buffer]
    outputs: dict[str, Node]


class _Refuse(Exception):
    """A value must be materialised after all: carries it."""

    def __init__(self, value: Node):
        super().__init__(value)
        self.value = value


def assign(graph: Graph, enabled: bool = True, texels: bool = False) -> Assigned:
    """Kernels of `graph` with buffers; repeats fusion where a layout turns out to need one more stored
    value. With `texels`, values that contractions sum over lie so that four of those neighbours can be one
    texel."""
    forced: set[Node] = set()
    while True:
        try:
            return _Assignment(graph, fuse(graph, enabled, forced), texels).run()
        except _Refuse as refused:
            if refused.value in forced:
                raise AssertionError(f"{refused.value!r} is forced twice") from None
            forced.add(refused.value)


class _Assignment:
    def __init__(self, graph: Graph, fusion: Fusion, texels: bool):
        self.graph, self.fusion, self.texels = graph, fusion, texels
        self.summed: dict[Node, int] = {}
        self.buffers: dict[Node, Buffer] = {}
        self.kernels: list[LoweredKernel | LoopKernel] = []
        self.contractions: list[Contraction | None] = []
        self.output_nodes = {n: name for name, n in reversed(list(graph.outputs.items()))}
        self.copies: dict[tuple, Node] = {}
        self.concat_of: dict[Node, tuple[Node, int]] = {}
        self.outputs: dict[str, Node] = {}
        self.contraction_of: dict[Node, Node] = {}
        self.numbers = 0
        self.loop_outputs: dict[Node, dict[int, Node]] = {}
        self.scanned: set[Node] = set()
        for n in graph.nodes():
            if n.op == "LOOP":
                self.loop_outputs[n] = {-1: n}
                self.scanned.update(n.inputs)
            elif n.op == "LOOP_OUTPUT":
                self.loop_outputs[n.inputs[0]][n.attrs] = n

    def run(self) -> Assigned:
        for number, (_, n) in enumerate(self.graph.inputs.items()):
            self.buffers[n] = Buffer(n, "input", number=number)
        for n in self.fusion.concats:
            start = 0
            for part in n.inputs:
                if (
                    part not in self.concat_of
                    and part.op not in ("INPUT", "CONST")
                    and n.inputs.count(part) == 1
                ):
                    self.concat_of[part] = (n, start)
                start += part.shape[n.attrs]
        self.start_scatters()
        roots = {k.root: k for k in self.fusion.kernels}
        self.contraction_of = {
            k.root: k.contraction for k in self.fusion.kernels if k.contraction is not None
        }
        order = self.graph.nodes()
        lowered = {n: lower(n, self.fusion.materialised) for n in order if n in roots and n.op != "SCATTER"}
        if self.texels:
            for kernel in lowered.values():
                self.note_summed(kernel)
        for n in order:
            if n.op == "SCATTER":
                self.scatter(n)
            elif n in roots:
                self.kernel(lowered[n])
            elif n.op == "CONCAT":
                self.concat(n)
            elif n.op == "LOOP":
                self.loop(n)
        self.place_outputs()
        return Assigned(self.kernels, self.contractions, self.buffers, self.outputs)

    def note_summed(self, kernel: LoweredKernel) -> None:
        """Remember along which dimension a contraction sums its scalar operand, and walks it for nothing
        else."""
        contraction = find_contraction(kernel)
        if contraction is None:
            return
        access: ValueAccess = contraction.a.attrs
        for d, i in enumerate(access.indices):
            if i.terms and all(a in contraction.k and c == 1 for a, c in i.terms):
                self.summed.setdefault(access.value, d)

    def texel_order(self, value: Node, order: tuple[int, ...]) -> tuple[int, ...]:
        """`order`, or where texels are wanted, with the dimension last that the value is summed along; a part
        follows the whole."""
        while value not in self.summed and value in self.concat_of:
            value = self.concat_of[value][0]
        last = self.summed.get(value)
        return order if last is None else (*(d for d in order if d != last), last)

    # ---- scatters

    def start_scatters(self) -> None:
        """Let what only a scatter reads be stored where the scatter's result goes."""
        order = self.graph.nodes()
        users = Counter(x for n in order for x in n.inputs)
        users.update(self.graph.outputs.values())
        for n in order:
            base = n.inputs[0] if n.op == "SCATTER" else None
            if base is not None and users[base] == 1 and base.op not in ("INPUT", "CONST"):
                self.concat_of[base] = (n, 0)

    def scatter(self, scatter: Node) -> None:
        """What the scatter starts from in its buffer, then the kernel of its updates."""
        base = scatter.inputs[0]
        start = self.buffers.get(base)
        order = start.storage.order if start is not None else None
        buffer = self.concat_buffer(scatter, order or tuple(range(len(scatter.shape))))
        if start is not None and start.parent is buffer:
            start.overwritten = True
        else:
            self.numbers += 1
            made = node("COPY", (base,), self.numbers, base.shape, base.dtype, scatter.origin)
            storage = buffer.storage
            self.buffers[made] = Buffer(made, storage.space, storage.order, parent=buffer)
            if base.op in ("INPUT", "CONST") or base in self.fusion.materialised:
                self.source_strides(base)
                self.kernels.append(_copy_kernel(made, base))
            else:
                self.kernels.append(replace(lower(base, self.fusion.materialised), root=made))
            self.contractions.append(None)
        self.kernels.append(self.prepare_map(lower(scatter, self.fusion.materialised)))
        self.contractions.append(None)

    # ---- one kernel

    def kernel(self, lowered: LoweredKernel) -> None:
        contraction = find_contraction(lowered)
        if contraction is not None:
            lowered, contraction = self.prepare_contraction(lowered, contraction)
        if contraction is not None and _vector_dimension(lowered, contraction) is None:
            # no layout of the result holds the columns side by side
            below = _inner_value(lowered.root)
            if below is not lowered.root:
                raise _Refuse(below)
            contraction = None
        if contraction is None:
            self.refuse_split_columns(lowered)
            lowered = self.prepare_map(lowered)
        self.give_buffer(lowered, contraction)
        self.kernels.append(lowered)
        self.contractions.append(contraction)

    def refuse_split_columns(self, lowered: LoweredKernel) -> None:
        """A contraction whose columns a view above it cuts to pieces too short for vectors is stored before
        the view."""
        total = self.contraction_of.get(lowered.root)
        if total is None or total is lowered.root:
            return
        for value in dict.fromkeys((_inner_value(lowered.root), total)):
            if (
                value is not lowered.root
                and has_columns(total, MINIMUM_N)
                and find_contraction(lower(value, self.fusion.materialised - {value})) is not None
            ):
                raise _Refuse(value)

    def source_strides(self, value: Node) -> tuple[int, ...]:
        buffer = self.buffers.get(value)
        if buffer is None:
            buffer = self.buffers[value] = Buffer(value, "parameter")
        return dense_strides(buffer)

    def prepare_contraction(
        self, lowered: LoweredKernel, c: Contraction
    ) -> tuple[LoweredKernel, Contraction | None]:
        changes: dict[Expr, Expr] = {}
        if c.b.attrs.value.op != "CONST":
            strides = axis_strides(c.b.attrs.indices, self.source_strides(c.b.attrs.value))
            if strides.get(c.vector, 0) != 1:
                if prod(a.size for a in c.m) < MINIMUM_ROWS_TO_COPY:
                    return lowered, None
                order = _order_with_last(c.b.attrs, c.vector)
                if order is None:
                    return lowered, None
                changes[c.b] = self.redirect(c.b, self.copy(c.b.attrs.value, order))
        scalars = self.in_whole_texels(c)
        if scalars is not c.a:
            changes[c.a] = scalars
        if scalars.attrs.guards:
            without = self.with_halo(scalars)
            if without is None:
                return lowered, None
            changes[c.a] = without
        elif c.a.attrs.value.op == "CONST" and c.a.attrs.value not in self.buffers:
            self.buffers[c.a.attrs.value] = Buffer(c.a.attrs.value, "parameter")
        elif c.a.attrs.value.op == "INPUT":
            order = dense_order(self.source_strides(c.a.attrs.value))
            wanted = self.texel_order(c.a.attrs.value, order)
            if wanted != order:
                changes[c.a] = self.redirect(c.a, self.copy(c.a.attrs.value, wanted))
        lowered = self.prepare_map(lowered, skip={c.a, c.b}, changes=changes)
        return lowered, find_contraction(lowered)

    def in_whole_texels(self, c: Contraction) -> Expr:
        """The scalar operand; a copy of it if its parts, which are stored one by one, end within texels, and
        it is read more often than a copy costs."""
        value: Node = c.a.attrs.value
        along = self.summed.get(value)
        if along is None or value.op != "CONCAT" or value.attrs != along or value.shape[along] % TEXEL:
            return c.a
        reads = -(-c.vector.size // TEXEL) * prod(a.size for a in c.k) // value.shape[along]
        if all(part.shape[along] % TEXEL == 0 for part in value.inputs) or reads < READS_FOR_A_COPY:
            return c.a
        order = self.texel_order(value, dense_order(self.source_strides(value)))
        return self.redirect(c.a, self.copy(value, order))

    def prepare_map(
        self, lowered: LoweredKernel, skip: set[Expr] | None = None, changes: dict[Expr, Expr] | None = None
    ) -> LoweredKernel:
        """Drop the guards of loads whose buffer can have a halo."""
        changes = dict(changes or {})
        for e in walk_with_indices(lowered.body):
            if e.op == "LOAD" and e.attrs.guards and not (skip and e in skip) and e.attrs.value.op != "CONST":
                if _exact_guards(e.attrs) and self.buffers[e.attrs.value].storage.space == "arena":
                    wanted = _overhang(e.attrs)
                    if self.buffers[e.attrs.value].ask_halo(wanted, e.attrs.fill):
                        changes[e] = expression("LOAD", (), e.dtype, replace(e.attrs, guards=(), fill=0))
        if not changes:
            return lowered
        body = rebuild(lowered.body, lambda e: changes.get(e))
        return replace(lowered, body=body)

    def with_halo(self, load: Expr) -> Expr | None:
        """The guarded load without its guards, from a buffer (perhaps a copy) that has the fill around it."""
        access: ValueAccess = load.attrs
        if not _exact_guards(access):
            return None
        wanted = _overhang(access)
        buffer = self.buffers.get(access.value)
        if buffer is not None and buffer.ask_halo(wanted, access.fill):
            return expression("LOAD", (), load.dtype, replace(access, guards=(), fill=0))
        if any(b + a > max(64, 2 * d) for (b, a), d in zip(wanted, access.value.shape)):
            return None
        order = self.texel_order(access.value, dense_order(self.source_strides(access.value)))
        copied = self.copy(access.value, order, access.fill)
        if not self.buffers[copied].ask_halo(wanted, access.fill):
            return None
        return expression("LOAD", (), load.dtype, replace(access, value=copied, guards=(), fill=0))

    def redirect(self, load: Expr, value: Node) -> Expr:
        return expression("LOAD", (), load.dtype, replace(load.attrs, value=value))

    def copy(self, value: Node, order: tuple[int, ...], fill: object = None) -> Node:
        """A value that holds the same in another order of dimensions (or with room for a halo of `fill`)."""
        key = (value, order, repr(fill))
        found = self.copies.get(key)
        if found is not None:
            return found
        self.numbers += 1
        made = node("COPY", (value,), self.numbers, value.shape, value.dtype, value.origin)
        self.copies[key] = made
        self.source_strides(value)
        self.buffers[made] = Buffer(made, "arena", order)
        self.kernels.append(_copy_kernel(made, value))
        self.contractions.append(None)
        return made

    # ---- results

    def give_buffer(self, lowered: LoweredKernel, contraction: Contraction | None) -> None:
        root = lowered.root
        preferred = self.preferred_order(lowered, contraction)
        if root in self.output_nodes:
            row_major = tuple(range(len(root.shape)))
            if contraction is None or _unit_stride(lowered, contraction, row_major):
                self.buffers[root] = Buffer(root, "output")
                return
        placed = self.concat_of.get(root)
        if placed is None and root in self.scanned:
            row_major = tuple(range(len(root.shape)))
            if contraction is None or _unit_stride(lowered, contraction, row_major):
                self.buffers[root] = Buffer(root, "arena", dense=True)
                return
        self.buffers[root] = Buffer(root, "arena", preferred)
        if placed is None:
            return
        parent = self.concat_buffer(placed[0], preferred)
        assert parent.storage.order is not None
        if contraction is not None and not _unit_stride(lowered, contraction, parent.storage.order):
            return
        self.buffers[root].order = parent.storage.order
        self.buffers[root].parent = parent
        self.buffers[root].parent_axis, self.buffers[root].parent_start = _parent_axis(placed[0]), placed[1]
        if parent.storage.space != "arena":
            self.buffers[root].space = parent.storage.space

    def concat_buffer(self, concat: Node, preferred: tuple[int, ...]) -> Buffer:
        """The buffer of a concatenation or scatter, made when the first value is stored in it."""
        found = self.buffers.get(concat)
        if found is not None:
            return found
        outer = self.concat_of.get(concat)
        if concat in self.output_nodes:
            made = Buffer(concat, "output")
        else:
            made = Buffer(concat, "arena", preferred)
            if outer is not None:
                parent = self.concat_buffer(outer[0], preferred)
                made.order, made.parent = parent.storage.order, parent
                made.parent_axis, made.parent_start = _parent_axis(outer[0]), outer[1]
                if parent.storage.space != "arena":
                    made.space = parent.storage.space
        self.buffers[concat] = made
        return made

    def concat(self, concat: Node) -> None:
        """Copy those parts of a concatenation that no kernel stores in place."""
        first = next(
            (
                self.buffers[p].storage.order
                for p in concat.inputs
                if p in self.buffers and self.buffers[p].space == "arena"
            ),
            None,
        )
        self.concat_buffer(concat, first or tuple(range(len(concat.shape))))
        start = 0
        for part in concat.inputs:
            stored = self.buffers.get(part)
            if stored is None or stored.parent is not self.buffers[concat] or stored.parent_start != start:
                self.source_strides(part)
                self.numbers += 1
                made = node("COPY", (part,), self.numbers, part.shape, part.dtype, concat.origin)
                parent = self.buffers[concat]
                self.buffers[made] = Buffer(
                    made,
                    parent.storage.space,
                    parent.storage.order,
                    parent=parent,
                    parent_axis=concat.attrs,
                    parent_start=start,
                )
                self.kernels.append(_copy_kernel(made, part))
                self.contractions.append(None)
            start += part.shape[concat.attrs]

    def loop(self, n: Node) -> None:
        """Give a loop dense operands, copied where they lie otherwise, and its outputs their buffers."""
        operands = [self.dense(x) for x in n.inputs]
        for made in self.loop_outputs[n].values():
            if made in self.output_nodes:
                self.buffers[made] = Buffer(made, "output")
            else:
                self.buffers[made] = Buffer(made, "arena", dense=True)
        self.kernels.append(LoopKernel(n, operands, self.loop_outputs[n]))
        self.contractions.append(None)

    def dense(self, value: Node) -> Node:
        """A value that holds the same in a dense row-major buffer of its own: `value` itself, or a copy."""
        self.source_strides(value)
        buffer = self.buffers[value]
        if buffer.dense or (buffer.space != "arena" and buffer.parent is None):
            return value
        key = (value, "dense")
        found = self.copies.get(key)
        if found is None:
            self.numbers += 1
            found = self.copies[key] = node(
                "COPY", (value,), self.numbers, value.shape, value.dtype, value.origin
            )
            self.buffers[found] = Buffer(found, "arena", dense=True)
            self.kernels.append(_copy_kernel(found, value))
            self.contractions.append(None)
        return found

    def place_outputs(self) -> None:
        """Give every graph output a buffer of its own in the order of the signature, copying where it has
        none."""
        taken: set[Node] = set()
        for number, (name, value) in enumerate(self.graph.outputs.items()):
            buffer = self.buffers.get(value)
            if (
                buffer is not None
                and buffer.space == "output"
                and buffer.parent is None
                and value not in taken
            ):
                buffer.number = number
                taken.add(value)
                self.outputs[name] = value
                continue
            self.source_strides(value)
            self.numbers += 1
            made = node("COPY", (value,), self.numbers, value.shape, value.dtype, value.origin)
            self.buffers[made] = Buffer(made, "output", number=number)
            self.kernels.append(_copy_kernel(made, value))
            self.contractions.append(None)
            self.outputs[name] = made

    def preferred_order(self, lowered: LoweredKernel, contraction: Contraction | None) -> tuple[int, ...]:
        rank = len(lowered.root.shape)
        if contraction is not None:
            dimension = _vector_dimension(lowered, contraction)
            if dimension is not None:
                return (*(d for d in range(rank) if d != dimension), dimension)
            return tuple(range(rank))
        best: tuple[int, dict[Axis, int]] | None = None
        for e in walk_with_indices(lowered.body):
            if e.op == "LOAD" and e.attrs.value.op != "CONST":
                strides = axis_strides(e.attrs.indices, self.source_strides(e.attrs.value))
                weight = 1
                for a in lowered.axes:
                    if a in strides:
                        weight *= a.size
                if best is None or weight > best[0]:
                    best = (weight, strides)
        if best is None:
            return tuple(range(rank))
        far = 1 << 60

        def nearness(dimension: int) -> int:
            found = [
                best[1].get(a, far) // max(abs(c), 1)
                for a, c in lowered.store[dimension].terms
                if isinstance(a, Axis)
            ]
            return min(found) if found else far

        return self.texel_order(
            lowered.root, tuple(sorted(range(rank), key=lambda d: (-nearness(d), d)))
        )


def _parent_axis(parent: Node) -> int:
    """The dimension along which values lie in the buffer of `parent`: any, for one that fills it."""
    return parent.attrs if parent.op == "CONCAT" else 0


def _copy_kernel(made: Node, source: Node) -> LoweredKernel:
    axes = tuple(Axis(f"i{d}", size) for d, size in enumerate(made.shape) if size > 1)
    names = {a.name: a for a in axes}
    indices = tuple(index(names[f"i{d}"]) if f"i{d}" in names else index(0) for d in range(len(made.shape)))
    body = expression("LOAD", (), made.dtype, ValueAccess(source, indices))
    return LoweredKernel(made, axes, indices, body, made.origin)


def dense_order(strides: tuple[int, ...]) -> tuple[int, ...]:
    """The dimensions from the largest stride to the smallest."""
    return tuple(sorted(range(len(strides)), key=lambda d: (-strides[d], d)))


def _exact_guards(access: ValueAccess) -> bool:
    """Whether the guards say just that every index lies inside the value: then a halo can stand for them."""
    allowed = {(i, d) for i, d in zip(access.indices, access.value.shape)}
    return all(g in allowed for g in access.guards)


def _overhang(access: ValueAccess) -> list[tuple[int, int]]:
    return [(max(0, -i.lo), max(0, i.hi - (d - 1))) for i, d in zip(access.indices, access.value.shape)]


def _order_with_last(access: ValueAccess, vector: Axis) -> tuple[int, ...] | None:
    """Dimensions of a value with the one that `vector` walks by single steps moved last."""
    for d, i in enumerate(access.indices):
        if i.coefficient(vector) == 1:
            rank = len(access.indices)
            return (*(x for x in range(rank) if x != d), d)
    return None


def _vector_dimension(lowered: LoweredKernel, contraction: Contraction) -> int | None:
    for d, i in enumerate(lowered.store):
        if i.coefficient(contraction.vector) == 1:
            return d
    return None


def _unit_stride(lowered: LoweredKernel, contraction: Contraction, order: tuple[int, ...]) -> bool:
    """Whether the vectorised axis is stored contiguously when the root's dimensions have this order."""
    step, strides = 1, [0] * len(order)
    for d in reversed(order):
        strides[d] = step
        step *= max(lowered.root.shape[d], 1)
    total = Index((), 0)
    for i, s in zip(lowered.store, strides):
        total = total + i * s
    return total.coefficient(contraction.vector) == 1


def _inner_value(root: Node) -> Node:
    """The value below the views at the top of a kernel."""
    while root.op == "VIEW":
        root = root.inputs[0]
    return root
