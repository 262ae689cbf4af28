"""InferenceSession: a model that can be run, with onnxruntime's calls.

A session compiles its model once per set of input shapes (`runtime.program`). It compiles at construction
where the shapes are known or only the leading dimension is open (taken as 1), otherwise when it is first run.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyinfer import errors
from tinyinfer.backends.base import Device, Executable, LaunchTime
from tinyinfer.backends.registry import canonical_name, configured
from tinyinfer.bundle.recognise import is_bundle
from tinyinfer.ir.node import Graph
from tinyinfer.runtime.defaults import session_logger
from tinyinfer.runtime.session_model import OnnxSessionModel, SessionModel, SessionProgram, WholeModel
from tinyinfer.runtime.session_options import RunOptions, SessionOptions
from tinyinfer.runtime.signature import ModelMetadata, NodeArg
from tinyinfer.runtime.trace import Trace

if TYPE_CHECKING:
    from tinyinfer.limits import Limits

_IGNORED_ARGUMENTS = frozenset(("disabled_optimizers", "enable_fallback", "read_config_from_model"))


class InferenceSession:
    """A model on one device.

    `path_or_bytes`: the path of an .onnx file or of a bundle, the bytes of either, or an `onnx.ModelProto`.
    `providers`: device names, best first ("CPU", or onnxruntime's "CPUExecutionProvider"), or pairs of a name
    and an options dict; None is the machine's default device. The first one that can be used is used, and no
    other.
    `limits`: how much the model may ask for (`tinyinfer.Limits`).
    `trusted_keys`: Ed25519 public keys (32 bytes, or files with them), one of which must have signed the
    bundle. `require_signature`: a bundle must be signed, by whomever. Not in onnxruntime.

    Raises NoSuchFile, InvalidProtobuf, NoModel, InvalidGraph or NotImplemented for the model, InvalidBundle
    for a bundle that is damaged or not signed as asked, NotImplemented for one without code for this machine,
    ValueError for a device that is unknown or absent, InvalidArgument for options.
    """

    _device: Device
    _device_options: dict
    _model: SessionModel
    _program: SessionProgram
    _recent: tuple[WholeModel, list[tuple[str, tuple[int, ...], np.dtype]]] | None

    def __init__(
        self,
        path_or_bytes: Any,
        sess_options: SessionOptions | None = None,
        providers: Sequence[str | tuple[str, dict]] | None = None,
        provider_options: Sequence[dict] | None = None,
        limits: Limits | None = None,
        trusted_keys: Sequence[Any] = (),
        require_signature: bool = False,
        **kwargs: Any,
    ):
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
        names, given = _named_devices(providers, provider_options)
        start = time.perf_counter_ns()
        self._model = _open(path_or_bytes, self._options, limits, trusted_keys, require_signature, names)
        loaded = time.perf_counter_ns()
        self._title = (
            os.path.basename(path_or_bytes) if isinstance(path_or_bytes, (str, os.PathLike)) else "model"
        )
        self._check = self._model.check
        self._output_numbers = {arg.name: number for number, arg in enumerate(self._model.outputs)}
        self._use_device(names, given)
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
        key = self._model.key(arrays)
        if self._trace is not None:
            self._program.prepare(key)
            start = time.perf_counter_ns()
            results = self._program.run(key, arrays)
            self._trace.add("model_run", start, time.perf_counter_ns())
            executable = self._program.executable(key, arrays)
            self._trace.add_kernels(start, executable.profile(list(arrays.values()), 1))
            return results
        results = self._program.run(key, arrays)
        runnable = self._program.kept_whole(key)
        if runnable is not None and len(runnable.names) == len(arrays):
            self._recent = (runnable, [(n, arrays[n].shape, arrays[n].dtype) for n in runnable.names])
        return results

    def compile(self, shapes: Mapping[str, Sequence[int]] | None = None) -> Executable:
        """Compile for these input shapes now and give the executable, whose `peak_bytes`, `stages()` and
        `profile()` describe it. Inputs not named take their own shape with every open dimension 1.

        InvalidArgument where a name is unknown or a shape contradicts the model.
        """
        return self._program.executable(self._model.complete(shapes or {}), None)

    def graph(self, shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
        """The model as the importer makes it, before any device rewrites it; `shapes` and errors as in
        `compile`. Of a model that is cut into segments, it is the first one.
        """
        return self._model.graph(self._model.complete(shapes or {}))

    def prepare(self, input_feed: Mapping[str, Any]) -> Executable:
        """Check a feed and compile for it, without running unless the model is cut into segments; errors as
        in `run`.
        """
        arrays = self._check.arrays(input_feed)
        return self._program.executable(self._model.key(arrays), arrays)

    def profile(self, input_feed: Mapping[str, Any], runs: int = 10) -> list[LaunchTime]:
        """Median time of each kernel over `runs` runs of a feed, in the order of the plan; errors as in
        `run`.
        """
        arrays = self._check.arrays(input_feed)
        executable = self._program.executable(self._model.key(arrays), arrays)
        return executable.profile(
            [arrays[spec.name] for spec in executable.inputs if spec.name in arrays], runs
        )

    # ---- what the model says

    def get_inputs(self) -> list[NodeArg]:
        """The inputs that a feed must or may hold, overridable initializers left out."""
        return list(self._model.inputs)

    def get_outputs(self) -> list[NodeArg]:
        """The outputs, in the order that `run` returns them."""
        return list(self._model.outputs)

    def get_overridable_initializers(self) -> list[NodeArg]:
        """Initializers that are also graph inputs: a feed may replace them."""
        return list(self._model.overridable)

    def get_modelmeta(self) -> ModelMetadata:
        """Producer, versions and custom metadata."""
        return self._model.metadata

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
        names, given = _named_devices(providers, provider_options)
        self._chosen(names, given)  # says what is wrong while the old one still runs
        self._close()
        self._use_device(names, given)

    def _use_device(self, names: list[str], given: list[dict]) -> None:
        self._device, self._device_options = self._chosen(names, given)
        self._recent = None
        self._program = self._model.program(self._device, self._options, self._title, self._logger)
        self._close = weakref.finalize(self, self._program.close)
        self._compile_early()

    def _chosen(self, names: list[str], given: list[dict]) -> tuple[Device, dict]:
        """The device, and the options that came with its name."""
        device = self._model.device(names)
        named = zip(names, given)
        options = next((options for name, options in named if canonical_name(name) == device.name), {})
        return configured(device, options), options

    def _compile_early(self) -> None:
        if self._options.input_shapes:
            self.compile(self._options.input_shapes)
            return
        required = [s for s in self._model.specs if s.required]
        if any(not spec.is_tensor for spec in self._model.specs):
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
            self._program.prepare(self._model.complete({}))
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


def _named_devices(
    providers: Sequence[str | tuple[str, dict]] | None, provider_options: Sequence[dict] | None
) -> tuple[list[str], list[dict]]:
    """The devices asked for, best first, and the options of each."""
    if isinstance(providers, str):
        raise ValueError(f"providers is a list of device names, not the string {providers!r}")
    entries = list(providers or ())
    names = [entry if isinstance(entry, str) else entry[0] for entry in entries]
    options = [{} if isinstance(entry, str) else dict(entry[1]) for entry in entries]
    if provider_options:
        if len(provider_options) != len(names):
            raise ValueError(f"{len(provider_options)} provider_options for {len(names)} providers")
        options = [dict(given or own) for given, own in zip(provider_options, options)]
    return names, options


def _open(
    path_or_bytes: Any,
    options: SessionOptions,
    limits: Limits | None,
    trusted_keys: Sequence[Any],
    require_signature: bool,
    devices: Sequence[str],
) -> SessionModel:
    """A bundle or an ONNX model; what it is, its first bytes tell."""
    if is_bundle(path_or_bytes):
        from tinyinfer.bundle.load import BundleModel

        return BundleModel(path_or_bytes, options, trusted_keys, require_signature, limits, devices)
    if trusted_keys or require_signature:
        raise errors.InvalidArgument("ONNX models have no signature: only bundles do")
    return OnnxSessionModel(path_or_bytes, options, limits)
