"""Each operator as each of its versions writes it: a table of functions from an opset to one node.

A case gives inputs and attributes for an opset, the same computation in each, so that a version that no other
engine runs can be compared with a newer one that it does. It gives None for opsets that cannot say it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

RNG = np.random.default_rng(12)
X = RNG.standard_normal((2, 3, 4)).astype(np.float32)
Y = RNG.standard_normal((2, 3, 4)).astype(np.float32)
POSITIVE = np.abs(X) + np.float32(0.1)
UNIT = np.tanh(X)
CHANNELS = RNG.standard_normal(3).astype(np.float32)
IMAGE = RNG.standard_normal((1, 3, 6, 5)).astype(np.float32)
MATRIX = RNG.standard_normal((3, 4)).astype(np.float32)
OTHER = RNG.standard_normal((4, 5)).astype(np.float32)
BOOLS = X > 0
INTS = RNG.integers(-9, 9, (2, 3, 4))
I = np.int64  # noqa: E741


def ints(*values):
    return np.array(values, np.int64)


@dataclass
class Case:
    """One node. Inputs numbered in `constants` are initializers; `expected` is what nobody else knows."""

    inputs: list
    attributes: dict = field(default_factory=dict)
    outputs: int = 1
    constants: tuple = ()
    expected: list | None = None


Maker = Callable[[int], "Case | None"]
CASES: dict[str, list[Maker]] = {}


def add(op: str, *makers: Maker) -> None:
    """More cases of an operator."""
    CASES.setdefault(op, []).extend(makers)


def same(*inputs, since=1, until=99, outputs=1, constants=(), **attributes) -> Maker:
    """The same node in every opset from `since` to `until`."""

    def make(opset):
        if not since <= opset <= until:
            return None
        return Case(list(inputs), dict(attributes), outputs, tuple(constants))

    return make


def moved(*inputs, at, outputs=1, since=1, always=None, **attributes) -> Maker:
    """Attributes that are inputs from opset `at` on: pairs of the attribute's value and the input's."""

    def make(opset):
        if opset < since:
            return None
        if opset < at:
            given = {k: v for k, (v, _) in attributes.items() if v is not None}
            return Case(list(inputs), {**given, **(always or {})}, outputs)
        extra = [array for _, array in attributes.values()]
        numbers = [len(inputs) + i for i, a in enumerate(extra) if a is not None]
        return Case([*inputs, *extra], dict(always or {}), outputs, tuple(numbers))

    return make


# ---- elementwise

for _op in ("Exp", "Floor", "Ceil", "Neg", "Abs", "Sigmoid", "Tanh", "Relu", "Softplus", "Softsign",
            "HardSigmoid", "Elu", "Selu", "LeakyRelu", "Identity"):
    add(_op, same(X))
for _op in ("Log", "Sqrt", "Reciprocal"):
    add(_op, same(POSITIVE))
for _op, _since in (("Sin", 7), ("Cos", 7), ("Tan", 7), ("Asin", 7), ("Acos", 7), ("Atan", 7), ("Sinh", 9),
                    ("Cosh", 9), ("Asinh", 9), ("Atanh", 9), ("Sign", 9), ("Erf", 9), ("Round", 11),
                    ("IsNaN", 9), ("ThresholdedRelu", 10), ("HardSwish", 14), ("Mish", 18), ("Gelu", 20),
                    ("Shrink", 9), ("Celu", 12)):
    add(_op, same(UNIT, since=_since))
add("Acosh", same(POSITIVE + 1, since=9))
add("IsInf", same(np.array([np.inf, -np.inf, 0], np.float32), since=10))
add("Elu", same(X, alpha=0.5))
add("Selu", same(X, alpha=2.0, gamma=3.0))
add("LeakyRelu", same(X, alpha=0.3))
add("HardSigmoid", same(X, alpha=0.3, beta=0.4))
add("ThresholdedRelu", same(X, alpha=0.25, since=10))
add("Not", same(BOOLS))
add("Mod", same(INTS, np.abs(INTS) + 1, since=10), same(X, POSITIVE, since=10, fmod=1))
add("BitShift", same(np.arange(8, dtype=np.uint8), np.array([2], np.uint8), since=11, direction="LEFT"))
add("Where", same(BOOLS, X, Y, since=9))
add("Erf", same(X, since=9))


def broadcast(a, b) -> list[Maker]:
    """Equal shapes; the last axis; an axis in the middle, a scalar: with and without the old attributes."""

    def along_axis(opset):
        vector = b[0, :, 0]
        if opset < 7:
            return Case([a, vector], {"broadcast": 1, "axis": 1})
        return Case([a, vector.reshape(3, 1)])

    def matrix_along_axis(opset):
        part = b[:, :, 0]
        if opset < 7:
            return Case([a, part], {"broadcast": 1, "axis": 0})
        return Case([a, part.reshape(2, 3, 1)])

    def trailing(opset):
        return Case([a, b[0, 0]], {"broadcast": 1} if opset < 7 else {})

    def scalar(opset):
        return Case([a, b[0, 0, :1]], {"broadcast": 1} if opset < 7 else {})

    def negative_axis(opset):
        return Case([a, b[0, 0]], {"broadcast": 1, "axis": -1} if opset < 7 else {})

    return [same(a, b), along_axis, matrix_along_axis, trailing, scalar, negative_axis]


for _op in ("Add", "Sub", "Mul", "Div", "Pow"):
    add(_op, *broadcast(POSITIVE, np.abs(Y) + np.float32(0.5)))
for _op in ("Add", "Sub", "Mul", "Div"):
    add(_op, same(INTS, np.abs(INTS) + 1, since=7))
for _op in ("Less", "Greater"):
    add(_op, *broadcast(X, Y))
for _op in ("Less", "Greater"):
    add(_op, same(INTS, INTS[:1], since=9))
add("Equal", *broadcast(INTS.astype(np.int32), INTS[::-1].astype(np.int32)), same(X, X * BOOLS, since=11))
for _op in ("And", "Or", "Xor"):
    add(_op, *broadcast(BOOLS, Y > 0))
for _op in ("LessOrEqual", "GreaterOrEqual"):
    add(_op, same(X, Y, since=12))
for _op in ("Max", "Min", "Sum", "Mean"):
    add(_op, same(X, Y, X * Y), same(X), same(X, Y[:1, :, :1], since=8))
for _op in ("Max", "Min"):
    add(_op, same(INTS, INTS[:1], since=12))
add("Pow", same(INTS, np.array([3], I), since=12), same(X, np.array([2], I), since=12))
add("PRelu", same(X, np.full(1, 0.2, np.float32)),
    lambda v: Case([X, CHANNELS if v < 7 else CHANNELS.reshape(3, 1)]))
add("Clip", moved(X, at=11, min=(-0.5, np.float32(-0.5)), max=(0.7, np.float32(0.7))),
    moved(X, at=11, min=(-0.5, np.float32(-0.5))), same(X),
    lambda v: Case([INTS, I(-3), I(4)]) if v >= 12 else None)

_NAMES = {1: "FLOAT", 6: "INT32", 7: "INT64", 9: "BOOL", 11: "DOUBLE", 2: "UINT8"}
for _code, _name in _NAMES.items():
    add("Cast", lambda v, c=_code, n=_name: Case([POSITIVE * 3], {"to": n if v < 6 else c}))
add("CastLike", same(X * 3, INTS[0, 0], since=15))

# ---- movement

add("Reshape", moved(X, at=5, shape=([4, 6], ints(4, 6))), moved(X, at=5, shape=([0, -1], ints(0, -1))),
    same(X[:0], ints(4, 0), since=14, allowzero=1, constants=[1]))
add("Flatten", same(X), same(X, axis=0), same(X, axis=2), same(X, axis=3), same(X, axis=-1, since=11))
add("Transpose", same(X), same(X, perm=[1, 2, 0]))
add("Squeeze", moved(X[:1, :, None], at=13, axes=([0, 2], ints(0, 2))),
    moved(X[:1, :, None], at=13, since=11, axes=([-2], ints(-2))))
add("Squeeze", same(X[:1, :, None], since=11))
add("Unsqueeze", moved(X, at=13, axes=([0, 2], ints(0, 2))),
    moved(X, at=13, since=11, axes=([-1, 0], ints(-1, 0))))
add("Expand", same(X[:, :1], ints(2, 2, 3, 4), since=8, constants=[1]))
add("Concat", same(X, Y, axis=2), same(X, Y, axis=-2, since=11),
    lambda v: Case([X, Y], {} if v < 4 else {"axis": 1}))
add("Slice", moved(X, at=10, starts=([0, 1], ints(0, 1)), ends=([1, 3], ints(1, 3)),
                   axes=([0, 2], ints(0, 2))),
    moved(X, at=10, starts=([1, -2], ints(1, -2)), ends=([99, -1], ints(99, -1))),
    same(X, ints(3), ints(-9), ints(-1), ints(-2), since=10, constants=[1, 2, 3, 4]))
add("Tile", lambda v: Case([X, np.float32(2), np.float32(1)], {}, 1, (1, 2)) if v < 6
    else Case([X, ints(1, 2, 1)], {}, 1, (1,)))
add("Pad",
    lambda v: Case([X], {("pads" if v >= 2 else "paddings"): [0, 1, 2, 1, 0, 1], "value": 0.5})
    if v < 11 else Case([X, ints(0, 1, 2, 1, 0, 1), np.float32(0.5)], {}, 1, (1,)),
    lambda v: Case([X], {("pads" if v >= 2 else "paddings"): [0, 1, 2, 0, 0, 1], "mode": "reflect"})
    if v < 11 else Case([X, ints(0, 1, 2, 0, 0, 1)], {"mode": "reflect"}, 1, (1,)),
    lambda v: Case([X], {("pads" if v >= 2 else "paddings"): [0, 1, -1, 0, 0, 1], "mode": "edge"})
    if v < 11 else Case([X, ints(0, 1, -1, 0, 0, 1)], {"mode": "edge"}, 1, (1,)),
    lambda v: Case([X, ints(1, 2), np.float32(7), ints(-1)], {}, 1, (1, 3)) if v >= 18 else None,
    lambda v: Case([X, ints(0, 3, 1, 0, 0, 5)], {"mode": "wrap"}, 1, (1,)) if v >= 19 else None)
add("Split", lambda v: Case([X], {"axis": 2, "split": [1, 3]}, 2) if v < 13
    else Case([X, ints(1, 3)], {"axis": 2}, 2, (1,)),
    lambda v: Case([X], {"axis": 2, **({"num_outputs": 2} if v >= 18 else {})}, 2),
    lambda v: Case([X], {"axis": 1, "num_outputs": 2}, 2) if v >= 18 else None,
    lambda v: Case([X, ints(1, 3)], {"axis": 2}, 2, (1,), [X[..., :1], X[..., 1:]]) if v == 1 else None)
add("Gather", same(X, ints(1, 0)), same(X, ints(2, 0).reshape(1, 2), axis=1),
    same(X, ints(-1, 0), axis=2, since=11))
add("GatherElements", same(X, ints(0, 1, 1, 0).reshape(1, 1, 4), since=11))
add("GatherND", same(X, ints(0, 1, 1, 2).reshape(2, 2), since=11),
    same(X, ints(1, 2).reshape(2, 1), since=12, batch_dims=1))
add("DepthToSpace", same(np.concatenate([IMAGE] * 4, 1), blocksize=2),
    same(np.concatenate([IMAGE] * 4, 1), blocksize=2, mode="CRD", since=11))
add("SpaceToDepth", same(IMAGE[..., :4], blocksize=2))
add("OneHot", same(ints(0, 2, 1), I(4), np.array([2, 5], np.float32), since=9, constants=[1]),
    same(ints(0, -1, 9), I(4), np.array([2, 5], np.float32), since=11, constants=[1], axis=0))
add("EyeLike", same(MATRIX, since=9), same(MATRIX, since=9, k=1, dtype=7))
add("Compress", same(X, np.array([True, False, True]), since=9, axis=1), same(X, np.array([1, 0, 1], bool),
                                                                              since=9))
add("ReverseSequence", same(np.swapaxes(X, 0, 1).copy(), ints(3, 2), since=10, batch_axis=1, time_axis=0))
add("NonZero", same(BOOLS, since=9))
add("Trilu", same(X, since=14))
add("Scatter", same(X, ints(1, 0, 2, 1).reshape(1, 1, 4), Y[:1, :1], since=9, until=10, axis=1))
add("ScatterElements", same(X, ints(1, 0, 2, 1).reshape(1, 1, 4), Y[:1, :1], since=11, axis=1))
add("ScatterND", same(X, ints(1, 2, 0, 1).reshape(2, 2), Y[0, :2], since=11))
add("Unique", same(np.array([3, 1, 3, 2], np.float32), since=11, outputs=4))

# ---- shapes and constants

add("Shape", same(X), same(X, since=15, start=1, end=-1))
add("Size", same(X))
add("ConstantOfShape", same(ints(2, 3), since=9, constants=[0]))
add("Range", same(I(1), I(9), I(3), since=11, constants=[0, 1, 2]))

# ---- products

add("MatMul", same(MATRIX, OTHER), same(X, OTHER))
add("Gemm", lambda v: Case([MATRIX, OTHER, OTHER[0]], {"broadcast": 1} if v < 7 else {}),
    lambda v: Case([OTHER, MATRIX, MATRIX[:1, :1].reshape(1)],
                   {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0,
                    **({"broadcast": 1} if v < 7 else {})}),
    same(MATRIX, OTHER, np.ones((3, 5), np.float32)),
    same(MATRIX, OTHER, since=11),
    same(INTS[0], INTS[1].T.copy(), INTS[0, :, :3].copy(), since=9))
add("Einsum", same(MATRIX, OTHER, since=12, equation="ij,jk->ki"))
_KERNEL = RNG.standard_normal((2, 3, 3, 2)).astype(np.float32)
add("Conv", same(IMAGE, _KERNEL, np.ones(2, np.float32), pads=[1, 0, 1, 1], strides=[2, 1], dilations=[1, 2],
                 kernel_shape=[3, 2]),
    same(IMAGE, _KERNEL, auto_pad="SAME_UPPER", kernel_shape=[3, 2]))
add("ConvTranspose", same(IMAGE[:, :2], _KERNEL, pads=[1, 0, 0, 1], strides=[2, 1], kernel_shape=[3, 2]),
    same(IMAGE[:, :2], _KERNEL, strides=[2, 2], kernel_shape=[3, 2], output_padding=[1, 0]))

# ---- pooling

add("MaxPool", same(IMAGE, kernel_shape=[2, 3], strides=[2, 1], pads=[1, 1, 0, 1]),
    same(IMAGE, kernel_shape=[2, 2], since=8, storage_order=1, outputs=2),
    same(IMAGE, kernel_shape=[2, 2], since=10, dilations=[2, 1], ceil_mode=1, strides=[2, 3]),
    same((IMAGE * 20).astype(np.int8), kernel_shape=[2, 2], since=12))
add("AveragePool", same(IMAGE, kernel_shape=[2, 3], strides=[2, 1], pads=[1, 1, 0, 1]),
    same(IMAGE, kernel_shape=[2, 3], pads=[1, 1, 0, 1], since=7, count_include_pad=1),
    same(IMAGE, kernel_shape=[3, 3], strides=[2, 2], since=10, ceil_mode=1),
    same(IMAGE, kernel_shape=[2, 2], since=19, dilations=[2, 2]))
add("LpPool", lambda v: Case([IMAGE], {"kernel_shape": [2, 2], "p": 3.0 if v < 2 else 3}),
    same(IMAGE, kernel_shape=[2, 3], pads=[1, 0, 0, 1], since=2),
    same(IMAGE, kernel_shape=[2, 2], since=18, dilations=[2, 1], ceil_mode=1))
add("GlobalAveragePool", same(IMAGE))
add("GlobalMaxPool", same(IMAGE))
add("GlobalLpPool", lambda v: Case([IMAGE], {"p": 3.0 if v < 2 else 3}), same(IMAGE))
add("MaxRoiPool", same(IMAGE, np.array([[0, 0, 0, 3, 4], [0, 1, 1, 4, 5]], np.float32), pooled_shape=[2, 2]))

# ---- reductions

for _op, _at in (("ReduceSum", 13), ("ReduceMean", 18), ("ReduceMax", 18), ("ReduceMin", 18),
                 ("ReduceProd", 18), ("ReduceL1", 18), ("ReduceL2", 18), ("ReduceSumSquare", 18),
                 ("ReduceLogSum", 18), ("ReduceLogSumExp", 18)):
    _data = POSITIVE if "Log" in _op else X
    add(_op, moved(_data, at=_at, axes=([0, 2], ints(0, 2))), same(_data), same(_data, keepdims=0),
        moved(_data, at=_at, since=11, axes=([-2], ints(-2)), always={"keepdims": 0}),
        same(_data, since=_at, noop_with_empty_axes=1))
for _op in ("ReduceMax", "ReduceMin"):
    add(_op, moved(INTS.astype(np.int8), at=18, since=12, axes=([1], ints(1))),
        moved(BOOLS, at=18, since=20, axes=([1], ints(1))))
for _op in ("ArgMax", "ArgMin"):
    add(_op, same(X), same(X, axis=2, keepdims=0), same(X, axis=-2, since=11),
        same(INTS.astype(np.int32), axis=1, since=12, select_last_index=1))
for _op in ("Softmax", "LogSoftmax", "Hardmax"):
    # before 13 all axes from `axis` on are one row
    add(_op, same(X, axis=2), same(MATRIX),
        lambda v: Case([X], {"axis": 1}) if v < 13 else None,
        lambda v: Case([X], {"axis": 0}) if v < 13 else None,
        same(X, axis=-1, since=11), same(X, axis=1, since=13))
add("CumSum", same(X, np.int32(1), since=11, constants=[1], reverse=1, exclusive=1))
add("TopK",
    lambda v: Case([X], {"k": 2, "axis": 1}, 2) if v < 10 else Case([X, ints(2)], {"axis": 1}, 2, (1,)),
    lambda v: Case([X, ints(2)], {"largest": 0}, 2, (1,)) if v >= 11 else None)

# ---- normalisation

_STATISTICS = [CHANNELS, CHANNELS[::-1].copy(), CHANNELS * 2, CHANNELS**2 + np.float32(0.5)]


def _batch_norm(opset):
    return Case([IMAGE, *_STATISTICS], {"epsilon": 1e-3, **({"is_test": 1} if opset < 7 else {})})


def _per_position(opset):
    if opset >= 9:
        return None
    numbers = [np.broadcast_to(s[:, None, None], IMAGE.shape[1:]) + IMAGE[0] ** 2 for s in _STATISTICS]
    numbers[3] = np.abs(numbers[3])
    numbers = [n.astype(np.float32) for n in numbers]
    s, b, m, v = numbers
    expected = (IMAGE - m) / np.sqrt(v + np.float32(1e-5)) * s + b
    return Case([IMAGE, *numbers], {"spatial": 0, **({"is_test": 1} if opset < 7 else {})}, 1, (), [expected])


def _training(opset):
    axes = (0, 2, 3)
    x = np.concatenate([IMAGE, IMAGE[:, ::-1] * 2])
    mean, variance = x.mean(axes), x.var(axes)
    s, b, m, v = _STATISTICS
    y = (x - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]
    y = y * s[:, None, None] + b[:, None, None]
    expected = [y, m * 0.75 + mean * 0.25, v * 0.75 + variance * 0.25, mean, variance]
    attributes = {"momentum": 0.75, **({"training_mode": 1} if opset >= 14 else {})}
    outputs = 3 if opset >= 14 else 5
    expected = [e.astype(np.float32) for e in expected[:outputs]]
    return Case([x, *_STATISTICS], attributes, outputs, (), expected)


add("BatchNormalization", _batch_norm, _per_position, _training)
add("InstanceNormalization", same(IMAGE, CHANNELS, CHANNELS[::-1].copy(), epsilon=1e-3))
add("LpNormalization", same(X), same(X, axis=1, p=1))
add("LRN", same(IMAGE, size=3, alpha=0.1, beta=0.6, bias=2.0))
add("MeanVarianceNormalization", same(IMAGE, since=9), same(IMAGE, since=9, axes=[1, 2]),
    same(IMAGE, until=8), same(IMAGE, until=8, across_channels=1, normalize_variance=0))
add("LayerNormalization", same(X, np.ones(4, np.float32), since=17))
add("GroupNormalization",
    same(np.concatenate([IMAGE] * 2, 1), *[np.arange(1, 7, dtype=np.float32)] * 2, since=21, num_groups=2))


def _dropout(opset):
    attributes = {"ratio": 0.3} if opset < 12 else {}
    if opset < 7:
        attributes["is_test"] = 1
    return Case([X], attributes)


def _dropout_mask(opset):
    """Nothing is dropped, so every element is marked as kept; onnxruntime marks none before opset 12."""
    mask = np.ones(X.shape, bool if opset >= 10 else np.float32)
    return Case([X], {}, 2, (), [X, mask]) if opset >= 7 else None


add("Dropout", _dropout, _dropout_mask)

# ---- resizing

_SCALES = np.array([1, 1, 2, 2], np.float32)


def _upsample(opset):
    if opset < 7:
        return Case([IMAGE], {"height_scale": 2.0, "width_scale": 2.0, "mode": "nearest"}, 1, (),
                    [IMAGE.repeat(2, 2).repeat(2, 3)])
    if opset < 9:
        return Case([IMAGE], {"scales": _SCALES.tolist()})
    return Case([IMAGE, _SCALES], {}, 1, (1,)) if opset < 10 else None


def _upsample_linear(opset):
    if opset in (7, 8):
        return Case([IMAGE], {"scales": _SCALES.tolist(), "mode": "linear"})
    return Case([IMAGE, _SCALES], {"mode": "linear"}, 1, (1,)) if opset == 9 else None


add("Upsample", _upsample, _upsample_linear)
for _mode in ("nearest", "linear"):
    add("Resize", same(IMAGE, _SCALES, since=10, until=10, mode=_mode, constants=[1]),
        same(IMAGE, np.zeros(0, np.float32), _SCALES, since=11, mode=_mode, constants=[1, 2]))

# ---- recurrent

_SEQUENCE = RNG.standard_normal((3, 2, 4)).astype(np.float32)
for _op, _gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
    _weights = [RNG.standard_normal((1, _gates * 5, n)).astype(np.float32) * np.float32(0.4) for n in (4, 5)]
    add(_op, same(_SEQUENCE, *_weights, hidden_size=5, outputs=2),
        lambda v, w=_weights: Case(
            [_SEQUENCE, *w], {"hidden_size": 5, **({"output_sequence": 1} if v < 7 else {})}, 2
        ))

# ---- quantised

_BYTES = np.arange(12, dtype=np.uint8).reshape(3, 4)
add("QuantizeLinear", same(X, np.float32(0.02), np.uint8(128), since=10),
    same(X, CHANNELS**2 + np.float32(0.1), np.zeros(3, np.int8), since=13, axis=1))
add("DequantizeLinear", same(_BYTES, np.float32(0.02), np.uint8(3), since=10),
    same(_BYTES, CHANNELS, np.array([1, 2, 3], np.uint8), since=13, axis=0))
add("MatMulInteger", same(_BYTES, _BYTES.T.copy(), np.uint8(2), np.uint8(3), since=10))
add("DynamicQuantizeLinear", same(X, since=11, outputs=3))
_SCALE = np.float32(0.05)
add("QLinearMatMul", same(_BYTES, _SCALE, np.uint8(2), _BYTES.T.copy(), _SCALE, np.uint8(3),
                          np.float32(0.1), np.uint8(5), since=10))

# ---- removed

add("Affine", same(X, until=9, alpha=2.0, beta=0.5))
add("Scale", same(X, until=9, scale=2.5), same(X, until=9))
add("ScaledTanh", same(X, until=9, alpha=2.0, beta=0.5))
add("ParametricSoftplus", same(X * 9, until=9, alpha=2.0, beta=0.5))
add("ThresholdedRelu", same(X, until=9, alpha=0.25))
add("ImageScaler", same(IMAGE, until=9, scale=2.0, bias=[1.0, 2.0, 3.0]))
add("Crop", same(IMAGE, until=9, border=[1, 2, 0, 1]),
    same(IMAGE, until=9, border=[1, 2, 0, 0], scale=[3, 2]))
add("GivenTensorFill",
    lambda v: Case([], {"values": [1.0, 2.0, 3.0, 4.0], "shape": [2, 1], "extra_shape": [2]}, 1, (),
                   [np.array([[[1, 2]], [[3, 4]]], np.float32)]) if v < 10 else None)
add("ConstantFill",
    lambda v: Case([], {"value": 3.0, "shape": [2, 1]}, 1, (), [np.full((2, 1), 3, np.float32)]) if v < 10
    else None,
    lambda v: Case([X], {"value": 3.0, "dtype": 7, "extra_shape": [2]}, 1, (), [np.full((2, 3, 4, 2), 3, I)])
    if v < 10 else None,
    lambda v: Case([ints(1, 2)], {"value": 3.0, "input_as_shape": 1}, 1, (0,), [X[:1, 0, :2] * 0 + 3])
    if v < 10 else None)
add("DynamicSlice",
    lambda v: Case([X, ints(1), ints(3), ints(2)], {}, 1, (1, 2, 3), [X[:, :, 1:3]]) if v < 10 else None)


def _gru_unit(opset):
    hidden, gates = X[:1, :, :2], np.concatenate([X[:1], Y[:1, :, :2]], 2)
    update, output = 1 / (1 + np.exp(-gates[..., 2:4])), np.tanh(gates[..., 4:])
    expected = hidden * update + output * (1 - update)
    expected[:, 1] = hidden[:, 1]
    return Case([hidden, gates, ints(2, 1, 3), ints(1)], {}, 1, (), [expected]) if opset < 10 else None


add("GRUUnit", _gru_unit)
