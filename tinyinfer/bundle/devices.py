"""The devices that bundles run on: which target of a bundle a device takes, and that target made runnable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyinfer.backends.base import Executable
from tinyinfer.backends.cpu.code_image import CodeImage
from tinyinfer.backends.cpu.driver import ENTRIES
from tinyinfer.backends.cpu.executable import CpuExecutable
from tinyinfer.backends.cpu.features import ARCHITECTURES, Needs, feature_names
from tinyinfer.backends.cpu.loader import map_image
from tinyinfer.backends.cpu.machine import choose, this_machine
from tinyinfer.backends.registry import canonical_name, device_names, unavailable_reason
from tinyinfer.bundle.container import Container, Entry
from tinyinfer.bundle.plan_reader import read_machine, read_program
from tinyinfer.bundle.plan_section import PlanSection, ProgramNeeds
from tinyinfer.bundle.programs import read_programs
from tinyinfer.errors import InvalidArgument, InvalidBundle, NotImplemented
from tinyinfer.ir.node import Graph

if TYPE_CHECKING:
    import pyopencl

    from tinyinfer.backends.qcom.options import QcomOptions
    from tinyinfer.backends.qcom.vendor import QcomVendor


class NoTarget(NotImplemented):
    """A bundle holds no code for this machine."""


class BundleDevice:
    """A device with the target that it takes of a bundle. `rejected` says of each better target why not."""

    def __init__(self, name: str, entry: Entry, rejected: Sequence[str]):
        self.name, self.entry, self.rejected = name, entry, list(rejected)

    @property
    def title(self) -> str:
        """What it is called."""
        return self.name

    @property
    def identity(self) -> str:
        """Device and driver version, where those decide what is computed; "" on processors."""
        return ""

    def available(self) -> str | None:
        """None: it was looked for."""
        return None

    def compile(self, graph: Graph, options: Any, threads: int) -> Executable:
        """A bundle is compiled already."""
        raise NotImplemented("a bundle is compiled already")  # noqa: F901 - the exception of tinyinfer.errors

    def load(self, container: Container, section: PlanSection, code: np.ndarray, threads: int) -> Executable:
        """The target of a bundle, ready to run; all of the bundle was hashed before any of it is run."""
        raise NotImplementedError

    def built_program(
        self, executable: Executable, section: PlanSection, code: np.ndarray
    ) -> tuple[bytes, bytes] | None:
        """The digest and the binary of the program that `load` made of these, as the device's driver built
        it; None where there is none, or where the driver keeps it to itself."""
        return None


class CpuTargetDevice(BundleDevice):
    """The first target whose code this machine's processor can run; of that name, where one is given."""

    def __init__(self, container: Container, target: str = ""):
        plans, needs = _candidates(container, target)
        number, reasons = choose(needs)
        if number is None:
            machine = this_machine()
            offers = (
                ", ".join(feature_names(machine.architecture, machine.features))
                or "none that code is made for"
            )
            raise NoTarget(
                f"{container.label}: no target in this bundle runs here:"
                f" {'; '.join(reasons) or 'it holds none'}. This machine:"
                f" {machine.architecture or 'an unknown architecture'} with {offers}"
            )
        super().__init__("CPU", plans[number], reasons)

    def load(self, container: Container, section: PlanSection, code: np.ndarray, threads: int) -> Executable:
        missing = [name for name in ENTRIES if name not in section.offsets]
        if missing:
            raise InvalidBundle(
                f"{container.label}: target {self.entry.name} lacks the executor's {', '.join(missing)}"
            )
        image = map_image(CodeImage(code.tobytes(), dict(section.offsets)))
        executable = CpuExecutable(section.plan, image, threads, copy_parameters=False)
        container.finish()
        return executable


