"""From values to memory: a lowered kernel whose loads name buffers becomes a loop nest over addresses.

Constants are packed here: a constant that a kernel reads along some axes becomes a parameter laid out in the
order of those axes, with the vectorised one innermost; the vectorised operand of a contraction becomes panels
`[…, n / width, k, width]` padded with zeros.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tinyinfer.ir.index import Axis, Index, atoms_of, index, linear, row_major_strides
from tinyinfer.ir.node import Literal, Node
from tinyinfer.kernels.access import ACCESSES, Access, Update, ValueUpdate, rebuild, walk_with_indices
from tinyinfer.kernels.contraction import Contraction
from tinyinfer.kernels.expression import Expr, expression, walk
from tinyinfer.kernels.image import PITCH, Image, ImageLimits, texels
from tinyinfer.kernels.layout import Buffer
from tinyinfer.kernels.lower import LoweredKernel
from tinyinfer.kernels.nest import LoopNest, indices_of, join_terms, map_indices, mergeable


@dataclass(frozen=True)
class PackedConstant:
    """A parameter as a strided walk over a constant: `shape` and `strides` (elements) from element `offset`
    on.

    `width` > 0 says that the last axis is a panel of that many columns out of `columns` in all: the axis
    before the `k` ones counts panels, and columns past the end hold zeros.
    """

    literal: Literal
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    panel_axis: int = -1
    columns: int = 0
    image: Image | None = None
    """The image that holds it: a row for each element of all axes but the last two."""
    wide: bool = False
    """As `Buffer.wide`."""

    def array(self) -> np.ndarray:
        """The parameter's content; a view of the constant where nothing need be padded or converted."""
        return self._plain() if self.image is None else texels(self._plain(), self.image)

    def _plain(self) -> np.ndarray:
        flat = np.ascontiguousarray(self.literal.array).reshape(-1)
        size = flat.itemsize
        if self.panel_axis >= 0:
            width = self.shape[-1]
            panels = self.shape[self.panel_axis]
            if self.columns % width:
                return self._padded(flat, panels, width)
        return np.lib.stride_tricks.as_strided(
            flat[self.offset :], self.shape, [s * size for s in self.strides], writeable=False
        )

    def _padded(self, flat: np.ndarray, panels: int, width: int) -> np.ndarray:
        result = np.zeros(self.shape, flat.dtype)
        full, rest = divmod(self.columns, width)
        size = flat.itemsize
        for first, count, columns in ((0, full, width), (full, 1, rest)):
            if not count or not columns:
                continue
            shape = [*self.shape[:-1], columns]
            shape[self.panel_axis] = count
            start = self.offset + first * self.strides[self.panel_axis]
            source = np.lib.stride_tricks.as_strided(flat[start:], shape, [s * size for s in self.strides])
            target: list[slice] = [slice(None)] * len(shape)
            target[self.panel_axis] = slice(first, first + count)
            target[-1] = slice(0, columns)
            result[tuple(target)] = source
        return result


@dataclass
class PhysicalKernel:
    """A loop nest and what its arguments are: a Buffer, or a PackedConstant."""

    origin: frozenset[str]
    nest: LoopNest
    arguments: list[Buffer | PackedConstant]
    offsets: tuple[int, ...] = ()
    """Elements that each argument's pointer is moved by (see `rebase`); empty: none."""


@dataclass
class Arguments:
    """Numbers the storages and constants that one kernel touches."""

    items: list[Buffer | PackedConstant] = field(default_factory=list)

    def number(self, item: Buffer | PackedConstant) -> int:
        owner = item.storage if isinstance(item, Buffer) else item
        for i, have in enumerate(self.items):
            if i and have == owner:
                return i
        self.items.append(owner)
        return len(self.items) - 1

    @property
    def dtypes(self) -> tuple[str, ...]:
        return tuple(i.value.dtype if isinstance(i, Buffer) else i.literal.dtype for i in self.items)


def address_of(indices: Iterable[Index], strides: Iterable[int], offset: int) -> Index:
    """The element that indices reach under strides."""
    total = index(offset)
    for i, s in zip(indices, strides):
        total = total + i * s
    return total


