"""Gradients of every IR op against numeric differentiation, and of movement against its definition."""

import numpy as np
import pytest

from tinyinfer.errors import NotImplemented as NotSupported
from tinyinfer.frontend.onnx.blocks.places import read_places
from tinyinfer.ir import build
from tinyinfer.ir.build import elementwise
from tinyinfer.ir.index import Slot, index
from tinyinfer.ir.node import Graph, output_axis
from tinyinfer.ir.ops import ELEMENTWISE
from tinyinfer.ir.oracle import evaluate
from tinyinfer.ir.verify import verify
from tinyinfer.training.gradients import REDUCE_RULES, RULES, gradients

STEP = 1e-6


def values(shape, low=-2.0, high=2.0, seed=0):
    return np.random.default_rng(seed).uniform(low, high, shape)


def inputs_like(*arrays):
    return [build.input_node(f"x{i}", a.shape, a.dtype.name) for i, a in enumerate(arrays)]


def check(function, *arrays, constants=()):
    """The gradients of Σ w · function(inputs) by all float64 inputs equal central differences."""
    nodes = inputs_like(*arrays)
    y = function(*nodes)
    weights = values(y.shape, seed=9)
    feeds = {f"x{i}": a for i, a in enumerate(arrays)}
    moving = [i for i, a in enumerate(arrays) if a.dtype == np.float64 and i not in constants]
    found = gradients([y], [nodes[i] for i in moving], [build.constant(weights)])
    verify(Graph({n.attrs: n for n in nodes}, {str(i): g for i, g in enumerate(found)}))
    results = evaluate(found, feeds)
    for number, result in zip(moving, results):
        assert result.shape == arrays[number].shape and result.dtype == np.float64
        wanted = np.zeros_like(arrays[number])
        for place in np.ndindex(wanted.shape):
            sides = []
            for sign in (1, -1):
                moved = arrays[number].copy()
                moved[place] += sign * STEP
                sides.append((evaluate([y], {**feeds, f"x{number}": moved})[0] * weights).sum())
            wanted[place] = (sides[0] - sides[1]) / (2 * STEP)
        np.testing.assert_allclose(result, wanted, 1e-5, 1e-6, err_msg=f"input {number}")
    return found


SMOOTH_DOMAIN = {"SQRT": (0.5, 3.0), "LOG": (0.5, 3.0), "RECIP": (0.5, 3.0), "POW": (0.5, 3.0)}
FLOAT_OPS = [
    name
    for name in RULES
    if name in ELEMENTWISE and name not in ("CAST", "BITCAST", "WHERE", "FLOOR", "CEIL", "ROUND", "TRUNC")
]


@pytest.mark.parametrize("op", FLOAT_OPS)
def test_elementwise(op):
    low, high = SMOOTH_DOMAIN.get(op, (-2.0, 2.0))
    arrays = [values((3, 4), low, high, seed) for seed in range(ELEMENTWISE[op].arity)]
    check(lambda *x: elementwise(op, *x), *arrays)


def test_every_op_with_float_results_has_a_rule():
    of_integers = {"NOT", "AND", "OR", "XOR", "SHL", "SHR", "IDIV"}
    expected = {name for name, op in ELEMENTWISE.items() if op.result != "bool"} - of_integers
    assert expected <= set(RULES) and set(REDUCE_RULES) == {"SUM", "MAX", "MIN", "PROD"}


def test_where_passes_the_gradient_to_what_was_chosen():
    condition = values((3, 4)) > 0
    check(lambda c, a, b: elementwise("WHERE", c, a, b), condition, values((3, 4), seed=1), values((3, 4)))


@pytest.mark.parametrize("op", ["FLOOR", "CEIL", "ROUND", "TRUNC"])
def test_rounding_has_no_slope(op):
    check(lambda x: elementwise(op, x), values((3, 4)) * 3)


def test_casts_between_floats():
    x = build.input_node("x", [3], "float32")
    (g,) = gradients([build.cast(x, "float64")], [x], [build.constant(np.array([1.0, 2, 3]))])
    assert g.dtype == "float32" and evaluate([g], {})[0].tolist() == [1, 2, 3]
    (g,) = gradients([build.cast(build.cast(x, "int32"), "float32")], [x], [build.full(1, [3], "float32")])
    assert evaluate([g], {})[0].tolist() == [0, 0, 0]


