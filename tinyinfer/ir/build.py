"""Constructors of IR nodes: the only way that the rest of the project makes them.

Movement functions all make VIEW nodes and collapse a view of a view into one by substitution. Nothing is
copied. Functions check shapes and dtypes and raise ValueError in words; the importer adds the ONNX node's
name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tinyinfer.ir.dtypes import numpy_dtype
from tinyinfer.ir.index import Atom, Index, Slot, atoms_of, flatten, index, substitute, unflatten
from tinyinfer.ir.node import COMBINATIONS, Literal, Node, ScatterMap, ViewMap, node, output_axis
from tinyinfer.ir.ops import ELEMENTWISE, REDUCE

# ---- leaves


def input_node(name: str, shape: Iterable[int], dtype: str) -> Node:
    """A value fed at run time."""
    return node("INPUT", (), name, shape, dtype, (name,))


def constant(value: Any, dtype: str | None = None, name: str = "") -> Node:
    """A constant from an array, a scalar or a Literal."""
    if not isinstance(value, Literal):
        value = Literal(np.asarray(value, dtype=dtype), name)
    return node("CONST", (), value, value.shape, value.dtype)


def scalar(value: float | int | bool, dtype: str) -> Node:
    """A constant of shape ()."""
    return constant(np.asarray(value).astype(numpy_dtype(dtype)))


def full(value: float | int | bool, shape: Sequence[int], dtype: str) -> Node:
    """A value repeated over `shape`."""
    return expand(scalar(value, dtype), shape)


def iota(shape: Sequence[int], axis: int, dtype: str = "int64") -> Node:
    """The position along `axis`."""
    return position(index(output_axis(axis, shape[axis])), shape, dtype)


def position(expression: Index, shape: Sequence[int], dtype: str = "int64") -> Node:
    """An integer computed from the output axes `o0 …` of `shape`."""
    return node("IOTA", (), expression, shape, dtype)


# ---- elementwise


def elementwise(op: str, *inputs: Node, dtype: str | None = None, origin: Iterable[str] = ()) -> Node:
    """An elementwise node. Inputs must agree in shape; `dtype` is for CAST and BITCAST only."""
    rule = ELEMENTWISE[op]
    if len(inputs) != rule.arity:
        raise ValueError(f"{op} takes {rule.arity} inputs, not {len(inputs)}")
    shape = inputs[0].shape
    if any(x.shape != shape for x in inputs):
        raise ValueError(f"{op} takes inputs of one shape, not {[x.shape for x in inputs]}")
    typed = inputs[1:] if op == "WHERE" else inputs[:1] if op in ("SHL", "SHR") else inputs
    if any(x.dtype != typed[0].dtype for x in typed):
        raise ValueError(f"{op} takes inputs of one dtype, not {[x.dtype for x in inputs]}")
    if rule.result == "attr":
        if dtype is None:
            raise ValueError(f"{op} needs a dtype")
        if dtype == inputs[0].dtype:
            return inputs[0]
        return node(op, inputs, dtype, shape, dtype, origin)
    return node(
        op,
        inputs,
        None,
        shape,
        "bool"
        if rule.result == "bool"
        else inputs[-1].dtype
        if op not in ("SHL", "SHR")
        else inputs[0].dtype,
        origin,
    )


def cast(x: Node, dtype: str) -> Node:
    """`x` as `dtype`."""
    return elementwise("CAST", x, dtype=dtype)


def broadcast_shape(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The common shape of numpy broadcasting."""
    rank = max(map(len, shapes), default=0)
    result = []
    for position_ in range(-rank, 0):
        sizes = {s[position_] for s in shapes if len(s) >= -position_} - {1}
        if len(sizes) > 1:
            raise ValueError(f"shapes {[list(s) for s in shapes]} do not broadcast")
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


def broadcast(*inputs: Node) -> tuple[Node, ...]:
    """The inputs expanded to their common shape."""
    shape = broadcast_shape(*(x.shape for x in inputs))
    return tuple(expand(x, shape) for x in inputs)


def apply(op: str, *inputs: Node, origin: Iterable[str] = ()) -> Node:
    """An elementwise node over numpy-broadcast inputs."""
    return elementwise(op, *broadcast(*inputs), origin=origin)


# ---- reduce


def reduce(op: str, x: Node, axes: Iterable[int], keepdims: bool = False, origin: Iterable[str] = ()) -> Node:
    """SUM, MAX, MIN or PROD of `x` over `axes` (negative ones count from the end)."""
    if op not in REDUCE:
        raise ValueError(f"{op} is no reduce op")
    rank = len(x.shape)
    wanted = tuple(sorted({a + rank if a < 0 else a for a in axes}))
    if any(a < 0 or a >= rank for a in wanted):
        raise ValueError(f"reduce axes {wanted} of a tensor of rank {rank}")
    kept = tuple(d for i, d in enumerate(x.shape) if i not in wanted)
    result = node(op, (x,), wanted, kept, x.dtype, origin) if wanted else x
    if keepdims:
        return reshape(result, [1 if i in wanted else d for i, d in enumerate(x.shape)])
    return result


