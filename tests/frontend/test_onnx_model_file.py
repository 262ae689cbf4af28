"""Reading files: weights stay mapped, damage and hostile external data are refused in words."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tinyinfer.errors import (
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoModel,
    NoSuchFile,
    TinyInferError,
)
from tinyinfer.frontend.onnx import import_graph, load_model
from tinyinfer.frontend.onnx.model_file import read_model
from tinyinfer.ir.oracle import evaluate

WEIGHTS = np.random.default_rng(3).standard_normal((64, 32)).astype(np.float32)
VALUE = np.random.default_rng(4).standard_normal((32,)).astype(np.float32)


def _model(**external):
    """x [2, 64] times an initializer, plus a Constant; both are long enough to stay in the file."""
    weights = numpy_helper.from_array(WEIGHTS, "w")
    if external:
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        for key, text in external.items():
            weights.external_data.add(key=key, value=str(text))
    value = numpy_helper.from_array(np.tile(VALUE, (20, 1)), "v")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Constant", [], ["v"], value=value),
        helper.make_node("Add", ["a", "r"], ["y"]),
        helper.make_node("ReduceMean", ["v"], ["r"], axes=[0], keepdims=0),
    ]
    graph = helper.make_graph(
        [nodes[i] for i in (0, 1, 3, 2)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 32])],
        [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


def _run(model):
    x = np.ones((2, 64), np.float32)
    graph = import_graph(model, {"x": (2, 64)})
    return evaluate(list(graph.outputs.values()), {"x": x})[0], x @ WEIGHTS + VALUE


def _saved(folder, model, name="m.onnx"):
    path = folder / name
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "proto"])
def test_every_way_to_give_a_model(tmp_path, kind):
    proto = _model()
    path = _saved(tmp_path, proto)
    model = load_model(
        {"path": path, "text": str(path), "bytes": proto.SerializeToString(), "proto": proto}[kind]
    )
    got, expected = _run(model)
    np.testing.assert_allclose(got, expected, 1e-5, 1e-5)
    assert [(v.name, v.dtype, v.onnx_type, v.shape) for v in model.inputs] == [
        ("x", "float32", "tensor(float)", ("batch", 64))
    ]
    assert model.full_proto().SerializeToString(deterministic=True) == proto.SerializeToString(
        deterministic=True
    )


def test_weights_are_views_of_the_file(tmp_path):
    """The parsed protobuf holds neither the initializer nor the Constant; arrays share the map."""
    path = _saved(tmp_path, _model())
    model = load_model(path)
    assert model.proto.ByteSize() < 1200
    graph = import_graph(model, {"x": (2, 64)})
    literal = next(n.attrs for n in graph.nodes() if n.op == "CONST" and n.shape == (64, 32))
    assert literal.array.base is not None and not literal.array.flags.writeable
    again = import_graph(load_model(path), {"x": (2, 64)})
    assert literal == next(n.attrs for n in again.nodes() if n.op == "CONST" and n.shape == (64, 32))


def test_a_token_cannot_be_forged(tmp_path):
    """Raw data that looks like a token of another load is plain data."""
    proto = _model()
    first = read_model(proto.SerializeToString())
    token = first.proto.graph.initializer[0].raw_data
    assert first.raw(token) is not None
    assert read_model(proto.SerializeToString()).raw(token) is None


def test_what_is_no_model(tmp_path):
    with pytest.raises(NoSuchFile, match="absent.onnx"):
        load_model(tmp_path / "absent.onnx")
    with pytest.raises(NoSuchFile):
        load_model(tmp_path)
    for content in (b"", b"\x89PNG\r\n\x1a\n" + bytes(100), b"GGUF" + bytes(64), b"{}", bytes(1000)):
        with pytest.raises((InvalidProtobuf, NoModel), match="m.onnx"):
            load_model(_saved(tmp_path, content))
    with pytest.raises(InvalidProtobuf, match="m.onnx"):
        load_model(_saved(tmp_path, _model().SerializeToString()[:-700]))
    with pytest.raises(NoModel):
        load_model(ModelProto(ir_version=8))
    with pytest.raises(InvalidArgument):
        load_model(42)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_never_crash(data):
    """Cut or flipped bytes load and import, or raise one of our errors."""
    content = bytearray(_model().SerializeToString())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    for _ in range(data.draw(st.integers(1, 4))):
        if content:
            # the graph's structure is at both ends, the weights in between
            near = data.draw(st.integers(0, 300))
            content[near % len(content) if data.draw(st.booleans()) else -1 - near % len(content)] = (
                data.draw(st.integers(0, 255))
            )
    try:
        model = load_model(bytes(content))
        graph = import_graph(
            model,
            {v.name: [2 if isinstance(d, str) else d or 0 for d in v.shape or ()] for v in model.inputs},
        )
        assert graph.outputs is not None
    except TinyInferError as error:
        assert str(error)


# ---- external data


def _external(folder, **entries):
    (folder / "model").mkdir(exist_ok=True)
    return load_model(_saved(folder / "model", _model(**entries)))


def test_external_data(tmp_path):
    (tmp_path / "model" / "data").mkdir(parents=True)
    (tmp_path / "model" / "data" / "w.bin").write_bytes(b"\0" * 64 + WEIGHTS.tobytes() + b"tail")
    model = _external(tmp_path, location="data/w.bin", offset=64, length=WEIGHTS.nbytes, checksum="ignored")
    got, expected = _run(model)
    np.testing.assert_allclose(got, expected, 1e-5, 1e-5)


def test_external_data_out_of_range(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "w.bin").write_bytes(WEIGHTS.tobytes())
    for entries, words in (
        ({"offset": 1}, "has 8192 bytes"),
        ({"length": 4}, "has length 4"),
        ({"offset": -1}, "non-negative"),
        ({"offset": "9" * 30}, "non-negative"),
    ):
        with pytest.raises(InvalidGraph, match=words):
            _run(_external(tmp_path, location="w.bin", **entries))
    with pytest.raises(NoSuchFile, match="other.bin"):
        _run(_external(tmp_path, location="other.bin"))


@pytest.mark.parametrize(
    "location", ["../w.bin", "a/../../w.bin", "/etc/hostname", "", "..", "a\0b", "C:\\w.bin", "\\w.bin", ".."]
)
def test_external_data_outside_of_the_folder(tmp_path, location):
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    with pytest.raises(InvalidGraph, match="tensor 'w'"):
        _run(_external(tmp_path, location=location))


@pytest.mark.skipif(not hasattr(os, "symlink") or os.name == "nt", reason="needs links")
def test_external_data_through_links(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "w.bin").write_bytes(WEIGHTS.tobytes())
    (folder / "link.bin").symlink_to(secret / "w.bin")
    (folder / "dir").symlink_to(secret)
    os.link(secret / "w.bin", folder / "hard.bin")
    os.mkfifo(folder / "pipe.bin")
    for location in ("link.bin", "dir/w.bin", "hard.bin", "pipe.bin"):
        with pytest.raises(InvalidGraph, match="tensor 'w'"):
            _run(_external(tmp_path, location=location))


def test_external_data_needs_a_path():
    with pytest.raises(InvalidGraph, match="without a path"):
        _run(load_model(_model(location="w.bin").SerializeToString()))


# ---- tensors


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda t: t.dims.append(2), "needs"),
        (lambda t: t.dims.append(-2), "negative"),
        (lambda t: t.dims.extend([1 << 40, 1 << 40]), "over the limit"),
        (lambda t: setattr(t, "data_type", 77), "does not know"),
        (lambda t: setattr(t, "data_type", TensorProto.DOUBLE), "needs"),
    ],
)
def test_broken_tensors(change, words):
    proto = _model()
    change(proto.graph.initializer[0])
    with pytest.raises(InvalidGraph, match=words):
        _run(load_model(proto))


def test_sparse_initializers():
    proto = _model()
    dense = np.zeros((64, 32), np.float32)
    dense[3, 5], dense[60, 0] = 2, -1
    proto.graph.initializer.pop()
    flat = numpy_helper.from_array(np.array([3 * 32 + 5, 60 * 32]), "")
    values = numpy_helper.from_array(np.array([2, -1], np.float32), "w")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, flat, [64, 32]))
    got, _ = _run(load_model(proto))
    np.testing.assert_allclose(got, np.ones((2, 64)) @ dense + VALUE, 1e-5, 1e-5)
    proto.graph.sparse_initializer[0].indices.CopyFrom(numpy_helper.from_array(np.array([1 << 40, 0]), ""))
    with pytest.raises(InvalidGraph, match="index lies outside"):
        _run(load_model(proto))


def test_names_must_be_text():
    """A name with invalid UTF-8 is refused when the model is loaded."""
    for name in (b"batch", b"MatMul", b"x", b"axes"):
        content = _model().SerializeToString().replace(name, b"\x80" * len(name))
        with pytest.raises(InvalidProtobuf, match="not valid UTF-8"):
            load_model(content)
