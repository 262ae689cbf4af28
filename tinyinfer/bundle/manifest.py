"""`MANI`: what a bundle says of itself, as canonical JSON, and reading it back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyinfer.errors import InvalidBundle

if TYPE_CHECKING:
    from tinyinfer.backends.qcom.islands import Islands
    from tinyinfer.bundle.kernel_check import TargetCheck
    from tinyinfer.bundle.source import Source
    from tinyinfer.bundle.targets import Target

NUMERICS = (
    "Outputs agree with the model as evaluated with sums in float64, within the tolerances of the golden"
    " vectors. A target computes the same bits on every machine that it runs on, with any number of threads."
)

OPENCL_NUMERICS = (
    " Of OpenCL targets, this holds on one device and driver: division, roots, exp, tanh and others are the"
    " driver's, within OpenCL's limits."
)


HALVES_NUMERICS = (
    " Targets for Adreno GPUs store values in halves between kernels, and have tolerances of their own."
)


@dataclass
class TargetReport:
    """A target of a bundle; sizes in bytes. `peak_bytes` are weights in memory and arena."""

    name: str
    peak_bytes: int
    arena_bytes: int
    weight_bytes: int
    code_bytes: int
    launches: int
    """Of a run; what is launched once, when the bundle is loaded, is not among them."""
    features: int
    replayed_on: str
    """The device of the machine that built it on which it was compared with the oracle; "" for none."""
    check: TargetCheck | None = None
    """What the compiler of its GPU says, for targets that have one."""
    storage: str = ""
    """What its images hold: "float16" or "float32"; "" for targets that have none."""
    islands: Islands | None = None
    """What is float32 among halves, where that was looked for."""


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no white space: equal values are equal bytes."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def read_json(label: str, data: np.ndarray) -> dict[str, Any]:
    """The object in a section's bytes. InvalidBundle where there is none."""
    try:
        found = json.loads(data.tobytes())
    except (ValueError, RecursionError) as error:
        raise InvalidBundle(f"{label}: no JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidBundle(f"{label}: not a JSON object")
    return found


def make_manifest(
    source: Source,
    targets: Sequence[tuple[Target, TargetReport]],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The manifest of a bundle with these targets, in order of their groups."""
    import llvmlite.binding as llvm

    from tinyinfer import __version__

    return {
        "compiler": {
            "name": "tinyinfer",
            "version": __version__,
            "llvm": ".".join(map(str, llvm.llvm_version_info[:2])),
        },
        "model": _model(source),
        "inputs": _inputs(source),
        "outputs": [
            {"name": name, "dtype": node.dtype, "shape": list(node.shape)}
            for name, node in source.graph.outputs.items()
        ],
        "targets": [_target(n, *pair) for n, pair in enumerate(targets, 1)],
        "options": dict(options),
        "numerics": _numerics([target for target, _ in targets]),
    }


def _numerics(targets: Sequence[Target]) -> str:
    """What is promised of the results."""
    opencl = any(target.architecture == "opencl" for target in targets)
    halves = any(getattr(target, "storage", "") == "float16" for target in targets)
    return NUMERICS + (OPENCL_NUMERICS if opencl else "") + (HALVES_NUMERICS if halves else "")


def _model(source: Source) -> dict[str, Any]:
    from tinyinfer.bundle.source import model_digest

    model = source.model
    return {
        "name": model.graph_name,
        "sha256": model_digest(model),
        "opsets": {"" if domain == "ai.onnx" else domain: v for domain, v in model.opsets.items()},
        "producer": model.producer_name,
        "producer_version": model.producer_version,
        "license": _license(model.custom_metadata),
        "domain": model.domain,
        "version": model.version,
        "description": model.description,
        "graph_description": model.graph_description,
        "metadata": dict(model.custom_metadata),
    }


def _inputs(source: Source) -> list[dict[str, Any]]:
    declared = {spec.name: spec.shape for spec in source.model.inputs}
    entries = []
    for name, node in source.graph.inputs.items():
        shape = declared[name]
        entry: dict[str, Any] = {
            "name": name,
            "dtype": node.dtype,
            "shape": list(node.shape),
            "declared_shape": None if shape is None else list(shape),
        }
        if name in source.values:
            entry["value"] = source.values[name].tolist()
        entries.append(entry)
    return entries


def _target(group: int, target: Target, report: TargetReport) -> dict[str, Any]:
    from tinyinfer.backends.cpu.features import feature_names

    checked = {"check": report.check.summary} if report.check is not None and report.check.made else {}
    stored: dict[str, Any] = {"storage": report.storage} if report.storage else {}
    if report.islands is not None:
        stored["islands"] = report.islands.as_dict()
    return {
        "name": target.name,
        "group": group,
        "triple": target.triple,
        "cpu": getattr(target, "tune", "") or target.cpu,
        "features": feature_names(target.architecture, report.features),
        "peak_bytes": report.peak_bytes,
        "arena_bytes": report.arena_bytes,
        "weight_bytes": report.weight_bytes,
        "launches": report.launches,
        **checked,
        **stored,
    }


def _license(metadata: Mapping[str, str]) -> str:
    """What the model's metadata says of its licence; "" where it says nothing."""
    for key, value in sorted(metadata.items()):
        if key.lower() in ("license", "licence", "spdx-license-identifier"):
            return value
    return ""
