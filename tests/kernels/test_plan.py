"""Plans: launches, kernel keys, parameters, the arena, and what waits for what."""

import numpy as np
import pytest
from compiled import CACHE, graph_of, plan_of
from random_graphs import case

from tinyinfer.backends.cpu.device import compile_plan
from tinyinfer.backends.cpu.target import host_target, named_target
from tinyinfer.config import CompileOptions
from tinyinfer.ir import build
from tinyinfer.ir.oracle import evaluate
from tinyinfer.kernels.plan import compiler_version


def value(*shape, name="x", dtype="float32"):
    return build.input_node(name, shape, dtype)


def array(*shape, seed=0):
    return build.constant(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def layer(x, seed, outputs=16, kernel=3):
    w = array(outputs, x.shape[1], kernel, kernel, seed=seed)
    y = build.convolution(x, w, [1, 1], [1, 1], [kernel // 2] * 2, [kernel // 2] * 2)
    y = build.apply("ADD", y, array(outputs, 1, 1, seed=seed + 100))
    return build.elementwise("MAX", y, build.full(0.0, y.shape, "float32"))


def keys(*outputs, target=None):
    return [launch.kernel.key for launch in plan_of(graph_of(*outputs), target=target).launches]


def contraction_keys(*outputs):
    launches = plan_of(graph_of(*outputs)).launches
    return [launch.kernel.key for launch in launches if launch.kernel.name.startswith("contract")]


def test_equal_layers_share_one_kernel():
    x = layer(value(1, 16, 8, 8), 0)
    for seed in range(1, 5):
        x = layer(x, seed)
    found = contraction_keys(build.elementwise("TANH", x))
    assert len(found) == 5 and len(set(found)) <= 3


@pytest.mark.parametrize(
    "other",
    [
        lambda x: layer(x, 0, outputs=32),
        lambda x: layer(x, 0, kernel=1),
        lambda x: layer(build.flip(x, [2]), 0),
        lambda x: layer(build.shrink(x, [0, 0, 0, 0], [1, 16, 8, 7]), 0),
        lambda x: build.elementwise("NEG", layer(x, 0)),
    ],
)
def test_other_layers_have_other_kernels(other):
    x = value(1, 16, 8, 8)
    assert set(contraction_keys(layer(x, 0))).isdisjoint(contraction_keys(other(x)))


BASE = ("x", (6, 7), "float32")


@pytest.mark.parametrize(
    "change",
    [
        lambda x: build.apply("ADD", x, build.scalar(3.0, x.dtype)),
        lambda x: build.apply("SUB", x, build.scalar(2.0, x.dtype)),
        lambda x: build.apply("ADD", build.permute(x, [1, 0]), build.scalar(2.0, x.dtype)),
        lambda x: build.apply("ADD", build.flip(x, [1]), build.scalar(2.0, x.dtype)),
        lambda x: build.apply("ADD", value(6, 8), build.scalar(2.0, "float32")),
        lambda x: build.apply("ADD", value(6, 7, dtype="float64"), build.scalar(2.0, "float64")),
        lambda x: build.apply("ADD", value(6, 7, dtype="int32"), build.scalar(2, "int32")),
        lambda x: build.apply("ADD", build.pad(x, [0, 0], [1, 0], 5.0), build.scalar(2.0, x.dtype)),
    ],
)
def test_keys_differ_when_anything_differs(change):
    x = value(6, 7)
    base = build.apply("ADD", x, build.scalar(2.0, "float32"))
    assert set(keys(base)).isdisjoint(keys(change(x)))


def test_keys_do_not_depend_on_names_or_weights():
    assert keys(layer(value(1, 16, 8, 8), 0)) == keys(layer(value(1, 16, 8, 8, name="other"), 7))


def test_keys_depend_on_the_width_of_vectors():
    y = build.elementwise("TANH", build.matmul(value(30, 20), array(20, 40)))
    assert set(keys(y)).isdisjoint(keys(y, target=named_target("aarch64")))


def test_the_text_of_a_kernel_is_always_the_same():
    def texts():
        return [launch.kernel.text() for launch in plan_of(graph_of(layer(value(1, 16, 8, 8), 0))).launches]

    assert texts() == texts()
    for launch in plan_of(graph_of(layer(value(1, 16, 8, 8), 0))).launches:
        assert f"@{launch.kernel.name}(" in launch.kernel.text()


def test_inputs_and_outputs_are_described_in_order():
    a, b = value(3, name="a"), value(4, name="b", dtype="int64")
    plan = plan_of(graph_of(build.elementwise("NEG", b), a))
    assert [(s.name, s.shape, s.dtype) for s in plan.inputs] == [("a", (3,), "float32"), ("b", (4,), "int64")]
    assert [(s.name, s.shape, s.dtype) for s in plan.outputs] == [
        ("y0", (4,), "int64"),
        ("y1", (3,), "float32"),
    ]


def test_one_constant_is_one_parameter():
    table = array(5, 6)
    outputs = [build.elementwise(op, build.elementwise("ADD", value(5, 6), table)) for op in ("EXP", "SIN")]
    plan = plan_of(graph_of(*outputs))
    assert len(plan.parameters) == 1
    np.testing.assert_array_equal(plan.parameters[0].ravel(), table.attrs.array.ravel())


def test_work_is_counted():
    plan = plan_of(graph_of(build.matmul(value(30, 20), array(20, 40))))
    (launch,) = [x for x in plan.launches if x.kernel.name.startswith("contract")]
    assert launch.flops == 2 * 30 * 20 * 40
    assert launch.bytes >= 4 * (30 * 20 + 20 * 40 + 30 * 40)


def test_independent_kernels_do_not_wait_and_dependent_ones_do():
    x, y = value(40, name="x"), value(50, name="y")
    plan = plan_of(graph_of(build.elementwise("EXP", x), build.elementwise("SIN", y)))
    assert [launch.waits for launch in plan.launches] == [False, False]
    rows = build.elementwise("EXP", value(20, 30))
    plan = plan_of(graph_of(rows, build.reduce("SUM", rows, [0])))
    assert [launch.waits for launch in plan.launches] == [False, True]


def test_parts_of_a_concatenation_do_not_wait_for_each_other():
    x, y = value(3, 40), value(3, 40, name="y")
    whole = build.concat([build.elementwise("EXP", x), build.elementwise("SIN", y)], 1)
    plan = plan_of(graph_of(whole))
    assert len(plan.launches) == 2 and not any(launch.waits for launch in plan.launches)


@pytest.mark.parametrize("name", ["two_convolutions", "attention", "concats"])
def test_launches_between_waits_touch_different_memory(name):
    for seed in range(10):
        for before, after in groups(plan_of(graph_of(*case(name, seed).outputs)).launches):
            for written in (before.arguments[0], after.arguments[0]):
                reader = after if written is before.arguments[0] else before
                assert written not in reader.arguments[1:], (name, seed)


def groups(launches):
    """Pairs of launches that may run at the same time."""
    pending: list = []
    for launch in launches:
        if launch.waits:
            pending = []
        yield from ((earlier, launch) for earlier in pending)
        pending.append(launch)


def test_the_arena_reuses_memory():
    x = value(1, 16, 16, 16)
    for seed in range(6):
        x = layer(x, seed)
    graph = graph_of(x)
    plan, kept = plan_of(graph), plan_of(graph, CompileOptions(keep_values=True))
    assert 0 < plan.arena_bytes < kept.arena_bytes
    assert plan.peak_bytes == plan.arena_bytes + sum(p.nbytes for p in plan.parameters)
    assert not plan.kept and len(kept.kept) >= 5


def test_kept_values_are_those_of_the_oracle():
    x = layer(layer(layer(value(1, 16, 9, 9), 0), 1), 2)
    graph = graph_of(x)
    executable = compile_plan(plan_of(graph, CompileOptions(keep_values=True)), host_target(), 1, CACHE)
    try:
        feeds = {"x": np.random.default_rng(0).standard_normal((1, 16, 9, 9)).astype(np.float32)}
        executable.run([feeds["x"]])
        kept = executable.kept_values()
        assert kept
        for (node, got), wanted in zip(kept, evaluate([n for n, _ in kept], feeds), strict=True):
            np.testing.assert_allclose(
                got, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max(), err_msg=str(node)
            )
    finally:
        executable.close()


def test_stages_name_every_kernel():
    plan = plan_of(graph_of(layer(value(1, 16, 8, 8), 0)))
    text = {name: make() for name, make in plan.stages.items()}
    for launch in plan.launches:
        assert launch.kernel.name in text["kernels"] and f"@{launch.kernel.name}(" in text["code"]


def test_values_without_elements_have_no_launch():
    plan = plan_of(
        graph_of(build.elementwise("EXP", value(0, 5)), build.elementwise("EXP", value(5, name="y")))
    )
    assert len(plan.launches) == 1


def test_the_compiler_has_a_version():
    assert compiler_version() == compiler_version() and len(compiler_version()) == 16
