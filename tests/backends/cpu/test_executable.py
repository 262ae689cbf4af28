"""Plans of hand-written kernels: results, order, threads, profiling, the end of life."""

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest

from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.backends.cpu.device import compile_plan

THREADS = [1, 2, 4]
F32 = "float32"


def sum_plan(kernels, count=64):
    """y = (x + p) * (x + p), through the arena."""
    at = kernels.at
    return kernels.plan(
        [
            kernels.launch(kernels.add, [at("input"), at("parameter"), at("arena", offset=256)], count),
            kernels.launch(
                kernels.multiply, [at("arena", offset=256), at("arena", offset=256), at("output")], count
            ),
        ],
        [((count * 16,), F32)],
        [((count * 16,), F32)],
        [np.arange(count * 16, dtype=F32)],
        256 + count * 64,
    )


@pytest.mark.parametrize("threads", THREADS)
def test_result(kernels, make, threads):
    executable = make(sum_plan(kernels), threads)
    x = np.linspace(-1, 1, 1024, dtype=F32)
    for _ in range(3):
        (y,) = executable.run([x])
        np.testing.assert_array_equal(y, (x + np.arange(1024, dtype=F32)) ** 2)
        x = x + 1


def test_outputs_are_new_arrays(kernels, make):
    executable = make(sum_plan(kernels))
    first = executable.run([np.zeros(1024, F32)])[0]
    kept = first.copy()
    executable.run([np.ones(1024, F32)])
    np.testing.assert_array_equal(first, kept)


def test_offsets_into_inputs_and_outputs(kernels, make):
    at = kernels.at
    plan = kernels.plan(
        [
            kernels.launch(kernels.add, [at("input", 1, 64), at("input", 0, 128), at("output", 1, 64)]),
            kernels.launch(kernels.add, [at("parameter", 1, 64), at("parameter", 0), at("output", 0)]),
        ],
        [((48,), F32), ((2, 16), F32)],
        [((16,), F32), ((32,), F32)],
        [np.full(16, 5, F32), np.arange(32, dtype=F32)],
    )
    a, b = np.random.default_rng(0).random((48,), F32), np.random.default_rng(1).random((2, 16), F32)
    first, second = make(plan).run([a, b])
    np.testing.assert_array_equal(second[16:], b[1] + a[32:])
    np.testing.assert_array_equal(first, np.arange(16, 32) + 5)


def test_parameters_become_views_of_one_aligned_copy(kernels, make):
    given = [np.arange(4096, dtype=F32) + i for i in range(4)]
    plan = kernels.plan([], parameters=given)
    peak = plan.peak_bytes
    executable = make(plan)
    assert executable.peak_bytes == plan.peak_bytes == peak
    addresses = [p.ctypes.data for p in plan.parameters]
    assert all(address % 64 == 0 for address in addresses)
    assert len({address % 4096 for address in addresses}) == 4
    for before, after in zip(given, plan.parameters):
        np.testing.assert_array_equal(before, after)
        assert after is not before and not after.flags.writeable


def test_parameters_of_any_layout(kernels, make):
    given = [np.arange(12, dtype=np.int64).reshape(3, 4).T, np.array(True), np.empty((0, 3), np.float16)]
    plan = kernels.plan([], parameters=given)
    make(plan)
    for before, after in zip(given, plan.parameters):
        np.testing.assert_array_equal(before, after)
        assert after.dtype == before.dtype and after.shape == before.shape


def test_arena_starts_as_zeros_and_aligned(kernels, make):
    at = kernels.at
    plan = kernels.plan(
        [kernels.launch(kernels.add, [at("arena"), at("arena", offset=4 << 20), at("output")])],
        outputs=[((16,), F32)],
        arena_bytes=(4 << 20) + 64,
    )
    executable = make(plan)
    assert executable._native.arena.address % 64 == 0
    np.testing.assert_array_equal(executable.run([])[0], np.zeros(16, F32))


@pytest.mark.parametrize("threads", THREADS)
def test_dependent_launches_wait(kernels, make, threads):
    """Each launch reads what another chunk of the launch before it wrote."""
    count, steps, at = 37, 40, kernels.at
    ping, pong = at("arena"), at("arena", offset=8 * count)
    launches = [kernels.launch(kernels.reverse, [at("input"), at("parameter"), ping], count)]
    for step in range(steps):
        # one-chunk and many-chunk launches mixed: whoever takes the single chunk, the others must wait for it
        source, result = (ping, pong) if step % 2 == 0 else (pong, ping)
        launches.append(kernels.launch(kernels.nothing, [], 1, waits=step % 3 == 0))
        launches.append(kernels.launch(kernels.reverse, [source, at("parameter"), result], count))
    launches.append(kernels.launch(kernels.reverse, [ping, at("parameter"), at("output")], count))
    plan = kernels.plan(
        launches, [((count,), "int64")], [((count,), "int64")], [np.array([count - 1], np.int64)], 16 * count
    )
    executable = make(plan, threads)
    x = np.arange(count, dtype=np.int64)
    for turn in range(2000 if threads > 1 else 20):
        (y,) = executable.run([x + turn])
        assert (y == x + turn + steps + 2).all(), turn


