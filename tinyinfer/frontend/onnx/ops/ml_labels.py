"""Labels, categories and maps: tables of numbers are searched in kernels, strings and maps by the host."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyinfer.frontend.onnx.blocks.ml_scores import DOMAIN, require_numbers
from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import EXACT, onnx_op
from tinyinfer.frontend.onnx.ops.elementwise import is_float, like
from tinyinfer.frontend.onnx.values import HostValue, Value, describe
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.index import Slot, index
from tinyinfer.ir.node import Node, output_axis

# ---- tables


@dataclass
class Mapping:
    """Keys and the value of each; arrays of one dtype each, of objects for strings. The first of equal keys
    counts. `default` is the value of all other keys; `nan_is_key` says whether NaN can be found."""

    keys: np.ndarray
    values: np.ndarray
    default: Any
    nan_is_key: bool = False

    @property
    def on_host(self) -> bool:
        """Whether strings are on either side."""
        return self.keys.dtype == object or self.values.dtype == object


def is_string(x: Value) -> bool:
    """Whether `x` is a tensor of strings."""
    return isinstance(x, HostValue) and x.kind == "string"


def look_up(ctx: NodeContext, x: Value, mapping: Mapping) -> Any:
    """The value of each element of `x`, as a node or a host call."""
    wanted = "string" if mapping.keys.dtype == object else mapping.keys.dtype.name
    found = "string" if is_string(x) else x.dtype if isinstance(x, Node) else describe(x)
    ctx.require(found == wanted, f"its keys are {wanted}, but its input is {found}")
    if mapping.on_host:
        return ctx.host_call(_host_look_up(mapping), [x])
    assert isinstance(x, Node)
    return _search(x, mapping)


def _host_look_up(mapping: Mapping) -> Callable[[np.ndarray], tuple[np.ndarray]]:
    table: dict[Any, Any] = {}
    missing = mapping.default
    nan = missing
    for key, value in zip(mapping.keys.tolist(), mapping.values.tolist()):
        if key != key:
            nan = value if mapping.nan_is_key and nan is missing else nan
        else:
            table.setdefault(key, value)

    def run(x: np.ndarray) -> tuple[np.ndarray]:
        found = [nan if key != key else table.get(key, missing) for key in x.reshape(-1).tolist()]
        result = np.empty(len(found), mapping.values.dtype)
        result[:] = found
        return (result.reshape(x.shape),)

    return run


def _read(table: np.ndarray, place: Node) -> Node:
    slot = index(Slot(0, 0, len(table) - 1))
    return build.view(build.constant(table), [slot], place.shape, index_inputs=[place])


def _search(x: Node, mapping: Mapping) -> Node:
    """A binary search for each element of `x` among the sorted keys."""
    default = build.full(mapping.default, x.shape, mapping.values.dtype.name)
    defined = mapping.keys == mapping.keys
    keys, first = np.unique(mapping.keys[defined], return_index=True)
    values = mapping.values[defined][first]
    result = default
    if len(keys):
        steps = max(len(keys) - 1, 0).bit_length()
        filler = (0, (1 << steps) - len(keys))
        keys, values = np.pad(keys, filler, "edge"), np.pad(values, filler, "edge")
        place = build.full(0, x.shape, "int32")
        for step in reversed(range(steps)):
            further = elementwise("ADD", place, like(1 << step, place))
            below = elementwise("CMPLE", _read(keys, further), x)
            place = elementwise("WHERE", below, further, place)
        hit = elementwise("CMPEQ", _read(keys, place), x)
        result = elementwise("WHERE", hit, _read(values, place), default)
    if mapping.nan_is_key and not defined.all():
        value = mapping.values[~defined][0].item()
        result = elementwise("WHERE", elementwise("CMPNE", x, x), like(value, result), result)
    return result


# ---- operators on labels

KINDS = {"strings": object, "int64s": np.int64, "floats": np.float32}


def _listed(ctx: NodeContext, prefix: str) -> np.ndarray | None:
    """The attribute `prefix`_strings, _int64s, _floats or _tensor; None if there is none of them."""
    found: list[np.ndarray] = []
    for kind, dtype in KINDS.items():
        name = f"{prefix}_{kind}"
        read = {"strings": ctx.strings, "int64s": ctx.integers, "floats": ctx.numbers}[kind]
        values = read(name, None)
        if values:
            found.append(np.asarray(values, dtype))
    tensor = ctx.value_tensor(f"{prefix}_tensor")
    if tensor is not None:
        found.append(tensor.reshape(-1))
    ctx.require(len(found) <= 1, f"has several lists of {prefix}")
    return found[0] if found else None


def _default(ctx: NodeContext, dtype: np.dtype) -> Any:
    """The value for keys that are not there."""
    tensor = ctx.value_tensor("default_tensor")
    if tensor is not None and tensor.size:
        ctx.require(tensor.dtype == dtype, f"'default_tensor' holds {tensor.dtype}, the values are {dtype}")
        return tensor.reshape(-1)[0]
    if dtype.kind == "O":
        return ctx.string("default_string", "_Unused")
    if dtype.kind == "f":
        return ctx.number("default_float", -0.0)
    default = ctx.integer("default_int64", -1)
    limits = np.iinfo(dtype)
    ctx.require(limits.min <= default <= limits.max, f"'default_int64' {default} does not fit {dtype}")
    return default


@onnx_op("LabelEncoder", until=1, domain=DOMAIN, tolerance=EXACT, values=True)
def label_encoder_of_classes(ctx: NodeContext, x: Value) -> Any:
    """The position of each string in a list, or the string at each position."""
    names = np.asarray(ctx.strings("classes_strings", None) or [], object)
    places = np.arange(len(names), dtype=np.int64)
    if is_string(x):
        # the last of equal names counts
        default = ctx.integer("default_int64", -1)
        return look_up(ctx, x, Mapping(names[::-1], places[::-1], default))
    return look_up(ctx, x, Mapping(places, names, ctx.string("default_string", "_Unused")))


@onnx_op("LabelEncoder", since=2, domain=DOMAIN, tolerance=EXACT, values=True)
def label_encoder(ctx: NodeContext, x: Value) -> Any:
    """The value that belongs to each key: numbers and strings on both sides."""
    keys, values = _listed(ctx, "keys"), _listed(ctx, "values")
    if keys is None or values is None:
        ctx.fail("needs keys and values")
    ctx.require(len(keys) == len(values), f"has {len(keys)} keys and {len(values)} values")
    return look_up(ctx, x, Mapping(keys, values, _default(ctx, values.dtype), nan_is_key=ctx.opset >= 4))


@onnx_op("CategoryMapper", domain=DOMAIN, tolerance=EXACT, values=True)
def category_mapper(ctx: NodeContext, x: Value) -> Any:
    """The number of each category's name, or the name of each number."""
    names = np.asarray(ctx.strings("cats_strings", None) or [], object)
    numbers = np.asarray(ctx.integers("cats_int64s", None) or [], np.int64)
    ctx.require(len(names) == len(numbers), f"has {len(names)} names and {len(numbers)} numbers")
    if is_string(x):
        default = ctx.integer("default_int64", -1)
        return look_up(ctx, x, Mapping(names[::-1], numbers[::-1], default))
    return look_up(ctx, x, Mapping(numbers[::-1], names[::-1], ctx.string("default_string", "_Unused")))


