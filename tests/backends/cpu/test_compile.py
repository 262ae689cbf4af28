"""Text to objects, the cache in front of it, and worker processes beside it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tinyinfer.backends.cpu import compile as compiler
from tinyinfer.backends.cpu import worker
from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.backends.cpu.compile import (
    KernelCompileError,
    assembly,
    compile_kernels,
    compile_object,
    object_key,
)
from tinyinfer.backends.cpu.target import make_target, named_target
from tinyinfer.errors import EPFail
from tinyinfer.runtime.plan import KernelSource

MANY = 20


def source(number, text=None):
    text = text or f"define i64 @f{number}(i64 %x) {{\n  %y = add i64 %x, {number}\n  ret i64 %y\n}}"
    return KernelSource(f"k{number}", f"f{number}", lambda: text)


def test_objects_of_other_machines():
    text = "define <4 x float> @f(<4 x float> %a) {\n  ret <4 x float> %a\n}"
    assert compile_object(text, named_target("x86_64"))[:6] == b"\x7fELF\x02\x01"
    arm = compile_object(text, named_target("aarch64"))
    assert arm[:4] == b"\x7fELF" and int.from_bytes(arm[18:20], "little") == 183


def test_loops_do_not_become_library_calls(target):
    """A loop that stores zeros stays a loop: short ones are what kernels are made of."""
    text = """
define void @f(ptr %p, i64 %n) {
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %at = getelementptr i64, ptr %p, i64 %i
  store i64 0, ptr %at
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %out
out:
  ret void
}"""
    assert "memset" not in assembly(text, target)


def test_512_bit_vectors_are_not_split():
    text = """
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
define void @f(ptr %p) {
  %a = load <16 x float>, ptr %p
  %b = call <16 x float> @llvm.fma.v16f32(<16 x float> %a, <16 x float> %a, <16 x float> %a)
  store <16 x float> %b, ptr %p
  ret void
}"""
    wide = make_target("x86_64-unknown-linux-gnu", "skylake-avx512", "+avx,+avx2,+fma,+avx512f,+avx512vl")
    listing = assembly(text, wide)
    assert "zmm0" in listing and "vfmadd" in listing


@pytest.mark.parametrize("text", ["nonsense", "define void @f() {\n  ret i32 0\n}", "define i32 @f() {\n}"])
def test_bad_text(target, text):
    with pytest.raises(KernelCompileError) as raised:
        compile_object(text, target)
    assert isinstance(raised.value, EPFail)
    with pytest.raises(KernelCompileError, match="f7"):
        compile_kernels([source(7, text)], target, 1)


def test_equal_keys_are_compiled_once(target):
    printed = []

    def text(number):
        printed.append(number)
        return source(number).text()

    sources = [KernelSource(f"k{i % 3}", f"f{i % 3}", lambda i=i: text(i % 3)) for i in range(9)]
    assert set(compile_kernels(sources, target, 2)) == {"k0", "k1", "k2"}
    assert sorted(printed) == [0, 1, 2]


def test_cached_kernels_are_not_even_printed(target, tmp_path):
    cache = KernelCache(tmp_path)
    made = compile_kernels([source(i) for i in range(5)], target, 1, cache)

    def refuse():
        raise AssertionError("printed again")

    steps = []
    sources = [KernelSource(f"k{i}", f"f{i}", refuse) for i in range(5)]
    found = compile_kernels(
        sources, target, 1, KernelCache(tmp_path), lambda done, total: steps.append((done, total))
    )
    assert found == made and steps == [(5, 5)]


def test_cache_key_tells_targets_and_versions_apart(target, monkeypatch):
    import llvmlite

    keys = {object_key("a", target), object_key("b", target), object_key("a", named_target("aarch64"))}
    monkeypatch.setattr(llvmlite, "__version__", "0.0.0")
    keys.add(object_key("a", target))
    monkeypatch.setattr(compiler, "PASSES", ("sroa",))
    keys.add(object_key("a", target))
    assert len(keys) == 5


def test_progress(target):
    steps = []
    compile_kernels(
        [source(i) for i in range(4)], target, 1, None, lambda done, total: steps.append((done, total))
    )
    assert steps == [(i, 4) for i in range(5)]


def test_when_workers_are_worth_it():
    assert worker.worth_sharing(3, 8) == 0
    assert worker.worth_sharing(100, 1) == 0
    assert worker.worth_sharing(100, 4) == 3
    assert worker.worth_sharing(worker.KERNELS_PER_WORKER * 2, 8) == 2


def only_children(monkeypatch):
    """Leave all compiling to the children while any of them lives."""
    real = worker.WorkerPool._next_job

    def next_job(self, wait):
        while not wait and self._results.empty() and any(thread.is_alive() for thread in self._threads):
            time.sleep(0.001)
        return real(self, wait) if wait or self._results.empty() else None

    monkeypatch.setattr(worker.WorkerPool, "_next_job", next_job)


def test_workers_make_the_same_objects(target, monkeypatch):
    expected = {f"k{i}": compile_object(source(i).text(), target) for i in range(MANY)}
    only_children(monkeypatch)
    monkeypatch.setattr(worker.WorkerPool, "_compile_here", None)
    assert compile_kernels([source(i) for i in range(MANY)], target, 3) == expected


def test_workers_report_bad_text(target, monkeypatch):
    only_children(monkeypatch)
    sources = [source(i, "nonsense" if i == 5 else None) for i in range(MANY)]
    with pytest.raises(KernelCompileError, match="(?s)f5.*nonsense"):
        compile_kernels(sources, target, 2)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
def test_work_of_a_dying_worker_is_done_here(target, monkeypatch):
    only_children(monkeypatch)
    real = worker._send

    def send_and_kill(stream, data):
        real(stream, data)
        if data.startswith(b"define i64 @f3("):
            for child in children:
                os.kill(child.pid, signal.SIGKILL)

    children = []
    start = worker.WorkerPool._start
    monkeypatch.setattr(
        worker.WorkerPool, "_start", lambda self: children.append(start(self)) or children[-1]
    )
    monkeypatch.setattr(worker, "_send", send_and_kill)
    made = compile_kernels([source(i) for i in range(MANY)], target, 3)
    assert len(made) == MANY and children
    assert made["k3"] == compile_object(source(3).text(), target)


@pytest.mark.parametrize("executable", ["/does/not/exist", "/bin/true", "/bin/cat"])
def test_workers_that_never_start(target, monkeypatch, executable):
    only_children(monkeypatch)
    monkeypatch.setattr(sys, "executable", executable)
    assert len(compile_kernels([source(i) for i in range(MANY)], target, 3)) == MANY


def test_scripts_without_a_main_guard(tmp_path):
    """Workers are not made by running the caller's script again."""
    script = tmp_path / "script.py"
    script.write_text(
        "print('once', flush=True)\n"
        "from tinyinfer.backends.cpu.compile import compile_kernels\n"
        "from tinyinfer.backends.cpu.target import host_target\n"
        "from tinyinfer.runtime.plan import KernelSource\n"
        "text = lambda i: f'define void @f{i}() {{\\n  ret void\\n}}'\n"
        "sources = [KernelSource(f'k{i}', f'f{i}', lambda i=i: text(i)) for i in range(24)]\n"
        "print(len(compile_kernels(sources, host_target(), 3)))\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys, runpy; sys.path[:0] = {sys.path!r}; runpy.run_path({str(script)!r})",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "once\n24\n", done.stderr
