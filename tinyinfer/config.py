"""Options as data, and the only place below the command line that reads the environment."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tinyinfer.kernels.tuning import Tuning

DEBUG_VARIABLE = "DEBUG"
VERIFY_VARIABLE = "TINYINFER_VERIFY"
TRUST_VARIABLE = "TINYINFER_TRUST_DRIVERS"
CACHE_VARIABLE = "TINYINFER_CACHE"
OPENCL_VARIABLE = "OCL_ICD_VENDORS"
MESA_VARIABLE = "TINYINFER_MESA"


@dataclass(frozen=True)
class CompileOptions:
    """Everything that decides what kernels compute and how; a kernel's key holds what came of it."""

    fuse: bool = True
    deterministic: bool = False
    keep_values: bool = False
    """Give every stored value memory of its own and list them in the plan, for tests that look inside a run.
    """
    tuning: Tuning = Tuning()
    """Schedules to take instead of the heuristic ones."""


def debug_level() -> int:
    """How much of the compiler to show on standard error: DEBUG=1 … 5 (0 = nothing). Changes no result."""
    value = os.environ.get(DEBUG_VARIABLE, "0")
    return int(value) if value.isdigit() else 0


def verify_each_stage() -> bool:
    """Whether verifiers run after every stage (TINYINFER_VERIFY=1). Changes no result."""
    return os.environ.get(VERIFY_VARIABLE, "0") not in ("", "0")


def trust_drivers() -> bool:
    """Whether bundles run on OpenCL drivers that were never seen to compute them right
    (TINYINFER_TRUST_DRIVERS=1): then nothing is verified when they are loaded.
    """
    return os.environ.get(TRUST_VARIABLE, "0") not in ("", "0")


def cache_directory() -> Path:
    """Where compiled kernels are kept: TINYINFER_CACHE, or the platform's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tinyinfer"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home()))) / "tinyinfer" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))) / "tinyinfer"


def mesa_tree() -> Path | None:
    """The folder of the Mesa tree that compiles for Adreno GPUs (TINYINFER_MESA), or None. It informs
    schedules, never results.
    """
    chosen = os.environ.get(MESA_VARIABLE)
    return Path(chosen) if chosen else None


def offer_opencl_library(path: str) -> None:
    """Name a driver's library to OpenCL's loader, which reads this variable when it first looks for drivers.
    A choice of the user's stays.
    """
    os.environ.setdefault(OPENCL_VARIABLE, path)


def child_environment(**changes: str) -> dict[str, str]:
    """The environment that a child process gets: this one's, with changes."""
    return {**os.environ, **changes}
