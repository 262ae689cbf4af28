"""The importer: constants, origins, functions, branches, known values, and errors that name what is wrong."""

import numpy as np
import pytest
from onnx import numpy_helper, parser
from onnx_models import one_op, run, run_op

from tinyinfer.errors import InvalidArgument, InvalidGraph
from tinyinfer.errors import NotImplemented as NotSupported
from tinyinfer.frontend.onnx import Limits, NeedsValue, UnsupportedModel, blockers, import_graph, load_model
from tinyinfer.frontend.onnx.op_table import OP_TABLE, find_op
from tinyinfer.ir.oracle import evaluate

X = np.arange(12, dtype=np.float32).reshape(3, 4) - 5


def parsed(text):
    return parser.parse_model(text)


def small(body, inputs="float[3,4] x", outputs="float[a,b] y", opset=17):
    return parsed(
        f'<ir_version: 8, opset_import: ["" : {opset}]> test ({inputs}) => ({outputs}) {{ {body} }}'
    )


# ---- signature


def test_metadata_and_signature():
    proto = small("y = Add(x, w)", "float[n,4] x, float[4] w, int64 unused", "float[n,4] y")
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(4, np.float32), "w"))
    proto.producer_name, proto.model_version, proto.domain = "maker", 3, "org.example"
    proto.metadata_props.add(key="k", value="v")
    model = load_model(proto)
    assert [v.name for v in model.inputs] == ["x", "unused"] and [v.name for v in model.overridable] == ["w"]
    assert model.inputs[1].shape == () and model.outputs[0].shape == ("n", 4)
    assert (model.producer_name, model.version, model.domain, model.graph_name) == (
        "maker",
        3,
        "org.example",
        "test",
    )
    assert model.custom_metadata == {"k": "v"} and model.opsets == {"ai.onnx": 17} and model.node_count == 1
    graph = import_graph(model, {"x": (3, 4), "unused": ()})
    assert list(graph.inputs) == ["x", "unused"] and list(graph.outputs) == ["y"]
    override = import_graph(model, {"x": (3, 4), "unused": (), "w": (4,)})
    feeds = {"x": X, "unused": np.int64(0), "w": np.full(4, 2, np.float32)}
    np.testing.assert_array_equal(evaluate(list(override.outputs.values()), feeds)[0], X + 2)


