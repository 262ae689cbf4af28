"""`KVAL`: some of what each kernel of an OpenCL target writes on the first golden vector (docs/bundle.md).

With it, a device that computes something else can be told by which kernel that begins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyinfer.backends.opencl.executable import OpenclExecutable
from tinyinfer.backends.opencl.stepping import Written
from tinyinfer.bundle.manifest import canonical_json
from tinyinfer.errors import InvalidBundle

SAMPLES = 16
"""Elements that are kept of what one launch writes."""

CLOSE = {"float64": 1e-6, "float32": 1e-3, "float16": 0.05}
"""What devices may differ by in the middle of a model, as a part of the largest magnitude that a kernel
writes. Targets that store halves anywhere have the last one everywhere."""

_TYPES = {
    "float": "float32", "half": "float16", "double": "float64", "char": "int8", "uchar": "uint8",
    "short": "int16", "ushort": "uint16", "int": "int32", "uint": "uint32",
    "long": "int64", "ulong": "uint64",
}  # fmt: skip


@dataclass(frozen=True)
class KernelValues:
    """Launch number `launch` of a run writes the `wanted` numbers of type `dtype` to the elements `at`, from
    where its first argument begins on, give or take `allowed`."""

    launch: int
    dtype: str
    at: tuple[int, ...]
    wanted: tuple[float, ...]
    allowed: float


@dataclass(frozen=True)
class KernelVerdict:
    """How far a kernel is off: `error` at most, `allowed`. `names` are the ONNX nodes that it computes."""

    launch: int
    kernel: str
    title: str
    names: tuple[str, ...]
    error: float
    allowed: float

    @property
    def passed(self) -> bool:
        return self.error <= self.allowed


def record_kernels(
    executable: OpenclExecutable, feeds: Sequence[np.ndarray], program: str, halves: bool
) -> list[KernelValues]:
    """What the launches of an executable, which has not been run yet, write on these feeds."""
    found: list[KernelValues] = []

    def look(number: int, written: Written, run: Callable[[], None]) -> None:
        dtype = _type_of(written, program)
        before = written.read(dtype)
        run()
        after = written.read(dtype)
        finite = np.isfinite(after) if after.dtype.kind == "f" else np.ones(after.shape, bool)
        changed = np.flatnonzero((before != after) & finite)
        if not changed.size:
            return
        places = changed[np.unique(np.linspace(0, changed.size - 1, SAMPLES).astype(np.int64))]
        largest = float(np.abs(after[changed].astype(np.float64)).max())
        close = CLOSE["float16" if halves else dtype] if after.dtype.kind == "f" else 0.0
        wanted = tuple(float(value) for value in after[places])
        found.append(KernelValues(number, dtype, tuple(map(int, places)), wanted, close * largest))

    executable.step(feeds, look)
    return found


def check_kernels(
    executable: OpenclExecutable,
    feeds: Sequence[np.ndarray],
    recorded: Sequence[KernelValues],
    names: Sequence[tuple[str, ...]],
) -> list[KernelVerdict]:
    """How far each launch is off that something was recorded of; `names` are the ONNX nodes of each launch.
    InvalidBundle for a record of what a launch does not write."""
    wanted = {values.launch: values for values in recorded}
    verdicts: list[KernelVerdict] = []

    def look(number: int, written: Written, run: Callable[[], None]) -> None:
        run()
        values = wanted.get(number)
        if values is None:
            return
        got = written.read(values.dtype)
        if max(values.at, default=0) >= got.size:
            raise InvalidBundle(f"KVAL: kernel {number} writes nothing at {max(values.at)}")
        found = got[list(values.at)].astype(np.float64)
        with np.errstate(invalid="ignore"):
            error = np.abs(found - np.array(values.wanted))
        worst = float(np.where(np.isfinite(error), error, np.inf).max(initial=0.0))
        launch = written.launch
        known = names[number] if number < len(names) else launch.origin
        title = launch.title or launch.kernel.name
        verdicts.append(KernelVerdict(number, launch.kernel.name, title, known, worst, values.allowed))

    executable.step(feeds, look)
    return verdicts


def _type_of(written: Written, program: str) -> str:
    """The type of the elements that a launch writes: its image's, or what the kernel's text says."""
    if written.image is not None:
        return written.image.dtype
    name = re.escape(written.launch.kernel.name)
    head = re.search(rf"\bvoid {name}\(__global (\w+) \*", program)
    return _TYPES[head[1]] if head else "uint8"


def write_kernel_values(targets: Mapping[str, Sequence[KernelValues]]) -> bytes:
    """The section for targets by their names."""
    plain = {
        name: [
            {"launch": v.launch, "type": v.dtype, "at": v.at, "wanted": v.wanted, "allowed": v.allowed}
            for v in values
        ]
        for name, values in targets.items()
    }
    return canonical_json({"targets": plain})


def read_kernel_values(data: np.ndarray, target: str, where: str) -> list[KernelValues]:
    """What the section says of a target; nothing where it does not name it. `where` begins messages of
    InvalidBundle."""
    try:
        return [_values(entry) for entry in json.loads(data.tobytes())["targets"].get(target, [])]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InvalidBundle(f"{where}: no values of kernels: {error}") from None


def _values(entry: Mapping[str, Any]) -> KernelValues:
    made = KernelValues(
        int(entry["launch"]),
        str(entry["type"]),
        tuple(int(at) for at in entry["at"]),
        tuple(float(value) for value in entry["wanted"]),
        float(entry["allowed"]),
    )
    if made.dtype not in _TYPES.values() or len(made.at) != len(made.wanted) or min(made.at, default=0) < 0:
        raise ValueError("an entry that is none")
    return made
