"""When two outputs count as the same."""

import numpy as np
import pytest

from tinyinfer.runtime.comparison import compare_arrays

F = np.float32


def test_errors_are_measured_against_the_range():
    expected = np.array([100.0, 101.0], F)
    found = compare_arrays(expected + F(0.001), expected)
    assert found.absolute == pytest.approx(0.001, rel=0.05) and found.relative == pytest.approx(
        0.001, rel=0.05
    )
    assert not found.passed and "1e-04 allowed" in str(found.problem)
    assert compare_arrays(expected + F(0.001), expected, tolerance=0.01).passed


def test_half_precision_is_allowed_its_rounding():
    expected = np.linspace(0, 1, 50).astype(np.float16)
    assert compare_arrays((expected * np.float16(1.005)).astype(np.float16), expected).passed
    assert not compare_arrays((expected * np.float16(1.1)).astype(np.float16), expected).passed


def test_equal_and_constant_outputs():
    same = np.full(4, 7, F)
    assert compare_arrays(same, same) == compare_arrays(same.copy(), same)
    assert compare_arrays(same, same).relative == 0
    assert compare_arrays(same + F(0.01), same).relative == pytest.approx(0.01 / 7, rel=0.01)
    assert compare_arrays(np.zeros(0, F), np.zeros(0, F)).passed


def test_the_rounding_of_one_in_a_tiny_range_passes():
    expected = np.array([0, 1e-6], F)
    assert compare_arrays(expected + F(1e-7), expected).passed
    assert not compare_arrays(expected + F(1e-6), expected).passed


@pytest.mark.parametrize(
    "actual, expected, passes",
    [
        ([np.nan, 1], [np.nan, 1], True),
        ([np.nan, 1], [1, np.nan], False),
        ([np.inf, 1], [np.inf, 1], True),
        ([np.inf, 1], [-np.inf, 1], False),
        ([np.inf, 1], [5, 1], False),
        ([np.nan, np.nan], [np.nan, np.nan], True),
    ],
)
def test_what_is_not_finite_must_be_so_in_both(actual, expected, passes):
    assert compare_arrays(np.array(actual, F), np.array(expected, F)).passed is passes


@pytest.mark.parametrize(
    "dtype, step, passes",
    [("int64", 1, False), ("int32", 0, True), ("uint8", 1, True), ("int8", 2, False), ("bool", 1, False)],
)
def test_integers(dtype, step, passes):
    expected = np.array([0, 1, 0], dtype)
    actual = (expected.astype(int) + [step, 0, 0]).astype(dtype)
    assert compare_arrays(actual, expected).passed is passes


def test_shapes_dtypes_and_strings():
    assert "instead of" in str(compare_arrays(np.zeros((1, 2), F), np.zeros(2, F)).problem)
    assert not compare_arrays(np.zeros(2), np.zeros(2, F)).passed
    assert compare_arrays(np.array(["a"], object), np.array(["a"], object)).passed
    assert not compare_arrays(np.array(["a"], object), np.array(["b"], object)).passed
