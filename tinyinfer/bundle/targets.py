"""Targets as users name them: what `--device` takes, as what code is made for."""

from __future__ import annotations

from collections.abc import Sequence

from tinyinfer.backends.cpu.machine import choose
from tinyinfer.backends.cpu.target import CpuTarget, cpu_names, host_target, named_target, target_names
from tinyinfer.backends.opencl.target import OpenclTarget, device_target
from tinyinfer.backends.qcom.capabilities import find_gpu
from tinyinfer.backends.qcom.target import QcomTarget, adreno_targets, qcom_target, share_out

Target = CpuTarget | OpenclTarget

PORTABLE = "x86_64-v3"
"""The level of x86-64 that bundles are made for unless another one is named."""


def find_targets(names: Sequence[str], storage: str = "float16") -> list[Target]:
    """Targets by the names that `--device` takes: "CPU" is the level of this machine and the portable one of
    its architecture, "cpu:NAME" what `named_target` calls NAME; "OPENCL" is any OpenCL device, "opencl:0" or
    "opencl:NAME" one that this machine has; "qcom:a630" is that Adreno GPU, "QCOM" all of them, a target for
    each class, whose images hold `storage`. ValueError for others."""
    found: dict[str, Target] = {}
    for name in names:
        device, colon, rest = name.partition(":")
        targets: Sequence[Target]
        if device.upper() in ("CPU", "CPUEXECUTIONPROVIDER"):
            if colon and not rest:
                raise ValueError(f"{name!r} names no target; there are {', '.join(target_names())}")
            targets = [named_target(rest)] if colon else _own_targets()
        elif device.upper() == "OPENCL":
            targets = [_opencl_target(rest) if colon else OpenclTarget()]
        elif device.upper() == "QCOM":
            targets = [qcom_target(find_gpu(rest), storage)] if colon else adreno_targets(storage)
        else:
            raise ValueError(
                f"bundles hold code for processors and OpenCL devices: {name!r} is neither CPU, cpu:TARGET,"
                " OPENCL, opencl:DEVICE, QCOM nor qcom:GPU"
            )
        for target in targets:
            found.setdefault(target.name, target)
    shared = iter(share_out([t for t in found.values() if isinstance(t, QcomTarget)]))
    return [next(shared) if isinstance(t, QcomTarget) else t for t in found.values()]


def _opencl_target(selector: str) -> OpenclTarget:
    """The target that is cut for a device of this machine."""
    from tinyinfer.backends.opencl.capabilities import capabilities_of
    from tinyinfer.backends.opencl.platforms import NoOpencl, choose_device

    try:
        return device_target(capabilities_of(choose_device(selector)))
    except NoOpencl as error:
        raise ValueError(f"{error}; OPENCL without a name needs no device to compile for") from None


def _own_targets() -> list[CpuTarget]:
    """This machine's level, ordered for its processor where LLVM knows it, then the portable one."""
    host = host_target()
    architecture = host.architecture
    levels = [named_target(n) for n in target_names() if n.partition("-")[0] == architecture]
    runnable = [level for level in levels if choose([level.needs])[0] is not None]
    if not runnable:
        raise ValueError(f"this machine ({architecture}) runs none of the targets: name one, as cpu:aarch64")
    best = runnable[-1]
    tuned = f"{architecture}:{host.cpu}"
    if tuned in cpu_names() and choose([named_target(tuned).needs])[0] is not None:
        best = named_target(tuned)
    portable = named_target(PORTABLE) if architecture == "x86_64" else runnable[0]
    return [best] if best.needs.features == portable.needs.features else [best, portable]
