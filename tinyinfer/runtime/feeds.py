"""Checking of feeds: what `run` was given against what the model expects, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyinfer.errors import InvalidArgument
from tinyinfer.runtime.signature import Dimension, dtype_of, format_shape, numpy_dtype, tensor_type

ANONYMOUS = frozenset(("", "?", "None", "-1", "unk", "unknown"))
"""Names that exporters write for "any size": two such dimensions need not agree."""


@dataclass(frozen=True)
class InputSpec:
    """What one input takes. `required` is False for an input that has an initializer or is optional."""

    name: str
    dtype: str
    shape: tuple[Dimension, ...] | None
    required: bool = True
    onnx_type: str = ""
    """ONNX's spelling of its type; needed where that is no tensor."""

    @property
    def is_tensor(self) -> bool:
        """Whether it takes an array; otherwise a list, a dict, or None."""
        return bool(self.dtype)

    def describe(self) -> str:
        if not self.is_tensor:
            return f"{self.name!r} {self.onnx_type}"
        shape = " of any shape" if self.shape is None else format_shape(self.shape)
        return f"{self.name!r} {tensor_type(self.dtype)}{shape}"


class FeedCheck:
    """Turns a feed into arrays in the order of the model's inputs, or raises InvalidArgument in words.

    Arrays come out C-contiguous and aligned in the machine's byte order; they are the caller's own arrays
    wherever those already are. Python lists and numpy scalars become arrays; a dtype is never converted,
    except that a list takes the input's dtype.
    """

    def __init__(self, specs: Sequence[InputSpec]):
        self.specs = list(specs)
        self._dtypes = {s.name: numpy_dtype(s.dtype) for s in specs if s.is_tensor}

    def arrays(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """The checked arrays by input name, in the order of the specs; inputs that need no feed may be
        absent. Sequences are lists of arrays, maps dicts, and optionals may be None.
        """
        self._check_names(feed)
        symbols: dict[str, int] = {}
        result: dict[str, Any] = {}
        for spec in self.specs:
            if not spec.is_tensor:
                result[spec.name] = self._structure(spec, spec.onnx_type, feed.get(spec.name))
            elif spec.name in feed:
                array = self._array(spec, feed[spec.name])
                self.check_shape(spec, array.shape, symbols)
                result[spec.name] = array
        return result

    def describe(self) -> str:
        """All inputs, for error messages."""
        return ", ".join(spec.describe() for spec in self.specs) or "none"

    def _check_names(self, feed: Mapping[str, Any]) -> None:
        if not isinstance(feed, Mapping):
            raise InvalidArgument(
                f"the feed is a {type(feed).__name__}; a dict from input names to arrays is expected;"
                f" the model's inputs: {self.describe()}"
            )
        names = {spec.name for spec in self.specs}
        unknown = [repr(name) for name in feed if name not in names]
        missing = [repr(s.name) for s in self.specs if s.required and feed.get(s.name) is None]
        problems = []
        if unknown:
            problems.append(f"Invalid input name: {', '.join(unknown)}")
        if missing:
            problems.append(f"Required inputs are missing from the feed: {', '.join(missing)}")
        if problems:
            raise InvalidArgument(f"{'; '.join(problems)}; the model's inputs: {self.describe()}")

    def _structure(self, spec: InputSpec, kind: str, value: Any) -> Any:
        """A sequence, a map or an optional, checked down to its tensors."""
        inner = kind[kind.index("(") + 1 : -1]
        if kind.startswith("optional("):
            return None if value is None else self._structure(spec, inner, value)
        if kind.startswith("seq("):
            if not isinstance(value, (list, tuple)):
                raise InvalidArgument(
                    f"Input {spec.describe()}: a list is expected, not a {type(value).__name__}"
                )
            return [self._structure(spec, inner, element) for element in value]
        if kind.startswith("map("):
            if not isinstance(value, Mapping):
                raise InvalidArgument(
                    f"Input {spec.describe()}: a dict is expected, not a {type(value).__name__}"
                )
            return dict(value)
        return self._converted(spec, numpy_dtype(dtype_of(kind) or "float32"), value)

    def _array(self, spec: InputSpec, value: Any) -> np.ndarray:
        return self._converted(spec, self._dtypes[spec.name], value)

    def _converted(self, spec: InputSpec, expected: np.dtype, value: Any) -> np.ndarray:
        if isinstance(value, list):
            try:
                value = np.array(value, dtype=expected)
            except (ValueError, TypeError, OverflowError) as error:
                raise InvalidArgument(
                    f"Input {spec.name!r}: the list is no {tensor_type(spec.dtype)}: {error}"
                ) from None
        elif isinstance(value, np.generic):
            value = np.asarray(value)
        if not isinstance(value, np.ndarray):
            raise InvalidArgument(
                f"Input {spec.name!r}: a {type(value).__name__} was given, a numpy array is expected:"
                f" {spec.describe()}"
            )
        actual = value.dtype
        if actual != expected and not (expected.kind == "O" and actual.kind in "SU"):
            if actual.newbyteorder("=") != expected:
                raise InvalidArgument(
                    f"Unexpected input data type for {spec.name!r}. Actual: {tensor_type(actual)},"
                    f" expected: {tensor_type(spec.dtype)}"
                )
            value = value.astype(expected)
        if not value.flags.c_contiguous or not value.flags.aligned:
            value = np.array(value, order="C")
        return value

    def check_shape(self, spec: InputSpec, shape: tuple[int, ...], symbols: dict[str, int]) -> None:
        """InvalidArgument where `shape` is not one that `spec` allows; `symbols` holds and gains sizes by
        symbol.
        """
        if spec.shape is None:
            return
        if len(shape) != len(spec.shape):
            raise InvalidArgument(
                f"Invalid rank for input {spec.name!r}: got {len(shape)} ({format_shape(shape)}),"
                f" expected {len(spec.shape)} ({format_shape(spec.shape)})"
            )
        wrong = []
        for axis, (size, dimension) in enumerate(zip(shape, spec.shape)):
            if isinstance(dimension, str) and dimension not in ANONYMOUS:
                first = symbols.setdefault(dimension, size)
                if first != size:
                    wrong.append(
                        f"dimension {axis} is {size}, but {dimension!r} is {first} elsewhere in the feed"
                    )
            elif isinstance(dimension, int) and dimension != size:
                wrong.append(f"dimension {axis} is {size}, expected {dimension}")
        if wrong:
            raise InvalidArgument(
                f"Got invalid dimensions for input {spec.name!r}: {'; '.join(wrong)};"
                f" got {format_shape(shape)}, expected {format_shape(spec.shape)}"
            )
