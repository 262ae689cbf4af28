"""Schedules for work-items: never beyond the device, panels side by side, halos that last."""

from __future__ import annotations

import re

import numpy as np
import pytest
from compiled import graph_of
from random_graphs import GENERATORS, case

from tinyinfer.backends.clike.item_printer import ItemPrinter
from tinyinfer.config import CompileOptions
from tinyinfer.ir import build
from tinyinfer.ir.node import Graph, Node
from tinyinfer.kernels.assign import assign
from tinyinfer.kernels.physical import to_physical
from tinyinfer.kernels.plan import build_plan
from tinyinfer.kernels.schedule_gpu import MOST_GROUPS, GpuModel, even_group, power_of_two
from tinyinfer.kernels.schedule_gpu_contraction import GpuContractionChoice
from tinyinfer.kernels.schedule_gpu_tile import (
    GpuTileSchedule,
    chunk_axis,
    chunk_count,
    tile_schedule,
    tiles,
)
from tinyinfer.kernels.tuning import Tuning
from tinyinfer.runtime.plan import Launch, Plan

MODELS = (
    GpuModel(),
    GpuModel(group_limit=16, group_sizes=(16, 8, 4), local_bytes=2048, compute_units=1, wave=4),
    GpuModel(group_limit=1, group_sizes=(1, 1, 1), local_bytes=1024, compute_units=1, wave=1),
    GpuModel(compute_units=132, local_bytes=32 << 10),
    GpuModel(tiles=True),
    GpuModel(group_limit=64, group_sizes=(64, 8, 2), local_bytes=4096, compute_units=2, tiles=True),
)
BYTES = {"uchar": 1, "char": 1, "ushort": 2, "short": 2, "int": 4, "uint": 4, "float": 4, "long": 8}
BYTES |= {"ulong": 8, "double": 8, "float4": 16, "uint4": 16, "int4": 16}


def plan_for(graph: Graph, model: GpuModel) -> Plan:
    return build_plan(graph, ItemPrinter(model), CompileOptions())


def local_bytes(launch: Launch) -> int:
    """Local memory that a kernel's text declares."""
    found = re.findall(r"__local (\w+) \w+\[(\d+)\];", launch.kernel.text())
    return sum(BYTES[kind] * int(count) for kind, count in found)


