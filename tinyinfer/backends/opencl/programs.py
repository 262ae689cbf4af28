"""Programs: the kernels of a plan as one source, built by the driver, its binary kept on disk."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinyinfer.backends.clike.opencl_c import program_text
from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.backends.opencl.capabilities import Capabilities
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
    text: str | None = None,
) -> Any:
    """The program of all kernels of a plan, whose source is `text` where it was printed before. ProgramError
    where the driver refuses it."""
    cl = opencl()
    if text is None:
        text = program_text([s.text() for s in plan_sources(launches)], capabilities.fp64)
    device = context.devices[0]
    options = capabilities.build_options()
    key = _key(device, options, text)
    kept = cache.get(key) if cache is not None else None
    if kept is not None:
        try:
            return _built(cl.Program(context, [device], [kept]), options)
        except cl.Error:
            pass  # a driver may refuse what an earlier one of the same version made
    try:
        program = _built(cl.Program(context, text), options)
    except cl.RuntimeError as error:
        raise ProgramError(_explained(str(error), text, launches, capabilities)) from None
    if cache is not None:
        cache.put(key, program.get_info(cl.program_info.BINARIES)[0])
    return program


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
