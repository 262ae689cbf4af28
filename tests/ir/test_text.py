"""The text form: what it looks like, and that parsing gives the printed graph back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyinfer.ir import build
from tinyinfer.ir.index import Index, Slot, index
from tinyinfer.ir.node import Graph, Literal, output_axis
from tinyinfer.ir.text import graph_literals, parse_graph, parse_index, print_graph, print_index


def _round_trip(graph):
    text = print_graph(graph)
    again = parse_graph(text, graph_literals(graph))
    assert print_graph(again) == text
    assert again.name == graph.name
    assert list(again.inputs) == list(graph.inputs) and list(again.outputs) == list(graph.outputs)
    return again


def _graph(*outputs, name="g"):
    found = Graph({}, {f"y{i}": x for i, x in enumerate(outputs)}, name)
    found.inputs.update({x.attrs: x for x in found.nodes() if x.op == "INPUT"})
    return found


def test_the_example_of_the_module():
    x = build.input_node("a name", (2, 3), "float32")
    y = build.elementwise("MUL", x, build.full(0.5, (2, 3), "float32"), origin=["scale, \"quoted\""])
    assert print_graph(Graph({"a name": x}, {"y": y}, "tiny")).splitlines() == [
        'graph "tiny"',
        '%0 = INPUT float32[2, 3] () name="a name" origin=["a name"]',
        "%1 = CONST float32[] () value=[0.5]",
        "%2 = VIEW float32[2, 3] (%1) map=[]",
        '%3 = MUL float32[2, 3] (%0, %2) origin=["scale, \\"quoted\\""]',
        'inputs "a name"=%0',
        'outputs "y"=%3',
    ]


def test_parsing_gives_the_very_nodes():
    x = build.input_node("x", (2, 4, 6, 6), "float32")
    w = build.constant(np.arange(6 * 2 * 9, dtype=np.float32).reshape(6, 2, 3, 3), name="weights")
    conv = build.convolution(x, w, (2, 2), (1, 1), (1, 1), (1, 1), 2, origin=["conv"])
    i = build.input_node("i", (3,), "int64")
    picked = build.gather(build.reshape(conv, (2, 54)), i, 1)
    both = build.concat([picked, build.pad(picked, (0, 1), (0, 0), -np.inf)], 1)
    total = build.reduce("MAX", both, (1,))
    mask = build.elementwise("CMPLT", build.iota((2,), 0), build.full(1, (2,), "int64"))
    chosen = build.elementwise("WHERE", mask, total, build.elementwise("BITCAST", build.cast(total, "int32"),
                                                                       dtype="float32"))
    graph = _graph(chosen, both)
    again = _round_trip(graph)
    assert all(again.outputs[k] is x for k, x in graph.outputs.items())
    assert 'literal="#0" label="weights"' in print_graph(graph)


def test_an_unused_input_stays():
    x, y = (build.input_node(n, (1,), "float32") for n in "xy")
    again = _round_trip(Graph({"x": x, "y": y}, {"out": y}))
    assert list(again.inputs.values()) == [x, y]


@pytest.mark.parametrize("array", [
    np.array([0.1, -0.0, 1e-45, 3.4e38, np.inf, -np.inf, np.nan], np.float32),
    np.array([0.1, 5e-324, 1.7976931348623157e308]),
    np.array([65504, 6e-8], np.float16),
    np.array([-(2**63), 2**63 - 1]),
    np.array([2**64 - 1], np.uint64),
    np.array([True, False]),
    np.array(0x7FC00001, np.uint32).view(np.float32),
    np.zeros((0, 3), np.float32),
    np.arange(12, dtype=np.int8).reshape(3, 4),
])
def test_literals_keep_every_bit(array):
    made = build.constant(array)
    value = _round_trip(_graph(made)).outputs["y0"].attrs.array
    assert value.dtype == array.dtype and value.shape == array.shape and value.tobytes() == array.tobytes()


def test_bfloat16_literals():
    made = build.cast(build.constant(np.array([1.5, -2.25], np.float32)), "bfloat16")
    assert _round_trip(_graph(made)).outputs["y0"] is made


O0, O1, O2 = (index(output_axis(i, d)) for i, d in enumerate((8, 5, 9)))
indices = st.recursive(
    st.one_of(st.sampled_from((O0, O1, O2, index(Slot(0, 0, 7)), index(Slot(1, -9, 9)))),
              st.integers(-30, 30).map(index)),
    lambda part: st.one_of(
        st.tuples(part, part).map(lambda ab: ab[0] + ab[1]),
        st.tuples(part, st.integers(-7, 7)).map(lambda an: an[0] * an[1]),
        st.tuples(part, st.sampled_from((2, 3, 7))).map(lambda an: an[0] // an[1]),
        st.tuples(part, st.sampled_from((2, 3, 7))).map(lambda an: an[0] % an[1])),
    max_leaves=6)


@settings(max_examples=300, deadline=None)
@given(indices)
def test_index_expressions(value):
    again = parse_index(print_index(value), (8, 5, 9))
    assert again == value and isinstance(again, Index)
    assert (again.lo, again.hi) == (value.lo, value.hi)


@pytest.mark.parametrize("text", ["o0 +", "o3", "(o0", "(o0)//0", "(o0 + 1)", "3*", "o0 o1", "x", "(o0)//o1",
                                  "@0"])
def test_index_errors(text):
    with pytest.raises(ValueError, match="index"):
        parse_index(text, (8, 5, 9))


@pytest.mark.parametrize("line", ["%0 = INPUT float32[2] ()", "%0 = ADD float32[2] (%7, %8)", "nonsense",
                                  '%0 = CONST float32[99] () literal="#9"',
                                  "%0 = INPUT float32[2] () colour=3"])
def test_errors_name_the_line(line):
    with pytest.raises(ValueError, match="line 2"):
        parse_graph(f'graph "g"\n{line}\n')


def test_literals_may_come_from_elsewhere():
    made = build.constant(np.arange(100, dtype=np.float32))
    text = print_graph(_graph(made))
    other = Literal(np.zeros(100, np.float32))
    assert parse_graph(text, {"#0": other}).outputs["y0"].attrs is other
