"""The test cases of the installed onnx package: node, simple, both pytorch folders, and the light models."""

from __future__ import annotations

import functools
import math
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
from onnx import OptionalProto, SequenceProto, TensorProto, numpy_helper

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

WRONG = {
    "test_dft_inverse": "expects 1.9e-7, the rounding of a single-precision FFT, where 0 is exact",
    "test_dft_inverse_opset19": "expects 1.9e-7, the rounding of a single-precision FFT, where 0 is exact",
    **{
        f"test_bernoulli{kind}{expanded}": "random numbers of numpy's generator, which ONNX leaves open"
        for kind in ("", "_double", "_seed")
        for expanded in ("", "_expanded")
    },
}
"""Cases whose expected outputs no implementation has to give, and why."""

BFLOAT16 = 2.0**-6
"""The suite's own least relative tolerance for bfloat16: two units in the last place."""


def _value(value):
    """An input or output of a case as a session takes or gives it."""
    if isinstance(value, TensorProto):
        return _tensor(value)
    if isinstance(value, SequenceProto):
        return [_value(v) for v in numpy_helper.to_list(value)]
    if isinstance(value, OptionalProto):
        return numpy_helper.to_optional(value)
    if isinstance(value, (list, tuple)):
        return [_value(v) for v in value]
    return value if value is None else np.asarray(value)


def _tensor(tensor):
    array = numpy_helper.to_array(tensor)
    return array.astype(object) if tensor.data_type == TensorProto.STRING else array


def _read(path, kind=None):
    which = kind.WhichOneof("value") if kind is not None else "tensor_type"
    message = {"sequence_type": SequenceProto, "optional_type": OptionalProto}.get(which, TensorProto)()
    message.ParseFromString(path.read_bytes())
    return _value(message)


def _files(folder, kind, declared):
    count = len(list(folder.glob(f"{kind}_*.pb")))
    return [_read(folder / f"{kind}_{i}.pb", declared[i].type) for i in range(count)]


def data_sets(case):
    """Pairs of inputs and outputs; a case holds them itself or names a folder."""
    if case.model_dir is None:
        return [
            ([_value(a) for a in inputs], [_value(a) for a in outputs]) for inputs, outputs in case.data_sets
        ]
    folders = sorted(Path(case.model_dir).glob("test_data_set_*"))
    graph = onnx.load(source(case)).graph
    return [(_files(f, "input", graph.input), _files(f, "output", graph.output)) for f in folders]


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
        _assert_similar(result, wanted, case)


def _assert_similar(result, wanted, case):
    if isinstance(wanted, list):
        assert isinstance(result, list), case.name
        assert_as_expected(result, wanted, case)
        return
    if wanted is None:
        assert result is None, case.name
        return
    assert result.shape == wanted.shape, case.name
    if wanted.dtype.kind in "OSU":
        assert result.tolist() == wanted.tolist(), case.name
        return
    assert result.dtype == wanted.dtype, case.name
    if "float" not in wanted.dtype.name and wanted.dtype.kind != "c":
        np.testing.assert_array_equal(result, wanted, err_msg=case.name)
        return
    relative = case.rtol
    if wanted.dtype.name == "bfloat16":
        relative = max(relative, BFLOAT16)
    wide = np.complex128 if wanted.dtype.kind == "c" else np.float64
    result, wanted = result.astype(wide), wanted.astype(wide)
    np.testing.assert_allclose(result, wanted, relative, case.atol, err_msg=case.name)
