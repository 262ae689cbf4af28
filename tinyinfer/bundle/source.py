"""What a bundle is made from: one graph of a whole model at fixed shapes, and where it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyinfer.errors import InvalidArgument, InvalidGraph, NotImplemented
from tinyinfer.ir.node import Graph
from tinyinfer.runtime.signature import format_shape, numpy_dtype

if TYPE_CHECKING:
    from tinyinfer.frontend.onnx.model import OnnxModel, ValueSpec


@dataclass(frozen=True)
class Source:
    """A model as one graph.

    `graph` is what the importer makes, before any rewrite; `values` are the inputs whose value is fixed.
    `assumed` names inputs with open dimensions that nobody gave: they are 1.
    """

    model: OnnxModel
    graph: Graph
    shapes: dict[str, tuple[int, ...]]
    values: dict[str, np.ndarray] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()

    def describe_assumed(self) -> str:
        """What was chosen for open dimensions, in words; "" where nothing was."""
        if not self.assumed:
            return ""
        shapes = ", ".join(f"{name} {format_shape(self.shapes[name])}" for name in self.assumed)
        return f"open dimensions were taken as 1: {shapes}"


def read_source(
    model: OnnxModel,
    shapes: Mapping[str, Sequence[int]] | None = None,
    values: Mapping[str, Any] | None = None,
) -> Source:
    """`model` as one graph. Open dimensions are those of `shapes` (a symbol is the same everywhere), else 1;
    `values` fixes inputs to a value: an array, or what numpy makes one of, one number for all elements.

    Raises NotImplemented, in one line, for a model that is no single graph of tensors of numbers, or that
    needs an input's value to become one; InvalidArgument for shapes and values that no input has;
    InvalidGraph for a broken model.
    """
    from tinyinfer.frontend.onnx.dry_run import zero_signatures
    from tinyinfer.frontend.onnx.errors import NeedsHost, NeedsValue, UnsupportedModel
    from tinyinfer.frontend.onnx.whole import import_graph

    specs = {spec.name: spec for spec in model.inputs}
    given = {name: tuple(map(int, shape)) for name, shape in (shapes or {}).items()}
    for name in (*given, *(values or {})):
        if name not in specs:
            known = ", ".join(map(repr, specs)) or "none"
            raise InvalidArgument(f"no input is called {name!r}; the model's inputs: {known}")
    for spec in (*model.inputs, *model.outputs):
        if not spec.dtype or spec.dtype == "object":
            raise NotImplemented(  # noqa: F901 - the exception of tinyinfer.errors
                f"{spec.name!r} is a {spec.onnx_type or 'value of no type'}; a bundle holds models whose"
                " inputs and outputs are tensors of numbers"
            )
    for name, value in (values or {}).items():
        if name not in given and np.ndim(value):
            given[name] = np.shape(value)
    described = zero_signatures(model, given, 1, 1)
    chosen = {name: described[name][1] for name in specs}
    fixed = {name: _fixed(specs[name], value, chosen[name]) for name, value in (values or {}).items()}
    assumed = tuple(spec.name for spec in model.inputs if _guessed(spec, given, model))
    try:
        with model.limits.spending():
            graph = import_graph(model, chosen, fixed)
    except NeedsValue as error:
        named = " ".join(f"--value {name}=…" for name in error.inputs)
        raise NotImplemented(  # noqa: F901
            f"{error}; a bundle is one fixed graph: give the value that it is to be built for ({named})"
        ) from None
    except NeedsHost as error:
        raise NotImplemented(  # noqa: F901
            f"{error}; a bundle holds machine code only, and no Python runs beside it"
        ) from None
    except UnsupportedModel as error:
        more = len(error.blockers) - 1
        rest = f" (and {more} more: tinyinfer check lists them)" if more else ""
        raise NotImplemented(f"{error.blockers[0]}{rest}") from None  # noqa: F901
    except (InvalidGraph, InvalidArgument) as error:
        if not assumed:
            raise
        raise type(error)(
            f"{error} (open dimensions of {', '.join(map(repr, assumed))} were taken as 1; others: --shape"
            f" {assumed[0]}:{'x'.join(map(str, chosen[assumed[0]]))})"
        ) from error
    return Source(model, graph, chosen, fixed, assumed)


def model_digest(model: OnnxModel) -> str:
    """SHA-256 of the model's file, followed by the files with its external data in order of their locations;
    of the serialised message where the model came without a file."""
    digest = hashlib.sha256()
    path = model.content.path
    if path is None:
        digest.update(model.full_proto().SerializeToString(deterministic=True))
        return digest.hexdigest()
    for file in (path, *(path.parent / location for location in sorted(set(_locations(model))))):
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _locations(model: OnnxModel) -> Iterator[str]:
    from tinyinfer.frontend.onnx.model import tensors_of

    for tensor in tensors_of(model.proto):
        if tensor.data_location == tensor.EXTERNAL:
            yield from (entry.value for entry in tensor.external_data if entry.key == "location")


def _fixed(spec: ValueSpec, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """`value` as an array of the input's type; one number stands for all elements."""
    dtype = numpy_dtype(spec.dtype)
    try:
        array = np.asarray(value)
        with np.errstate(invalid="ignore"):
            converted = array.astype(dtype)
        exact = array.dtype.kind in "biuf" and bool(np.all(converted.astype(array.dtype) == array))
    except (ValueError, TypeError, OverflowError):
        exact = False
    if not exact:
        raise InvalidArgument(f"the value of input {spec.name!r} is no {dtype.name}: {value!r}")
    if array.ndim and array.shape != shape:
        raise InvalidArgument(
            f"the value of input {spec.name!r} has shape {list(array.shape)}, not {list(shape)}"
        )
    return np.array(np.broadcast_to(converted, shape), order="C")


def _guessed(spec: ValueSpec, given: Mapping[str, Sequence[int]], model: OnnxModel) -> bool:
    """Whether the input has an open dimension whose size nothing tells."""
    if spec.name in given:
        return False
    told = {
        dimension
        for other in model.inputs
        if other.name in given
        for dimension in other.shape or ()
        if isinstance(dimension, str)
    }
    return spec.shape is None or any(not isinstance(d, int) and d not in told for d in spec.shape)