def to_physical(lowered: LoweredKernel, buffers: dict[Node, Buffer]) -> PhysicalKernel:
    """Addresses for every load and for the store; constants still as the model has them."""
    arguments = Arguments()
    root = buffers[lowered.root]
    arguments.items.append(root.storage)
    store = address_of(lowered.store, root.strides, root.offset)

    def one(e: Expr) -> Expr | None:
        if e.op == "UPDATE":
            place: ValueUpdate = e.attrs
            address = address_of(place.indices, root.strides, root.offset)
            update = Update(0, address, place.guards, combine=place.combine)
            return expression("UPDATE", e.args, e.dtype, update)
        if e.op != "LOAD":
            return None
        access = e.attrs
        value = access.value
        if value.op == "CONST":
            literal: Literal = value.attrs
            strides = row_major_strides(literal.shape)
            known = buffers.get(value)
            wide = known is not None and known.wide
            packed = PackedConstant(literal, literal.shape, strides, wide=wide)
            made = Access(
                arguments.number(packed), address_of(access.indices, strides, 0), access.guards, access.fill
            )
        else:
            buffer = buffers[value]
            made = Access(
                arguments.number(buffer),
                address_of(access.indices, buffer.strides, buffer.offset),
                access.guards,
                access.fill,
            )
        return expression("LOAD", (), e.dtype, made)

    body = rebuild(lowered.body, one)
    axes = tuple(sorted(lowered.axes, key=lambda a: -abs(store.coefficient(a))))
    return PhysicalKernel(lowered.origin, LoopNest(axes, store, body, arguments.dtypes), arguments.items)


def pack_constants(
    kernel: PhysicalKernel,
    order: Sequence[Axis],
    skip: Collection[Expr] = (),
    images: ImageLimits | None = None,
    along: Axis | None = None,
) -> PhysicalKernel:
    """Lay each constant out along the axes that read it, in `order` (outer to inner).

    Reads that are not affine, or would repeat the constant more than fourfold, keep the model's layout. What
    is read side by side `along` an axis goes to an image that can hold it.
    """
    arguments = Arguments([kernel.arguments[0]])

    def one(e: Expr) -> Expr | None:
        if e.op != "LOAD":
            return None
        access: Access = e.attrs
        source = kernel.arguments[access.argument]
        if e in skip or isinstance(source, Buffer):
            return expression("LOAD", (), e.dtype, replace(access, argument=arguments.number(source)))
        used = [a for a in order if access.address.coefficient(a)]
        total = int(np.prod([a.size for a in used], dtype=np.int64)) if used else 1
        if len(used) != len(access.address.terms) or access.guards or total > 4 * source.literal.size + 64:
            return expression("LOAD", (), e.dtype, replace(access, argument=arguments.number(source)))
        shape = tuple(a.size for a in used)
        packed = PackedConstant(
            source.literal,
            shape,
            tuple(access.address.coefficient(a) for a in used),
            access.address.const,
            wide=source.wide,
        )
        places = row_major_strides(shape)
        if images is not None and used and used[-1] == along and source.literal.dtype == "float32":
            rows = int(np.prod(shape[:-1], dtype=np.int64))
            image = images.of_constant(source.literal.array, shape[-1], rows, source.wide)
            if image is not None:
                packed = replace(packed, image=image)
                places = (*(s * PITCH for s in row_major_strides(shape[:-1])), 1)
        address = address_of(map(index, used), places, 0)
        return expression("LOAD", (), e.dtype, Access(arguments.number(packed), address))

    body = rebuild(kernel.nest.body, one)
    nest = LoopNest(kernel.nest.axes, kernel.nest.store, body, arguments.dtypes)
    return PhysicalKernel(kernel.origin, nest, arguments.items)


@dataclass(frozen=True)
class Panels:
    """The vectorised axis of a contraction after it was cut: `count` panels of `width` columns, `columns` in
    all."""

    panel: Axis
    lane: Axis
    columns: int


@dataclass
class ContractionNest:
    """A contraction ready to be scheduled: loads `a` (scalars) and `b` (vectors), and what is done with their
    sum.

    `epilogue` holds a SLOT expression where the finished sum goes.
    """

    physical: PhysicalKernel
    a: Access
    b: Access
    epilogue: Expr
    groups: tuple[Axis, ...]
    m: tuple[Axis, ...]
    k: tuple[Axis, ...]
    panels: Panels
    packed: bool
    """Whether `b` lies in panels padded with zeros, so that whole vectors may always be read."""
    dtype: str
    """What operands and accumulators are: float32 or int32."""

    def text(self) -> str:
        every = (self.groups, self.m, self.k)
        groups, m, k = (" ".join(f"{a.name}:{a.size}" for a in axes) or "()" for axes in every)
        return (
            f"{self.physical.nest.text()}\ncontraction groups {groups} m {m} k {k} panels "
            f"{self.panels.panel.size}x{self.panels.lane.size} of {self.panels.columns}\n"
            f"  a {self.a}\n  b {self.b}\n"
        )


