"""Models and feeds of the benchmarks."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks import catalogue
from benchmarks.catalogue import InputSpec, Model

FILL = """
import sys
source, target = sys.argv[1:]
open(target, "w").write(open(source).read() + " filled")
"""


@pytest.fixture
def folder(tmp_path):
    entries = [
        {
            "name": "net",
            "file": "net.onnx",
            "test_feeds": {"x": ["float32", [1, 3]], "ids": ["int64", [4]], "rate": ["int64", []]},
            "input_spec": {"ids": {"range": [5, 9]}, "rate": {"value": 16000}},
        },
        {
            "name": "bare",
            "file": "skeletons/bare.onnx",
            "test_feeds": {"x": ["float32", [2]]},
            "input_spec": None,
        },
        {"name": "unfed", "file": "unfed.onnx", "test_feeds": None},
    ]
    (tmp_path / "index.json").write_text(json.dumps(entries))
    (tmp_path / "fill.py").write_text(FILL)
    (tmp_path / "skeletons").mkdir()
    (tmp_path / "skeletons" / "bare.onnx").write_text("bare")
    return tmp_path


def test_default_names_are_many_and_distinct():
    names = catalogue.default_names()
    assert len(names) == len(set(names)) == 32


def test_feeds_obey_the_specification(folder):
    model = catalogue.find("net", folder)
    assert model.path == folder / "net.onnx"
    feeds = model.feeds()
    assert feeds["x"].dtype == np.float32 and feeds["x"].shape == (1, 3)
    assert (feeds["x"] >= 0).all() and (feeds["x"] < 1).all()
    assert feeds["ids"].dtype == np.int64 and set(feeds["ids"]) <= {5, 6, 7, 8}
    assert feeds["rate"].shape == () and feeds["rate"] == 16000


def test_feeds_are_the_same_each_time_and_differ_by_name():
    spec = InputSpec("float32", (8,))
    first = Model("a", catalogue.DEFAULT_NAMES, {"x": spec, "y": spec}).feeds()
    again = Model("a", catalogue.DEFAULT_NAMES, {"x": spec}).feeds()
    assert np.array_equal(first["x"], again["x"]) and not np.array_equal(first["x"], first["y"])


def test_skeleton_is_filled_once(folder, tmp_path):
    skeleton = catalogue.find("bare", folder)
    model = catalogue.filled(skeleton, tmp_path / "scratch")
    assert model.path.read_text() == "bare filled" and model.inputs == skeleton.inputs
    model.path.write_text("kept")
    assert catalogue.filled(skeleton, tmp_path / "scratch").path.read_text() == "kept"


def test_whole_model_is_not_filled(folder, tmp_path):
    model = catalogue.find("net", folder)
    assert catalogue.filled(model, tmp_path / "scratch") is model
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("name, words", [("nothing", "not in"), ("unfed", "no test_feeds")])
def test_unknown_model_is_named(folder, name, words):
    with pytest.raises(LookupError, match=f"{name}.*{words}"):
        catalogue.find(name, folder)


def test_folder_without_index_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="index.json is missing"):
        catalogue.find("net", tmp_path)


def test_path_takes_its_shapes_from_the_file(tmp_path):
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3]),
        helper.make_tensor_value_info("w", TensorProto.FLOAT, [3]),
    ]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "add",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor("w", TensorProto.FLOAT, [3], [1, 2, 3])],
    )
    path = tmp_path / "add.onnx"
    onnx.save(helper.make_model(graph), path)
    model = catalogue.find(str(path), tmp_path)
    assert model.name == "add" and model.inputs == {"x": InputSpec("float32", (1, 3))}
