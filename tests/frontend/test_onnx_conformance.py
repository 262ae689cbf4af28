"""The onnx package's own node tests: every operator of the table, imported and evaluated by the oracle."""

import functools
from collections import defaultdict

import numpy as np
import pytest
from onnx_models import run
from onnx_suite import AS_ONNXRUNTIME, CASES, data_sets, source

from tinyinfer.errors import NotImplemented as NotSupported
from tinyinfer.frontend.onnx import UnsupportedModel, blockers, load_model
from tinyinfer.frontend.onnx.op_table import OP_TABLE


@functools.cache
def _supported():
    """The cases by operator that the table covers."""
    found = defaultdict(list)
    for case in CASES:
        model = load_model(source(case))
        if all(v.onnx_type.startswith("tensor(") for v in model.inputs) and not blockers(model):
            found[model.proto.graph.node[0].op_type if model.node_count else ""].append(case)
    return found


def _check(case):
    model = load_model(source(case))
    for inputs, outputs in data_sets(case):
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
            if case.name in AS_ONNXRUNTIME:
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
    model = load_model(source(case))
    with pytest.raises(UnsupportedModel, match="Could not find an implementation for NonMaxSuppression"):
        run(model.proto, {v.name: x for v, x in zip(model.inputs, data_sets(case)[0][0])})
