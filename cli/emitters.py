"""What `tinyinfer compile --emit` writes: a function for each kind of output."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.adreno import check_lines, halves_lines, islands_text
from cli.errors import BadInput
from cli.report import bytes_text, print_json

if TYPE_CHECKING:
    from tinyinfer.bundle.build import BuildOptions, BuildReport
    from tinyinfer.bundle.targets import Target


@dataclass(frozen=True)
class CFlags:
    """What flags say of emitted C: where weights and arena are, and the kind of processor."""

    weights: str
    arena: str
    machine: str


@dataclass(frozen=True)
class Request:
    """One call of `tinyinfer compile`. `given` names the flags that only some emitters take and that were
    given; `tell` shows what is being done."""

    model: str
    output: str | None
    devices: tuple[str, ...]
    options: BuildOptions
    c_flags: CFlags
    cc: str | None
    given: frozenset[str]
    tell: Callable[[str], None]
    as_json: bool
    verbose: bool = False

    @property
    def stem(self) -> str:
        """The model's file name without its ending."""
        return Path(self.model).stem

    def refuse(self, emit: str, *flags: str) -> None:
        """BadInput for a flag that was given and means nothing to this emitter."""
        for flag in flags:
            if flag in self.given:
                raise BadInput(f"{flag} has no meaning for --emit {emit}")

    def print(self, facts: Mapping[str, Any], lines: list[str]) -> None:
        """The facts as JSON, or the lines."""
        if self.as_json:
            print_json({"model": os.path.basename(self.model), **facts})
        else:
            click.echo("\n".join(lines))


def emit_bundle(request: Request) -> None:
    """A bundle for the devices."""
    from tinyinfer.bundle.build import build_bundle

    request.refuse("bundle", "--c-weights", "--c-arena", "--c-machine", "--cc")
    place = _file(request, f"{request.stem}.tinf")
    targets = _targets(request)
    report = build_bundle(request.model, targets, place, request.options, request.tell)
    request.tell("")
    request.print({"file": str(place), **report.as_dict()}, _bundle_lines(request, place, report))


def _bundle_lines(request: Request, place: Path, report: BuildReport) -> list[str]:
    lines = [f"{place}: {os.path.basename(request.model)}, {bytes_text(report.size)}"]
    lines += [f"  {note}" for note in report.notes]
    lines.append("  " + ", ".join(f"{kind} {bytes_text(size)}" for kind, size in report.sections.items()))
    lines += [
        f"  {target.name}: {bytes_text(target.peak_bytes)} at peak, {target.launches} launches,"
        f" {bytes_text(target.code_bytes)} of code"
        for target in report.targets
    ]
    checks = {target.name: target.check for target in report.targets if target.check is not None}
    lines += check_lines(checks, request.verbose)
    lines += [
        f"  {target.name}: {islands_text(target.islands.as_dict(), request.verbose)}"
        for target in report.targets
        if target.islands is not None
    ]
    lines += [
        f"  golden {error.name}: differs by {error.seen:.3g} at most, {error.allowed:.3g} allowed"
        + (" (more than its type alone would: rounding decides between steps)" if error.widened else "")
        for error in report.errors
    ]
    if request.options.golden:
        lines += halves_lines(report)
    return lines


