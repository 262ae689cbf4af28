"""The onnx package's own backend tests, through a session on the compiled CPU device.

A case that uses what is not supported must say so in words before anything runs; it counts as skipped. CI
runs a part of the suite; `-m sweep` runs all of it.
"""

from collections import Counter

import numpy as np
import pytest
from onnx_suite import AS_ONNXRUNTIME, CASES, LIGHT_MODELS, assert_as_expected, data_sets, light_model, source

import tinyinfer
from tinyinfer.errors import NotImplemented as NotSupported

EVERY = 12
"""CI runs one case of so many."""

ALWAYS = frozenset(
    (
        # values without elements
        "test_causal_conv_with_state_kernel_size_one_expanded",
        "test_reduce_l2_empty_set_expanded",
        "test_reduce_log_sum_exp_empty_set",
        "test_reduce_max_empty_set",
        "test_reduce_max_empty_set_bool",
        "test_reduce_min_empty_set",
        "test_reduce_prod_empty_set",
        "test_reduce_sum_empty_set",
        "test_reduce_sum_empty_set_non_reduced_axis_zero",
        "test_reshape_allowzero_reordered",
        "test_slice_start_out_of_bounds",
        "test_tril_zero",
        "test_triu_zero",
        # integer powers
        "test_pow_types_int32_int32",
        "test_pow_types_int64_int64",
        # indices that differ only in the table that they read
        "test_resize_upsample_sizes_nearest_not_larger",
        "test_resize_upsample_sizes_nearest_not_smaller",
        # rounding of float16
        "test_attention_4d_fp16_expanded",
        "test_causal_conv_with_state_silu_fp16_expanded",
        # inputs that are no tensor of the IR's dtypes
        "test_cast_FLOAT8E4M3FN_to_FLOAT",
        "test_cast_INT4_to_FLOAT",
        "test_identity_sequence",
        "test_optional_has_element_empty_optional_input",
    )
)
"""Cases that found a defect once."""

SUPPORTED_AT_LEAST = 1300
"""Of the whole suite; what is supported may grow but not shrink."""

tally: Counter[str] = Counter()


def check(case):
    """Run a case; skipped where it is refused in words."""
    if case.name in AS_ONNXRUNTIME:
        pytest.skip(AS_ONNXRUNTIME[case.name])
    try:
        session = tinyinfer.InferenceSession(source(case), providers=["CPU"])
        names = [value.name for value in session.get_inputs()]
        for inputs, expected in data_sets(case):
            assert_as_expected(session.run(None, dict(zip(names, inputs))), expected, case)
    except NotSupported as error:
        assert str(error)
        tally["refused"] += 1
        pytest.skip(f"not supported: {str(error).splitlines()[0]}")
    tally["passed"] += 1


def of_cases(cases):
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


@of_cases([case for i, case in enumerate(CASES) if i % EVERY == 0 or case.name in ALWAYS])
def test_part_of_the_suite(case):
    check(case)


@pytest.mark.sweep
class TestWholeSuite:
    @of_cases(CASES)
    def test_case(self, case):
        check(case)

    def test_tally(self):
        """Most cases are supported; the numbers are in the output of `-rP`."""
        if sum(tally.values()) < len(CASES) - len(AS_ONNXRUNTIME):
            pytest.skip("not all cases ran")
        print(f"{tally['passed']} of {len(CASES)} cases passed, {tally['refused']} refused in words")
        assert tally["passed"] >= SUPPORTED_AT_LEAST


@pytest.mark.sweep
@pytest.mark.parametrize("path", LIGHT_MODELS, ids=lambda path: path.stem)
def test_light_model(path):
    """Published networks with made-up weights."""
    feeds, expected = light_model(path)
    (result,) = tinyinfer.InferenceSession(path, providers=["CPU"]).run(None, feeds)
    np.testing.assert_allclose(result, expected, 1e-3, 1e-7)


def test_every_case_that_found_a_defect_exists():
    assert {case.name for case in CASES} >= ALWAYS
