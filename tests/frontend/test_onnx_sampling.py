"""Reads at positions that are data (grids, deformable patches, regions), against onnxruntime."""

import numpy as np
import pytest
from onnx import helper
from onnx_models import feeds_of, one_op, run, run_op
from test_onnx_operators import RNG, compare, uniform

import tinyinfer

ort = pytest.importorskip("onnxruntime")

PADDINGS = ("zeros", "border", "reflection")
IMAGES = [((2, 3, 5, 7), (2, 4, 6, 2)), ((1, 1, 1, 1), (1, 8, 8, 2)), ((1, 2, 1, 6), (1, 9, 9, 2))]
VOLUME = ((1, 2, 4, 3, 5), (1, 3, 3, 3, 3))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("opset,mode", [(16, "bilinear"), (16, "nearest"), (16, "bicubic"), (20, "cubic")])
def test_grid_sample(opset, mode, padding):
    shapes = IMAGES if "cubic" in mode else [*IMAGES, VOLUME] if opset >= 20 else IMAGES
    for x, grid in shapes:
        for reach in (1, 1.6, 30):  # within, around and far outside of the image
            for align in (0, 1):
                inputs = [uniform(*x), uniform(*grid) * np.float32(reach)]
                attributes = {"mode": mode, "padding_mode": padding, "align_corners": align}
                compare("GridSample", inputs, opset=opset, tolerance=1e-4, **attributes)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("padding", PADDINGS)
def test_grid_sample_of_volumes(mode, padding):
    x, grid = VOLUME
    inputs = [uniform(*x), uniform(*grid) * np.float32(1.5)]
    compare("GridSample", inputs, opset=20, tolerance=1e-4, mode=mode, padding_mode=padding)


def test_grid_sample_of_cubes_is_separable():
    """onnxruntime has no cubic of three dimensions: a volume that is a product of lines has that answer."""
    lines = [uniform(1, 1, 1, n, dtype="float64") for n in (4, 3, 5)]
    volume = np.einsum("i,j,k->ijk", *(line.reshape(-1) for line in lines))[None, None]
    grid = uniform(1, 2, 2, 2, 3, dtype="float64")
    (y,) = run_op("GridSample", [volume, grid], opset=20, mode="cubic")
    expected = np.ones(8)
    for axis, line in enumerate(lines):
        flat = np.zeros((1, 1, 8, 2))
        flat[..., 0] = grid[..., 2 - axis].reshape(-1)
        (along,) = run_op("GridSample", [line, flat], opset=20, mode="cubic", align_corners=0)
        # the row of one pixel is hit in its middle, where the weight of its own tap is 1
        expected *= along.reshape(-1)
    np.testing.assert_allclose(y.reshape(-1), expected, atol=1e-12)


def test_grid_sample_of_integers_and_halves():
    x, grid = RNG.integers(0, 255, (1, 2, 4, 5)).astype(np.uint8), uniform(1, 3, 3, 2)
    (y,) = run_op("GridSample", [x, grid], opset=20)
    (wide,) = run_op("GridSample", [x.astype(np.float32), grid], opset=20)
    np.testing.assert_array_equal(y, wide.astype(np.uint8))
    half = uniform(1, 2, 4, 5, dtype="float16"), uniform(1, 3, 3, 2, dtype="float16")
    (y,) = run_op("GridSample", half, opset=20)
    (wide,) = run_op("GridSample", [h.astype(np.float32) for h in half], opset=20)
    np.testing.assert_array_equal(y, wide.astype(np.float16))


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("padding", PADDINGS)
def test_grids_of_no_numbers_read_nothing_outside(mode, padding):
    x = uniform(1, 1, 4, 4)
    grid = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e10], np.float32).reshape(1, 3, 1, 2)
    model = one_op("GridSample", [x, grid], opset=20, mode=mode, padding_mode=padding)
    (y,) = tinyinfer.InferenceSession(model, providers=["CPU"]).run(None, feeds_of(model, [x, grid]))
    assert y.shape == (1, 1, 3, 1)


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 3, 3, 4, 5)])
def test_affine_grid(size, align):
    rank = len(size) - 2
    inputs = [uniform(2, rank, rank + 1), np.array(size)]
    compare("AffineGrid", inputs, opset=20, constants=[1], align_corners=align)