def emit_opencl(request: Request) -> None:
    """A folder with the OpenCL C of each target, whose kernels are checked as those of a bundle."""
    from tinyinfer.backends.opencl.target import OpenclTarget
    from tinyinfer.bundle.code import island_finder, opencl_code
    from tinyinfer.bundle.kernel_check import TargetCheck
    from tinyinfer.bundle.source import read_source
    from tinyinfer.bundle.tuned import find_tunings
    from tinyinfer.frontend.onnx import load_model
    from tinyinfer.kernels.tuning import Tuning

    request.refuse("opencl", "--c-weights", "--c-arena", "--c-machine", "--cc", "--input", "--no-golden")
    request.refuse("opencl", "--sign", "--stored-weights", "--threads")
    targets = [target for target in _targets(request, "OPENCL") if isinstance(target, OpenclTarget)]
    if len(targets) < len(_targets(request, "OPENCL")):
        raise BadInput("--emit opencl takes OPENCL and QCOM devices: processors run no OpenCL C")
    place = _folder(request, "opencl")
    request.tell("reading the model")
    options = request.options
    source = read_source(load_model(request.model), options.shapes, options.values)
    tunings, tuned = find_tunings(source.graph, targets, options.tune, options.compile_options, request.tell)
    notes = [*(note for note in (source.describe_assumed(),) if note), *tuned]
    files: dict[str, bytes] = {}
    facts, lines = [], list(notes)
    checks: dict[str, TargetCheck] = {}
    finder = island_finder(source, options)
    with source.model.limits.spending():
        for target in targets:
            tuning = tunings.get(target.name, Tuning())
            made = opencl_code(source, target, options, tuning, request.tell, finder)
            file = f"{target.name.replace(':', '-')}.cl"
            files[file] = made.code
            if made.check is not None:
                checks[target.name] = made.check
            launches = sum(not launch.once for launch in made.plan.launches)
            facts.append(
                {
                    "name": target.name,
                    "file": str(place / file),
                    "launches": launches,
                    "images": len(made.plan.images),
                    "peak_bytes": made.plan.peak_bytes,
                    "check": made.check.as_dict() if made.check is not None else None,
                }
            )
            lines.append(
                f"{place / file}: {bytes_text(len(made.code))}, {launches} launches,"
                f" {bytes_text(made.plan.peak_bytes)} at peak"
            )
    _write_folder(place, files)
    request.tell("")
    request.print(
        {"folder": str(place), "targets": facts, "notes": notes},
        [*lines, *check_lines(checks, request.verbose)],
    )


def emit_c(request: Request) -> None:
    """A folder with C11 sources."""
    from tinyinfer.backends.clike.printer import GENERAL, MICROCONTROLLER
    from tinyinfer.bundle.source import read_source
    from tinyinfer.emit.c_size import default_compiler, measure, report
    from tinyinfer.emit.c_source import COptions, plan_for_c
    from tinyinfer.emit.c_source import emit_c as sources
    from tinyinfer.frontend.onnx import load_model

    request.refuse("c", "--device", "--input", "--no-golden", "--sign", "--stored-weights", "--threads")
    request.refuse("c", "--tune", "--tune-from")
    place = _folder(request, "c")
    request.tell("reading the model")
    options, flags = request.options, request.c_flags
    source = read_source(load_model(request.model), options.shapes, options.values)
    request.tell("compiling to C")
    with source.model.limits.spending():
        machine = MICROCONTROLLER if flags.machine == "microcontroller" else GENERAL
        plan = plan_for_c(source.graph, options.compile_options, machine)
    options.check_memory("C code", plan)
    notes = [note for note in (source.describe_assumed(),) if note]
    notes += [f"input {name!r} must hold {value.tolist()}" for name, value in source.values.items()]
    about = "; ".join([os.path.basename(request.model), *notes])
    written = sources(plan, request.stem, COptions(flags.weights, flags.arena), about, source.values)
    compiler = default_compiler() if request.cc is None else _command(request.cc)
    sizes = measure(written, compiler) if compiler is not None else None
    _write_folder(place, written.files)
    request.tell("")
    facts = {
        "folder": str(place),
        "files": {name: len(content) for name, content in written.files.items()},
        "ram_bytes": written.ram_bytes,
        "arena_bytes": written.arena_bytes,
        "weight_bytes": written.weight_bytes,
        "compiled": None if sizes is None else vars(sizes),
        "notes": notes,
    }
    request.print(facts, [f"{place}: {', '.join(written.files)}", *notes, *report(written, sizes)])


def emit_library(request: Request, kind: str) -> None:
    """A shared library or a relocatable object, with its header."""
    from tinyinfer.bundle.build import build_bundle
    from tinyinfer.emit.c_compiler import find_c_compiler
    from tinyinfer.emit.c_names import identifier
    from tinyinfer.emit.library import ENDINGS
    from tinyinfer.emit.library import emit_library as emit

    request.refuse(kind, "--c-weights", "--c-arena", "--c-machine", "--sign")
    name = identifier(request.stem, "model")
    place = _file(request, f"lib{name}.so" if kind == "so" else f"{name}{ENDINGS[kind]}")
    targets = _targets(request)
    architecture, *others = dict.fromkeys(target.architecture for target in targets)
    if others:
        raise BadInput(
            f"--device: a library is made for one architecture, not for {architecture} and {others[0]}"
        )
    if architecture == "opencl":
        raise BadInput(f"--device: a library holds code for processors, and {targets[0].name} is none")
    find_c_compiler(architecture, request.cc)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "model.tinf"
        report = build_bundle(request.model, targets, bundle, request.options, request.tell)
        request.tell("compiling the library")
        files = emit(bundle, kind, place, cc=request.cc)
    request.tell("")
    facts = {"files": {str(file): file.stat().st_size for file in files}, "bundle": report.as_dict()}
    _, *lines = _bundle_lines(request, place, report)
    written = [f"{file}: {bytes_text(file.stat().st_size)}" for file in files]
    request.print(facts, [*written, *lines])


