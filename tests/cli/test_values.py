"""The commands on models whose inputs or outputs are no tensors of numbers, and on models that are cut."""

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from cli.main import main
from cli.values import describe
from tinyinfer.runtime.comparison import compare_values

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def tensor_type(kind=FLOAT, shape=("n", 3)):
    return helper.make_tensor_type_proto(kind, shape)


def sequence_type(of=None):
    return helper.make_sequence_type_proto(of or tensor_type())


def value(name, kind):
    return helper.make_value_info(name, kind)


def model(nodes, inputs, outputs):
    graph = helper.make_graph(nodes, "test", inputs, outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def sequences():
    """A sequence and an integer in; the sequence with one element less, and one element, out."""
    nodes = [
        helper.make_node("SequenceErase", ["s", "i"], ["shorter"]),
        helper.make_node("SequenceAt", ["s", "i"], ["element"]),
    ]
    inputs = [value("s", sequence_type()), value("i", tensor_type(INT64, ()))]
    return model(nodes, inputs, [value("shorter", sequence_type()), value("element", tensor_type())])


def strings():
    nodes = [helper.make_node("Concat", ["t", "t"], ["tt"], axis=0)]
    kind = tensor_type(STRING, (2,))
    return model(nodes, [value("t", kind)], [value("tt", tensor_type(STRING, (4,)))])


def maps():
    """A map in: its entries as a row of numbers."""
    kind = onnx.TypeProto()
    kind.map_type.key_type = STRING
    kind.map_type.value_type.CopyFrom(tensor_type(FLOAT, ()))
    node = helper.make_node(
        "DictVectorizer", ["m"], ["y"], domain="ai.onnx.ml", string_vocabulary=["b", "c", "a"]
    )
    return model([node], [value("m", kind)], [value("y", tensor_type(FLOAT, (1, 3)))])


def optionals():
    node = helper.make_node("OptionalGetElement", ["o"], ["y"])
    kind = helper.make_optional_type_proto(tensor_type(FLOAT, (2, 2)))
    return model([node], [value("o", kind)], [value("y", tensor_type(FLOAT, (2, 2)))])


MODELS = {"sequences": sequences, "strings": strings, "maps": maps, "optionals": optionals}


@pytest.fixture
def path(tmp_path):
    def write(make):
        onnx.save(make(), tmp_path / "model.onnx")
        return str(tmp_path / "model.onnx")

    return write


def call(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.stdout


def call_json(*arguments):
    return json.loads(call(*arguments, "--json"))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("command", ["run", "inspect", "explain", "check", "compare", "bench"])
def test_every_command_on_every_kind_of_value(path, name, command):
    arguments = ("--runs", 2, "--profile") if command == "bench" else ()
    arguments = ("--against", "oracle") if command == "compare" else arguments
    for extra in ((), ("--json",)):
        text = call(command, path(MODELS[name]), *arguments, *extra)
        assert text and (not extra or json.loads(text))


def test_sequences(path, tmp_path):
    model = path(sequences)
    chosen = ("--input", "s=random", "--input", "i=random:0:1")
    text = call("run", model, "--shape", "s:2x3", *chosen, "--output", tmp_path / "out")
    assert "input s: sequence of 2: 2x3 float32 each, random" in text
    assert "output shorter: sequence of 1: 2x3 float32" in text
    assert np.load(tmp_path / "out" / "shorter_0.npy").shape == (2, 3)
    np.savez(tmp_path / "s.npz", np.ones((1, 3), np.float32), np.zeros((4, 3), np.float32))
    (tmp_path / "s.json").write_text("[[[1, 1, 1]], [[0, 0, 0]]]")
    for file in ("s.npz", "s.json"):
        outputs = call_json("run", model, "--input", f"s={tmp_path / file}", "--input", "i=random:0:1")
        assert outputs["outputs"][0]["length"] == 1 and outputs["outputs"][1]["max"] == 1


def test_strings(path, tmp_path):
    (tmp_path / "t.json").write_text('["a", "ö"]')
    text = call("run", path(strings), "--input", f"t={tmp_path / 't.json'}", "--output", tmp_path / "out")
    assert "input t: 2 string" in text and "output tt: 4 string, values ['a', 'ö', 'a', 'ö']" in text
    assert json.loads((tmp_path / "out" / "tt.json").read_text("utf-8")) == ["a", "ö", "a", "ö"]
    one, same, other = (call_json("run", path(strings), "--seed", s)["outputs"] for s in (1, 1, 2))
    assert one == same != other


def test_maps(path, tmp_path):
    (tmp_path / "m.json").write_text('{"a": 1.5, "b": 2}')
    text = call("run", path(maps), "--input", f"m={tmp_path / 'm.json'}")
    assert "input m: map of 2" in text and "values [2.0, 0.0, 1.5]" in text


@pytest.mark.parametrize("content", ["{", "[1, 2]", '{"a": "b"}'])
def test_files_that_hold_something_else(path, tmp_path, content):
    (tmp_path / "m.json").write_text(content)
    result = CliRunner().invoke(main, ["run", path(maps), "--input", f"m={tmp_path / 'm.json'}"])
    assert result.exit_code == 2 and result.stderr.startswith("tinyinfer: error: "), result.output


@pytest.mark.parametrize("name", ["sk_scaler_logreg_zipmap", "rf_iris"])
def test_classifiers_with_maps(shared_models, tmp_path, name):
    model = shared_models / f"{name}.onnx"
    text = call("run", model, "--output", tmp_path)
    assert "output output_probability: sequence of 1: map of 3\n  0: 0." in text
    (entries,) = json.loads((tmp_path / "output_probability.json").read_text())
    assert sorted(entries) == ["0", "1", "2"] and sum(entries.values()) == pytest.approx(1, abs=1e-5)
    assert call("compare", model, "--against", "oracle").count(" ok") == 2
    rows = call_json("bench", model, "--runs", 3, "--profile")["profile"]["kernels"]
    assert [r["kernel"] for r in rows if r["host"]] == ["host: node 'ZipMap' (ZipMap, opset 1)"]
    assert "segments" in call("explain", model, "--list")


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("nms_yolov8", ("--shape", "detection:1x6x100")),
        ("yolox_nano_naruto_post", ()),
        ("loop_greedy_gru", ()),
        ("polygraphy_loop", ()),
    ],
)
def test_models_with_data_dependent_parts(shared_models, name, arguments):
    pytest.importorskip("onnxruntime")
    model = shared_models / f"{name}.onnx"
    assert "output" in call("run", model, *arguments)
    assert " ok" in call("compare", model, *arguments, "--against", "onnxruntime")
    rows = call_json("bench", model, *arguments, "--runs", 3, "--profile")["profile"]["kernels"]
    assert any(r["host"] for r in rows) == (name != "polygraphy_loop")


