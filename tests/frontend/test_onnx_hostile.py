"""Hostile models: whatever a file holds, it is refused in words or run, in bounded time and memory."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import feeds_of, one_op

import tinyinfer
from tinyinfer import Limits
from tinyinfer.errors import InvalidGraph, NoSuchFile, TinyInferError

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
SMALL = Limits(max_bytes=1 << 28, compile_seconds=20, loop_trips=10_000)
X = np.arange(12, dtype=np.float32).reshape(3, 4)
IMAGE = np.ones((1, 2, 5, 5), np.float32)


def run(model, feeds, limits=SMALL):
    """The outputs; with what it costs to find out, it must not take long."""
    begun = time.monotonic()
    try:
        return tinyinfer.InferenceSession(model, providers=["CPU"], limits=limits).run(None, feeds)
    finally:
        assert time.monotonic() - begun < 30


def parsed(text, opset=20):
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}, "f" : 1]> {text}')


# ---- memory: indices that point anywhere


@pytest.mark.skipif(sys.platform != "linux", reason="guard pages by mprotect")
@pytest.mark.parametrize(
    "where", ["self-test", "end 4", *(pytest.param(w, marks=pytest.mark.sweep) for w in ("begin 1", "end 1"))]
)
def test_no_index_in_data_reads_or_writes_outside_of_its_buffer(where, tmp_path):
    """Every operator that finds places by data, between pages that kill the process when touched."""
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{HERE}"}
    done = subprocess.run(
        [sys.executable, str(HERE / "hostile_memory.py"), *where.split()],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    if where == "self-test":
        assert done.returncode < 0
        return
    last = "\n".join(done.stdout.splitlines()[-3:])
    assert done.returncode == 0 and last.endswith("done"), f"{done.returncode}: {last}\n{done.stderr[-2000:]}"


# ---- external data


def external(tensor, **entries):
    """`tensor` with its bytes elsewhere."""
    for field in ("raw_data", "float_data", "int64_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def constant_model(**attribute):
    return helper.make_model(
        helper.make_graph(
            [helper.make_node("Constant", [], ["y"], **attribute)], "g", [], [onnx.ValueInfoProto(name="y")]
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def places(location):
    """The same external bytes as an initializer, in an attribute, and as parts of a sparse tensor."""
    weights = external(numpy_helper.from_array(X, "w"), location=location)
    model = one_op("Identity", [X])
    model.graph.node[0].input[0] = "w"
    model.graph.initializer.append(weights)
    yield "initializer", model
    yield "attribute", constant_model(value=external(numpy_helper.from_array(X, "v"), location=location))
    flat = numpy_helper.from_array(np.arange(12), "")
    values = external(numpy_helper.from_array(X.reshape(-1), "v"), location=location)
    yield "sparse values", constant_model(sparse_value=helper.make_sparse_tensor(values, flat, [3, 4]))
    indices = external(numpy_helper.from_array(np.arange(6), ""), location=location)
    some = numpy_helper.from_array(X.reshape(-1)[:6], "v")
    yield "sparse indices", constant_model(sparse_value=helper.make_sparse_tensor(some, indices, [3, 4]))


@pytest.fixture
def folder(tmp_path):
    """A folder for a model; beside it lies a secret that links in the folder lead to."""
    inside, outside = tmp_path / "model", tmp_path / "outside"
    for made in (inside, inside / "data", outside):
        made.mkdir()
    for path in (outside / "secret", inside / "w", inside / "data" / "w"):
        path.write_bytes(X.tobytes())
    return inside


def load_and_run(folder, model, limits=SMALL):
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return run(path, {v.name: X for v in model.graph.input}, limits)


HOSTILE_PLACES = (
    "../outside/secret", "data/../../outside/secret", "data/../w", "/etc/passwd", "", ".", "..", "data",
    "link", "folder/secret", "data/back/outside/secret", "hard", "pipe", "zero", "w\0x", "C:/w", "//w",
)  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
@pytest.mark.parametrize("location", HOSTILE_PLACES)
def test_external_data_stays_in_the_folder(folder, location):
    """For every kind of tensor there is one reader, and it refuses every way out of the folder."""
    outside = folder.parent / "outside"
    (folder / "link").symlink_to(outside / "secret")
    (folder / "folder").symlink_to(outside)
    (folder / "data" / "back").symlink_to("../..")
    os.link(outside / "secret", folder / "hard")
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    for what, model in places(location):
        with pytest.raises((InvalidGraph, NoSuchFile), match="external data|tensor"):
            load_and_run(folder, model)
            pytest.fail(what)


def test_external_data_in_the_folder(folder):
    for location in ("w", "data/w", "./w"):
        for what, model in places(location):
            if what != "sparse indices":
                np.testing.assert_array_equal(load_and_run(folder, model)[0], X)


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_hard_links_may_be_allowed(folder):
    os.link(folder / "w", folder / "other")
    model = next(places("w"))[1]
    with pytest.raises(InvalidGraph, match="hard_links"):
        load_and_run(folder, model)
    assert load_and_run(folder, model, Limits(hard_links=True))[0].shape == X.shape


@pytest.mark.parametrize(
    "entries", [{"offset": 1}, {"offset": 1 << 62}, {"offset": "-8"}, {"length": 1 << 40}, {"length": "1e3"},
                {"offset": "0x10"}, {"length": "९"}]
)  # fmt: skip
def test_ranges_of_external_data(folder, entries):
    for key in ("w", "data/w"):
        model = next(places(key))[1]
        for name, value in entries.items():
            model.graph.initializer[0].external_data.add(key=name, value=str(value))
        with pytest.raises(InvalidGraph, match="external data"):
            load_and_run(folder, model)


@pytest.mark.parametrize("key", ["__class__", "__dict__", "info", "basepath", "_folder", "checksum", "f" * 9])
def test_other_keys_of_external_data_mean_nothing(folder, key):
    model = next(places("w"))[1]
    model.graph.initializer[0].external_data.add(key=key, value="/etc/passwd")
    np.testing.assert_array_equal(load_and_run(folder, model)[0], X)


def test_sparse_indices_are_checked():
    values = numpy_helper.from_array(X.reshape(-1)[:2].copy(), "v")
    for indices in ([-1, 0], [0, 12], [1 << 62, 0], [[0, 4], [0, 0]], [[0, -1], [0, 0]]):
        made = numpy_helper.from_array(np.array(indices), "")
        with pytest.raises(InvalidGraph, match="index"):
            run(constant_model(sparse_value=helper.make_sparse_tensor(values, made, [3, 4])), {})


# ---- attributes

WEIGHTS = np.ones((2, 2, 2, 2), np.float32)
BAD_ATTRIBUTES = [
    *(("Conv", [IMAGE, WEIGHTS], {name: value}) for name in ("strides", "dilations")
      for value in ([0, 1], [-1, 1], [1], [1, 1, 1])),
    *(("Conv", [IMAGE, WEIGHTS], {"group": g}) for g in (0, -1, 3, 1 << 40)),
    *(("Conv", [IMAGE, WEIGHTS], {"kernel_shape": k}) for k in ([0, 0], [-2, 2], [2], [3, 3], [1 << 62, 2])),
    *(("Conv", [IMAGE, WEIGHTS], {"pads": p}) for p in ([-9] * 4, [1], [1] * 5, [1 << 62] * 4)),
    *(("ConvTranspose", [IMAGE, WEIGHTS], a) for a in
      ({"strides": [0, 1]}, {"group": 0}, {"output_padding": [-9, 0]}, {"output_shape": [1 << 40, 2]},
       {"strides": [1 << 40, 1]}, {"dilations": [0, 0]})),
    *((op, [IMAGE], {"kernel_shape": [2, 2], **a}) for op in ("MaxPool", "AveragePool", "LpPool") for a in
      ({"strides": [0, 1]}, {"strides": [-1, 1]}, {"pads": [-9] * 4}, {"pads": [1 << 62] * 4},
       {"kernel_shape": [0, 2]}, {"kernel_shape": [2]}, {"strides": [1]}, {"auto_pad": "ODD"})),
    *(("SpaceToDepth", [np.ones((1, 4, 4, 4), np.float32)], {"blocksize": b}) for b in (0, -2, 3, 1 << 62)),
    *(("DepthToSpace", [np.ones((1, 4, 4, 4), np.float32)], {"blocksize": b}) for b in (0, -2, 3, 1 << 62)),
    *(("Transpose", [X], {"perm": p}) for p in ([0], [0, 0], [0, 2], [-1, 0], [0, 1, 2])),
    *((op, [X], {"axis": a}) for op in ("Softmax", "ArgMax", "Flatten", "Hardmax") for a in (9, -9, 1 << 62)),
    *(("Concat", [X, X], {"axis": a}) for a in (2, -3, 1 << 62)),
    *(("Split", [X], {"num_outputs": n}) for n in (0, -1)),
    *(("Einsum", [X, X], {"equation": e}) for e in ("", "ab", "ab,bc,cd", "a..b,ab", "ab,ab->x", "a" * 99,
                                                    "ab,ac->" + "b" * 60, "->", ",")),
    *(("LRN", [IMAGE], {"size": s}) for s in (0, -1)),
    *(("Cast", [X], {"to": t}) for t in (0, 99, -1, 1 << 40)),
    ("BatchNormalization", [IMAGE, X[0], X[0], X[0], X[0]], {}),
    ("Gemm", [X, X], {}),
    ("Unsqueeze", [X, np.array([0, 0])], {}),
    ("LSTM", [IMAGE[0], IMAGE[0], IMAGE[0]], {"hidden_size": 0}),
    ("GroupNormalization", [IMAGE, X[0, :2].copy(), X[0, :2].copy()], {"num_groups": 0}),
    ("Resize", [IMAGE, np.ones(8, np.float32), np.ones(3, np.float32)], {}),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BAD_ATTRIBUTES)))
def test_attributes_are_checked(number):
    op, inputs, attributes = BAD_ATTRIBUTES[number]
    model = one_op(op, inputs, 1, 18, tuple(range(1, len(inputs))), **attributes)
    with pytest.raises(TinyInferError, match=op):
        run(model, feeds_of(model, inputs))


TREE = {
    "n_targets": 1, "nodes_treeids": [0, 0, 0], "nodes_nodeids": [0, 1, 2], "nodes_featureids": [0, 0, 0],
    "nodes_values": [0.0, 0.0, 0.0], "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0], "target_treeids": [0, 0],
    "target_nodeids": [1, 2], "target_ids": [0, 0], "target_weights": [1.0, 2.0],
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"nodes_truenodeids": [0, 0, 0]},
        {"nodes_truenodeids": [1 << 40, 0, 0]},
        {"nodes_truenodeids": [-1, 0, 0]},
        {"nodes_featureids": [4, 0, 0]},
        {"nodes_featureids": [-1, 0, 0]},
        {"nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", "BRANCH_LEQ"]},
        {"nodes_modes": ["BRANCH_LEQ"]},
        {"nodes_nodeids": [0, 0, 0]},
        {"target_ids": [0, 7]},
        {"target_ids": [0, -1]},
        {"target_nodeids": [1, 9]},
        {"n_targets": 1 << 40},
    ],
    ids=str,
)
def test_trees_with_cycles_and_children_that_are_not_there(change):
    model = one_op("TreeEnsembleRegressor", [X], 1, 17, (), "ai.onnx.ml", **{**TREE, **change})
    model.opset_import.add(domain="ai.onnx.ml", version=3)
    with pytest.raises(TinyInferError, match="TreeEnsembleRegressor"):
        run(model, {"x0": X})


# ---- small files that ask for much

HUGE = 1 << 40
MANY = [
    ("ConstantOfShape", [np.array([HUGE, HUGE])], {}),
    ("ConstantOfShape", [np.array([HUGE, 0, HUGE])], {}),
    ("Expand", [X, np.array([HUGE, 3, 4])], {}),
    ("Tile", [X, np.array([HUGE, HUGE])], {}),
    ("Range", [np.array(0), np.array(1 << 62), np.array(1)], {}),
    ("Range", [np.array(0.0), np.array(1e300), np.array(1e-300)], {}),
    ("Pad", [X, np.array([0, 0, HUGE, HUGE])], {}),
    ("Resize", [IMAGE, None, np.array([1, 1, 1e30, 1e30], np.float32)], {}),
    ("Resize", [IMAGE, None, None, np.array([1, 2, HUGE, HUGE])], {}),
    ("OneHot", [np.zeros(3, np.int64), np.array(HUGE), np.array([0.0, 1.0])], {}),
    ("BlackmanWindow", [np.array(HUGE)], {}),
    ("EyeLike", [X], {"k": 1 << 62}),
    ("MelWeightMatrix", [*map(np.array, (HUGE, HUGE, 16000)), np.float32(1), np.float32(8000)], {}),
    ("Split", [X], {"num_outputs": HUGE}),
]


@pytest.mark.parametrize("number", range(len(MANY)))
@pytest.mark.parametrize("constant", [True, False])
def test_sizes_beyond_the_limits(number, constant):
    op, inputs, attributes = MANY[number]
    inputs = [None if x is None else np.asarray(x) for x in inputs]
    fixed = tuple(i for i, x in enumerate(inputs) if x is not None and i) if constant else ()
    model = one_op(op, inputs, 1, 18, fixed, **attributes)
    try:
        run(model, feeds_of(model, inputs))
    except TinyInferError as error:
        assert str(error)
    else:
        assert op == "EyeLike"  # nothing of the diagonal is left


def test_tensors_that_are_declared_too_large():
    for dims in ([HUGE, HUGE], [1 << 62, 1 << 62, 0], [-1, 4], [3] * 70):
        tensor = TensorProto(data_type=TensorProto.FLOAT, dims=dims, name="w", raw_data=b"")
        model = one_op("Identity", [X])
        model.graph.node[0].input[0] = "w"
        model.graph.initializer.append(tensor)
        with pytest.raises(InvalidGraph, match="'w'"):
            run(model, {"x0": X})


def test_doubling_sixty_times():
    """A tensor that doubles is refused at the limit; a value that is added to itself is cheap."""
    text = " ".join(f"x{i + 1} = Concat<axis = 0>(x{i}, x{i})" for i in range(60))
    with pytest.raises(InvalidGraph, match="max_elements"):
        run(parsed(f"g (float[4] x0) => (float[n] x60) {{ {text} }}"), {"x0": X[0]})
    text = " ".join(f"x{i + 1} = Add(x{i}, x{i})" for i in range(60))
    (result,) = run(parsed(f"g (float[4] x0) => (float[n] x60) {{ {text} }}"), {"x0": X[0]})
    np.testing.assert_array_equal(result, X[0] * np.float32(2.0**60))


def test_memory_of_the_compiled_graph():
    model = parsed("g (float[4096, 4096] x) => (float[4096, 4096] y) { y = MatMul(x, x) }")
    with pytest.raises(tinyinfer.Fail, match="max_bytes = 1048576"):
        run(model, {"x": np.ones((4096, 4096), np.float32)}, Limits(max_bytes=1 << 20))


def test_seconds_of_compiling():
    text = " ".join(f"a{i} = Sin(x{i}) x{i + 1} = Concat<axis = 0>(a{i}, a{i})" for i in range(12))
    model = parsed(f"g (float[4] x0) => (float[n] x12) {{ {text} }}")
    with pytest.raises(tinyinfer.Fail, match="compile_seconds = 0.001"):
        run(model, {"x0": X[0]}, Limits(compile_seconds=0.001))
    assert run(model, {"x0": X[0]})[0].size == 4 << 12


def functions_that_explode(levels):
    model = parsed("g (float[4] x) => (float[4] y) { y = f.l0(x) }")
    for level in range(levels):
        inner = f"l{level + 1}"
        nodes = [helper.make_node(inner, [a], [b], domain="f") for a, b in ("ab", "bc")]
        if level == levels - 1:
            nodes = [helper.make_node("Neg", ["a"], ["c"])]
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)]
        model.functions.append(helper.make_function("f", f"l{level}", ["a"], ["c"], nodes, opsets))
    return model


def test_functions_that_call_each_other():
    with pytest.raises(InvalidGraph, match="5000 nodes"):
        run(functions_that_explode(25), {"x": X[0]}, Limits(max_nodes=5000))
    with pytest.raises(TinyInferError, match="nested more than"):
        run(functions_that_explode(80), {"x": X[0]})


LOOPS = {
    "no end": "y = Loop(, t, x) <body = b (int64 i, bool c, float[4] s) => (bool d, float[4] r) "
    "{ d = Identity(c) r = Neg(s) }>",
    "decided by data": "y = Loop(, t, x) <body = b (int64 i, bool c, float[4] s) => (bool d, float[4] r) "
    "{ r = Neg(s) m = ReduceMax<keepdims = 0>(r) z = Cast<to = 9>(m) d = Or(z, c) }>",
    "many trips": "y = Loop(n, t, x) <body = b (int64 i, bool c, float[4] s) => (bool d, float[4] r) "
    "{ d = Identity(c) r = Sin(s) }>",
    "rows": "q, y = Loop(n, t, x) <body = b (int64 i, bool c, float[4] s) => "
    "(bool d, float[4] r, float[4] o) { d = Identity(c) r = Neg(s) o = Sin(s) }>",
    "a shape that grows": "y = Loop(n, t, x) <body = b (int64 i, bool c, float[k] s) => (bool d, float[l] r) "
    "{ d = Identity(c) z = Neg(s) r = Concat<axis = 0>(s, z) }>",
    "loops in loops": "y = Loop(n, t, x) <body = b (int64 i, bool c, float[4] s) => (bool d, float[4] r) "
    "{ d = Identity(c) r = Loop(n, c, s) <body = e (int64 j, bool f, float[4] u) => (bool g, float[4] v) "
    "{ g = Identity(f) v = Sin(u) }> }>",
}


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("known", [True, False])
def test_loops_that_do_not_end(name, known):
    given = "" if known else ", int64 n"
    fixed = "<int64 n = {9223372036854775807}, bool t = {1}>" if known else "<bool t = {1}>"
    model = parsed(f"g (float[4] x{given}) => (float[m] y) {fixed} {{ {LOOPS[name]} }}")
    feeds = {"x": X[0]} | ({} if known else {"n": np.array(1 << 62)})
    with pytest.raises(TinyInferError, match="limit"):
        run(model, feeds)


def test_sequences_that_grow():
    model = parsed(
        "g (float[4] x, int64 n) => (int64 y) <bool t = {1}> { e = SequenceEmpty() "
        "s = Loop(n, t, e) <body = b (int64 i, bool c, seq(float[4]) q) => (bool d, seq(float[4]) r) "
        "{ d = Identity(c) r = SequenceInsert(q, x) }> y = SequenceLength(s) }"
    )
    limits = Limits(max_sequence=20, compile_seconds=20)
    assert run(model, {"x": X[0], "n": np.array(9)}, limits)[0] == 9
    with pytest.raises(TinyInferError, match="max_sequence = 20"):
        run(model, {"x": X[0], "n": np.array(1 << 62)}, limits)
    with pytest.raises(TinyInferError, match="compile_seconds"):
        run(model, {"x": X[0], "n": np.array(1 << 62)}, Limits(compile_seconds=0.5))


# ---- text


def test_regular_expressions_that_would_backtrack():
    for pattern in ("(a*)*b", "(a|a)*b", "(a|aa)+c", "(.*)*x", "a{1000}{1000}", "(" * 5000, "\\p{", "[z-a]"):
        model = one_op("RegexFullMatch", [np.array(["a"], object)], 1, 20, pattern=pattern)
        try:
            (result,) = run(model, {"x0": np.array(["a" * 20_000], object)})
            assert not result[0]
        except TinyInferError as error:
            assert "RegexFullMatch" in str(error)


def test_strings_that_double():
    text = " ".join(f"x{i + 1} = StringConcat(x{i}, x{i})" for i in range(60))
    with pytest.raises(TinyInferError, match="max_text"):
        run(parsed(f"g (string[1] x0) => (string[1] x60) {{ {text} }}"), {"x0": np.array(["ab"], object)})


def test_strings_that_are_repeated_or_split():
    texts = np.array(["a"], object)
    model = one_op("Expand", [texts, np.array([1 << 30])], 1, 20, (1,))
    with pytest.raises(TinyInferError, match="max_text"):
        run(model, {"x0": texts})
    model = one_op("StringSplit", [np.array(["a"] * 3, object)], 1, 20, delimiter=",")
    with pytest.raises(TinyInferError, match="max_text"):
        run(model, {"x0": np.array(["," * 9999, "", ""], object)}, Limits(max_text=20_000))


def test_n_grams_of_any_length():
    model = one_op(
        "TfIdfVectorizer", [np.arange(6)], 1, 17, mode="TF", min_gram_length=1, max_gram_length=2,
        max_skip_count=(1 << 63) - 1, pool_int64s=[1, 1, 2], ngram_counts=[0, 1], ngram_indexes=[0, 1],
    )  # fmt: skip
    np.testing.assert_array_equal(run(model, {"x0": np.arange(6)})[0], [1, 1])


# ---- structure


def test_names_and_nesting():
    cycle = parsed("g (float[4] x) => (float[4] a) { a = Add(x, x) }")
    cycle.graph.node[0].input[0] = "a"
    twice = parsed("g (float[4] x) => (float[4] a) { a = Neg(x) }")
    twice.graph.node.append(twice.graph.node[0])
    absent = parsed("g (float[4] x) => (float[4] a) { a = Neg(x) }")
    absent.graph.node[0].input[0] = "?"
    for model, words in ((cycle, "cycle"), (twice, "exists already"), (absent, "no input")):
        with pytest.raises(InvalidGraph, match=words):
            run(model, {"x": X[0]})


def field(number, content):
    """A field of a protobuf message that holds another message."""
    size, length = bytearray(), len(content)
    while length >= 0x80:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([number << 3 | 2, *size, length]) + content


@pytest.mark.parametrize("depth", [8, 40, 1000])
@pytest.mark.parametrize("long", [False, True])
def test_branches_that_are_nested_deeply(depth, long):
    """Branch in branch, as far as the protobuf parser goes along and further."""
    result = onnx.ValueInfoProto(name="y")
    leaf = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "leaf", [], [result])
    leaf.doc_string = "." * 2000 * long
    graph = leaf.SerializeToString()
    other = helper.make_attribute("else_branch", leaf)
    for _ in range(depth):
        branch = onnx.AttributeProto(name="then_branch", type=onnx.AttributeProto.GRAPH)
        node = onnx.NodeProto(op_type="If", input=["t"], output=["y"], attribute=[other])
        inner = node.SerializeToString() + field(5, branch.SerializeToString() + field(6, graph))
        graph = onnx.GraphProto(name="b", output=[result]).SerializeToString() + field(1, inner)
    outer = onnx.GraphProto(
        input=[helper.make_tensor_value_info("x", 1, [4])],
        initializer=[numpy_helper.from_array(np.array(True), "t")],
    )
    opset = onnx.ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 17)])
    content = opset.SerializeToString() + field(7, graph + outer.SerializeToString())
    try:
        (found,) = run(content, {"x": X[0]})
        np.testing.assert_array_equal(found, -X[0])
        assert depth == 8
    except TinyInferError as error:
        assert re.search("nested|parsing failed", str(error)) and depth > 8


# ---- what fuzzing found


def test_opsets_of_more_than_32_bits():
    for version in (1 << 31, 1 << 40, -1, -(1 << 40)):
        model = one_op("Relu", [X], opset=17)
        model.graph.node[0].op_type = "Unheard"
        model.opset_import[0].version = version
        with pytest.raises(TinyInferError, match="Unheard|opset"):
            run(model, {"x0": X})


@pytest.mark.parametrize("op", ["Concat", "Sum", "Max", "Einsum", "SequenceConstruct"])
def test_inputs_that_are_left_out_of_a_list(op):
    attributes = {"Concat": {"axis": 0}, "Einsum": {"equation": "ab,bc,cd"}}.get(op, {})
    for inputs in ([X, None, X], [None, X]):
        with pytest.raises(InvalidGraph, match=op):
            run(one_op(op, inputs, 1, 17, **attributes), {"x0": X, "x1": X, "x2": X})


@pytest.mark.parametrize("op", ["Sub", "Neg", "Add", "Mul", "Softmax", "ReduceMean", "CumSum"])
def test_arithmetic_with_bools(op):
    inputs = [np.ones((3, 4), bool)] * (2 if op in ("Sub", "Add", "Mul", "CumSum") else 1)
    model = one_op(op, inputs, 1, 17)
    with pytest.raises(InvalidGraph, match="bool"):
        run(model, feeds_of(model, inputs))


def test_constant_texts_as_outputs():
    texts = np.array(["a", "b", "c"], object)
    (result,) = run(constant_model(value=numpy_helper.from_array(texts)), {})
    assert result.tolist() == texts.tolist()


def test_counts_of_n_grams_of_nothing():
    model = one_op(
        "TfIdfVectorizer", [np.zeros((2, 0), np.int64)], 1, 17, mode="TF", min_gram_length=1,
        max_gram_length=1, max_skip_count=0, pool_int64s=[1], ngram_counts=[0], ngram_indexes=[0],
    )  # fmt: skip
    np.testing.assert_array_equal(run(model, {"x0": np.zeros((2, 0), np.int64)})[0], [[0], [0]])


def test_constant_texts_that_are_no_numbers():
    model = one_op("Cast", [np.array(["1", "NONE"], object)], 1, 17, (0,), to=1)
    with pytest.raises(InvalidGraph, match="the_node.*NONE"):
        run(model, {})


def test_more_dimensions_than_arrays_have():
    text = " ".join(f"x{i + 1} = Unsqueeze(x{i}, a)" for i in range(80))
    with pytest.raises(InvalidGraph, match="dimensions"):
        text = f"{{ {text} y = Neg(x80) }}"
        run(parsed(f"g (float[3, 4] x0) => (float y) <int64[1] a = {{0}}> {text}"), {"x0": X})


@pytest.mark.parametrize("step", ["s{0} = Sin(x{0}) x{1} = Add(s{0}, x{0})", "x{1} = Gather(x{0}, k)"])
def test_long_chains(step):
    """What is nested deeper than Python recurses is refused in words."""
    text = " ".join(step.format(i, i + 1) for i in range(3000))
    model = parsed(f"g (float[4] x0, int64[4] k) => (float[n] x3000) {{ {text} }}")
    try:
        (result,) = run(model, {"x0": X[0], "k": np.array([3, 2, 1, 0])}, Limits(compile_seconds=25))
        assert result.shape == (4,)
    except tinyinfer.Fail as error:
        assert "nested" in str(error)


# ---- the code itself


def test_nothing_in_the_package_executes_what_it_reads():
    """No pickle, no eval, no import of a name that a file holds."""
    found = re.compile(
        r"^\s*(import|from) (pickle|marshal|shelve|yaml)\b|(?<![\w.])(eval|exec)\(|allow_pickle=True", re.M
    )
    for top in ("tinyinfer", "cli"):
        for path in sorted((REPOSITORY / top).rglob("*.py")):
            assert not found.search(path.read_text(encoding="utf-8")), path