def emit_wasm(request: Request) -> None:
    """A folder with a WebAssembly module and a JavaScript module around it."""
    from tinyinfer.backends.cpu.cache import KernelCache
    from tinyinfer.backends.cpu.device import CpuDevice
    from tinyinfer.backends.cpu.target import named_target
    from tinyinfer.backends.cpu.threads import default_threads
    from tinyinfer.bundle.source import read_source
    from tinyinfer.config import cache_directory
    from tinyinfer.emit.c_names import identifier
    from tinyinfer.emit.wasm import emit_wasm as modules
    from tinyinfer.frontend.onnx import load_model

    request.refuse("wasm", "--c-weights", "--c-arena", "--c-machine", "--cc", "--device", "--input")
    request.refuse("wasm", "--no-golden", "--sign", "--stored-weights", "--tune", "--tune-from")
    place = _folder(request, "wasm")
    request.tell("reading the model")
    options, target = request.options, named_target("wasm32")
    source = read_source(load_model(request.model), options.shapes, options.values)
    with source.model.limits.spending():
        plan = CpuDevice().plan(source.graph, options.compile_options, target)
        options.check_memory(target.name, plan)
        notes = [note for note in (source.describe_assumed(),) if note]
        files = modules(
            plan,
            target,
            identifier(request.stem, "model"),
            "; ".join([os.path.basename(request.model), *notes]),
            source.values,
            options.threads or default_threads(),
            KernelCache(cache_directory()),
            lambda done, total: request.tell(f"kernel {done} of {total}"),
        )
    _write_folder(place, files)
    request.tell("")
    sizes = {name: len(content) for name, content in files.items()}
    facts = {"folder": str(place), "files": sizes, "peak_bytes": plan.peak_bytes, "notes": notes}
    written = [f"{place / name}: {bytes_text(size)}" for name, size in sizes.items()]
    request.print(facts, [*written, *notes, f"{bytes_text(plan.peak_bytes)} at peak"])


EMITTERS: dict[str, Callable[[Request], None]] = {
    "bundle": emit_bundle,
    "c": emit_c,
    "so": partial(emit_library, kind="so"),
    "obj": partial(emit_library, kind="obj"),
    "wasm": emit_wasm,
    "opencl": emit_opencl,
}
"""By the name that `--emit` takes; the first one is the default."""


def _file(request: Request, default: str) -> Path:
    """Where the output goes. BadInput where no file can be."""
    place = Path(request.output if request.output is not None else default)
    if place.is_dir():
        raise BadInput(f"{place}: is a directory")
    _check_parent(place)
    return place


def _folder(request: Request, language: str) -> Path:
    """The folder that the output goes to. BadInput where none can be."""
    place = Path(request.output if request.output is not None else f"{request.stem}_{language}")
    if place.exists() and not place.is_dir():
        raise BadInput(f"{place}: is no directory")
    _check_parent(place)
    return place


def _targets(request: Request, default: str = "CPU") -> list[Target]:
    from tinyinfer.backends.qcom.options import STORAGE
    from tinyinfer.bundle.targets import find_targets

    try:
        return find_targets(request.devices or (default,), STORAGE[request.options.precision])
    except ValueError as error:
        raise BadInput(f"--device: {error}") from None


def _command(text: str) -> list[str]:
    """The words of --cc, as a shell would split them."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadInput(f"--cc {text}: {str(error).lower()}") from None
    if not words:
        raise BadInput("--cc: no compiler is named")
    return words


def _check_parent(place: Path) -> None:
    if not place.resolve().parent.is_dir():
        raise BadInput(f"{place}: no such directory")


def _write_folder(place: Path, files: Mapping[str, str | bytes]) -> None:
    """The files in `place`, which is made if need be; each appears whole, and none where one fails."""
    with tempfile.TemporaryDirectory(dir=place.resolve().parent, prefix=f".{place.name}.") as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        place.mkdir(exist_ok=True)
        for file in files:
            os.replace(folder / file, place / file)
