"""Reading an ONNX file without copying its weights.

The file is mapped. A walk over the protobuf wire format finds the long `raw_data` of tensors, and the parser
gets a copy of the bytes with a short token in place of each, so that parsing costs the size of the graph
and not of the weights. `ModelBytes.raw` turns a token back into a view of the mapped file. A token holds a
random number, so that no file can forge one. What the walk does not understand goes to the parser as it is.

Source: the protobuf encoding guide (wire types, varints) and the field numbers of `onnx.proto`.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto

from tinyinfer.frontend.onnx.errors import InvalidArgument, InvalidProtobuf, NoModel, NoSuchFile

Buffer = bytes | memoryview

# Field numbers that lead from a message to tensors: message kind -> {field: kind of the inner message}.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "tensor": {},
}
_RAW_DATA = 9
_LENGTH_DELIMITED = 2
_MAX_DEPTH = 64
STRIP_BYTES = 1024
"""A `raw_data` of at least this many bytes stays in the file; a shorter one is parsed with the graph."""


class _Unusual(Exception):
    """The walk met something it does not handle; the parser decides."""


@dataclass
class ModelBytes:
    """A parsed model and the bytes that its stripped tensors point into."""

    proto: ModelProto
    folder: Path | None = None
    path: Path | None = None
    identity: tuple[object, ...] | None = None
    _nonce: bytes = b""
    _raw: list[memoryview] = field(default_factory=list)
    _offsets: list[int] = field(default_factory=list)

    def raw(self, data: bytes) -> memoryview | None:
        """The bytes in the file that `data`, a tensor's `raw_data`, stands for; None if it is no token."""
        position = self._position(data)
        return None if position is None else self._raw[position]

    def offset(self, data: bytes) -> int | None:
        """Where in the file the bytes behind a token start; None if `data` is no token."""
        position = self._position(data)
        return None if position is None else self._offsets[position]

    def _position(self, data: bytes) -> int | None:
        if not self._nonce or len(data) != len(self._nonce) + 8 or not data.startswith(self._nonce):
            return None
        return int.from_bytes(data[len(self._nonce) :], "little")


def read_model(source: str | os.PathLike[str] | bytes | ModelProto) -> ModelBytes:
    """Parse a model from a path, from bytes, or from a ModelProto (which is used as it is, not copied).

    Raises NoSuchFile, InvalidProtobuf (with the path; also for truncated files and other formats), and
    NoModel for a protobuf without a graph.
    """
    if isinstance(source, ModelProto):
        return _checked(ModelBytes(source), "the given ModelProto")
    if isinstance(source, (bytes, bytearray, memoryview)):
        made = _parse(bytes(source) if not isinstance(source, bytes) else source, "the given bytes")
        return _checked(made, "the given bytes")
    if not isinstance(source, (str, os.PathLike)):
        raise InvalidArgument(f"a model is a path, bytes or a ModelProto, not {type(source).__name__}")
    path = Path(source)
    content, status = _map_file(path)
    made = _parse(content, f"Load model from {path} failed")
    made.path, made.folder = path, path.parent
    made.identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return _checked(made, str(path))


def _map_file(path: Path) -> tuple[Buffer, os.stat_result]:
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size == 0:
                raise InvalidProtobuf(f"Load model from {path} failed: the file is empty")
            try:
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), status
            except (OSError, ValueError):  # a pipe, or a file system without mapping
                return file.read(), status
    except FileNotFoundError:
        raise NoSuchFile(f"Load model from {path} failed: the file does not exist") from None
    except IsADirectoryError:
        raise NoSuchFile(f"Load model from {path} failed: it is a directory") from None


def _checked(made: ModelBytes, what: str) -> ModelBytes:
    if not made.proto.HasField("graph"):
        raise NoModel(f"{what}: the protobuf holds no graph")
    if made.proto.ir_version < 1 and not made.proto.opset_import:
        raise InvalidProtobuf(f"{what}: no ONNX model (neither an IR version nor an opset)")
    return made


def _parse(content: Buffer, what: str) -> ModelBytes:
    nonce = os.urandom(24)
    raw: list[memoryview] = []
    offsets: list[int] = []
    whole = memoryview(content)
    try:
        pieces = _strip(whole, 0, len(whole), "model", 0, nonce, raw, offsets)
        data = b"".join(pieces) if raw else bytes(whole)
    except _Unusual:
        raw, offsets, data = [], [], bytes(whole)
    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, ValueError) as error:
        raise InvalidProtobuf(
            f"{what}: Protobuf parsing failed ({str(error) or 'truncated or damaged'})"
        ) from None
    return ModelBytes(proto, _nonce=nonce if raw else b"", _raw=raw, _offsets=offsets)


def _varint(data: memoryview, position: int, end: int) -> tuple[int, int]:
    """The unsigned integer at `position`, and the position behind it."""
    value = shift = 0
    while position < end and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise _Unusual


def _encode_varint(value: int) -> bytes:
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def _strip(
    data: memoryview,
    position: int,
    end: int,
    kind: str,
    depth: int,
    nonce: bytes,
    raw: list[memoryview],
    offsets: list[int],
) -> list[Buffer]:
    """The message in `data[position:end]` as pieces to join, long raw data replaced by tokens."""
    if depth > _MAX_DEPTH:
        raise _Unusual
    children = _CHILDREN[kind]
    pieces: list[Buffer] = []
    kept = position  # start of the run of bytes that is copied unchanged
    while position < end:
        start = position
        key, position = _varint(data, position, end)
        wire = key & 7
        if wire == 0:
            _, position = _varint(data, position, end)
        elif wire == 1:
            position += 8
        elif wire == 5:
            position += 4
        elif wire == _LENGTH_DELIMITED:
            length, position = _varint(data, position, end)
            if length > end - position:
                raise _Unusual
            inner = children.get(key >> 3)
            if length >= STRIP_BYTES and inner is not None:
                before = len(raw)
                parts = _strip(data, position, position + length, inner, depth + 1, nonce, raw, offsets)
                if len(raw) > before:
                    pieces += [
                        data[kept:start],
                        _encode_varint(key),
                        _encode_varint(sum(map(len, parts))),
                        *parts,
                    ]
                    kept = position + length
            elif length >= STRIP_BYTES and kind == "tensor" and key >> 3 == _RAW_DATA:
                token = nonce + len(raw).to_bytes(8, "little")
                raw.append(data[position : position + length])
                offsets.append(position)
                pieces += [data[kept:start], _encode_varint(key), _encode_varint(len(token)), token]
                kept = position + length
            position += length
        else:
            raise _Unusual
        if position > end:
            raise _Unusual
    pieces.append(data[kept:end])
    return pieces
