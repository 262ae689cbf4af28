"""The rule of registers and local memory against what the compiler said, and the cost model's order."""

from dataclasses import replace

import pytest
from adreno_kernels import accumulators

from tinyinfer.backends.qcom.capabilities import ADRENO_GPUS, find_gpu
from tinyinfer.backends.qcom.ir3 import KernelText
from tinyinfer.backends.qcom.occupancy import Candidate, estimate, fastest, occupancy
from tinyinfer.backends.qcom.statistics import CompiledKernel, CompilerStatistics, LoopStatistics

# rows: work-group, local bytes, full registers, waves, whether they are double; from Mesa 26.1.6
A6XX = """
64 0 7 16 0    64 0 12 16 0   64 0 19 10 0    64 8192 23 8 0   128 2992 8 12 1  128 16384 12 4 1
256 0 6 16 1   256 0 8 12 1   256 0 9 10 1    256 0 12 8 1     256 0 13 14 0    256 0 19 10 0
256 0 24 8 0   256 0 32 6 0   256 0 48 4 0    256 8192 12 8 1  512 16384 12 8 1"""
A660 = """
64 0 6 16 0    64 0 10 12 0   64 0 21 6 0     64 8192 16 8 0   128 2992 8 8 1   128 16384 8 4 1
256 0 4 16 1   256 0 5 12 1   256 0 8 8 1     256 0 9 14 0     256 0 10 12 0    256 0 16 8 0
256 0 21 6 0   256 0 27 4 0   256 0 32 4 0    256 0 48 2 0     256 8192 8 8 1   512 16384 10 12 0"""
A702 = """
64 0 3 8 1     64 0 12 4 0    64 0 24 2 0     64 8192 8 6 0    256 0 3 8 1      256 0 6 4 1
256 0 8 6 0    256 0 9 5 0    256 0 12 4 0    256 0 16 3 0     256 0 24 2 0     256 0 46 1 0"""
A8XX = """
64 0 6 16 0    64 0 12 16 0   64 0 19 10 0    64 8192 22 8 0   128 2992 12 16 0 128 16384 22 4 0
256 0 6 16 0   256 0 12 16 0  256 0 13 14 0   256 0 19 10 0    256 0 24 8 0     256 0 32 6 0
256 0 48 4 0   256 8192 12 16 0   512 16384 12 16 0"""
RECORDED = {
    "a618": A6XX,
    "a630": A6XX,
    "a660": A660,
    "a702": A702,
    "a730": A6XX,
    "a740": A6XX,
    "a750": A6XX,
    "a810": A8XX,
    "a830": A8XX,
}


@pytest.mark.parametrize("name", RECORDED)
def test_the_rule_gives_what_the_compiler_said(name):
    gpu = find_gpu(name)
    numbers = [int(word) for word in RECORDED[name].split()]
    assert len(numbers) >= 60
    for work_group, local, registers, waves, double in zip(*[iter(numbers)] * 5):
        held = occupancy(gpu, registers, 0, local, work_group)
        assert (held.waves, held.wave_size) == (waves, gpu.wave_size * (1 + double)), (work_group, registers)


COMPILED = [gpu.name for gpu in ADRENO_GPUS.values() if gpu.ir3_id is not None]
SIMILAR = {"a618", "a730", "a750", "a810"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.sweep if name in SIMILAR else ()) for name in COMPILED]
)
def test_the_rule_gives_what_the_compiler_says(name, ir3):
    compiler = ir3(name)
    gpu = compiler.gpu
    cases = [
        (count, work_group, local, kind)
        for count in (1, 4, 7, 10, 14, 20)
        for work_group, local in ((64, 0), (256, 0), (128, 8192))
        for kind in ("float4", "half4")
    ]
    texts = [KernelText(str(case), accumulators(*case[:3], kind=case[3])) for case in cases]
    seen = set()
    for (_, work_group, _, _), kernel in zip(cases, compiler.compile(texts)):
        said = kernel.statistics
        if said.spills:
            continue
        held = occupancy(gpu, said.full_registers, said.half_registers, kernel.local_bytes, work_group)
        assert held.waves == said.waves, kernel.name
        assert held.wave_size == gpu.wave_size * (2 if said.double_wave else 1), kernel.name
        seen.add(said.full_registers)
    assert len(seen) >= 6


