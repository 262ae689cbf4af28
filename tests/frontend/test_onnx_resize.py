"""Resize against onnxruntime at ties and borders, and against ONNX where the two differ."""

import numpy as np
import pytest
from onnx_models import run_op
from test_onnx_operators import compare, uniform

SYMMETRIC = "half_pixel_symmetric"
COORDINATES = (
    "half_pixel",
    SYMMETRIC,
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
)
# 1 / (2 / 7), 3 / (6 / 5) … are beside the middle of two pixels, or beside a pixel, in float32
SIZES = [(7, 2), (10, 12), (13, 16), (5, 17), (3, 11), (19, 27), (29, 7), (6, 25)]


@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_nearest_falls_to_the_same_pixel(coordinates, rounding):
    for size, output in SIZES:
        x = np.arange(size, dtype=np.float32).reshape(1, 1, 1, size)
        region = np.array([0, 0, 0, 0.1, 1, 1, 1, 0.9], np.float32) if "crop" in coordinates else None
        inputs = [x, region, None, np.array([1, 1, 2, output])]
        compare(
            "Resize",
            inputs,
            opset=19,
            constants=[3] if region is None else [1, 3],
            coordinate_transformation_mode=coordinates,
            nearest_mode=rounding,
        )


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("attributes", [{}, {"antialias": 1}, {"exclude_outside": 1}])
@pytest.mark.parametrize("coordinates", ["half_pixel", SYMMETRIC, "pytorch_half_pixel", "asymmetric"])
def test_fractional_scales(coordinates, attributes, mode):
    if mode == "linear" and "exclude_outside" in attributes:
        pytest.skip("is of cubic only")
    for scales in ([2.3, 0.3], [0.75, 1.5], [1, 3]):
        compare(
            "Resize",
            [uniform(1, 2, 7, 6), None, np.array(scales, np.float32)],
            opset=19,
            constants=[2],
            tolerance=1e-4,
            mode=mode,
            axes=[2, 3],
            coordinate_transformation_mode=coordinates,
            **attributes,
        )


def test_policies():
    for policy in ("not_larger", "not_smaller"):
        for sizes in ([9, 5], [3, 13]):
            compare(
                "Resize",
                [uniform(1, 2, 7, 6), None, None, np.array(sizes)],
                opset=19,
                constants=[3],
                mode="linear",
                tolerance=1e-4,
                axes=[3, 2],
                keep_aspect_ratio_policy=policy,
            )


def test_a_region_counts_also_where_the_size_stays():
    """onnxruntime reads the whole of an axis whose scale is 1; ONNX's text and its evaluator do not."""
    x = np.arange(5, dtype=np.float32).reshape(1, 1, 1, 5)
    region = np.array([0, 0, 0, 0.5, 1, 1, 1, 1], np.float32)
    (y,) = run_op(
        "Resize",
        [x, region, np.ones(4, np.float32)],
        opset=13,
        constants=[1, 2],
        mode="linear",
        coordinate_transformation_mode="tf_crop_and_resize",
    )
    np.testing.assert_allclose(y.reshape(-1), [2, 2.5, 3, 3.5, 4])


def test_corners_align_by_the_fractional_length():
    """ONNX's own tests divide by scale · size - 1 = 1.4; onnxruntime by the output's size less one."""
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 1, 4)
    (y,) = run_op(
        "Resize",
        [x, None, np.array([1, 1, 1, 0.6], np.float32)],
        opset=13,
        constants=[2],
        mode="linear",
        coordinate_transformation_mode="align_corners",
    )
    np.testing.assert_allclose(y.reshape(-1), [0, 3 / 1.4], 1e-6)


@pytest.mark.parametrize("scale,size", [(4 / 3, 3), (2.2, 5), (1.1, 10), (3, 7)])
def test_corners_align_with_the_output_where_its_length_is_whole(scale, size):
    x = np.arange(size, dtype=np.float32).reshape(1, 1, 1, size)
    scales = np.array([1, 1, 1, scale], np.float32)
    mode = {"coordinate_transformation_mode": "align_corners"}
    compare("Resize", [x, None, scales], opset=13, constants=[2], nearest_mode="floor", **mode)
    compare("Resize", [x, None, scales], opset=13, constants=[2], mode="linear", **mode)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_first_versions(mode):
    for scales in ([1.0, 1.0, 2.0, 3.0], [1.0, 1.0, 2.3, 1.5]):
        inputs = [uniform(1, 2, 4, 5), np.array(scales, np.float32)]
        compare("Upsample", inputs, opset=9, constants=[1], mode=mode)
        compare("Upsample", inputs[:1], opset=7, mode=mode, scales=scales)
        compare("Resize", inputs, opset=10, constants=[1], mode=mode)
    shrinking = np.array([1, 1, 0.5, 0.3], np.float32)
    compare("Resize", [uniform(1, 2, 8, 9), shrinking], opset=10, constants=[1], mode=mode)


def test_integers():
    x = np.arange(42, dtype=np.uint8).reshape(1, 1, 6, 7) * 5
    scales = np.array([1.5, 0.5], np.float32)
    compare("Resize", [x, None, scales], opset=19, constants=[2], mode="linear", axes=[2, 3])
    compare("Resize", [x, None, scales], opset=19, constants=[2], mode="linear", antialias=1, axes=[2, 3])
    # a cubic overshoots, and stays within the type
    edge = np.array([0, 0, 255, 255], np.uint8).reshape(1, 1, 1, 4)
    (y,) = run_op("Resize", [edge, None, np.array([4.0], np.float32)], opset=19, mode="cubic", axes=[3])
    assert y.min() == 0 and y.max() == 255 and (np.diff(y.reshape(-1).astype(int)) >= 0).all()
