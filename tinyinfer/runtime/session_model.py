"""What a session runs, and an ONNX model seen so: its signature, and a program that compiles it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tinyinfer.backends.base import Device, Executable
from tinyinfer.errors import InvalidArgument
from tinyinfer.ir.node import Graph
from tinyinfer.runtime.feeds import FeedCheck, InputSpec
from tinyinfer.runtime.program import Key, Program
from tinyinfer.runtime.session_options import SessionOptions
from tinyinfer.runtime.signature import ModelMetadata, NodeArg

if TYPE_CHECKING:
    import logging

    from tinyinfer.frontend.onnx import Limits, OnnxModel, ValueSpec
    from tinyinfer.frontend.onnx.trace import Segment


class WholeModel(Protocol):
    """What runs a model in one piece: its inputs' names, and a run of arrays in that order."""

    names: list[str]

    def run(self, feeds: Sequence[np.ndarray]) -> list[np.ndarray] | None:
        """The outputs, or None where this was closed meanwhile."""


class SessionProgram(Protocol):
    """A model on one device."""

    def run(self, key: Key, inputs: Mapping[str, Any]) -> list[Any]:
        """The outputs for checked inputs whose key this is."""

    def prepare(self, key: Key) -> None:
        """Compile for inputs of this key, as far as no value of them is needed."""

    def kept_whole(self, key: Key) -> WholeModel | None:
        """What runs inputs of this key in one piece, where that is ready."""

    def executable(self, key: Key, inputs: Mapping[str, Any] | None) -> Executable:
        """The executable for inputs of this key, compiled now if need be."""

    def close(self) -> None:
        """Free threads and memory."""


class SessionModel(Protocol):
    """A model before any device is chosen."""

    inputs: list[NodeArg]
    outputs: list[NodeArg]
    overridable: list[NodeArg]
    specs: list[InputSpec]
    check: FeedCheck
    metadata: ModelMetadata

    def device(self, names: Sequence[str]) -> Device:
        """The first of the devices named (none: the machine's own) that can run the model; ValueError where
        none can."""

    def program(
        self, device: Device, options: SessionOptions, title: str, logger: logging.Logger
    ) -> SessionProgram:
        """The model on a device."""

    def key(self, arrays: Mapping[str, Any]) -> Key:
        """What a compilation is for, of checked inputs."""

    def complete(self, given: Mapping[str, Sequence[int]]) -> Key:
        """The key of inputs of the shapes `given`, open dimensions being 1; InvalidArgument where a name is
        unknown or a shape contradicts the model."""

    def graph(self, key: Key) -> Graph:
        """The model, or its first segment, as the importer makes it; NotImplemented where there is none."""


class OnnxSessionModel:
    """`SessionModel` for an ONNX file. Errors as in `InferenceSession`."""

    def __init__(self, path_or_bytes: Any, options: SessionOptions, limits: Limits | None):
        from tinyinfer.frontend.onnx import Limits, UnsupportedModel, blockers, load_model

        limits = limits if limits is not None else Limits()
        self._model: OnnxModel = load_model(path_or_bytes, limits, options.custom_ops)
        missing = blockers(self._model)
        if missing:
            raise UnsupportedModel(missing)
        self.inputs = [_node_arg(spec) for spec in self._model.inputs]
        self.outputs = [_node_arg(spec) for spec in self._model.outputs]
        self.overridable = [_node_arg(spec) for spec in self._model.overridable]
        self.specs = _input_specs(self._model, options)
        self.check = FeedCheck(self.specs)
        self.metadata = _metadata(self._model)

    def device(self, names: Sequence[str]) -> Device:
        from tinyinfer.backends.registry import first_available, get_device

        return first_available(list(names) or [get_device()])

    def program(self, device: Device, options: SessionOptions, title: str, logger: logging.Logger) -> Program:
        return Program(
            self._first_segment,
            device,
            options.compile_options(),
            options.intra_op_num_threads,
            title,
            logger,
            limits=self._model.limits,
        )

    def key(self, arrays: Mapping[str, Any]) -> Key:
        from tinyinfer.frontend.onnx.values import signature

        return tuple((name, signature(array)) for name, array in arrays.items())

    def complete(self, given: Mapping[str, Sequence[int]]) -> Key:
        by_name = {spec.name: spec for spec in self.specs}
        symbols: dict[str, int] = {}
        for name, shape in given.items():
            spec = by_name.get(name)
            if spec is None:
                raise InvalidArgument(
                    f"no input is called {name!r}; the model's inputs: {self.check.describe()}"
                )
            self.check.check_shape(spec, tuple(shape), symbols)
        result = []
        for spec in self.specs:
            kind = "string" if spec.dtype == "object" else spec.dtype
            if not spec.is_tensor:
                from tinyinfer.frontend.onnx.dry_run import zero_signatures

                result.append((spec.name, zero_signatures(self._model, given, 1, 1)[spec.name]))
            elif spec.name in given:
                result.append((spec.name, (kind, tuple(map(int, given[spec.name])))))
            elif spec.required:
                if spec.shape is None:
                    raise InvalidArgument(f"input {spec.name!r} has no shape in the model")
                sizes = [d if isinstance(d, int) else symbols.get(d, 1) if d else 1 for d in spec.shape]
                result.append((spec.name, (kind, tuple(sizes))))
        return tuple(result)

    def graph(self, key: Key) -> Graph:
        return self._first_segment(key).graph or Graph({}, {})

    def _first_segment(self, key: Key) -> Segment:
        from tinyinfer.frontend.onnx.trace import start

        with self._model.limits.spending():
            return start(self._model, dict(key))


def _node_arg(spec: ValueSpec) -> NodeArg:
    inner = None if spec.element_shape is None else list(spec.element_shape)
    return NodeArg(spec.name, spec.onnx_type, list(spec.shape) if spec.shape is not None else [], inner)


def _metadata(model: OnnxModel) -> ModelMetadata:
    return ModelMetadata(
        producer_name=model.producer_name,
        graph_name=model.graph_name,
        domain=model.domain,
        description=model.description,
        graph_description=model.graph_description,
        version=model.version,
        custom_metadata_map=dict(model.custom_metadata),
    )


def _input_specs(model: OnnxModel, options: SessionOptions) -> list[InputSpec]:
    """The inputs with the free-dimension overrides applied; overridable initializers are not required."""
    by_name, by_denotation = options.free_dimensions_by_name, options.free_dimensions_by_denotation

    denoted = {
        value.name: [by_denotation.get(d.denotation) for d in value.type.tensor_type.shape.dim]
        for value in model.proto.graph.input
    }
    specs = []
    for required, values in ((True, model.inputs), (False, model.overridable)):
        for value in values:
            if not required and not value.dtype:
                # an initializer whose input has no type of tensors: nothing could be fed in its place
                continue
            shape = value.shape
            if shape is not None:
                shape = tuple(
                    d if isinstance(d, int) else by_name.get(d or "", d) if override is None else override
                    for d, override in zip(shape, denoted[value.name])
                )
            optional = value.onnx_type.startswith("optional(")
            specs.append(
                InputSpec(value.name, value.dtype, shape, required and not optional, value.onnx_type)
            )
    return specs
