"""Running sums and products in a few passes: within blocks first, then what comes before each block."""

from __future__ import annotations

from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.index import Index, index
from tinyinfer.ir.node import Node, output_axis
from tinyinfer.ir.ops import reduce_identity

BLOCK = 16
"""Elements that are joined before totals are carried: two steps of `TAPS`."""

TAPS = 4
"""Elements that one step joins; the reach grows by this factor with each."""

JOIN = {"SUM": "ADD", "PROD": "MUL", "MAX": "MAX", "MIN": "MIN"}
NARROW = ("float16", "bfloat16")


def running(op: str, x: Node, axis: int, exclusive: bool = False, reverse: bool = False) -> Node:
    """SUM, PROD, MAX or MIN of `x` from the start of an axis (`reverse`: from its end) up to each element.

    `exclusive` leaves the element itself out; the first result is then the identity of `op`. Integers are
    exact and wrap; narrow floats are carried in float32.
    """
    if not x.size:
        return x
    if x.dtype in NARROW:
        wide = running(op, build.cast(x, "float32"), axis, exclusive, reverse)
        return build.cast(wide, x.dtype)
    total = _inclusive(op, x, axis, -1 if reverse else 1)
    return _shifted(op, total, axis, 1 if reverse else -1) if exclusive else total


def _here(shape: tuple[int, ...]) -> list[Index]:
    return [index(output_axis(i, d)) for i, d in enumerate(shape)]


def _shifted(op: str, x: Node, axis: int, by: int) -> Node:
    """Element i + `by` at i; the identity where there is none."""
    places = _here(x.shape)
    places[axis] = places[axis] + by
    fill = reduce_identity(op, x.dtype)
    return build.view(x, places, x.shape, [(places[axis], x.shape[axis])], fill)


def _inclusive(op: str, x: Node, axis: int, sign: int) -> Node:
    """Each element joined with those before (sign 1) or after it (-1)."""
    n = x.shape[axis]
    block = BLOCK if n > BLOCK else n
    count = -(-n // block)
    joined = _split(op, x, axis, block)
    reach = 1
    while reach < block:
        joined = build.stored(_joined_back(op, joined, axis + 1, sign * reach))
        reach *= TAPS
    if count > 1:
        total = _edge(joined, axis, block - 1 if sign == 1 else 0)
        before = _shifted(op, _inclusive(op, total, axis, sign), axis, -sign)
        spread = build.view(
            before, [h for i, h in enumerate(_here(joined.shape)) if i != axis + 1], joined.shape
        )
        joined = elementwise(JOIN[op], spread, joined)
    flat = build.reshape(joined, (*x.shape[:axis], count * block, *x.shape[axis + 1 :]))
    return build.shrink(flat, [0] * len(x.shape), x.shape)


def _split(op: str, x: Node, axis: int, block: int) -> Node:
    """[*lead, count, block, *rest]: an axis cut into blocks, the last one filled up with the identity."""
    n = x.shape[axis]
    shape = (*x.shape[:axis], -(-n // block), block, *x.shape[axis + 1 :])
    here = _here(shape)
    place = here[axis] * block + here[axis + 1]
    reads = [*here[:axis], place, *here[axis + 2 :]]
    return build.view(build.stored(x), reads, shape, [(place, n)], reduce_identity(op, x.dtype))


def _joined_back(op: str, x: Node, axis: int, step: int) -> Node:
    """Each element joined with the `TAPS` - 1 that lie `step`, 2 · `step` … before it on its axis."""
    shape = (*x.shape, TAPS)
    here = _here(shape)
    place = here[axis] - here[-1] * step
    reads = [*here[:axis], place, *here[axis + 1 : -1]]
    taps = build.view(x, reads, shape, [(place, x.shape[axis])], reduce_identity(op, x.dtype))
    return build.reduce(op, taps, [len(shape) - 1])


def _edge(joined: Node, axis: int, place: int) -> Node:
    """[*lead, count, *rest]: one place of every block."""
    shape = (*joined.shape[: axis + 1], *joined.shape[axis + 2 :])
    here = _here(shape)
    return build.view(joined, [*here[: axis + 1], index(place), *here[axis + 1 :]], shape)