@onnx_op("OneHotEncoder", domain=DOMAIN, tolerance=EXACT, values=True)
def one_hot_encoder(ctx: NodeContext, x: Value) -> Any:
    """1 at the position of each category along a new last axis, 0 elsewhere, float32."""
    names, numbers = ctx.strings("cats_strings", None), ctx.integers("cats_int64s", None)
    ctx.require(bool(names) != bool(numbers), "needs either 'cats_strings' or 'cats_int64s'")
    strict = not ctx.flag("zeros", True)
    categories: list[Any] = names or numbers
    if isinstance(x, Node):
        require_numbers(ctx, x)
        ctx.require(bool(numbers), f"its categories are strings, but its input is {x.dtype}")
        if not strict:
            return _one_hot(x, numbers)
    else:
        ctx.require(is_string(x) and bool(names), f"its input is a {describe(x)}, its categories are not")
    positions = {c: i for i, c in enumerate(categories)}
    label = ctx.label

    def run(values: np.ndarray) -> tuple[np.ndarray]:
        keys = values.reshape(-1).tolist()
        result = np.zeros((len(keys), len(categories)), np.float32)
        for row, key in enumerate(keys):
            place = positions.get(key if names else int(key))
            if place is not None:
                result[row, place] = 1
            elif strict:
                raise ValueError(f"{label}: {key!r} is no category, which 'zeros' = 0 does not allow")
        return (result.reshape(*values.shape, len(categories)),)

    return ctx.host_call(run, [x])


def _one_hot(x: Node, categories: Sequence[int]) -> Node:
    shape = (*x.shape, len(categories))
    axes = [index(output_axis(i, d)) for i, d in enumerate(x.shape)]
    wide = build.view(build.cast(x, "int64"), axes, shape)
    listed = build.expand(build.constant(np.asarray(categories, np.int64)), shape)
    same = elementwise("CMPEQ", wide, listed)
    last = {c: i for i, c in enumerate(categories)}
    counts = np.asarray([last[c] == i for i, c in enumerate(categories)])
    if not counts.all():
        same = elementwise("AND", same, build.expand(build.constant(counts), shape))
    return build.cast(same, "float32")


# ---- maps


