"""Schedules of contractions: tiles stay in registers, and tiles, panels and blocks cover everything once."""

from math import ceil, prod

import numpy as np
import pytest
from compiled import graph_of

from tinyinfer.ir import build
from tinyinfer.kernels.assign import assign
from tinyinfer.kernels.physical import build_contraction, merge_contraction, to_physical
from tinyinfer.kernels.schedule import (
    MachineModel,
    most_rows,
    pick_vectors,
    row_tile,
    row_tile_count,
    schedule_contraction,
)

MACHINES = [MachineModel(16, 32), MachineModel(8, 16), MachineModel(4, 16), MachineModel(4, 32)]


def array(*shape):
    return build.constant(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def value(*shape):
    return build.input_node("x", shape, "float32")


def matmul(m, k, n):
    return build.matmul(value(m, k), array(k, n))


def convolution(channels, outputs, size, kernel, stride=1):
    x = build.elementwise("TANH", value(1, channels, size, size))
    pad = [kernel // 2] * 2
    w = array(outputs, channels, kernel, kernel)
    return build.convolution(x, w, [stride] * 2, [1, 1], pad, pad)


CASES = {
    "matmul": matmul(196, 64, 192),
    "narrow": matmul(300, 32, 10),
    "one row": matmul(1, 256, 512),
    "prime": matmul(97, 13, 61),
    "wide": matmul(16, 48, 3072),
    "3x3": convolution(16, 64, 14, 3),
    "7x7 map": convolution(32, 48, 7, 3),
    "1x1": convolution(64, 256, 14, 1),
    "stride": convolution(8, 24, 33, 3, 2),
}


def nest_of(output, machine, vectors):
    assigned = assign(graph_of(output))
    for buffer in assigned.buffers.values():
        buffer.place()
    kernel, roles = next((k, c) for k, c in zip(assigned.kernels, assigned.contractions) if c is not None)
    return merge_contraction(
        build_contraction(to_physical(kernel, assigned.buffers), roles, vectors * machine.lanes)
    )


def scheduled(output, machine):
    vectors = pick_vectors(nest_of(output, machine, 1), machine)
    nest = nest_of(output, machine, vectors)
    return nest, schedule_contraction(nest, vectors, machine)


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_tiles_stay_in_registers(name, machine):
    nest, s = scheduled(CASES[name], machine)
    rows = s.tile_y * s.tile_x
    assert rows >= 1 and s.lanes == machine.lanes
    assert rows * s.vectors + s.vectors + 1 <= machine.registers
    assert nest.panels.lane.size == s.vectors * s.lanes


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_tiles_and_panels_cover_everything(name, machine):
    nest, s = scheduled(CASES[name], machine)
    y = nest.m[-2].size if len(nest.m) > 1 else 1
    x = nest.m[-1].size if nest.m else 1
    tiles = row_tile_count(nest, s.tile_y, s.tile_x)
    assert tiles == prod(a.size for a in nest.m[:-2]) * ceil(y / s.tile_y) * ceil(x / s.tile_x)
    heights = [min(s.tile_y, y - start) for start in range(0, y, s.tile_y)]
    widths = [min(s.tile_x, x - start) for start in range(0, x, s.tile_x)]
    covered = sum(h * w for h in heights for w in widths) * prod(a.size for a in nest.m[:-2])
    assert covered == prod(a.size for a in nest.m)
    panels = nest.panels
    assert (panels.panel.size - 1) * panels.lane.size < panels.columns <= panels.panel.size * panels.lane.size


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_blocks_cover_every_tile_and_panel_once(name, machine):
    nest, s = scheduled(CASES[name], machine)
    tiles = row_tile_count(nest, s.tile_y, s.tile_x)
    for blocks, total in ((s.row_blocks, tiles), (s.column_blocks, nest.panels.panel.size)):
        assert 1 <= blocks <= total
        parts = [range(b * total // blocks, (b + 1) * total // blocks) for b in range(blocks)]
        assert [i for part in parts for i in part] == list(range(total))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_most_rows_is_the_register_bound():
    for machine in MACHINES:
        for vectors in range(1, 9):
            rows = most_rows(vectors, machine)
            if rows >= 1:
                assert rows * vectors + vectors + 1 <= machine.registers
            assert (rows + 1) * vectors + vectors + 1 > machine.registers


def test_row_tiles_have_small_remainders():
    nest = nest_of(matmul(100, 16, 64), MACHINES[0], 2)
    height, width = row_tile(nest, 14)
    assert (
        height == 1
        and ceil(100 / width) == ceil(100 / 14)
        and 100 - (ceil(100 / width) - 1) * width > width // 2
    )


def test_maps_narrower_than_a_tile_are_walked_as_one_axis_or_in_several_rows():
    nest, s = scheduled(CASES["7x7 map"], MACHINES[0])
    assert len(nest.m) == 2 and s.tile_x == 7 and s.tile_y >= 1


def test_names_spell_the_schedule():
    names = {scheduled(output, MACHINES[0])[1].name for output in CASES.values()}
    assert all(f"v{MACHINES[0].lanes}_k" in name for name in names) and len(names) > 1


def test_large_contractions_are_cut_for_threads_and_small_ones_are_not():
    def chunks(output):
        _, s = scheduled(output, MACHINES[0])
        return s.row_blocks * s.column_blocks

    assert chunks(matmul(8, 8, 16)) == 1
    assert chunks(matmul(784, 256, 256)) >= 4
