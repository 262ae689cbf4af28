"""Operators that users register: in the IR and on the host, for the process and for a session."""

import re
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import tinyinfer
from tinyinfer.frontend.onnx.custom import PROCESS_OPS
from tinyinfer.ir import build

PAGE = Path(__file__).resolve().parents[2] / "docs" / "custom_operators.md"


@pytest.fixture(autouse=True)
def clean():
    PROCESS_OPS.clear()
    yield
    PROCESS_OPS.clear()


def model(node, inputs, outputs, version=1, extra=()):
    graph = helper.make_graph(
        [node, *extra],
        "test",
        [helper.make_tensor_value_info(*v) for v in inputs],
        [helper.make_tensor_value_info(*v) for v in outputs],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", version)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def unary(version=1, kind=TensorProto.FLOAT, **attributes):
    node = helper.make_node("Foo", ["x"], ["y"], name="the_foo", domain="mine", **attributes)
    return model(node, [("x", kind, [3])], [("y", kind, None)], version)


def run(proto, feed, registry=None, device="CPU"):
    options = tinyinfer.SessionOptions()
    if registry is not None:
        options.register_custom_ops(registry)
    return tinyinfer.InferenceSession(proto, options, providers=[device]).run(None, feed)


X = np.array([1, -2, 3], np.float32)


def twice(context, x):
    """Twice x."""
    return build.apply("ADD", x, x)


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
def test_the_examples_of_the_page_run(code):
    exec(compile(code, str(PAGE), "exec"), {})


@pytest.mark.parametrize("device", ["CPU", "REFERENCE"])
def test_an_operator_in_the_ir_runs_on_every_device(device):
    tinyinfer.custom_op("mine", "Foo")(twice)
    np.testing.assert_array_equal(run(unary(), {"x": X}, device=device)[0], 2 * X)


def test_an_operator_in_the_ir_has_a_gradient():
    registry = tinyinfer.CustomOps()
    registry.op("mine", "Foo")(lambda context, x: build.apply("MUL", x, twice(context, x)))
    node = helper.make_node(
        "Gradient", ["x"], ["slope"], domain="ai.onnx.preview.training", xs=["x"], y="total"
    )
    total = helper.make_node("ReduceSum", ["y"], ["total"], keepdims=0)
    proto = unary()
    proto.graph.node.extend([total, node])
    proto.graph.output[0].name = "slope"
    proto.opset_import.append(helper.make_opsetid("ai.onnx.preview.training", 1))
    np.testing.assert_array_equal(run(proto, {"x": X}, registry)[0], 4 * X)


def test_versions_choose_the_function():
    registry = tinyinfer.CustomOps()
    registry.op("mine", "Foo", since=1, until=2)(twice)
    registry.op("mine", "Foo", since=3)(lambda context, x: build.apply("MUL", x, x))
    np.testing.assert_array_equal(run(unary(2), {"x": X}, registry)[0], 2 * X)
    np.testing.assert_array_equal(run(unary(3), {"x": X}, registry)[0], X * X)


def test_a_session_comes_before_the_process():
    tinyinfer.custom_op("mine", "Foo")(twice)
    registry = tinyinfer.CustomOps()
    registry.op("mine", "Foo")(lambda context, x: x)
    np.testing.assert_array_equal(run(unary(), {"x": X}, registry)[0], X)
    np.testing.assert_array_equal(run(unary(), {"x": X})[0], 2 * X)


def test_unregistered_operators_are_missing_again():
    tinyinfer.custom_op("mine", "Foo")(twice)
    session = tinyinfer.InferenceSession(unary())
    tinyinfer.unregister_custom_op("mine", "Foo")
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], 2 * X)
    with pytest.raises(tinyinfer.NotImplemented, match=r"mine\.Foo\(1\) node with name 'the_foo'"):
        tinyinfer.InferenceSession(unary())
    with pytest.raises(tinyinfer.InvalidArgument, match="not registered"):
        tinyinfer.unregister_custom_op("mine", "Foo")


@pytest.mark.parametrize("domain, name, word", [("mine", "Foo", "mine.Foo"), ("", "Relu", "ai.onnx.Relu")])
def test_conflicts_are_refused(domain, name, word):
    registry = tinyinfer.CustomOps()
    if domain:
        registry.op(domain, name, since=2)(twice)
    with pytest.raises(tinyinfer.InvalidArgument, match=f"{re.escape(word)}.*already"):
        registry.op(domain, name, until=5)(twice)


def test_two_registries_of_one_session_must_not_have_the_same():
    options = tinyinfer.SessionOptions()
    for number in range(2):
        registry = tinyinfer.CustomOps()
        registry.op("mine", "Foo", since=1, until=9)(twice)
        if number:
            with pytest.raises(tinyinfer.InvalidArgument, match="two registries"):
                options.register_custom_ops(registry)
        else:
            options.register_custom_ops(registry)
            options.register_custom_ops(registry)


def test_shared_libraries_are_refused_and_registries_taken(tmp_path):
    options = tinyinfer.SessionOptions()
    for library in ("libcustom.so", tmp_path / "custom.dll"):
        with pytest.raises(tinyinfer.NotImplemented, match="register functions instead"):
            options.register_custom_ops_library(library)
    options.register_custom_ops_library(tinyinfer.CustomOps())
    with pytest.raises(tinyinfer.InvalidArgument, match="CustomOps is expected"):
        options.register_custom_ops_library(3)


@pytest.mark.parametrize("host", [False, True])
def test_what_a_function_raises_names_the_node(host):
    registry = tinyinfer.CustomOps()

    @registry.op("mine", "Foo", host=host)
    def broken(context, x):
        raise KeyError("vocabulary")

    with pytest.raises(tinyinfer.Fail, match=r"node 'the_foo'.*mine\.Foo raised KeyError: 'vocabulary'"):
        run(unary(), {"x": X}, registry)


