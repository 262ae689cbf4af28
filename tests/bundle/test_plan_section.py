"""Plans come back as they were, and a changed plan is refused or still sound."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
import pytest
from bundle_samples import KERNEL_BYTES, loop_plan, network_plan, normal_launch, section_of

from tinyinfer.bundle import types
from tinyinfer.bundle.plan_reader import read_machine, read_plan
from tinyinfer.bundle.plan_section import launches_in_order, write_plan
from tinyinfer.bundle.types import DIRECTORY, PLAN_HEADER
from tinyinfer.bundle.weights import WeightStore
from tinyinfer.errors import Fail, InvalidBundle
from tinyinfer.runtime.plan import BufferRef, Launch, LoopLaunch, Moving, Plan


def _written(plan: Plan, **fixed: object):
    store = WeightStore()
    section = section_of(plan, store)
    for name, value in fixed.items():
        setattr(section, name, value)
    return section, np.frombuffer(write_plan(section), np.uint8), store


def _read(section, data: np.ndarray, store: WeightStore):
    return read_plan(data, KERNEL_BYTES * len(section.offsets), store.stored, "PLAN")


@pytest.mark.parametrize("make", [network_plan, loop_plan])
def test_a_plan_comes_back(make) -> None:
    plan = make()
    section, data, store = _written(plan)
    again = _read(section, data, store)
    assert (again.architecture, again.pointer_bytes, again.features) == ("x86_64", 8, 1)
    assert again.plan.inputs == plan.inputs and again.plan.outputs == plan.outputs
    assert again.plan.arena_bytes == plan.arena_bytes
    assert list(again.tensors) == list(section.tensors)
    wanted = [normal_launch(x, section.offsets) for x in plan.launches]
    assert [normal_launch(x, again.offsets) for x in again.plan.launches] == wanted
    with pytest.raises(Fail, match="no source"):
        again.plan.launches[0].kernel.text()
    # what was read can be written again, to the same bytes
    assert write_plan(again) == data.tobytes()


def test_the_only_value_of_an_input() -> None:
    plan = loop_plan()
    plan.parameters.append(np.array(3, np.int64))
    section, data, store = _written(plan, fixed={2: 2})
    assert _read(section, data, store).fixed == {2: 2}
    section, data, store = _written(plan, fixed={1: 2})
    with pytest.raises(InvalidBundle, match="'state' must have is no tensor of its size"):
        _read(section, data, store)


def test_launches_of_loops_follow() -> None:
    titles = [launch.title for launch in launches_in_order(loop_plan().launches)]
    assert titles == ["first", "outer", "before", "inner", "µ"]


def test_a_machine_of_a_later_version_has_a_name() -> None:
    _, data, _ = _written(network_plan())
    changed = data.copy()
    changed[0] = 99
    assert read_machine(changed, "PLAN").architecture == "number 99"
    with pytest.raises(InvalidBundle, match="unknown architecture"):
        read_plan(changed, 1000, [], "PLAN")


def test_places_are_checked_in_every_iteration() -> None:
    """Each buffer one element too small, and each movement one too far, must be found."""

    def changed(edit) -> None:
        plan = loop_plan()
        edit(plan)
        with pytest.raises(InvalidBundle, match="reaches bytes"):
            _read(*_written(plan))

    def loop(plan: Plan, **fields: object) -> None:
        launch = plan.launches[1]
        plan.launches[1] = replace(launch, loop=replace(launch.loop, **fields))

    outer = loop_plan().launches[1].loop
    assert outer is not None
    changed(lambda plan: loop(plan, steps=7))
    changed(lambda plan: loop(plan, arena=type(outer.arena)("arena", 0, 1 << 40)))
    changed(lambda plan: loop(plan, iteration=type(outer.arena)("arena", 0, 1020)))
    changed(lambda plan: loop(plan, cleared=((outer.cleared[0][0], 81),)))
    changed(lambda plan: loop(plan, before=((*outer.before[0][:2], 65),)))
    changed(lambda plan: loop(plan, after=((*outer.after[0][:2], 65),)))
    changed(lambda plan: setattr(plan, "arena_bytes", 575))


@pytest.mark.parametrize("make", [network_plan, loop_plan])
def test_changed_bytes_are_refused_or_harmless(make) -> None:
    """Whatever stands in the section: InvalidBundle, or a plan whose every reference lies inside."""
    section, data, store = _written(make())
    chooser = random.Random(7)
    refused = 0
    for _ in range(4000):
        changed = bytearray(data.tobytes())
        for _ in range(chooser.choice((1, 1, 2, 4))):
            at = chooser.randrange(len(changed))
            if chooser.random() < 0.5:
                changed[at] = chooser.choice((0, 1, 0x7F, 0x80, 0xFF, chooser.randrange(256)))
            else:
                at &= ~3
                value = chooser.choice((0, 1, 0xFFFFFFFF, 0x7FFFFFFF, chooser.randrange(64)))
                changed[at : at + 4] = value.to_bytes(4, "little")
        if chooser.random() < 0.1:
            del changed[chooser.randrange(len(changed)) :]
        try:
            again = _read(section, np.frombuffer(bytes(changed), np.uint8), store)
        except InvalidBundle as error:
            refused += 1
            assert str(error).startswith("PLAN: ") and "\n" not in str(error)
            continue
        plan = again.plan
        scope = {("arena", 0): (0, plan.arena_bytes)}
        for space, specs in (("input", plan.inputs), ("output", plan.outputs)):
            for i, spec in enumerate(specs):
                scope[space, i] = (0, prod(spec.shape) * np.dtype(spec.dtype).itemsize)
        for i, tensor in enumerate(again.tensors):
            scope["parameter", i] = (0, tensor.nbytes)
        _run(plan.launches, scope)
    assert refused > 400


Scope = dict[tuple[str, int], tuple[int, int]]
"""Where each buffer begins in memory of its own, and how large that is."""


def _at(ref: BufferRef, scope: Scope, nbytes: int = 0, moved: int = 0) -> tuple[int, int]:
    start, size = scope[ref.space, ref.number]
    assert 0 <= start + ref.offset + moved <= size - nbytes
    return start + ref.offset + moved, size


def _run(launches: Sequence[Launch], scope: Scope) -> None:
    """Every launch as it would run, for the first iterations of loops: all that is touched must be there."""
    for launch in launches:
        for ref in launch.arguments:
            _at(ref, scope)
        loop = launch.loop
        if loop is None:
            continue
        for ref, size in loop.cleared:
            _at(ref, scope, size)
        for to, source, size in loop.before:
            _at(to, scope, size), _at(source, scope, size)
        for single, size in (
            (loop.iteration, 8),
            (loop.count, 8),
            (loop.enter, 1),
            (loop.go_on, 1),
            (loop.done, 8),
        ):
            if single is not None:
                _at(single, scope, size)

        def moved(place: Moving, iteration: int) -> int:
            return (iteration + 1) // 2 * place.even + iteration // 2 * place.odd

        for t in range(min(loop.steps, 6)):
            body = {key: place for key, place in scope.items() if key[0] == "parameter"}
            body["arena", 0] = _at(loop.arena, scope)
            for space, places in (("input", loop.inputs), ("output", loop.outputs)):
                for i, place in enumerate(places):
                    body[space, i] = _at(place.ref, scope, moved=moved(place, t))
            _run(loop.launches, body)
        for t in range(min(loop.steps, 6) + 1):
            for to, place, size in loop.after:
                _at(to, scope, size), _at(place.ref, scope, size, moved(place, t))


# ---- changed with intent


def _record(data: np.ndarray, table: int, number: int, field: int, value: int) -> np.ndarray:
    """The section with the u32 at byte `field` of a record replaced."""
    offset, _, size = DIRECTORY.unpack_from(data, PLAN_HEADER.size + DIRECTORY.size * table)
    changed = data.copy()
    changed[offset + size * number + field :][:4] = np.frombuffer(struct.pack("<I", value), np.uint8)
    return changed


@pytest.mark.parametrize(
    ("table", "number", "field", "value", "wanted"),
    [
        (types.LOOPS, 0, 0, 1, "launch 1 belongs to two sequences"),
        (types.LOOPS, 1, 0, 3, "launch 3 belongs to two sequences"),
        (types.LOOPS, 0, 4, 1, "launch 3 belongs to no loop"),
        (types.LOOPS, 0, 4, 9, "launches 2 to 11 of 5"),
        (types.LAUNCHES, 2, 24, 1, "loop 0 belongs to two launches"),
        (types.LAUNCHES, 2, 24, 9, "loops 8 to 9 of 2"),
        (types.LAUNCHES, 1, 16, 2, "loop 0 is a launch of 2 chunks"),
        (types.LAUNCHES, 0, 0, 2, "kernels 2 to 3 of 2"),
        (types.LAUNCHES, 0, 8, 900, "references 0 to 900"),
        (types.LAUNCHES, 0, 8, 18, "others have already used"),
        (types.LAUNCHES, 0, 32, 1 << 30, "outside of the table of strings"),
        (types.KERNELS, 1, 0, 32, "kernel 1 lies outside of the code"),
        (types.VALUES, 0, 8, 99, "'rows' is of an unknown type"),
        (types.VALUES, 0, 8, 7, "'rows' of shape [5, 4] and type int64 cannot have 80 bytes"),
        (types.VALUES, 0, 12, 33, "'rows' has 33 dimensions"),
        (types.VALUES, 0, 20, 1, "'state' is neither an input nor an output, or an input after outputs"),
        (types.VALUES, 1, 4, 0, "two values are named ''"),
        (types.DIMS, 0, 4, 1 << 31, "negative dimension"),
        (types.DIMS, 0, 4, 1 << 30, "impossible size"),
        (types.TENSORS, 0, 0, 2, "tensor 0 is stored tensor 2 of 2"),
        (types.TENSORS, 0, 4, 2, "unknown encoding"),
        (types.REFERENCES, 0, 0, 9, "buffer 0 of space 9, which is not there"),
    ],
)
def test_what_is_wrong_is_said(table: int, number: int, field: int, value: int, wanted: str) -> None:
    section, data, store = _written(loop_plan())
    changed = _record(data, table, number, field, value)
    if wanted.startswith("two values"):
        changed = _record(changed, table, 0, 4, 0)
    with pytest.raises(InvalidBundle, match=re.escape(wanted)):
        _read(section, changed, store)


def _nested(depth: int) -> Plan:
    kernel = loop_plan().launches[0].kernel
    arena = BufferRef("arena", 0)
    launch = Launch(kernel, (), 1, False)
    for _ in range(depth):
        launch = Launch(kernel, (), 1, False, loop=LoopLaunch((launch,), 2, arena, (), (), arena))
    return Plan([], [], [launch], [], 64)


def test_loops_are_nested_sixteen_deep_and_no_deeper() -> None:
    section, data, store = _written(_nested(16))
    assert len(launches_in_order(_read(section, data, store).plan.launches)) == 17
    with pytest.raises(ValueError, match="more than 16 deep"):
        _written(_nested(17))
    # the innermost launch gets a loop with an empty body
    loops, _, _ = DIRECTORY.unpack_from(data, PLAN_HEADER.size + DIRECTORY.size * types.LOOPS)
    last = np.frombuffer(data[loops + 15 * 96 :][:96].tobytes(), np.uint8)
    longer = np.concatenate([data[: loops + 16 * 96], last])
    count_at = PLAN_HEADER.size + DIRECTORY.size * types.LOOPS + 4
    longer[count_at : count_at + 4] = np.frombuffer(struct.pack("<I", 17), np.uint8)
    longer = _record(_record(longer, types.LAUNCHES, 16, 24, 17), types.LOOPS, 16, 4, 0)
    with pytest.raises(InvalidBundle, match="nested more than 16 deep"):
        _read(section, longer, store)


def test_longer_records_and_more_tables_are_read() -> None:
    """What a newer minor version may do."""
    section, data, store = _written(loop_plan())
    tables = []
    for number in range(len(types.TABLES)):
        offset, count, size = DIRECTORY.unpack_from(data, PLAN_HEADER.size + DIRECTORY.size * number)
        rows = data[offset : offset + count * size].reshape(count, size)
        if number != types.STRINGS:
            rows = np.concatenate([rows, np.full((count, 16), 0xFF, np.uint8)], axis=1)
        tables.append(rows)
    tables.append(np.full((3, 5), 0xFF, np.uint8))
    position = PLAN_HEADER.size + DIRECTORY.size * len(tables)
    directory, content = b"", b""
    for rows in tables:
        directory += DIRECTORY.pack(position + len(content), *rows.shape)
        content += rows.tobytes() + bytes(-rows.size % 8)
    header = bytearray(data[: PLAN_HEADER.size].tobytes())
    header[24:28] = struct.pack("<I", len(tables))
    longer = np.frombuffer(bytes(header) + directory + content, np.uint8)
    assert _read(section, longer, store).plan == _read(section, data, store).plan