@pytest.mark.parametrize("kind", ["half4", "float4"])
def test_waves_follow_from_registers_and_the_compilers_choice(kind, ir3):
    """Also for the kernels of half vectors whose registers alone do not tell whether waves are double."""
    compiler = ir3("a630")
    texts = [KernelText(str(n), accumulators(n, 128, kind=kind)) for n in range(2, 44, 3)]
    for kernel in compiler.compile(texts):
        said = kernel.statistics
        held = occupancy(compiler.gpu, said.full_registers, work_group=128, double_wave=said.double_wave)
        assert held.waves == said.waves, kernel.name


def test_the_choice_of_double_waves_can_be_given():
    gpu = find_gpu("a630")
    assert occupancy(gpu, 24, double_wave=True) == replace(occupancy(gpu, 24), waves=4, wave_size=128)
    assert occupancy(gpu, 8, double_wave=False) == replace(
        occupancy(gpu, 8), waves=16, wave_size=64, limit="waves"
    )


def test_half_registers_count_half():
    gpu = find_gpu("a630")
    assert occupancy(gpu, 4, 8) == occupancy(gpu, 8)
    assert occupancy(gpu, 4, 7) == occupancy(gpu, 8)


def test_the_limit_is_named():
    gpu = find_gpu("a630")
    assert occupancy(gpu, 4).limit == "waves"
    assert occupancy(gpu, 20).limit == "registers"
    assert occupancy(gpu, 4, local_bytes=16384).limit == "local memory"


def test_a_work_group_that_registers_do_not_hold_does_not_fit():
    gpu = find_gpu("a660")
    assert occupancy(gpu, 48, work_group=128).fits
    assert not occupancy(gpu, 48, work_group=256).fits


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"work_group": 2048}, "1 to 1024"),
        ({"work_group": 0}, "1 to 1024"),
        ({"local_bytes": 40000}, "32768"),
    ],
)
def test_what_the_gpu_cannot_launch_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        occupancy(find_gpu("a630"), 8, **arguments)


def kernel(registers=8, body=100, waits=1, straight=50):
    """A compiled kernel with one loop."""
    zeros = dict.fromkeys(
        (
            "nops",
            "moves",
            "conversions",
            "half_registers",
            "constants",
            "arithmetic",
            "special",
            "multiply_adds",
        ),
        0,
    )
    statistics = CompilerStatistics(
        **zeros,
        instructions=body + straight,
        full_registers=registers,
        texture_reads=8,
        memory=1,
        private_stores=0,
        private_loads=0,
        loops=1,
        waves=0,
        double_wave=False,
    )
    return CompiledKernel("k", "a630", statistics, (LoopStatistics(0, body, 8, 64, waits),), 1024, 0, 0, "")


def launch(compiled, trips=64, work_items=1 << 16, work_group=128):
    return Candidate(compiled, (trips,), work_items, work_group)


def test_the_estimate_grows_with_work_and_falls_with_processors():
    a630, a740 = find_gpu("a630"), find_gpu("a740")
    base = estimate(a630, launch(kernel()))
    assert estimate(a630, launch(kernel(body=200))) > base
    assert estimate(a630, launch(kernel(), trips=128)) > base
    assert estimate(a630, launch(kernel(), work_items=1 << 18)) == pytest.approx(4 * base, rel=0.05)
    assert estimate(a740, launch(kernel())) == pytest.approx(base / 3, rel=0.1)


def test_waves_hide_waits_until_instructions_are_the_limit():
    gpu = find_gpu("a630")
    short, long = kernel(registers=8, body=30), kernel(registers=24, body=30)
    assert estimate(gpu, launch(short)) < estimate(gpu, launch(long))
    busy = [kernel(registers=registers, body=1000) for registers in (8, 24)]
    assert estimate(gpu, launch(busy[0])) == pytest.approx(estimate(gpu, launch(busy[1])), rel=0.1)


def test_a_launch_too_small_to_fill_the_gpu_gains_nothing_from_more_registers_free():
    gpu = find_gpu("a630")
    few = {"work_items": 256, "work_group": 64}
    assert estimate(gpu, launch(kernel(registers=6), **few)) == estimate(
        gpu, launch(kernel(registers=24), **few)
    )


def test_the_fastest_that_fits_is_chosen():
    gpu = find_gpu("a660")
    huge = launch(kernel(registers=48, body=10), work_group=256)
    slow, quick = launch(kernel(body=200)), launch(kernel(body=100))
    assert fastest(gpu, [huge, slow, quick]) is quick
    with pytest.raises(ValueError, match="none of 1 candidates fits a660"):
        fastest(gpu, [huge])


def test_trips_are_given_for_every_loop():
    with pytest.raises(ValueError, match="has 1 loops, 0 numbers"):
        estimate(find_gpu("a630"), replace(launch(kernel()), trips=()))
