"""The table of elementwise and reduce ops: arity, result type, and what each computes in numpy.

The whole arithmetic of the IR is on this page. Every elementwise op takes inputs of one shape; binary and
ternary ops take inputs of one dtype (but for the condition of WHERE and the shift count of SHL and SHR).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyinfer.ir.dtypes import numpy_dtype


@dataclass(frozen=True)
class ElementwiseOp:
    """One elementwise op. `result` is "same" (dtype of the last input), "bool", or "attr" (the node's
    attribute)."""

    name: str
    arity: int
    result: str
    numpy: Callable[..., Any]
    doc: str
    transcendental: bool = False


def _integer_divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Division that truncates towards zero, as in C; a zero divisor gives 0."""
    safe = np.where(b == 0, np.ones_like(b), b)
    quotient = np.floor_divide(a, safe)
    fix = (np.remainder(a, safe) != 0) & ((a < 0) != (safe < 0))
    return np.where(b == 0, np.zeros_like(a), quotient + fix.astype(a.dtype)).astype(a.dtype)


def _erf(x: np.ndarray) -> np.ndarray:
    from tinyinfer.ir.special import erf

    return erf(x)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    e = np.exp(-np.abs(wide))
    return np.where(wide >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype)


def _power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind in "iu":
        return np.power(a.astype(np.float64), b).astype(a.dtype)
    return np.power(a, b)


def _shift_left(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.left_shift(a, b.astype(a.dtype))


def _shift_right(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.right_shift(a, b.astype(a.dtype))


_TABLE: tuple[tuple[str, int, str, Any, str], ...] = (
    # name, arity, result, numpy, doc
    ("NEG", 1, "same", np.negative, "-a"),
    ("ABS", 1, "same", np.abs, "|a|"),
    ("RECIP", 1, "same", lambda a: (1 / a).astype(a.dtype), "1 / a"),
    ("SQRT", 1, "same", np.sqrt, "square root"),
    ("EXP", 1, "same", np.exp, "e to the a"),
    ("LOG", 1, "same", np.log, "natural logarithm"),
    ("SIN", 1, "same", np.sin, "sine, radians"),
    ("COS", 1, "same", np.cos, "cosine, radians"),
    ("TANH", 1, "same", np.tanh, "hyperbolic tangent"),
    ("ERF", 1, "same", _erf, "error function"),
    ("SIGMOID", 1, "same", _sigmoid, "1 / (1 + exp(-a))"),
    ("FLOOR", 1, "same", np.floor, "largest integer not above a"),
    ("CEIL", 1, "same", np.ceil, "smallest integer not below a"),
    ("ROUND", 1, "same", np.rint, "nearest integer, ties to even"),
    ("TRUNC", 1, "same", np.trunc, "a without its fraction"),
    ("NOT", 1, "same", np.invert, "logical not of a bool, bitwise not of an integer"),
    (
        "CAST",
        1,
        "attr",
        None,
        "a as the dtype in the attribute; float to integer truncates, to bool is a != 0",
    ),
    ("BITCAST", 1, "attr", None, "the bits of a as another dtype of the same size"),
    ("ADD", 2, "same", np.add, "a + b"),
    ("SUB", 2, "same", np.subtract, "a - b"),
    ("MUL", 2, "same", np.multiply, "a · b"),
    ("DIV", 2, "same", np.divide, "a / b for floats"),
    ("IDIV", 2, "same", _integer_divide, "a / b for integers, towards zero"),
    ("MOD", 2, "same", np.mod, "remainder with the sign of b (Python's %)"),
    ("FMOD", 2, "same", np.fmod, "remainder with the sign of a (C's fmod)"),
    ("MAX", 2, "same", np.maximum, "larger; NaN if either is"),
    ("MIN", 2, "same", np.minimum, "smaller; NaN if either is"),
    ("POW", 2, "same", _power, "a to the b"),
    ("CMPLT", 2, "bool", np.less, "a < b"),
    ("CMPLE", 2, "bool", np.less_equal, "a <= b"),
    ("CMPEQ", 2, "bool", np.equal, "a == b"),
    ("CMPNE", 2, "bool", np.not_equal, "a != b (true for NaN)"),
    ("AND", 2, "same", np.bitwise_and, "logical or bitwise and"),
    ("OR", 2, "same", np.bitwise_or, "logical or bitwise or"),
    ("XOR", 2, "same", np.bitwise_xor, "logical or bitwise exclusive or"),
    ("SHL", 2, "same", _shift_left, "a shifted left by b bits"),
    ("SHR", 2, "same", _shift_right, "a shifted right by b bits (arithmetic if signed)"),
    ("WHERE", 3, "same", np.where, "b where the bool a holds, else c"),
    ("MULACC", 3, "same", lambda a, b, c: a * b + c, "a · b + c, rounded once on devices that can"),
)

TRANSCENDENTAL = frozenset(("EXP", "LOG", "SIN", "COS", "TANH", "ERF", "SIGMOID", "POW"))

ELEMENTWISE: dict[str, ElementwiseOp] = {
    name: ElementwiseOp(name, arity, result, numpy, doc, name in TRANSCENDENTAL)
    for name, arity, result, numpy, doc in _TABLE
}

# Reduce ops: numpy ufunc whose `.reduce` is the meaning, and the value of an empty reduction for floats.
REDUCE: dict[str, tuple[np.ufunc, float]] = {
    "SUM": (np.add, 0.0),
    "MAX": (np.maximum, -np.inf),
    "MIN": (np.minimum, np.inf),
    "PROD": (np.multiply, 1.0),
}


def reduce_identity(op: str, dtype: str) -> float | int | bool:
    """The value that leaves `op` unchanged in `dtype`: what an empty reduction gives."""
    kind = numpy_dtype(dtype)
    if op in ("SUM", "PROD"):
        return kind.type(REDUCE[op][1]).item()
    if kind.kind == "b":
        return op == "MIN"
    if kind.kind in "iu":
        return int(np.iinfo(kind).min if op == "MAX" else np.iinfo(kind).max)
    return REDUCE[op][1]
