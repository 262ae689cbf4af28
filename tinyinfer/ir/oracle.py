"""The numpy interpreter of the IR: the meaning of every node, against which all devices are checked.

Views stay virtual (strided) arrays wherever they can, and a SUM of a MUL is computed as a contraction without
its product, so that whole models can be evaluated. Float sums accumulate in float64 and round once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyinfer.budget import check_time, check_trips
from tinyinfer.ir import index as algebra
from tinyinfer.ir.dtypes import (
    NARROW,
    NARROW_INTEGERS,
    codes,
    computing_dtype,
    is_float,
    numpy_dtype,
)
from tinyinfer.ir.node import LoopBody, Node, topological_order
from tinyinfer.ir.ops import ELEMENTWISE, REDUCE, reduce_identity
from tinyinfer.ir.oracle_contraction import contract
from tinyinfer.ir.oracle_scatter import write
from tinyinfer.ir.oracle_view import read


def evaluate(outputs: Sequence[Node], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The values of `outputs`, fresh C-contiguous arrays with the nodes' shapes and dtypes.

    `feeds` maps the names of INPUT nodes to arrays of their shape and dtype. Raises KeyError for a missing
    feed, ValueError for one of a wrong shape or dtype, and IndexError where a view reads outside its source.
    """
    return [_fresh(x) for x in evaluate_virtual(outputs, feeds)]


