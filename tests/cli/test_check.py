"""`tinyinfer check`: every blocker at once, wherever it is, and what a model takes."""

import json
import time

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from small_models import affine, sum_of_two, unsupported

import tinyinfer
from cli.main import main

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def value(name, kind=FLOAT, shape=(2, 3)):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, inputs=(), outputs=(), opsets=(("", 17),), functions=(), initializers=()):
    graph = helper.make_graph(
        nodes, "test", inputs or [value("x")], outputs or [value("y", shape=None)], initializers
    )
    made = [helper.make_opsetid(*o) for o in opsets]
    return helper.make_model(graph, opset_imports=made, functions=functions, ir_version=9)


def foreign(name="foreign", source="x", result="y"):
    return helper.make_node("Foo", [source], [result], name=name, domain="mine")


@pytest.fixture
def call(tmp_path):
    def run(proto, *arguments, code=0):
        path = proto
        if not isinstance(proto, str):
            path = str(tmp_path / "model.onnx")
            onnx.save(proto, path)
        result = CliRunner().invoke(main, ["check", path, *map(str, arguments)])
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    return run


def test_a_model_that_runs(call):
    text = call(affine()).stdout
    for word in (
        "can run on CPU",
        "opsets: ai.onnx 17; IR version 8; 2 nodes",
        "8 numbers, 32 B",
        "FLOP",
        "1x3 (assumed)",
        "at peak",
    ):
        assert word in text, text


def test_json(call):
    found = json.loads(call(affine(), "--shape", "x:5x3", "--json").stdout)
    assert found["runs"] and not found["blockers"] and found["shapes"] == {"x": [5, 3]}
    assert found["parameters"] == 8 and found["weight_bytes"] == {"float": 32}
    assert found["flops"] >= 5 * 2 * 3 * 2 and found["launches"] >= 1 and found["peak_bytes"] >= 32
    assert len(found["segments"]) == 1 and found["complete"]


def test_all_blockers_at_once(call):
    text = call(unsupported(), code=1).stdout
    assert "cannot run: 2 blockers" in text
    assert "node '/blocks.3/foo' (nobody.Foo, opset 1): a custom operator" in text
    assert "/blocks.3/bar" in text


def test_a_registered_operator_is_no_blocker():
    registry = tinyinfer.CustomOps()
    registry.op("mine", "Foo")(lambda context, x: x)
    proto = model([foreign()], opsets=(("", 17), ("mine", 1)))
    assert not tinyinfer.check_model(proto).runs
    assert tinyinfer.check_model(proto, custom_ops=[registry]).runs


def test_every_broken_node_is_named():
    """Nodes that do not need each other's results fail each for itself; what follows them is not blamed."""
    bad = [
        helper.make_node("Transpose", ["x"], ["a"], name="one", perm=[0, 5]),
        helper.make_node("Cast", ["x"], ["b"], name="two"),
        helper.make_node("Reshape", ["x", "shape"], ["c"], name="three"),
        helper.make_node("Relu", ["a"], ["d"], name="victim"),
        helper.make_node("Neg", ["x"], ["y"]),
    ]
    shape = numpy_helper.from_array(np.array([4, 4]), "shape")
    report = tinyinfer.check_model(model(bad, initializers=[shape]))
    assert [b.node for b in report.blockers if b.kind == "import"] == ["one", "two", "three"]
    words = {b.node: b.message for b in report.blockers}
    assert "'to'" in words["two"] and "victim" not in words


def test_wrong_types_of_inputs_and_attributes():
    sparse = onnx.ValueInfoProto(name="s")
    sparse.type.sparse_tensor_type.elem_type = FLOAT
    report = tinyinfer.check_model(model([helper.make_node("Relu", ["x"], ["y"])], [value("x"), sparse]))
    assert [(b.kind, b.node) for b in report.blockers] == [("input", "s")]
    soft = helper.make_node("Softmax", ["x"], ["y"], name="soft", axis=1.5)
    report = tinyinfer.check_model(model([soft]))
    assert not report.runs and "'axis' must be of type INT, not FLOAT" in report.blockers[0].message


