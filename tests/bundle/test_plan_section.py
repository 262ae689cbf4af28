"""Plans come back as they were, and a changed plan is refused or still sound."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from bundle_samples import KERNEL_BYTES, loop_plan, network_plan, normal_launch, section_of

from tinyinfer.bundle.plan_reader import read_machine, read_plan
from tinyinfer.bundle.plan_section import launches_in_order, write_plan
from tinyinfer.bundle.weights import WeightStore
from tinyinfer.errors import Fail, InvalidBundle
from tinyinfer.runtime.plan import Plan


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
        for launch in again.plan.launches:
            for ref in launch.arguments:
                assert ref.offset >= 0
    assert refused > 400
