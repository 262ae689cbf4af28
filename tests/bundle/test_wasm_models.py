"""Real models as wasm32 bundles: built, opened by the JavaScript loader, their golden vectors replayed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wasm_tools import WASM32, Cases

from tinyinfer.bundle.build import BuildOptions, build_bundle
from tinyinfer.bundle.container import Container
from tinyinfer.frontend.onnx import load_model
from tinyinfer.frontend.onnx.contents import count_weights

GIVEN = {
    "silero_vad_op18_ifless": BuildOptions(
        shapes={"input": (1, 576), "state": (2, 1, 128)}, values={"sr": np.array(16000)}
    )
}
"""What the file of a model leaves open."""
SMALL = ("dtln_model_1", "silero_vad_op18_ifless", "kws_dscnn_l", "tiny_gpt2_past_fp32")
LARGE = ("ultraface_rfb_320", "mobilenetv2_fp32_real_b", "mobilenetv2_qop_u8s8", "yolox_nano")

Source = Callable[[str], Path]
Bundle = Callable[[str], bytes]


@pytest.fixture(scope="module")
def source(shared_models: Path, filled_model: Source) -> Source:
    """The file of a model of the collection."""

    def find(name: str) -> Path:
        stored = shared_models / f"{name}.onnx"
        return stored if stored.is_file() else filled_model(name)

    return find


@pytest.fixture(scope="module")
def bundle(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of a model of the collection."""
    folder = tmp_path_factory.mktemp("bundles")

    def make(name: str) -> bytes:
        path = folder / f"{name}.tinf"
        if not path.exists():
            build_bundle(source(name), [WASM32], path, GIVEN.get(name, BuildOptions()))
        return path.read_bytes()

    return make


def check(results: list[dict[str, Any]], names: tuple[str, ...]) -> None:
    for name, result in zip(names, results, strict=True):
        assert "error" not in result, (name, result)
        assert result["verified"] and all(v["passed"] for v in result["verified"]), (name, result["verified"])


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_golden_vectors_under_node(name: str, source: Source, bundle: Bundle, tmp_path: Path):
    data = bundle(name)
    cases = Cases(tmp_path)
    cases.add(data, verify=True)
    check(cases.run(), (name,))
    (weights,) = Container.open(data).all("WGHT")
    assert len(data) <= 1.1 * count_weights(load_model(source(name))).bytes + 400_000
    assert len(data) <= 1.1 * weights.size + 400_000


def test_golden_vectors_in_a_browser(bundle: Bundle, tmp_path: Path):
    cases = Cases(tmp_path)
    for name in SMALL:
        cases.add(bundle(name), verify=True)
    check(cases.run_in_browser(), SMALL)