def test_a_type_that_the_operator_does_not_take(call):
    node = helper.make_node("Sin", ["x"], ["y"], name="the_sine")
    text = call(model([node], [value("x", TensorProto.STRING)]), code=1).stdout
    assert "the_sine" in text and "string" in text


def branches(then, other, condition):
    graphs = {
        key: helper.make_graph(nodes, key, [], [value("r", shape=None)])
        for key, nodes in (("then_branch", then), ("else_branch", other))
    }
    return helper.make_node("If", [condition], ["y"], name="the_if", **graphs)


def test_a_branch_that_is_never_taken_is_told_apart(call):
    true = numpy_helper.from_array(np.array(True), "c")
    fine = [helper.make_node("Relu", ["x"], ["r"])]
    opsets = (("", 17), ("mine", 1))
    node = branches(fine, [foreign("odd", "x", "r")], "c")
    text = call(model([node], opsets=opsets, initializers=[true])).stdout
    assert "can run" in text and "perhaps: node 'the_if/odd' (mine.Foo, opset 1)" in text
    assert "branch 'else_branch' of node 'the_if'" in text
    node = branches([foreign("odd", "x", "r")], fine, "c")
    assert "the_if/odd" in call(model([node], opsets=opsets, initializers=[true]), code=1).stdout


@pytest.mark.parametrize("trips", [0, 3])
def test_bodies_of_loops(trips):
    body = helper.make_graph(
        [helper.make_node("Identity", ["c_in"], ["c_out"]), foreign("odd", "v", "w")],
        "body",
        [value("i", INT64, []), value("c_in", BOOL, []), value("v")],
        [value("c_out", BOOL, []), value("w")],
    )
    count = numpy_helper.from_array(np.array(trips), "m")
    node = helper.make_node("Loop", ["m", "", "x"], ["y"], name="the_loop", body=body)
    report = tinyinfer.check_model(model([node], opsets=(("", 17), ("mine", 1)), initializers=[count]))
    assert not report.runs
    assert report.blockers[0].node == "the_loop/odd" and "body" in report.blockers[0].where


def test_functions_of_the_model():
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1), helper.make_opsetid("f", 1)]
    function = helper.make_function("f", "Call", ["a"], ["b"], [foreign("odd", "a", "b")], opsets)
    nodes = [
        helper.make_node("Call", ["x"], ["t"], name="first", domain="f"),
        helper.make_node("Call", ["t"], ["y"], name="second", domain="f"),
    ]
    report = tinyinfer.check_model(model(nodes, opsets=(("", 17), ("f", 1)), functions=[function]))
    assert report.blockers[0].node == "first/odd" and "function 'Call'" in report.blockers[0].where


@pytest.mark.parametrize(
    "op, domain, opset, words",
    [
        ("Gelu", "", 17, "new in opset 20"),
        ("Nonsense", "", 17, "no such operator"),
        ("Nonsense", "com.microsoft", 1, "no such operator"),
        ("Foo", "mine", 1, "custom operator"),
    ],
)
def test_why_there_is_no_rule(op, domain, opset, words):
    node = helper.make_node(op, ["x"], ["y"], domain=domain)
    opsets = (("", 17),) if not domain else (("", 17), (domain, opset))
    report = tinyinfer.check_model(model([node], opsets=opsets))
    assert words in report.blockers[0].message


def test_segments_name_the_nodes_that_cut_the_model(call):
    nodes = [
        helper.make_node("NonZero", ["x"], ["t"], name="where"),
        helper.make_node("Neg", ["t"], ["y"]),
    ]
    text = call(model(nodes, outputs=[value("y", INT64, None)])).stdout
    assert "2 segments" in text and "computes node 'where' (NonZero, opset 17) on the host" in text


def test_what_only_fails_behind_data_is_perhaps():
    nodes = [
        helper.make_node("NonZero", ["x"], ["t"]),
        helper.make_node("Reshape", ["t", "shape"], ["y"], name="late"),
    ]
    shape = numpy_helper.from_array(np.array([2, 5]), "shape")
    report = tinyinfer.check_model(model(nodes, outputs=[value("y", INT64, None)], initializers=[shape]))
    assert report.runs and not report.complete and report.possible[0].node == "late"