ACCUMULATOR = "accumulator"

ALIGNMENT = 16
"""Bytes of a vector of four floats."""


def aligned_arguments(kernel: PhysicalKernel) -> tuple[bool, ...]:
    """Whether each argument begins at a multiple of ALIGNMENT bytes wherever its buffer lies. What a loop
    moves by rows does so if its rows do."""
    result = []
    for number, a in enumerate(kernel.arguments):
        moved = kernel.offsets[number] if kernel.offsets else 0
        if isinstance(a, Buffer):
            fits = a.space not in ("input", "output") or a.nbytes % ALIGNMENT == 0
            result.append(fits and moved * a.itemsize % ALIGNMENT == 0)
        else:
            result.append(moved * np.dtype(a.literal.dtype).itemsize % ALIGNMENT == 0)
    return tuple(result)



READ = "read"


def image_arguments(kernel: PhysicalKernel) -> tuple[str, ...]:
    """Of each argument that is an image READ, or, of the one that is written, what its elements are stored
    as; "" for an argument that is no image. Reading gives float32 whatever is stored."""
    written, *read = kernel.arguments
    images = [READ if a.image is not None else "" for a in read]
    return (written.image.dtype if written.image is not None else "", *images)


def panels_in_image(c: ContractionNest, limits: ImageLimits) -> ContractionNest:
    """The nest with its packed operand in an image, x the panel's columns and y the step of the sum, where
    its numbers and its size allow that."""
    packed = c.physical.arguments[c.b.argument]
    if not isinstance(packed, PackedConstant) or not c.packed or packed.literal.dtype != "float32":
        return c
    panels, width = packed.shape[-2:]
    rows = int(np.prod(packed.shape[:-2], dtype=np.int64))
    image = limits.of_constant(packed.literal.array, panels * width, rows, packed.wide)
    if image is None:
        return c
    row = panels * width
    terms = {
        a: s if a in (c.panels.panel, c.panels.lane) else s // row * PITCH for a, s in c.b.address.terms
    }
    arguments = list(c.physical.arguments)
    arguments[c.b.argument] = replace(packed, image=image)
    return replace(
        c,
        physical=replace(c.physical, arguments=arguments),
        b=replace(c.b, address=linear(terms, c.b.address.const)),
    )


