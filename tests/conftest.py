"""What tests of several folders share: the collection of models beside the repository, and feeds for them."""

from __future__ import annotations

import importlib.util
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """The folder of real models beside the repository: missing, it fails in CI and skips elsewhere."""
    folder = REPOSITORY.parent / "shared" / "models"
    if not (folder / "index.json").is_file():
        reason = f"no collection of models at {folder}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def model_index(shared_models: Path) -> dict[str, dict[str, Any]]:
    """The entries of the collection's index by name."""
    entries = json.loads((shared_models / "index.json").read_text(encoding="utf-8"))
    return {entry["name"]: entry for entry in entries}


@pytest.fixture(scope="session")
def filled_model(shared_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`filled_model(name)`: the path of a skeleton that got its reproducible random weights."""
    folder = tmp_path_factory.mktemp("filled")

    def make(name: str) -> Path:
        path = folder / f"{name}.onnx"
        if not path.exists():
            import onnx

            spec = importlib.util.spec_from_file_location("fill", shared_models / "fill.py")
            assert spec is not None and spec.loader is not None
            fill = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(fill)
            onnx.save(fill.fill(onnx.load(shared_models / "skeletons" / f"{name}.onnx")), path)
        return path

    return make


@pytest.fixture(scope="session")
def model_feeds(model_index: dict[str, dict[str, Any]]) -> Callable[[str], dict[str, np.ndarray]]:
    """`model_feeds(name)`: feeds as the index describes them, the same numbers every time.

    Floats lie in [0, 1) and integers in {0, 1} unless the index gives a range [low, high) or a value.
    """

    def make(name: str) -> dict[str, np.ndarray]:
        entry = model_index[name]
        ranges = entry.get("input_spec") or {}
        generator = np.random.default_rng(zlib.crc32(name.encode()))
        feeds = {}
        for feed, (dtype, shape) in entry["test_feeds"].items():
            given = ranges.get(feed, {})
            if "value" in given:
                feeds[feed] = np.full(shape, given["value"], dtype)
                continue
            low, high = given.get("range", (0, 1 if np.dtype(dtype).kind == "f" else 2))
            feeds[feed] = np.asarray(generator.random(shape) * (high - low) + low).astype(dtype)
        return feeds

    return make
