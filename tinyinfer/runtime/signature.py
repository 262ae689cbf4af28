"""What a model says of itself: its inputs and outputs with their types, and its metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tinyinfer.ir import dtypes

Dimension = int | str | None
"""A size, a symbol that stands for one, or None where the model says nothing."""


@dataclass(frozen=True)
class NodeArg:
    """An input or output: `type` is ONNX's spelling ("tensor(float)"), `shape` a list of int, symbol, or
    None.
    """

    name: str
    type: str
    shape: list[Dimension]
    element_shape: list[Dimension] | None = field(default=None, compare=False)
    """The shape of the tensors in a sequence or an optional, where the model tells it."""
    value: np.ndarray | None = field(default=None, compare=False, repr=False)
    """The only value that the input may have, where it was compiled for one."""

    def __str__(self) -> str:
        return f"NodeArg(name={self.name!r}, type={self.type!r}, shape={self.shape!r})"


@dataclass(frozen=True)
class ModelMetadata:
    """The descriptive fields of an ONNX model; `version` is its `model_version`."""

    producer_name: str = ""
    graph_name: str = ""
    domain: str = ""
    description: str = ""
    graph_description: str = ""
    version: int = 0
    custom_metadata_map: dict[str, str] = field(default_factory=dict)


_ONNX_TYPE = {
    "float32": "float",
    "float64": "double",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "bool": "bool",
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "uint32",
    "uint64": "uint64",
    "complex64": "complex64",
    "complex128": "complex128",
    "object": "string",
    "float8_e4m3fn": "float8e4m3fn",
    "float8_e4m3fnuz": "float8e4m3fnuz",
    "float8_e5m2": "float8e5m2",
    "float8_e5m2fnuz": "float8e5m2fnuz",
    "float8_e8m0fnu": "float8e8m0",
    "float6_e2m3fn": "float6e2m3",
    "float6_e3m2fn": "float6e3m2",
    "float4_e2m1fn": "float4e2m1",
}


def tensor_type(dtype: str | np.dtype) -> str:
    """ONNX's spelling of a tensor's type: "tensor(float)" for float32; strings of any kind are
    "tensor(string)".
    """
    if isinstance(dtype, np.dtype):
        dtype = "string" if dtype.kind in "OSU" else dtype.name
    return f"tensor({_ONNX_TYPE.get(dtype, dtype)})"


def dtype_of(onnx_type: str) -> str | None:
    """The numpy dtype name in a tensor's ONNX type ("tensor(float)" is float32); None for sequences, maps and
    such.
    """
    if not onnx_type.startswith("tensor(") or not onnx_type.endswith(")"):
        return None
    element = onnx_type[len("tensor(") : -1]
    return next((dtype for dtype, spelling in _ONNX_TYPE.items() if spelling == element), element)


def numpy_dtype(name: str) -> np.dtype:
    """The numpy dtype of a tensor's element type: as `ir.dtypes.numpy_dtype`, and object for strings."""
    return np.dtype(object) if name in ("string", "str") else dtypes.numpy_dtype(name)


def format_shape(shape: Sequence[Dimension]) -> str:
    """A shape for people: [1, 3, height, ?]."""
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"
