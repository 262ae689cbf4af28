"""Values that decide a step: one rounding more or less before a rounding to integers can change a whole unit.

Rules that are identities of real numbers must leave such values as the model computes them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tinyinfer.ir.dtypes import is_float
from tinyinfer.ir.node import Node

ROUNDING = frozenset(("ROUND", "FLOOR", "CEIL", "TRUNC"))
"""Ops that round to integers; so does a CAST from float to an integer."""

JUMPING = ROUNDING | {"MOD", "FMOD", "CMPLT", "CMPLE", "CMPEQ", "CMPNE", "BITCAST"}
"""Ops whose result can jump when their input moves by one rounding."""


def deciding(order: Sequence[Node], jumps: Collection[str]) -> set[int]:
    """Ids of the values that reach one of `jumps` through elementwise ops and views alone.

    `order` has users after what they use. Bools and the integers that a jump gives decide nothing further.
    """
    found: set[int] = set()
    for x in reversed(order):
        to_integer = x.op == "CAST" and not is_float(x.dtype) and is_float(x.inputs[0].dtype)
        passed = id(x) in found and (x.is_elementwise or x.op == "VIEW")
        if x.op in jumps or to_integer or passed:
            found.update(id(y) for y in x.inputs if is_float(y.dtype))
    return found
