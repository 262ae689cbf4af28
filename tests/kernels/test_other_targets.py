"""Kernels for processors that this machine need not be: LLVM accepts them, and they link without a library.

Those that an emulator runs are in `test_emulated`.
"""

import pytest
from compiled import CACHE, graph_of, plan_of
from random_graphs import GENERATORS, case

from tinyinfer.backends.cpu.compile import compile_image
from tinyinfer.backends.cpu.driver import ENTRIES
from tinyinfer.backends.cpu.target import cpu_names, named_target, target_names


@pytest.mark.parametrize("target", ["x86_64-v3", "x86_64-v4", "aarch64:cortex-a76", "riscv64:sifive-x280"])
@pytest.mark.parametrize("name", GENERATORS)
def test_kernels_link(name, target):
    chosen = named_target(target)
    for seed in range(2):
        plan = plan_of(graph_of(*case(name, seed).outputs), target=chosen)
        image = compile_image(plan, chosen, 1, CACHE)
        keys = {launch.kernel.key for launch in plan.launches}
        assert set(image.entries) == keys | set(ENTRIES)
        assert all(0 <= at < len(image.code) for at in image.entries.values())


def test_code_for_a_cpu_is_ordered_for_it_and_needs_no_more_than_its_level():
    for name in cpu_names():
        target = named_target(name)
        levels = [named_target(level) for level in target_names()]
        assert any(level.features == target.features and level.cpu == target.cpu for level in levels)
