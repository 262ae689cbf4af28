"""The float32 models that the project promises to run: sessions on the compiled CPU against onnxruntime."""

from __future__ import annotations

import pytest
from float_models import NAMES, check_outputs, model_path

import tinyinfer


@pytest.mark.parametrize("name", NAMES)
def test_float_model(name, shared_models, model_index, filled_model, model_feeds):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = model_path(name, model_index, shared_models, filled_model)
    feeds = model_feeds(name)
    ours = tinyinfer.InferenceSession(path, providers=["CPU"]).run(None, feeds)
    theirs = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)
    check_outputs(name, ours, theirs)
