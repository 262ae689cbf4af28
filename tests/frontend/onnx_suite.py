"""The test cases of the installed onnx package: node, simple, both pytorch folders, and the light models."""

from __future__ import annotations

import functools
import math
import warnings
from pathlib import Path

import numpy as np
import onnx.backend.test
from onnx import TensorProto, numpy_helper

from tinyinfer.frontend.onnx import load_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from onnx.backend.test.loader import load_model_tests

    CASES = [
        case
        for kind in ("node", "simple", "pytorch-operator", "pytorch-converted")
        for case in load_model_tests(kind=kind)
    ]

LIGHT_MODELS = sorted((Path(onnx.backend.test.__file__).parent / "data" / "light").glob("*.onnx"))

AS_ONNXRUNTIME = {
    "test_resize_downsample_scales_linear_align_corners": "output size rounded first, as in onnxruntime",
    "test_resize_downsample_scales_cubic_align_corners": "output size rounded first, as in onnxruntime",
    "test_dft_inverse": "expects 1.9e-7, the rounding of a single-precision FFT, where 0 is exact",
    "test_dft_inverse_opset19": "expects 1.9e-7, the rounding of a single-precision FFT, where 0 is exact",
}
"""Cases whose expected outputs onnxruntime does not give either, and why."""

RELATIVE = {"float16": 2e-3}
"""By dtype, where the suite's own 1e-3 is less than two units in the last place: results that were rounded
after each step of a function body differ by that from results that were rounded once."""


def _array(value):
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def _read(path):
    tensor = TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(tensor)


def _files(folder, kind):
    return [_read(folder / f"{kind}_{i}.pb") for i in range(len(list(folder.glob(f"{kind}_*.pb"))))]


def data_sets(case):
    """Pairs of inputs and outputs; a case holds them itself or names a folder."""
    if case.model_dir is None:
        return [
            ([_array(a) for a in inputs], [_array(a) for a in outputs]) for inputs, outputs in case.data_sets
        ]
    folders = sorted(Path(case.model_dir).glob("test_data_set_*"))
    return [(_files(folder, "input"), _files(folder, "output")) for folder in folders]


def source(case):
    """The model of a case, as anything that loads a model takes it."""
    return case.model if case.model_dir is None else Path(case.model_dir) / "model.onnx"


@functools.cache
def light_model(path):
    """Feeds by name and the expected output of a light model; its weights are made by its own nodes."""
    model = load_model(path)
    feeds = {}
    for value in model.inputs:
        shape = [d if isinstance(d, int) else 1 for d in value.shape or ()]
        count = math.prod(shape)
        feeds[value.name] = (np.arange(count).reshape(shape) / count).astype(np.float32)
    return feeds, _read(path.with_name(f"{path.stem}_output_0.pb"))


def assert_as_expected(results, expected, case):
    """Number, shapes, dtypes and values of the outputs, within the tolerance of the case."""
    assert len(results) == len(expected), case.name
    for result, wanted in zip(results, expected):
        assert result.shape == wanted.shape and result.dtype == wanted.dtype, case.name
        if wanted.dtype.kind != "f":
            np.testing.assert_array_equal(result, wanted, err_msg=case.name)
            continue
        relative = max(case.rtol or 1e-3, RELATIVE.get(wanted.dtype.name, 0))
        result, wanted = result.astype(np.float64), wanted.astype(np.float64)
        np.testing.assert_allclose(result, wanted, relative, case.atol or 1e-7, err_msg=case.name)
