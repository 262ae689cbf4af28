"""Kernels for an Adreno beside those of tinygrad for the same models, both compiled by ir3, as a table.

    TINYINFER_MESA=FOLDER python -m benchmarks.adreno_tinygrad MODEL.onnx... [--tune] [--python PYTHON]

PYTHON is one that has tinygrad, which may be in a virtual environment of its own; without it, only our own
kernels are counted. Nothing is executed. `instructions` are those of the machine code, a loop's body once,
times work-items, summed over the launches of a run; `issue slots` count loops as often as they run; `reads`
are texture reads. tinygrad's kernels are those of `benchmarks/tinygrad_kernels.py`, compiled as its runtime
compiles them: without options.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from tinyinfer.backends.clike.opencl_c import program_text
from tinyinfer.backends.qcom.capabilities import AdrenoGpu, find_gpu
from tinyinfer.backends.qcom.compile_check import BUILD_OPTIONS
from tinyinfer.backends.qcom.device import QcomDevice
from tinyinfer.backends.qcom.ir3 import Ir3Compiler, KernelText, find_compiler
from tinyinfer.backends.qcom.occupancy import TEXELS, Candidate, estimate
from tinyinfer.backends.qcom.statistics import CompiledKernel
from tinyinfer.backends.qcom.target import qcom_target
from tinyinfer.backends.qcom.trips import issue_slots, trips_of
from tinyinfer.backends.qcom.tune import tune
from tinyinfer.bundle.source import read_source
from tinyinfer.config import CompileOptions
from tinyinfer.errors import EPFail
from tinyinfer.frontend.onnx import load_model
from tinyinfer.runtime.plan import Launch

CAPTURE = Path(__file__).with_name("tinygrad_kernels.py")
MILLION = 1e6


@dataclass(frozen=True)
class Launched:
    """A kernel as a run launches it: `times` in a row."""

    name: str
    text: KernelText
    work_items: int
    times: int = 1
    work_group: int = 0
    """Work-items of a group; 0 where only the GPU will tell."""


@dataclass(frozen=True)
class Counted:
    """What one kernel costs in a run, over all its work-items."""

    name: str
    launches: int
    work_items: int
    instructions: int
    slots: int
    reads: int
    spills: bool
    cycles: float = 0.0
    """The cost model's estimate; 0 where the group is not known."""

    sure: bool = True
    """Whether the trips of all loops are known; where not, `slots` and `reads` have their bodies once."""


@dataclass(frozen=True)
class Total:
    """All kernels of a run."""

    launches: int
    instructions: int
    slots: int
    reads: int
    spilling: int
    unsure: int
    cycles: float = 0.0


def counted(launched: Launched, kernel: CompiledKernel, gpu: AdrenoGpu) -> Counted:
    """A launch whose kernel is compiled."""
    trips = trips_of(launched.text.source, kernel.loops)
    runs = trips if trips is not None else (1,) * len(kernel.loops)
    issued = issue_slots(kernel, runs)
    candidate = Candidate(kernel, runs, launched.work_items, launched.work_group)
    cycles = estimate(gpu, candidate, texels=TEXELS) if launched.work_group else 0.0
    items = launched.work_items * launched.times
    return Counted(
        launched.name,
        launched.times,
        launched.work_items,
        kernel.statistics.instructions * items,
        issued.slots * items,
        issued.texture_reads * items,
        kernel.statistics.spills,
        cycles * launched.times,
        trips is not None,
    )


def total(kernels: Sequence[Counted]) -> Total:
    """The sums of a run."""
    return Total(
        sum(k.launches for k in kernels),
        sum(k.instructions for k in kernels),
        sum(k.slots for k in kernels),
        sum(k.reads for k in kernels),
        sum(k.spills for k in kernels),
        sum(not k.sure for k in kernels),
        sum(k.cycles for k in kernels),
    )


def table(rows: Iterable[tuple[str, Total, Total | str]]) -> Iterator[str]:
    """Lines of Markdown for (model, ours, tinygrad's or why there are none): numbers in millions, ours /
    theirs."""
    yield "| model | launches | instructions x work-items | issue slots | texture reads | spills |"
    yield "|---|---|---|---|---|---|"
    for name, ours, theirs in rows:
        if isinstance(theirs, str):
            cells = [f"{n} / –" for n in _cells(ours)]
        else:
            cells = [f"{a} / {b}" for a, b in zip(_cells(ours), _cells(theirs), strict=True)]
        yield f"| {name} | {' | '.join(cells)} |"


