"""Hand-written LLVM kernels and short ways to make plans of them."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.backends.cpu.device import compile_plan
from tinyinfer.backends.cpu.target import host_target
from tinyinfer.runtime.plan import BufferRef, KernelSource, Launch, Plan, TensorSpec

POINTERS = "\n".join(
    f"""  %place.{i} = getelementptr ptr, ptr %arguments, i64 {i}
  %p{i} = load ptr, ptr %place.{i}"""
    for i in range(3)
)


def kernel(name: str, body: str, outside: str = "") -> KernelSource:
    """A kernel of three pointers `%p0 … %p2` with `body` as its only statements."""
    text = f"""{outside}
define void @{name}(ptr %arguments, i64 %chunk) {{
{POINTERS}
{body}
  ret void
}}"""
    return KernelSource(f"test/{text}", name, lambda: text)


def elementwise(name: str, operation: str) -> KernelSource:
    """p2[i] = p0[i] `operation` p1[i] for the 16 floats of a chunk."""
    return kernel(
        name,
        f"""  %i = mul i64 %chunk, 16
  %a.at = getelementptr float, ptr %p0, i64 %i
  %b.at = getelementptr float, ptr %p1, i64 %i
  %c.at = getelementptr float, ptr %p2, i64 %i
  %a = load <16 x float>, ptr %a.at, align 4
  %b = load <16 x float>, ptr %b.at, align 4
  %c = {operation} <16 x float> %a, %b
  store <16 x float> %c, ptr %c.at, align 4""",
    )


class Kernels:
    """The kernels of these tests, and plans made of them."""

    add = elementwise("add16", "fadd")
    multiply = elementwise("multiply16", "fmul")
    nothing = kernel("nothing", "")
    # p2[chunk] = p0[last - chunk] + 1: with another chunk's element read, a missing wait shows
    reverse = kernel(
        "reverse",
        """  %last = load i64, ptr %p1
  %from = sub i64 %last, %chunk
  %a.at = getelementptr i64, ptr %p0, i64 %from
  %a = load i64, ptr %a.at
  %b = add i64 %a, 1
  %b.at = getelementptr i64, ptr %p2, i64 %chunk
  store i64 %b, ptr %b.at""",
    )
    # p2[chunk] += 1, not atomically: a chunk that runs twice or never shows
    count = kernel(
        "count",
        """  %at = getelementptr i64, ptr %p2, i64 %chunk
  %old = load i64, ptr %at
  %new = add i64 %old, 1
  store i64 %new, ptr %at""",
    )

    kernel = staticmethod(kernel)
    elementwise = staticmethod(elementwise)

    @staticmethod
    def at(space: str, number: int = 0, offset: int = 0) -> BufferRef:
        return BufferRef(space, number, offset)

    @staticmethod
    def launch(
        source: KernelSource, arguments: Sequence[BufferRef], chunks: int = 1, waits: bool = True
    ) -> Launch:
        padded = (*arguments, *itertools.repeat(BufferRef("arena", 0), 3 - len(arguments)))
        return Launch(
            source, padded, chunks, waits, title=source.name, origin=("node",), flops=chunks, bytes=1 << 20
        )

    @staticmethod
    def plan(launches, inputs=(), outputs=(), parameters=(), arena_bytes=1 << 16) -> Plan:
        """Inputs and outputs as (shape, dtype) pairs."""
        return Plan(
            [TensorSpec(f"x{i}", shape, dtype) for i, (shape, dtype) in enumerate(inputs)],
            [TensorSpec(f"y{i}", shape, dtype) for i, (shape, dtype) in enumerate(outputs)],
            list(launches),
            [np.asarray(p) for p in parameters],
            arena_bytes,
        )


@pytest.fixture(scope="session")
def kernels():
    return Kernels


@pytest.fixture(scope="session")
def target():
    return host_target()


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory):
    return KernelCache(tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def make(target, session_cache):
    """Executables that are closed after the test."""
    made = []

    def build(plan, threads=1):
        made.append(compile_plan(plan, target, threads, session_cache))
        return made[-1]

    yield build
    for executable in made:
        executable.close()
