"""Packed constants and panels hold what numpy packs; moved pointers reach the same elements."""

import numpy as np
import pytest
from addressed import physical_kernels, random_kernels, same
from compiled import graph_of
from interpreter import interpret_nest, memory_of

from tinyinfer.ir import build
from tinyinfer.ir.node import Literal
from tinyinfer.kernels.assign import assign
from tinyinfer.kernels.layout import Buffer
from tinyinfer.kernels.nest import indices_of
from tinyinfer.kernels.physical import (
    PackedConstant,
    build_contraction,
    merge_contraction,
    pack_constants,
    rebase,
    to_physical,
)
from tinyinfer.kernels.plan import sorted_for_constants


def array(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def value(*shape, name="x"):
    return build.input_node(name, shape, "float32")


def contraction_of(output, width):
    """The contraction kernel of a graph of one, cut into panels."""
    assigned = assign(graph_of(output))
    for buffer in assigned.buffers.values():
        buffer.place()
    kernel, roles = next((k, c) for k, c in zip(assigned.kernels, assigned.contractions) if c is not None)
    return build_contraction(to_physical(kernel, assigned.buffers), roles, width)


def packed_operand(nest):
    constant = nest.physical.arguments[nest.b.argument]
    assert isinstance(constant, PackedConstant)
    return constant


@pytest.mark.parametrize("columns, width", [(32, 16), (40, 16), (16, 16), (33, 32), (9, 16), (64, 32)])
def test_panels_of_a_matrix(columns, width):
    weights = array(20, columns)
    nest = contraction_of(build.matmul(value(30, 20), build.constant(weights)), width)
    panels = -(-columns // width)
    expected = np.zeros((20, panels * width), np.float32)
    expected[:, :columns] = weights
    expected = expected.reshape(20, panels, width).transpose(1, 0, 2)
    packed = packed_operand(nest).array()
    np.testing.assert_array_equal(packed.reshape(expected.shape), expected)
    assert nest.packed and (nest.panels.panel.size, nest.panels.lane.size, nest.panels.columns) == (
        panels,
        width,
        columns,
    )


@pytest.mark.parametrize("group", [1, 2])
def test_panels_of_a_convolution(group):
    weights = array(20 * group, 6, 3, 2)
    x = value(1, 6 * group, 8, 8)
    nest = contraction_of(
        build.convolution(x, build.constant(weights), [1, 1], [1, 1], [0, 0], [0, 0], group), 16
    )
    by_axis = {"k": [a.size for a in nest.k]}
    assert sorted(by_axis["k"]) == [2, 3, 6]
    padded = np.zeros((group, 32, 6, 3, 2), np.float32)
    padded[:, :20] = weights.reshape(group, 20, 6, 3, 2)
    order = [{6: 2, 3: 3, 2: 4}[size] for size in by_axis["k"]]
    expected = padded.reshape(group, 2, 16, 6, 3, 2).transpose(0, 1, *(d + 1 for d in order), 2)
    np.testing.assert_array_equal(packed_operand(nest).array().ravel(), expected.ravel())


def test_an_operand_fed_at_run_time_is_not_packed():
    nest = contraction_of(build.matmul(value(30, 20), value(20, 40, name="y")), 16)
    assert not nest.packed and nest.panels.columns == 40


def test_merged_contractions_keep_their_extent():
    weights = build.constant(array(24, 16, 1, 1))
    x = build.convolution(
        value(1, 8, 9, 9), build.constant(array(16, 8, 1, 1)), [1, 1], [1, 1], [0, 0], [0, 0]
    )
    assigned = assign(graph_of(build.convolution(x, weights, [1, 1], [1, 1], [0, 0], [0, 0])))
    for buffer in assigned.buffers.values():
        buffer.place()
    for kernel, roles in zip(assigned.kernels, assigned.contractions):
        if roles is None:
            continue
        nest = build_contraction(to_physical(kernel, assigned.buffers), roles, 16)
        merged = merge_contraction(nest)
        assert np.prod([a.size for a in merged.m]) == np.prod([a.size for a in nest.m]) == 81
        assert len(merged.k) <= len(nest.k) and len(merged.m) <= len(nest.m)
        assert (merged.a.address.hi, merged.b.address.hi) == (nest.a.address.hi, nest.b.address.hi)


@pytest.mark.parametrize(
    "strides, offset", [((12, 4, 1), 0), ((1, 2, 6), 0), ((12, -4, 1), 8), ((-12, 4, -1), 15)]
)
def test_packed_constants_walk_their_literal(strides, offset):
    flat = np.arange(24, dtype=np.float32)
    shape = (2, 3, 4)
    packed = PackedConstant(Literal(flat.reshape(shape)), shape, strides, offset)
    places = offset + sum(
        np.arange(d).reshape([-1 if i == j else 1 for j in range(3)]) * s
        for i, (d, s) in enumerate(zip(shape, strides))
    )
    np.testing.assert_array_equal(packed.array(), flat[places])


def test_equal_constants_are_one_parameter():
    first, second = (PackedConstant(Literal(np.arange(4.0)), (4,), (1,)) for _ in range(2))
    assert first == second and hash(first) == hash(second)
    assert first != PackedConstant(Literal(np.arange(4.0)), (2,), (2,))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ["views", "gathers", "concats", "chains"])
def test_packing_and_moving_pointers_keep_every_value(name):
    for seed, kernel, memory in random_kernels(name):
        wanted = interpret_nest(kernel.nest, memory)
        packed = pack_constants(kernel, sorted_for_constants(kernel.nest, None))
        at = {id(a): m for a, m in zip(kernel.arguments, memory)}
        arrays = [
            memory_of([b], {})[0] if isinstance(b, PackedConstant) else at[id(b)] for b in packed.arguments
        ]
        assert same(interpret_nest(packed.nest, arrays), wanted), seed
        based, _ = rebase(packed)
        assert same(interpret_nest(based.nest, arrays, based.offsets), wanted), seed
        if based.offsets:
            assert based.nest.store.const == 0


def test_slices_of_one_buffer_are_the_same_code():
    x = build.input_node("x", (6, 8), "float32")
    parts = [build.elementwise("SIN", build.shrink(x, [s, 0], [s + 2, 8])) for s in (0, 2, 4)]
    kernels = [rebase(k)[0] for k in physical_kernels(graph_of(*parts))]
    assert len({k.nest.text() for k in kernels}) == 1
    assert sorted(k.offsets[1] for k in kernels) == [0, 16, 32]


def test_guarded_arguments_stay_where_they_are():
    (kernel,) = physical_kernels(graph_of(build.pad(value(5, 6), [2, 0], [0, 0], 1.0)))
    based, _ = rebase(kernel)
    assert based.offsets[1] == 0
    assert [i.const for i in indices_of(based.nest.body)] == [i.const for i in indices_of(kernel.nest.body)]


def test_the_result_is_argument_zero():
    for kernel in physical_kernels(graph_of(build.elementwise("EXP", value(5, 6)))):
        assert isinstance(kernel.arguments[0], Buffer) and kernel.nest.dtypes[0] == "float32"
