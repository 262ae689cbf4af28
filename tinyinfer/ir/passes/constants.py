"""What rules ask about constants, and arithmetic on them that stays as small as they are.

A constant operand is a CONST or a VIEW of one. Its repeated axes never become elements of a literal: results
are computed on the axes that the operands depend on, and expanded again.
"""

from __future__ import annotations

import numpy as np

from tinyinfer.ir import build
from tinyinfer.ir.index import atoms_of, index
from tinyinfer.ir.node import Node, output_axis
from tinyinfer.ir.ops import ELEMENTWISE
from tinyinfer.ir.oracle import apply_elementwise
from tinyinfer.ir.oracle_view import read

SMALL = 4096
"""Elements up to which a literal may be looked into, or made larger than what it is computed from."""


def is_constant(x: Node) -> bool:
    """Whether `x` is a CONST, or a VIEW of one without index inputs."""
    return x.op == "CONST" or (x.op == "VIEW" and len(x.inputs) == 1 and x.inputs[0].op == "CONST")


def literal_size(x: Node) -> int:
    """Elements of the literal behind a constant operand."""
    return (x if x.op == "CONST" else x.inputs[0]).size


def used_axes(x: Node) -> set[int]:
    """The dimensions that a constant operand varies along."""
    if x.op == "CONST":
        return {i for i, d in enumerate(x.shape) if d > 1}
    atoms = set().union(*(atoms_of(e) for e in (*x.attrs.indices, *(g for g, _ in x.attrs.guards))), ())
    return {i for i, axis in enumerate(x.axes) if axis in atoms}


def uniform_value(x: Node) -> float | int | bool | None:
    """The value that all elements of a constant operand have; None if they differ or are too many to look."""
    if not is_constant(x) or (x.op == "VIEW" and x.attrs.guards):
        return None
    source = x if x.op == "CONST" else x.inputs[0]
    if not 0 < source.size <= SMALL:
        return None
    flat = source.attrs.array.reshape(-1)
    if flat.size > 1 and not (flat == flat[0]).all():
        return None
    return flat[0].item()


def is_uniform(x: Node, value: float) -> bool:
    """Whether every element of `x` is known to be `value`."""
    return uniform_value(x) == value


def combine(op: str, *operands: Node) -> Node:
    """The elementwise op of constant operands of one shape, as a constant operand."""
    dtype = "bool" if ELEMENTWISE[op].result == "bool" else operands[-1].dtype
    with np.errstate(all="ignore"):
        value = apply_elementwise(op, dtype, [compact_value(x) for x in operands])
    return literal(np.broadcast_to(value, operands[0].shape))


def literal(array: np.ndarray) -> Node:
    """`array` as a constant operand: a CONST, or if axes have stride 0 a VIEW of one without those axes."""
    compact = _once(array)
    if not compact.flags.c_contiguous:
        compact = np.array(compact, order="C")
    if compact.size == array.size:
        return build.constant(compact)
    kept = [i for i, d in enumerate(compact.shape) if d > 1]
    places = [index(output_axis(i, array.shape[i])) for i in kept]
    return build.view(build.constant(compact.reshape([array.shape[i] for i in kept])), places, array.shape)


def compact_value(x: Node) -> np.ndarray:
    """The elements of a constant operand, axes that it repeats having size 1."""
    if x.op == "CONST":
        return x.attrs.array
    shape = _expanded_shape(x)
    if shape is not None:
        return x.inputs[0].attrs.array.reshape(shape)
    return _once(read(x.inputs[0].attrs.array, x.attrs, x.shape, ()))


def _expanded_shape(x: Node) -> list[int] | None:
    """The source's shape among the output axes for a view that only expands: much the most common one."""
    if x.attrs.guards:
        return None
    axes, shape, following = x.axes, [1] * len(x.shape), 0
    for place, size in zip(x.attrs.indices, x.inputs[0].shape):
        if not place.terms and size == 1:
            continue
        if len(place.terms) != 1 or place.const or place.terms[0] not in [(a, 1) for a in axes[following:]]:
            return None
        position = axes.index(place.terms[0][0])
        if x.shape[position] != size:
            return None
        shape[position], following = size, position + 1
    return shape


def _once(array: np.ndarray) -> np.ndarray:
    return array[tuple(slice(0, 1) if step == 0 and d > 1 else slice(None)
                       for d, step in zip(array.shape, array.strides))]
