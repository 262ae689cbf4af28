"""Model inputs from files, pictures and random numbers: what the flags --input, --shape and --seed mean."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cli import pictures
from cli.errors import BadInput
from cli.labels import looks_like_imagenet
from cli.options import InputChoice, PictureChoice
from cli.report import shape_text
from cli.values import random_strings, random_value, value_of_json
from tinyinfer.errors import InvalidArgument, InvalidGraph

if TYPE_CHECKING:
    from tinyinfer.runtime.session import InferenceSession
    from tinyinfer.runtime.signature import NodeArg

RANDOM = "random"


@dataclass
class Feeds:
    """Values by input name (arrays; lists for sequences, dicts for maps), and a note on each for people."""

    arrays: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    picture: bool = False
    assumed: list[str] = field(default_factory=list)
    """Inputs with open dimensions that nothing but a default of 1 gives."""

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Errors of a model that the assumed shapes may have caused say so, as BadInput."""
        try:
            yield
        except (InvalidGraph, InvalidArgument) as error:
            if not self.assumed:
                raise
            named = ", ".join(map(repr, self.assumed))
            shape = shape_text(np.shape(self.arrays[self.assumed[0]]))
            raise BadInput(
                f"{error} (open dimensions of {named} were taken as 1; others: --shape"
                f" {self.assumed[0]}:{shape if shape != 'scalar' else ''})"
            ) from error


def gather_feeds(
    session: InferenceSession,
    choice: InputChoice,
    shapes: Mapping[str, tuple[int, ...]],
    fill_missing: bool,
) -> Feeds:
    """The feeds that the flags describe.

    Inputs without a file are random where `fill_missing` holds or no input was given at all; otherwise
    BadInput names them. Files are read before anything is computed. Errors: BadInput, OSError.
    """
    known = {arg.name: arg for arg in [*session.get_inputs(), *session.get_overridable_initializers()]}
    sources = _sources(session, choice.inputs, choice.files, known)
    fixed = {name: arg.value for name, arg in known.items() if arg.value is not None and name not in sources}
    required = [arg.name for arg in session.get_inputs() if arg.name not in fixed]
    missing = [name for name in required if name not in sources]
    if missing and sources and not fill_missing:
        named = ", ".join(map(repr, missing))
        raise BadInput(f"no value for input {named} (give --input {missing[0]}=FILE or ={RANDOM})")
    for name in shapes:
        if name not in known:
            raise BadInput(f"--shape {name}: no such input; the model's inputs: {_listed(known)}")
    sources.update((name, RANDOM) for name in missing)
    feeds = Feeds()
    symbols: dict[str, int] = {}
    for name, source in sources.items():
        if not _is_generated(source):
            feeds.arrays[name] = _read_value(known[name], source)
            feeds.notes[name] = source
            if isinstance(feeds.arrays[name], np.ndarray):
                _learn(symbols, known[name], feeds.arrays[name].shape)
    for name, shape in shapes.items():
        _learn(symbols, known[name], shape)
    for name, source in sources.items():
        if source.lower().endswith(pictures.SUFFIXES):
            array, told = _picture(session, known[name], source, shapes.get(name), symbols, choice.picture)
            feeds.arrays[name] = array
            feeds.notes[name] = f"{source}: {told}"
            feeds.picture = True
            _learn(symbols, known[name], array.shape)
    for name, value in fixed.items():
        feeds.arrays[name] = value
        feeds.notes[name] = "the only value that the bundle is made for"
    generator = np.random.default_rng(choice.seed)
    for name, source in sources.items():
        if source.partition(":")[0] == RANDOM:
            shape = shapes.get(name, _open_as(known[name], symbols))
            if name not in shapes and _is_open(known[name], symbols):
                feeds.assumed.append(name)
            feeds.arrays[name] = _random_value(known[name], source, shape, generator)
            feeds.notes[name] = f"random, seed {choice.seed}"
    feeds.arrays = {name: feeds.arrays[name] for name in known if name in feeds.arrays}
    return feeds


def _is_generated(source: str) -> bool:
    return source.partition(":")[0] == RANDOM or source.lower().endswith(pictures.SUFFIXES)


def _listed(known: Mapping[str, NodeArg]) -> str:
    return ", ".join(repr(name) for name in known) or "none"


