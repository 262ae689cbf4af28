"""How far two results of one output are apart, and whether that is close enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

TOLERANCE = {"float16": 2e-2, "bfloat16": 1e-1}
"""Largest error of a float output that passes, as a part of the expected output's range (maximum - minimum).

Half precision keeps 11 bits (bfloat16: 8), and every layer of a model rounds to them.
"""

FLOAT_TOLERANCE = 1e-4
"""The same for float32 and float64."""

ABSOLUTE = 2.4e-7
"""An error up to this passes whatever the range is: two units in the last place of float32 near 1.

A sigmoid or softmax far in its tail is a small difference of numbers near 1.
"""


@dataclass(frozen=True)
class Comparison:
    """One output against its expected value.

    `absolute` is the largest |actual − expected| of finite elements, `relative` that over the range of the
    expected values (over their largest magnitude where all are equal). `problem` says in words why it failed,
    None if it passed.
    """

    absolute: float
    relative: float
    problem: str | None

    @property
    def passed(self) -> bool:
        return self.problem is None


def compare_values(actual: Any, expected: Any, tolerance: float | None = None) -> Comparison:
    """`compare_arrays` for values of any kind: the worst of the elements of sequences (lists) and of the
    entries of maps (dicts), which must have the same keys. An optional without an element is None.
    """
    if isinstance(expected, (list, tuple)) or isinstance(actual, (list, tuple)):
        if not (isinstance(expected, (list, tuple)) and isinstance(actual, (list, tuple))):
            return _different(actual, expected)
        if len(actual) != len(expected):
            return Comparison(np.inf, np.inf, f"{len(actual)} elements instead of {len(expected)}")
        parts = [(f"[{i}]", a, e) for i, (a, e) in enumerate(zip(actual, expected))]
    elif isinstance(expected, dict) or isinstance(actual, dict):
        if not (isinstance(expected, dict) and isinstance(actual, dict)):
            return _different(actual, expected)
        if actual.keys() != expected.keys():
            return Comparison(np.inf, np.inf, "the keys of the maps differ")
        # a map's entries are one tensor: their range is that of all
        keys = list(expected)
        if all(isinstance(expected[k], float) and isinstance(actual[k], float) for k in keys):
            a, e = ([x[k] for k in keys] for x in (actual, expected))
            return compare_arrays(np.array(a, np.float32), np.array(e, np.float32), tolerance)
        parts = [(f"[{key!r}]", actual[key], expected[key]) for key in keys]
    elif expected is None or actual is None:
        return Comparison(0.0, 0.0, None) if expected is actual else _different(actual, expected)
    else:
        return compare_arrays(np.asarray(actual), np.asarray(expected), tolerance)
    worst = Comparison(0.0, 0.0, None)
    for where, a, e in parts:
        found = compare_values(a, e, tolerance)
        problem = worst.problem or (found.problem and f"{where}: {found.problem}")
        worst = Comparison(max(worst.absolute, found.absolute), max(worst.relative, found.relative), problem)
    return worst


def _different(actual: Any, expected: Any) -> Comparison:
    kinds = {list: "sequence", tuple: "sequence", dict: "map", type(None): "nothing"}
    came, wanted = (kinds.get(type(x), "tensor") for x in (actual, expected))
    return Comparison(np.inf, np.inf, f"a {came} instead of a {wanted}")


def compare_arrays(actual: np.ndarray, expected: np.ndarray, tolerance: float | None = None) -> Comparison:
    """Compare an output with what it should be.

    Floats pass within `tolerance` of the range (None: by their dtype), with NaN and infinities in the same
    places. Integers and bools must be equal, except that 8-bit ones may differ by 1: quantisation rounds sums
    whose order is free.
    """
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        came, wanted = (f"{x.dtype}{list(x.shape)}" for x in (actual, expected))
        return Comparison(np.inf, np.inf, f"{came} instead of {wanted}")
    if actual.dtype.kind in "OSU":
        same = bool((actual == expected).all())
        return Comparison(
            0.0 if same else np.inf, 0.0 if same else np.inf, None if same else "strings differ"
        )
    if not actual.size:
        return Comparison(0.0, 0.0, None)
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(e)
    same_special = np.array_equal(np.isnan(a), np.isnan(e)) and np.array_equal(a[np.isinf(e)], e[np.isinf(e)])
    if not same_special or not np.isfinite(a[finite]).all():
        return Comparison(np.inf, np.inf, "NaN or infinities in different places")
    if not finite.any():
        return Comparison(0.0, 0.0, None)
    absolute = float(np.abs(a[finite] - e[finite]).max())
    span = float(e[finite].max() - e[finite].min()) or float(np.abs(e[finite]).max())
    relative = absolute / span if span else (0.0 if absolute == 0 else np.inf)
    if actual.dtype.kind in "biu":
        allowed = 1 if actual.dtype.itemsize == 1 and actual.dtype.kind != "b" else 0
        problem = f"differs by {absolute:g}, {allowed} allowed" if absolute > allowed else None
    else:
        if tolerance is None:
            tolerance = TOLERANCE.get(actual.dtype.name, FLOAT_TOLERANCE)
        problem = None
        if relative > tolerance and absolute > ABSOLUTE:
            problem = f"error {relative:.2e} of the range, {tolerance:.0e} allowed"
    return Comparison(absolute, relative, problem)
