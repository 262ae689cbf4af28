"""Plans as C sources: what files say, the options, and what must hold for any model."""

from __future__ import annotations

import ctypes
import re

import numpy as np
import pytest
from c_programs import STRICT, command, compile_all, tool, write
from compiled import graph_of

from tinyinfer.backends.clike.printer import CPrinter
from tinyinfer.config import CompileOptions
from tinyinfer.emit.c_source import COptions, emit_c, plan_for_c
from tinyinfer.ir import build
from tinyinfer.ir.loop import BodyResults, loop
from tinyinfer.ir.node import Graph, Node
from tinyinfer.ir.oracle import evaluate
from tinyinfer.kernels.plan import build_plan
from tinyinfer.runtime.plan import Plan

RNG = np.random.default_rng(7)


def layers(name: str = "x") -> tuple[Graph, dict[str, np.ndarray]]:
    """Two matrix products with equal weights, so that there is something to share."""
    weights = RNG.standard_normal((16, 16)).astype(np.float32)
    x = build.input_node(name, (5, 16), "float32")
    y = build.elementwise("TANH", build.matmul(x, build.constant(weights)))
    z = build.matmul(
        build.elementwise("ABS", build.matmul(y, build.constant(weights))), build.constant(weights.copy())
    )
    return Graph({name: x}, {"y": z}), {name: RNG.standard_normal((5, 16)).astype(np.float32)}


def plan_of_graph(graph: Graph) -> Plan:
    return plan_for_c(graph, CompileOptions())


def test_equal_tensors_are_stored_once():
    graph, _ = layers()
    source = emit_c(plan_of_graph(graph))
    assert source.weight_bytes == 16 * 16 * 4
    assert source.files["model_weights.c"].count("= {") == 1


def test_the_same_plan_is_the_same_text():
    first, second = (emit_c(plan_of_graph(layers()[0])).files for _ in range(2))
    assert first["model.h"] == second["model.h"] and first["model.c"] == second["model.c"]


def test_nothing_is_allocated_printed_or_jumped_to():
    text = emit_c(plan_of_graph(layers()[0])).files["model.c"]
    assert not re.search(r"\b(malloc|calloc|free|printf|goto|assert)\b|stdio|stdlib", text)


