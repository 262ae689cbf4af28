"""InferenceSession: a model that can be run, with onnxruntime's calls.

A session compiles its model once per set of input shapes (`runtime.program`). It compiles at construction
where the shapes are known or only the leading dimension is open (taken as 1), otherwise when it is first run.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyinfer import errors
from tinyinfer.backends.base import Device, Executable, LaunchTime
from tinyinfer.backends.registry import canonical_name, first_available, get_device
from tinyinfer.ir.node import Graph
from tinyinfer.runtime.defaults import session_logger
from tinyinfer.runtime.feeds import FeedCheck, InputSpec
from tinyinfer.runtime.program import Key, Program, Runnable
from tinyinfer.runtime.program_view import PathExecutable
from tinyinfer.runtime.session_options import RunOptions, SessionOptions
from tinyinfer.runtime.signature import ModelMetadata, NodeArg
from tinyinfer.runtime.trace import Trace

if TYPE_CHECKING:
    from tinyinfer.frontend.onnx import Limits, OnnxModel, ValueSpec
    from tinyinfer.frontend.onnx.trace import Segment

_IGNORED_ARGUMENTS = frozenset(("disabled_optimizers", "enable_fallback", "read_config_from_model"))


class InferenceSession:
    """A model on one device.

    `path_or_bytes`: the path of an .onnx file, its bytes, or an `onnx.ModelProto`.
    `providers`: device names, best first ("CPU", or onnxruntime's "CPUExecutionProvider"), or pairs of a name
    and an options dict; None is the machine's default device. The first one that can be used is used, and no
    other.
    `limits`: how much the model may ask for (`tinyinfer.Limits`).

    Raises NoSuchFile, InvalidProtobuf, NoModel, InvalidGraph or NotImplemented for the model, ValueError for
    a device that is unknown or absent, InvalidArgument for options.
    """

    _device: Device
    _device_options: dict
    _program: Program
    _recent: tuple[Runnable, list[tuple[str, tuple[int, ...], np.dtype]]] | None

    def __init__(
        self,
        path_or_bytes: Any,
        sess_options: SessionOptions | None = None,
        providers: Sequence[str | tuple[str, dict]] | None = None,
        provider_options: Sequence[dict] | None = None,
        limits: Limits | None = None,
        **kwargs: Any,
    ):
        from tinyinfer.frontend.onnx import Limits, UnsupportedModel, blockers, load_model

        unknown = set(kwargs) - _IGNORED_ARGUMENTS
        if unknown:
            raise TypeError(f"InferenceSession takes no argument {', '.join(sorted(unknown))}")
        self._options = sess_options if sess_options is not None else SessionOptions()
        if self._options.optimized_model_filepath:
            raise errors.NotImplemented(
                "optimized_model_filepath: a compiled model is native code, which no ONNX file can hold"
            )
        self._trace = Trace(self._options.profile_file_prefix) if self._options.enable_profiling else None
        self._logger = session_logger(self._options.logid, self._options.log_severity_level)
        device, chosen_options = _choose_device(providers, provider_options)
        start = time.perf_counter_ns()
        self._model: OnnxModel = load_model(
            path_or_bytes, limits if limits is not None else Limits(), self._options.custom_ops
        )
        loaded = time.perf_counter_ns()
        missing = blockers(self._model)
        if missing:
            raise UnsupportedModel(missing)
        self._title = (
            os.path.basename(path_or_bytes) if isinstance(path_or_bytes, (str, os.PathLike)) else "model"
        )
        self._specs = _input_specs(self._model, self._options)
        self._check = FeedCheck(self._specs)
        self._output_numbers = {spec.name: number for number, spec in enumerate(self._model.outputs)}
        self._use_device(device, chosen_options)
        if self._trace is not None:
            self._trace.add("model_loading", start, loaded)
            self._trace.add("session_initialization", loaded, time.perf_counter_ns())
            self._end_profiling = weakref.finalize(self, self._trace.write)

    # ---- running

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: RunOptions | None = None,
    ) -> list[Any]:
        """The outputs named (None or [] = all, in the model's order) for a feed of arrays by input name.

        Raises InvalidArgument, before anything runs, where a name, rank, dimension or dtype is not what the
        model expects. Shapes not seen before are compiled first.
        """
        wanted = self._numbers(output_names) if output_names else None
        recent = self._recent
        if recent is not None and run_options is None and type(input_feed) is dict:
            runnable, expected = recent
            if len(input_feed) == len(expected):
                feeds = []
                for name, shape, dtype in expected:
                    array = input_feed.get(name)
                    if type(array) is not np.ndarray or array.shape != shape or array.dtype != dtype:
                        break
                    flags = array.flags
                    if not flags.c_contiguous or not flags.aligned:
                        break
                    feeds.append(array)
                else:
                    results = runnable.run(feeds)
                    if results is not None:
                        return results if wanted is None else [results[number] for number in wanted]
        results = self._run_checked(input_feed, run_options)
        return results if wanted is None else [results[number] for number in wanted]

    def _run_checked(self, input_feed: Mapping[str, Any], run_options: RunOptions | None) -> list[Any]:
        if run_options is not None and run_options.terminate:
            raise errors.Fail("Exiting due to terminate flag being set to true.")
        arrays = self._check.arrays(input_feed)
        key = _key_of(arrays)
        if self._trace is not None:
            self._program.root(key)
            start = time.perf_counter_ns()
            results = self._program.run(key, arrays)
            self._trace.add("model_run", start, time.perf_counter_ns())
            self._trace.add_kernels(start, self._executable(key, arrays).profile(list(arrays.values()), 1))
            return results
        results = self._program.run(key, arrays)
        root = self._program.kept(key)
        if root is not None and root.whole and root.runnable is not None:
            names = root.runnable.names
            if len(names) == len(arrays):
                self._recent = (root.runnable, [(n, arrays[n].shape, arrays[n].dtype) for n in names])
        return results

    def compile(self, shapes: Mapping[str, Sequence[int]] | None = None) -> Executable:
        """Compile for these input shapes now and give the executable, whose `peak_bytes`, `stages()` and
        `profile()` describe it. Inputs not named take their own shape with every open dimension 1.

        InvalidArgument where a name is unknown or a shape contradicts the model.
        """
        return self._executable(self._complete(shapes or {}), None)

    def graph(self, shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
        """The model as the importer makes it, before any device rewrites it; `shapes` and errors as in
        `compile`. Of a model that is cut into segments, it is the first one.
        """
        return _starter(self._model)(self._complete(shapes or {})).graph or Graph({}, {})

    def prepare(self, input_feed: Mapping[str, Any]) -> Executable:
        """Check a feed and compile for it, without running unless the model is cut into segments; errors as
        in `run`.
        """
        arrays = self._check.arrays(input_feed)
        return self._executable(_key_of(arrays), arrays)

    def profile(self, input_feed: Mapping[str, Any], runs: int = 10) -> list[LaunchTime]:
        """Median time of each kernel over `runs` runs of a feed, in the order of the plan; errors as in
        `run`.
        """
        arrays = self._check.arrays(input_feed)
        executable = self._executable(_key_of(arrays), arrays)
        return executable.profile(
            [arrays[spec.name] for spec in executable.inputs if spec.name in arrays], runs
        )

    def _executable(self, key: Key, arrays: Mapping[str, Any] | None) -> Executable:
        root = self._program.root(key)
        if root.whole and root.runnable is not None:
            return root.runnable.executable()
        return PathExecutable(self._program, key, arrays)

    # ---- what the model says

    def get_inputs(self) -> list[NodeArg]:
        """The inputs that a feed must or may hold, overridable initializers left out."""
        return [_node_arg(spec) for spec in self._model.inputs]

    def get_outputs(self) -> list[NodeArg]:
        """The outputs, in the order that `run` returns them."""
        return [_node_arg(spec) for spec in self._model.outputs]

    def get_overridable_initializers(self) -> list[NodeArg]:
        """Initializers that are also graph inputs: a feed may replace them."""
        return [_node_arg(spec) for spec in self._model.overridable]

    def get_modelmeta(self) -> ModelMetadata:
        """Producer, versions and custom metadata."""
        model = self._model
        return ModelMetadata(
            producer_name=model.producer_name,
            graph_name=model.graph_name,
            domain=model.domain,
            description=model.description,
            graph_description=model.graph_description,
            version=model.version,
            custom_metadata_map=dict(model.custom_metadata),
        )

    def get_session_options(self) -> SessionOptions:
        """The options that the session was built with."""
        return self._options

    # ---- devices

    def get_providers(self) -> list[str]:
        """The device that the session runs on, in a list."""
        return [self._device.name]

    def get_provider_options(self) -> dict[str, dict]:
        """The options that came with the device, by its name."""
        return {self._device.name: dict(self._device_options)}

    def set_providers(
        self,
        providers: Sequence[str | tuple[str, dict]] | None = None,
        provider_options: Sequence[dict] | None = None,
    ) -> None:
        """Move the session to other devices; what was compiled for the old one is freed. Errors as in
        __init__.
        """
        device, chosen_options = _choose_device(providers, provider_options)
        self._close()
        self._use_device(device, chosen_options)

    def _use_device(self, device: Device, device_options: dict) -> None:
        self._device, self._device_options = device, device_options
        self._recent = None
        self._program = Program(
            _starter(self._model),
            device,
            self._options.compile_options(),
            self._options.intra_op_num_threads,
            self._title,
            self._logger,
            limits=self._model.limits,
        )
        self._close = weakref.finalize(self, self._program.close)
        self._compile_early()

    def _compile_early(self) -> None:
        if self._options.input_shapes:
            self.compile(self._options.input_shapes)
            return
        required = [s for s in self._specs if s.required]
        if any(not spec.is_tensor for spec in self._specs):
            return
        open_axes = {
            axis
            for spec in required
            for axis, dimension in enumerate(spec.shape or ())
            if not isinstance(dimension, int)
        }
        if any(spec.shape is None for spec in required) or open_axes - {0}:
            return
        try:
            self._program.root(self._complete({}))
        except (errors.InvalidArgument, errors.InvalidGraph):
            # a batch of 1 was only a guess; the shapes of the first run decide
            if not open_axes:
                raise

    # ---- profiling

    def end_profiling(self) -> str:
        """Write the profile (Chrome trace JSON) and give its path; "" where profiling was not enabled."""
        if self._trace is None:
            return ""
        path = self._trace.path
        self._end_profiling()
        self._trace = None
        return path

    def get_profiling_start_time_ns(self) -> int:
        """When profiling began, in nanoseconds of `time.perf_counter_ns`; 0 where it was not enabled."""
        return 0 if self._trace is None else self._trace.start_ns

    # ---- helpers

    def _numbers(self, output_names: Sequence[str]) -> list[int]:
        if isinstance(output_names, str):
            raise errors.InvalidArgument(f"output_names is a list of names, not the string {output_names!r}")
        try:
            return [self._output_numbers[name] for name in output_names]
        except KeyError as error:
            known = ", ".join(map(repr, self._output_numbers))
            raise errors.InvalidArgument(
                f"Invalid output name: {error}; the model's outputs: {known}"
            ) from None

    def _complete(self, given: Mapping[str, Sequence[int]]) -> Key:
        """The signatures of all required inputs: shapes as given, or the model's own with symbols taken from
        `given`, else 1.
        """
        by_name = {spec.name: spec for spec in self._specs}
        symbols: dict[str, int] = {}
        for name, shape in given.items():
            spec = by_name.get(name)
            if spec is None:
                raise errors.InvalidArgument(
                    f"no input is called {name!r}; the model's inputs: {self._check.describe()}"
                )
            self._check.check_shape(spec, tuple(shape), symbols)
        result = []
        for spec in self._specs:
            kind = "string" if spec.dtype == "object" else spec.dtype
            if not spec.is_tensor:
                from tinyinfer.frontend.onnx.dry_run import zero_signatures

                result.append((spec.name, zero_signatures(self._model, given, 1, 1)[spec.name]))
            elif spec.name in given:
                result.append((spec.name, (kind, tuple(map(int, given[spec.name])))))
            elif spec.required:
                if spec.shape is None:
                    raise errors.InvalidArgument(f"input {spec.name!r} has no shape in the model")
                sizes = [d if isinstance(d, int) else symbols.get(d, 1) if d else 1 for d in spec.shape]
                result.append((spec.name, (kind, tuple(sizes))))
        return tuple(result)


def _key_of(arrays: Mapping[str, Any]) -> Key:
    from tinyinfer.frontend.onnx.values import signature

    return tuple((name, signature(array)) for name, array in arrays.items())


def _starter(model: OnnxModel) -> Callable[[Key], Segment]:
    def first_segment(key: Key) -> Segment:
        from tinyinfer.frontend.onnx.trace import start

        with model.limits.spending():
            return start(model, dict(key))

    return first_segment


def _choose_device(
    providers: Sequence[str | tuple[str, dict]] | None, provider_options: Sequence[dict] | None
) -> tuple[Device, dict]:
    if isinstance(providers, str):
        raise ValueError(f"providers is a list of device names, not the string {providers!r}")
    entries = list(providers) if providers else [get_device()]
    names = [entry if isinstance(entry, str) else entry[0] for entry in entries]
    options = [{} if isinstance(entry, str) else dict(entry[1]) for entry in entries]
    if provider_options:
        if len(provider_options) != len(names):
            raise ValueError(f"{len(provider_options)} provider_options for {len(names)} providers")
        options = [dict(given or own) for given, own in zip(provider_options, options)]
    device = first_available(names)
    chosen = next(number for number, name in enumerate(names) if canonical_name(name) == device.name)
    return device, options[chosen]


def _node_arg(spec: ValueSpec) -> NodeArg:
    inner = None if spec.element_shape is None else list(spec.element_shape)
    return NodeArg(spec.name, spec.onnx_type, list(spec.shape) if spec.shape is not None else [], inner)


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
