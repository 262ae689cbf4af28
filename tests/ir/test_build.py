"""Constructors against plain numpy, evaluated by the oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyinfer.ir import build
from tinyinfer.ir.index import index
from tinyinfer.ir.node import output_axis
from tinyinfer.ir.oracle import evaluate

RNG = np.random.default_rng(1)


def _fed(*shape, dtype="float32", name="x"):
    array = np.asarray(RNG.integers(-9, 9, shape)).astype(dtype)
    return build.input_node(name, shape, dtype), array


def _run(result, **feeds):
    value, = evaluate([result], feeds)
    assert value.shape == result.shape and value.dtype == result.dtype
    return value


# ---- movement


def test_reshape_permute_expand_flip_shrink_pad():
    x, a = _fed(2, 3, 4)
    cases = [
        (build.reshape(x, (4, 6)), a.reshape(4, 6)),
        (build.reshape(x, (24,)), a.reshape(24)),
        (build.permute(x, (2, 0, 1)), a.transpose(2, 0, 1)),
        (build.expand(x, (5, 2, 3, 4)), np.broadcast_to(a, (5, 2, 3, 4))),
        (build.flip(x, (0, 2)), a[::-1, :, ::-1]),
        (build.shrink(x, (0, 1, 3), (2, 3, 0), (1, 1, -2)), a[0:2, 1:3, 3:0:-2]),
        (build.pad(x, (1, 0, 2), (0, 1, 1), 7), np.pad(a, ((1, 0), (0, 1), (2, 1)), constant_values=7)),
        (build.pad(x, (-1, 0, 2), (0, -1, 0), 7),
         np.pad(a[1:, :-1], ((0, 0), (0, 0), (2, 0)), constant_values=7)),
    ]
    for made, expected in cases:
        np.testing.assert_array_equal(_run(made, x=a), expected)


def test_a_view_of_a_view_is_one_view_and_an_identity_is_the_source():
    x, _ = _fed(2, 3, 4)
    assert build.permute(build.permute(x, (2, 0, 1)), (1, 2, 0)) is x
    assert build.reshape(build.reshape(x, (6, 4)), (2, 3, 4)) is x
    assert build.flip(build.flip(x, (1,)), (1,)) is x
    chained = build.shrink(build.pad(build.permute(x, (1, 0, 2)), (1, 0, 0), (0, 0, 0)), (1, 0, 0), (4, 2, 4))
    assert chained.op == "VIEW" and chained.inputs[0] is x and not chained.attrs.guards


def test_views_with_other_fills_stay_apart():
    x, a = _fed(3)
    twice = build.pad(build.pad(x, (1,), (0,), 5), (1,), (0,), 6)
    np.testing.assert_array_equal(_run(twice, x=a), [6, 5, *a])
    same = build.pad(build.pad(x, (1,), (0,), 5), (1,), (0,), 5)
    assert same.inputs[0] is x
    np.testing.assert_array_equal(_run(same, x=a), [5, 5, *a])


SHAPES = ((2, 3, 4), (6, 4), (4, 6), (24,), (2, 12), (3, 8), (1, 24), (2, 2, 6), (3, 2, 4))


@st.composite
def _movement_chains(draw):
    """A chain of random movement ops as (node, what numpy gives)."""
    array = np.arange(24, dtype=np.int64).reshape(draw(st.sampled_from(SHAPES)))
    made = build.input_node("x", array.shape, "int64")
    feed = array
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(("reshape", "permute", "flip", "pad", "shrink", "expand", "window")))
        rank = array.ndim
        if kind == "reshape" and array.size == 24:
            shape = draw(st.sampled_from(SHAPES))
            made, array = build.reshape(made, shape), array.reshape(shape)
        elif kind == "permute":
            order = draw(st.permutations(range(rank)))
            made, array = build.permute(made, order), array.transpose(order)
        elif kind == "flip" and rank:
            axis = draw(st.integers(0, rank - 1))
            made, array = build.flip(made, (axis,)), np.flip(array, axis)
        elif kind == "pad" and rank:
            before = [draw(st.integers(0, 2)) for _ in range(rank)]
            after = [draw(st.integers(0, 2)) for _ in range(rank)]
            made = build.pad(made, before, after, -1)
            array = np.pad(array, list(zip(before, after)), constant_values=-1)
        elif kind == "shrink" and rank:
            starts = [draw(st.integers(0, d - 1)) for d in array.shape]
            stops = [draw(st.integers(s + 1, d)) for s, d in zip(starts, array.shape)]
            steps = [draw(st.integers(1, 2)) for _ in array.shape]
            made = build.shrink(made, starts, stops, steps)
            array = array[tuple(map(slice, starts, stops, steps))]
        elif kind == "expand" and rank < 4:
            made, array = build.expand(made, (2, *array.shape)), np.broadcast_to(array, (2, *array.shape))
        elif kind == "window" and rank in (1, 2):
            k = draw(st.integers(1, min(3, array.shape[-1])))
            made = build.window(made, (k,), (1,), (1,), (0,), (0,))
            array = np.lib.stride_tricks.sliding_window_view(array, k, axis=-1)
        if array.size > 3000:
            break
    return made, feed, array


@settings(max_examples=300, deadline=None)
@given(_movement_chains())
def test_movement_chains(chain):
    made, feed, expected = chain
    np.testing.assert_array_equal(_run(made, x=feed), expected)


@pytest.mark.parametrize("stride, dilation, before, after",
                         [(1, 1, 0, 0), (2, 1, 1, 1), (1, 2, 2, 1), (3, 2, 0, 2)])
def test_window(stride, dilation, before, after):
    x, a = _fed(2, 3, 11)
    made = build.window(x, (3,), (stride,), (dilation,), (before,), (after,), -5)
    padded = np.pad(a, ((0, 0), (0, 0), (before, after)), constant_values=-5)
    count = (padded.shape[2] - 2 * dilation - 1) // stride + 1
    starts = [o * stride for o in range(count)]
    expected = np.stack([padded[:, :, s:s + 2 * dilation + 1:dilation] for s in starts], 2)
    np.testing.assert_array_equal(_run(made, x=a), expected)


def test_window_that_does_not_fit():
    x, _ = _fed(1, 1, 4)
    with pytest.raises(ValueError, match="does not fit"):
        build.window(x, (5,), (1,), (1,), (0,), (0,))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gather_reads_zero_outside(axis):
    x, a = _fed(4, 5, 6)
    i, places = build.input_node("i", (2, 3), "int64"), np.array([[0, 3, 1], [2, 9, -1]])
    expected = np.take(a, np.clip(places, 0, a.shape[axis] - 1), axis)
    outside = (places < 0) | (places >= a.shape[axis])
    expected[(slice(None),) * axis + (outside,)] = 0
    np.testing.assert_array_equal(_run(build.gather(x, i, axis), x=a, i=places), expected)


def test_gather_of_an_int32_index_and_of_nothing():
    x, a = _fed(4, 5)
    i = build.input_node("i", (3,), "int32")
    rows = np.array([3, 0, 0], np.int32)
    np.testing.assert_array_equal(_run(build.gather(x, i, 0), x=a, i=rows), a[rows])
    none = build.input_node("i", (0,), "int64")
    assert _run(build.gather(x, none, 0), x=a, i=np.zeros(0, np.int64)).shape == (0, 5)


def test_concat():
    x, a = _fed(2, 3)
    y, b = _fed(2, 5, name="y")
    made = build.concat([x, build.shrink(x, (0, 0), (2, 0)), y], 1)
    np.testing.assert_array_equal(_run(made, x=a, y=b), np.concatenate([a, b], 1))
    with pytest.raises(ValueError, match="concatenate"):
        build.concat([x, y], 0)


def test_iota_and_views_of_it():
    made = build.iota((3, 4), 1)
    np.testing.assert_array_equal(_run(made), np.broadcast_to(np.arange(4), (3, 4)))
    flipped = build.flip(made, (1,))
    assert flipped.op == "IOTA"
    np.testing.assert_array_equal(_run(flipped), np.broadcast_to(np.arange(4)[::-1], (3, 4)))
    place = index(output_axis(0, 3)) * 4 + index(output_axis(1, 4))
    np.testing.assert_array_equal(_run(build.position(place, (3, 4), "int32")), np.arange(12).reshape(3, 4))


# ---- arithmetic


def test_apply_broadcasts():
    x, a = _fed(2, 1, 4)
    y, b = _fed(3, 1, name="y")
    np.testing.assert_array_equal(_run(build.apply("ADD", x, y), x=a, y=b), a + b)


def test_elementwise_checks_its_operands():
    x, _ = _fed(2)
    y, _ = _fed(3, name="y")
    z, _ = _fed(2, dtype="int32", name="z")
    for operands, message in (((x, y), "one shape"), ((x, z), "one dtype"), ((x,), "takes 2")):
        with pytest.raises(ValueError, match=message):
            build.elementwise("ADD", *operands)


@pytest.mark.parametrize("axes, keepdims",
                         [((0,), False), ((-1, 0), False), ((1,), True), ((0, 1, 2), True), ((), False)])
def test_reduce(axes, keepdims):
    x, a = _fed(2, 3, 4)
    for op, function in (("SUM", np.sum), ("MAX", np.max), ("MIN", np.min), ("PROD", np.prod)):
        made = build.reduce(op, x, axes, keepdims)
        expected = function(a, axis=axes, keepdims=keepdims) if axes else a
        np.testing.assert_array_equal(_run(made, x=a), expected)


@pytest.mark.parametrize("left, right", [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 1, 3, 4), (5, 4, 6)),
                                         ((1, 4), (4, 1)), ((2, 3, 1), (2, 1, 5))])
def test_matmul(left, right):
    x, a = _fed(*left)
    y, b = _fed(*right, name="y")
    np.testing.assert_allclose(_run(build.matmul(x, y), x=a, y=b), a @ b, rtol=1e-6)


def _convolution(x, w, strides, dilations, before, after, group):
    """A convolution written as loops over the kernel."""
    spatial = x.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0), *zip(before, after)])
    outputs = [(x.shape[2 + i] - (w.shape[2 + i] - 1) * dilations[i] - 1) // strides[i] + 1
               for i in range(spatial)]
    result = np.zeros((x.shape[0], w.shape[0], *outputs), np.float64)
    per_group = w.shape[0] // group
    for place in np.ndindex(*w.shape[2:]):
        window = tuple(slice(k * d, k * d + (o - 1) * s + 1, s)
                       for k, d, o, s in zip(place, dilations, outputs, strides))
        part = x[(slice(None), slice(None)) + window]
        for g in range(group):
            channels = slice(g * w.shape[1], (g + 1) * w.shape[1])
            rows = slice(g * per_group, (g + 1) * per_group)
            taps = w[(rows, slice(None)) + place]
            result[:, rows] += np.einsum("nc...,oc->no...", part[:, channels], taps)
    return result


@pytest.mark.parametrize("x_shape, w_shape, strides, dilations, before, after, group", [
    ((1, 3, 8, 8), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 1),
    ((2, 4, 9, 7), (6, 2, 3, 2), (2, 1), (1, 2), (0, 1), (2, 1), 2),
    ((1, 4, 6, 6), (4, 1, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 4),
    ((1, 4, 6, 6), (8, 4, 1, 1), (2, 2), (1, 1), (0, 0), (0, 0), 1),
    ((2, 3, 10), (5, 3, 4), (3,), (1,), (2,), (0,), 1),
    ((1, 2, 4, 5, 6), (3, 2, 2, 3, 1), (1, 2, 1), (1, 1, 1), (0, 1, 0), (1, 1, 0), 1),
    ((1, 1, 3, 3), (1, 1, 1, 1), (1, 1), (1, 1), (0, 0), (0, 0), 1),
])
def test_convolution(x_shape, w_shape, strides, dilations, before, after, group):
    x, a = _fed(*x_shape)
    w, b = _fed(*w_shape, name="w")
    made = build.convolution(x, w, strides, dilations, before, after, group)
    expected = _convolution(a, b, strides, dilations, before, after, group)
    np.testing.assert_allclose(_run(made, x=a, w=b), expected)


def test_convolution_checks_its_channels():
    x, _ = _fed(1, 3, 4, 4)
    w, _ = _fed(2, 2, 1, 1, name="w")
    with pytest.raises(ValueError, match="groups"):
        build.convolution(x, w, (1, 1), (1, 1), (0, 0), (0, 0))
