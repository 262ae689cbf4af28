"""Operators against onnxruntime where it runs the opset, else against numpy: what node tests leave out."""

import numpy as np
import pytest
from onnx_models import feeds_of, one_op, run, run_op

ort = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(7)


def uniform(*shape, dtype="float32"):
    return RNG.uniform(-1, 1, shape).astype(dtype)


def compare(op, inputs, outputs=1, opset=17, constants=(), tolerance=2e-5, **attributes):
    """The oracle's outputs equal onnxruntime's."""
    model = one_op(op, inputs, outputs, opset, constants, **attributes)
    feeds = feeds_of(model, inputs)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    expected = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"]).run(
        None, feeds
    )
    got = run(model, feeds)
    for a, b in zip(expected, got):
        assert a.shape == b.shape and a.dtype == b.dtype
        if a.dtype.kind == "f":
            np.testing.assert_allclose(
                b, a, tolerance, tolerance * max(float(np.abs(a).max(initial=0)), 1e-3)
            )
        else:
            np.testing.assert_array_equal(b, a)


# ---- convolution and pooling

CONVOLUTIONS = [
    ((1, 4, 9), (6, 4, 3), {"pads": [2, 0], "strides": [2]}),
    ((2, 4, 9, 8), (6, 2, 3, 2), {"group": 2, "dilations": [2, 3], "pads": [1, 2, 3, 0]}),
    ((1, 6, 8, 8), (6, 1, 3, 3), {"group": 6, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ((1, 6, 8, 8), (12, 1, 2, 3), {"group": 6, "auto_pad": "SAME_LOWER", "strides": [1, 3]}),
    ((1, 2, 5, 6, 7), (3, 2, 2, 3, 1), {"auto_pad": "VALID", "strides": [1, 2, 3]}),
]


@pytest.mark.parametrize("x,w,attributes", CONVOLUTIONS)
def test_conv(x, w, attributes):
    compare("Conv", [uniform(*x), uniform(*w), uniform(w[0])], constants=(1, 2), **attributes)
    compare("Conv", [uniform(*x), uniform(*w)], **attributes)


TRANSPOSED = [
    ((1, 4, 5), (4, 3, 4), {"strides": [2], "pads": [1, 1]}),
    ((2, 4, 5, 6), (4, 3, 3, 3), {"strides": [2, 3], "output_padding": [1, 2], "pads": [1, 0, 1, 2]}),
    ((1, 4, 5, 6), (4, 2, 3, 2), {"group": 2, "dilations": [2, 3], "strides": [2, 1]}),
    ((1, 6, 4, 4), (6, 1, 4, 4), {"group": 6, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ((1, 4, 5, 6), (4, 2, 2, 2), {"strides": [3, 3], "output_shape": [14, 17]}),
    ((1, 4, 5, 6), (4, 2, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ((1, 4, 5, 6), (4, 2, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ((1, 2, 3, 4, 3), (2, 3, 2, 3, 2), {"strides": [2, 1, 3]}),
]


@pytest.mark.parametrize("x,w,attributes", TRANSPOSED)
def test_conv_transpose(x, w, attributes):
    compare(
        "ConvTranspose",
        [uniform(*x), uniform(*w), uniform(w[1] * attributes.get("group", 1))],
        constants=(1, 2),
        **attributes,
    )


POOLS = [
    {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1},
    {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [1, 1, 0, 0], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"kernel_shape": [3, 3], "auto_pad": "SAME_LOWER", "strides": [2, 2]},
    {"kernel_shape": [2, 3], "auto_pad": "VALID"},
]


@pytest.mark.parametrize("attributes", POOLS)
@pytest.mark.parametrize("size", [(8, 9), (7, 6)])
def test_pools(attributes, size):
    x = uniform(2, 3, *size)
    compare("MaxPool", [x], **attributes)
    compare("AveragePool", [x], **attributes)
    compare("AveragePool", [x], count_include_pad=1, **attributes)
    compare("LpPool", [x], opset=18, p=3, **{k: v for k, v in attributes.items() if k != "ceil_mode"})


def test_dilated_pools():
    x = uniform(1, 2, 9, 9)
    compare("MaxPool", [x], kernel_shape=[2, 3], dilations=[3, 2], pads=[1, 1, 1, 1])
    compare("AveragePool", [x], opset=19, kernel_shape=[2, 3], dilations=[3, 2], pads=[1, 1, 1, 1])


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pools(op):
    compare(op, [uniform(2, 3, 4, 5)])
    compare(op, [uniform(2, 3, 4)])


def test_max_pool_of_integers_ignores_padding():
    compare(
        "MaxPool",
        [RNG.integers(-128, 0, (1, 1, 4, 4)).astype(np.int8)],
        kernel_shape=[3, 3],
        pads=[1, 1, 1, 1],
    )


# ---- opset ranges


@pytest.mark.parametrize("opset", [7, 11, 13, 17])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_family(op, opset, axis):
    compare(op, [uniform(3, 4, 5)], opset=opset, axis=axis)
    compare(op, [uniform(3, 4, 5)], opset=opset)


REDUCTIONS = (
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSumExp",
)


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("opset", [7, 11, 13, 18])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reductions(op, opset, keepdims):
    x = uniform(2, 3, 4, 5)
    compare(op, [x], opset=opset, keepdims=keepdims)
    if opset >= (13 if op == "ReduceSum" else 18):
        compare(op, [x, np.array([1, -1])], opset=opset, constants=(1,), keepdims=keepdims)
        compare(op, [x], opset=opset, keepdims=keepdims, noop_with_empty_axes=0)
    else:
        compare(op, [x], opset=opset, keepdims=keepdims, axes=[1, 3])


def test_axes_that_are_fed_specialise_the_graph():
    compare("ReduceSum", [uniform(2, 3, 4), np.array([1])], opset=13)
    compare("Reshape", [uniform(2, 3, 4), np.array([0, -1])], opset=13)


@pytest.mark.parametrize("opset", [7, 8, 11, 13, 17])
def test_squeeze_and_unsqueeze(opset):
    x = uniform(1, 3, 1, 4)
    if opset < 13:
        compare("Squeeze", [x], opset=opset, axes=[0, 2])
        compare("Unsqueeze", [x], opset=opset, axes=[0, 3])
    else:
        compare("Squeeze", [x, np.array([0, -2])], opset=opset, constants=(1,))
        compare("Unsqueeze", [x, np.array([0, -1])], opset=opset, constants=(1,))
    compare("Squeeze", [x], opset=opset)


def test_clip_opsets():
    x = uniform(3, 4)
    compare("Clip", [x], opset=7, min=-0.5, max=0.25)
    compare("Clip", [x, np.float32(-0.5)], opset=11, constants=(1,))
    compare("Clip", [x, None, np.float32(0.25)], opset=12)
    compare("Clip", [np.arange(9), np.array(2), np.array(5)], opset=12)


def test_split_opsets():
    x = uniform(7, 6)
    compare("Split", [x], 3, opset=11, axis=1)
    compare("Split", [x], 2, opset=11, axis=0, split=[3, 4])
    compare("Split", [x, np.array([2, 4])], 2, opset=13, constants=(1,), axis=-1)
    compare("Split", [x], 3, opset=18, axis=0, num_outputs=3)


def test_pad_modes():
    x = uniform(3, 5, 4)
    compare("Pad", [x], opset=7, pads=[0, 1, 2, 0, 3, 1], value=1.5)
    for mode in ("reflect", "edge"):
        compare("Pad", [x], opset=10, pads=[0, 2, 1, 1, 3, 2], mode=mode)
        compare("Pad", [x, np.array([0, 2, -1, 1, 0, 2])], opset=13, constants=(1,), mode=mode)
    compare("Pad", [x, np.array([0, 2, 1, 1, -3, 2]), np.float32(2)], opset=13, constants=(1, 2))
    compare(
        "Pad", [x, np.array([2, 1, 3, 2]), None, np.array([-1, 0])], opset=18, constants=(1, 3), mode="edge"
    )
    compare("Pad", [x, np.array([0, 2, 1, 1, 3, 2]), np.float32(2)], opset=13, constants=(1,))
    compare("Pad", [x, np.array([0, 2, 1, 1, 7, 5])], opset=19, constants=(1,), mode="wrap")


def test_slice_opsets():
    x = uniform(8, 9, 5)
    compare("Slice", [x], opset=7, starts=[1, -7], ends=[100, -1], axes=[0, 1])
    for starts, ends, axes, steps in (
        ([7, 0], [-100, 9], [0, 1], [-2, 3]),
        ([-1], [0], [2], [-1]),
        ([5], [2], [0], [1]),
    ):
        bounds = [np.array(v) for v in (starts, ends, axes, steps)]
        compare("Slice", [x, *bounds], opset=13, constants=(1, 2, 3, 4))
    compare("Slice", [x, np.array([1]), np.array([3])], opset=10, constants=(1, 2))


def test_batch_normalization_opsets():
    x = uniform(2, 3, 4, 5)
    vectors = [uniform(3), uniform(3), uniform(3), np.abs(uniform(3)) + 0.1]
    for opset in (7, 9, 14, 15):
        compare("BatchNormalization", [x, *vectors], opset=opset, constants=(1, 2, 3, 4), epsilon=1e-3)
    compare("BatchNormalization", [x, *vectors], opset=15)


# ---- broadcasting before opset 7, by the text of ONNX


def test_legacy_broadcasting():
    a, b = uniform(2, 3, 4, 5), uniform(3, 4)
    (got,) = run_op("Add", [a, b], opset=6, broadcast=1, axis=1)
    np.testing.assert_allclose(got, a + b[None, :, :, None])
    (got,) = run_op("Mul", [a, uniform(1)], opset=6, broadcast=1)
    assert got.shape == a.shape
    (got,) = run_op("Greater", [a, b], opset=1, broadcast=1, axis=1)
    np.testing.assert_array_equal(got, a > b[None, :, :, None])
    (got,) = run_op("Gemm", [uniform(2, 3), uniform(3, 4), uniform(4)], opset=6, broadcast=1)
    assert got.shape == (2, 4)
    (got,) = run_op("Reshape", [a], opset=1, shape=[6, -1])
    np.testing.assert_array_equal(got, a.reshape(6, -1))
    (got,) = run_op("Cast", [a], opset=1, to="INT32")
    assert got.dtype == np.int32
    (got,) = run_op("Tile", [a, np.float32(2), np.float32(1)], opset=1, constants=(1, 2))
    np.testing.assert_array_equal(got, np.tile(a, (1, 2, 1, 1)))
    (got,) = run_op("Upsample", [a], opset=1, height_scale=2.0, width_scale=3.0)
    np.testing.assert_array_equal(got, a.repeat(2, 2).repeat(3, 3))
    (got,) = run_op("PRelu", [a, uniform(3)], opset=6)
    assert got.shape == a.shape
    (got,) = run_op("Pad", [a], opset=1, paddings=[0, 0, 1, 1, 0, 0, 2, 2])
    assert got.shape == (2, 3, 7, 8)
    (got,) = run_op("Concat", [a, a], opset=1)
    assert got.shape == (2, 6, 4, 5)


# ---- resize

SIZES = [(7, 9), (3, 2), (12, 12), (6, 5), (24, 20), (1, 1)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("coordinates", ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"])
def test_resize_to_sizes(sizes, coordinates):
    x = uniform(1, 2, 6, 5)
    arguments = [x, None, None, np.array([1, 2, *sizes])]
    for mode in ("linear", "cubic"):
        compare(
            "Resize",
            arguments,
            opset=13,
            constants=(3,),
            mode=mode,
            coordinate_transformation_mode=coordinates,
            tolerance=1e-4,
        )
    for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        compare(
            "Resize",
            arguments,
            opset=13,
            constants=(3,),
            mode="nearest",
            nearest_mode=nearest,
            coordinate_transformation_mode=coordinates,
        )


@pytest.mark.parametrize("scales", [(2, 2), (0.6, 1.7), (3, 0.5), (1.5, 4)])
def test_resize_by_scales(scales):
    x = uniform(1, 2, 6, 5)
    scales = np.array([1, 1, *scales], np.float32)
    for mode in ("nearest", "linear"):
        compare("Resize", [x, scales], opset=10, constants=(1,), mode=mode)
        compare("Resize", [x, None, scales], opset=13, constants=(2,), mode=mode)
        compare(
            "Resize",
            [x, None, scales],
            opset=19,
            constants=(2,),
            mode=mode,
            coordinate_transformation_mode="half_pixel_symmetric",
        )
    if (scales >= 1).all():
        compare("Upsample", [x, scales], opset=9, constants=(1,), mode="nearest")
        compare("Upsample", [x], opset=7, mode="linear", scales=scales.tolist())


def test_resize_crop_and_volume():
    x = uniform(1, 2, 6, 5)
    roi = np.array([0, 0, 0.2, -0.3, 1, 1, 0.9, 1.4], np.float32)
    compare(
        "Resize",
        [x, roi, None, np.array([1, 2, 4, 7])],
        opset=13,
        constants=(1, 3),
        mode="linear",
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=7.0,
    )
    compare(
        "Resize",
        [uniform(1, 1, 3, 4, 5), None, np.array([1, 1, 2, 2, 2], np.float32)],
        opset=13,
        constants=(2,),
        mode="linear",
    )


# ---- recurrent


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    "op,gates,extra",
    [
        ("RNN", 1, [{}]),
        ("LSTM", 4, [{}]),
        ("GRU", 3, [{"linear_before_reset": 0}, {"linear_before_reset": 1}]),
    ],
)
def test_recurrent(op, gates, extra, direction):
    steps, batch, width, hidden = 5, 3, 4, 6
    count = 2 if direction == "bidirectional" else 1
    parameters = [uniform(count, gates * hidden, width), uniform(count, gates * hidden, hidden)]
    bias = uniform(count, 2 * gates * hidden)
    state = uniform(count, batch, hidden)
    x = uniform(steps, batch, width)
    outputs = 3 if op == "LSTM" else 2
    for attributes in extra:
        common = dict(direction=direction, hidden_size=hidden, **attributes)
        compare(op, [x, *parameters], outputs, opset=14, constants=(1, 2), **common)
        compare(op, [x, *parameters, bias], outputs, opset=14, constants=(1, 2, 3), clip=0.4, **common)
        lengths = np.array([5, 2, 3], np.int32)
        states = (
            [state, uniform(count, batch, hidden), uniform(count, 3 * hidden)] if op == "LSTM" else [state]
        )
        compare(
            op, [x, *parameters, bias, lengths, *states], outputs, opset=14, constants=(1, 2, 3), **common
        )


def test_recurrent_activations():
    x, w, r = uniform(4, 2, 3), uniform(1, 15, 3), uniform(1, 15, 5)
    compare(
        "GRU",
        [x, w, r],
        2,
        opset=14,
        hidden_size=5,
        activations=["HardSigmoid", "ScaledTanh"],
        activation_alpha=[0.3, 0.9],
        activation_beta=[0.4, 0.7],
    )
    compare(
        "RNN",
        [x, uniform(1, 5, 3), uniform(1, 5, 5)],
        2,
        opset=14,
        hidden_size=5,
        activations=["LeakyRelu"],
        activation_alpha=[0.2],
    )


# ---- the rest


@pytest.mark.parametrize(
    "indices",
    [
        np.array(2),
        np.array(-1),
        np.array([0, 2, 4]),
        np.array([[4, 3], [2, 1]]),
        np.array([1, 1, 5, 0, 3, -2]),
        np.array([], np.int64),
    ],
)
def test_gather_of_constants_and_feeds(indices):
    x = uniform(3, 6, 2)
    compare("Gather", [x, indices], constants=(1,), axis=1)
    compare("Gather", [x, indices], axis=1)


def test_mixed_arithmetic():
    compare("Div", [np.array([7, -7, 8]), np.array([2, 2, -3])])
    compare("Mod", [np.array([7, -7, 8]), np.array([3, 3, -3])])
    compare("Mod", [uniform(5), uniform(5)], fmod=1)
    for exponent in (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, -1.0, 1.7):
        compare("Pow", [np.abs(uniform(3, 4)) + 0.1, np.float32(exponent)], constants=(1,))
    compare("Pow", [np.abs(uniform(4)), np.array([1, 2, 3, 4])])
    compare("Max", [uniform(3, 1), uniform(1, 4), uniform(3, 4)])
    compare("Mean", [uniform(3, 1), uniform(1, 4), uniform(3, 4)])
    compare("CumSum", [uniform(3, 5), np.array(1)], constants=(1,), exclusive=1, reverse=1)
    compare("LRN", [uniform(2, 7, 3, 3)], size=5, alpha=0.1, beta=0.6, bias=1.5)
    compare("InstanceNormalization", [uniform(2, 3, 5), uniform(3), uniform(3)])
    compare("LayerNormalization", [uniform(2, 3, 5), uniform(3, 5), uniform(3, 5)], axis=1)
    compare("ArgMax", [np.array([[1, 3, 3], [2, 2, 0]], np.float32)], axis=1, select_last_index=1)
    compare("Range", [np.float32(1), np.float32(4), np.float32(0.7)], constants=(0, 1, 2))
    compare("Einsum", [uniform(2, 3, 4), uniform(2, 4, 5)], equation="bij,bjk->bik")
    compare("Einsum", [uniform(2, 3, 4), uniform(4, 5), uniform(5)], equation="...j,jk,k->...")
    compare("Einsum", [uniform(4, 4)], equation="ii->i")
    compare("DepthToSpace", [uniform(1, 12, 2, 3)], blocksize=2, mode="CRD")


@pytest.mark.parametrize(
    "op",
    [
        "Asin",
        "Acos",
        "Atan",
        "Sinh",
        "Cosh",
        "Asinh",
        "Atanh",
        "Tan",
        "Elu",
        "Selu",
        "Celu",
        "Softplus",
        "Softsign",
        "HardSwish",
        "Erf",
        "Gelu",
        "Mish",
        "Sign",
        "Acosh",
    ],
)
def test_unary_over_a_wide_range(op):
    """Composed functions keep their digits near zero and far from it."""
    x = np.concatenate([uniform(200) * 0.99, 10.0 ** RNG.uniform(-8, -1, 50)]).astype(np.float32)
    if op == "Acosh":
        x = (1 + 10.0 ** RNG.uniform(-3, 3, 100)).astype(np.float32)
    if op in ("Atan", "Asinh", "Softplus", "Softsign", "Elu", "Selu", "Celu", "HardSwish"):
        x = np.concatenate([x, x * 50])
    compare(op, [x], opset=20 if op in ("Gelu", "Mish") else 17, tolerance=1e-5)
