"""Adreno GPUs as targets: what code is made for, and which of several targets suits a GPU best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log

from tinyinfer.backends.opencl.target import OpenclTarget
from tinyinfer.backends.qcom.capabilities import ADRENO_GPUS, AdrenoGpu
from tinyinfer.backends.qcom.dialect import ADRENO_C, HALF_PRECISION
from tinyinfer.backends.qcom.model import LARGE_FILE, adreno_model

CLASSES = ("a740", "a660", "a630", "a702")
"""A GPU of each class whose kernels are cut otherwise: by registers, local memory and shader processors.
Together they serve every Adreno; one that is not known here takes the first that it has the memory for."""

KIND = "Adreno"
"""What drivers call all of these GPUs."""


@dataclass(frozen=True)
class QcomTarget(OpenclTarget):
    """Code cut for one Adreno GPU. Others run it too where their local memory suffices."""

    gpu: AdrenoGpu = ADRENO_GPUS[CLASSES[0]]
    storage: str = "float16"
    """The type of elements in images."""


def qcom_target(gpu: AdrenoGpu, storage: str = "float16") -> QcomTarget:
    """The target for a GPU whose images hold `storage`, "float16" or "float32"."""
    dialect = HALF_PRECISION if storage == "float16" else ADRENO_C
    model = adreno_model(gpu, storage)
    return QcomTarget(gpu.device, model, gpu.name, KIND, gpu.number, dialect, gpu, storage)


def adreno_targets(storage: str = "float16") -> list[QcomTarget]:
    """A target for each of CLASSES, best first."""
    return [qcom_target(ADRENO_GPUS[name], storage) for name in CLASSES]


def share_out(targets: Sequence[QcomTarget]) -> list[QcomTarget]:
    """The targets, each with the numbers of all GPUs for which it is the nearest of them."""
    numbers: list[list[str]] = [[] for _ in targets]
    for gpu in ADRENO_GPUS.values():
        fitting = [n for n, t in enumerate(targets) if t.gpu.local_bytes <= gpu.local_bytes]
        if fitting:
            numbers[min(fitting, key=lambda n: _distance(targets[n].gpu, gpu))].append(gpu.number)
    return [replace(target, best_for=" ".join(words)) for target, words in zip(targets, numbers)]


def _distance(target: AdrenoGpu, gpu: AdrenoGpu) -> tuple[bool, bool, int, float]:
    """How far code for one GPU is from what another one would be given: the most telling first."""
    return (
        target != gpu,
        (target.registers >= LARGE_FILE) != (gpu.registers >= LARGE_FILE),
        gpu.local_bytes - target.local_bytes,
        abs(log(target.shader_processors / gpu.shader_processors)),
    )
