"""ONNX tensors as literals of the IR, and ONNX element types as numpy names."""

from __future__ import annotations

import math

import numpy as np
from onnx import SparseTensorProto, TensorProto, numpy_helper

from tinyinfer.frontend.onnx.errors import InvalidGraph, NotSupported
from tinyinfer.frontend.onnx.external_data import ExternalData
from tinyinfer.frontend.onnx.model_file import ModelBytes
from tinyinfer.frontend.onnx.values import HostValue
from tinyinfer.ir import build
from tinyinfer.ir.dtypes import NARROW, NUMERIC, code_mask, numpy_dtype
from tinyinfer.ir.node import SMALL_LITERAL, Literal, Node
from tinyinfer.limits import DEFAULT_LIMITS, Limits

# ONNX element type -> (numpy name, the name in ONNX type strings)
ELEMENT_TYPES: dict[int, tuple[str, str]] = {
    TensorProto.FLOAT: ("float32", "float"),
    TensorProto.UINT8: ("uint8", "uint8"),
    TensorProto.INT8: ("int8", "int8"),
    TensorProto.UINT16: ("uint16", "uint16"),
    TensorProto.INT16: ("int16", "int16"),
    TensorProto.INT32: ("int32", "int32"),
    TensorProto.INT64: ("int64", "int64"),
    TensorProto.STRING: ("object", "string"),
    TensorProto.BOOL: ("bool", "bool"),
    TensorProto.FLOAT16: ("float16", "float16"),
    TensorProto.DOUBLE: ("float64", "double"),
    TensorProto.UINT32: ("uint32", "uint32"),
    TensorProto.UINT64: ("uint64", "uint64"),
    TensorProto.COMPLEX64: ("complex64", "complex64"),
    TensorProto.COMPLEX128: ("complex128", "complex128"),
    TensorProto.BFLOAT16: ("bfloat16", "bfloat16"),
    TensorProto.FLOAT8E4M3FN: ("float8_e4m3fn", "float8e4m3fn"),
    TensorProto.FLOAT8E4M3FNUZ: ("float8_e4m3fnuz", "float8e4m3fnuz"),
    TensorProto.FLOAT8E5M2: ("float8_e5m2", "float8e5m2"),
    TensorProto.FLOAT8E5M2FNUZ: ("float8_e5m2fnuz", "float8e5m2fnuz"),
    TensorProto.UINT4: ("uint4", "uint4"),
    TensorProto.INT4: ("int4", "int4"),
    # numbers where the oldest onnx package that works here has no name yet
    23: ("float4_e2m1fn", "float4e2m1"),
    24: ("float8_e8m0fnu", "float8e8m0"),
    25: ("uint2", "uint2"),
    26: ("int2", "int2"),
    27: ("float6_e2m3fn", "float6e2m3"),
    28: ("float6_e3m2fn", "float6e3m2"),
}

def element_name(element_type: int, what: str) -> str:
    """An ONNX element type in numpy's words. NotImplemented if the IR lacks it, InvalidGraph if ONNX does."""
    known = TensorProto.DataType.values()
    if element_type not in (*known, *ELEMENT_TYPES) or element_type == TensorProto.UNDEFINED:
        raise InvalidGraph(f"{what} has element type {element_type}, which ONNX does not know")
    name = ELEMENT_TYPES.get(element_type, ("", ""))[0]
    if name not in NUMERIC:
        raise NotSupported(
            f"{what} has element type {TensorProto.DataType.Name(element_type)}, which is not supported"
        )
    return name


def element_bits(dtype: str) -> int:
    """Bits of one element in a tensor's raw data, where elements of less than a byte lie side by side."""
    if dtype in NARROW and code_mask(dtype) < 0xFF:
        return code_mask(dtype).bit_length()
    return numpy_dtype(dtype).itemsize * 8


def unpack(data: np.ndarray, bits: int, elements: int) -> np.ndarray:
    """Elements of `bits` bits, lowest first, out of bytes: one in each uint8 of the result."""
    shifts = np.arange(bits, dtype=np.uint8)
    single = np.unpackbits(data, bitorder="little")[: elements * bits].reshape(elements, bits)
    return np.bitwise_or.reduce(single << shifts, axis=1, dtype=np.uint8)


