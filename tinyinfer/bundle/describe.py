"""What is in a bundle, as plain data: sizes by section and by launch, targets, signature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tinyinfer.backends.cpu.features import feature_names
from tinyinfer.backends.cpu.machine import choose
from tinyinfer.bundle.container import Container, Entry
from tinyinfer.bundle.devices import describe_targets
from tinyinfer.bundle.manifest import read_json
from tinyinfer.bundle.plan_reader import read_machine, read_plan
from tinyinfer.bundle.plan_section import PlanSection, launches_in_order
from tinyinfer.bundle.provenance import Origins, read_provenance
from tinyinfer.bundle.weights import StoredTensor, Weights


def describe_bundle(container: Container, target: str | None = None) -> dict[str, Any]:
    """Everything about a bundle that can be told without running it. Launches are those of `target`, else of
    the one that would run here, else of the first. InvalidBundle for a plan that is damaged, LookupError for
    a target that it does not hold."""
    weights = Weights(container)
    plans = container.all("PLAN")
    chosen, _ = choose(describe_targets(container))
    if target is not None:
        names = [entry.name for entry in plans]
        if target not in names:
            raise LookupError(f"{container.label} holds no target {target!r}, only {', '.join(names)}")
        shown = names.index(target)
    else:
        shown = chosen or 0
    manifest = next(entry for entry in container.entries if entry.kind == "MANI")
    return {
        "file": container.label,
        "size": container.size,
        "version": f"1.{container.minor}",
        "signed_by": container.signed_by.hex() if container.signed_by is not None else None,
        "sections": [
            {"kind": e.kind, "target": e.name or None, "offset": e.offset, "size": e.size, "held": e.held}
            for e in container.entries
        ],
        "targets": [_target(container, number, number == chosen) for number in range(len(plans))],
        "shown_target": plans[shown].name if plans else None,
        "launches": list(_launches(container, plans[shown], weights.stored)) if plans else [],
        "manifest": read_json(f"{container.label}: MANI", container.data(manifest)),
    }


def _target(container: Container, number: int, chosen: bool) -> dict[str, Any]:
    entry = container.all("PLAN")[number]
    needs = describe_targets(container)[number]
    machine = read_machine(container.data(entry), f"{container.label}: {entry.title}")
    _, reasons = choose([needs])
    code = container.get("CODE", entry.group)
    return {
        "name": entry.name,
        "architecture": machine.architecture,
        "pointer_bytes": machine.pointer_bytes,
        "features": feature_names(machine.architecture, machine.features),
        "code_bytes": code.size if code is not None else 0,
        "runs_here": not reasons,
        "chosen": chosen,
        "reason": reasons[0].removeprefix(f"{needs.name}: ") if reasons else "",
    }


def _launches(container: Container, entry: Entry, stored: Sequence[StoredTensor]) -> Iterator[dict[str, Any]]:
    """Every launch of a target, those of loops after those around them: its kernel, its ONNX nodes, the bytes
    of its weights as stored (each tensor where it is first used) and of its code (likewise)."""
    code = container.get("CODE", entry.group)
    size = code.size if code is not None else 0
    section = read_plan(container.data(entry), size, stored, f"{container.label}: {entry.title}")
    origins = _origins(container, entry.group)
    extents = _code_extents(section, size)
    counted: set[int] = set()
    placed: set[str] = set()
    for number, launch in enumerate(launches_in_order(section.plan.launches)):
        fresh = {
            section.tensors[ref.number].stored for ref in launch.arguments if ref.space == "parameter"
        } - counted
        counted |= fresh
        new_code = launch.kernel.key not in placed
        placed.add(launch.kernel.key)
        yield {
            "title": launch.title,
            "nodes": list(origins[number]) if number < len(origins) else [],
            "kernel": launch.kernel.name,
            "chunks": launch.chunks,
            "weight_bytes": sum(stored[tensor].nbytes for tensor in fresh),
            "code_bytes": extents.get(launch.kernel.key, 0) if new_code else 0,
        }


def _code_extents(section: PlanSection, size: int) -> dict[str, int]:
    """The bytes from each kernel's start to the next one's, by its key."""
    starts = sorted({*section.offsets.values(), size})
    following = dict(zip(starts, starts[1:]))
    return {key: following.get(offset, offset) - offset for key, offset in section.offsets.items()}


def _origins(container: Container, group: int) -> Origins:
    """The ONNX nodes of each launch of a target; none where the bundle does not tell."""
    entry = container.get("PROV")
    if entry is None:
        return []
    targets = read_provenance(container.data(entry), f"{container.label}: PROV")
    return targets[group - 1] if group <= len(targets) else []
