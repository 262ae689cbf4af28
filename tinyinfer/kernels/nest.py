"""Loop nests: a kernel after buffers have places. Every load is an address in elements of an argument.

Equal layers print the same text, and the text is what identifies the kernel's code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from tinyinfer.ir.index import Axis, FloorDiv, Index, Mod, Slot, atoms_of, linear
from tinyinfer.kernels.access import ACCESSES, rebuild, walk_with_indices
from tinyinfer.kernels.expression import Expr, expression


@dataclass
class LoopNest:
    """For all `axes`: arguments[0][store] = body. `dtypes` are the element types of the arguments.

    A body that is an UPDATE says itself where in argument 0 it goes; `store` is then where that begins.
    """

    axes: tuple[Axis, ...]
    store: Index
    body: Expr
    dtypes: tuple[str, ...]

    def text(self) -> str:
        """The nest as text, one line per expression."""
        lines = [f"for {' '.join(f'{a.name}:{a.size}' for a in self.axes) or '()'}"]
        names: dict[int, str] = {}
        for e in walk_with_indices(self.body):
            names[id(e)] = f"%{len(names)}"
            arguments = " ".join(names[id(a)] for a in e.args)
            extra = "" if e.attrs is None else f" {_attribute_text(e, names)}"
            lines.append(f"  {names[id(e)]} = {e.op} {e.dtype}{extra} {arguments}".rstrip())
        types = " ".join(f"{n}:{d}" for n, d in enumerate(self.dtypes))
        lines.append(f"  store 0[{self.store}] = {names[id(self.body)]}")
        return f"arguments {types}\n" + "\n".join(lines)


def _attribute_text(e: Expr, names: dict[int, str]) -> str:
    if e.op in ACCESSES:
        guards = "".join(f" if 0<={g}<{n}" for g, n in e.attrs.guards)
        slots = {
            a.number: names[id(a.payload)]
            for i in (e.attrs.address, *(g for g, _ in e.attrs.guards))
            for a in atoms_of(i)
            if isinstance(a, Slot)
        }
        data = f" data{slots}" if slots else ""
        if e.op == "UPDATE":
            return f"{e.attrs.combine} {e.attrs.argument}[{e.attrs.address}]{guards}{data}"
        fill = f" else {e.attrs.fill!r}" if guards else ""
        return f"{e.attrs.argument}[{e.attrs.address}]{guards}{fill}{data}"
    if e.op == "REDUCE":
        op, axes = e.attrs
        return f"{op} {' '.join(f'{a.name}:{a.size}' for a in axes)}"
    return repr(e.attrs)


def map_indices(
    root: Expr, change: Callable[[Index], Index], axes: Callable[[tuple[Axis, ...]], tuple[Axis, ...]]
) -> Expr:
    """`root` with every index of a physical nest and every reduce's axes mapped."""

    def one(e: Expr) -> Expr | None:
        if e.op in ACCESSES:
            return expression(
                e.op,
                e.args,
                e.dtype,
                replace(
                    e.attrs,
                    address=change(e.attrs.address),
                    guards=tuple((change(g), n) for g, n in e.attrs.guards),
                ),
            )
        if e.op == "INDEX":
            return expression("INDEX", (), e.dtype, change(e.attrs))
        if e.op == "REDUCE":
            op, reduced = e.attrs
            return expression("REDUCE", e.args, e.dtype, (op, axes(reduced)))
        return None

    return rebuild(root, one)


def indices_of(root: Expr) -> Iterable[Index]:
    """Every index that occurs in a physical nest's body."""
    for e in walk_with_indices(root):
        if e.op in ACCESSES:
            yield e.attrs.address
            for g, _ in e.attrs.guards:
                yield g
        elif e.op == "INDEX":
            yield e.attrs


def merge_axes(nest: LoopNest, keep: frozenset[Axis] = frozenset()) -> LoopNest:
    """Join neighbouring axes that every index walks as one, so that inner loops get long.

    `keep` names axes that must stay themselves. Root axes are tried in the order given; reduce axes likewise.
    """
    changed = True
    while changed:
        changed = False
        groups = [nest.axes, *(e.attrs[1] for e in walk_with_indices(nest.body) if e.op == "REDUCE")]
        indices = [nest.store, *indices_of(nest.body)]
        for group in groups:
            pair = next(
                (
                    (p, q)
                    for p in group
                    for q in group
                    if p is not q and p not in keep and q not in keep and mergeable(p, q, indices)
                ),
                None,
            )
            if pair:
                nest = _merge(nest, *pair)
                changed = True
                break
    return nest


def mergeable(outer: Axis, inner: Axis, indices: list[Index]) -> bool:
    """Whether every index moves by `inner.size` steps of `inner` for one of `outer`."""
    for i in indices:
        c_outer = c_inner = 0
        for atom, c in i.terms:
            if atom is outer or atom == outer:
                c_outer = c
            elif atom is inner or atom == inner:
                c_inner = c
            elif isinstance(atom, (FloorDiv, Mod)):
                used = atoms_of(atom.inner)
                if outer in used or inner in used:
                    return False
        if c_outer != c_inner * inner.size:
            return False
    return True


def _merge(nest: LoopNest, outer: Axis, inner: Axis) -> LoopNest:
    joined = Axis(f"{outer.name}_{inner.name}", outer.size * inner.size)

    def change(value: Index) -> Index:
        return join_terms(value, outer, inner, joined)

    def axes(group: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return tuple(joined if a == inner else a for a in group if a != outer) if inner in group else group

    return LoopNest(axes(nest.axes), change(nest.store), map_indices(nest.body, change, axes), nest.dtypes)


def join_terms(value: Index, outer: Axis, inner: Axis, joined: Axis) -> Index:
    """`value` with the mergeable axes `outer` and `inner` written as one."""
    scale = value.coefficient(inner)
    if not scale:
        return value
    terms = {a: c for a, c in value.terms if a != outer and a != inner}
    terms[joined] = scale
    return linear(terms, value.const)


def free_axes(root: Expr) -> dict[int, frozenset[Axis]]:
    """For each expression (by id) the axes that its value depends on; reduced ones are bound and do not
    count."""
    found: dict[int, frozenset[Axis]] = {}
    for e in walk_with_indices(root):
        axes: set[Axis] = set()
        for a in e.args:
            axes |= found[id(a)]
        if e.op in (*ACCESSES, "INDEX"):
            used = [e.attrs] if e.op == "INDEX" else [e.attrs.address, *(g for g, _ in e.attrs.guards)]
            for i in used:
                for atom in atoms_of(i):
                    if isinstance(atom, Slot):
                        axes |= found[id(atom.payload)]
                    else:
                        axes.add(atom)  # type: ignore[arg-type]
        if e.op == "REDUCE":
            axes -= set(e.attrs[1])
        found[id(e)] = frozenset(axes)
    return found
