"""The float models on OpenCL devices against the oracle: as OPENCL, and as QCOM with float32 and half images.

    python -m pytest -m sweep tests/backends/devices/test_device_models.py

runs all but three, which every change runs, on the first OpenCL device; -rP prints their errors.
OCL_ICD_VENDORS chooses a runtime: for Intel's, which

    python -m venv build/intel && build/intel/bin/pip install intel-opencl-rt

installs, set it to $PWD/build/intel/lib/libintelocl.so.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from device_suite import SUITE, usable
from float_models import NAMES, check_outputs, model_path, worst_errors

from tinyinfer.frontend.onnx import import_graph, load_model
from tinyinfer.ir.oracle import evaluate

SMALL = ("mnist_cntk", "go1_policy", "kws_dscnn_l")

IN_HALVES = 1e-2
"""The largest error, of an output's range, where images hold halves and sums are float32."""

MORE_IN_HALVES = {
    "fastestdet": 4e-2,
    "ppocr_v2_cls": 4e-2,
    "road_seg_adas_0001": 8e-2,
    "tv_efficientnet_b0": 4e-2,
    "yunet_n_640": 8e-2,
}

NOT_IN_HALVES = ("yolox_nano", "u2netp_320")
"""On noise their outputs amplify the last bit of a half beyond any use: 0.3 to 0.8 of the range."""

RUNS = [(n, d) for n in NAMES for d in ("OPENCL", "QCOM-float32", "QCOM-float16")]
RUNS = [(n, d) for n, d in RUNS if d != "QCOM-float16" or n not in NOT_IN_HALVES]


@pytest.fixture(scope="module")
def model(shared_models, model_index, filled_model, model_feeds):
    """`model(name)`: (graph, feeds, what the oracle gives); the devices of one model share it."""

    @lru_cache(maxsize=1)
    def make(name: str):
        feeds = model_feeds(name)
        path = model_path(name, model_index, shared_models, filled_model)
        graph = import_graph(load_model(path), {feed: value.shape for feed, value in feeds.items()})
        with np.errstate(all="ignore"):
            return graph, feeds, evaluate(list(graph.outputs.values()), feeds)

    return make


def check_model(name: str, device_name: str, model, folder) -> None:
    device = usable(SUITE[device_name])
    graph, feeds, wanted = model(name)
    plan = device.model_plan(graph)
    assert device_name == "OPENCL" or plan.parameter_images
    got = device.run(plan, feeds, folder)
    errors = worst_errors(got, wanted)
    print(f"{name} {device_name}: {max(e / max(extent, 1e-30) for e, extent in errors):.2g} of the range")
    if device_name != "QCOM-float16":
        check_outputs(name, got, wanted)
        return
    for error, extent in errors:
        assert error <= MORE_IN_HALVES.get(name, IN_HALVES) * extent, f"{error / extent} of the range"


@pytest.mark.parametrize("name, device", [run for run in RUNS if run[0] in SMALL])
def test_small_models(name, device, model, tmp_path):
    check_model(name, device, model, tmp_path)


@pytest.mark.sweep
@pytest.mark.parametrize("name, device", [run for run in RUNS if run[0] not in SMALL])
def test_models(name, device, model, tmp_path):
    check_model(name, device, model, tmp_path)
