"""What a lowered kernel and a loop nest mean, in numpy: every position at once, every read checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tinyinfer.ir import index as algebra
from tinyinfer.ir.index import Atom, Axis, Index, Slot
from tinyinfer.ir.node import Node
from tinyinfer.ir.ops import REDUCE
from tinyinfer.ir.oracle import apply_elementwise
from tinyinfer.kernels.access import walk_with_indices
from tinyinfer.kernels.expression import Expr, walk
from tinyinfer.kernels.layout import Buffer
from tinyinfer.kernels.lower import LoweredKernel
from tinyinfer.kernels.nest import LoopNest
from tinyinfer.kernels.physical import PackedConstant

Read = Callable[[Expr, "Interpreter", np.ndarray], np.ndarray]


class Interpreter:
    """Evaluates expressions with one array dimension for each axis that occurs.

    `read(e, places, holds)` gives the elements of LOAD `e` at `places`, which are meaningful where `holds`.
    """

    def __init__(
        self, axes: Sequence[Axis], body: Expr, read: Callable[[Expr, Interpreter, np.ndarray], np.ndarray]
    ):
        reduced = [a for e in walk_with_indices(body) if e.op == "REDUCE" for a in e.attrs[1]]
        self.dimensions = list(dict.fromkeys([*axes, *reduced]))
        self.axes = tuple(axes)
        self.read = read
        self.memo: dict[int, np.ndarray] = {}

    def index(self, value: Index) -> np.ndarray:
        """The integers that an index is at every position."""
        result = algebra.evaluate(value, self._atom)
        return (
            np.broadcast_to(np.asarray(result, np.int64), [1] * len(self.dimensions))
            if np.ndim(result) == 0
            else result
        )

    def _atom(self, atom: Atom) -> np.ndarray:
        if isinstance(atom, Slot):
            with np.errstate(over="ignore"):
                return self.value(atom.payload).astype(np.int64)
        assert isinstance(atom, Axis)
        place = self.dimensions.index(atom)
        return np.arange(atom.size).reshape([-1 if i == place else 1 for i in range(len(self.dimensions))])

    def value(self, root: Expr) -> np.ndarray:
        """The values of an expression; axes that it does not depend on have size 1."""
        for e in walk(root):
            if id(e) not in self.memo:
                self.memo[id(e)] = self._one(e)
        return self.memo[id(root)]

    def _one(self, e: Expr) -> np.ndarray:
        if e.op == "CONST":
            return np.full([1] * len(self.dimensions), e.attrs, e.dtype)
        if e.op == "INDEX":
            return self.index(e.attrs)
        if e.op == "LOAD":
            holds = np.ones([1] * len(self.dimensions), bool)
            for guard, size in e.attrs.guards:
                place = self.index(guard)
                holds = holds & (place >= 0) & (place < size)
            found = self.read(e, self, holds)
            return np.where(holds, found, np.asarray(e.attrs.fill).astype(e.dtype)).astype(e.dtype)
        arguments = [self.memo[id(a)] for a in e.args]
        if e.op == "REDUCE":
            op, axes = e.attrs
            places = tuple(self.dimensions.index(a) for a in axes)
            shape = [
                a.size if i in places else n
                for i, (a, n) in enumerate(zip(self.dimensions, arguments[0].shape))
            ]
            wide = np.broadcast_to(arguments[0], shape)
            ufunc = REDUCE[op][0]
            if op in ("SUM", "PROD"):
                return np.asarray(ufunc.reduce(wide, axis=places, keepdims=True, dtype=wide.dtype))
            return np.asarray(ufunc.reduce(wide, axis=places, keepdims=True))
        return apply_elementwise(e.op, e.dtype, arguments)

    def over_axes(self, array: np.ndarray) -> np.ndarray:
        """An array over the kernel's own axes only, whole."""
        shape = [a.size if a in self.axes else 1 for a in self.dimensions]
        return np.broadcast_to(array, shape).reshape([a.size for a in self.axes])


def _checked(place: np.ndarray, size: int, holds: np.ndarray) -> np.ndarray:
    """Places that are inside wherever `holds`; elsewhere moved to 0."""
    place, inside = np.broadcast_arrays(place, holds)
    assert not ((place < 0) | (place >= size))[inside].any(), "a read outside of a value"
    return np.where(inside, place, 0)


def interpret_lowered(kernel: LoweredKernel, values: Mapping[Node, np.ndarray]) -> np.ndarray:
    """The value that a lowered kernel stores; AssertionError for a read outside or a place stored twice."""

    def read(e: Expr, self: Interpreter, holds: np.ndarray) -> np.ndarray:
        source = e.attrs.value
        array = source.attrs.array if source.op == "CONST" else values[source]
        places = tuple(
            _checked(self.index(i), d, holds) for i, d in zip(e.attrs.indices, array.shape, strict=True)
        )
        return array[places] if places else array

    interpreter = Interpreter(kernel.axes, kernel.body, read)
    body = interpreter.over_axes(interpreter.value(kernel.body))
    where = tuple(interpreter.over_axes(interpreter.index(i)) for i in kernel.store)
    result = np.zeros(kernel.root.shape, kernel.root.dtype)
    times = np.zeros(kernel.root.shape, int)
    np.add.at(times, where, 1)
    assert (times == 1).all(), "not every element is stored once"
    result[where] = body
    return result


def interpret_nest(
    nest: LoopNest, memory: Sequence[np.ndarray], offsets: Sequence[int] = ()
) -> dict[int, object]:
    """What a loop nest stores, by address; `memory` holds the arguments as flat arrays."""
    moved = list(offsets) or [0] * len(memory)

    def read(e: Expr, self: Interpreter, holds: np.ndarray) -> np.ndarray:
        array = memory[e.attrs.argument]
        return array[_checked(self.index(e.attrs.address) + moved[e.attrs.argument], array.size, holds)]

    interpreter = Interpreter(nest.axes, nest.body, read)
    body = interpreter.over_axes(interpreter.value(nest.body)).ravel()
    where = interpreter.over_axes(interpreter.index(nest.store)).ravel() + moved[0]
    stored = dict(zip(where.tolist(), body.tolist(), strict=True))
    assert len(stored) == len(where), "an address is stored twice"
    return stored


def memory_of(
    arguments: Sequence[Buffer | PackedConstant], values: Mapping[Node, np.ndarray]
) -> list[np.ndarray]:
    """Arguments as flat arrays: packed constants, buffers with their value at its strides and fill around."""
    result = []
    for item in arguments:
        if isinstance(item, PackedConstant):
            result.append(np.ascontiguousarray(item.array()).reshape(-1))
            continue
        item.place()
        value = item.value.attrs.array if item.value.op == "CONST" else values.get(item.value)
        flat = np.full(item.elements, item.fill if item.fill is not None else 0, item.value.dtype)
        if value is not None:
            window = np.lib.stride_tricks.as_strided(
                flat[item.offset :], value.shape, [s * flat.itemsize for s in item.strides]
            )
            window[...] = value
        result.append(flat)
    return result
