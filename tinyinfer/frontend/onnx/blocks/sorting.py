"""Selecting and ordering along the last axis, in elementwise ops, sums and views.

Every value becomes an unsigned *key* that orders as it does (`sort_keys`); of equal keys the lower position
comes first. Short axes are ranked by counting, which is vector work without branches. A long axis first
loses what is not among the best k: the k-th largest key is found bit by bit, and those above it move
together. What is long and wanted whole goes through a merge network.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyinfer.frontend.onnx.blocks.scan import running
from tinyinfer.frontend.onnx.ops.reduce import position_of_extreme
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.index import Index, Slot, index
from tinyinfer.ir.node import Node, output_axis

RANK_LIMIT = 1024
"""Elements that are ranked by comparing each with each; beyond, a merge network does less."""

SELECT_FROM = 192
"""Axes longer than this are thinned out before what is left is ranked, if it is less than half."""

BITS_PER_STEP = 2
"""Bits of the k-th largest key that one pass over the keys decides: three counts for two bits."""


def sort_keys(x: Node, largest: bool) -> Node:
    """`x` as unsigned integers (uint32, or uint64 for 64-bit types), of which larger ones come first.

    Both zeros are equal, and NaN is larger than every number.
    """
    if x.dtype in ("float16", "bfloat16", "float32"):
        key = _float_keys(build.cast(x, "float32"), "uint32", 32)
    elif x.dtype == "float64":
        key = _float_keys(x, "uint64", 64)
    elif x.dtype in ("uint64", "int64"):
        key = _signed_keys(x, "uint64", 64)
    elif x.dtype == "uint32":
        key = x
    else:
        key = _signed_keys(build.cast(x, "int32"), "uint32", 32)
    return key if largest else elementwise("NOT", key)


def _all(value: float | int, x: Node) -> Node:
    return build.full(value, x.shape, x.dtype)


def _signed_keys(x: Node, dtype: str, bits: int) -> Node:
    if x.dtype == dtype:
        return x
    key = elementwise("BITCAST", x, dtype=dtype)
    return elementwise("XOR", key, _all(1 << (bits - 1), key))


def _float_keys(x: Node, dtype: str, bits: int) -> Node:
    number = elementwise("WHERE", elementwise("CMPEQ", x, _all(0, x)), _all(0, x), x)
    key = elementwise("BITCAST", number, dtype=dtype)
    top = _all(1 << (bits - 1), key)
    negative = elementwise("CMPLE", top, key)
    ordered = elementwise("WHERE", negative, elementwise("NOT", key), elementwise("OR", key, top))
    return elementwise("WHERE", elementwise("CMPNE", x, x), _all((1 << bits) - 1, key), ordered)


# ---- the best k of each row


def top_positions(keys: Node, k: int, in_order: bool = True) -> Node:
    """int64 [rows, k]: positions of the k largest keys of each row of `keys` [rows, n]; 1 <= k <= n.

    Largest first, or by position unless `in_order`.
    """
    n = keys.shape[1]
    keys = build.stored(keys)
    if k == 1:
        return position_of_extreme(keys, 1, "MAX", last=False)
    if n > SELECT_FROM and 2 * k <= n:
        chosen = build.stored(_selected(keys, k))
        if not in_order:
            return build.cast(chosen, "int64")
        order = _order(build.stored(row_elements(keys, chosen)))
        return build.cast(row_elements(chosen, order), "int64")
    order = _order(keys)
    return build.cast(build.shrink(order, [0, 0], [keys.shape[0], k]), "int64")


def _order(keys: Node) -> Node:
    """int32 [rows, n]: the permutation that sorts each row, largest first."""
    return _ranked(keys) if keys.shape[1] <= RANK_LIMIT else _merged(keys)


def _here(shape: Sequence[int]) -> list[Index]:
    return [index(output_axis(i, d)) for i, d in enumerate(shape)]


def row_elements(x: Node, at: Node) -> Node:
    """x[row, at[row, i]]: elements at positions, which lie within `x`, along its last axis."""
    here = _here(at.shape)
    return build.indexed_view(x, [here[0], index(Slot(0, 0, x.shape[1] - 1))], at.shape, [at])


def ranks(keys: Node) -> Node:
    """int32 [rows, n]: how many keys of the row come before each."""
    rows, n = keys.shape
    shape = (rows, n, n)
    here = _here(shape)
    mine = build.view(keys, [here[0], here[1]], shape)
    other = build.view(keys, [here[0], here[2]], shape)
    earlier = elementwise(
        "CMPLT", build.position(here[2], shape, "int32"), build.position(here[1], shape, "int32")
    )
    before = elementwise(
        "OR",
        elementwise("CMPLT", mine, other),
        elementwise("AND", elementwise("CMPEQ", mine, other), earlier),
    )
    return build.reduce("SUM", build.cast(before, "int32"), [2])


def _ranked(keys: Node) -> Node:
    rows, n = keys.shape
    here = _here(keys.shape)
    places = [here[0], index(Slot(0, 0, n - 1))]
    numbers = build.position(here[1], keys.shape, "int32")
    return build.scatter(build.full(0, keys.shape, "int32"), numbers, places, [ranks(keys)])


# ---- selection


def _selected(keys: Node, k: int) -> Node:
    """int32 [rows, k]: the positions of the k largest keys, lowest position first."""
    rows, n = keys.shape
    threshold = _kth_largest(keys, k)
    limit = build.expand(build.reshape(threshold, (rows, 1)), keys.shape)
    above = elementwise("CMPLT", limit, keys)
    equal = elementwise("CMPEQ", limit, keys)
    # of those that equal the k-th largest, as many as there is room for, the first ones
    room = elementwise(
        "SUB",
        build.full(k, (rows,), "int32"),
        build.reduce("SUM", build.cast(above, "int32"), [1]),
    )
    nth = running("SUM", build.cast(equal, "int32"), 1)
    wide_room = build.expand(build.reshape(room, (rows, 1)), keys.shape)
    fits = elementwise("AND", equal, elementwise("CMPLE", nth, wide_room))
    taken = build.cast(elementwise("OR", above, fits), "int32")
    return _positions_of(build.stored(running("SUM", taken, 1)), k)


def _positions_of(counts: Node, k: int) -> Node:
    """int32 [rows, k]: the first position where the running count of a row reaches 1, 2, … k."""
    rows, n = counts.shape
    wanted = build.iota((rows, k), 1, "int32")
    at = build.full(0, (rows, k), "int32")
    step = 1 << (n - 1).bit_length() - 1
    while step:
        # the count before position `at` + `step` is still short: the place lies at or after it
        probe = elementwise("ADD", at, _all(step - 1, at))
        here = _here(probe.shape)
        places = [here[0], index(Slot(0, 0, n - 1))]
        seen = build.indexed_view(counts, places, probe.shape, [probe], 2**31 - 1)
        moves = elementwise("CMPLE", seen, wanted)
        at = elementwise("WHERE", moves, elementwise("ADD", at, _all(step, at)), at)
        step //= 2
    return at


def _kth_largest(keys: Node, k: int) -> Node:
    """[rows]: the k-th largest key, decided from the highest bits down by counting."""
    rows, n = keys.shape
    bits = np.dtype(keys.dtype).itemsize * 8
    found = build.full(0, (rows,), keys.dtype)
    for shift in range(bits - BITS_PER_STEP, -1, -BITS_PER_STEP):
        # fewer keys reach a larger digit, so the digit is how many of its values enough keys reach
        digits = build.constant(np.arange(1, 1 << BITS_PER_STEP).astype(keys.dtype) << shift, keys.dtype)
        shape = (rows, digits.shape[0])
        base = build.expand(build.reshape(found, (rows, 1)), shape)
        candidates = elementwise("OR", base, build.expand(digits, shape))
        here = _here((*shape, n))
        limits = build.view(candidates, here[:2], (*shape, n))
        mine = build.view(keys, [here[0], here[2]], (*shape, n))
        reached = build.reduce("SUM", build.cast(elementwise("CMPLE", limits, mine), "int32"), [2])
        enough = elementwise("CMPLE", build.full(k, shape, "int32"), reached)
        digit = build.reduce("SUM", build.cast(enough, keys.dtype), [1])
        found = build.stored(elementwise("OR", found, elementwise("SHL", digit, _all(shift, digit))))
    return found


# ---- the merge network

FIRST_RUN = 32
"""Runs of this length are ranked; merging starts from them."""


def _merged(keys: Node) -> Node:
    """The sorting permutation by merging runs of ever twice the length, each step a comparison of pairs."""
    rows, n = keys.shape
    size = 1 << (n - 1).bit_length()
    padded = build.pad(keys, [0, 0], [0, size - n], 0)
    runs = build.reshape(padded, (rows * size // FIRST_RUN, FIRST_RUN))
    first = _ranked(runs)
    start = build.position(_here(runs.shape)[0] % (size // FIRST_RUN) * FIRST_RUN, runs.shape, "int32")
    flat = (rows, size)
    ordered = (row_elements(runs, first), elementwise("ADD", first, start))
    values = [build.reshape(x, flat) for x in ordered]
    packed = keys.dtype == "uint32"
    if packed:
        # key and position in one word: they compare at once, and no two words are equal
        low = build.cast(elementwise("NOT", build.cast(values[1], "uint32")), "uint64")
        high = build.cast(values[0], "uint64")
        values = [elementwise("OR", elementwise("SHL", high, _all(32, high)), low)]
    length = FIRST_RUN
    while length < size:
        values = _exchanged(values, length, mirrored=True)
        distance = length // 2
        while distance:
            values = _exchanged(values, distance, mirrored=False)
            distance //= 2
        length *= 2
    if packed:
        values = [build.cast(elementwise("NOT", build.cast(values[0], "uint32")), "int32")]
    return build.shrink(values[-1], [0, 0], [rows, n])


def _exchanged(values: list[Node], distance: int, mirrored: bool) -> list[Node]:
    """Neighbouring halves of `distance` elements, of each pair the first in order moved to the first half.

    `mirrored` pairs the first with the last, which makes two sorted halves into two that are each to be
    merged and lie on their sides of the middle; else pairs are `distance` apart.
    """
    rows, size = values[0].shape
    shape = (rows, size // (2 * distance), 2, distance)
    here = _here(shape)
    across = here[3] * -1 + (distance - 1) if mirrored else here[3]
    mine = [build.reshape(x, shape) for x in values]
    other = [build.view(x, [here[0], here[1], here[2] * -1 + 1, across], shape) for x in mine]
    first = elementwise(
        "CMPEQ", build.position(here[2], shape, "int32"), build.full(0, shape, "int32")
    )
    if len(values) == 1:
        best, worst = (elementwise(op, mine[0], other[0]) for op in ("MAX", "MIN"))
        return [build.reshape(elementwise("WHERE", first, best, worst), (rows, size))]
    ahead = elementwise(
        "OR",
        elementwise("CMPLT", other[0], mine[0]),
        elementwise(
            "AND", elementwise("CMPEQ", other[0], mine[0]), elementwise("CMPLT", mine[1], other[1])
        ),
    )
    stays = elementwise("CMPEQ", first, ahead)
    moved = [elementwise("WHERE", stays, a, b) for a, b in zip(mine, other)]
    return [build.reshape(x, (rows, size)) for x in moved]
