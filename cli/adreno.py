"""What `tinyinfer compile` and `inspect` print of targets for Adreno GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cli.report import table

if TYPE_CHECKING:
    from tinyinfer.backends.qcom.compile_check import KernelReport
    from tinyinfer.bundle.build import BuildReport
    from tinyinfer.bundle.kernel_check import TargetCheck

SHOWN = 3
"""Names of values in float32 that are listed without -v."""

TITLE = 60
"""Characters of a kernel's ONNX names that a table shows."""


def check_lines(checks: Mapping[str, TargetCheck], verbose: bool) -> list[str]:
    """What the compiler said of targets' kernels, by the targets' names: a line for each, and with `verbose`
    a table of its kernels. Targets that were not checked share a line that says why."""
    lines: list[str] = []
    missing: dict[str, list[str]] = {}
    for name, check in checks.items():
        if check.made:
            lines += [_table(list(check.kernels))] if verbose else []
            lines.append(f"  {name}: {summary_text(check.summary)}")
        else:
            missing.setdefault(check.reason, []).append(name)
    lines += [f"  {', '.join(names)}: this check was not made: {reason}" for reason, names in missing.items()]
    return lines


def summary_text(said: Mapping[str, Any]) -> str:
    """The summary of a check (`TargetCheck.summary`) in a line."""
    from tinyinfer.backends.qcom.compile_check import ENOUGH_WAVES

    contractions, good = said["contractions"], said["contractions_with_enough_waves"]
    share = f" ({good / contractions:.0%})" if contractions else ""
    return (
        f"{said['kernels']} kernels compile for {said['gpu']} ({said['compiler']}), {said['spilling']} spill;"
        f" {good} of {contractions} contractions{share} have {ENOUGH_WAVES} waves or more;"
        f" {said['instructions']} instructions; at worst {said['registers']} registers, {said['waves']} waves"
    )


def islands_text(said: Mapping[str, Any], verbose: bool) -> str:
    """What of a target is float32 among halves (`Islands.as_dict`), in a line; all names with `verbose`."""
    names, before = said["float32"], said["error_in_halves"]
    counted = f"{len(names)} of {said['stored_in_images']} values and weights in float32, others in halves"
    seen = "not finite" if before is None else f"{before:.2%}"
    if not names:
        return f"all {said['stored_in_images']} values and weights in halves; outputs change by {seen}"
    shown = names if verbose else names[:SHOWN]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return f"{counted}; outputs change by {said['error']:.2%} instead of {seen}: {', '.join(shown)}{more}"


def halves_lines(report: BuildReport) -> list[str]:
    """How far off targets that store halves are, and on which device that was seen."""
    devices = {target.name: target.replayed_on for target in report.targets}
    lines = []
    for name, errors in report.in_halves.items():
        worst = max(errors, key=lambda error: error.allowed / error.scale)
        allowed = f"{worst.allowed / worst.scale:.1%} of its range allowed"
        if devices[name]:
            lines.append(
                f"  {name}, on {devices[name]}: {worst.name} differs by {worst.relative:.2%}, {allowed}"
            )
        else:
            lines.append(f"  {name}: not run, no device here can; {worst.name}: {allowed}")
    return lines


def _table(reports: list[KernelReport]) -> str:
    rows = []
    for r in reports:
        statistics = r.compiled.statistics
        waves = f"{statistics.waves}{' double' if statistics.double_wave else ''}"
        title = r.title if len(r.title) <= TITLE else f"…{r.title[1 - TITLE :]}"
        spills = "yes" if r.spills else "no"
        rows.append(
            (title, str(r.launches), str(r.work_items), str(statistics.instructions), str(r.registers))
            + (waves, spills, r.name)
        )
    return table(
        rows,
        ("computes", "launches", "items", "instructions", "registers", "waves", "spills", "kernel"),
        right=(1, 2, 3, 4),
    )