def _typed_narrow(tensor: TensorProto, dtype: np.dtype) -> np.ndarray:
    """The elements in int32_data, one code in each entry; 4 and 2 bits are packed to bytes before."""
    data = np.array(tensor.int32_data, np.int32)
    if dtype.itemsize == 2:
        return data.astype(np.uint16).view(dtype)
    data = data.astype(np.uint8)
    bits = element_bits(dtype.name)
    elements = math.prod(tensor.dims)
    if bits < 6:
        if data.size != -(-elements * bits // 8):
            raise ValueError(f"{elements} elements do not fill {data.size} bytes")
        return unpack(data, bits, elements).view(dtype)
    return (data & code_mask(dtype.name)).astype(np.uint8).view(dtype)


class TensorReader:
    """Turns the tensors of one model into literals; the bytes stay in their file where that is possible."""

    def __init__(self, content: ModelBytes, limits: Limits = DEFAULT_LIMITS):
        self._content = content
        self._external = ExternalData(content.folder, limits.hard_links)
        self._limits = limits

    def literal(self, tensor: TensorProto, what: str) -> Literal:
        """`tensor` as a Literal; `what` names it in errors (InvalidGraph, NotSupported, NoSuchFile)."""
        dtype = numpy_dtype(element_name(tensor.data_type, what))
        shape = self._shape(tensor, what)
        elements = 1
        for d in shape:
            elements *= d
        if not self._limits.allows(shape):
            raise InvalidGraph(
                f"{what} declares the shape {list(shape)}, over the limit max_elements = "
                f"{self._limits.max_elements}"
            )
        bits = element_bits(dtype.name)
        wanted = -(-elements * bits // 8)
        raw: memoryview | bytes
        key: tuple[object, ...] | None
        if tensor.data_location == TensorProto.EXTERNAL:
            raw, key = self._external.read(tensor, wanted)
        elif tensor.HasField("raw_data"):
            raw, key = self._raw(tensor)
        else:
            return Literal(self._typed(tensor, shape, dtype, what), tensor.name)
        if len(raw) != wanted:
            raise InvalidGraph(
                f"{what} of shape {list(shape)} and type {dtype} needs {wanted} bytes of data, but has "
                f"{len(raw)}"
            )
        if bits < 8:
            array = unpack(np.frombuffer(raw, np.uint8), bits, elements).view(dtype).reshape(shape)
            return Literal(array, tensor.name, key=self._key(key, dtype, shape, elements))
        little = dtype.newbyteorder("<")
        array = np.frombuffer(raw, little, elements) if elements else np.zeros(0, little)
        array = array.reshape(shape).astype(dtype, copy=elements <= SMALL_LITERAL)
        if elements <= SMALL_LITERAL:
            return Literal(array, tensor.name)
        array.flags.writeable = False
        return Literal(array, tensor.name, key=self._key(key, dtype, shape, elements))

    @staticmethod
    def _key(
        place: tuple[object, ...] | None, dtype: np.dtype, shape: tuple[int, ...], elements: int
    ) -> tuple[object, ...] | None:
        """What identifies a literal that lies at `place`; small ones are told apart by their values."""
        return None if place is None or elements <= SMALL_LITERAL else (*place, dtype.name, shape)

    def value(self, tensor: TensorProto, what: str) -> Node | HostValue:
        """`tensor` as a constant of the IR, or as a known value of the host where it holds strings."""
        if tensor.data_type != TensorProto.STRING:
            return build.constant(self.literal(tensor, what))
        shape = self._shape(tensor, what)
        try:
            texts = [s.decode("utf-8") for s in tensor.string_data]
        except UnicodeDecodeError as error:
            raise InvalidGraph(f"{what} holds a string that is no UTF-8: {error}") from None
        if tensor.data_location == TensorProto.EXTERNAL or len(texts) != math.prod(shape):
            raise InvalidGraph(f"{what} of shape {list(shape)} has {len(texts)} strings")
        return HostValue("string", "", shape, np.array(texts, object).reshape(shape))

    def _raw(self, tensor: TensorProto) -> tuple[memoryview | bytes, tuple[object, ...] | None]:
        data = tensor.raw_data
        found = self._content.raw(data)
        if found is None:
            return data, None
        identity = self._content.identity
        return found, None if identity is None else (*identity, self._content.offset(data), len(found))

    @staticmethod
    def _shape(tensor: TensorProto, what: str) -> tuple[int, ...]:
        shape = tuple(tensor.dims)
        if any(d < 0 for d in shape):
            raise InvalidGraph(f"{what} has a negative dimension: {list(shape)}")
        if len(shape) > 64:
            raise InvalidGraph(f"{what} has {len(shape)} dimensions")
        return shape

    @staticmethod
    def _typed(tensor: TensorProto, shape: tuple[int, ...], dtype: np.dtype, what: str) -> np.ndarray:
        try:
            array = _typed_narrow(tensor, dtype) if dtype.name in NARROW else numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise InvalidGraph(
                f"{what} of shape {list(shape)} does not have the data it needs: {error}"
            ) from None
        if array.size != math.prod(shape):
            raise InvalidGraph(f"{what} of shape {list(shape)} has {array.size} elements of data")
        return np.ascontiguousarray(array.astype(dtype, copy=False)).reshape(shape)

    def sparse(self, sparse: SparseTensorProto, what: str) -> Literal:
        """A sparse tensor made dense; indices are checked against the shape."""
        shape = tuple(sparse.dims)
        elements = int(np.prod(shape, dtype=object)) if shape else 1
        if any(d < 0 for d in shape) or elements > self._limits.constant_elements:
            raise InvalidGraph(f"{what} is a sparse tensor of shape {list(shape)}, which is not allowed")
        values = self.literal(sparse.values, what).array.reshape(-1)
        indices = self.literal(sparse.indices, what).array
        if indices.dtype.kind not in "iu" or indices.shape not in ((values.size,), (values.size, len(shape))):
            raise InvalidGraph(f"{what}: indices of shape {list(indices.shape)} for {values.size} values")
        if indices.ndim == 2:
            if ((indices < 0) | (indices >= np.array(shape))).any():
                raise InvalidGraph(f"{what}: an index lies outside of {list(shape)}")
            indices = np.ravel_multi_index(tuple(indices.T), shape) if values.size else indices[:, 0]
        if ((indices < 0) | (indices >= elements)).any():
            raise InvalidGraph(f"{what}: an index lies outside of {elements} elements")
        dense = np.zeros(elements, values.dtype)
        dense[indices] = values
        return Literal(dense.reshape(shape), sparse.values.name)