# ---- movement


def view(
    source: Node,
    indices: Sequence[Index],
    shape: Sequence[int],
    guards: Iterable[tuple[Index, int]] = (),
    fill: float | int | bool = 0,
    index_inputs: Sequence[Node] = (),
) -> Node:
    """The general movement op: output position `o` reads `source[indices(o)]`, or `fill` where a guard fails.

    `guards` are pairs (index, size) that must satisfy `0 <= index < size`; those that always hold are
    dropped.
    """
    shape = tuple(int(d) for d in shape)
    if len(indices) != len(source.shape):
        raise ValueError(f"a view of rank {len(source.shape)} needs as many indices, not {len(indices)}")
    kept = tuple((g, n) for g, n in dict.fromkeys(guards) if g.lo < 0 or g.hi >= n)
    if 0 in shape:
        kept = ()
    made = ViewMap(tuple(indices), kept, fill if kept else 0)
    if not index_inputs:
        composed = _compose(source, made, shape)
        if composed is not None:
            return composed
        if not kept and shape == source.shape and made.indices == tuple(map(index, source.axes)):
            return source
    return node("VIEW", (source, *index_inputs), made, shape, source.dtype)


def _compose(source: Node, outer: ViewMap, shape: tuple[int, ...]) -> Node | None:
    """One view for a view of a view, or None where two different fills meet or data indexes the inner one."""
    if source.op == "IOTA" and not outer.guards:
        replaced: dict[Atom, Index] = dict(zip(source.axes, outer.indices, strict=True))
        return position(substitute(source.attrs, replaced), shape, source.dtype)
    if source.op != "VIEW" or len(source.inputs) > 1:
        return None
    inner: ViewMap = source.attrs
    if inner.guards and outer.guards and not _same_fill(inner.fill, outer.fill):
        return None
    replaced = dict(zip(source.axes, outer.indices, strict=True))
    guards = [*outer.guards, *((substitute(g, replaced), n) for g, n in inner.guards)]
    return view(
        source.inputs[0],
        [substitute(i, replaced) for i in inner.indices],
        shape,
        guards,
        outer.fill if outer.guards else inner.fill,
    )


def _same_fill(a: Any, b: Any) -> bool:
    return a == b or (a != a and b != b)


def reshape(x: Node, shape: Sequence[int]) -> Node:
    """The same elements in row-major order in another shape."""
    shape = tuple(int(d) for d in shape)
    if shape == x.shape:
        return x
    if int(np.prod(shape, dtype=object)) != x.size:
        raise ValueError(f"cannot reshape {list(x.shape)} to {list(shape)}")
    if not x.size:  # nothing is read, and strides of 0 are no divisors
        return view(x, [index(0)] * len(x.shape), shape)
    axes = [output_axis(i, d) for i, d in enumerate(shape)]
    return view(x, unflatten(flatten(axes, shape), x.shape), shape)


def permute(x: Node, order: Sequence[int]) -> Node:
    """Output axis i is input axis order[i]."""
    if sorted(order) != list(range(len(x.shape))):
        raise ValueError(f"permutation {list(order)} of a tensor of rank {len(x.shape)}")
    shape = [x.shape[a] for a in order]
    indices: list[Index] = [index(0)] * len(order)
    for out, a in enumerate(order):
        indices[a] = index(output_axis(out, shape[out]))
    return view(x, indices, shape)


def expand(x: Node, shape: Sequence[int]) -> Node:
    """numpy broadcasting of `x` to `shape` (which may have more leading dimensions)."""
    shape = tuple(int(d) for d in shape)
    if shape == x.shape:
        return x
    lead = len(shape) - len(x.shape)
    if lead < 0 or any(d not in (1, shape[lead + i]) for i, d in enumerate(x.shape)):
        raise ValueError(f"cannot expand {list(x.shape)} to {list(shape)}")
    indices = [index(output_axis(lead + i, d)) if d != 1 else index(0) for i, d in enumerate(x.shape)]
    return view(x, indices, shape)


def pad(x: Node, before: Sequence[int], after: Sequence[int], fill: float | int | bool = 0) -> Node:
    """`x` with `fill` around it; negative amounts cut off."""
    shape = [b + d + a for b, d, a in zip(before, x.shape, after, strict=True)]
    if any(d < 0 for d in shape):
        raise ValueError(f"padding {list(before)}, {list(after)} leaves nothing of {list(x.shape)}")
    if not any(before) and not any(after):
        return x
    if 0 in x.shape:
        return full(fill, shape, x.dtype)
    indices = [index(output_axis(i, d)) - b for i, (d, b) in enumerate(zip(shape, before))]
    return view(x, indices, shape, zip(indices, x.shape), fill)


