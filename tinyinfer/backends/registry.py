"""Devices by name, loaded when first asked for. A new device is one row of `_DEVICES`."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from tinyinfer.backends.base import Device

_DEVICES = {
    "CPU": ("tinyinfer.backends.cpu.device", "CpuDevice"),
    "OPENCL": ("tinyinfer.backends.opencl.device", "OpenclDevice"),
    "QCOM": ("tinyinfer.backends.qcom.device", "QcomDevice"),
    "QCOM-KGSL": ("tinyinfer.backends.qcom.direct_device", "DirectDevice"),
    "REFERENCE": ("tinyinfer.backends.reference.device", "ReferenceDevice"),
}

_SELECTABLE = frozenset(("OPENCL", "QCOM", "QCOM-KGSL"))
"""Devices of which a machine may have several: "opencl:0" or "opencl:name" chooses one."""

_SUFFIX = "ExecutionProvider"
_LOADED: dict[str, Device] = {}
_LOCK = threading.Lock()


def device_names() -> list[str]:
    """Every device that this version has code for, best first, whether or not the machine has it."""
    return list(_DEVICES)


def available_devices() -> list[str]:
    """The devices that can be used on this machine, best first."""
    return [name for name in _DEVICES if unavailable_reason(name) is None]


def unavailable_reason(name: str) -> str | None:
    """None if device `name` can be used here, else why not, in words."""
    try:
        return _load(name).available()
    except ImportError as error:
        return f"its code cannot be loaded: {error}"


def found_devices(name: str) -> list[str]:
    """What this machine has of a device that it may have several of, in words; each begins with the name that
    chooses it. Empty for devices of which there is one."""
    found = getattr(_load(name), "found", None)
    return found() if found is not None else []


def device_extensions(name: str) -> list[tuple[str, bool, str]]:
    """Of each extension of a vendor's driver that is known: its name, whether this machine's device has it,
    and what for. Empty for devices without."""
    extensions = getattr(_load(name), "extensions", None)
    return extensions() if extensions is not None else []


def configured(device: Device, options: Mapping[str, Any]) -> Device:
    """A device with the options that came with its name. Devices that have no options take any and pass them
    over, as onnxruntime's names bring some along; others raise InvalidArgument for those that they lack."""
    make = getattr(device, "with_options", None)
    return make(options) if make is not None and options else device


def takes_options(name: str) -> bool:
    """Whether the device of that name has options."""
    return hasattr(_load(canonical_name(name)), "with_options")


def canonical_name(name: str) -> str:
    """A device's own name: upper case, and onnxruntime's "CPUExecutionProvider" is "CPU". What chooses among
    several stands after a colon."""
    short = name[: -len(_SUFFIX)] if name.endswith(_SUFFIX) else name
    return short.upper()


def find_device(name: str) -> Device:
    """The device `name` (any case, or onnxruntime's provider name); ValueError listing the devices if it
    cannot be.
    """
    wanted = canonical_name(name)
    if not is_known(wanted):
        raise ValueError(f"unknown device {name!r}; available here: {', '.join(available_devices())}")
    reason = unavailable_reason(wanted)
    if reason is not None:
        raise ValueError(
            f"device {wanted} cannot be used: {reason}; available here: {', '.join(available_devices())}"
        )
    return _load(wanted)


def first_available(names: Sequence[str]) -> Device:
    """The first of `names` that can be used here; only devices that are named are tried.

    ValueError if none can be used, or if a name is unknown. onnxruntime's provider names that have no device
    here are passed over like absent devices, so that ["CUDAExecutionProvider", "CPUExecutionProvider"] means
    the CPU.
    """
    problems = []
    for name in names:
        try:
            return find_device(name)
        except ValueError as error:
            if not is_known(canonical_name(name)) and not name.endswith(_SUFFIX):
                raise
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    raise ValueError(
        f"none of {', '.join(names)} can be used; available here: {', '.join(available_devices())}"
    )


def get_available_providers() -> list[str]:
    """Names of the devices that can be used here, best first."""
    return available_devices()


def get_all_providers() -> list[str]:
    """Names of all devices that this version has code for."""
    return device_names()


def get_device() -> str:
    """The name of the device that a session without `providers` runs on."""
    return next((name for name in _DEVICES if unavailable_reason(name) is None), "CPU")


def is_known(name: str) -> bool:
    """Whether this version has code for the device of that name."""
    name = canonical_name(name)
    kind, colon, _ = name.partition(":")
    return kind in _DEVICES and (not colon or kind in _SELECTABLE)


def _load(name: str) -> Device:
    with _LOCK:
        device = _LOADED.get(name)
        if device is None:
            kind, _, selector = name.partition(":")
            module, factory = _DEVICES[kind]
            make = getattr(importlib.import_module(module), factory)
            device = _LOADED[name] = make(selector) if selector else make()
        return device