def test_wrong_shapes_for_inputs():
    model = load_model(small("y = Relu(x)"))
    for shapes, words in (
        ({}, "no shape"),
        ({"x": (3, 5)}, r"shape \[3, 4\]"),
        ({"x": (3,)}, r"shape \[3, 4\]"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            import_graph(model, shapes)
    model = load_model(small("y = Relu(x)", "float[n,m] x"))
    with pytest.raises(InvalidArgument):
        import_graph(model, {"x": (-1, 2)})


# ---- constants


def test_shape_arithmetic_becomes_numbers():
    body = """s = Shape(x)  two = Constant <value_ints = [2]> ()  half = Div(s, two)
        minus = Constant <value_ints = [-1]> ()
        zero = Constant <value_int = 0> () rows = Gather(half, zero) axes = Constant <value_ints = [0]> ()
        one = Unsqueeze(rows, axes)  target = Concat <axis = 0> (one, minus)  y = Reshape(x, target)"""
    graph = import_graph(load_model(small(body)), {"x": (3, 4)})
    assert graph.outputs["y"].shape == (1, 12)
    assert [n.op for n in graph.nodes()] == ["INPUT", "VIEW"]


def test_a_value_that_is_fed_must_be_known():
    model = load_model(small("y = Reshape(x, s)", "float[3,4] x, int64[2] s"))
    with pytest.raises(NeedsValue, match="'shape' must be a constant.*'s'") as error:
        import_graph(model, {"x": (3, 4), "s": (2,)})
    assert error.value.inputs == ("s",)
    graph = import_graph(model, {"x": (3, 4), "s": (2,)}, {"s": np.array([2, 6])})
    assert graph.outputs["y"].shape == (2, 6) and list(graph.inputs) == ["x", "s"]
    with pytest.raises(InvalidArgument, match="known value"):
        import_graph(model, {"x": (3, 4), "s": (2,)}, {"s": np.array([2.0, 6.0])})


def test_every_kind_of_constant():
    for attribute, expected in (
        ("value_float = 2.5", np.float32(2.5)),
        ("value_int = 3", np.int64(3)),
        ("value_floats = [1.0, 2.0]", np.array([1, 2], np.float32)),
        ("value_ints = [1, 2]", np.array([1, 2])),
    ):
        (got,) = run(small(f"y = Constant <{attribute}> ()", outputs="float y"), {"x": X})
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == expected.dtype and got.shape == expected.shape
    (got,) = run(small('y = Constant <value_string = "a"> ()', outputs="string y"), {"x": X})
    assert got.shape == () and got.item() == "a"
    with pytest.raises(InvalidGraph, match="one of the attributes"):
        run(small("y = Constant()"), {"x": X})


# ---- origins


def test_nodes_know_the_onnx_names_they_come_from():
    proto = small(
        "a = MatMul(x, w)  b = Relu(a)  y = Softmax(b)", "float[3,4] x, float[4,5] w", "float[3,5] y"
    )
    for node, name in zip(proto.graph.node, ("/fc", "", "/probabilities")):
        node.name = name
    graph = import_graph(load_model(proto), {"x": (3, 4), "w": (4, 5)})
    made = [n for n in graph.nodes() if n.op not in ("CONST", "INPUT")]
    assert all(n.origin for n in made)
    assert [n.origin for n in made if n.op == "EXP"] == [{"/probabilities"}]
    assert [n.origin for n in made if n.op == "MAX" and n.is_elementwise] == [{"Relu_1"}]
    product = next(n for n in graph.nodes() if n.op == "SUM" and n.inputs[0].op == "MUL")
    assert product.origin == {"/fc"} and product.inputs[0].origin == {"/fc"}


# ---- functions and branches

FUNCTION = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
agraph (float[3,4] x, float[4] w) => (float[3,4] y) {
    a = local.scaled <alpha = 2.0> (x, w)
    y = local.scaled <alpha = 0.5> (a)
}
<domain: "local", opset_import: ["" : 17]>
scaled <alpha> (v, bias) => (r) {
    e = Elu <alpha: float = @alpha> (v)
    r = Clip(e, , )
}"""


def test_functions_are_inlined():
    (got,) = run(parsed(FUNCTION), {"x": X, "w": np.ones(4, np.float32)})

    def elu(v, alpha):
        return np.where(v < 0, alpha * np.expm1(v), v)

    np.testing.assert_allclose(got, elu(elu(X, 2), 0.5), 1e-5)


def test_functions_that_call_themselves():
    text = FUNCTION.replace("e = Elu <alpha: float = @alpha> (v)", "e = local.scaled(v)").replace(
        'opset_import: ["" : 17]>', 'opset_import: ["" : 17, "local" : 1]>'
    )
    with pytest.raises(UnsupportedModel, match="calls itself"):
        run(parsed(text), {"x": X, "w": np.ones(4, np.float32)})


BRANCH = """limit = Constant <value_float = 0.0> ()  total = ReduceSum <keepdims = 0> (%s)
    c = Greater(total, limit)
    y = If (c) <then_branch = g1 () => (float[3,4] p) { p = Relu(x) },
                else_branch = g2 () => (float[%s] q) { q0 = Neg(x)  q = %s(q0) }>"""


def test_a_constant_condition_takes_one_branch():
    proto = small(BRANCH % ("w", "3,4", "Identity"), "float[3,4] x")
    for sign in (1, -1):
        del proto.graph.initializer[:]
        proto.graph.initializer.append(numpy_helper.from_array(np.full(4, sign, np.float32), "w"))
        graph = import_graph(load_model(proto), {"x": (3, 4)})
        assert not any(n.op == "WHERE" for n in graph.nodes())
        (got,) = evaluate(list(graph.outputs.values()), {"x": X})
        np.testing.assert_array_equal(got, np.maximum(X, 0) if sign > 0 else -X)


def test_a_condition_that_is_fed_chooses_between_results():
    for x in (X, -X - 1):
        (got,) = run(small(BRANCH % ("x", "3,4", "Identity")), {"x": x})
        np.testing.assert_array_equal(got, np.maximum(x, 0) if x.sum() > 0 else -x)


def test_branches_of_other_shapes_specialise_to_the_value():
    proto = small(BRANCH % ("x", "4,3", "Transpose"))
    with pytest.raises(NeedsValue):
        import_graph(load_model(proto), {"x": (3, 4)})
    (got,) = run(proto, {"x": X - 9})
    np.testing.assert_array_equal(got, (9 - X).T)


# ---- what cannot be imported


def test_all_blockers_at_once():
    model = load_model(small("a = Foo(x)  b = Relu(a)  y = Bar(b)"))
    for node, name in zip(model.proto.graph.node, ("/blocks.3/foo", "", "/where")):
        node.name = name
    lines = [
        "Could not find an implementation for Foo(17) node with name '/blocks.3/foo'",
        "Could not find an implementation for Bar(17) node with name '/where'",
    ]
    assert blockers(model) == lines
    with pytest.raises(UnsupportedModel) as error:
        import_graph(model, {"x": (3, 4)})
    assert str(error.value).splitlines() == lines and isinstance(error.value, NotImplementedError)


def test_outputs_that_are_not_supported_matter_only_if_used():
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    proto = one_op("Relu", [x], 2)
    with pytest.raises(NotSupported, match="the output 'y1'"):
        run(proto, {"x0": x})
    proto.graph.output.pop()
    assert run(proto, {"x0": x})[0].shape == x.shape


# ---- broken graphs


@pytest.mark.parametrize(
    "body,words",
    [
        ("y = Relu(nothing)", "reads 'nothing'"),
        ("a = Relu(x)  a = Neg(x)  y = Neg(a)", "makes 'a', which exists already"),
        ("x = Relu(x)  y = Neg(x)", "exists already"),
        ("a = Add(b, x)  b = Relu(a)  y = Neg(b)", "cycle"),
        ("a = Relu(x)", "output 'y' is made by no node"),
        ("y = Relu()", "takes at least 1 inputs"),
        ("y = Relu(x, x)", "takes at most 1 inputs"),
    ],
)
def test_broken_graphs(body, words):
    with pytest.raises(InvalidGraph, match=words):
        run(small(body), {"x": X})


def test_nodes_out_of_order_are_sorted():
    (got,) = run(small("y = Neg(a)  a = Relu(x)"), {"x": X})
    np.testing.assert_array_equal(got, -np.maximum(X, 0))


IMAGE = np.zeros((1, 4, 8, 8), np.float32)
KERNEL = np.zeros((6, 4, 3, 3), np.float32)
ROWS = np.zeros((2, 3, 4), np.float32)

BAD_NODES = [
    ("Conv", [IMAGE, KERNEL], dict(strides=[0, 1]), "'strides' must hold numbers of at least 1"),
    ("Conv", [IMAGE, KERNEL], dict(strides=[1, 1, 1]), "'strides' must hold 2 numbers, not 3"),
    ("Conv", [IMAGE, KERNEL], dict(dilations=[-1, 1]), "'dilations'"),
    ("Conv", [IMAGE, KERNEL], dict(pads=[1, 1, 1]), "'pads' must hold 4 numbers"),
    ("Conv", [IMAGE, KERNEL], dict(pads=[-1, 0, 0, 0]), "'pads' must hold numbers of at least 0"),
    ("Conv", [IMAGE, KERNEL], dict(group=0), "'group' is 0; expected at least 1"),
    ("Conv", [IMAGE, KERNEL], dict(group=2), "4 channels"),
    ("Conv", [IMAGE, KERNEL], dict(kernel_shape=[3, 4]), "'kernel_shape'"),
    ("Conv", [IMAGE, KERNEL], dict(auto_pad="SOME"), "'auto_pad' must be one of"),
    ("Conv", [IMAGE, KERNEL], dict(strides=2), "must be of type INTS, not INT"),
    ("Conv", [IMAGE[:, :, :2], KERNEL], {}, "kernel spans 3"),
    ("Conv", [IMAGE, KERNEL[0]], {}, "rank 4"),
    ("Conv", [IMAGE, KERNEL, np.zeros(5, np.float32)], {}, "bias must be of shape"),
    ("ConvTranspose", [IMAGE, KERNEL], {}, "4 channels"),
    ("ConvTranspose", [IMAGE, KERNEL.transpose(1, 0, 2, 3)], dict(output_padding=[3, 0]), "output_padding"),
    ("MaxPool", [IMAGE], {}, "'kernel_shape' is missing"),
    ("MaxPool", [IMAGE], dict(kernel_shape=[0, 1]), "at least 1"),
    ("AveragePool", [IMAGE], dict(kernel_shape=[9, 9]), "spans 9"),
    ("Softmax", [ROWS], dict(axis=3), "axis 3 is out of range for a tensor of rank 3"),
    ("Concat", [ROWS, ROWS[:1]], dict(axis=1), "cannot concatenate"),
    ("Concat", [ROWS, ROWS[0]], dict(axis=0), "of one rank"),
    ("Concat", [ROWS, ROWS.astype(np.float64)], dict(axis=0), "of one type"),
    ("Transpose", [ROWS], dict(perm=[0, 0, 1]), "no permutation"),
    ("Reshape", [ROWS, np.array([5, -1])], {}, "cannot be reshaped"),
    ("Reshape", [ROWS, np.array([-1, -1])], {}, "more than one -1"),
    ("Reshape", [ROWS, np.array([6, 2, 2, 0])], {}, "is not there"),
    ("Squeeze", [ROWS, np.array([0])], {}, "not all of size 1"),
    ("Unsqueeze", [ROWS, np.array([0, 0])], {}, "twice"),
    ("Expand", [ROWS, np.array([5, 1, 1])], {}, "do not broadcast"),
    ("Add", [ROWS, ROWS[:, :2]], {}, "do not broadcast"),
    ("Add", [ROWS, ROWS.astype(np.int64)], {}, "of one type"),
    ("MatMul", [ROWS, ROWS], {}, "inner dimensions differ"),
    ("Gemm", [ROWS, ROWS], {}, "must be matrices"),
    ("Gather", [ROWS, np.array([3])], dict(axis=1), "holds 3, which is out of range"),
    ("Gather", [ROWS, np.array([-4])], dict(axis=1), "holds -4"),
    ("Slice", [ROWS, np.array([0]), np.array([1]), np.array([0]), np.array([0])], {}, "must not be 0"),
    ("Slice", [ROWS, np.array([0, 1]), np.array([1])], {}, "2 starts for 1 ends"),
    ("Split", [ROWS, np.array([1, 1])], dict(axis=1), "do not add up"),
    ("Pad", [ROWS, np.array([1, 1])], {}, "'pads' must hold 6 numbers"),
    ("Pad", [ROWS, np.array([-3, 0, 0, 0, 0, 0])], {}, "leave nothing"),
    ("Tile", [ROWS, np.array([1, 1])], {}, "'repeats' must hold 3"),
    ("DepthToSpace", [IMAGE], dict(blocksize=0), "at least 1"),
    ("DepthToSpace", [IMAGE], dict(blocksize=3), "do not divide"),
    ("SpaceToDepth", [IMAGE], dict(blocksize=3), "does not divide"),
    ("ReduceMax", [ROWS], dict(axes=[3]), "out of range"),
    ("ArgMax", [ROWS[:, :0]], dict(axis=1), "is empty"),
    ("BatchNormalization", [IMAGE, *[np.ones(3, np.float32)] * 4], {}, "each of 4 channels"),
    ("Resize", [IMAGE, None, np.array([1, 1, -1, 1], np.float32)], {}, "must be positive"),
    ("Resize", [IMAGE, None, np.array([1, 1], np.float32)], {}, "2 scales for 4 axes"),
    (
        "GRU",
        [ROWS, np.zeros((1, 9, 4), np.float32), np.zeros((1, 6, 3), np.float32)],
        dict(hidden_size=3),
        "R must be",
    ),
    (
        "RNN",
        [ROWS, np.zeros((1, 3, 4), np.float32), np.zeros((1, 3, 3), np.float32)],
        dict(hidden_size=3, activations=["Wild"]),
        "activation 'Wild'",
    ),
    ("Einsum", [ROWS, ROWS], dict(equation="ijk->i"), "1 operands"),
    ("Einsum", [ROWS], dict(equation="ij->i"), "does not fit"),
    ("OneHot", [np.array([1]), np.array(-1), np.zeros(2, np.float32)], {}, "'depth' must be positive"),
    ("ConstantOfShape", [np.array([-1])], {}, "negative"),
    ("ConstantOfShape", [np.array([1 << 41])], {}, "over the limit"),
    ("Range", [np.array(0), np.array(1 << 60), np.array(1)], {}, "over the limit"),
    ("Range", [np.array(0), np.array(5), np.array(0)], {}, "must not be 0"),
    ("Cast", [ROWS], {}, "'to' is missing"),
    ("Cast", [ROWS], dict(to=99), "does not know"),
    ("Sqrt", [np.arange(3)], {}, "expected a float"),
    ("GatherND", [ROWS, np.array([[0, 0, 0, 0]])], {}, "do not fit"),
]


@pytest.mark.parametrize(
    "op,inputs,attributes,words", BAD_NODES, ids=[f"{b[0]}-{i}" for i, b in enumerate(BAD_NODES)]
)
def test_bad_nodes_are_named(op, inputs, attributes, words):
    """Every rule that a node breaks is an InvalidGraph with its name, op and opset."""
    constants = tuple(i for i, x in enumerate(inputs) if x is not None and np.asarray(x).dtype.kind == "i")
    constants += tuple(i for i in (2,) if op == "Resize")
    with pytest.raises(InvalidGraph) as error:
        run_op(
            op,
            inputs,
            2 if op == "Split" else 1,
            opset=17,
            constants=tuple(dict.fromkeys(constants)),
            **attributes,
        )
    assert f"node 'the_node' ({op}, opset 17)" in str(error.value) and words in str(error.value)


# ---- limits and the table


def test_limits():
    proto = small("a = Relu(x)  b = Neg(a)  y = Relu(b)")
    with pytest.raises(InvalidGraph, match="over the limit of 2"):
        load_model(proto, Limits(max_nodes=2))


def test_the_op_table_is_complete_about_itself():
    for (domain, name), entries in OP_TABLE.items():
        for entry in entries:
            assert entry.doc, f"{name} has no documentation"
            assert entry.tolerance.reason and entry.since <= entry.until
            assert find_op(domain, name, entry.since) is entry
    assert find_op("ai.onnx", "Softmax", 12) is not find_op("", "Softmax", 13)
    assert find_op("", "Gelu", 19) is None


def test_strings_pass_through_what_moves_them_and_nothing_else():
    texts = np.array(["b", "", "a"], object)
    model = small("y = Concat <axis = 0> (x, x)", "string[3] x", "string[6] y")
    assert run(model, {"x": texts})[0].tolist() == ["b", "", "a"] * 2
    with pytest.raises(InvalidGraph, match="Exp.*strings"):
        run(small("y = Exp(x)", "string[3] x", "string[3] y"), {"x": texts})
    with pytest.raises(InvalidArgument, match=r"tensor\(string\)"):
        run(model, {"x": np.zeros(3, np.float32)})


HUGE = 1 << 45

HUGE_NODES = [
    ("Resize", [IMAGE, None, np.array([1, 1, 1e30, 1], np.float32)], {}),
    ("Resize", [IMAGE, None, None, np.array([1, 4, HUGE, 8])], {}),
    ("Resize", [IMAGE, None, np.array([1, 1, 1e-30, 1], np.float32)], dict(antialias=1, mode="linear")),
    ("Pad", [ROWS, np.array([0, 0, HUGE, 0, 0, 0])], dict(mode="edge")),
    ("Pad", [ROWS, np.array([0, 0, HUGE, 0, 0, 0])], {}),
    ("Tile", [ROWS, np.array([HUGE, 1, 1])], {}),
    ("Expand", [ROWS[:1], np.array([HUGE, 3, 4])], {}),
    ("AveragePool", [IMAGE], dict(kernel_shape=[1, 1], pads=[0, 0, HUGE, 0])),
    ("OneHot", [np.array([1]), np.array(HUGE), np.zeros(2, np.float32)], {}),
]


@pytest.mark.parametrize(
    "op,inputs,attributes", HUGE_NODES, ids=[f"{b[0]}-{i}" for i, b in enumerate(HUGE_NODES)]
)
def test_huge_sizes_cost_nothing(op, inputs, attributes):
    """A small file that asks for a huge tensor is refused at once, or its value is empty."""
    constants = tuple(i for i in range(1, len(inputs)) if inputs[i] is not None)
    try:
        graph = import_graph(
            load_model(one_op(op, inputs, opset=18, constants=constants, **attributes)),
            {"x0": inputs[0].shape},
        )
    except InvalidGraph as error:
        assert "limit" in str(error) or "too large" in str(error)
    else:
        assert 0 in graph.outputs["y0"].shape


def test_functions_that_multiply():
    """Functions that each call the next one twice stop at the limit of nodes."""
    bodies = "".join(
        f'<domain: "local", opset_import: ["" : 17, "local" : 1]> f{i} (v) => (r) '
        f"{{ a = local.f{i + 1}(v)  r = local.f{i + 1}(a) }}"
        for i in range(20)
    )
    text = (
        '<ir_version: 8, opset_import: ["" : 17, "local" : 1]> agraph (float[3,4] x) => (float[3,4] y) '
        "{ y = local.f0(x) }"
        + bodies
        + '<domain: "local", opset_import: ["" : 17]> f20 (v) => (r) { r = Neg(v) }'
    )
    with pytest.raises(InvalidGraph, match="more than 5000 nodes"):
        import_graph(load_model(parsed(text), Limits(max_nodes=5000)), {"x": (3, 4)})
    broken = text.replace("r = Neg(v)", "r = Foo(v)")
    assert len(blockers(load_model(parsed(broken)))) == 1000
    deep = load_model(parsed(text), Limits(max_depth=5))
    assert "nested more than 5 deep" in blockers(deep)[0]
