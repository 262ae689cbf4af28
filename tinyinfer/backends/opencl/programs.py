"""Programs: the kernels of a plan as one source, built by the driver, its binary kept on disk."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tinyinfer.backends.clike.opencl_c import program_text
from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.backends.opencl.capabilities import LANGUAGE, Capabilities
from tinyinfer.backends.opencl.platforms import opencl
from tinyinfer.errors import EPFail
from tinyinfer.runtime.plan import KernelSource, Launch, kernel_sources

if TYPE_CHECKING:
    import pyopencl

MOST_LOG = 4000

_LINE = re.compile(r":(\d+):\d+: ")
_HEAD = re.compile(r"__kernel .*\bvoid (\w+)\(")


class ProgramError(EPFail):
    """The driver's compiler refused a program; the message holds its log and the kernels' ONNX names."""


@dataclass(frozen=True)
class PrintedProgram:
    """The source of a plan that was printed before, and what drivers built of it, by `program_digest`."""

    text: str
    options: Sequence[str] = LANGUAGE
    binaries: Mapping[bytes, bytes] = field(default_factory=dict)


def plan_sources(launches: Sequence[Launch]) -> list[KernelSource]:
    """The kernels of a plan once each; those of loops that the host runs are not among them."""
    loops = {launch.kernel.key for launch in all_launches(launches) if launch.loop is not None}
    return [s for key, s in kernel_sources(launches).items() if key not in loops]


def all_launches(launches: Sequence[Launch]) -> list[Launch]:
    """Launches, and after each one with a loop those of its body."""
    found = []
    for launch in launches:
        found.append(launch)
        if launch.loop is not None:
            found += all_launches(launch.loop.launches)
    return found


def build_program(
    context: pyopencl.Context,
    capabilities: Capabilities,
    launches: Sequence[Launch],
    cache: KernelCache | None,
    printed: PrintedProgram | None = None,
) -> Any:
    """The program of all kernels of a plan, as it was `printed` or built before where it was. ProgramError
    where the driver refuses it."""
    cl = opencl()
    if printed is None:
        printed = PrintedProgram(program_text([s.text() for s in plan_sources(launches)], capabilities.fp64))
    device, text = context.devices[0], printed.text
    options = capabilities.build_options(printed.options)
    key = _key(device, options, text)
    for kept in _binaries(device, options, printed, cache, key):
        try:
            return _built(cl.Program(context, [device], [kept]), options)
        except cl.Error:
            pass  # a driver may refuse what an earlier one of the same version made
    try:
        program = _built(cl.Program(context, text), options)
    except cl.RuntimeError as error:
        raise ProgramError(_explained(str(error), text, launches, capabilities)) from None
    if cache is not None:
        cache.put(key, program_binary(program))
    return program


def program_digest(device: pyopencl.Device, options: Sequence[str], text: str) -> bytes:
    """What stands for a program as a device's driver builds it (docs/bundle.md, "Programs of drivers")."""
    platform = device.platform.version
    texts = [platform, device.name, device.version, device.driver_version, " ".join(options), text]
    return hashlib.sha256(b"".join(part.encode() + b"\0" for part in texts)).digest()


def program_binary(program: Any) -> bytes:
    """A program as the driver built it; empty where the driver does not give it away."""
    return program.get_info(opencl().program_info.BINARIES)[0]


def _binaries(
    device: pyopencl.Device,
    options: Sequence[str],
    printed: PrintedProgram,
    cache: KernelCache | None,
    key: str,
) -> Iterator[bytes]:
    """The program as it was built before: what came with it, then what was kept here."""
    if printed.binaries:
        given = printed.binaries.get(program_digest(device, options, printed.text))
        if given is not None:
            yield given
    kept = cache.get(key) if cache is not None else None
    if kept is not None:
        yield kept


def _built(program: Any, options: list[str]) -> Any:
    """A program after it was built, without what the compiler had to say of one that it took."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", opencl().CompilerWarning)
        return program.build(options, cache_dir=False)


def _key(device: pyopencl.Device, options: list[str], text: str) -> str:
    platform = device.platform
    parts = [device.name, device.version, device.driver_version, platform.name, platform.version, options]
    return hashlib.blake2b(json.dumps([*parts, text]).encode(), digest_size=20).hexdigest()


def _explained(log: str, text: str, launches: Sequence[Launch], capabilities: Capabilities) -> str:
    origins = {
        launch.kernel.name: ", ".join(launch.origin) or launch.title for launch in all_launches(launches)
    }
    lines = text.split("\n")
    named = dict.fromkeys(
        name for number in _LINE.findall(log) if (name := _kernel_at(lines, int(number))) in origins
    )
    return "\n".join(
        [
            f"the OpenCL compiler of {capabilities.name} refused the kernels of this model:",
            *(f"{name} computes {origins[name]}" for name in named),
            log[:MOST_LOG],
        ]
    )


def _kernel_at(lines: Sequence[str], number: int) -> str:
    """The kernel that a line of a program belongs to; "" if none."""
    heads = (_HEAD.match(line) for line in reversed(lines[:number]))
    return next((head[1] for head in heads if head), "")