DEFORMED = [
    {"kernel_shape": [3, 3]},
    {"group": 2, "offset_group": 3, "strides": [2, 1], "dilations": [1, 2], "pads": [1, 2, 0, 1]},
    {"group": 6, "offset_group": 6, "strides": [3, 3]},
]


@pytest.mark.parametrize("opset", [19, 22])
@pytest.mark.parametrize("attributes", DEFORMED)
def test_deformable_convolution(attributes, opset):
    kernel = (3, 3) if "kernel_shape" in attributes else (3, 2)
    parts = attributes.get("offset_group", 1)
    pads, strides, dilations = (
        attributes.get(n, d) for n, d in (("pads", [0] * 4), ("strides", [1, 1]), ("dilations", [1, 1]))
    )
    outputs = [
        (d + pads[i] + pads[2 + i] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1
        for i, d in enumerate((8, 9))
    ]
    x, w = uniform(2, 6, 8, 9), uniform(12, 6 // attributes.get("group", 1), *kernel)
    taps = parts * kernel[0] * kernel[1]
    offsets, mask = 4 * uniform(2, taps * 2, *outputs), uniform(2, taps, *outputs)
    compare("DeformConv", [x, w, offsets], opset=opset, tolerance=1e-4, **attributes)
    compare("DeformConv", [x, w, offsets, uniform(12), mask], opset=opset, tolerance=1e-4, **attributes)


def test_deformable_convolution_of_volumes_without_shifts_is_a_convolution():
    x, w = uniform(1, 2, 4, 5, 6, dtype="float64"), uniform(3, 2, 2, 3, 2, dtype="float64")
    (expected,) = run_op("Conv", [x, w], opset=22, pads=[1, 0, 1, 0, 1, 0])
    offsets = np.zeros((1, 12 * 3, *expected.shape[2:]))
    (y,) = run_op("DeformConv", [x, w, offsets], opset=22, pads=[1, 0, 1, 0, 1, 0])
    np.testing.assert_allclose(y, expected, atol=1e-12)


def regions(count, size, ordered=True):
    """Rectangles [x1, y1, x2, y2] within and around a square of `size`."""
    a, b = RNG.uniform(-0.2 * size, 1.2 * size, (2, count, 2)).astype(np.float32)
    return np.concatenate([np.minimum(a, b), np.maximum(a, b)] if ordered else [a, b], 1)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 1, 3])
@pytest.mark.parametrize("opset,pixel", [(10, None), (16, "half_pixel"), (16, "output_half_pixel")])
def test_roi_align(opset, pixel, ratio, mode):
    for scale in (1.0, 0.3):
        x, rois, batch = uniform(3, 4, 9, 13), regions(11, 12 / scale), RNG.integers(0, 3, 11)
        attributes = {"mode": mode, "sampling_ratio": ratio, "output_height": 3, "output_width": 4}
        if pixel:
            attributes["coordinate_transformation_mode"] = pixel
        inputs = [x, rois, batch]
        compare("RoiAlign", inputs, opset=opset, tolerance=1e-4, spatial_scale=scale, **attributes)


def test_roi_align_of_tiny_huge_and_empty_regions():
    rois = [
        [1, 1, 1.01, 1.02],
        [-100, -90, 100, 120],
        [0, 0, 6, 6],
        [2, 2, 2, 2],
        [5, 5, 8, 8],
        [-1, -1, 6, 6],
    ]
    inputs = [uniform(1, 2, 6, 6), np.array(rois, np.float32), np.zeros(6, np.int64)]
    for opset in (10, 16):
        compare("RoiAlign", inputs, opset=opset, tolerance=1e-4, output_height=2, output_width=2)
    # onnxruntime refuses regions of negative size, in which there is no point
    inverted = np.array([[4, 4, 1, 5], [4, 4, 5, 1]], np.float32)
    (y,) = run_op("RoiAlign", [inputs[0], inverted, np.zeros(2, np.int64)], opset=16)
    assert not y.any()


