"""The table of Adreno GPUs."""

import pytest

from tinyinfer.backends.qcom.capabilities import ADRENO_GPUS, find_gpu


@pytest.mark.parametrize("name", ["a630", "A630", "qcom:a630", "QCOM:A630", "630"])
def test_names_of_a_gpu(name):
    assert find_gpu(name) is ADRENO_GPUS["a630"]


@pytest.mark.parametrize("name", ["a999", "", "qcom:", "mali", "a63"])
def test_an_unknown_gpu_is_refused_with_those_known(name):
    with pytest.raises(ValueError, match="known: .*a618, .*a630, .*a830"):
        find_gpu(name)


@pytest.mark.parametrize("gpu", ADRENO_GPUS.values(), ids=lambda gpu: gpu.name)
def test_rows_are_consistent(gpu):
    assert find_gpu(gpu.device) is gpu
    assert gpu.ir3_id in (None, int(gpu.name[1:]))
    assert gpu.generation == int(gpu.name[1]) or gpu.name == "a702"  # a702 is of the sixth generation
    assert gpu.shader_processors >= 1
    assert gpu.max_waves % gpu.wave_banks == 0
    assert gpu.registers >= 48, "a kernel may name 48 registers, and one wave of each bank has to hold it"
    assert gpu.wave_size & (gpu.wave_size - 1) == 0
    assert gpu.local_bytes % 1024 == 0


def test_row_pitch():
    gpu = find_gpu("a630")
    assert gpu.row_pitch(64, 2, 8) == 64 * 8
    assert gpu.row_pitch(65, 2, 8) == 128 * 8
    assert gpu.row_pitch(1, 2, 16) == 64 * 16
    assert gpu.row_pitch(1, 1, 8) == 64
    assert gpu.row_pitch(9, 1, 8) == 128
    assert gpu.row_pitch(16384, 16384, 8) == 16384 * 8


@pytest.mark.parametrize("size", [(16385, 1), (1, 16385), (0, 4), (4, -1)])
def test_images_beyond_the_limit_are_refused(size):
    with pytest.raises(ValueError, match="1 to 16384"):
        find_gpu("a630").row_pitch(*size, 8)
