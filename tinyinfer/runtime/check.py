"""Whether a model can run, and what it takes, without compiling or running it: `tinyinfer check`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tinyinfer.config import CompileOptions
from tinyinfer.errors import InvalidArgument, InvalidGraph, NotImplemented, TinyInferError

if TYPE_CHECKING:
    from tinyinfer.frontend.onnx.custom import CustomOps
    from tinyinfer.frontend.onnx.dry_run import DryRun, DrySegment
    from tinyinfer.frontend.onnx.model import OnnxModel
    from tinyinfer.frontend.onnx.survey import Blocker
    from tinyinfer.limits import Limits

OPEN_SIZES = ((1, 1), (1, 2), (1, 8), (1, 64), (1, 512), (2, 2), (8, 8), (64, 64))
"""Sizes that open dimensions are tried with until the model can be imported: leading ones, which mostly are
batches, and others."""


@dataclass(frozen=True)
class SegmentCost:
    """One set of kernels between two points where the host acts, or the model ends.

    `action` is what follows it: "host" (the host computes the results of `node`), "decide" (values that
    `node` needs choose how to go on) or "end". `body` says that the host runs it again and again; costs are
    of one run. `peak_bytes` are arena and parameters; `kernels` counts different ones, `launches` all.
    """

    launches: int
    kernels: int
    flops: int
    peak_bytes: int
    action: str
    node: str
    body: bool


@dataclass
class CheckReport:
    """What `check_model` found.

    `blockers` keep the model from running. `possible` only matter if data wants it so (a branch that may
    never be taken), or break a rule of ONNX that nothing here depends on. Costs are those of `segments`
    together, for inputs of `shapes`, and None where the model cannot be imported.
    """

    device: str
    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, list[int] | None] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)
    """Inputs with dimensions that the model leaves open and nobody gave."""
    blockers: list[Blocker] = field(default_factory=list)
    possible: list[Blocker] = field(default_factory=list)
    nodes: int = 0
    parameters: int = 0
    weight_bytes: dict[str, int] = field(default_factory=dict)
    segments: list[SegmentCost] | None = None
    complete: bool = False
    """Whether the segments reach the model's end; data may lead elsewhere where there is more than one."""

    @property
    def runs(self) -> bool:
        """Whether nothing keeps the model from running."""
        return not self.blockers

    def _sum(self, name: str) -> int | None:
        return None if self.segments is None else sum(getattr(s, name) for s in self.segments)

    @property
    def flops(self) -> int | None:
        """Arithmetic operations in the kernels of one run, a multiply-add being two; loops at most."""
        return self._sum("flops")

    @property
    def peak_bytes(self) -> int | None:
        """Parameters and arenas of all segments: what is held besides inputs and outputs."""
        return self._sum("peak_bytes")

    @property
    def launches(self) -> int | None:
        """Kernels launched in one run."""
        return self._sum("launches")

    @property
    def kernels(self) -> int | None:
        """Different kernels to compile, counted in each segment."""
        return self._sum("kernels")

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        result = asdict(self)
        for name in ("runs", "flops", "peak_bytes", "launches", "kernels"):
            result[name] = getattr(self, name)
        return result


def check_model(
    path_or_bytes: Any,
    shapes: Mapping[str, Sequence[int]] | None = None,
    device: str | None = None,
    custom_ops: Sequence[CustomOps] = (),
    options: CompileOptions | None = None,
    limits: Limits | None = None,
) -> CheckReport:
    """Look for everything that keeps a model from running, and predict what it takes.

    `path_or_bytes` is what InferenceSession takes. Open dimensions are those of `shapes`, else 1 (other sizes
    are tried where 1 cannot be). `limits` are those of InferenceSession.

    Raises NoSuchFile, InvalidProtobuf or NoModel for what is no model, InvalidArgument for shapes that no
    input has, ValueError for a device that cannot be used; whatever is wrong with the model itself is in the
    report.
    """
    from tinyinfer.backends.registry import find_device, get_device
    from tinyinfer.frontend.onnx import load_model
    from tinyinfer.frontend.onnx.contents import count_operators, count_weights
    from tinyinfer.frontend.onnx.survey import Blocker, survey
    from tinyinfer.limits import Limits

    chosen = find_device(device if device is not None else get_device())
    report = CheckReport(chosen.name)
    try:
        model = load_model(path_or_bytes, limits if limits is not None else Limits(), custom_ops)
    except (InvalidGraph, NotImplemented) as error:
        report.blockers.append(Blocker("model", str(error)))
        return report
    report.ir_version, report.opsets = model.ir_version, dict(model.opsets)
    weights = count_weights(model)
    report.nodes = count_operators(model).total()
    report.parameters, report.weight_bytes = weights.parameters, weights.bytes_by_dtype
    found = survey(model)
    report.blockers = [b for b in found if b.certain]
    report.possible = [b for b in found if not b.certain]
    shapes = dict(shapes or {})
    _check_names(model, shapes)
    with model.limits.spending():
        dry = _import(model, shapes, report)
    if dry is not None:
        _sort_out(report, dry)
        if report.runs:
            _add_costs(report, dry, chosen, options or CompileOptions(), model.limits)
    return report


