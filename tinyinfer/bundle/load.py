"""A bundle as what a session runs. Needs numpy and nothing else: no onnx, no compiler.

The first target in the file that this machine can run is taken. Weights are used where they lie in the mapped
file, but for those that are expanded; code goes to memory of its own, which then is executable and no longer
writable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyinfer.backends.cpu.driver import ENTRIES
from tinyinfer.backends.cpu.executable import CpuExecutable
from tinyinfer.backends.cpu.features import ARCHITECTURES, Needs, feature_names
from tinyinfer.backends.cpu.image import CodeImage
from tinyinfer.backends.cpu.loader import map_image
from tinyinfer.backends.cpu.machine import choose, this_machine
from tinyinfer.bundle.container import Container, Entry
from tinyinfer.bundle.manifest import read_json
from tinyinfer.bundle.plan_reader import read_machine, read_plan
from tinyinfer.bundle.plan_section import PlanSection
from tinyinfer.bundle.weights import Weights
from tinyinfer.errors import Fail, InvalidArgument, InvalidBundle, NotImplemented
from tinyinfer.ir.node import Graph
from tinyinfer.limits import DEFAULT_LIMITS, Limits
from tinyinfer.runtime.feeds import FeedCheck, InputSpec
from tinyinfer.runtime.plan import Plan, TensorSpec
from tinyinfer.runtime.session_options import GraphOptimizationLevel, SessionOptions
from tinyinfer.runtime.signature import ModelMetadata, NodeArg, format_shape, numpy_dtype, tensor_type

if TYPE_CHECKING:
    import logging

    from tinyinfer.backends.base import Device, LaunchTime

KEY = ()
"""The only key: a bundle is compiled for one set of shapes."""


class NoTarget(NotImplemented):
    """A bundle holds no code for this machine."""


class BundleModel:
    """`runtime.session_model.SessionModel` for a bundle: a path, or its bytes.

    `trusted_keys` are Ed25519 public keys (32 bytes, or files), one of which must have signed it;
    `require_signature` accepts any valid signature. Raises NoSuchFile, InvalidBundle for what is damaged or
    not signed as asked, NoTarget where nothing in it runs here, and InvalidArgument for options that no
    bundle can follow. Damage of large sections is found by `executable`, before anything runs.
    """

    def __init__(
        self,
        path_or_bytes: Any,
        options: SessionOptions | None = None,
        trusted_keys: Sequence[Any] = (),
        require_signature: bool = False,
        limits: Limits | None = None,
    ):
        _check_options(options)
        self.container = Container.open(
            path_or_bytes,
            trusted_keys=trusted_keys or None,
            require_signature=require_signature,
            hash_beside=True,
        )
        label = self.container.label
        self.manifest = read_json(f"{label}: MANI", self._data("MANI"))
        self._weights = Weights(self.container)
        plan_entry = _choose(self.container)
        self.target = plan_entry.name
        code = self.container.get("CODE", plan_entry.group)
        assert code is not None  # the container checked it
        self._code = self.container.data(code)
        self.section: PlanSection = read_plan(
            self.container.data(plan_entry), code.size, self._weights.stored, f"{label}: {plan_entry.title}"
        )
        plan = self.section.plan
        _check_memory(label, plan, self.section, limits)
        plan.parameters = self._weights.load(self.section.tensors)
        self._fixed = {
            number: plan.parameters[tensor]
            .view(numpy_dtype(plan.inputs[number].dtype))
            .reshape(plan.inputs[number].shape)
            for number, tensor in self.section.fixed.items()
        }
        self.inputs = [_node_arg(spec, self._fixed.get(number)) for number, spec in enumerate(plan.inputs)]
        self.outputs = [_node_arg(spec) for spec in plan.outputs]
        self.overridable: list[NodeArg] = []
        self.specs = [
            InputSpec(spec.name, spec.dtype, spec.shape, onnx_type=tensor_type(spec.dtype))
            for spec in plan.inputs
        ]
        self.check: FeedCheck = _BundleFeedCheck(self.specs)
        self.metadata = _metadata(self.manifest)

    def device(self, names: Sequence[str]) -> Device:
        return _BundleDevice(names)

    def program(
        self, device: Device, options: SessionOptions, title: str, logger: logging.Logger
    ) -> BundleProgram:
        executable = self.executable(options.intra_op_num_threads)
        logger.info("%s loaded, target %s", title, self.target)
        return BundleProgram(executable)

    def executable(self, threads: int = 0) -> BundleExecutable:
        """The chosen target, ready to run on `threads` threads (0: all cores)."""
        offsets = self.section.offsets
        missing = [name for name in ENTRIES if name not in offsets]
        if missing:
            raise InvalidBundle(
                f"{self.container.label}: target {self.target} lacks the executor's {', '.join(missing)}"
            )
        code = map_image(CodeImage(self._code.tobytes(), dict(offsets)))
        executable = CpuExecutable(self.section.plan, code, threads, copy_parameters=False)
        self.container.finish()
        return BundleExecutable(executable, self._fixed)

    def key(self, arrays: Mapping[str, Any]) -> Any:
        return KEY

    def complete(self, given: Mapping[str, Sequence[int]]) -> Any:
        by_name = {spec.name: spec for spec in self.specs}
        for name, shape in given.items():
            spec = by_name.get(name)
            if spec is None:
                raise InvalidArgument(
                    f"no input is called {name!r}; the bundle's inputs: {self.check.describe()}"
                )
            self.check.check_shape(spec, tuple(shape), {})
        return KEY

    def graph(self, key: Any) -> Graph:
        raise NotImplemented(  # noqa: F901 - the exception of tinyinfer.errors
            f"{self.container.label}: a bundle holds machine code and no graph; look at the model that it was"
            " compiled from"
        )

    def _data(self, kind: str) -> np.ndarray:
        entry = self.container.get(kind)
        assert entry is not None  # the container checked it
        return self.container.data(entry)


class BundleExecutable:
    """`backends.base.Executable` for a bundle: refuses other values of inputs that are fixed."""

    def __init__(self, executable: CpuExecutable, fixed: Mapping[int, np.ndarray]):
        self._executable = executable
        self._fixed = {number: (value, value.tobytes()) for number, value in fixed.items()}
        self.inputs: list[TensorSpec] = executable.inputs
        self.outputs: list[TensorSpec] = executable.outputs
        self.peak_bytes: int = executable.peak_bytes
        self.names = [spec.name for spec in executable.inputs]
        if not fixed:
            # nothing stands between a caller and native code
            self.run = executable.run  # type: ignore[method-assign]

    def run(self, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
        """As `CpuExecutable.run`; InvalidArgument for a value that the bundle was not made for."""
        self._check(feeds)
        return self._executable.run(feeds)

    def profile(self, feeds: Sequence[np.ndarray], runs: int = 10) -> list[LaunchTime]:
        """As `CpuExecutable.profile`."""
        self._check(feeds)
        return self._executable.profile(feeds, runs)

    def stages(self) -> Mapping[str, str]:
        """The plan; a bundle has no other stage."""
        return self._executable.stages()

    def close(self) -> None:
        """End threads and give up memory."""
        self._executable.close()

    def _check(self, feeds: Sequence[np.ndarray]) -> None:
        for number, (only, content) in self._fixed.items():
            if feeds[number].tobytes() != content:
                raise InvalidArgument(
                    f"Input {self.names[number]!r}: the bundle was compiled for the value {_short(only)}, not"
                    f" {_short(feeds[number])}"
                )


class BundleProgram:
    """`runtime.session_model.SessionProgram` of one executable."""

    def __init__(self, executable: BundleExecutable):
        self._executable = executable

    def run(self, key: Any, inputs: Mapping[str, Any]) -> list[Any]:
        return self._executable.run([inputs[name] for name in self._executable.names])

    def prepare(self, key: Any) -> None:
        """Nothing: it is compiled."""

    def kept_whole(self, key: Any) -> BundleExecutable:
        return self._executable

    def executable(self, key: Any, inputs: Mapping[str, Any] | None) -> BundleExecutable:
        return self._executable

    def close(self) -> None:
        self._executable.close()


class _BundleFeedCheck(FeedCheck):
    """Says of a shape that is refused which ones the bundle holds."""

    def check_shape(self, spec: InputSpec, shape: tuple[int, ...], symbols: dict[str, int]) -> None:
        try:
            super().check_shape(spec, shape, symbols)
        except InvalidArgument as error:
            held = ", ".join(f"{s.name} {format_shape(s.shape or ())}" for s in self.specs)
            raise InvalidArgument(
                f"{error}; this bundle was compiled for {held} and no other shape"
            ) from None


class _BundleDevice:
    """The CPU, as far as sessions of bundles ask: what is named must include it."""

    name = "CPU"

    def __init__(self, names: Sequence[str]):
        from tinyinfer.backends.registry import canonical_name, device_names

        for name in names:
            if canonical_name(name) == self.name:
                return
            if canonical_name(name) not in device_names() and not name.endswith("ExecutionProvider"):
                raise ValueError(f"unknown device {name!r}; a bundle runs on the CPU")
        if names:
            raise ValueError(f"none of {', '.join(names)} can be used: a bundle runs on the CPU")

    def available(self) -> str | None:
        return None

    def compile(self, graph: Graph, options: Any, threads: int) -> Any:
        raise NotImplemented("a bundle is compiled already")  # noqa: F901


def describe_targets(container: Container) -> list[Needs]:
    """What each target in a bundle needs, best first."""
    needs = []
    for entry in container.all("PLAN"):
        machine = read_machine(container.data(entry), f"{container.label}: {entry.title}")
        number = ARCHITECTURES.get(machine.architecture, 0)
        needs.append(Needs(entry.name, number, machine.pointer_bytes, machine.features))
    return needs


def _choose(container: Container) -> Entry:
    """The plan of the first target that this machine can run."""
    entries = container.all("PLAN")
    number, reasons = choose(describe_targets(container))
    if number is not None:
        return entries[number]
    machine = this_machine()
    offers = ", ".join(feature_names(machine.architecture, machine.features)) or "none that code is made for"
    held = "; ".join(reasons) or "it holds none"
    raise NoTarget(
        f"{container.label}: no target in this bundle runs here: {held}. This machine:"
        f" {machine.architecture or 'an unknown architecture'} with {offers}"
    )


def _check_options(options: SessionOptions | None) -> None:
    if options is None:
        return
    if options.graph_optimization_level == GraphOptimizationLevel.ORT_DISABLE_ALL:
        raise InvalidArgument(
            "a bundle is compiled already: its kernels cannot be taken apart (ORT_DISABLE_ALL)"
        )


def _check_memory(label: str, plan: Plan, section: PlanSection, limits: Limits | None) -> None:
    total = plan.arena_bytes + sum(tensor.nbytes for tensor in section.tensors)
    most = (limits if limits is not None else DEFAULT_LIMITS).max_bytes
    if total > most:
        raise Fail(f"{label}: takes {total} bytes, over the limit max_bytes = {most} (tinyinfer.Limits)")


def _node_arg(spec: TensorSpec, value: np.ndarray | None = None) -> NodeArg:
    return NodeArg(spec.name, tensor_type(spec.dtype), list(spec.shape), value=value)


def _metadata(manifest: Mapping[str, Any]) -> ModelMetadata:
    """What the manifest says of the model; what is missing or of another type counts as unsaid."""
    model = manifest.get("model")
    found = model if isinstance(model, dict) else {}

    def text(key: str) -> str:
        value = found.get(key)
        return value if isinstance(value, str) else ""

    extra = found.get("metadata")
    version = found.get("version")
    return ModelMetadata(
        producer_name=text("producer"),
        graph_name=text("name"),
        domain=text("domain"),
        description=text("description"),
        graph_description=text("graph_description"),
        version=version if isinstance(version, int) else 0,
        custom_metadata_map={str(k): str(v) for k, v in extra.items()} if isinstance(extra, dict) else {},
    )


def _short(value: np.ndarray) -> str:
    text = np.array2string(value, threshold=8, separator=", ").replace("\n", "")
    return text if len(text) <= 60 else text[:57] + "..."