class OpenclTargetDevice(BundleDevice):
    """A target whose program the OpenCL device `name` (as "OPENCL:0", "QCOM") can run: the first that is best
    for it, else the first. Where the target's own name is given, the device may be called anything."""

    def __init__(self, container: Container, name: str, target: str = ""):
        from tinyinfer.backends.opencl.capabilities import capabilities_of
        from tinyinfer.backends.opencl.target import is_best_for, obstacles

        self.device = _opencl_device(name)
        self.capabilities = capabilities_of(self.device)
        rejected, able = [], []
        for entry, needs in zip(*_candidates(container, target), strict=True):
            if needs.architecture != ARCHITECTURES["opencl"]:
                rejected.append(f"{entry.name}: is for processors")
                continue
            program = read_program(container.data(entry), f"{container.label}: {entry.title}")
            kind = "" if target else program.device
            reasons = obstacles(needs, program.local_bytes, program.largest_group, kind, self.capabilities)
            rejected += [f"{entry.name}: {reason}" for reason in reasons]
            if not reasons:
                able.append((not is_best_for(program.best_for, self.capabilities), len(rejected), entry))
        if not able:
            raise NoTarget(
                f"{container.label}: no target in this bundle runs on {self.capabilities.name}:"
                f" {'; '.join(rejected) or 'it holds none'}"
            )
        _, before, chosen = min(able, key=lambda found: found[:2])
        super().__init__(name, chosen, rejected[:before])

    @property
    def title(self) -> str:
        from tinyinfer.backends.opencl.platforms import describe

        return describe(self.device)

    @property
    def identity(self) -> str:
        d = self.device
        return " | ".join((d.platform.version, d.name, d.version, d.driver_version))

    def load(self, container: Container, section: PlanSection, code: np.ndarray, threads: int) -> Executable:
        from tinyinfer.backends.cpu.cache import KernelCache
        from tinyinfer.backends.opencl.device import context_of
        from tinyinfer.backends.opencl.executable import OpenclExecutable
        from tinyinfer.backends.opencl.programs import PrintedProgram
        from tinyinfer.config import cache_directory

        container.finish()
        programs = container.get("CLBN", self.entry.group)
        binaries = read_programs(container.data(programs)) if programs is not None else {}
        text = self._source(container.label, code)
        printed = PrintedProgram(text, _program(section).options.split(), binaries)
        cache, vendor = KernelCache(cache_directory()), self._vendor()
        context = vendor.context if vendor is not None else context_of(self.device)
        return OpenclExecutable(section.plan, context, self.capabilities, cache, printed, vendor)

    def built_program(
        self, executable: Executable, section: PlanSection, code: np.ndarray
    ) -> tuple[bytes, bytes] | None:
        from tinyinfer.backends.opencl.executable import OpenclExecutable
        from tinyinfer.backends.opencl.programs import program_binary, program_digest

        assert isinstance(executable, OpenclExecutable)  # `load` made it
        binary = program_binary(executable.program)
        options = self.capabilities.build_options(_program(section).options.split())
        digest = program_digest(self.device, options, self._source(self.entry.title, code))
        return (digest, binary) if binary else None

    def _source(self, label: str, code: np.ndarray) -> str:
        try:
            return code.tobytes().decode("ascii")
        except UnicodeDecodeError:
            raise InvalidBundle(f"{label}: the program of {self.entry.name} is no ASCII text") from None

    def _vendor(self) -> QcomVendor | None:
        """The device's extensions, where it is used as its vendor's."""
        return None


class QcomTargetDevice(OpenclTargetDevice):
    """The same with the extensions of Qualcomm's driver."""

    _options: QcomOptions | None = None

    def with_options(self, given: Mapping[str, Any]) -> QcomTargetDevice:
        """This device with options of `QcomOptions`; InvalidArgument for others."""
        from tinyinfer.backends.qcom.options import QcomOptions

        changed = copy(self)
        changed._options = QcomOptions.of(given)
        if "precision" in given:
            raise InvalidArgument("QCOM: a bundle has the precision that it was compiled with")
        return changed

    def _vendor(self) -> QcomVendor | None:
        from tinyinfer.backends.qcom.options import QcomOptions
        from tinyinfer.backends.qcom.vendor import QcomVendor

        return QcomVendor(self.device, self._options or QcomOptions())


def choose_device(container: Container, names: Sequence[str], target: str = "") -> BundleDevice:
    """The first device of `names` that can run a target (the one called `target`); without names, the CPU.
    ValueError for a device that is unknown or absent, NoTarget where nothing in the bundle runs on the only
    one named, or where it holds no target of that name."""
    if not names:
        return CpuTargetDevice(container, target)
    problems: list[Exception] = []
    for name in names:
        wanted = canonical_name(name)
        kind = wanted.partition(":")[0]
        try:
            if wanted == "CPU":
                return CpuTargetDevice(container, target)
            if kind in ("OPENCL", "QCOM"):
                reason = unavailable_reason(wanted)
                if reason is None:
                    make = QcomTargetDevice if kind == "QCOM" else OpenclTargetDevice
                    return make(container, wanted, target)
                problems.append(ValueError(f"device {wanted} cannot be used: {reason}"))
            elif kind in device_names() or name.endswith("ExecutionProvider"):
                problems.append(ValueError(f"{name}: bundles run on the CPU and on OPENCL devices"))
            else:
                raise ValueError(f"unknown device {name!r}; bundles run on the CPU and on OPENCL devices")
        except NoTarget as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    raise ValueError(f"none of {', '.join(names)} can be used: {'; '.join(map(str, problems))}")


def _program(section: PlanSection) -> ProgramNeeds:
    assert section.program is not None  # the device was chosen by it
    return section.program


def _candidates(container: Container, target: str) -> tuple[list[Entry], list[Needs]]:
    """The targets that may be taken, and what they need: all, or the one of that name."""
    plans, needs = container.all("PLAN"), describe_targets(container)
    if not target:
        return plans, needs
    chosen = [number for number, entry in enumerate(plans) if entry.name == target]
    if not chosen:
        held = ", ".join(entry.name for entry in plans)
        raise NoTarget(f"{container.label} holds no target {target!r}, only {held}")
    return [plans[number] for number in chosen], [needs[number] for number in chosen]


def _opencl_device(name: str) -> pyopencl.Device:
    """The OpenCL device with a name that was found to be available."""
    from tinyinfer.backends.opencl.platforms import choose_device as opencl_device
    from tinyinfer.backends.qcom.device import QcomDevice

    kind, _, selector = name.partition(":")
    return QcomDevice(selector).opencl_device()[0] if kind == "QCOM" else opencl_device(selector)


def describe_targets(container: Container) -> list[Needs]:
    """What each target in a bundle needs, best first."""
    needs = []
    for entry in container.all("PLAN"):
        machine = read_machine(container.data(entry), f"{container.label}: {entry.title}")
        number = ARCHITECTURES.get(machine.architecture, 0)
        needs.append(Needs(entry.name, number, machine.pointer_bytes, machine.features))
    return needs