def _check_names(model: OnnxModel, shapes: Mapping[str, Sequence[int]]) -> None:
    from tinyinfer.frontend.onnx.whole import checked_shape

    specs = {v.name: v for v in (*model.inputs, *model.overridable)}
    for name, shape in shapes.items():
        if name not in specs:
            raise InvalidArgument(f"no input is called {name!r}; the model's inputs: {list(specs)}")
        checked_shape(specs[name], shape, model.limits)


def _import(model: OnnxModel, shapes: Mapping[str, Sequence[int]], report: CheckReport) -> DryRun | None:
    """The dry run at the first sizes of open dimensions that work, or else at the first ones."""
    from tinyinfer.frontend.onnx.dry_run import dry_run, zero_signatures
    from tinyinfer.frontend.onnx.whole import supported_input

    if not all(map(supported_input, model.inputs)):
        return None
    chosen, signatures, best = None, None, (False, False)
    for leading, other in OPEN_SIZES:
        described = zero_signatures(model, shapes, leading, other)
        if described == signatures:
            continue
        dry = dry_run(model, described)
        found = (not any(b.certain for b in dry.blockers), dry.complete)
        if chosen is None or found > best:
            chosen, signatures, best = dry, described, found
        if all(found) or report.blockers:
            break
    report.shapes = {name: _shape_of(described) for name, described in (signatures or {}).items()}
    report.assumed = [
        v.name
        for v in model.inputs
        if v.name not in shapes and (v.shape is None or not all(isinstance(d, int) for d in v.shape))
    ]
    return chosen


def _shape_of(described: Any) -> list[int] | None:
    if not isinstance(described, tuple):
        return None
    if described[0] == "list":
        return _shape_of(described[1][0]) if described[1] else None
    return list(described[1])


def _sort_out(report: CheckReport, dry: DryRun) -> None:
    """The errors of the import among the blockers, each node once, the surest first."""
    known = {b.node for b in report.blockers if b.kind == "operator"}
    fresh = [b for b in dry.blockers if b.node not in known or not b.node]
    report.blockers += [b for b in fresh if b.certain]
    report.possible += [b for b in fresh if not b.certain]
    failing = {b.node for b in report.blockers}
    sure = [b for b in report.possible if b.kind == "attribute" and b.node in failing]
    report.possible = [b for b in report.possible if b not in sure]
    if report.blockers:
        said = {b.message for b in report.blockers}
        report.blockers += [b for b in sure if b.message not in said]


def _add_costs(
    report: CheckReport, dry: DryRun, device: Any, options: CompileOptions, limits: Limits
) -> None:
    from tinyinfer.frontend.onnx.survey import Blocker

    segments = []
    for number, segment in enumerate(dry.segments):
        try:
            with limits.spending():
                segments.append(_cost(segment, device, options))
        except (Exception, RecursionError) as error:
            expected = isinstance(error, (TinyInferError, MemoryError))
            message = str(error) if expected else f"planning failed: {type(error).__name__}: {error}"
            blocker = Blocker("import", message, certain=not number)
            (report.possible if number else report.blockers).append(blocker)
    report.segments, report.complete = segments, dry.complete


def _cost(segment: DrySegment, device: Any, options: CompileOptions) -> SegmentCost:
    facts = (segment.action, segment.node, segment.body)
    if segment.graph is None:
        return SegmentCost(0, 0, 0, 0, *facts)
    if not hasattr(device, "plan"):
        executable = device.compile(segment.graph, options, 1)
        peak = executable.peak_bytes
        executable.close()
        return SegmentCost(0, 0, 0, peak, *facts)
    from tinyinfer.runtime.plan import kernel_sources

    plan = device.plan(segment.graph, options)
    flops = sum(launch.flops for launch in plan.launches)
    return SegmentCost(len(plan.launches), len(kernel_sources(plan.launches)), flops, plan.peak_bytes, *facts)