def build_contraction(
    kernel: PhysicalKernel,
    c: Contraction,
    width: int,
    panels_outside: bool = True,
    images: ImageLimits | None = None,
) -> ContractionNest:
    """Cut the vectorised axis into panels of `width` columns and pack its operand if that is constant: panel
    after panel, or, for neighbours that read at the same time, all panels side by side for each step of the
    sum. Constants of the epilogue may lie in `images`."""
    vector = c.vector
    _, a, b = _operands(kernel.nest.body, vector)
    panel = Axis("p", -(-vector.size // width))
    lane = Axis("l", width)
    constant = kernel.arguments[b.attrs.argument]
    k = tuple(sorted(c.k, key=lambda x: -abs(a.attrs.address.coefficient(x))))
    groups = tuple(x for x in (*c.n_outer, *c.batch))
    order = [*groups, *c.m, *k, vector]
    kernel = pack_constants(kernel, order, {a, b}, images, vector)
    total, a, b = _operands(kernel.nest.body, vector)
    cut = {vector: index(panel) * width + index(lane)}

    def change(value: Index) -> Index:
        scale = value.coefficient(vector)
        if not scale:
            return value
        terms = {x: s for x, s in value.terms if x != vector}
        return linear(terms, value.const) + cut[vector] * scale

    arguments = list(kernel.arguments)
    b_access: Access = replace(b.attrs, address=change(b.attrs.address))
    if isinstance(constant, PackedConstant):
        dims = [*groups, panel, *k, lane] if panels_outside else [*groups, *k, panel, lane]
        address = b.attrs.address
        used = [x for x in dims if x in (panel, lane) or address.coefficient(x)]
        scale = address.coefficient(vector)
        strides = [
            scale * width if x is panel else scale if x is lane else address.coefficient(x) for x in used
        ]
        shape = tuple(x.size for x in used)
        packed = PackedConstant(
            constant.literal,
            shape,
            tuple(strides),
            address.const,
            used.index(panel),
            vector.size,
            wide=constant.wide,
        )
        arguments[b.attrs.argument] = packed
        b_access = Access(b.attrs.argument, address_of(map(index, used), row_major_strides(shape), 0))
    slot = expression("SLOT", (), total.dtype, ACCUMULATOR)
    body = rebuild(kernel.nest.body, lambda e: slot if e.op == "REDUCE" else None)
    epilogue = map_indices(body, change, lambda group: group)
    made = LoopNest((*groups, *c.m, panel, lane), change(kernel.nest.store), epilogue, kernel.nest.dtypes)
    m = tuple(sorted(c.m, key=lambda x: -abs(made.store.coefficient(x))))
    return ContractionNest(
        PhysicalKernel(kernel.origin, made, arguments),
        a.attrs,
        b_access,
        epilogue,
        groups,
        m,
        k,
        Panels(panel, lane, vector.size),
        isinstance(constant, PackedConstant),
        total.dtype,
    )


def _operands(body: Expr, vector: Axis) -> tuple[Expr, Expr, Expr]:
    """The reduction of a physical contraction, its scalar operand and its vectorised one."""
    total = next(e for e in walk(body) if e.op == "REDUCE")
    left, right = total.args[0].args
    if vector in atoms_of(left.attrs.address):
        left, right = right, left
    return total, left, right


def merge_contraction(c: ContractionNest) -> ContractionNest:
    """Join neighbouring m axes, and neighbouring k axes, that every address walks as one."""
    nest = c.physical.nest
    groups = [list(c.m), list(c.k)]
    while True:
        indices = [nest.store, c.a.address, c.b.address, *indices_of(c.epilogue)]
        pair = next(
            (
                (p, q)
                for group in groups
                for p in group
                for q in group
                if p is not q and mergeable(p, q, indices)
            ),
            None,
        )
        if pair is None:
            return replace(c, m=tuple(groups[0]), k=tuple(groups[1]))
        outer, inner = pair
        joined = Axis(f"{outer.name}_{inner.name}", outer.size * inner.size)

        def change(value: Index, outer=outer, inner=inner, joined=joined) -> Index:
            return join_terms(value, outer, inner, joined)

        def axes(group, outer=outer, inner=inner, joined=joined):
            return tuple(joined if x == inner else x for x in group if x != outer)

        groups = [[joined if x is inner else x for x in group if x is not outer] for group in groups]
        epilogue = map_indices(c.epilogue, change, axes)
        nest = LoopNest(axes(nest.axes), change(nest.store), epilogue, nest.dtypes)
        c = replace(
            c,
            physical=replace(c.physical, nest=nest),
            epilogue=epilogue,
            a=replace(c.a, address=change(c.a.address)),
            b=replace(c.b, address=change(c.b.address)),
        )


def rebase(
    kernel: PhysicalKernel, accesses: tuple[Access, ...] = ()
) -> tuple[PhysicalKernel, tuple[Access, ...]]:
    """Move the smallest literal of each argument's addresses into the argument's pointer.

    Equal kernels on different slices of a buffer become the same code. `accesses` are further ones, not in
    the body. Arguments that are read under guards stay: their guarded reads fall back to element 0. So do
    those in images, which have no pointers.
    """
    least: dict[int, int] = {0: kernel.nest.store.const}
    fixed = {i for i, a in enumerate(kernel.arguments) if a.image is not None}
    loads = [e.attrs for e in walk_with_indices(kernel.nest.body) if e.op in ACCESSES]
    for access in (*loads, *accesses):
        have = least.get(access.argument)
        literal = access.address.const
        least[access.argument] = literal if have is None else min(have, literal)
        if access.guards:
            fixed.add(access.argument)
    offsets = tuple(0 if i in fixed else least.get(i, 0) for i in range(len(kernel.arguments)))
    if not any(offsets):
        return replace(kernel, offsets=offsets), accesses

    def move(access: Access) -> Access:
        return replace(access, address=access.address - offsets[access.argument])

    def one(e: Expr) -> Expr | None:
        return expression(e.op, e.args, e.dtype, move(e.attrs)) if e.op in ACCESSES else None

    nest = kernel.nest
    moved = LoopNest(nest.axes, nest.store - offsets[0], rebuild(nest.body, one), nest.dtypes)
    return replace(kernel, nest=moved, offsets=offsets), tuple(map(move, accesses))