@onnx_op("ZipMap", domain=DOMAIN, tolerance=EXACT)
def zip_map(ctx: NodeContext, x: Node) -> Any:
    """For each row a map from the classes' labels to the row's numbers."""
    names, numbers = ctx.strings("classlabels_strings", None), ctx.integers("classlabels_int64s", None)
    ctx.require(bool(names) != bool(numbers), "needs either 'classlabels_strings' or 'classlabels_int64s'")
    labels: list[Any] = names or numbers
    ctx.require(is_float(x) and len(x.shape) in (1, 2), f"takes rows of floats, not {describe(x)}")
    ctx.require(x.shape[-1] == len(labels), f"has {len(labels)} labels for {x.shape[-1]} columns")
    order = sorted(range(len(labels)), key=labels.__getitem__)
    keys = [labels[i] for i in order]

    def run(values: np.ndarray) -> tuple[list[dict[Any, float]]]:
        matrix = values.reshape(-1, len(labels))[:, order]
        return ([dict(zip(keys, row)) for row in matrix.tolist()],)

    return ctx.host_call(run, [x])


_MAP = re.compile(r"map\((\w+),\s*tensor\((\w+)\)\)")
_VALUE_TYPES = {"float": np.float32, "double": np.float64, "int64": np.int64, "string": object}


def _value_dtype(ctx: NodeContext, content: dict[Any, Any]) -> Any:
    """The dtype of a map's values: as the model declares its input, else as Python has them."""
    for value in ctx.importer.model.inputs:
        found = _MAP.fullmatch(value.onnx_type) if value.name == ctx.proto.input[0] else None
        if found is not None and found.group(2) in _VALUE_TYPES:
            return _VALUE_TYPES[found.group(2)]
    first = next(iter(content.values()), 0.0)
    return object if isinstance(first, str) else np.int64 if isinstance(first, int) else np.float32


def _require_map(ctx: NodeContext, x: Value) -> None:
    ctx.require(isinstance(x, HostValue) and x.kind == "object", f"takes a map, not a {describe(x)}")


@onnx_op("DictVectorizer", domain=DOMAIN, tolerance=EXACT, values=True)
def dict_vectorizer(ctx: NodeContext, x: Value) -> Any:
    """The values of a map in the order of a vocabulary of keys, as one row; 0 or "" for keys not in it."""
    _require_map(ctx, x)
    names, numbers = ctx.strings("string_vocabulary", None), ctx.integers("int64_vocabulary", None)
    ctx.require(
        bool(names) != bool(numbers), "needs either 'string_vocabulary' or 'int64_vocabulary', not both"
    )
    vocabulary: list[Any] = names or numbers

    def run(content: dict[Any, Any]) -> tuple[np.ndarray]:
        dtype = _value_dtype(ctx, content)
        row = np.empty((1, len(vocabulary)), dtype)
        row[0] = [content.get(key, "" if dtype is object else 0) for key in vocabulary]
        return (row,)

    return ctx.host_call(run, [x])


CASTS = {"TO_FLOAT": np.float32, "TO_STRING": object, "TO_INT64": np.int64}
_NUMBER = re.compile(
    r"\s*[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf(inity)?|nan)", re.IGNORECASE
)
_INTEGER = re.compile(r"\s*[+-]?\d+")


@onnx_op("CastMap", domain=DOMAIN, tolerance=EXACT, values=True)
def cast_map(ctx: NodeContext, x: Value) -> Any:
    """The values of a map from integers as one row, in the order of their keys or each at its key."""
    _require_map(ctx, x)
    dtype = CASTS[ctx.string("cast_to", "TO_FLOAT", choices=tuple(CASTS))]
    sparse = ctx.string("map_form", "DENSE", choices=("DENSE", "SPARSE")) == "SPARSE"
    width = ctx.integer("max_map", 1)
    ctx.require(not sparse or width >= 1, f"'max_map' is {width}")
    ctx.table_size(width if sparse else 1, "max_map")
    label = ctx.label

    def run(content: dict[Any, Any]) -> tuple[np.ndarray]:
        items = sorted(content.items())
        if sparse:
            if items and items[0][0] < 0:
                raise ValueError(f"{label}: the map has the negative key {items[0][0]}")
            row = np.full((1, width), "0.f" if dtype is object else 0, dtype)
            items = [(k, v) for k, v in items if k < width]
            places = [k for k, _ in items]
        else:
            row = np.empty((1, len(items)), dtype)
            places = list(range(len(items)))
        for place, (_, value) in zip(places, items):
            row[0, place] = cast_value(value, dtype)
        return (row,)

    return ctx.host_call(run, [x])


def cast_value(value: Any, dtype: Any) -> Any:
    """A string or a float as `dtype`, in the manner of C: numbers end where they stop being numbers."""
    if isinstance(value, str):
        if dtype is object:
            return value
        found = (_NUMBER if dtype is np.float32 else _INTEGER).match(value)
        if found is None:
            raise ValueError(f"{value!r} is no number")
        return float(found.group()) if dtype is np.float32 else int(found.group())
    if dtype is object:
        return f"{float(np.float32(value)):f}"
    return math.trunc(value) if dtype is np.int64 else value
