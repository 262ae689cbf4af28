"""Replaying golden vectors: what a bundle computes on this machine against what it says that is right."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tinyinfer.bundle.container import Signer
from tinyinfer.bundle.golden import GoldenVector, compare
from tinyinfer.bundle.kernel_values import KernelVerdict
from tinyinfer.bundle.load import BundleExecutable, BundleModel
from tinyinfer.bundle.programs import add_program, refuse_signed
from tinyinfer.errors import Fail, InvalidArgument


@dataclass(frozen=True)
class OutputVerdict:
    """An output over all vectors: the greatest difference (infinite where a number meets none), what is
    allowed, and how many of `elements` are out of it."""

    name: str
    worst: float
    absolute: float
    relative: float
    elements: int
    failing: int


@dataclass(frozen=True)
class VerifyReport:
    """What `verify_bundle` found. `rejected` says of each better target why this machine cannot run it;
    `signed_by` is the key of a valid signature, in hexadecimal digits."""

    target: str
    rejected: list[str]
    vectors: int
    signed_by: str | None
    outputs: list[OutputVerdict]
    program_bytes: int = 0
    """Of the program that was put into the bundle."""
    kernels: list[KernelVerdict] = field(default_factory=list)
    """How far each kernel is off, in the order in which they run, where that was asked for."""

    @property
    def first_wrong(self) -> KernelVerdict | None:
        """The first kernel that is off by more than is allowed."""
        return next((kernel for kernel in self.kernels if not kernel.passed), None)

    @property
    def passed(self) -> bool:
        """Whether every element is within its tolerance."""
        return not any(output.failing for output in self.outputs)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {**asdict(self), "passed": self.passed}


def verify_bundle(
    path_or_bytes: Any,
    trusted_keys: Sequence[Any] = (),
    require_signature: bool = False,
    threads: int = 0,
    devices: Sequence[str] = (),
    target: str = "",
    keep_program: bool = False,
    signer: Signer | None = None,
    bisect: bool = False,
    against: str = "",
) -> VerifyReport:
    """Run the golden vectors of a bundle with the target that a session on these devices would take, or with
    the one called `target`.

    With `keep_program`, the program as the OpenCL device's driver built it goes into the bundle's file, if
    all that it computes is right (`signer` signs what is signed). `bisect` compares each kernel with what was
    recorded when the bundle was made, or with the device `against`. Errors as in `BundleModel`; Fail where
    the bundle has no golden vectors; InvalidArgument where there is no program to keep, or no way to.
    """
    model = BundleModel(path_or_bytes, None, trusted_keys, require_signature, devices=devices, target=target)
    container = model.container
    vectors = model.golden()
    if not vectors:
        raise Fail(f"{container.label}: there are no golden vectors in it")
    executable = model.executable(threads)
    kept = 0
    kernels: list[KernelVerdict] = []
    if keep_program:
        refuse_signed(container, signer)
    try:
        verdicts = replay(model, executable, vectors)
        if bisect:
            kernels = _bisect(model, executable, vectors[0], path_or_bytes, against)
        if keep_program and not any(verdict.failing for verdict in verdicts):
            kept = _keep(model, executable, path_or_bytes, signer)
    finally:
        executable.close()
    signed = container.signed_by
    return VerifyReport(
        model.target,
        model.rejected,
        len(vectors),
        None if signed is None else signed.hex(),
        verdicts,
        kept,
        kernels,
    )


def replay(
    model: BundleModel, executable: BundleExecutable, vectors: Sequence[GoldenVector]
) -> list[OutputVerdict]:
    """How each output does over all vectors."""
    verdicts = [OutputVerdict(spec.name, 0.0, 0.0, 0.0, 0, 0) for spec in executable.outputs]
    for vector in vectors:
        found = compare(vector, executable.run(model.feeds(vector)))
        for number, (wanted, difference) in enumerate(zip(vector.outputs, found)):
            before = verdicts[number]
            verdicts[number] = OutputVerdict(
                before.name,
                max(before.worst, difference.error),
                max(before.absolute, wanted.absolute),
                max(before.relative, wanted.relative),
                before.elements + difference.elements,
                before.failing + difference.failed,
            )
    return verdicts


def _bisect(
    model: BundleModel, executable: BundleExecutable, vector: GoldenVector, path_or_bytes: Any, against: str
) -> list[KernelVerdict]:
    """How far each kernel is off, against what was recorded of it or what another device computes."""
    recorded = None
    if against:
        other = BundleModel(path_or_bytes, devices=[against], target=model.target)
        recorded = other.record_kernels(vector)
    verdicts = model.check_kernels(executable, vector, recorded)
    if not verdicts:
        raise InvalidArgument(
            f"{model.container.label}: of target {model.target} no values of kernels were recorded, as only"
            " those of OpenCL devices are, where one is there when the bundle is made; --against DEVICE takes"
            " what another OpenCL device computes"
        )
    return verdicts


def _keep(
    model: BundleModel, executable: BundleExecutable, path: str | os.PathLike[str], signer: Signer | None
) -> int:
    """Put the program of an executable into the bundle's file; returns its bytes."""
    program = model.built_program(executable)
    if program is None:
        raise InvalidArgument(
            f"{model.container.label}: {model.device_title} has no program of target {model.target} to keep"
        )
    digest, binary = program
    add_program(path, model.target, digest, binary, signer)
    return len(binary)
