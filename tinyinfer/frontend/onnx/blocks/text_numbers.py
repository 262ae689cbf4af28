"""Numbers as text and text as numbers: Cast to and from strings, on the host.

The text of floats has 8 significant digits (17 would be needed to give every float64 back; onnxruntime writes
8), and NaN, INF, -INF. Text is read as Python reads numbers; integers may be written as decimals, which are
truncated, and wrap to the type.
"""

from __future__ import annotations

import numpy as np

from tinyinfer.ir.dtypes import numpy_dtype

_SPECIAL = {"nan": "NaN", "inf": "INF", "-inf": "-INF"}


def as_text(x: np.ndarray) -> np.ndarray:
    """Every number of an array as a string, in an array of objects of the same shape."""
    if "float" in x.dtype.name:
        texts = [f"{v:.8g}" for v in x.astype(np.float64).reshape(-1).tolist()]
        texts = [_SPECIAL.get(t, t) for t in texts]
    else:
        texts = [str(int(v)) for v in x.reshape(-1).tolist()]
    return np.array(texts, object).reshape(x.shape)


def from_text(x: np.ndarray, dtype: str) -> np.ndarray:
    """Every string of an array as a number of `dtype`. ValueError names the first that is none."""
    kind = numpy_dtype(dtype)
    if "float" in dtype:
        values = [_number(s) for s in x.reshape(-1)]
        return np.array(values, np.float64).reshape(x.shape).astype(kind)
    bits = 8 * kind.itemsize
    integers = [_integer(s) for s in x.reshape(-1)]
    if dtype == "bool":
        return np.array([v != 0 for v in integers], bool).reshape(x.shape)
    wrapped = np.array([v % (1 << bits) for v in integers], f"uint{bits}")
    return wrapped.astype(kind).reshape(x.shape)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"the string {text!r} is no number") from None


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        value = _number(text)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"the string {text!r} is no integer")
    return int(value)
