"""Loop nests: a kernel after buffers have places. Every load is an address in elements of an argument.

A nest is canonical: axes and arguments are numbered in the order of first use, so that equal layers print the
same text, and the text is what identifies the kernel's code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from tinyinfer.ir.index import Atom, Axis, FloorDiv, Index, Mod, Slot, atoms_of, index, linear, substitute
from tinyinfer.kernels.expression import Expr, expression, walk
from tinyinfer.kernels.lower import walk_with_indices


@dataclass(frozen=True)
class Access:
    """Element `address` of argument number `argument`, or `fill` where a guard fails."""

    argument: int
    address: Index
    guards: tuple[tuple[Index, int], ...] = ()
    fill: float | int | bool = 0


@dataclass
class LoopNest:
    """For all `axes`: arguments[0][store] = body. `dtypes` are the element types of the arguments."""

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
    if e.op == "LOAD":
        guards = "".join(f" if 0<={g}<{n}" for g, n in e.attrs.guards)
        slots = {
            a.number: names[id(a.payload)]
            for i in (e.attrs.address, *(g for g, _ in e.attrs.guards))
            for a in atoms_of(i)
            if isinstance(a, Slot)
        }
        data = f" data{slots}" if slots else ""
        fill = f" else {e.attrs.fill!r}" if guards else ""
        return f"{e.attrs.argument}[{e.attrs.address}]{guards}{fill}{data}"
    if e.op == "REDUCE":
        op, axes = e.attrs
        return f"{op} {' '.join(f'{a.name}:{a.size}' for a in axes)}"
    return repr(e.attrs)


def rebuild(root: Expr, change: Callable[[Expr], Expr | None]) -> Expr:
    """`root` with every expression replaced by `change` of it (None keeps), arguments rebuilt first.

    Data-dependent indices are rebuilt too.
    """
    memo: dict[int, Expr] = {}

    def visit(top: Expr) -> Expr:
        for e in walk(top):
            if id(e) in memo:
                continue
            made = e
            if e.op in ("LOAD", "INDEX"):
                made = _rebuild_payloads(e, visit)
            elif e.args:
                made = expression(e.op, tuple(memo[id(a)] for a in e.args), e.dtype, e.attrs)
            memo[id(e)] = change(made) or made
        return memo[id(top)]

    return visit(root)


def _rebuild_payloads(e: Expr, visit: Callable[[Expr], Expr]) -> Expr:
    from tinyinfer.kernels.lower import ValueAccess

    def renew(value: Index) -> Index:
        slots = [a for a in atoms_of(value) if isinstance(a, Slot) and a.payload is not None]
        if not slots:
            return value
        table: dict[Atom, Index] = {a: index(Slot(a.number, a.lo, a.hi, visit(a.payload))) for a in slots}
        return substitute(value, table)

    if e.op == "INDEX":
        return expression("INDEX", (), e.dtype, renew(e.attrs))
    guards = tuple((renew(g), n) for g, n in e.attrs.guards)
    if isinstance(e.attrs, ValueAccess):
        changed = replace(e.attrs, indices=tuple(map(renew, e.attrs.indices)), guards=guards)
    else:
        changed = replace(e.attrs, address=renew(e.attrs.address), guards=guards)
    return expression("LOAD", (), e.dtype, changed)


def map_indices(
    root: Expr, change: Callable[[Index], Index], axes: Callable[[tuple[Axis, ...]], tuple[Axis, ...]]
) -> Expr:
    """`root` with every index of a physical nest and every reduce's axes mapped."""

    def one(e: Expr) -> Expr | None:
        if e.op == "LOAD":
            return expression(
                "LOAD",
                (),
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
        if e.op == "LOAD":
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


def canonical(nest: LoopNest) -> tuple[LoopNest, dict[Axis, Axis]]:
    """The nest with axes named a0, a1 … (reduce axes after the root ones), and the renaming."""
    names: dict[Axis, Axis] = {}
    for a in nest.axes:
        names[a] = Axis(f"a{len(names)}", a.size)
    for e in walk_with_indices(nest.body):
        if e.op == "REDUCE":
            for a in e.attrs[1]:
                names.setdefault(a, Axis(f"a{len(names)}", a.size))
    table: dict[Atom, Index] = {a: index(b) for a, b in names.items()}

    def change(value: Index) -> Index:
        return substitute(value, table)

    body = map_indices(nest.body, change, lambda group: tuple(names[a] for a in group))
    return LoopNest(tuple(names[a] for a in nest.axes), change(nest.store), body, nest.dtypes), names


def free_axes(root: Expr) -> dict[int, frozenset[Axis]]:
    """For each expression (by id) the axes that its value depends on; reduced ones are bound and do not
    count."""
    found: dict[int, frozenset[Axis]] = {}
    for e in walk_with_indices(root):
        axes: set[Axis] = set()
        for a in e.args:
            axes |= found[id(a)]
        if e.op in ("LOAD", "INDEX"):
            used = [e.attrs.address, *(g for g, _ in e.attrs.guards)] if e.op == "LOAD" else [e.attrs]
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
