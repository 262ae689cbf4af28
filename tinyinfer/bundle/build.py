"""Making bundles: a model, for one or more targets, at one set of input shapes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from tinyinfer.backends.cpu.device import CpuDevice
from tinyinfer.backends.cpu.machine import choose
from tinyinfer.backends.cpu.target import CpuTarget
from tinyinfer.backends.opencl.target import OpenclTarget
from tinyinfer.backends.qcom.islands import IslandFinder
from tinyinfer.backends.qcom.options import AUTO
from tinyinfer.backends.qcom.target import QcomTarget
from tinyinfer.backends.registry import unavailable_reason
from tinyinfer.bundle.code import Tell, island_finder, machine_code, opencl_code
from tinyinfer.bundle.container import Section, Signer, save_bundle, write_bundle
from tinyinfer.bundle.devices import NoTarget
from tinyinfer.bundle.golden import write_golden
from tinyinfer.bundle.kernel_values import write_kernel_values
from tinyinfer.bundle.load import BundleModel
from tinyinfer.bundle.manifest import TargetReport, canonical_json, make_manifest
from tinyinfer.bundle.plan_section import PlanSection, write_plan
from tinyinfer.bundle.programs import write_programs
from tinyinfer.bundle.provenance import write_provenance
from tinyinfer.bundle.recognise import is_bundle
from tinyinfer.bundle.source import Source, read_source
from tinyinfer.bundle.targets import Target
from tinyinfer.bundle.tuned import TuneOptions, find_tunings, write_tunings
from tinyinfer.bundle.vectors import OutputError, Runner, make_vectors
from tinyinfer.bundle.weights import WeightStore
from tinyinfer.config import CompileOptions
from tinyinfer.errors import Fail, InvalidArgument
from tinyinfer.kernels.tuning import Tuning
from tinyinfer.runtime.plan import Plan, TensorSpec
from tinyinfer.runtime.signature import numpy_dtype


@dataclass(frozen=True)
class BuildOptions:
    """How a bundle is made.

    `shapes` and `values` are those of `source.read_source`; `inputs` those of the first golden vector.
    `max_bytes` is what one run of any target may take: weights in memory, arena, inputs and outputs.
    `expanded_weights` stores them as they lie in memory. `threads` compile (0: all cores). `tune` says where
    schedules come from that are not the heuristic ones.
    """

    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    golden: bool = True
    expanded_weights: bool = False
    max_bytes: int | None = None
    signer: Signer | None = None
    threads: int = 0
    tune: TuneOptions = TuneOptions()
    compile_options: CompileOptions = CompileOptions()
    precision: str = AUTO
    """Of targets that store halves: "auto" makes what halves are too coarse for float32, "fp16" does not."""

    def check_memory(self, what: str, plan: Plan) -> None:
        """Fail where a run of `plan` takes more than `max_bytes`."""
        total = plan.peak_bytes + sum(map(_bytes, (*plan.inputs, *plan.outputs)))
        if self.max_bytes is not None and total > self.max_bytes:
            raise Fail(
                f"{what} takes {total} bytes in a run (weights, arena, inputs and outputs), over the limit of"
                f" {self.max_bytes}"
            )

    def described(self, tunings: Mapping[str, Tuning]) -> dict[str, Any]:
        """What of it decides the bundle's content, for the manifest; what was measured is in `TUNE`."""
        return {
            "fuse": self.compile_options.fuse,
            "deterministic": self.compile_options.deterministic,
            "stored_weights": "expanded" if self.expanded_weights else "compact",
            "tuned": sorted(tunings),
            "precision": self.precision,
        }


@dataclass
class BuildReport:
    """What was built: bytes of the file and of its sections, targets, how they do on the golden vectors, and
    what was chosen, in `notes`."""

    size: int
    sections: dict[str, int]
    targets: list[TargetReport]
    errors: list[OutputError]
    in_halves: dict[str, list[OutputError]]
    """Those of targets that store halves, by their names."""
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        targets = [
            {
                **asdict(replace(t, check=None, islands=None)),
                "check": t.check.as_dict() if t.check is not None else None,
                "islands": t.islands.as_dict() if t.islands is not None else None,
            }
            for t in self.targets
        ]
        return {**asdict(replace(self, targets=[])), "targets": targets}


