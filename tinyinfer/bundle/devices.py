"""The devices that bundles run on: which target of a bundle a device takes, and that target made runnable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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
from tinyinfer.bundle.plan_section import PlanSection
from tinyinfer.errors import InvalidBundle, NotImplemented
from tinyinfer.ir.node import Graph


class NoTarget(NotImplemented):
    """A bundle holds no code for this machine."""


class BundleDevice:
    """A device with the target that it takes of a bundle. `rejected` says of each better target why not."""

    def __init__(self, name: str, entry: Entry, rejected: Sequence[str]):
        self.name, self.entry, self.rejected = name, entry, list(rejected)

    def available(self) -> str | None:
        """None: it was looked for."""
        return None

    def compile(self, graph: Graph, options: Any, threads: int) -> Executable:
        """A bundle is compiled already."""
        raise NotImplemented("a bundle is compiled already")  # noqa: F901 - the exception of tinyinfer.errors

    def load(
        self, label: str, section: PlanSection, code: np.ndarray, threads: int, checked: Callable[[], None]
    ) -> Executable:
        """The target, ready to run. `checked` returns when all bytes of the bundle are known to be right, and
        is called before any of them is run."""
        raise NotImplementedError


class CpuTargetDevice(BundleDevice):
    """The first target whose code this machine's processor can run."""

    def __init__(self, container: Container):
        needs = describe_targets(container)
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
        super().__init__("CPU", container.all("PLAN")[number], reasons)

    def load(
        self, label: str, section: PlanSection, code: np.ndarray, threads: int, checked: Callable[[], None]
    ) -> Executable:
        missing = [name for name in ENTRIES if name not in section.offsets]
        if missing:
            raise InvalidBundle(
                f"{label}: target {self.entry.name} lacks the executor's {', '.join(missing)}"
            )
        image = map_image(CodeImage(code.tobytes(), dict(section.offsets)))
        executable = CpuExecutable(section.plan, image, threads, copy_parameters=False)
        checked()
        return executable


class OpenclTargetDevice(BundleDevice):
    """The first target whose program the OpenCL device `name` (as "OPENCL:0") can run."""

    def __init__(self, container: Container, name: str):
        from tinyinfer.backends.opencl.device import OpenclDevice
        from tinyinfer.backends.opencl.target import obstacles

        kind, _, selector = name.partition(":")
        self.device = OpenclDevice("adreno" if kind == "QCOM" else selector)
        self.capabilities = self.device.capabilities
        rejected = []
        for entry, needs in zip(container.all("PLAN"), describe_targets(container)):
            if needs.architecture != ARCHITECTURES["opencl"]:
                rejected.append(f"{entry.name}: is for processors")
                continue
            program = read_program(container.data(entry), f"{container.label}: {entry.title}")
            reasons = obstacles(
                needs, program.local_bytes, program.largest_group, program.device, self.capabilities
            )
            if not reasons:
                super().__init__(name, entry, rejected)
                return
            rejected += [f"{entry.name}: {reason}" for reason in reasons]
        raise NoTarget(
            f"{container.label}: no target in this bundle runs on {self.capabilities.name}:"
            f" {'; '.join(rejected) or 'it holds none'}"
        )

    def load(
        self, label: str, section: PlanSection, code: np.ndarray, threads: int, checked: Callable[[], None]
    ) -> Executable:
        from tinyinfer.backends.cpu.cache import KernelCache
        from tinyinfer.backends.opencl.executable import OpenclExecutable
        from tinyinfer.config import cache_directory

        checked()
        try:
            text = code.tobytes().decode("ascii")
        except UnicodeDecodeError:
            raise InvalidBundle(f"{label}: the program of {self.entry.name} is no ASCII text") from None
        cache = KernelCache(cache_directory())
        return OpenclExecutable(section.plan, self.device.context(), self.capabilities, cache, text)


def choose_device(container: Container, names: Sequence[str]) -> BundleDevice:
    """The first device of `names` that can run a target; without names, the CPU. ValueError for a device that
    is unknown or absent, NoTarget where nothing in the bundle runs on the only one named."""
    if not names:
        return CpuTargetDevice(container)
    problems: list[Exception] = []
    for name in names:
        wanted = canonical_name(name)
        kind = wanted.partition(":")[0]
        try:
            if wanted == "CPU":
                return CpuTargetDevice(container)
            if kind in ("OPENCL", "QCOM"):
                reason = unavailable_reason(wanted)
                if reason is None:
                    return OpenclTargetDevice(container, wanted)
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


def describe_targets(container: Container) -> list[Needs]:
    """What each target in a bundle needs, best first."""
    needs = []
    for entry in container.all("PLAN"):
        machine = read_machine(container.data(entry), f"{container.label}: {entry.title}")
        number = ARCHITECTURES.get(machine.architecture, 0)
        needs.append(Needs(entry.name, number, machine.pointer_bytes, machine.features))
    return needs
