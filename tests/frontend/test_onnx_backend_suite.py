"""The onnx package's own backend tests, all of them, through a session on the compiled CPU device.

Each case has the tolerance that the package gives it. A case in WRONG fails by its own fault; when one of
them starts to pass, that fails, too.
"""

import numpy as np
import pytest
from onnx_suite import CASES, LIGHT_MODELS, WRONG, assert_as_expected, data_sets, light_model, source

import tinyinfer
from tinyinfer.runtime import defaults


def of_case(case):
    wrong = WRONG.get(case.name)
    marks = [pytest.mark.xfail(raises=AssertionError, strict=True, reason=wrong)] if wrong else []
    return pytest.param(case, id=case.name, marks=marks)


@pytest.mark.parametrize("case", [of_case(case) for case in CASES])
def test_case(case, monkeypatch):
    monkeypatch.setattr(defaults, "_SEED", 0)  # cases of random numbers draw the same in every run
    session = tinyinfer.InferenceSession(source(case), providers=["CPU"])
    names = [value.name for value in session.get_inputs()]
    for inputs, expected in data_sets(case):
        assert_as_expected(session.run(None, dict(zip(names, inputs))), expected, case)


@pytest.mark.parametrize("path", LIGHT_MODELS, ids=lambda path: path.stem)
def test_light_model(path):
    """Published networks with made-up weights."""
    feeds, expected = light_model(path)
    (result,) = tinyinfer.InferenceSession(path, providers=["CPU"]).run(None, feeds)
    np.testing.assert_allclose(result, expected, 1e-3, 1e-7)


def test_nothing_is_missing():
    """The suite of onnx 1.23 has 2033 cases; a newer one has more."""
    assert len(CASES) + len(LIGHT_MODELS) >= 2033
    assert {case.name for case in CASES} >= WRONG.keys()