def _sources(
    session: InferenceSession, inputs: tuple[str, ...], files: tuple[str, ...], known: Mapping[str, NodeArg]
) -> dict[str, str]:
    """Which file (or `random`) each input comes from."""
    sources: dict[str, str] = {}
    for text in inputs:
        name, separator, source = _split(text, known)
        if not separator or not source:
            raise BadInput(f"--input {text!r}: expected NAME=FILE or NAME={RANDOM}")
        if name not in known:
            raise BadInput(f"--input {name}: no such input; the model's inputs: {_listed(known)}")
        if name in sources:
            raise BadInput(f"--input {name}: given twice")
        sources[name] = source
    for path in files:
        free = [arg for arg in session.get_inputs() if arg.name not in sources]
        if path.lower().endswith(".npz"):
            names = [arg.name for arg in free if arg.name in _npz_names(path)]
            if names:
                sources.update((name, path) for name in names)
                continue
        if path.lower().endswith(pictures.SUFFIXES):
            free = [arg for arg in free if len(arg.shape) in (3, 4)] or free
        if len(free) != 1:
            raise BadInput(f"{path}: say which input this is, --input NAME={path}; inputs: {_listed(known)}")
        sources[free[0].name] = path
    return sources


def _split(text: str, known: Mapping[str, NodeArg]) -> tuple[str, str, str]:
    """NAME=FILE; a name may hold "=", so the names of the model come first."""
    for name in sorted(known, key=len, reverse=True):
        if text.startswith(f"{name}="):
            return name, "=", text[len(name) + 1 :]
    return text.partition("=")


def _npz_names(path: str) -> list[str]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return list(archive.files)
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise BadInput(f"{path}: no .npz file that can be read: {error}") from None


def _read_value(arg: NodeArg, path: str) -> Any:
    """The value for an input in a file: JSON for any type, an archive's arrays in order for a sequence."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".json":
        with open(path, encoding="utf-8") as file:
            try:
                return value_of_json(arg.type, json.load(file))
            except (ValueError, TypeError, OverflowError, RecursionError) as error:
                raise BadInput(f"{path}: no {arg.type}: {error}") from None
    if arg.type.startswith(("seq(tensor(", "optional(seq(tensor(")) and suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return [archive[name] for name in archive.files]
    if arg.type.startswith(("seq(", "map(", "optional(seq(", "optional(map(")):
        raise BadInput(f"{path}: input {arg.name!r} is a {arg.type}, which a .json file can hold")
    return read_array(arg.name, path)


def read_array(name: str, path: str) -> np.ndarray:
    """The array for input `name` in a .npy, .npz or .pb (ONNX TensorProto) file."""
    suffix = os.path.splitext(path)[1].lower()
    try:
        if suffix == ".npy":
            array = np.load(path, allow_pickle=False)
        elif suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                if name not in archive.files and len(archive.files) != 1:
                    raise BadInput(f"{path}: no array {name!r} in it, only {', '.join(archive.files)}")
                array = archive[name if name in archive.files else archive.files[0]]
        elif suffix == ".pb":
            array = _read_tensor_proto(path)
        else:
            known = " ".join((".npy", ".npz", ".pb", ".json", *pictures.SUFFIXES))
            raise BadInput(f"{path}: not a kind of file that holds an input; these do: {known}")
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise BadInput(f"{path}: no {suffix} file that can be read: {error}") from None
    if not isinstance(array, np.ndarray):
        raise BadInput(f"{path}: holds several arrays, not one")
    return array


def _read_tensor_proto(path: str) -> np.ndarray:
    from google.protobuf.message import DecodeError
    from onnx import TensorProto, numpy_helper

    tensor = TensorProto()
    with open(path, "rb") as file:
        try:
            tensor.ParseFromString(file.read())
        except DecodeError:
            raise BadInput(f"{path}: no ONNX TensorProto") from None
    if tensor.data_location == TensorProto.EXTERNAL or not tensor.data_type:
        raise BadInput(f"{path}: no ONNX TensorProto with its data in it")
    if tensor.data_type not in TensorProto.DataType.values():
        raise BadInput(f"{path}: element type {tensor.data_type} is none that ONNX knows")
    if any(size < 0 for size in tensor.dims):
        raise BadInput(f"{path}: a tensor of shape {list(tensor.dims)}")
    return numpy_helper.to_array(tensor)


def _learn(symbols: dict[str, int], arg: NodeArg, shape: tuple[int, ...]) -> None:
    if len(arg.shape) == len(shape):
        for dimension, size in zip(arg.shape, shape):
            if isinstance(dimension, str):
                symbols.setdefault(dimension, size)


def _open_as(arg: NodeArg, symbols: Mapping[str, int]) -> tuple[int, ...]:
    """The input's shape with its symbols as known, otherwise 1."""
    shape = arg.shape if arg.element_shape is None else arg.element_shape
    return tuple(d if isinstance(d, int) else symbols.get(d, 1) if d else 1 for d in shape)