@pytest.mark.parametrize("threads", THREADS)
def test_every_chunk_runs_once(kernels, make, threads):
    at, sizes = kernels.at, [1, 7, 64, 1, 3, 200]
    launches, offset, places = [], 0, []
    for number, size in enumerate(sizes):
        launches.append(
            kernels.launch(
                kernels.count, [at("arena"), at("arena"), at("arena", offset=offset)], size, number % 2 == 0
            )
        )
        places.append(offset)
        offset += 8 * size
    executable = make(kernels.plan(launches, arena_bytes=offset), threads)
    runs = 3000
    for _ in range(runs):
        executable.run([])
    counts = executable._native.arena.view(0, (offset // 8,), np.dtype(np.int64))
    np.testing.assert_array_equal(counts, runs)


def test_launches_without_waits_may_overlap(kernels, make):
    """Two one-chunk launches that wait for each other finish only if both run at the same time."""
    meet = kernels.kernel(
        "meet",
        """  %old = atomicrmw add ptr %p0, i64 1 seq_cst
  br label %look
look:
  %seen = load atomic i64, ptr %p0 seq_cst, align 8
  %both = icmp uge i64 %seen, 2
  br i1 %both, label %out, label %look
out:""",
    )
    at = kernels.at
    executable = make(
        kernels.plan(
            [
                kernels.launch(meet, [at("arena")], 1, waits=False),
                kernels.launch(meet, [at("arena")], 1, waits=False),
                kernels.launch(kernels.nothing, [], 2),
            ]
        ),
        2,
    )
    executable.run([])


def test_zero_chunks_and_no_launches(kernels, make):
    at = kernels.at
    assert make(kernels.plan([])).run([]) == []
    launches = [
        kernels.launch(kernels.count, [at("arena")], 0),
        kernels.launch(kernels.add, [at("input"), at("input"), at("output")], 2),
        kernels.launch(kernels.count, [at("arena")], 0),
    ]
    plan = kernels.plan(launches, [((32,), F32)], [((32,), F32)])
    for threads in (1, 2):
        assert make(plan, threads).run([np.ones(32, F32)])[0].sum() == 64


def test_plans_without_shared_launches_start_no_thread(kernels, make):
    executable = make(kernels.plan([kernels.launch(kernels.nothing, [])] * 3), 4)
    before = threading.active_count()
    executable.run([])
    assert threading.active_count() == before


def test_runs_after_workers_slept(kernels, make):
    executable = make(sum_plan(kernels), 3)
    x = np.zeros(1024, F32)
    for pause in (0, 0.0001, 0.001, 0.02) * 5:
        time.sleep(pause)
        np.testing.assert_array_equal(executable.run([x])[0], np.arange(1024, dtype=F32) ** 2)


def test_callers_take_turns(kernels, make):
    executable = make(sum_plan(kernels), 2)
    wrong = []

    def caller(shift):
        x = np.full(1024, shift, F32)
        expected = (x + np.arange(1024, dtype=F32)) ** 2
        for _ in range(300):
            if not (executable.run([x])[0] == expected).all():
                wrong.append(shift)

    callers = [threading.Thread(target=caller, args=(i,)) for i in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    "feeds",
    [
        [],
        [np.zeros(1023, F32)],
        [np.zeros(1024, np.float64)],
        [np.zeros(2048, F32)[::2]],
        [[0.0] * 1024],
        [np.zeros(1024, F32)] * 2,
    ],
)
def test_wrong_feeds_are_refused(kernels, make, feeds):
    executable = make(sum_plan(kernels))
    with pytest.raises(ValueError):
        executable.run(feeds)
    with pytest.raises(ValueError):
        executable.profile(feeds, 1)


def test_read_only_and_scalar_feeds(kernels, make):
    at = kernels.at
    one = kernels.kernel("copy_one", "  %a = load float, ptr %p0\n  store float %a, ptr %p1")
    plan = kernels.plan([kernels.launch(one, [at("input"), at("output")])], [((), F32)], [((), F32)])
    x = np.array(3.5, F32)
    x.flags.writeable = False
    (y,) = make(plan).run([x])
    assert y.shape == () and y == 3.5


@pytest.mark.parametrize("threads", THREADS)
def test_profile(kernels, make, threads):
    slow = kernels.kernel(
        "slow",
        """  br label %loop
loop:
  %i = phi i64 [0, %0], [%n, %loop]
  store volatile i64 %i, ptr %p2
  %n = add i64 %i, 1
  %more = icmp ult i64 %n, 200000
  br i1 %more, label %loop, label %out
out:""",
    )
    at = kernels.at
    plan = sum_plan(kernels)
    plan.launches.insert(1, kernels.launch(slow, [at("arena")], 1))
    executable = make(plan, threads)
    times = executable.profile([np.zeros(1024, F32)], 5)
    assert [t.title for t in times] == ["add16", "slow", "multiply16"]
    assert all(t.seconds >= 0 for t in times) and times[1].seconds > 0
    assert times[0].origin == ("node",) and times[0].flops == 64 and times[0].bytes == 1 << 20
    np.testing.assert_array_equal(executable.run([np.zeros(1024, F32)])[0], np.arange(1024, dtype=F32) ** 2)


def test_close_ends_threads(kernels, make):
    before = threading.active_count()
    executable = make(sum_plan(kernels), 4)
    executable.run([np.zeros(1024, F32)])
    assert threading.active_count() == before + 3
    arena = weakref.ref(executable._native.arena)
    executable.close()
    executable.close()
    assert threading.active_count() == before and arena() is None
    with pytest.raises(RuntimeError):
        executable.run([np.zeros(1024, F32)])


def test_dropping_an_executable_frees_it(kernels, target, session_cache):
    before = threading.active_count()
    executable = compile_plan(sum_plan(kernels), target, 3, session_cache)
    executable.run([np.zeros(1024, F32)])
    native = weakref.ref(executable._native)
    del executable
    gc.collect()
    assert threading.active_count() == before
    assert native() is None


def test_stages_are_printed_when_asked_for(kernels, make):
    plan = kernels.plan([])
    plan.stages["graph"] = lambda: "text"
    assert make(plan).stages() == {"graph": "text"}


def test_unknown_space_is_refused(kernels, make):
    with pytest.raises(ValueError, match="nowhere"):
        make(kernels.plan([kernels.launch(kernels.nothing, [kernels.at("nowhere")])]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_child_of_a_fork_runs_with_threads_of_its_own(kernels, make):
    executable = make(sum_plan(kernels), 3)
    x = np.zeros(1024, F32)
    expected = executable.run([x])[0]
    child = os.fork()
    if not child:
        status = 1
        try:
            if all((executable.run([x])[0] == expected).all() for _ in range(100)):
                status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.01)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(status) == 0
    np.testing.assert_array_equal(executable.run([x])[0], expected)


@pytest.mark.parametrize("ending", ["", "import gc; gc.disable()", "sys.exit(0)", "del executable"])
def test_interpreter_exit_does_not_hang(tmp_path, ending):
    script = f"""
        import sys
        import numpy as np
        from tinyinfer.backends.cpu.cache import KernelCache
        from tinyinfer.backends.cpu.device import compile_plan
        from tinyinfer.backends.cpu.target import host_target
        from tinyinfer.runtime.plan import KernelSource, Launch, Plan
        text = "define void @empty(ptr %arguments, i64 %chunk) {{\\n  ret void\\n}}"
        plan = Plan([], [], [Launch(KernelSource("empty", "empty", lambda: text), (), 4, True)], [], 64)
        executable = compile_plan(plan, host_target(), 4, KernelCache({str(tmp_path)!r}))
        for _ in range(100):
            executable.run([])
        print("ran", flush=True)
        {ending}
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "ran\n" and done.returncode == 0, done.stderr


def test_second_start_compiles_nothing(kernels, target, tmp_path, monkeypatch):
    cache = KernelCache(tmp_path)
    compile_plan(sum_plan(kernels), target, 1, cache).close()

    def refuse(*_):
        raise AssertionError("compiled again")

    monkeypatch.setattr("tinyinfer.backends.cpu.compile._compile_all", refuse)
    executable = compile_plan(sum_plan(kernels), target, 2, cache)
    np.testing.assert_array_equal(executable.run([np.zeros(1024, F32)])[0], np.arange(1024, dtype=F32) ** 2)
    executable.close()


def test_plans_too_small_to_share_start_no_thread(kernels, make):
    at = kernels.at
    launch = kernels.launch(kernels.add, [at("input"), at("input"), at("output")], 2)
    plan = kernels.plan([replace(launch, flops=32, bytes=384)], [((32,), F32)], [((32,), F32)])
    before = threading.active_count()
    assert make(plan, 4).run([np.ones(32, F32)])[0].sum() == 64
    assert threading.active_count() == before