@pytest.mark.parametrize("model", MODELS, ids=["usual", "tiny", "scalar", "large", "tiles", "small tiles"])
@pytest.mark.parametrize("name", GENERATORS)
def test_groups_and_local_memory_are_within_the_device(name, model):
    for seed in range(8):
        for launch in plan_for(graph_of(*case(name, seed).outputs), model).launches:
            total, group = launch.work.total, launch.work.group
            assert np.prod(group) <= model.group_limit
            assert all(g <= most for g, most in zip(group, model.group_sizes))
            assert not any(t % g for t, g in zip(total, group))
            assert all(t // g <= MOST_GROUPS for t, g in zip(total[1:], group[1:]))
            assert local_bytes(launch) <= model.local_bytes
            assert launch.chunks == 1


def test_few_blocks_of_a_long_sum_are_split():
    x = build.input_node("x", (1, 2048), "float32")
    w = build.constant(np.zeros((2048, 1000), np.float32))
    (launch,) = plan_for(graph_of(build.matmul(x, w)), GpuModel(compute_units=132)).launches
    assert "split" in launch.kernel.name and "__local" in launch.kernel.text()
    x = build.input_node("x", (8192, 64), "float32")
    w = build.constant(np.zeros((64, 512), np.float32))
    (launch,) = plan_for(graph_of(build.matmul(x, w)), GpuModel(compute_units=8)).launches
    assert "split" not in launch.kernel.name


def choice_of(y: Node, model: GpuModel) -> GpuContractionChoice:
    """The choice of a graph with one contraction."""
    assigned = assign(graph_of(y), True)
    for buffer in assigned.buffers.values():
        buffer.place()
    (kernel, roles), *_ = (pair for pair in zip(assigned.kernels, assigned.contractions) if pair[1])
    return GpuContractionChoice(to_physical(kernel, assigned.buffers), roles, model)


def contraction(rows: int, steps: int, columns: int, model: GpuModel) -> GpuContractionChoice:
    """A product of an input and a constant."""
    x = build.input_node("x", (rows, steps), "float32")
    return choice_of(build.matmul(x, build.constant(np.zeros((steps, columns), np.float32))), model)


@pytest.mark.parametrize("sizes", [(49, 512, 2048), (1000, 21, 30), (1, 64, 4), (4096, 64, 64)])
def test_tiles_fit_the_device_and_cover_the_result(sizes):
    rows, _, columns = sizes
    for model in (GpuModel(tiles=True), GpuModel(group_limit=64, group_sizes=(64, 8, 2), tiles=True)):
        c = contraction(*sizes, model).nest(1)
        found = list(tiles(c, model))
        assert found
        for tile in found:
            work = tile_schedule(c, tile, model).work
            assert np.prod(work.group) == tile.group <= model.group_limit
            assert all(g <= most for g, most in zip(work.group, model.group_sizes))
            assert not any(t % g for t, g in zip(work.total, work.group))
            assert 16 * tile.local_vectors <= model.local_bytes
            assert work.total[0] // work.group[0] * tile.panels * 4 >= columns
            assert work.total[1] // work.group[1] * tile.height >= rows


def test_tiles_are_for_large_results_on_devices_with_near_local_memory():
    usual, near = GpuModel(compute_units=132), GpuModel(compute_units=132, tiles=True)
    assert isinstance(contraction(1024, 1024, 1024, near).pick(Tuning()), GpuTileSchedule)
    assert not isinstance(contraction(1024, 1024, 1024, usual).pick(Tuning()), GpuTileSchedule)
    assert not isinstance(contraction(1, 2048, 1000, near).pick(Tuning()), GpuTileSchedule)


def test_chunks_lie_along_the_longest_axis_of_the_sum():
    x = build.input_node("x", (1, 32, 8, 8), "float32")
    w = build.constant(np.ones((8, 32, 3, 3), np.float32))
    choice = choice_of(build.convolution(x, w, [1, 1], [0, 0], [0, 0], [1, 1]), GpuModel(tiles=True))
    assert chunk_axis(choice.nest(1)).size == 32 and chunk_count(choice.nest(1), 16) == 18


def test_panels_lie_side_by_side_for_each_step():
    x = build.input_node("x", (4, 3), "float32")
    w = np.arange(30, dtype=np.float32).reshape(3, 10)
    plan = plan_for(graph_of(build.matmul(x, build.constant(w))), GpuModel())
    (packed,) = plan.parameters
    np.testing.assert_array_equal(packed.reshape(3, -1)[:, :10], w)
    assert not packed.reshape(3, -1)[:, 10:].any()


def padded_twice() -> Graph:
    w = build.constant(np.ones((8, 8, 3, 3), np.float32))
    x = build.input_node("x", (1, 8, 16, 16), "float32")
    for _ in range(2):
        x = build.convolution(build.elementwise("TANH", x), w, [1, 1], [1, 1], [1, 1], [1, 1])
    return graph_of(x)


def test_halos_that_last_are_written_once():
    plan = plan_for(padded_twice(), GpuModel())
    assert [x.once for x in plan.launches if "halo" in x.title] == [True, True]
    places = {x.arguments[0].offset for x in plan.launches if x.once}
    written = [x.arguments[0].offset for x in plan.launches if not x.once]
    assert len(places) == 2 and all(written.count(p) <= 1 for p in places)
    tight = plan_for(padded_twice(), GpuModel(halo_bytes=0))
    assert not any(x.once for x in tight.launches) and tight.arena_bytes <= plan.arena_bytes


@pytest.mark.parametrize("count, most, group", [(1, 64, 1), (10, 64, 10), (100, 64, 64), (9, 5, 5)])
def test_groups_are_nearly_full(count, most, group):
    assert even_group(count, most) == group


def test_powers_of_two():
    assert [power_of_two(n) for n in (0, 1, 2, 3, 4, 5, 255, 256)] == [1, 1, 2, 4, 4, 8, 256, 256]