@pytest.mark.parametrize("host", [False, True])
def test_what_a_function_must_return(host):
    registry = tinyinfer.CustomOps()
    registry.op("mine", "Foo", host=host)(lambda context, x: object())
    with pytest.raises(tinyinfer.Fail, match="node 'the_foo'.*must return"):
        run(unary(), {"x": X}, registry)


def test_the_context_fails_in_its_own_words():
    registry = tinyinfer.CustomOps()
    registry.op("mine", "Foo")(lambda context, x: context.integer("count", minimum=1))
    with pytest.raises(tinyinfer.InvalidGraph, match="the_foo.*'count' is 0; expected"):
        run(unary(count=0), {"x": X}, registry)


def test_too_many_inputs():
    registry = tinyinfer.CustomOps()
    registry.op("mine", "Foo")(lambda context: None)
    with pytest.raises(tinyinfer.InvalidGraph, match="at most 0 inputs"):
        run(unary(), {"x": X}, registry)


def test_attributes_of_a_host_function():
    seen = {}
    registry = tinyinfer.CustomOps()

    @registry.op("mine", "Foo", host=True)
    def look(attributes, x):
        seen.update(attributes)
        return x

    weights = np.arange(3, dtype=np.float32)
    given = dict(i=3, f=0.5, s="word", ii=[1, 2], ff=[0.5, 2.0], ss=["a", "b"])
    run(unary(t=numpy_helper.from_array(weights), **given), {"x": X}, registry)
    np.testing.assert_array_equal(seen.pop("t"), weights)
    assert seen == given


def test_an_optional_input_that_is_left_out_is_none():
    registry = tinyinfer.CustomOps()

    @registry.op("mine", "Foo", host=True)
    def join(attributes, x, middle=None, y=None):
        assert middle is None
        return np.concatenate([x, y])

    node = helper.make_node("Foo", ["x", "", "x"], ["y"], domain="mine")
    proto = model(node, [("x", TensorProto.FLOAT, [3])], [("y", TensorProto.FLOAT, [None])])
    np.testing.assert_array_equal(run(proto, {"x": X}, registry)[0], [*X, *X])


def test_a_tokenizer_from_strings_to_several_integers():
    """Strings in; out come tensors of a length that the text decides."""
    registry = tinyinfer.CustomOps()

    @registry.op("mine", "Tokenizer", host=True)
    def tokens(attributes, text):
        vocabulary = {w: i for i, w in enumerate(attributes["vocab"].split("\n"))}
        words = ["[CLS]", *text.reshape(-1)[0].lower().split(), "[SEP]"]
        ids = np.array([vocabulary.get(w, 0) for w in words], np.int64)
        return ids, np.zeros_like(ids), np.ones_like(ids)

    names = ["input_ids", "token_type_ids", "attention_mask"]
    vocabulary = "[UNK]\n[CLS]\n[SEP]\nhello\nworld"
    node = helper.make_node("Tokenizer", ["text"], names, domain="mine", vocab=vocabulary)
    length = helper.make_node("ReduceSum", ["attention_mask"], ["length"], keepdims=0)
    outputs = [(n, TensorProto.INT64, [None]) for n in names] + [("length", TensorProto.INT64, [])]
    proto = model(node, [("text", TensorProto.STRING, [1])], outputs, extra=[length])
    for text, expected in (("Hello big World", [1, 3, 0, 4, 2]), ("", [1, 2])):
        ids, kinds, mask, count = run(proto, {"text": np.array([text], object)}, registry)
        assert ids.tolist() == expected and int(count) == len(expected) == mask.sum() and not kinds.any()


def test_strings_sequences_and_maps_come_out():
    registry = tinyinfer.CustomOps()

    @registry.op("mine", "Foo", host=True)
    def many(attributes, x):
        return np.array(["a", "bc"]), [x, x[:1]], {1: 2.0}, "end"

    node = helper.make_node("Foo", ["x"], ["a", "b", "c", "d"], domain="mine")
    proto = model(node, [("x", TensorProto.FLOAT, [3])], [(n, TensorProto.STRING, None) for n in "abcd"])
    a, b, c, d = run(proto, {"x": X}, registry)
    assert a.tolist() == ["a", "bc"] and c == {1: 2.0} and d.reshape(-1).tolist() == ["end"]
    np.testing.assert_array_equal(b[1], X[:1])


def test_too_few_outputs():
    registry = tinyinfer.CustomOps()
    registry.op("mine", "Foo", host=True)(lambda attributes, x: x)
    node = helper.make_node("Foo", ["x"], ["a", "b"], domain="mine")
    outputs = [(n, TensorProto.FLOAT, [3]) for n in "ab"]
    with pytest.raises(tinyinfer.Fail, match="gave 1 outputs of 2"):
        run(model(node, [("x", TensorProto.FLOAT, [3])], outputs), {"x": X}, registry)


def test_an_impure_function_is_called_in_every_run():
    calls = []
    for pure in (True, False):
        registry = tinyinfer.CustomOps()

        @registry.op("mine", "Foo", host=True, pure=pure)
        def count(attributes, x, pure=None):
            calls.append(1)
            return x

        constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(X))
        node = helper.make_node("Foo", ["c"], ["y"], domain="mine")
        proto = model(constant, [], [("y", TensorProto.FLOAT, [3])], extra=[node])
        options = tinyinfer.SessionOptions()
        options.register_custom_ops(registry)
        session = tinyinfer.InferenceSession(proto, options)
        session.run(None, {})
        before = len(calls)
        session.run(None, {})
        assert len(calls) - before == (0 if pure else 1)
