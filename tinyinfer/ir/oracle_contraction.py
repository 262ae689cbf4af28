"""How the oracle computes a SUM of a MUL: matrix products over classes of axes, in bounded memory."""

from __future__ import annotations

from math import prod

import numpy as np

CHUNK = 1 << 23
"""Elements of an operand that are copied at a time."""


def contract(a: np.ndarray, b: np.ndarray, axes: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """`(a * b).sum(axes)` as `dtype` without the product; `a` and `b` have one shape and may be strided.

    Stride 0 tells that an operand does not depend on an axis. Floats accumulate in float64 and round once;
    integers give what arithmetic in `dtype` gives, with its wrap-around.
    """
    shape = a.shape
    kept = [i for i in range(a.ndim) if i not in axes]
    result_shape = [shape[i] for i in kept]
    if not prod(shape):
        return np.zeros(result_shape, dtype)
    in_a = {i for i in range(a.ndim) if shape[i] > 1 and a.strides[i] != 0}
    in_b = {i for i in range(a.ndim) if shape[i] > 1 and b.strides[i] != 0}
    batch = [i for i in kept if i in in_a and i in in_b]
    rows = [i for i in kept if i in in_a and i not in in_b]
    columns = [i for i in kept if i in in_b and i not in in_a]
    summed = [i for i in axes if i in in_a and i in in_b]
    only_a = [i for i in axes if i in in_a and i not in in_b]
    only_b = [i for i in axes if i in in_b and i not in in_a]
    repeats = prod(shape[i] for i in axes if i not in in_a and i not in in_b)

    kind = _accumulator(a, b, prod(shape[i] for i in axes), dtype)
    left = _arranged(a, [*batch, *rows, *summed], only_a, kind)
    right = _arranged(b, [*batch, *summed, *columns], only_b, kind)
    total = np.zeros([shape[i] for i in (*batch, *rows, *columns)], kind)
    _accumulate(left, right, total, len(batch), len(rows), len(summed))
    if repeats > 1:
        total *= kind.type(repeats)
    total = _rounded(total, dtype)
    order = [*batch, *rows, *columns]
    total = total.transpose([order.index(i) for i in sorted(order)])
    return np.broadcast_to(total.reshape([shape[i] if i in order else 1 for i in kept]), result_shape)


def _accumulator(a: np.ndarray, b: np.ndarray, terms: int, dtype: np.dtype) -> np.dtype:
    """float64 (BLAS) for floats and for integer sums that it holds exactly, else 64-bit integers."""
    if dtype.kind not in "iu":
        return np.dtype(np.float64)
    largest = [max(abs(int(x.min())), abs(int(x.max()))) for x in (a, b)]
    if largest[0] * largest[1] * terms < 1 << 53:
        return np.dtype(np.float64)
    return np.dtype(np.uint64 if dtype.kind == "u" else np.int64)


def _rounded(total: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind in "iu" and total.dtype.kind == "f":
        total = total.astype(np.int64)
    return total.astype(dtype)


def _arranged(x: np.ndarray, order: list[int], summed: list[int], kind: np.dtype) -> np.ndarray:
    """`x` with its axes in `order`, summed over `summed`; axes that it does not depend on are dropped."""
    wanted = [*order, *summed]
    once = x[tuple(slice(None) if i in wanted else 0 for i in range(x.ndim))]
    left = sorted(wanted)
    moved = once.transpose([left.index(i) for i in wanted])
    if summed:
        wide = moved.astype(kind, copy=False)
        moved = np.add.reduce(wide, axis=tuple(range(len(order), len(wanted))))
    return moved


def _accumulate(left: np.ndarray, right: np.ndarray, total: np.ndarray, batch: int, rows: int,
                summed: int) -> None:
    """Add the contraction of left [batch…, rows…, summed…] and right [batch…, summed…, columns…] to `total`.

    Operands above CHUNK elements are halved along their largest axis, so that only pieces are ever copied.
    """
    if left.size > CHUNK or right.size > CHUNK:
        side, other = (left, right) if left.size >= right.size else (right, left)
        axis = int(np.argmax(side.shape))
        half = side.shape[axis] // 2
        for piece in (slice(0, half), slice(half, None)):
            parts = [left, right, total]
            for number, position in enumerate(_places(axis, side is left, left.ndim, batch, rows, summed)):
                if position is not None:
                    parts[number] = parts[number][(slice(None),) * position + (piece,)]
            _accumulate(parts[0], parts[1], parts[2], batch, rows, summed)
        return
    groups = prod(left.shape[:batch])
    m = prod(left.shape[batch:batch + rows])
    k = prod(left.shape[batch + rows:])
    n = prod(right.shape[batch + summed:])
    a = np.array(left, dtype=total.dtype, order="C").reshape(groups, m, k)
    b = np.array(right, dtype=total.dtype, order="C").reshape(groups, k, n)
    product = np.einsum("gk,gk->g", a[:, 0], b[:, :, 0]) if m == n == 1 else np.matmul(a, b)
    total += product.reshape(total.shape)


def _places(axis: int, of_left: bool, left_rank: int, batch: int, rows: int,
            summed: int) -> tuple[int | None, int | None, int | None]:
    """Where an axis of one operand lies in left, right and total; None where it does not occur."""
    if axis < batch:
        return axis, axis, axis
    if of_left:
        if axis < batch + rows:
            return axis, None, axis
        return axis, axis - rows, None
    if axis < batch + summed:
        return axis + rows, axis, None
    return None, axis, axis - summed + rows
