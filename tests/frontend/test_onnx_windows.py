"""Windows and their transposes, places of maxima, determinants, crops and reversals, against onnxruntime."""

import numpy as np
import pytest
from onnx_models import feeds_of, one_op, run_op
from test_onnx_operators import RNG, compare, uniform

import tinyinfer


def compiled(op, inputs, **options):
    """The outputs of one node on the compiled CPU device."""
    model = one_op(op, inputs, **options)
    return tinyinfer.InferenceSession(model, providers=["CPU"]).run(None, feeds_of(model, inputs))


POOLED = [
    ((2, 3, 7), {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
    ((2, 3, 8, 9), {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 1, 1]}),
    ((2, 3, 8, 9), {"kernel_shape": [2, 3], "dilations": [3, 2], "pads": [1, 1, 1, 1]}),
    ((1, 2, 7, 6), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ((1, 2, 7, 6), {"kernel_shape": [3, 3], "auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ((1, 2, 4, 5, 6), {"kernel_shape": [2, 3, 2], "strides": [1, 2, 2], "pads": [0, 1, 1, 0, 1, 1]}),
]


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("shape,attributes", POOLED)
def test_places_of_maxima(shape, attributes, order):
    compare("MaxPool", [uniform(*shape)], outputs=2, opset=12, storage_order=order, **attributes)
    ties = RNG.integers(-2, 2, shape).astype(np.float32)
    compare("MaxPool", [ties], outputs=2, opset=12, storage_order=order, **attributes)


def test_places_of_maxima_of_small_integers_and_of_nothing_but_the_lowest():
    lowest = np.full((1, 1, 4, 4), -128, np.int8)
    compare("MaxPool", [lowest], outputs=2, opset=12, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    lowest = np.full((1, 1, 4, 4), -np.inf, np.float32)
    places = run_op("MaxPool", [lowest], outputs=2, opset=12, kernel_shape=[3, 3], pads=[1, 1, 1, 1])[1]
    np.testing.assert_array_equal(places[0, 0, 0], [0, 0, 1, 2])


@pytest.mark.parametrize("kernel", [2, 3])
def test_unpooling_inverts_pooling(kernel):
    x = RNG.permutation(np.arange(2 * 3 * 36, dtype=np.float32)).reshape(2, 3, 6, 6)
    attributes = {"kernel_shape": [kernel] * 2, "strides": [kernel] * 2}
    values, places = run_op("MaxPool", [x], outputs=2, opset=12, **attributes)
    compare("MaxUnpool", [values, places], opset=11, **attributes)
    (y,) = compiled("MaxUnpool", [values, places], opset=22, **attributes)
    np.testing.assert_array_equal(y, np.where(np.isin(x, values), x, 0))


def test_unpooling_drops_what_is_out_of_range():
    x, places = uniform(1, 1, 2, 2), np.array([[[[0, -1], [1 << 40, 15]]]])
    (y,) = compiled("MaxUnpool", [x, places], opset=11, kernel_shape=[2, 2], strides=[2, 2])
    assert y[0, 0, 0, 0] == x[0, 0, 0, 0] and y[0, 0, 3, 3] == x[0, 0, 1, 1]
    assert np.count_nonzero(y) == 2


BLOCKS = [
    ((10, 12), (3, 2), {}),
    ((10, 12), (3, 4), {"strides": [2, 3], "pads": [1, 0, 2, 1]}),
    ((10, 12), (3, 2), {"dilations": [2, 3], "strides": [1, 2], "pads": [1, 1, 1, 1]}),
    ((4, 5, 6), (2, 1, 3), {"strides": [2, 1, 2]}),
]


@pytest.mark.parametrize("image,block,attributes", BLOCKS)
def test_column_to_image(image, block, attributes):
    rank = len(image)
    pads = attributes.get("pads", [0] * 2 * rank)
    strides, dilations = (attributes.get(n, [1] * rank) for n in ("strides", "dilations"))
    blocks = [
        (d + pads[i] + pads[rank + i] - (block[i] - 1) * dilations[i] - 1) // strides[i] + 1
        for i, d in enumerate(image)
    ]
    x = uniform(2, 3 * int(np.prod(block)), int(np.prod(blocks)))
    compare("Col2Im", [x, np.array(image), np.array(block)], opset=18, constants=[1, 2], **attributes)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 20])
def test_determinants(size):
    x = RNG.standard_normal((2, 3, size, size))
    (y,) = run_op("Det", [x], opset=11)
    np.testing.assert_allclose(y, np.linalg.det(x), 1e-9)
    (y,) = compiled("Det", [x], opset=22)
    np.testing.assert_allclose(y, np.linalg.det(x), 1e-9)


def test_determinants_of_singular_and_permuted_matrices():
    singular = np.ones((5, 5), np.float32)
    assert run_op("Det", [singular], opset=11)[0] == 0
    order = RNG.permutation(6)
    permutation = np.eye(6, dtype=np.float32)[order]
    assert run_op("Det", [permutation], opset=11)[0] == np.linalg.det(permutation)
    assert run_op("Det", [np.zeros((2, 0, 0), np.float32)], opset=11)[0].tolist() == [1, 1]
    with pytest.raises(ValueError, match="square matrices"):
        run_op("Det", [uniform(2, 3)], opset=11)


@pytest.mark.parametrize("sizes", [(7, 2), (4, 9), (5, 6), (0, 3)])
def test_center_crop_pad(sizes):
    x = uniform(5, 6, dtype="float64")
    (y,) = run_op("CenterCropPad", [x, np.array(sizes)], opset=18, constants=[1])
    expected = np.zeros(sizes)
    cut = [slice(max(d - s, 0) // 2, max(d - s, 0) // 2 + min(d, s)) for d, s in zip(x.shape, sizes)]
    into = [slice(max(s - d, 0) // 2, max(s - d, 0) // 2 + min(d, s)) for d, s in zip(x.shape, sizes)]
    expected[tuple(into)] = x[tuple(cut)]
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("time", [0, 1])
@pytest.mark.parametrize("constants", [(), (1,)])
def test_reverse_sequence(time, constants):
    x = uniform(4, 5, 3)
    lengths = RNG.integers(0, x.shape[time] + 1, x.shape[1 - time])
    attributes = {"time_axis": time, "batch_axis": 1 - time}
    if lengths.min():
        compare("ReverseSequence", [x, lengths], opset=10, constants=constants, **attributes)
    (y,) = run_op("ReverseSequence", [x, lengths], opset=10, constants=constants, **attributes)
    expected = np.moveaxis(x, time, 1).copy()
    for row, n in zip(expected, lengths):
        row[:n] = row[:n][::-1]
    np.testing.assert_array_equal(np.moveaxis(y, time, 1), expected)


def test_reverse_sequence_of_a_length_that_is_none():
    x, lengths = uniform(4, 2), np.array([1 << 40, -5])
    compiled("ReverseSequence", [x, lengths], opset=10)
    with pytest.raises(ValueError, match="beyond 0 to 4"):
        run_op("ReverseSequence", [x, lengths], opset=10, constants=[1])
