"""Golden vectors of targets that store halves: their own tolerances, and inputs that halves suit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from small_models import affine

from tinyinfer.bundle.golden import FLOATS
from tinyinfer.bundle.source import Source, read_source
from tinyinfer.bundle.vectors import CLOSE, HALVES, make_vectors
from tinyinfer.errors import Fail
from tinyinfer.frontend.onnx import load_model
from tinyinfer.ir.oracle import evaluate

Arrays = Sequence[np.ndarray]


@pytest.fixture(scope="module")
def source() -> Source:
    return read_source(load_model(affine()))


def _right(source: Source, feeds: Arrays) -> list[np.ndarray]:
    return evaluate(list(source.graph.outputs.values()), dict(zip(source.graph.inputs, feeds)))


def test_halves_have_tolerances_of_their_own(source: Source):
    def coarse(feeds: Arrays) -> list[np.ndarray]:
        return [array * np.float32(1.02) for array in _right(source, feeds)]

    exact = {"exact": lambda feeds: _right(source, feeds)}
    made = make_vectors(source, {}, exact, {"coarse": coarse, "elsewhere": None})
    assert all(0 < error.allowed <= CLOSE["float32"] * error.scale for error in made.errors)
    assert all(o.absolute == e.allowed for v in made.vectors for o, e in zip(v.outputs, made.errors))
    for error in made.in_halves["coarse"]:
        assert 0 < error.seen < error.allowed == 4 * error.seen
    for error in made.in_halves["elsewhere"]:
        assert error.seen == 0 and CLOSE["float32"] * error.scale < error.allowed <= HALVES * error.scale


def test_inputs_that_halves_suit_are_found(source: Source):
    def coarse_near_zero(feeds: Arrays) -> list[np.ndarray]:
        off = np.float32(0.2 if feeds[0].max() < 2 else 0.001)
        return [array * (1 + off) for array in _right(source, feeds)]

    made = make_vectors(source, {}, {}, {"coarse": coarse_near_zero})
    for vector in made.vectors:
        assert vector.inputs[0].kind == FLOATS and vector.inputs[0].high == 255
    assert all(error.relative < 0.002 for error in made.in_halves["coarse"])


def test_what_is_wrong_in_halves_is_refused(source: Source):
    wrong = {"qcom:a630": lambda feeds: [array * 2 for array in _right(source, feeds)]}
    with pytest.raises(
        Fail, match="'y': the code of qcom:a630 differs .* or halves are too coarse .*--input"
    ):
        make_vectors(source, {}, {}, wrong)
    with pytest.raises(Fail, match="it is wrong, and makes no bundle"):
        make_vectors(source, {}, wrong)
