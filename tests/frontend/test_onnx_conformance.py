"""The onnx package's own node tests: every operator of the table, imported and evaluated by the oracle."""

import functools
from collections import defaultdict

import numpy as np
import pytest
from onnx_models import run
from onnx_suite import CASES, WRONG, assert_as_expected, data_sets, source

from tinyinfer.errors import NotImplemented as NotSupported
from tinyinfer.frontend.onnx import blockers, load_model
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
    for inputs, expected in data_sets(case):
        feeds = dict(zip((v.name for v in model.inputs), inputs))
        assert_as_expected(run(model.full_proto(), feeds), expected, case)


OPERATORS = sorted({name for _, name in OP_TABLE} & set(_supported()))


@pytest.mark.parametrize("operator", OPERATORS)
def test_node_cases(operator):
    """Each case gives the expected outputs, or says in words that a type or a mode is not supported."""
    refused = 0
    with np.errstate(all="ignore"):
        for case in _supported()[operator]:
            if case.name in WRONG:
                continue
            try:
                _check(case)
            except NotSupported as error:
                assert str(error)
                refused += 1
    assert refused < len(_supported()[operator])


def test_most_of_the_table_has_a_case():
    assert len(OPERATORS) > 120