def points(op, x, slopes, *others):
    """The slopes of `op` at single points."""
    node = build.input_node("x", [len(x)], "float64")
    (g,) = gradients([op(node)], [node], [build.full(1, [len(x)], "float64")])
    np.testing.assert_array_equal(evaluate([g], {"x": np.array(x, float)})[0], slopes)


def test_conventions_where_there_is_no_derivative():
    zero = build.full(0, [3], "float64")
    points(lambda x: elementwise("MAX", x, zero), [-1, 0, 1], [0, 0, 1])
    points(lambda x: elementwise("ABS", x), [-1, 0, 1], [-1, 0, 1])
    points(lambda x: elementwise("POW", x, zero), [-1, 0, 1], [0, 0, 0])
    points(lambda x: build.expand(build.reduce("MAX", x, [0]), [3]), [2, 1, 2], [1.5, 0, 1.5])


@pytest.mark.parametrize("op", REDUCE_RULES)
@pytest.mark.parametrize("axes", [[0], [1], [0, 2], [0, 1, 2]])
def test_reductions(op, axes):
    check(lambda x: build.reduce(op, x, axes), values((2, 3, 4)))


@pytest.mark.parametrize("zeros", [[], [1], [1, 2], [0, 1, 2, 3]])
def test_products_of_zeros(zeros):
    x = values((2, 4), 0.5, 2)
    x[0, zeros] = 0
    check(lambda v: build.reduce("PROD", v, [1]), x)


def test_softmax_and_a_normalisation():
    from tinyinfer.frontend.onnx.ops.norm import log_softmax, softmax

    check(lambda x: softmax(x, [1]), values((3, 5)))
    check(lambda x: log_softmax(x, [1]), values((3, 5)))


# ---- movement