@pytest.mark.parametrize("command", ["run", "bench", "compare"])
def test_errors_of_shapes_that_were_assumed_say_so(shared_models, command):
    result = CliRunner().invoke(main, [command, str(shared_models / "nms_yolov8.onnx")])
    assert result.exit_code == 2, result.output
    assert "open dimensions of 'detection' were taken as 1" in result.stderr
    assert "--shape detection:1x1x1" in result.stderr


def test_values_in_words():
    x = np.zeros((1, 3), np.float32)
    words = {
        "1x3 float32": x,
        "2 string": np.array(["a", "b"], object),
        "sequence of 0": [],
        "sequence of 2: 1x3 float32 each": [x, x],
        "sequence of 2: 1x3 float32, 3 float32": [x, x[0]],
        "map of 1": {"a": 1.0},
        "none": None,
    }
    for text, found in words.items():
        assert describe(found) == text


@pytest.mark.parametrize(
    "actual, expected, problem",
    [
        ([{0: 1.0, 1: 0.5}], [{0: 1.0, 1: 0.5}], None),
        ([{0: 1.0, 1: 0.6}], [{0: 1.0, 1: 0.5}], "[0]: error"),
        ([{0: 1.0}], [{1: 1.0}], "[0]: the keys"),
        ([], [np.zeros(1)], "0 elements instead of 1"),
        ([np.zeros(1), np.ones(1)], [np.zeros(1), np.zeros(1)], "[1]: error"),
        ({}, [], "a map instead of a sequence"),
        (None, None, None),
        (None, np.zeros(1), "a nothing instead of a tensor"),
        (np.array(["a"], object), np.array(["b"], object), "strings differ"),
    ],
)
def test_comparison_of_values(actual, expected, problem):
    found = compare_values(actual, expected)
    assert found.passed == (problem is None)
    assert problem is None or found.problem.startswith(problem)