@pytest.mark.parametrize("weights", ["array", "binary"])
@pytest.mark.parametrize("arena", ["static", "caller"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_weights_and_arena_are_where_they_are_asked_for(weights, arena, compiler, tmp_path):
    graph, feeds = layers()
    source = emit_c(plan_of_graph(graph), "net", COptions(weights, arena), "two layers")
    assert "two layers" in source.files["net.h"]
    assert source.ram_bytes == (source.arena_bytes if arena == "static" else 0) and source.arena_bytes
    files, library = write(source, tmp_path), tmp_path / "net.so"
    include = [f"-I{tmp_path}", f"-Wa,-I{tmp_path}"]
    command([tool(compiler), *STRICT, "-O1", "-shared", "-fPIC", *include, "-o", library, *files, "-lm"])
    function = ctypes.CDLL(str(library)).net_run
    x, y = feeds["x"], np.empty((5, 16), np.float32)
    arguments = [ctypes.c_void_p(a.ctypes.data) for a in (x, y)]
    memory = np.empty(source.arena_bytes + 128, np.uint8)
    start = memory.ctypes.data + -memory.ctypes.data % 64
    passed = [ctypes.c_void_p(start)] if arena == "caller" else []
    assert function(*passed, *arguments) == 0
    (wanted,) = evaluate(list(graph.outputs.values()), feeds)
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-4)
    assert function(*passed, None, arguments[1]) == 1
    if passed:
        assert function(ctypes.c_void_p(start + 4), *arguments) == 2


def test_names_of_a_model_cannot_break_the_code(tmp_path):
    names = [
        "int",
        "a b",
        "A_B",
        "arena",
        "out",
        "*/",
        "é",
        "model_run",
        "",
        "ti_max_float",
        "sum1",
        "kernel??/",
    ]
    inputs = [build.input_node(n, (3,), "float32") for n in names]
    total = inputs[0]
    for x in inputs[1:]:
        total = build.elementwise("ADD", total, x)
    graph = Graph(dict(zip(names, inputs)), {"int": build.elementwise("SQRT", total), "*/ int x; /*": total})
    feeds = {n: np.full(3, i, np.float32) for i, n in enumerate(names)}
    plan = plan_of_graph(graph)
    (program,) = compile_all({"hostile": plan}, tmp_path).values()
    root, total_got = program.run(feeds)
    np.testing.assert_array_equal(total_got, np.full(3, sum(range(len(names))), np.float32))
    np.testing.assert_allclose(root, np.sqrt(total_got))


def test_the_header_serves_cpp(tmp_path):
    graph, _ = layers("class")
    write(emit_c(plan_of_graph(graph)), tmp_path)
    (tmp_path / "use.cc").write_text('#include "model.h"\nint (*run)(const float *, float *) = model_run;\n')
    command(
        [
            tool("g++"),
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pedantic",
            "-c",
            tmp_path / "use.cc",
            "-o",
            tmp_path / "use.o",
        ]
    )


def counted() -> tuple[Graph, dict[str, np.ndarray]]:
    """A loop in a loop: scanned backwards, stacked, carried, ended by a number and by a condition."""
    x = build.input_node("x", (4, 3, 2, 5), "float32")
    start = build.input_node("start", (2, 5), "float32")
    count = build.input_node("count", (), "int64")

    def outer(number: Node, carried: list[Node], rows: list[Node]) -> BodyResults:
        def inner(n: Node, c: list[Node], r: list[Node]) -> BodyResults:
            mixed = build.elementwise("MUL", c[0], r[0])
            counted = build.elementwise("ADD", mixed, build.expand(build.cast(n, "float32"), (2, 5)))
            return BodyResults(
                [build.elementwise("TANH", counted)], [build.elementwise("ADD", c[0], carried[1])]
            )

        made = loop(inner, [carried[0]], 3, [(rows[0], True)], lambda i: True)
        total = build.reduce("SUM", made.stacked[0], [0])
        small = build.elementwise("CMPLT", build.reduce("MAX", total, [0, 1]), build.scalar(50.0, "float32"))
        return BodyResults(
            [made.final[0], total], [made.stacked[0], build.elementwise("NEG", carried[1])], small
        )

    made = loop(outer, [start, start], 4, [(x, True)], lambda i: i == 1, count=count)
    outputs = {
        "a": made.final[0],
        "b": made.final[1],
        "c": made.stacked[0],
        "d": made.stacked[1],
        "n": made.done,
    }
    feeds = {"x": RNG.standard_normal(x.shape).astype(np.float32), "start": np.ones((2, 5), np.float32)}
    return Graph({"x": x, "start": start, "count": count}, outputs), feeds


@pytest.mark.parametrize("passes", [True, False])
def test_loops_run_as_the_oracle_says(passes, tmp_path):
    graph, feeds = counted()
    plan = plan_of_graph(graph) if passes else build_plan(graph, CPrinter(), CompileOptions())
    (program,) = compile_all({"loops": plan}, tmp_path).values()
    for count in (-1, 0, 1, 3, 4, 9):
        fed = {**feeds, "count": np.array(count)}
        for got, wanted in zip(program.run(fed), evaluate(list(graph.outputs.values()), fed), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_narrow_types_are_passed_as_their_bits(tmp_path):
    import ml_dtypes

    x = build.input_node("x", (40,), "bfloat16")
    graph = Graph({"x": x}, {"y": build.elementwise("ADD", x, x), "z": build.elementwise("CMPLT", x, x)})
    array = RNG.standard_normal(40).astype(ml_dtypes.bfloat16)
    (program,) = compile_all({"narrow": plan_of_graph(graph)}, tmp_path).values()
    got, less = program.run({"x": array.view(np.uint16)})
    assert got.dtype == np.uint16 and less.dtype == bool and not less.any()
    np.testing.assert_array_equal(got.view(ml_dtypes.bfloat16), array + array)


def test_nodes_are_named_above_their_kernels():
    x = build.input_node("x", (5, 16), "float32")
    graph = graph_of(build.elementwise("TANH", x, origin=["/layer/tanh"]))
    text = emit_c(plan_of_graph(graph)).files["model.c"]
    assert re.search(r"/\* /layer/tanh \*/\nstatic void map_", text)


def test_an_input_of_a_fixed_value_takes_no_other(tmp_path):
    x, rate = build.input_node("x", (4,), "float32"), build.input_node("rate", (1,), "int64")
    graph = Graph({"x": x, "rate": rate}, {"y": build.elementwise("NEG", x)})
    source = emit_c(plan_of_graph(graph), "net", fixed={"rate": np.array([16000])})
    library = tmp_path / "net.so"
    command([tool("gcc"), *STRICT, "-shared", "-fPIC", "-o", library, *write(source, tmp_path)])
    function, values = ctypes.CDLL(str(library)).net_run, np.ones(4, np.float32)
    for number, wanted in ((16000, 0), (8000, 3)):
        given = [values, np.array([number]), np.empty(4, np.float32)]
        assert function(*(ctypes.c_void_p(a.ctypes.data) for a in given)) == wanted


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="'array' or 'binary'"):
        COptions(weights="zip")
    with pytest.raises(ValueError, match="'static' or 'caller'"):
        COptions(arena="heap")


def test_constants_keep_their_bits(tmp_path):
    """Every float prints so that it reads back, special ones included; so does every integer."""
    bits = np.concatenate(
        [RNG.integers(0, 1 << 32, 500), [0, 1 << 31, 1, 0x7F800000, 0xFF800000, 0x7FC00000]]
    )
    arrays = [
        bits.astype(np.uint32).view(np.float32),
        RNG.integers(0, 1 << 64, 300, dtype=np.uint64).view(np.float64),
    ]
    arrays = [np.where(np.isnan(a), np.nan, a).astype(a.dtype) for a in arrays]
    arrays.append(np.array([np.iinfo(np.int64).min, np.iinfo(np.int64).max, 5, -1]))
    arrays.append(np.array([np.iinfo(np.int32).min, np.iinfo(np.int32).max], np.int32))
    arrays.append(RNG.standard_normal(33).astype(np.float16))
    outputs = [build.constant(a) for a in arrays]
    (program,) = compile_all({"constants": plan_of_graph(graph_of(*outputs))}, tmp_path).values()
    for got, wanted in zip(program.run({}), arrays, strict=True):
        assert got.tobytes() == wanted.tobytes()