def shrink(x: Node, starts: Sequence[int], stops: Sequence[int], steps: Sequence[int] | None = None) -> Node:
    """`x[start:stop:step]` on every axis; starts and stops already within bounds, steps may be negative."""
    steps = steps if steps is not None else [1] * len(x.shape)
    shape, indices = [], []
    for i, (start, stop, step) in enumerate(zip(starts, stops, steps, strict=True)):
        count = len(range(start, stop, step))
        shape.append(count)
        indices.append(index(output_axis(i, count)) * step + start)
    return view(x, indices, shape)


def flip(x: Node, axes: Iterable[int]) -> Node:
    """`x` with `axes` reversed."""
    axes = set(axes)
    return shrink(
        x,
        [d - 1 if i in axes else 0 for i, d in enumerate(x.shape)],
        [-1 if i in axes else d for i, d in enumerate(x.shape)],
        [-1 if i in axes else 1 for i in range(len(x.shape))],
    )


def window(
    x: Node,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    fill: float | int | bool = 0,
) -> Node:
    """Sliding windows over the last axes of `x`: [..., *outputs, *kernel], one output per window position.

    `before` and `after` pad each spatial axis with `fill`. Output size is the ONNX one with floor rounding.
    """
    spatial = len(kernel)
    lead = len(x.shape) - spatial
    sizes = x.shape[lead:]
    outputs = [
        (d + b + a - (k - 1) * l - 1) // s + 1
        for d, k, s, l, b, a in zip(sizes, kernel, strides, dilations, before, after, strict=True)
    ]
    if any(o <= 0 for o in outputs):
        raise ValueError(f"a window of {list(kernel)} does not fit into {list(sizes)} with its padding")
    shape = [*x.shape[:lead], *outputs, *kernel]
    axes = [output_axis(i, d) for i, d in enumerate(shape)]
    indices = [index(a) for a in axes[:lead]]
    for i in range(spatial):
        indices.append(
            index(axes[lead + i]) * strides[i] + index(axes[lead + spatial + i]) * dilations[i] - before[i]
        )
    return view(x, indices, shape, zip(indices[lead:], sizes), fill)


def gather(x: Node, indices: Node, axis: int) -> Node:
    """ONNX Gather with indices already non-negative: output [*x[:axis], *indices, *x[axis+1:]]; out of range
    reads 0."""
    lead, inner = x.shape[:axis], x.shape[axis + 1 :]
    shape = (*lead, *indices.shape, *inner)
    spread = view(indices, [index(output_axis(axis + i, d)) for i, d in enumerate(indices.shape)], shape)
    slot = index(Slot(0, 0, x.shape[axis] - 1))
    places = [index(output_axis(i, d)) for i, d in enumerate(lead)]
    places.append(slot)
    places += [index(output_axis(axis + len(indices.shape) + i, d)) for i, d in enumerate(inner)]
    return indexed_view(x, places, shape, [spread])


def indexed_view(
    x: Node,
    indices: Sequence[Index],
    shape: Sequence[int],
    index_inputs: Sequence[Node],
    fill: float | int | bool = 0,
) -> Node:
    """A view whose map reads integers from data: `Slot(i)` is `index_inputs[i]` at the output position.

    Every slot's value is guarded by its own interval: outside, the view reads `fill`.
    """
    made = ViewMap(tuple(indices), _slot_guards(indices), fill)
    return node("VIEW", (x, *index_inputs), made, tuple(shape), x.dtype)


def _slot_guards(indices: Sequence[Index]) -> tuple[tuple[Index, int], ...]:
    """For every slot the guard that its value, whatever the data hold, lies in its interval."""
    slots = {a for i in indices for a in atoms_of(i) if isinstance(a, Slot)}
    wide = {s: index(Slot(s.number, -(1 << 62), 1 << 62)) for s in slots}
    return tuple((wide[s] - s.lo, s.hi - s.lo + 1) for s in sorted(slots, key=lambda s: s.number))