def _is_open(arg: NodeArg, symbols: Mapping[str, int]) -> bool:
    return any(not isinstance(d, int) and d not in symbols for d in arg.element_shape or arg.shape)


def _dtype(arg: NodeArg) -> str:
    from tinyinfer.runtime.signature import dtype_of

    dtype = dtype_of(arg.type)
    if dtype is None:
        raise BadInput(f"input {arg.name!r} is a {arg.type}, which no file or random numbers can give")
    return dtype


def _picture(
    session: InferenceSession,
    arg: NodeArg,
    path: str,
    shape: tuple[int, ...] | None,
    symbols: Mapping[str, int],
    choice: PictureChoice,
) -> tuple[np.ndarray, str]:
    known: tuple[int | None, ...] = shape or tuple(
        d if isinstance(d, int) else symbols.get(d) if d else None for d in arg.shape
    )
    if len(known) == 4 and known[0] not in (1, None):
        raise BadInput(f"{path}: input {arg.name!r} takes {known[0]} pictures at once")
    target = pictures.picture_input(arg.name, known, _dtype(arg), choice.layout)
    outputs = [tuple(d if isinstance(d, int) else 1 for d in out.shape) for out in session.get_outputs()]
    imagenet = any(looks_like_imagenet(out) for out in outputs)
    return pictures.load_picture(path, target, _dtype(arg), imagenet, choice)


def _random_value(arg: NodeArg, source: str, shape: tuple[int, ...], generator: np.random.Generator) -> Any:
    """A value of the input's type; `shape` is that of the tensors in it."""
    from tinyinfer.runtime.signature import dtype_of

    def tensor(kind: str, of: tuple[int, ...] = shape) -> np.ndarray:
        dtype = dtype_of(kind)
        if dtype is None:
            raise BadInput(f"input {arg.name!r} is a {arg.type}, which no random numbers can give")
        return _random(arg, dtype, source, of, generator)

    return random_value(arg.type, tensor, generator)


def _random(
    arg: NodeArg, dtype_name: str, source: str, shape: tuple[int, ...], generator: np.random.Generator
) -> np.ndarray:
    """`random` or `random:LOW:HIGH`: floats in [0, 1), bytes in [0, 256), other integers in [0, 2), bools,
    words."""
    from tinyinfer.ir.dtypes import NARROW_INTEGERS
    from tinyinfer.runtime.signature import numpy_dtype

    dtype = numpy_dtype(dtype_name)
    low, high = 0.0, {"u": 256.0 if dtype.itemsize == 1 else 2.0, "i": 2.0}.get(dtype.kind, 1.0)
    words = source.split(":")[1:]
    if words:
        try:
            low, high = map(float, words)
        except ValueError:
            raise BadInput(f"--input {arg.name}={source}: expected random:LOW:HIGH") from None
        if not low < high or not np.isfinite([low, high]).all():
            raise BadInput(f"--input {arg.name}={source}: LOW and HIGH must be numbers, LOW below HIGH")
    if dtype.kind == "O":
        return random_strings(shape, generator)
    if dtype.kind == "c":
        parts = generator.random((2, *shape))
        return ((parts[0] + 1j * parts[1]) * (high - low) + low).astype(dtype)
    if dtype.kind == "b":
        return generator.random(shape) < 0.5
    if dtype.kind == "c":
        parts = [generator.random(shape) * (high - low) + low for _ in range(2)]
        return (parts[0] + 1j * parts[1]).astype(dtype)
    if dtype.name in NARROW_INTEGERS:
        # all values: there are few
        return generator.integers(0, 1 << NARROW_INTEGERS[dtype.name], shape).astype(np.uint8).view(dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        first, last = max(int(low), limits.min), min(max(int(low), int(high) - 1), limits.max)
        if first > last:
            raise BadInput(f"--input {arg.name}={source}: no {dtype} lies there")
        wide = np.uint64 if dtype == np.uint64 else np.int64
        return generator.integers(first, last, shape, dtype=wide, endpoint=True).astype(dtype)
    return (generator.random(shape, dtype=np.float32) * (high - low) + low).astype(dtype)
