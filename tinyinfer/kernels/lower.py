"""Lowering: a kernel root and what it inlines become one expression over loop axes.

Views disappear into indices. Loop axes are chosen at the finest factorisation that the indices need: wherever
an index divides an axis by a factor of its size, that axis is split and the kernel is lowered again, until
nothing more can be removed. Loads still name the value that they read and one index per dimension of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tinyinfer.ir.index import Atom, Axis, FloorDiv, Index, Mod, Slot, atoms_of, index, substitute
from tinyinfer.ir.node import Node
from tinyinfer.ir.ops import reduce_identity
from tinyinfer.kernels.access import ACCESSES, ValueAccess, ValueUpdate, rebuild, walk_with_indices
from tinyinfer.kernels.expression import Expr, apply, const, expression

NARROW_FLOATS = ("float16", "bfloat16")
"""Sums and products of these are accumulated in single precision and rounded once."""


@dataclass
class LoweredKernel:
    """One kernel: for all `axes`, element `store` of `root` = `body`.

    That of a SCATTER runs over the axes of its updates; its body is an UPDATE, and `store` is the origin.
    """

    root: Node
    axes: tuple[Axis, ...]
    store: tuple[Index, ...]
    body: Expr
    origin: frozenset[str] = field(default_factory=frozenset)

    def accesses(self) -> list[ValueAccess]:
        """Every load once, arguments before users, also those that compute indices."""
        return [e.attrs for e in walk_with_indices(self.body) if e.op == "LOAD"]


def lower(root: Node, materialised: set[Node]) -> LoweredKernel:
    """The expression of the kernel that stores `root`, reading `materialised` values, inputs and
    constants."""
    splits: dict[str, tuple[int, int]] = {}
    while True:
        attempt = _Lowering(root, materialised, splits)
        kernel = attempt.lower()
        found = _wanted_splits(kernel)
        if not found:
            return kernel
        splits.update(found)


def _wanted_splits(kernel: LoweredKernel) -> dict[str, tuple[int, int]]:
    """Axes to split because an index divides one of them evenly: name → (outer size, inner size)."""
    found: dict[str, tuple[int, int]] = {}

    def inspect(value: Index) -> None:
        for atom, _ in value.terms:
            if isinstance(atom, (FloorDiv, Mod)):
                inner = atom.inner
                if len(inner.terms) == 1 and inner.const == 0 and inner.terms[0][1] == 1:
                    axis = inner.terms[0][0]
                    if isinstance(axis, Axis) and axis.size % atom.divisor == 0 and axis.name not in found:
                        found[axis.name] = (axis.size // atom.divisor, atom.divisor)
                        continue
                _split_common(atom, found)
                inspect(inner)

    for e in walk_with_indices(kernel.body):
        if e.op in ACCESSES:
            for i in e.attrs.indices:
                inspect(i)
            for g, _ in e.attrs.guards:
                inspect(g)
        elif e.op == "INDEX":
            inspect(e.attrs)
    return found


def _split_common(atom: FloorDiv | Mod, found: dict[str, tuple[int, int]]) -> None:
    """For `(c·a + rest)` divided by n with c dividing n: `a` split at n / c leaves nothing to divide by c."""
    for axis, c in atom.inner.terms:
        if isinstance(axis, Axis) and c > 0 and atom.divisor % c == 0:
            part = atom.divisor // c
            if 1 < part < axis.size and axis.size % part == 0 and axis.name not in found:
                found[axis.name] = (axis.size // part, part)
                return


class _Lowering:
    def __init__(self, root: Node, materialised: set[Node], splits: dict[str, tuple[int, int]]):
        self.root, self.materialised, self.splits = root, materialised, splits
        self.memo: dict[tuple[Node, tuple[Index, ...]], Expr] = {}
        self.reduces = 0
        self.slots: dict[Expr, int] = {}
        self.origin: set[str] = set()

    def axis(self, name: str, size: int) -> tuple[Index, list[Axis]]:
        """An axis as the index over its parts, and those parts, outer before inner."""
        if size == 1:
            return index(0), []
        parts = self.splits.get(name)
        if parts is None:
            made = Axis(name, size)
            return index(made), [made]
        outer, outer_axes = self.axis(name + "h", parts[0])
        inner, inner_axes = self.axis(name + "l", parts[1])
        return outer * parts[1] + inner, outer_axes + inner_axes

    def lower(self) -> LoweredKernel:
        store, axes = [], []
        scatters = self.root.op == "SCATTER"
        for position, size in enumerate(self.root.inputs[1].shape if scatters else self.root.shape):
            value, parts = self.axis(f"i{position}", size)
            store.append(value)
            axes += parts
        if scatters:
            body = self.update(self.root, tuple(store))
            store = [index(0)] * len(self.root.shape)
        else:
            body = self.value(self.root, tuple(store), top=True)
        return LoweredKernel(self.root, tuple(axes), tuple(store), body, frozenset(self.origin))

    def update(self, node: Node, indices: tuple[Index, ...]) -> Expr:
        """The UPDATE of a SCATTER whose update stands at `indices`."""
        self.origin |= node.origin
        over = node.inputs[1]
        replaced: dict[Atom, Index] = dict(zip(over.axes, indices, strict=True))
        places, guards = self.places(node, replaced, [self.value(x, indices) for x in node.inputs[2:]])
        attrs = ValueUpdate(node, places, guards, combine=node.attrs.combine)
        return expression("UPDATE", (self.value(over, indices),), node.dtype, attrs)

    def value(self, node: Node, indices: tuple[Index, ...], top: bool = False) -> Expr:
        key = (node, indices)
        found = self.memo.get(key)
        if found is None:
            found = self.memo[key] = self.make(node, indices, top)
        return found

    def make(self, node: Node, indices: tuple[Index, ...], top: bool) -> Expr:
        if node.op == "CONST" and node.size == 1:
            return const(node.attrs.array.reshape(()).item(), node.dtype)
        if node.op in ("INPUT", "CONST") or (node in self.materialised and not top):
            return expression("LOAD", (), node.dtype, ValueAccess(node, indices))
        if node.op != "VIEW" or top:
            # views of constants are shared between layers: their origins would name strangers
            self.origin |= node.origin
        if node.op == "IOTA":
            replaced: dict[Atom, Index] = dict(zip(node.axes, indices, strict=True))
            return _cast_index(substitute(node.attrs, replaced), node.dtype)
        if node.op == "VIEW":
            return self.view(node, indices)
        if node.is_elementwise:
            args = [self.value(x, indices) for x in node.inputs]
            return apply(node.op, *args, dtype=node.dtype)
        if node.is_reduce and not node.inputs[0].size:
            return const(reduce_identity(node.op, node.dtype), node.dtype)
        if node.is_reduce:
            number, self.reduces = self.reduces, self.reduces + 1
            inner, axes, kept = [], [], iter(indices)
            for position, size in enumerate(node.inputs[0].shape):
                if position in node.attrs:
                    value, parts = self.axis(f"r{number}_{position}", size)
                    inner.append(value)
                    axes += parts
                else:
                    inner.append(next(kept))
            body = self.value(node.inputs[0], tuple(inner))
            if not axes:
                return body
            if node.op in ("SUM", "PROD") and node.dtype in NARROW_FLOATS:
                total = expression("REDUCE", (_widened(body),), "float32", (node.op, tuple(axes)))
                return apply("CAST", total, dtype=node.dtype)
            return expression("REDUCE", (body,), node.dtype, (node.op, tuple(axes)))
        raise AssertionError(f"{node.op} cannot be inlined")

    def view(self, node: Node, indices: tuple[Index, ...]) -> Expr:
        if not node.inputs[0].size:
            return const(node.attrs.fill, node.dtype)
        replaced: dict[Atom, Index] = dict(zip(node.axes, indices, strict=True))
        source, guards = self.places(node, replaced, [self.value(x, indices) for x in node.inputs[1:]])
        inner = self.value(node.inputs[0], source)
        if not guards:
            return inner
        if inner.op == "LOAD" and not inner.attrs.guards:
            access = _guard_loads(inner, guards).attrs
            return expression("LOAD", (), inner.dtype, replace(access, fill=node.attrs.fill))
        inside = _guard_condition(guards)
        return apply("WHERE", inside, _guard_loads(inner, guards), const(node.attrs.fill, node.dtype))

    def places(
        self, node: Node, replaced: dict[Atom, Index], data: list[Expr]
    ) -> tuple[tuple[Index, ...], tuple[tuple[Index, int], ...]]:
        """The indices and guards of a map with its axes replaced and its slots read from `data`."""
        slots = {
            a
            for i in (*node.attrs.indices, *(g for g, _ in node.attrs.guards))
            for a in atoms_of(i)
            if isinstance(a, Slot)
        }
        for slot in sorted(slots, key=lambda a: (a.number, a.lo)):
            payload = data[slot.number]
            number = self.slots.setdefault(payload, len(self.slots))
            lo, hi = _known_range(payload, slot)
            replaced[slot] = index(Slot(number, lo, hi, payload))
        source = tuple(substitute(i, replaced) for i in node.attrs.indices)
        guards = tuple(
            (g, n)
            for g, n in ((substitute(g, replaced), n) for g, n in node.attrs.guards)
            if g.lo < 0 or g.hi >= n
        )
        return source, guards


def _widened(body: Expr) -> Expr:
    """A narrow float in single precision; of a product the factors: nothing is rounded before the sum."""
    if body.op == "MUL":
        return apply("MUL", *(apply("CAST", a, dtype="float32") for a in body.args))
    return apply("CAST", body, dtype="float32")


def _known_range(payload: Expr, slot: Slot) -> tuple[int, int]:
    """The interval of an index read from data: that of the table if it is a constant one, else the slot's
    own."""
    if payload.op == "CONST":
        return int(payload.attrs), int(payload.attrs)
    if payload.op == "LOAD" and payload.attrs.value.op == "CONST" and payload.attrs.value.size:
        table = payload.attrs.value.attrs.array
        found = [int(table.min()), int(table.max())]
        if payload.attrs.guards:
            found.append(int(payload.attrs.fill))
        return min(found), max(found)
    return slot.lo, slot.hi


def _cast_index(value: Index, dtype: str) -> Expr:
    if value.is_constant:
        return const(value.const, dtype)
    made = expression("INDEX", (), "int64", value)
    return made if dtype == "int64" else apply("CAST", made, dtype=dtype)


def _guard_condition(guards: tuple[tuple[Index, int], ...]) -> Expr:
    """The bool that every guard holds."""
    condition: Expr | None = None
    for value, size in guards:
        place = _cast_index(value, "int64")
        parts = []
        if value.lo < 0:
            parts.append(apply("CMPLE", const(0, "int64"), place))
        if value.hi >= size:
            parts.append(apply("CMPLT", place, const(size, "int64")))
        for part in parts:
            condition = part if condition is None else apply("AND", condition, part)
    assert condition is not None
    return condition


def _guard_loads(root: Expr, guards: tuple[tuple[Index, int], ...]) -> Expr:
    """`root` with every load guarded as well, also those of indices: nothing outside of a buffer is read.

    What a guard itself is computed from is loaded whether it holds or not, and stays as it is.
    """
    own = {g: _data_of(g[0]) for g in guards}

    def guarded(e: Expr) -> Expr | None:
        if e.op != "LOAD":
            return None
        extra = tuple(g for g in guards if g not in e.attrs.guards and id(e) not in own[g])
        if not extra:
            return None
        return expression("LOAD", (), e.dtype, replace(e.attrs, guards=(*e.attrs.guards, *extra)))

    return rebuild(root, guarded)


def _data_of(value: Index) -> set[int]:
    """The expressions (by id) that an index reads its data from."""
    payloads = [a.payload for a in atoms_of(value) if isinstance(a, Slot)]
    return {id(e) for payload in payloads for e in walk_with_indices(payload)}