def _cells(t: Total) -> list[str]:
    millions = [f"{n / MILLION:.0f} M" for n in (t.instructions, t.slots, t.reads)]
    return [str(t.launches), *millions, str(t.spilling)]


def plan_launches(launches: Sequence[Launch], times: int = 1) -> Iterator[Launched]:
    """The launches of a run of a plan; those of loops as often as they may run, without what runs once."""
    for launch in launches:
        if launch.loop is not None:
            yield from plan_launches(launch.loop.launches, times * launch.loop.steps)
        elif not launch.once:
            assert launch.work is not None
            text = KernelText(launch.title, program_text([launch.kernel.text()], False), BUILD_OPTIONS)
            total, group = launch.work.total, launch.work.group
            yield Launched(launch.title, text, prod(total), times, prod(group))


def our_launches(path: Path, gpu: AdrenoGpu, tuned: bool = False) -> list[Launched]:
    """What a run of the model at `path` launches on `gpu`, with schedules by fixed rules or `tuned`."""
    source = read_source(load_model(path), {}, {})
    options = CompileOptions()
    if tuned:
        tuning, _ = tune(source.graph, qcom_target(gpu), options)
        options = replace(options, tuning=tuning)
    plan = QcomDevice(gpu.name).plan(source.graph, options)
    return list(plan_launches(plan.launches))


def tinygrad_launches(path: Path, python: str) -> tuple[list[Launched], str]:
    """The same of tinygrad, as `python` has it, and its version. EPFail where it is missing or takes no such
    model."""
    done = subprocess.run([python, str(CAPTURE), str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it fails"])[-1]
        raise EPFail(f"{python} gives no kernels of tinygrad: {last}")
    *kernels, end = map(json.loads, done.stdout.splitlines())
    found = [Launched(k["name"], KernelText(k["name"], k["source"]), k["work_items"]) for k in kernels]
    return found, f"tinygrad {end['version']}"


def count(launched: Sequence[Launched], compiler: Ir3Compiler) -> list[Counted]:
    """Each launch with what the compiler says of its kernel."""
    compiled = compiler.compile([x.text for x in launched])
    return [counted(x, kernel, compiler.gpu) for x, kernel in zip(launched, compiled, strict=True)]


def _largest(kernels: Sequence[Counted], most: int) -> Iterator[str]:
    for k in sorted(kernels, key=lambda k: -k.slots)[:most]:
        yield (
            f"{k.slots / MILLION:9.1f} M slots {k.reads / MILLION:8.1f} M reads {k.work_items:8d} items"
            f" x {k.launches}  {k.name}"
        )


def main() -> int:
    """Print the table; 1 where there is no compiler."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--python", default=sys.executable, help="a Python that has tinygrad")
    parser.add_argument("--tune", action="store_true", help="rank our schedules by what ir3 says")
    parser.add_argument("--kernels", type=int, default=0, metavar="N", help="list the N largest of each side")
    arguments = parser.parse_args()
    gpu = find_gpu("a630")
    compiler, reason = find_compiler(gpu)
    if compiler is None:
        print(reason, file=sys.stderr)
        return 1
    rows: list[tuple[str, Total, Total | str]] = []
    versions = [compiler.version]
    for path in arguments.models:
        ours = count(our_launches(path, gpu, arguments.tune), compiler)
        theirs: list[Counted] = []
        why = ""
        try:
            captured, version = tinygrad_launches(path, arguments.python)
            theirs = count(captured, compiler)
            versions.append(version)
        except EPFail as error:
            why = str(error)
            print(f"{path.stem}: {why}", file=sys.stderr)
        rows.append((path.stem, total(ours), why or total(theirs)))
        print(f"{path.stem}, tinyinfer: {total(ours).cycles / MILLION:.2f} M cycles by the cost model")
        for side, kernels in (("tinyinfer", ours), ("tinygrad", theirs)):
            for line in _largest(kernels, arguments.kernels):
                print(f"{path.stem}, {side}: {line}")
            if unsure := total(kernels).unsure:
                print(f"{path.stem}, {side}: {unsure} launches have loops whose trips are unknown")
    compiler.close()
    print(f"\n{gpu.name}, {', '.join(dict.fromkeys(versions))}; tinyinfer / tinygrad\n")
    print("\n".join(table(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