def test_open_dimensions_take_sizes_that_work():
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    shape = numpy_helper.from_array(np.array([4, -1]), "shape")
    report = tinyinfer.check_model(model([node], [value("x", FLOAT, ["n"])], initializers=[shape]))
    assert report.runs and report.shapes == {"x": [8]} and report.assumed == ["x"]


def test_errors_that_come_from_assumed_shapes_name_them(call):
    shape = numpy_helper.from_array(np.array([7, 5]), "shape")
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    proto = model([node], [value("x", FLOAT, ["n"])], initializers=[shape])
    assert "with open dimensions as in x:1; give others" in call(proto, code=1).stdout
    assert "can run" in call(proto, "--shape", "x:35").stdout
    assert "give others" not in call(unsupported(), code=1).stdout


@pytest.mark.parametrize("arguments", [("--shape", "z:1"), ("--shape", "a:1x2x3"), ("--device", "NOPE")])
def test_wrong_usage(call, arguments):
    result = call(sum_of_two(), *arguments, code=2)
    assert result.stderr.startswith("tinyinfer: error: ") and not result.stdout


def test_what_is_no_model(call, tmp_path):
    (tmp_path / "text").write_text("no model")
    for path in (tmp_path / "text", tmp_path / "missing.onnx", tmp_path):
        call(str(path), code=2)


def test_a_broken_graph_is_a_blocker(call):
    nodes = [helper.make_node("Relu", ["q"], ["p"]), helper.make_node("Relu", ["p"], ["q"])]
    assert "cycle" in call(model(nodes, outputs=[value("q", shape=None)]), code=1).stdout
    assert "missing" in call(model([helper.make_node("Relu", ["missing"], ["y"])]), code=1).stdout


def test_every_device(call):
    found = json.loads(call(affine(), "--device", "REFERENCE", "--json").stdout)
    assert found["device"] == "REFERENCE" and found["peak_bytes"] > 0


VERDICTS = {
    "bert_tokenizer": ["BertTokenizer"],
    "superres_prepost_op18": ["DecodeImage", "EncodeImage"],
    "super_resolution_espcn": [],
    "nms_yolov8": [],
    "loop_greedy_gru": [],
    "sk_scaler_logreg_zipmap": [],
}


@pytest.mark.parametrize("name", VERDICTS)
def test_real_models(shared_models, name):
    report = tinyinfer.check_model(shared_models / f"{name}.onnx")
    assert [b.op for b in report.blockers] == VERDICTS[name]
    assert all("custom operator" in b.message for b in report.blockers)
    assert report.complete == report.runs


def test_shapes_decide_how_far_a_model_is_followed(call, shared_models):
    path = str(shared_models / "silero_vad_v5.onnx")
    text = call(path).stdout
    assert "perhaps: node" in text and "not followed to its end" in text
    text = call(path, "--shape", "input:1x288", "--shape", "state:2x1x128").stdout
    assert "perhaps" not in text and "not followed" not in text


def test_resnet50_is_checked_fast(filled_model):
    path = filled_model("tv_resnet50")
    start = time.perf_counter()
    report = tinyinfer.check_model(path)
    assert time.perf_counter() - start < 2
    assert 8.1e9 < report.flops < 8.3e9 and report.parameters > 25e6 and len(report.segments) == 1


def test_the_prediction_is_what_a_session_holds(shared_models):
    path = shared_models / "mnist_cntk.onnx"
    assert tinyinfer.check_model(path).peak_bytes == tinyinfer.InferenceSession(path).compile().peak_bytes


@pytest.mark.parametrize("size", [1 << 31, 1 << 60, (1 << 63) - 1])
def test_sizes_beyond_the_memory_are_blockers(size):
    node = helper.make_node("Relu", ["x"], ["y"])
    limits = tinyinfer.Limits(max_bytes=1 << 30)
    report = tinyinfer.check_model(model([node], [value("x", FLOAT, [size, 2])]), limits=limits)
    assert len(report.blockers) == 1 and report.blockers[0].message


def test_an_opset_beyond_all_bounds():
    report = tinyinfer.check_model(model([helper.make_node("Relu", ["x"], ["y"])], opsets=(("", 1 << 40),)))
    assert report.blockers or report.runs