VIEWS = {
    "permute": ((2, 3, 4), lambda x: build.permute(x, [2, 0, 1])),
    "reshape": ((2, 6), lambda x: build.reshape(x, [3, 4])),
    "reshape of no common factor": ((5, 7), lambda x: build.reshape(x, [7, 5])),
    "reshape of a permutation": ((4, 6), lambda x: build.reshape(build.permute(x, [1, 0]), [3, 8])),
    "expand": ((3, 1, 2), lambda x: build.expand(x, [4, 3, 5, 2])),
    "expand a scalar": ((), lambda x: build.expand(x, [2, 3])),
    "pad": ((3, 4), lambda x: build.pad(x, [1, 2], [2, 0], 7)),
    "crop": ((5, 6), lambda x: build.pad(x, [-1, -2], [-1, 3], 7)),
    "shrink with steps": ((7, 6), lambda x: build.shrink(x, [1, 5], [7, -1], [2, -3])),
    "flip": ((3, 4), lambda x: build.flip(x, [1])),
    "windows that overlap": ((2, 7), lambda x: build.window(x, [3], [1], [1], [1], [1], 3)),
    "windows that leave gaps": ((2, 9), lambda x: build.window(x, [2], [4], [1], [0], [1])),
    "dilated windows": ((2, 9), lambda x: build.window(x, [3], [2], [2], [2], [2])),
    "windows in a plane": (
        (2, 5, 6),
        lambda x: build.window(x, [3, 2], [2, 1], [1, 2], [1, 0], [1, 1]),
    ),
    "repeat": ((3, 2), lambda x: read_places(x, {0: np.arange(9) // 3})),
    "tile": (
        (3, 2),
        lambda x: build.view(x, [index(output_axis(0, 9)) % 3, index(output_axis(1, 2))], [9, 2]),
    ),
    "diagonal": ((4, 4), lambda x: build.view(x, [index(output_axis(0, 4))] * 2, [4])),
    "a table": ((5, 2), lambda x: read_places(x, {0: np.array([4, 0, 0, 3, 4, 1, 4])})),
    "two tables": ((4, 4), lambda x: read_places(x, {0: np.array([3, 0, 0]), 1: np.array([1, 3, 0, 1, 1])})),
    "concat": ((3, 2), lambda x: build.concat([x, x, build.flip(x, [0])], 0)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_movement(name):
    shape, function = VIEWS[name]
    check(function, values(shape))


AFFINE = [name for name in VIEWS if "table" not in name]


@pytest.mark.parametrize("name", AFFINE)
def test_affine_movement_needs_no_scatter(name):
    shape, function = VIEWS[name]
    x = build.input_node("x", shape, "float64")
    y = function(x)
    graph = Graph({"x": x}, {"g": gradients([y], [x], [build.input_node("s", y.shape, "float64")])[0]})
    assert all(n.op != "SCATTER" for n in graph.nodes())


def test_indexed_reads():
    places = np.array([[2, 0, 2], [1, 2, 5]])
    check(lambda x, i: build.gather(x, i, 1), values((2, 3, 4)), places)


def test_guarded_indexed_reads_drop_what_lies_outside():
    check(
        lambda x, i: build.indexed_view(x, [index(Slot(0, 1, 3))], [4], [i]),
        values(5),
        np.array([0, 1, 3, 4]),
    )


@pytest.mark.parametrize("combine", ["SUM", "SET"])
def test_scatter(combine):
    places = np.array([2, 0, 2, 9])
    check(
        lambda base, updates, i: build.scatter(base, updates, [index(Slot(0, 0, 3))], [i], combine),
        values(4), values(4, seed=1), places,
    )


def test_a_scatter_of_products_is_refused_in_words():
    base, updates = inputs_like(values(4), values(2))
    y = build.scatter(base, updates, [index(output_axis(0, 2))], (), "PROD")
    with pytest.raises(NotSupported, match="SCATTER by PROD has no gradient"):
        gradients([y], [base], [build.full(1, [4], "float64")])


def test_matmul_and_its_gradients_are_contractions():
    from tinyinfer.kernels.fuse import is_contraction

    a, b = inputs_like(values((2, 3)), values((3, 4)))
    y = build.matmul(a, b)
    for g in gradients([y], [a, b], [build.input_node("s", y.shape, "float64")]):
        assert any(is_contraction(n) for n in Graph({}, {"g": g}).nodes())
    check(build.matmul, values((2, 3)), values((3, 4)))
    check(build.matmul, values((2, 1, 2, 3)), values((2, 3, 2)))


@pytest.mark.parametrize("strides, dilations, group", [([1, 1], [1, 1], 1), ([2, 1], [1, 2], 2)])
def test_convolution(strides, dilations, group):
    found = check(
        lambda x, w: build.convolution(x, w, strides, dilations, [1, 0], [0, 1], group),
        values((1, 4, 5, 4)),
        values((2, 4 // group, 2, 2)),
    )
    assert all(n.op != "SCATTER" for n in Graph({}, {str(i): g for i, g in enumerate(found)}).nodes())


def test_gradients_by_a_value_in_the_middle_and_by_what_it_depends_on():
    x = build.input_node("x", [2], "float64")
    middle = elementwise("MUL", x, x)
    y = elementwise("MUL", middle, middle)
    by_x, by_middle = gradients([y], [x, middle], [build.full(1, [2], "float64")])
    feeds = {"x": np.array([1.0, 3.0])}
    np.testing.assert_allclose(evaluate([by_x, by_middle], feeds), [[4, 108], [2, 18]])


def test_second_derivatives():
    x = build.input_node("x", [3], "float64")
    one = build.full(1, [3], "float64")
    (first,) = gradients([elementwise("SIN", elementwise("MUL", x, x))], [x], [one])
    (second,) = gradients([first], [x], [one])
    at = np.array([0.3, 1.0, -0.7])
    np.testing.assert_allclose(
        evaluate([second], {"x": at})[0], 2 * np.cos(at**2) - 4 * at**2 * np.sin(at**2), 1e-12
    )


def test_what_does_not_depend_has_zeros_and_seeds_must_fit():
    x, z = inputs_like(values(3), values(2))
    (g,) = gradients([elementwise("NEG", x)], [z], [build.full(1, [3], "float64")])
    assert evaluate([g], {})[0].tolist() == [0, 0]
    with pytest.raises(ValueError, match="does not fit the output"):
        gradients([x], [x], [z])
