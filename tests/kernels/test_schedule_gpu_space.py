"""The space of contraction schedules for work-items: what it holds, and what a record may ask for."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import graph_of
from test_schedule_gpu import MODELS

from tinyinfer.config import CompileOptions
from tinyinfer.ir import build
from tinyinfer.kernels.image import ImageLimits
from tinyinfer.kernels.schedule_gpu import GpuModel
from tinyinfer.kernels.schedule_gpu_contraction import FIELDS, GpuContractionChoice
from tinyinfer.kernels.tune import find_choices
from tinyinfer.kernels.tuning import Tuning

IMAGES = GpuModel(images=ImageLimits(16384, 16384, "float16"), group=64, group_limit=64)


def choice_of(m=33, k=64, n=20, model=IMAGES) -> GpuContractionChoice:
    x = build.elementwise("TANH", build.input_node("x", (m, k), "float32"))
    y = build.matmul(x, build.constant(np.full((k, n), 0.1, np.float32)))
    (found,) = find_choices(graph_of(y), model, CompileOptions()).values()
    return found[0]


@pytest.mark.parametrize("model", [*MODELS, IMAGES])
@pytest.mark.parametrize("size", [(33, 64, 20), (1, 300, 8), (500, 3, 5)], ids=str)
def test_neighbours_are_launches_of_the_device_and_records_give_them_back(size, model):
    choice = choice_of(*size, model=model)
    seen = {choice.heuristic()}
    for step in choice.steps():
        for s in list(seen):
            seen.update(choice.neighbours(s, step)[:3])
    assert len(seen) > 1 or size[0] == 1 or model.group_limit == 1
    for s in seen:
        assert choice.find(choice.fields(s)) == s
        assert np.prod(s.work.group) <= model.group_limit
        assert all(g <= most for g, most in zip(s.work.group, model.group_sizes))
        assert choice.pick(Tuning.make("", {choice.key: choice.fields(s)})) == s


def test_two_steps_a_trip_only_where_the_scalar_operand_is_an_image_and_divides():
    assert choice_of().unrolls(choice_of().nest(1)) == [4, 8]
    assert choice_of(k=60).unrolls(choice_of(k=60).nest(1)) == [4]
    assert choice_of(model=GpuModel()).unrolls(choice_of(model=GpuModel()).nest(1)) == [4]


def test_what_is_not_of_the_space_is_not_found():
    choice = choice_of()
    fields = choice.fields(choice.heuristic())
    assert sorted(fields) == sorted(FIELDS)
    for wrong in ({"rows": 16}, {"vectors": 3}, {"unroll": 2}, {"split": 3}, {"kept": -1}, {"extra": 1}):
        assert choice.find({**fields, **wrong}) is None
    assert choice.find({}) is None


def test_equal_layers_have_equal_keys_and_other_devices_others():
    assert choice_of().key == choice_of().key
    assert len({choice_of().key, choice_of(34).key, choice_of(model=GpuModel()).key}) == 3