@dataclass
class _Built:
    target: Target
    code: bytes
    section: PlanSection
    report: TargetReport
    programs: dict[bytes, bytes] = field(default_factory=dict)
    """What the driver of the device that the target is made for built of its source, where that is here."""

    @property
    def plan(self) -> Plan:
        return self.section.plan

    def sections(self, group: int) -> list[Section]:
        """Those of the target alone."""
        name = self.target.name
        programs = [Section("CLBN", write_programs(self.programs), group)] if self.programs else []
        return [
            Section("PLAN", write_plan(self.section), group, name),
            Section("CODE", self.code, group, name),
            *programs,
        ]


def build_bundle(
    model: Any,
    targets: Sequence[Target],
    path: str | os.PathLike[str],
    options: BuildOptions = BuildOptions(),
    tell: Tell = lambda line: None,
) -> BuildReport:
    """Compile an ONNX model (path, bytes or ModelProto) and write the bundle, whole or not at all.

    The same model, targets and options give the same bytes on a machine, where nothing is measured. What this
    machine can run of it is compared with the oracle before it is written; kernels for Adreno GPUs also where
    there is another OpenCL device, and they go through their GPU's compiler where that is there. Raises what
    `load_model` and `read_source` raise, Fail where compiled code is wrong or `max_bytes` is not enough,
    EPFail for a kernel that its GPU's compiler refuses, OSError for a file that cannot be written.
    """
    from tinyinfer.frontend.onnx import load_model

    if is_bundle(model):
        name = os.fspath(model) if isinstance(model, (str, os.PathLike)) else "the model"
        raise InvalidArgument(f"{name} is a bundle already: bundles are compiled from ONNX models")
    if not targets:
        raise InvalidArgument("a bundle needs at least one target")
    tell("reading the model")
    source = read_source(load_model(model), options.shapes, options.values)
    _check_inputs(source, options)
    store = WeightStore("expanded" if options.expanded_weights else "compact")
    tunings, notes = find_tunings(source.graph, targets, options.tune, options.compile_options, tell)
    finder = island_finder(source, options)
    built = [
        _build_target(source, target, store, options, tunings.get(target.name, Tuning()), tell, finder)
        for target in targets
    ]
    manifest = make_manifest(source, [(b.target, b.report) for b in built], options.described(tunings))
    sections = [
        Section("MANI", canonical_json(manifest)),
        Section("WIDX", store.index()),
        Section("WGHT", store.content()),
        Section("PROV", write_provenance([b.plan for b in built])),
        Section("TUNE", write_tunings({b.target.name: b.plan for b in built}, tunings)),
    ]
    errors: list[OutputError] = []
    in_halves: dict[str, list[OutputError]] = {}
    if options.golden:
        tell("computing golden vectors")
        models: dict[str, BundleModel] = {}
        golden = make_vectors(source, options.inputs, *_runners(sections, source, built, options, models))
        errors, in_halves = golden.errors, golden.in_halves
        sections.append(Section("GOLD", write_golden(golden.vectors)))
        for item in built:
            found = in_halves.get(item.target.name, ())
            item.section.tolerances = {number: error.allowed for number, error in enumerate(found)}
        recorded = {name: model.record_kernels(golden.vectors[0]) for name, model in models.items()}
        if recorded:
            sections.append(Section("KVAL", write_kernel_values(recorded)))
    for group, item in enumerate(built, 1):
        sections += item.sections(group)
    minor = 0 if all(isinstance(target, CpuTarget) for target in targets) else 1
    size = save_bundle(path, sections, options.signer, minor)
    sizes: Counter[str] = Counter()
    for section in sections:
        parts = section.data if isinstance(section.data, list) else [section.data]
        sizes[section.kind] += sum(map(len, parts))
    notes = [*(note for note in (source.describe_assumed(),) if note), *notes]
    return BuildReport(size, dict(sizes), [b.report for b in built], errors, in_halves, notes)


