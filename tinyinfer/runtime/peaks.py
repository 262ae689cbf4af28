"""What this machine can do at best, measured with generated code: multiply-adds a second and bytes a second.

The multiply-add kernel keeps more independent accumulators in registers than the latency of an FMA needs; the
memory kernel sums a buffer much larger than a core's caches, one part of it on each thread. Both are LLVM
text, as every other kernel. A multiply-add counts as two operations.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

BUFFER_BYTES = 256 << 20
"""Size of the buffer that the memory kernel reads."""

_BUDGET = 0.15
_CHAINS = 12


@dataclass(frozen=True)
class Peaks:
    """GFLOP/s in float32 on one core and on `threads` threads, GB/s read by `threads` threads."""

    gflops_one_core: float
    gflops: float
    gbytes_per_second: float
    threads: int


@lru_cache(maxsize=8)
def measure_peaks(threads: int = 0) -> Peaks:
    """Measure this machine, about half a second; once per process and number of threads (0 = all cores)."""
    threads = threads or _cores()
    function, lanes, _engine = _compile()
    one = _best_rate(function["multiply_add"], 1, lanes)
    many = one if threads == 1 else _best_rate(function["multiply_add"], threads, lanes)
    return Peaks(one / 1e9, many / 1e9, _read_rate(function["read"], threads, lanes) / 1e9, threads)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _module_text(lanes: int) -> str:
    """`multiply_add(out, rounds)` and `read(data, vectors, out)` for vectors of `lanes` floats."""
    vector = f"<{lanes} x float>"
    chains = range(_CHAINS)
    phis = "\n".join(f"  %a{i} = phi {vector} [%start, %entry], [%b{i}, %loop]" for i in chains)
    steps = "\n".join(
        f"  %b{i} = call {vector} @llvm.fma.v{lanes}f32({vector} %a{i}, {vector} %factor, {vector} %start)"
        for i in chains
    )
    sums = _sum_text(vector, "b", "t")
    read_phis = "\n".join(f"  %a{i} = phi {vector} [zeroinitializer, %entry], [%b{i}, %loop]" for i in chains)
    reads = "\n".join(
        f"  %n{i} = add nuw nsw i64 %k, {i}\n"
        f"  %p{i} = getelementptr {vector}, ptr %data, i64 %n{i}\n"
        f"  %v{i} = load {vector}, ptr %p{i}, align 4\n"
        f"  %b{i} = fadd {vector} %a{i}, %v{i}"
        for i in chains
    )
    return f"""declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})
define void @multiply_add(ptr %out, i64 %rounds) {{
entry:
  %start = load {vector}, ptr %out, align 4
  %next.p = getelementptr {vector}, ptr %out, i64 1
  %factor = load {vector}, ptr %next.p, align 4
  br label %loop
loop:
  %k = phi i64 [0, %entry], [%k.next, %loop]
{phis}
{steps}
  %k.next = add nuw nsw i64 %k, 1
  %more = icmp ult i64 %k.next, %rounds
  br i1 %more, label %loop, label %done
done:
{sums}
  %out.p = getelementptr {vector}, ptr %out, i64 2
  store {vector} %t{_CHAINS - 1}, ptr %out.p, align 4
  ret void
}}
define void @read(ptr %data, i64 %vectors, ptr %out) {{
entry:
  br label %loop
loop:
  %k = phi i64 [0, %entry], [%k.next, %loop]
{read_phis}
{reads}
  %k.next = add nuw nsw i64 %k, {_CHAINS}
  %more = icmp ult i64 %k.next, %vectors
  br i1 %more, label %loop, label %done
done:
{sums}
  store {vector} %t{_CHAINS - 1}, ptr %out, align 4
  ret void
}}
"""


def _sum_text(vector: str, source: str, target: str) -> str:
    lines = [f"  %{target}0 = fadd {vector} %{source}0, zeroinitializer"]
    lines += [f"  %{target}{i} = fadd {vector} %{target}{i - 1}, %{source}{i}" for i in range(1, _CHAINS)]
    return "\n".join(lines)


def _compile() -> tuple[dict[str, Callable[..., None]], int, Any]:
    """The two functions, the vector width in floats, and the engine that owns their code."""
    import llvmlite.binding as llvm

    from tinyinfer.backends.cpu.target import host_target

    target = host_target()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(_module_text(target.lanes))
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=target.cpu, features=target.features, opt=3
    )
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    multiply_add = ctypes.CFUNCTYPE(None, pointer, integer)(engine.get_function_address("multiply_add"))
    read = ctypes.CFUNCTYPE(None, pointer, integer, pointer)(engine.get_function_address("read"))
    return {"multiply_add": multiply_add, "read": read}, target.lanes, engine


def _best_rate(multiply_add: Callable[..., None], threads: int, lanes: int) -> float:
    """Operations a second on `threads` threads, best of several rounds; ctypes calls run without the GIL."""
    rounds = 1 << 16
    # vectors of start values 1, of factors 0.5, and the result: the chains settle at 2, so nothing is
    # denormal
    buffers = [np.repeat(np.array([1.0, 0.5, 0.0], np.float32), lanes) for _ in range(threads)]

    def work(number: int) -> None:
        multiply_add(buffers[number].ctypes.data, rounds)

    return 2 * lanes * _CHAINS * rounds * threads / _best_seconds(work, threads)


def _read_rate(read: Callable[..., None], threads: int, lanes: int) -> float:
    step = lanes * _CHAINS * 4
    part = BUFFER_BYTES // threads // step * step
    parts = [np.ones(part // 4, np.float32) for _ in range(threads)]
    outputs = [np.zeros(64, np.float32) for _ in range(threads)]

    def work(number: int) -> None:
        read(parts[number].ctypes.data, part // (lanes * 4), outputs[number].ctypes.data)

    return part * threads / _best_seconds(work, threads)


def _best_seconds(work: Callable[[int], None], threads: int) -> float:
    """Least time in which all threads did `work(number)` once, started together."""
    best = float("inf")
    barrier = threading.Barrier(threads)
    end = time.perf_counter() + _BUDGET
    stop = threading.Event()

    def loop(number: int) -> None:
        while True:
            barrier.wait()
            if stop.is_set():
                return
            work(number)
            barrier.wait()

    helpers = [threading.Thread(target=loop, args=(number,), daemon=True) for number in range(1, threads)]
    for helper in helpers:
        helper.start()
    while time.perf_counter() < end or best == float("inf"):
        barrier.wait()
        start = time.perf_counter()
        work(0)
        barrier.wait()
        best = min(best, time.perf_counter() - start)
    stop.set()
    barrier.wait()
    for helper in helpers:
        helper.join()
    return best
