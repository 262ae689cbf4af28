"""Real models as QCOM bundles: their kernels through the compilers of three GPUs, golden vectors on PoCL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from opencl_tools import needed_opencl

from tinyinfer import config
from tinyinfer.bundle.build import BuildOptions, build_bundle
from tinyinfer.bundle.targets import find_targets
from tinyinfer.bundle.verify import verify_bundle

GPUS = ["qcom:a630", "qcom:a660", "qcom:a740"]
MODELS = ["mobilenetv2_fp32_real_b", "driving_like_gru", "yolox_nano", "road_seg_adas_0001"]


@pytest.fixture
def path_of(shared_models: Path, filled_model: Callable[[str], Path]) -> Callable[[str], Path]:
    def find(name: str) -> Path:
        path = shared_models / f"{name}.onnx"
        return path if path.exists() else filled_model(name)

    return find


@pytest.mark.sweep
@pytest.mark.skipif(config.mesa_tree() is None, reason="no Mesa tree (TINYINFER_MESA)")
@pytest.mark.parametrize("name", MODELS)
def test_kernels_compile_without_spills(name: str, path_of: Callable[[str], Path], tmp_path: Path):
    options = BuildOptions(golden=False)
    report = build_bundle(path_of(name), find_targets(GPUS), tmp_path / "a.tinf", options)
    for target in report.targets:
        assert target.check is not None and target.check.made
        found = target.check.summary
        assert found["spilling"] == 0
        assert found["contractions_with_enough_waves"] >= 0.6 * found["contractions"]


@pytest.mark.sweep
@pytest.mark.parametrize("name", MODELS)
def test_golden_vectors(
    name: str, path_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    needed_opencl()
    monkeypatch.delenv(config.MESA_VARIABLE, raising=False)
    path = tmp_path / "a.tinf"
    report = build_bundle(path_of(name), find_targets(["qcom:a660"]), path)
    assert report.targets[0].replayed_on
    assert all(error.relative <= 0.05 for error in report.in_halves["qcom:a660"])
    assert verify_bundle(path, devices=["OPENCL"], target="qcom:a660").passed
