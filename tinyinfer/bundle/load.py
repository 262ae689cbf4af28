"""A bundle as what a session runs. Needs numpy and nothing else: no onnx, no compiler.

The first target in the file that the device can run is taken (`devices`). On the CPU, weights are used where
they lie in the mapped file, but for those that are expanded; code goes to memory of its own, which then is
executable and no longer writable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyinfer.bundle.container import Container
from tinyinfer.bundle.devices import BundleDevice, choose_device
from tinyinfer.bundle.manifest import read_json
from tinyinfer.bundle.plan_reader import read_plan
from tinyinfer.bundle.plan_section import PlanSection
from tinyinfer.bundle.weights import Weights
from tinyinfer.errors import Fail, InvalidArgument, NotImplemented
from tinyinfer.ir.node import Graph
from tinyinfer.kernels.image import TEXEL
from tinyinfer.limits import DEFAULT_LIMITS, Limits
from tinyinfer.runtime.feeds import FeedCheck, InputSpec
from tinyinfer.runtime.plan import Plan, TensorSpec
from tinyinfer.runtime.session_options import GraphOptimizationLevel, SessionOptions
from tinyinfer.runtime.signature import ModelMetadata, NodeArg, format_shape, numpy_dtype, tensor_type

if TYPE_CHECKING:
    import logging

    from tinyinfer.backends.base import Device, Executable, LaunchTime
    from tinyinfer.bundle.golden import GoldenVector
    from tinyinfer.bundle.kernel_values import KernelValues, KernelVerdict

KEY = ()
"""The only key: a bundle is compiled for one set of shapes."""


class BundleModel:
    """`runtime.session_model.SessionModel` for a bundle: a path, or its bytes.

    `trusted_keys` are Ed25519 public keys (32 bytes, or files), one of which must have signed it;
    `require_signature` accepts any valid signature. `devices` are those of `device`; `target` takes
    that target and no other, an OpenCL one also on devices that it is not made for. Raises NoSuchFile,
    InvalidBundle for what is damaged or not signed as asked, NoTarget where nothing in it runs here,
    ValueError for a device that is unknown or absent, and InvalidArgument for options that no bundle can
    follow. Damage of large sections is found by `executable`, before anything runs.
    """

    def __init__(
        self,
        path_or_bytes: Any,
        options: SessionOptions | None = None,
        trusted_keys: Sequence[Any] = (),
        require_signature: bool = False,
        limits: Limits | None = None,
        devices: Sequence[str] = (),
        target: str = "",
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
        self.wanted, self._limits = target, limits
        self._take(self.device(devices))
        plan = self.section.plan
        self.inputs = [_node_arg(spec, self._fixed.get(number)) for number, spec in enumerate(plan.inputs)]
        self.outputs = [_node_arg(spec) for spec in plan.outputs]
        self.overridable: list[NodeArg] = []
        self.specs = [
            InputSpec(spec.name, spec.dtype, spec.shape, onnx_type=tensor_type(spec.dtype))
            for spec in plan.inputs
        ]
        self.check: FeedCheck = _BundleFeedCheck(self.specs)
        self.metadata = _metadata(self.manifest)

    def device(self, names: Sequence[str]) -> BundleDevice:
        """The first of the devices named that runs a target (none: the CPU). ValueError for a device that is
        unknown or absent, NoTarget where nothing in the bundle runs on it."""
        return choose_device(self.container, names, self.wanted)

    @property
    def device_title(self) -> str:
        """The device that the target was chosen for, in words."""
        return self._device.title

    def _take(self, device: BundleDevice) -> None:
        """Read the plan of a device's target."""
        self._device = device
        entry, label = device.entry, self.container.label
        self.target, self.rejected = entry.name, device.rejected
        code = self.container.get("CODE", entry.group)
        assert code is not None  # the container checked it
        self._code = self.container.data(code)
        self.section: PlanSection = read_plan(
            self.container.data(entry), code.size, self._weights.stored, f"{label}: {entry.title}"
        )
        plan = self.section.plan
        _check_memory(label, plan, self.section, self._limits)
        plan.parameters = self._weights.load(self.section.tensors)
        for number, image in plan.parameter_images.items():
            plan.parameters[number] = plan.parameters[number].reshape(image.height, image.width, TEXEL)
        self._fixed = {
            number: plan.parameters[tensor]
            .view(numpy_dtype(plan.inputs[number].dtype))
            .reshape(plan.inputs[number].shape)
            for number, tensor in self.section.fixed.items()
        }

    def program(
        self, device: Device, options: SessionOptions, title: str, logger: logging.Logger
    ) -> BundleProgram:
        assert isinstance(device, BundleDevice)  # `device` made it
        if (device.name, device.entry) != (self._device.name, self._device.entry):
            self._take(device)
        self._device = device
        executable = self.executable(options.intra_op_num_threads)
        logger.info("%s loaded, target %s", title, self.target)
        if self._device.identity:
            from tinyinfer.bundle.first_load import verify_first_load

            verify_first_load(self, executable, self._device.identity, logger)
        return BundleProgram(executable)

    def executable(self, threads: int = 0) -> BundleExecutable:
        """The chosen target, ready to run on `threads` threads of the CPU (0: all cores)."""
        executable = self._device.load(self.container, self.section, self._code, threads)
        return BundleExecutable(executable, self._fixed)

    def built_program(self, executable: BundleExecutable) -> tuple[bytes, bytes] | None:
        """The program of an executable of this model as the driver of its OpenCL device built it, with what
        `CLBN` calls it by: digest and binary. None on processors, and where a driver keeps it to itself."""
        return self._device.built_program(executable.inner, self.section, self._code)

    def record_kernels(self, vector: GoldenVector) -> list[KernelValues]:
        """Some of what each kernel of the OpenCL device writes on a golden vector."""
        from tinyinfer.bundle.kernel_values import record_kernels

        executable = self.executable()
        try:
            plan = self.section.plan
            halves = any(image.dtype == "float16" for image in plan.images)
            return record_kernels(executable.inner, self.feeds(vector), self._text(), halves)  # type: ignore[arg-type]
        finally:
            executable.close()

    def check_kernels(
        self,
        executable: BundleExecutable,
        vector: GoldenVector,
        recorded: Sequence[KernelValues] | None = None,
    ) -> list[KernelVerdict]:
        """How far each kernel is off what was recorded of it when the bundle was made, or what is given.
        Empty on processors, and where nothing was recorded."""
        from tinyinfer.bundle.kernel_values import check_kernels, read_kernel_values
        from tinyinfer.bundle.provenance import read_provenance

        label = self.container.label
        entry, origins = self.container.get("KVAL"), self.container.get("PROV")
        if recorded is None:
            recorded = (
                read_kernel_values(self.container.data(entry), self.target, f"{label}: KVAL") if entry else ()
            )
        if not self._device.identity or not recorded:
            return []
        nodes = read_provenance(self.container.data(origins), f"{label}: PROV") if origins else []
        own = nodes[self._device.entry.group - 1] if len(nodes) >= self._device.entry.group else []
        launches = self.section.plan.launches
        names = [own[n] if n < len(own) else () for n, x in enumerate(launches) if not x.once]
        return check_kernels(executable.inner, self.feeds(vector), recorded, names)  # type: ignore[arg-type]

    def golden(self) -> list[GoldenVector]:
        """The golden vectors with the target's tolerances; none where the bundle has none."""
        from tinyinfer.bundle.golden import loosened, read_golden

        entry, plan = self.container.get("GOLD"), self.section.plan
        if entry is None:
            return []
        where = f"{self.container.label}: GOLD"
        read = read_golden(self.container.data(entry), plan.inputs, plan.outputs, where)
        return [loosened(vector, self.section.tolerances) for vector in read]

    def feeds(self, vector: GoldenVector) -> list[np.ndarray]:
        """The inputs of a golden vector."""
        specs = self.section.plan.inputs
        return [x.array(spec.shape, numpy_dtype(spec.dtype)) for x, spec in zip(vector.inputs, specs)]

    def _text(self) -> str:
        return self._code.tobytes().decode("ascii", "replace")

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

    def __init__(self, executable: Executable, fixed: Mapping[int, np.ndarray]):
        self.inner = executable
        self._fixed = {number: (value, value.tobytes()) for number, value in fixed.items()}
        self.inputs: list[TensorSpec] = executable.inputs
        self.outputs: list[TensorSpec] = executable.outputs
        self.peak_bytes: int = executable.peak_bytes
        self.names = [spec.name for spec in executable.inputs]
        if not fixed:
            # nothing stands between a caller and native code
            self.run = executable.run  # type: ignore[method-assign]

    def run(self, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
        """As `Executable.run`; InvalidArgument for a value that the bundle was not made for."""
        self._check(feeds)
        return self.inner.run(feeds)

    def profile(self, feeds: Sequence[np.ndarray], runs: int = 10) -> list[LaunchTime]:
        """As `Executable.profile`."""
        self._check(feeds)
        return self.inner.profile(feeds, runs)

    def stages(self) -> Mapping[str, str]:
        """The plan; a bundle has no other stage."""
        return self.inner.stages()

    def close(self) -> None:
        """End threads and give up memory."""
        self.inner.close()

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
