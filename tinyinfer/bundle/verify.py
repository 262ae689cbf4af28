"""Replaying golden vectors: what a bundle computes on this machine against what it says that is right."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tinyinfer.bundle.container import Signer
from tinyinfer.bundle.golden import compare, loosened, read_golden
from tinyinfer.bundle.load import BundleExecutable, BundleModel
from tinyinfer.bundle.programs import add_program, refuse_signed
from tinyinfer.errors import Fail, InvalidArgument
from tinyinfer.runtime.signature import numpy_dtype


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
) -> VerifyReport:
    """Run the golden vectors of a bundle with the target that a session on these devices would take, or with
    the one called `target`.

    With `keep_program`, the program as the OpenCL device's driver built it goes into the bundle's file, if
    all that it computes is right (`signer` signs what is signed). Errors as in `BundleModel`; Fail where the
    bundle has no golden vectors; InvalidArgument where there is no program to keep, or no way to.
    """
    model = BundleModel(path_or_bytes, None, trusted_keys, require_signature, devices=devices, target=target)
    container = model.container
    entry = container.get("GOLD")
    if entry is None:
        raise Fail(f"{container.label}: there are no golden vectors in it")
    executable = model.executable(threads)
    specs, results = executable.inputs, executable.outputs
    read = read_golden(container.data(entry), specs, results, f"{container.label}: GOLD")
    vectors = [loosened(vector, model.section.tolerances) for vector in read]
    kept = 0
    verdicts = [OutputVerdict(spec.name, 0.0, 0.0, 0.0, 0, 0) for spec in results]
    if keep_program:
        refuse_signed(container, signer)
    try:
        for vector in vectors:
            feeds = [
                given.array(spec.shape, numpy_dtype(spec.dtype)) for given, spec in zip(vector.inputs, specs)
            ]
            found = compare(vector, executable.run(feeds))
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
    )


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