def scatter(
    base: Node,
    updates: Node,
    indices: Sequence[Index],
    index_inputs: Sequence[Node] = (),
    combine: str = "SET",
    guards: Iterable[tuple[Index, int]] = (),
    origin: Iterable[str] = (),
) -> Node:
    """`base` with every element of `updates` put, or joined by `combine`, at position `indices` of it.

    `indices` are over the axes of `updates`; `Slot(i)` is `index_inputs[i]` at the update's position. Updates
    outside of a slot's interval, or of `guards`, are dropped; everywhere else indices must lie in `base`.
    """
    if combine not in COMBINATIONS:
        raise ValueError(f"{combine} is no combination of a SCATTER")
    if updates.dtype != base.dtype:
        raise ValueError(f"updates of {updates.dtype} into {base.dtype}")
    shapes = {x.shape for x in index_inputs} | {updates.shape}
    if not base.shape or len(indices) != len(base.shape) or len(shapes) > 1:
        raise ValueError(f"indices of updates {list(updates.shape)} do not fit {list(base.shape)}")
    if not updates.size or not base.size:
        return base
    kept = tuple((g, n) for g, n in dict.fromkeys(guards) if g.lo < 0 or g.hi >= n)
    made = ScatterMap(tuple(indices), (*kept, *_slot_guards(indices)), combine)
    return node("SCATTER", (base, updates, *index_inputs), made, base.shape, base.dtype, origin)


def concat(inputs: Sequence[Node], axis: int, origin: Iterable[str] = ()) -> Node:
    """The inputs side by side along `axis`; empty ones are dropped."""
    kept = [x for x in inputs if x.shape[axis]] or list(inputs[:1])
    if len(kept) == 1:
        return kept[0]
    first = kept[0]
    for x in kept:
        if (
            x.dtype != first.dtype
            or len(x.shape) != len(first.shape)
            or any(a != b for i, (a, b) in enumerate(zip(x.shape, first.shape)) if i != axis)
        ):
            raise ValueError(f"cannot concatenate {[list(k.shape) for k in kept]} along axis {axis}")
    shape = list(first.shape)
    shape[axis] = sum(x.shape[axis] for x in kept)
    return node("CONCAT", kept, axis, shape, first.dtype, origin)


def stored(x: Node) -> Node:
    """`x` computed once and kept in memory, where fusion would compute it again for each reader.

    A concatenation of one part: its value is stored in place, and nothing is fused across it.
    """
    if not x.shape or x.op in ("INPUT", "CONST", "CONCAT", "SCATTER"):
        return x
    return node("CONCAT", (x,), 0, x.shape, x.dtype)


def matmul(a: Node, b: Node, origin: Iterable[str] = ()) -> Node:
    """numpy matmul of operands of rank 2 or more with broadcast batch axes: SUM over k of MUL of two views.
    """
    m, k = a.shape[-2:]
    k2, n = b.shape[-2:]
    if k != k2:
        raise ValueError(f"matmul of {list(a.shape)} and {list(b.shape)}: inner dimensions differ")
    batch = broadcast_shape(a.shape[:-2], b.shape[:-2])
    shape = (*batch, m, n, k)
    rank = len(shape)
    axes = [index(output_axis(i, d)) for i, d in enumerate(shape)]
    where = {"m": axes[rank - 3], "n": axes[rank - 2], "k": axes[rank - 1]}

    def operand(x: Node, rows: str, columns: str) -> Node:
        lead = len(batch) - (len(x.shape) - 2)
        places = [axes[lead + i] if d != 1 else index(0) for i, d in enumerate(x.shape[:-2])]
        return view(x, [*places, where[rows], where[columns]], shape)

    product = elementwise("MUL", operand(a, "m", "k"), operand(b, "k", "n"))
    return reduce("SUM", product, [rank - 1], origin=origin)


def convolution(
    x: Node,
    w: Node,
    strides: Sequence[int],
    dilations: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    group: int = 1,
    origin: Iterable[str] = (),
) -> Node:
    """ONNX Conv of any rank: x [N, C, *spatial], w [O, C/group, *kernel] → [N, O, *outputs]; groups become an
    axis."""
    n, c = x.shape[:2]
    o, cg, *kernel = w.shape
    if group < 1 or c != cg * group or o % group:
        raise ValueError(f"convolution of {c} channels by weights {list(w.shape)} in {group} groups")
    spatial = len(kernel)
    patches = window(x, kernel, strides, dilations, before, after)  # [n, c, *outputs, *kernel]
    outputs = patches.shape[2 : 2 + spatial]
    shape = (n, group, o // group, *outputs, cg, *kernel)
    axes = [index(output_axis(i, d)) for i, d in enumerate(shape)]
    ys, ci, ks = axes[3 : 3 + spatial], axes[3 + spatial], axes[4 + spatial :]
    a = view(patches, [axes[0], axes[1] * cg + ci, *ys, *ks], shape)
    b = view(w, [axes[1] * (o // group) + axes[2], ci, *ks], shape)
    total = reduce("SUM", elementwise("MUL", a, b), range(3 + spatial, len(shape)), origin=origin)
    return reshape(total, (n, o, *outputs))
