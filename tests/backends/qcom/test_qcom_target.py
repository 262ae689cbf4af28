"""Adreno targets: the classes of GPUs, and which target each GPU is given."""

from __future__ import annotations

from collections import Counter

import pytest

from tinyinfer.backends.opencl.capabilities import Capabilities
from tinyinfer.backends.opencl.target import is_best_for
from tinyinfer.backends.qcom.capabilities import ADRENO_GPUS, find_gpu
from tinyinfer.backends.qcom.target import CLASSES, adreno_targets, qcom_target, share_out


def test_every_gpu_has_one_target():
    shared = share_out(adreno_targets())
    assert [target.name for target in shared] == [f"qcom:{name}" for name in CLASSES]
    served = Counter(number for target in shared for number in target.best_for.split())
    assert served == Counter(gpu.number for gpu in ADRENO_GPUS.values())
    for target in shared:
        assert target.gpu.number in target.best_for.split()


@pytest.mark.parametrize(
    "gpu,target",
    [
        ("a618", "a630"),
        ("a650", "a660"),
        ("a690", "a660"),
        ("a730", "a740"),
        ("a830", "a740"),
        ("a610", "a702"),
    ],
)
def test_the_nearest_target(gpu: str, target: str):
    (taken,) = [t for t in share_out(adreno_targets()) if find_gpu(gpu).number in t.best_for.split()]
    assert taken.gpu.name == target


def test_few_targets_serve_all_whose_memory_suffices():
    (alone,) = share_out([qcom_target(find_gpu("a630"))])
    others = {gpu.number for gpu in ADRENO_GPUS.values()} - set(alone.best_for.split())
    assert others == {"610", "702"}  # half the local memory
    first, second = share_out([qcom_target(find_gpu("a730")), qcom_target(find_gpu("a740"))])
    assert "730" in first.best_for.split() and "740" in second.best_for.split()


def test_a_work_group_is_a_single_wave():
    for gpu in ADRENO_GPUS.values():
        assert qcom_target(gpu).model.group == gpu.wave_size


def _device(name: str, version: str) -> Capabilities:
    sizes = (64, 64, 64)
    return Capabilities(
        name, True, 64, sizes, 4096, 2, 32, False, False, True, False, False, False, 1 << 20, version
    )


@pytest.mark.parametrize(
    "words,version,best",
    [
        ("618 630", "OpenCL 2.0 Adreno(TM) 630", True),
        ("618 630", "OpenCL 3.0 Adreno(TM) 6300", False),
        ("618 630", "OpenCL 3.0 Adreno(TM) 730", False),
        ("", "OpenCL 2.0 Adreno(TM) 630", False),
    ],
)
def test_the_word_of_a_device(words: str, version: str, best: bool):
    assert is_best_for(words, _device("QUALCOMM Adreno(TM)", version)) is best
