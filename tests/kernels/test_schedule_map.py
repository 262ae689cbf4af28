"""Schedules of map kernels: every axis once, rows before columns, chunks that exist."""

from math import prod

import numpy as np
import pytest
from addressed import physical_kernels
from compiled import graph_of
from random_graphs import case, softmax

from tinyinfer.ir import build
from tinyinfer.kernels.access import walk_with_indices
from tinyinfer.kernels.nest import free_axes, merge_axes
from tinyinfer.kernels.schedule_map import (
    expression_weight,
    horizontal_axis,
    is_straight,
    loop_units,
    reduce_steps,
    schedule_map,
    stride_of,
)

LANES, REGISTERS = 16, 32


def value(*shape, name="x", dtype="float32"):
    return build.input_node(name, shape, dtype)


def array(*shape):
    return build.constant(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def prepared(output):
    """The last kernel's nest as it is scheduled: axes merged, by the stride of the store."""
    nest = merge_axes(physical_kernels(graph_of(output))[-1].nest)
    nest.axes = tuple(sorted(nest.axes, key=lambda a: -abs(nest.store.coefficient(a))))
    return nest


def scheduled(output, lanes=LANES):
    nest = prepared(output)
    return nest, schedule_map(nest, lanes, REGISTERS)


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("name", ["views", "gathers", "concats", "chains", "reductions", "pooling", "rows"])
def test_every_axis_is_walked_once(name, lanes):
    for seed in range(30):
        for output in case(name, seed).outputs:
            kernels = [k for k in physical_kernels(graph_of(output)) if k.nest.axes]
            for kernel in kernels:
                nest = merge_axes(kernel.nest)
                nest.axes = tuple(sorted(nest.axes, key=lambda a: -abs(nest.store.coefficient(a))))
                s = schedule_map(nest, lanes, REGISTERS)
                order = (*s.rows, *s.columns)
                assert sorted(a.name for a in order) == sorted(a.name for a in nest.axes), (name, seed)
                assert s.vector is None or s.vector in order
                assert s.tile_axis is None or (s.tile_axis in order and s.tile_axis is not s.vector)
                units = prod(
                    loop_units(a, s.vector, s.vectors * lanes, s.tile_axis, s.tile)
                    for a in order[: s.parallel]
                )
                assert 1 <= s.chunks <= max(units, 1)
                free = free_axes(nest.body)
                for e in walk_with_indices(nest.body):
                    if e.op == "REDUCE" and s.columns and not frozenset(nest.axes) <= free[id(e)]:
                        assert free[id(e)] <= frozenset(s.rows)


def test_elementwise_kernels_are_vectors_along_memory():
    nest, s = scheduled(build.elementwise("ABS", value(30, 40)))
    assert s.vector in nest.axes and nest.store.coefficient(s.vector) == 1 and s.vectors > 1 and s.tile == 1


def test_row_statistics_come_before_their_columns():
    nest, s = scheduled(softmax(value(30, 40), 1))
    assert [a.size for a in s.rows] == [30] and [a.size for a in s.columns] == [40]
    assert s.vector is s.columns[0]


def test_statistics_across_rows_are_vectors_of_rows():
    _, s = scheduled(softmax(value(30, 40), 0))
    assert [a.size for a in s.columns] == [30] and s.vector is not None and s.vector.size == 40


def test_short_reductions_share_the_loads_of_neighbours():
    x = build.convolution(value(1, 8, 12, 12), array(32, 8, 1, 1), [1, 1], [1, 1], [0, 0], [0, 0])
    y = build.convolution(x, array(32, 1, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1], 32)
    plan = physical_kernels(graph_of(build.permute(y, [0, 2, 3, 1])))[-1]
    s = schedule_map(plan.nest, LANES, REGISTERS)
    assert s.vector is not None and s.vector.size == 32 and s.tile > 1


def test_sums_along_memory_go_horizontally():
    nest, s = scheduled(build.reduce("SUM", value(3, 4000), [1]))
    (total,) = [e for e in walk_with_indices(nest.body) if e.op == "REDUCE"]
    along = horizontal_axis(total, free_axes(nest.body))
    assert s.vector is None and along is not None and along.size == 4000


def test_one_element_needs_no_axes():
    nest, s = scheduled(build.reduce("SUM", value(50), [0]))
    assert nest.axes == () and s.rows == () and s.chunks == 1


def test_large_kernels_have_chunks_for_threads():
    assert scheduled(build.elementwise("EXP", value(512, 1024)))[1].chunks > 4
    assert scheduled(build.elementwise("EXP", value(8, 8)))[1].chunks == 1


def test_stride_of():
    nest = prepared(build.permute(value(30, 40), [1, 0]))
    free = free_axes(nest.body)
    assert {stride_of(nest.body, a, free) for a in nest.axes} == {1, 40}
    indices = value(9, name="i", dtype="int64")
    nest = prepared(build.gather(value(30, 7), indices, 0))
    free = free_axes(nest.body)
    by_size = {a.size: stride_of(nest.body, a, free) for a in nest.axes}
    assert by_size == {9: None, 7: 1}


def test_weights_and_steps():
    nest = prepared(build.reduce("SUM", build.elementwise("EXP", value(30, 12)), [1]))
    (total,) = [e for e in walk_with_indices(nest.body) if e.op == "REDUCE"]
    assert reduce_steps(total) == 12 and is_straight(total)
    assert expression_weight(total.args[0]) > expression_weight(total.args[0].args[0])
    long = prepared(build.reduce("SUM", value(30, 500), [1]))
    (total,) = [e for e in walk_with_indices(long.body) if e.op == "REDUCE"]
    assert not is_straight(total)


def test_a_tile_along_a_column_stays_a_column():
    x = value(2, 3, 40)
    windows = build.reduce("SUM", build.window(x, [3], [1], [1], [1], [1]), [3])
    y = build.apply("SUB", windows, build.reduce("MAX", x, [2], keepdims=True))
    _, s = scheduled(build.permute(y, [2, 0, 1]))
    assert not set(s.rows) & set(s.columns)
