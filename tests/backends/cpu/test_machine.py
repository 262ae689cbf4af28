"""Which of several targets this machine runs, and why not the others."""

import platform

import pytest

from tinyinfer.backends.cpu.features import ARCHITECTURES, FEATURES, Needs, feature_names
from tinyinfer.backends.cpu.machine import Machine, choose, this_machine
from tinyinfer.backends.cpu.target import host_target, named_target

V3 = Machine("x86_64", 8, 0b1)
V4 = Machine("x86_64", 8, 0b11)


def test_this_machine_runs_its_own_target():
    machine = this_machine()
    if not machine.architecture:
        pytest.skip(f"no code is made for {platform.machine()}")
    assert choose([host_target().needs], machine) == (0, [])


def test_the_first_that_runs_is_chosen_and_each_before_it_has_a_reason():
    names = ["aarch64", "x86_64-v4", "x86_64-v3", "x86_64"]
    number, reasons = choose([named_target(name).needs for name in names], V3)
    assert number == 2
    assert reasons == [
        "aarch64: is for aarch64, and this machine is x86_64",
        "x86_64-v4: needs the x86-64-v4 level (AVX-512 F, BW, CD, DQ, VL), which this machine lacks",
    ]
    assert choose([named_target(name).needs for name in names], V4)[0] == 1


def test_none_may_run():
    assert choose([], V3) == (None, [])
    number, reasons = choose([Needs("future", 77, 8, 0), Needs("new", 1, 8, 1 << 40)], V3)
    assert number is None and "architecture 77" in reasons[0] and "feature 40" in reasons[1]
    _, (reason,) = choose([Needs("x", 1, 8, 0)], Machine("x86_64", 4, 1))
    assert reason == "x: has pointers of 64 bits, and those of this process have 32"


def test_needs_are_those_of_the_format():
    assert named_target("x86_64-v3").needs == Needs("x86_64-v3", 1, 8, 0b1)
    assert named_target("x86_64-v4").needs == Needs("x86_64-v4", 1, 8, 0b11)
    assert named_target("aarch64").needs == Needs("aarch64", 2, 8, 0b1)
    assert named_target("aarch64-v8.2").needs == Needs("aarch64-v8.2", 2, 8, 0b111)
    assert named_target("aarch64-v8.6").needs == Needs("aarch64-v8.6", 2, 8, 0b11111)
    assert named_target("armv7").needs == Needs("armv7", 3, 4, 0b111)
    assert named_target("riscv64").needs == Needs("riscv64", 4, 8, 0b1)
    assert named_target("wasm32").needs == Needs("wasm32", 5, 4, 0b1)
    assert named_target("aarch64:cortex-a76").needs == Needs("aarch64:cortex-a76", 2, 8, 0b111)


def test_every_architecture_has_features():
    assert set(FEATURES) == set(ARCHITECTURES)
    assert feature_names("riscv64", 0b1001) == ["the vector extension V 1.0", "Zbb"]