def test_a_region_of_an_image_that_is_not_there_reads_nothing():
    for op, inputs in (
        ("RoiAlign", [uniform(1, 1, 4, 4), np.array([[0, 0, 3, 3]], np.float32), np.array([7])]),
        ("RoiAlign", [uniform(1, 1, 4, 4), np.array([[0, 0, 3, 3]], np.float32), np.array([-1])]),
    ):
        model = one_op(op, inputs, opset=16)
        (y,) = tinyinfer.InferenceSession(model, providers=["CPU"]).run(None, feeds_of(model, inputs))
        assert not y.any()


@pytest.mark.parametrize("ordered", [True, False])
def test_max_roi_pool(ordered):
    for scale, shape in ((1.0, [3, 4]), (0.5, [2, 1])):
        rois = np.concatenate([RNG.integers(0, 3, (11, 1)), regions(11, 12 / scale, ordered)], 1)
        inputs = [uniform(3, 4, 9, 13), rois.astype(np.float32)]
        compare("MaxRoiPool", inputs, opset=7, pooled_shape=shape, spatial_scale=scale)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [(4, 5), (1, 1), (1, 3)])
def test_crop_and_resize(mode, size):
    inputs = [
        uniform(3, 4, 9, 13),
        regions(8, 1),
        RNG.integers(0, 3, 8).astype(np.int32),
        np.array(size, np.int32),
    ]
    attributes = {"mode": mode, "extrapolation_value": 2.5}
    model = one_op("CropAndResize", inputs, constants=[3], domain="com.microsoft", **attributes)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    feeds = feeds_of(model, inputs)
    (expected,) = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, feeds
    )
    np.testing.assert_allclose(run(model, feeds)[0], expected, 1e-4, 1e-5)


REFUSED = [
    ("GridSample", 20, [uniform(1, 1, 4, 4), uniform(1, 2, 2, 3)], {}, "the grid must be"),
    ("GridSample", 16, [uniform(1, 1, 4, 4), uniform(1, 2, 2, 2)], {"mode": "linear"}, "must be one of"),
    ("RoiAlign", 16, [uniform(1, 1, 4, 4), uniform(2, 4), np.zeros(3, np.int64)], {}, "batch_indices"),
    ("RoiAlign", 16, [uniform(1, 1, 4, 4), uniform(2, 5), np.zeros(2, np.int64)], {}, "'rois' must be"),
    ("MaxRoiPool", 7, [uniform(1, 1, 4, 4), uniform(2, 5)], {}, "'pooled_shape' is missing"),
    ("DeformConv", 19, [uniform(1, 1, 4, 4), uniform(1, 1, 2, 2), uniform(1, 8, 4, 4)], {}, "the offsets"),
]


@pytest.mark.parametrize("op,opset,inputs,attributes,message", REFUSED)
def test_refusals(op, opset, inputs, attributes, message):
    with pytest.raises(ValueError, match=message):
        run_op(op, inputs, opset=opset, **attributes)


def test_indices_beyond_32_bits_are_out_of_range():
    """A gather takes 32-bit offsets; its guard must still see all 64 bits of the index."""
    x = uniform(4, 40)
    indices = np.tile(np.arange(4)[:, None], (1, 40))
    indices[:, 1::2] += 1 << 32
    model = one_op("GatherElements", [x, indices], opset=13, axis=0)
    (y,) = tinyinfer.InferenceSession(model, providers=["CPU"]).run(None, feeds_of(model, [x, indices]))
    np.testing.assert_array_equal(y[:, ::2], x[:, ::2])
    assert not y[:, 1::2].any()
