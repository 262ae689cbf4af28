"""The onnx package's own node tests: every operator of the table, imported and evaluated by the oracle."""

import functools
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from onnx_models import run

from tinyinfer.errors import NotImplemented as NotSupported
from tinyinfer.frontend.onnx import UnsupportedModel, blockers, load_model
from tinyinfer.frontend.onnx.op_table import OP_TABLE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from onnx.backend.test.loader import load_model_tests

    CASES = [
        case
        for kind in ("node", "simple", "pytorch-operator", "pytorch-converted")
        for case in load_model_tests(kind=kind)
    ]

# case -> why it may differ
EXPECTED_DIFFERENCES = {
    "test_resize_downsample_scales_linear_align_corners": "output size rounded first, as in onnxruntime",
    "test_resize_downsample_scales_cubic_align_corners": "output size rounded first, as in onnxruntime",
}


def _array(value):
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def _read(path):
    tensor = TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(tensor)


def _files(folder, kind):
    return [_read(folder / f"{kind}_{i}.pb") for i in range(len(list(folder.glob(f"{kind}_*.pb"))))]


def _data_sets(case):
    """Pairs of inputs and outputs; a case holds them itself or names a folder."""
    if case.model_dir is None:
        return [
            ([_array(a) for a in inputs], [_array(a) for a in outputs]) for inputs, outputs in case.data_sets
        ]
    folders = sorted(Path(case.model_dir).glob("test_data_set_*"))
    return [(_files(folder, "input"), _files(folder, "output")) for folder in folders]


def _load(case):
    return load_model(case.model if case.model_dir is None else Path(case.model_dir) / "model.onnx")


@functools.cache
def _supported():
    """The cases by operator that the table covers."""
    found = defaultdict(list)
    for case in CASES:
        model = _load(case)
        if all(v.onnx_type.startswith("tensor(") for v in model.inputs) and not blockers(model):
            found[model.proto.graph.node[0].op_type if model.node_count else ""].append(case)
    return found


def _check(case):
    model = _load(case)
    for inputs, outputs in _data_sets(case):
        got = run(model.full_proto(), {v.name: x for v, x in zip(model.inputs, inputs)})
        for expected, result in zip(outputs, got):
            assert result.shape == expected.shape and result.dtype == expected.dtype, case.name
            if expected.dtype.kind == "f":
                np.testing.assert_allclose(
                    result.astype(np.float64),
                    expected.astype(np.float64),
                    case.rtol or 1e-3,
                    max(case.atol or 0, 1e-5),
                    err_msg=case.name,
                )
            else:
                np.testing.assert_array_equal(result, expected, err_msg=case.name)


OPERATORS = sorted({name for _, name in OP_TABLE} & set(_supported()))


@pytest.mark.parametrize("operator", OPERATORS)
def test_node_cases(operator):
    """Each case gives the expected outputs, or says in words that a type or a mode is not supported."""
    refused = 0
    with np.errstate(all="ignore"):
        for case in _supported()[operator]:
            if case.name in EXPECTED_DIFFERENCES:
                continue
            try:
                _check(case)
            except NotSupported as error:
                assert str(error)
                refused += 1
    assert refused < len(_supported()[operator])


def test_most_of_the_table_has_a_case():
    assert len(OPERATORS) > 120


def test_unsupported_models_name_every_node():
    """A model with unknown operators lists all of them in one error."""
    case = next(c for c in CASES if c.name == "test_nonmaxsuppression_limit_output_size")
    model = _load(case)
    with pytest.raises(UnsupportedModel, match="Could not find an implementation for NonMaxSuppression"):
        run(model.proto, {v.name: x for v, x in zip(model.inputs, _data_sets(case)[0][0])})