def _check_inputs(source: Source, options: BuildOptions) -> None:
    """Given golden inputs must be what the graph takes."""
    for name, array in options.inputs.items():
        node = source.graph.inputs.get(name)
        if node is None:
            known = ", ".join(map(repr, source.graph.inputs)) or "none"
            raise InvalidArgument(f"no input is called {name!r}; the model's inputs: {known}")
        if array.shape != node.shape or array.dtype.name != node.dtype:
            raise InvalidArgument(
                f"golden input {name!r} is {array.dtype.name}{list(array.shape)}; the bundle takes"
                f" {node.dtype}{list(node.shape)}"
            )
        if name in source.values and not np.array_equal(array, source.values[name]):
            raise InvalidArgument(f"golden input {name!r} is not the value that the bundle is made for")


def _build_target(
    source: Source,
    target: Target,
    store: WeightStore,
    options: BuildOptions,
    tuning: Tuning,
    tell: Tell,
    finder: IslandFinder,
) -> _Built:
    """Plan, code and the report of one target; its weights go into `store`."""
    tell(f"{target.name}: planning")
    with source.model.limits.spending():
        if isinstance(target, OpenclTarget):
            made = opencl_code(source, target, options, tuning, tell, finder)
        else:
            made = machine_code(source, target, options, tuning, tell)
    plan = made.plan
    tensors = [store.add(parameter) for parameter in plan.parameters]
    fixed = {}
    for number, name in enumerate(source.graph.inputs):
        if name in source.values:
            fixed[number] = len(tensors)
            tensors.append(store.add(source.values[name]))
    section = PlanSection(
        target.architecture,
        target.pointer_bytes,
        made.needs.features,
        plan,
        tensors,
        made.entries,
        fixed,
        made.program,
    )
    report = TargetReport(
        target.name,
        plan.peak_bytes,
        plan.arena_bytes,
        plan.peak_bytes - plan.arena_bytes,
        len(made.code),
        sum(not launch.once for launch in plan.launches),
        made.needs.features,
        "CPU" if options.golden and choose([made.needs])[0] is not None else "",
        made.check,
        getattr(target, "storage", ""),
        made.islands,
    )
    return _Built(target, made.code, section, report)


def _bytes(spec: TensorSpec) -> int:
    return int(np.prod(spec.shape, dtype=np.int64)) * numpy_dtype(spec.dtype).itemsize


def _runners(
    sections: Sequence[Section],
    source: Source,
    built: Sequence[_Built],
    options: BuildOptions,
    models: dict[str, BundleModel],
) -> tuple[dict[str, Runner], dict[str, Runner | None]]:
    """The targets that this machine can run, each from the bytes that are to be written; where there is none
    for its processor, the code of a session here. Apart from them those that store halves, all of them. What
    runs on an OpenCL device is added to `models`."""
    runners: dict[str, Runner] = {}
    in_halves: dict[str, Runner | None] = {}
    for group, item in enumerate(built, 1):
        alone = write_bundle([*sections, *item.sections(group)])
        name = item.target.name
        if isinstance(item.target, OpenclTarget):
            model = _on_opencl(alone, item.target)
            item.report.replayed_on = model.device_title if model is not None else ""
            run = None
            if model is not None:
                models[name] = model
                executable = model.executable()
                run = executable.run
                made_for = item.target.device and model.wanted == ""
                program = model.built_program(executable) if made_for else None
                item.programs = dict([program]) if program is not None else {}
            if isinstance(item.target, QcomTarget) and item.target.storage == "float16":
                in_halves[name] = run
            elif run is not None:
                runners[name] = run
        elif item.report.replayed_on:
            runners[name] = BundleModel(alone).executable(options.threads).run
    if not any(isinstance(item.target, CpuTarget) and item.report.replayed_on for item in built):
        here = CpuDevice().compile(source.graph, options.compile_options, options.threads)
        runners["this machine"] = here.run
    return runners, in_halves


def _on_opencl(alone: bytes, target: OpenclTarget) -> BundleModel | None:
    """The bundle's only target on a device here: one that it is made for, and what is made for an Adreno GPU
    else on any that can run it. None where there is none."""
    named = f"OPENCL:{target.device}" if target.device else "OPENCL"
    choices = [("QCOM", ""), ("OPENCL", target.name)] if isinstance(target, QcomTarget) else [(named, "")]
    for device, name in choices:
        if unavailable_reason(device) is None:
            with suppress(NoTarget):
                return BundleModel(alone, devices=[device], target=name)
    return None