def evaluate_virtual(outputs: Sequence[Node], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """As `evaluate`, but results may share memory with feeds and literals; repeated axes have stride 0."""
    order = _needed(outputs)
    users = Counter(id(x) for current in order for x in _operands(current))
    users.update(id(x) for x in outputs)
    values: dict[int, np.ndarray] = {}
    left: dict[int, list[np.ndarray]] = {}
    with np.errstate(all="ignore"):
        for current in order:
            check_time()
            operands = _operands(current)
            arrays = [values[id(x)] for x in operands]
            if current.op == "LOOP":
                values[id(current)], left[id(current)] = run_loop(current.attrs, arrays)
            elif current.op == "LOOP_OUTPUT":
                values[id(current)] = left[id(operands[0])][current.attrs]
            else:
                values[id(current)] = _value(current, arrays, feeds)
            for x in operands:
                users[id(x)] -= 1
                if not users[id(x)]:
                    del values[id(x)]
                    left.pop(id(x), None)
    return [values[id(x)] for x in outputs]


def run_loop(body: LoopBody, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The number of iterations of a LOOP over the values of its inputs, and its outputs by number."""
    given = list(arrays)
    going = bool(given.pop()) if body.conditional else True
    steps = min(body.steps, int(given.pop())) if body.counted else body.steps
    carried, rest = given[: body.carried], given[body.carried :]
    scanned, captured = rest[: len(body.scanned)], rest[len(body.scanned) :]
    rows = body.outputs[body.carried : body.carried + len(body.stacked)]
    stacked = [np.zeros((body.steps, *x.shape), numpy_dtype(x.dtype)) for x in rows]
    names = [x.attrs for x in body.inputs]
    number = 0
    while going and number < steps:
        check_trips(number)
        taken = [x[-1 - number if back else number] for x, back in zip(scanned, body.scanned)]
        feeds = dict(zip(names, [np.int64(number), *carried, *taken, *captured], strict=True))
        results = evaluate(body.outputs, feeds)
        carried = results[: body.carried]
        for target, back, row in zip(stacked, body.stacked, results[body.carried :]):
            target[-1 - number if back else number] = row
        if body.conditional:
            going = bool(results[-1])
        number += 1
    return np.array(number, np.int64), [*carried, *stacked]


def _operands(current: Node) -> tuple[Node, ...]:
    """The nodes whose values `current` is computed from: a contraction skips its product."""
    if is_contraction(current):
        return current.inputs[0].inputs
    return current.inputs


def is_contraction(current: Node) -> bool:
    """Whether a node is a SUM of a MUL of numbers."""
    return current.op == "SUM" and current.inputs[0].op == "MUL" and current.dtype != "bool"


def _needed(outputs: Sequence[Node]) -> list[Node]:
    """The nodes to compute, operands first; products that only contractions use are not among them."""
    order = topological_order(outputs)
    wanted = {id(x) for x in outputs}
    needed = []
    for current in reversed(order):
        if id(current) in wanted:
            needed.append(current)
            wanted.update(id(x) for x in _operands(current))
    return needed[::-1]


def _fresh(value: np.ndarray) -> np.ndarray:
    """A C-contiguous array that shares no memory with feeds and literals."""
    owned = value.base is None and value.flags.c_contiguous and value.flags.writeable
    return value if owned else np.array(value, order="C")


def _value(current: Node, arrays: list[np.ndarray], feeds: Mapping[str, np.ndarray]) -> np.ndarray:
    op = current.op
    if current.is_elementwise:
        return _elementwise(current, arrays)
    if op == "VIEW":
        return read(arrays[0], current.attrs, current.shape, arrays[1:])
    if op == "CONST":
        return current.attrs.array.view()
    if op == "INPUT":
        return _fed(current, feeds)
    if is_contraction(current):
        return contract(arrays[0], arrays[1], current.attrs, numpy_dtype(current.dtype))
    if current.is_reduce:
        return _reduce(current, arrays[0])
    if op == "IOTA":
        return _positions(current)
    if op == "CONCAT":
        return np.concatenate(arrays, axis=current.attrs)
    if op == "SCATTER":
        joined = current.dtype in NARROW and current.attrs.combine != "SET"
        wide = computing_dtype(current.dtype) if joined else current.dtype
        base, updates = (x.astype(numpy_dtype(wide), copy=False) for x in arrays[:2])
        return write(base, updates, current.attrs, arrays[2:]).astype(numpy_dtype(current.dtype), copy=False)
    raise ValueError(f"the IR has no op {op}")


def _fed(current: Node, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
    if current.attrs not in feeds:
        raise KeyError(f"input {current.attrs!r} is not fed")
    array = np.asarray(feeds[current.attrs])
    if array.shape != current.shape or array.dtype.name != current.dtype:
        raise ValueError(f"input {current.attrs!r} takes {current.dtype}{list(current.shape)}, "
                         f"not {array.dtype.name}{list(array.shape)}")
    return array.view()


def _elementwise(current: Node, arrays: list[np.ndarray]) -> np.ndarray:
    """The op on one copy of what all operands repeat (stride 0), repeated again."""
    repeated = [all(x.strides[i] == 0 for x in arrays) and d > 1 for i, d in enumerate(current.shape)]
    if any(repeated):
        once = tuple(slice(0, 1) if r else slice(None) for r in repeated)
        value = apply_elementwise(current.op, current.dtype, [x[once] for x in arrays])
        return np.broadcast_to(value, current.shape)
    return apply_elementwise(current.op, current.dtype, arrays)


def apply_elementwise(op: str, result: str, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The elementwise op of arrays that broadcast, as IR dtype `result`; callers silence numpy."""
    dtype = numpy_dtype(result)
    if op == "CAST":
        return convert(arrays[0], dtype)
    if op == "BITCAST":
        # a bool is one byte, but numpy reinterprets only arrays whose last axis is dense
        source = np.array(arrays[0], order="C")
        return (codes(source) if source.dtype.name in NARROW else source).view(dtype)
    if any(x.dtype.name in NARROW for x in arrays) and op != "WHERE":
        # as devices do: in the wider type, rounded after each op
        wide = [x.astype(computing_dtype(x.dtype.name)) for x in arrays]
        return apply_elementwise(op, computing_dtype(result), wide).astype(dtype)
    if op == "MULACC" and is_float(result):
        a, b, c = (x.astype(np.float64) for x in arrays)
        return np.asarray(a * b + c).astype(dtype)
    return np.asarray(ELEMENTWISE[op].numpy(*arrays)).astype(dtype, copy=False)


def convert(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The CAST of an array.

    Float to integer truncates, saturates at the integer's range (that of int32 if it has fewer bits than a
    byte, to which int32 then wraps) and takes NaN to 0; anything to bool is `x != 0`; integers wrap to
    narrower integers; narrow floats are rounded from float32; the rest is numpy's conversion.
    """
    if dtype.kind == "b":
        return np.asarray(x != 0)
    if x.dtype.name in NARROW:
        x = x.astype(computing_dtype(x.dtype.name))
    if dtype.name in NARROW_INTEGERS:
        if is_float(x.dtype.name):
            x = convert(x, np.dtype(np.int32))
        return x.astype(np.int8).astype(dtype)
    if dtype.name in NARROW and x.dtype != np.float32:
        x = x.astype(np.float32)
    if dtype.kind not in "iu" or not is_float(x.dtype.name):
        return x.astype(dtype)
    limits = np.iinfo(dtype)
    wide = x.astype(np.float64)
    low, high = wide <= limits.min, wide >= float(limits.max)
    inside = np.where(low | high | np.isnan(wide), 0.0, np.trunc(wide)).astype(dtype)
    return np.where(low, dtype.type(limits.min), np.where(high, dtype.type(limits.max), inside))


def _reduce(current: Node, x: np.ndarray) -> np.ndarray:
    ufunc = REDUCE[current.op][0]
    dtype = numpy_dtype(current.dtype)
    if current.dtype in NARROW:
        x = x.astype(computing_dtype(current.dtype))
    options: dict[str, Any] = {}
    if current.op in ("SUM", "PROD"):
        options["dtype"] = np.float64 if is_float(current.dtype) else dtype
    elif not x.size:
        options["initial"] = x.dtype.type(reduce_identity(current.op, x.dtype.name))
    return np.asarray(ufunc.reduce(x, axis=current.attrs, **options)).astype(dtype, copy=False)


def _positions(current: Node) -> np.ndarray:
    rank = len(current.shape)

    def values(atom: algebra.Atom) -> np.ndarray:
        axis = next(i for i, a in enumerate(current.axes) if a == atom)
        return np.arange(current.shape[axis]).reshape([-1 if i == axis else 1 for i in range(rank)])

    result = np.asarray(algebra.evaluate(current.attrs, values)).astype(numpy_dtype(current.dtype))
    return np.broadcast_to(result, current.shape)
