"""ai.onnx.preview.training: gradients of networks by finite differences, and steps of optimizers."""

import numpy as np
import pytest
from onnx import ValueInfoProto, helper

import tinyinfer
from tinyinfer.errors import InvalidGraph

TRAINING = "ai.onnx.preview.training"


def model_of(nodes, feeds, outputs, opset=17):
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in feeds.items()
    ]
    graph = helper.make_graph(nodes, "training", inputs, [ValueInfoProto(name=o) for o in outputs])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(TRAINING, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def run(nodes, feeds, outputs, device="CPU"):
    session = tinyinfer.InferenceSession(model_of(nodes, feeds, outputs), providers=[device])
    return session.run(None, feeds)


def gradient(xs, y, outputs, zs=(), inputs=None):
    attributes = {"zs": list(zs)} if zs else {}
    return helper.make_node(
        "Gradient", inputs or [*xs, *zs], outputs, domain=TRAINING, xs=list(xs), y=y, **attributes
    )


def values(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def one(op, inputs, output, **attributes):
    return helper.make_node(op, inputs.split(), [output], **attributes)


NETWORKS = {
    "dense": (
        [
            one("Gemm", "x w b", "h", transB=1),
            one("Relu", "h", "a"),
            one("Softmax", "a", "p", axis=-1),
            one("Mul", "p p", "q"),
            one("ReduceSum", "q", "loss", keepdims=0),
        ],
        {"x": values(3, 4), "w": values(5, 4, seed=1), "b": values(5, seed=2)},
    ),
    "convolution": (
        [
            one("Conv", "x w", "c", pads=[1, 1, 1, 1], strides=[2, 2]),
            one("BatchNormalization", "c s t m v", "n"),
            one("LeakyRelu", "n", "a", alpha=0.2),
            one("AveragePool", "a", "p", kernel_shape=[2, 2]),
            one("Tanh", "p", "t2"),
            one("ReduceMean", "t2", "loss", keepdims=0),
        ],
        {
            "x": values(1, 2, 7, 6), "w": values(3, 2, 3, 3, seed=1), "s": values(3, seed=2),
            "t": values(3, seed=3), "m": values(3, seed=4), "v": values(3, seed=5) ** 2 + 0.5,
        },
    ),
    "attention": (
        [
            one("MatMul", "q k", "s"),
            one("Softmax", "s", "p", axis=-1),
            one("MatMul", "p v", "o"),
            one("LayerNormalization", "o g", "n"),
            one("Erf", "n", "e"),
            one("ReduceSumSquare", "e", "loss", keepdims=0),
        ],
        {"q": values(2, 3, 4), "k": values(2, 4, 3, seed=1), "v": values(2, 3, 5, seed=2),
         "g": values(5, seed=3)},
    ),
    "movement": (
        [
            one("Transpose", "x", "t", perm=[1, 0]),
            one("Concat", "t y", "c", axis=0),
            helper.make_node("Split", ["c"], ["l", "r"], axis=1),
            one("Sigmoid", "l", "sl"),
            one("Mul", "sl r", "m"),
            one("ReduceMax", "m", "z", axes=[0], keepdims=0),
            one("Exp", "z", "e"),
            one("ReduceSum", "e", "loss", keepdims=0),
        ],
        {"x": values(4, 3), "y": values(2, 4, seed=1)},
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_networks(name):
    nodes, feeds = NETWORKS[name]
    xs = list(feeds)
    found = run([*nodes, gradient(xs, "loss", [f"d{x}" for x in xs])], feeds, [f"d{x}" for x in xs])
    session = tinyinfer.InferenceSession(model_of(nodes, feeds, ["loss"]), providers=["CPU"])
    for x, result in zip(xs, found):
        assert result.shape == feeds[x].shape and result.dtype == np.float64
        wanted = np.zeros_like(result)
        for place in np.ndindex(result.shape):
            sides = []
            for step in (1e-6, -1e-6):
                moved = feeds[x].copy()
                moved[place] += step
                sides.append(session.run(None, {**feeds, x: moved})[0])
            wanted[place] = (sides[0] - sides[1]) / 2e-6
        np.testing.assert_allclose(result, wanted, 1e-4, 1e-6, err_msg=x)


def test_by_a_value_in_the_middle_at_another_value_and_twice():
    """y = (x + 1)² · z by h = x + 1: 2 h z, at what is given for h; and its derivative by h, 2 z."""
    x, z, other = (np.array(v, np.float64) for v in ([1.0, 2], [3.0, 5], [10.0, 20]))
    nodes = [
        one("Constant", "", "one", value_float=1.0),
        one("Cast", "one", "unit", to=11),
        one("Add", "x unit", "h"),
        one("Reshape", "h shape", "flat"),
        one("Mul", "flat flat", "square"),
        one("Mul", "square z", "y"),
        gradient(["h"], "y", ["here"], ["z"]),
        gradient(["h"], "y", ["there"], ["z"], ["other", "z"]),
        gradient(["h"], "here", ["second"], ["z"]),
    ]
    nodes.insert(0, one("Shape", "x", "shape"))
    feeds = {"x": x, "z": z, "other": other}
    here, there, second = run(nodes, feeds, ["here", "there", "second"])
    np.testing.assert_allclose(here, 2 * (x + 1) * z)
    np.testing.assert_allclose(there, 2 * other * z)
    np.testing.assert_allclose(second, 2 * z)


@pytest.mark.parametrize(
    "node, words",
    [
        (gradient(["x"], "nothing", ["d"]), "makes no tensor 'nothing'"),
        (gradient(["x"], "y", ["d"], inputs=["x", "x"]), "2 inputs for 1 names"),
        (gradient(["x", "x"], "y", ["d"]), "name a value twice"),
        (gradient(["x"], "y", ["d", "e"]), "2 outputs for 1 names"),
    ],
)
def test_bad_gradients_are_refused_in_words(node, words):
    with pytest.raises(InvalidGraph, match=words):
        run([one("Exp", "x", "y"), node], {"x": values(3)}, ["d"])


# ---- optimizers

OPTIMIZERS = [
    ("Adagrad", {}, 1),
    ("Adagrad", {"decay_factor": 0.1, "epsilon": 1e-3, "norm_coefficient": 0.01}, 1),
    ("Adam", {}, 2),
    ("Adam", {"alpha": 0.8, "beta": 0.9, "epsilon": 1e-3, "norm_coefficient": 0.1,
              "norm_coefficient_post": 0.02}, 2),
    ("Momentum", {"alpha": 0.9, "beta": 0.7, "mode": "standard", "norm_coefficient": 0.01}, 1),
    ("Momentum", {"alpha": 0.9, "beta": 0.7, "mode": "nesterov", "norm_coefficient": 0.0}, 1),
]


@pytest.mark.parametrize("op, attributes, states", OPTIMIZERS)
@pytest.mark.parametrize("count", [0, 1, 7])
def test_optimizers_as_the_reference(op, attributes, states, count):
    from onnx.reference import ReferenceEvaluator

    shapes = [(3,), (2, 4)]
    rng = np.random.default_rng(1)
    feeds = {"R": np.float32(0.1), "T": np.array(count, np.int64)}
    for kind in range(2 + states):
        for i, shape in enumerate(shapes):
            feeds[f"k{kind}_{i}"] = rng.random(shape, np.float32)
    outputs = [f"o{kind}_{i}" for kind in range(1 + states) for i in range(2)]
    nodes = [helper.make_node(op, list(feeds), outputs, domain=TRAINING, **attributes)]
    feeds = {n: np.asarray(a) for n, a in feeds.items()}
    wanted = ReferenceEvaluator(model_of(nodes, feeds, outputs)).run(None, feeds)
    for result, expected in zip(run(nodes, feeds, outputs), wanted, strict=True):
        np.testing.assert_allclose(result, expected, 2e-5, 1e-6)


def test_a_network_learns_with_gradient_and_optimizer_in_one_model():
    x, wanted = values(32, 3).astype(np.float32), np.array([[1], [-2], [0.5]], np.float32)
    nodes = [
        one("MatMul", "x w", "p"),
        one("Sub", "p t", "e"),
        one("Mul", "e e", "s"),
        one("ReduceMean", "s", "loss", keepdims=0),
        gradient(["w"], "loss", ["dw"], ["x", "t"]),
        helper.make_node("Adam", ["R", "T", "w", "dw", "v", "h"], ["w2", "v2", "h2"], domain=TRAINING),
    ]
    zero = np.zeros((3, 1), np.float32)
    feeds = {"x": x, "t": x @ wanted, "w": zero, "v": zero, "h": zero, "R": np.float32(0.1),
             "T": np.array(0, np.int64)}
    feeds = {n: np.asarray(a) for n, a in feeds.items()}
    session = tinyinfer.InferenceSession(model_of(nodes, feeds, ["w2", "v2", "h2"]), providers=["CPU"])
    for step in range(300):
        w, v, h = session.run(None, feeds)
        feeds.update(w=w, v=v, h=h, T=np.array(step + 1, np.int64))
    np.testing.assert_allclose(w, wanted, atol=1e-2)
