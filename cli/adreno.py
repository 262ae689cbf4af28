"""`tinyinfer compile --device qcom:GPU`: OpenCL C for an Adreno GPU, and what its compiler makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.report import bytes_text, table

if TYPE_CHECKING:
    from pathlib import Path

    from cli.emitters import Request
    from tinyinfer.backends.qcom.compile_check import KernelReport

TITLE = 60
"""Characters of a kernel's ONNX names that a table shows."""


def emit_adreno(request: Request, device: str, place: Path) -> None:
    """The program of a model's kernels for the GPU, and a line for each kernel from the ir3 compiler.

    EPFail where a kernel does not compile; where there is no compiler, the output says so.
    """
    from tinyinfer.backends.opencl.target import program_source
    from tinyinfer.backends.qcom.compile_check import compile_check
    from tinyinfer.backends.qcom.device import QcomDevice
    from tinyinfer.backends.qcom.ir3 import find_compiler
    from tinyinfer.bundle.source import read_source
    from tinyinfer.frontend.onnx import load_model

    options = request.options
    qcom = QcomDevice(device.partition(":")[2])
    request.tell("reading the model")
    source = read_source(load_model(request.model), options.shapes, options.values)
    with source.model.limits.spending():
        plan = qcom.plan(source.graph, options.compile_options)
        options.check_memory(qcom.gpu.device, plan)
        program = program_source(plan, qcom.target)
    compiler, reason = find_compiler(qcom.gpu)
    reports: list[KernelReport] = []
    if compiler is not None:
        compiler.close()
        request.tell(f"compiling for {qcom.gpu.name}")
        reports = compile_check(plan, qcom.gpu)
    place.write_bytes(program.text)
    request.tell("")
    launches = sum(not x.once for x in plan.launches)
    facts = {
        "file": str(place),
        "gpu": qcom.gpu.name,
        "launches": launches,
        "images": len(plan.images),
        "peak_bytes": plan.peak_bytes,
        "checked": compiler is not None,
        "reason": reason or None,
        "kernels": [_facts(r) for r in reports],
    }
    heading = (
        f"{place}: OpenCL C for {qcom.gpu.name}, {bytes_text(len(program.text))}; {launches} launches, "
        f"{bytes_text(plan.peak_bytes)} at peak"
    )
    request.print(facts, [heading, *(_lines(reports) if reports else [f"this check was not made: {reason}"])])


def _facts(r: KernelReport) -> dict[str, Any]:
    statistics = r.compiled.statistics
    return {
        "name": r.name,
        "computes": list(r.origin),
        "launches": r.launches,
        "work_items": r.work_items,
        "instructions": statistics.instructions,
        "registers": r.registers,
        "waves": statistics.waves,
        "double_waves": statistics.double_wave,
        "spills": r.spills,
    }


def _lines(reports: list[KernelReport]) -> list[str]:
    from tinyinfer.backends.qcom.compile_check import ENOUGH_WAVES, summary

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
    heads = ("computes", "launches", "items", "instructions", "registers", "waves", "spills", "kernel")
    s = summary(reports)
    share = f"{s.with_enough_waves} of {s.contractions} contractions ({s.share:.0%})"
    return [
        table(rows, heads),
        f"{s.kernels} kernels, {s.spilling} that spill; {share} have {ENOUGH_WAVES} waves or more",
    ]
