"""`TUNE`: the schedules of a bundle's kernels, found where it was made or taken from another bundle.

Those for processors are measured, those for Adreno GPUs ranked by what their compiler says.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tinyinfer.backends.cpu import measure
from tinyinfer.backends.cpu.target import CpuTarget
from tinyinfer.backends.qcom import tune as ranking
from tinyinfer.backends.qcom.target import QcomTarget
from tinyinfer.bundle.container import Container
from tinyinfer.bundle.manifest import canonical_json, read_json
from tinyinfer.bundle.recognise import is_bundle
from tinyinfer.bundle.targets import Target
from tinyinfer.config import CompileOptions
from tinyinfer.errors import InvalidArgument
from tinyinfer.ir.node import Graph
from tinyinfer.kernels.tuning import Tuning
from tinyinfer.runtime.plan import Plan, kernel_sources


@dataclass(frozen=True)
class TuneOptions:
    """`seconds` is how long schedules are looked for, for all targets together, about (None: not at all);
    `known` has tunings by the target's name, whose kernels are left as they are."""

    seconds: float | None = None
    known: Mapping[str, Tuning] | None = None


def find_tunings(
    graph: Graph,
    targets: Sequence[Target],
    options: TuneOptions,
    compile_options: CompileOptions,
    tell: Callable[[str], None],
) -> tuple[dict[str, Tuning], list[str]]:
    """Tunings by the target's name for a graph before any pass, and notes on what was found and what could
    not be."""
    tunings: dict[str, Tuning] = {}
    notes: list[str] = []
    end = time.monotonic() + (options.seconds or 0)
    for number, target in enumerate(targets):
        known = (options.known or {}).get(target.name, Tuning())
        given = replace(compile_options, tuning=known)
        tuner = _tuner(target)
        if tuner is None:
            if options.seconds is not None:
                notes.append(f"{target.name}: kernels for OpenCL devices are not measured")
            continue
        reason = tuner.cannot_tune(target) if options.seconds is not None else None
        if options.seconds is None or reason is not None:
            tunings[target.name] = tuner.applicable(graph, target, given)
            if reason is not None:
                notes.append(f"{target.name}: kernels cannot be tuned here: {reason}")
            continue
        # what one target leaves of its share is for those after it
        seconds = max(0.0, end - time.monotonic()) / (len(targets) - number)

        def progress(done: int, total: int, name: str = target.name) -> None:
            tell(f"{name}: tuning kernel {done + 1} of {total}")

        tunings[target.name], left = tuner.tune(graph, target, given, seconds, progress)
        count = len(tunings[target.name].entries)
        notes.append(
            f"{target.name}: {count} kernel{'' if count == 1 else 's'} with {tuner.FOUND} schedules"
            + (f", no time for {left} more" if left else "")
        )
    return {name: tuning for name, tuning in tunings.items() if tuning}, notes


def _tuner(target: Target) -> Any:
    """What finds schedules for a target; None where nothing does."""
    if isinstance(target, CpuTarget):
        return measure
    return ranking if isinstance(target, QcomTarget) else None


def write_tunings(plans: Mapping[str, Plan], tunings: Mapping[str, Tuning]) -> bytes:
    """The section: how many kernels of each target have which schedule (a kernel's name spells its own), and
    what was found."""
    kernels = {
        name: Counter(s.name.rpartition("_")[0] for s in kernel_sources(plan.launches).values())
        for name, plan in plans.items()
    }
    tuned = {name: tuning.as_json() for name, tuning in tunings.items()}
    return canonical_json({"kernels": kernels, "tuned": tuned})


def read_tunings(path: str | os.PathLike[str]) -> dict[str, Tuning]:
    """What was found for the bundle at `path`, by the target's name. Raises InvalidArgument for a file that
    is no bundle, or for a bundle without tuned schedules, and what `Container.open` raises."""
    if os.path.exists(path) and not is_bundle(path):
        raise InvalidArgument(f"{os.fspath(path)} is no bundle")
    container = Container.open(path)
    found: dict[str, Tuning] = {}
    for entry in container.all("TUNE"):
        data: Any = read_json(f"{container.label}: TUNE", container.data(entry)).get("tuned")
        if isinstance(data, dict):
            found |= {name: Tuning.from_json(value) for name, value in data.items()}
    found = {name: tuning for name, tuning in found.items() if tuning}
    if not found:
        raise InvalidArgument(f"{container.label} has no tuned schedules: it was compiled without --tune")
    return found
