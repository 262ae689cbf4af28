"""Expressions over loop axes: they mean what the oracle says, and divide nowhere that a factor allows."""

import numpy as np
import pytest
from compiled import graph_of
from interpreter import interpret_lowered
from random_graphs import case

from tinyinfer.ir import build
from tinyinfer.ir.index import FloorDiv, Mod, Slot, atoms_of
from tinyinfer.ir.oracle import evaluate
from tinyinfer.kernels.access import walk_with_indices
from tinyinfer.kernels.fuse import fuse
from tinyinfer.kernels.lower import lower


def lowered(*outputs):
    fusion = fuse(graph_of(*outputs))
    return [lower(k.root, fusion.materialised) for k in fusion.kernels]


def divisions(kernel):
    """Every atom of the kernel's indices that divides."""
    indices = [*kernel.store]
    for access in kernel.accesses():
        indices += [*access.indices, *(g for g, _ in access.guards)]
    return [atom for i in indices for atom, _ in i.terms if isinstance(atom, (FloorDiv, Mod))]


def value(shape, dtype="float32"):
    return build.input_node("x", shape, dtype)


@pytest.mark.parametrize("name", ["views", "gathers", "concats", "chains", "reductions", "pooling", "rows"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_lowered_kernels_mean_what_the_oracle_says(name):
    for seed in range(40):
        chosen = case(name, seed)
        graph = graph_of(*chosen.outputs)
        fusion = fuse(graph)
        stored = [n for n in graph.nodes() if n in fusion.materialised or n.op == "INPUT"]
        values = dict(zip(stored, evaluate(stored, chosen.feeds), strict=True))
        for kernel in fusion.kernels:
            got = interpret_lowered(lower(kernel.root, fusion.materialised), values)
            wanted = values[kernel.root]
            if got.dtype.kind == "f":
                tolerance = {2: 2e-2, 4: 1e-4, 8: 1e-10}[got.itemsize]
                np.testing.assert_allclose(
                    got,
                    wanted,
                    rtol=tolerance,
                    atol=tolerance * (chosen.scale or 1),
                    err_msg=f"{name} {seed}",
                )
            else:
                np.testing.assert_array_equal(got, wanted, err_msg=f"{name} {seed}")


@pytest.mark.parametrize(
    "source, target",
    [
        ((196, 768), (14, 14, 768)),
        ((14, 14, 768), (196, 768)),
        ((2, 12, 35), (24, 5, 7)),
        ((6, 10), (4, 15)),
        ((2, 3, 4, 5), (120,)),
        ((120,), (5, 4, 3, 2)),
    ],
)
def test_reshapes_that_factor_leave_no_division(source, target):
    x = build.reshape(value(source), target)
    order = list(reversed(range(len(target))))
    for y in (x, build.permute(x, order), build.elementwise("NEG", build.permute(x, order))):
        for kernel in lowered(y):
            # 6x10 as 4x15 needs a common factor of both: the divisions are by parts of axes
            assert source == (6, 10) or not divisions(kernel)


def test_channel_shuffle_leaves_no_division():
    x = build.reshape(value((1, 24, 4, 4)), (1, 3, 8, 4, 4))
    y = build.reshape(build.permute(x, [0, 2, 1, 3, 4]), (1, 24, 4, 4))
    (kernel,) = lowered(build.elementwise("NEG", y))
    assert not divisions(kernel) and len([a for a in kernel.axes if a.size in (3, 8)]) == 2


def test_heads_of_attention_leave_no_division():
    x = build.permute(build.reshape(value((2, 9, 32)), (2, 9, 4, 8)), [0, 2, 1, 3])
    y = build.reshape(build.permute(build.elementwise("TANH", x), [0, 2, 1, 3]), (2, 9, 32))
    for kernel in lowered(y):
        assert not divisions(kernel)


def test_axes_of_size_one_vanish():
    (kernel,) = lowered(build.elementwise("NEG", value((1, 5, 1, 7, 1))))
    assert [a.size for a in kernel.axes] == [5, 7]


def test_one_element_constants_are_literals():
    (kernel,) = lowered(build.apply("ADD", value((4, 5)), build.scalar(2.5, "float32")))
    assert [a.value.op for a in kernel.accesses()] == ["INPUT"]
    assert 2.5 in [e.attrs for e in walk_with_indices(kernel.body) if e.op == "CONST"]


def test_padding_guards_its_load():
    (kernel,) = lowered(build.pad(value((4, 5)), [1, 0], [2, 0], 7.0))
    (access,) = kernel.accesses()
    assert access.fill == 7.0 and [n for _, n in access.guards] == [4]


def test_padding_of_computed_values_selects():
    (kernel,) = lowered(build.pad(build.elementwise("EXP", value((40, 50))), [1, 0], [0, 0], 7.0))
    assert kernel.body.op == "WHERE"
    assert all(a.guards for a in kernel.accesses())


def test_indices_below_a_pad_are_guarded_too():
    indices = build.input_node("i", (3,), "int64")
    (kernel,) = lowered(build.pad(build.gather(value((7, 5)), indices, 0), [1, 0], [1, 0]))
    reads = {a.value.attrs: a for a in kernel.accesses()}
    assert reads["i"].guards and reads["x"].guards
    assert any(isinstance(atom, Slot) for i in reads["x"].indices for atom in atoms_of(i))


def test_gathers_by_constant_tables_in_range_need_no_guard():
    table = build.constant(np.array([4, 0, 6, 2], np.int64))
    (kernel,) = lowered(build.gather(value((7, 5)), table, 0))
    assert not any(a.guards for a in kernel.accesses())
    outside = build.constant(np.array([4, 0, 7, 2], np.int64))
    (kernel,) = lowered(build.gather(value((7, 5)), outside, 0))
    assert any(a.guards for a in kernel.accesses())


@pytest.mark.parametrize("op", ["SUM", "PROD"])
def test_half_precision_is_accumulated_in_single(op):
    (kernel,) = lowered(build.reduce(op, value((4, 50), "float16"), [1]))
    (total,) = [e for e in walk_with_indices(kernel.body) if e.op == "REDUCE"]
    assert total.dtype == "float32" and kernel.body.dtype == "float16"


def test_reductions_of_nothing_are_their_identity():
    for op, identity in (("SUM", 0.0), ("MAX", -np.inf), ("MIN", np.inf), ("PROD", 1.0)):
        (kernel,) = lowered(build.reduce(op, value((4, 0)), [1]))
        assert (kernel.body.op, kernel.body.attrs) == ("CONST", identity)


def test_origins_of_all_that_is_inlined_are_joined():
    x = value((4, 5))
    y = build.elementwise("TANH", build.elementwise("EXP", x, origin=["first"]), origin=["second"])
    (kernel,) = lowered(y)
    assert kernel.origin == {"first", "second"}
