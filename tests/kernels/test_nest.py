"""Loop nests over addresses: merging and renaming axes changes no value."""

from dataclasses import replace

import pytest
from addressed import physical_kernels, random_kernels, same
from compiled import graph_of
from interpreter import interpret_nest

from tinyinfer.ir import build
from tinyinfer.ir.index import Axis, index
from tinyinfer.kernels.access import walk_with_indices
from tinyinfer.kernels.nest import free_axes, indices_of, join_terms, merge_axes, mergeable

NAMES = ["views", "gathers", "concats", "chains", "reductions", "pooling"]


def nests(*outputs):
    return [p.nest for p in physical_kernels(graph_of(*outputs))]


def value(*shape, name="x"):
    return build.input_node(name, shape, "float32")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", NAMES)
def test_merged_axes_keep_every_value(name):
    merged = 0
    for seed, kernel, memory in random_kernels(name):
        before = kernel.nest
        after = merge_axes(before)
        merged += len(before.axes) > len(after.axes)
        wanted, got = interpret_nest(before, memory), interpret_nest(after, memory)
        if before.dtypes[0] in ("float16", "float32", "float64") and name == "reductions":
            # a sum over joined axes is taken in another order
            assert wanted.keys() == got.keys(), seed
        else:
            assert same(wanted, got), seed
    assert merged


def test_dense_elementwise_kernels_become_one_loop():
    (nest,) = nests(build.elementwise("EXP", value(3, 4, 5)))
    assert len(nest.axes) == 3
    assert [a.size for a in merge_axes(nest).axes] == [60]


def test_a_transposition_keeps_its_axes_apart():
    (nest,) = nests(build.permute(value(3, 4, 5), [2, 0, 1]))
    assert sorted(a.size for a in merge_axes(nest).axes) == [5, 12]


def test_kept_axes_stay_themselves():
    (nest,) = nests(build.elementwise("EXP", value(3, 4, 5)))
    kept = nest.axes[1]
    assert kept in merge_axes(nest, frozenset([kept])).axes


def test_reduced_axes_merge_too():
    (nest,) = nests(build.reduce("SUM", value(6, 4, 5), [1, 2]))
    (total,) = [e for e in walk_with_indices(merge_axes(nest).body) if e.op == "REDUCE"]
    assert [a.size for a in total.attrs[1]] == [20]


def test_mergeable_asks_every_index():
    a, b = Axis("a", 3), Axis("b", 4)
    dense, other = index(a) * 4 + b, index(a) + index(b) * 3
    assert mergeable(a, b, [dense, dense * 7 + 1, index(5)])
    assert not mergeable(a, b, [dense, other])
    assert not mergeable(a, b, [index(a)]) and not mergeable(a, b, [index(b)])
    assert not mergeable(a, b, [(index(a) * 4 + b) // 5])
    joined = Axis("a_b", 12)
    assert join_terms(dense * 7 + 1, a, b, joined) == index(joined) * 7 + 1


def test_equal_layers_print_equal_nests():
    def layer(name):
        return build.elementwise(
            "TANH", build.apply("ADD", value(3, 4, name=name), build.full(2.0, (4,), "float32"))
        )

    first, second = nests(layer("x")), nests(layer("y"))
    assert [n.text() for n in first] == [n.text() for n in second]


@pytest.mark.parametrize(
    "change",
    [
        lambda x: build.elementwise("EXP", x),
        lambda x: build.apply("ADD", x, build.scalar(2.5, "float32")),
        lambda x: build.apply("ADD", x, build.scalar(-2.0, "float32")),
        lambda x: build.flip(x, [0]),
        lambda x: build.pad(x, [1, 0], [0, 0], 1.0),
        lambda x: build.pad(x, [1, 0], [0, 0], 2.0),
        lambda x: build.permute(x, [1, 0]),
    ],
)
def test_other_computations_print_other_nests(change):
    base = nests(build.apply("ADD", value(3, 4), build.scalar(2.0, "float32")))[0].text()
    assert nests(change(value(3, 4)))[0].text() != base


def test_zero_and_minus_zero_are_two_literals():
    plus, minus = (
        nests(build.apply("ADD", value(3, 4), build.scalar(z, "float32")))[0].text() for z in (0.0, -0.0)
    )
    assert plus != minus


def test_the_text_names_dtypes_and_sizes():
    half, single = (
        nests(build.elementwise("NEG", build.input_node("x", (3, 4), d)))[0].text()
        for d in ("float16", "float32")
    )
    assert half != single
    assert (
        nests(build.elementwise("NEG", value(3, 4)))[0].text()
        != nests(build.elementwise("NEG", value(3, 5)))[0].text()
    )


def test_free_axes_leave_out_what_is_reduced():
    (nest,) = nests(build.reduce("SUM", value(6, 4), [1]))
    free = free_axes(nest.body)
    (total,) = [e for e in walk_with_indices(nest.body) if e.op == "REDUCE"]
    assert free[id(total)] == frozenset(nest.axes)
    assert free[id(total.args[0])] == frozenset([*nest.axes, *total.attrs[1]])


def test_free_axes_see_through_data_dependent_indices():
    indices = build.input_node("i", (5,), "int64")
    (nest,) = nests(build.gather(value(9, 4), indices, 0))
    free = free_axes(nest.body)
    assert free[id(nest.body)] == frozenset(nest.axes)


def test_indices_of_a_nest():
    (nest,) = nests(build.pad(value(3, 4), [1, 0], [0, 0], 1.0))
    assert len(list(indices_of(nest.body))) == 2
    moved = replace(nest, store=nest.store + 3)
    assert moved.text() != nest.text()
