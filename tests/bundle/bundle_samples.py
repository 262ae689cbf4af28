"""Plans and bundles for the tests of the format: code in them is never run."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from tinyinfer.backends.cpu.device import LlvmPrinter
from tinyinfer.backends.cpu.target import named_target
from tinyinfer.bundle.container import ENTRY, HASHED_HEADER_BYTES, HEADER, Section
from tinyinfer.bundle.plan_section import PlanSection, write_plan
from tinyinfer.bundle.weights import WeightStore
from tinyinfer.config import CompileOptions
from tinyinfer.ir.build import apply, constant, input_node, matmul
from tinyinfer.ir.node import Graph
from tinyinfer.kernels.plan import build_plan
from tinyinfer.runtime.plan import (
    BufferRef,
    KernelSource,
    Launch,
    LoopLaunch,
    Moving,
    Plan,
    TensorSpec,
    kernel_sources,
)

KERNEL_BYTES = 16


def network_plan(target: str = "x86_64-v3", columns: int = 20) -> Plan:
    """y = relu(x W + b), of contractions and constants as the compiler lays them out."""
    random = np.random.default_rng(1)
    x = input_node("x", (3, 8), "float32")
    weights = constant(random.standard_normal((8, columns)).astype(np.float32))
    bias = constant(np.arange(columns, dtype=np.float32))
    product = matmul(x, weights)
    y = apply("MAX", apply("ADD", product, bias), constant(0.0, "float32"))
    return build_plan(Graph({"x": x}, {"y": y}), LlvmPrinter(named_target(target)), CompileOptions())


def _printed() -> str:
    raise AssertionError("a bundle needs no source")


def loop_plan() -> Plan:
    """Loops in loops, with everything that a loop may have."""
    first, second = KernelSource("key a", "step", _printed), KernelSource("key b", "loop", _printed)

    def arena(offset: int) -> BufferRef:
        return BufferRef("arena", 0, offset)

    inner = LoopLaunch(
        (
            Launch(
                first,
                (BufferRef("output", 0, 4), BufferRef("input", 1), BufferRef("parameter", 1, 8)),
                2,
                True,
                "µ",
            ),
        ),
        3,
        arena(256),
        (Moving(arena(64)), Moving(BufferRef("input", 1), 4, 4)),
        (Moving(BufferRef("output", 0), 8, -8),),
        arena(64),
        done=arena(72),
    )
    outer = LoopLaunch(
        (
            Launch(first, (BufferRef("output", 1), BufferRef("input", 1)), 1, False, "before", (), 10, 20),
            Launch(second, (BufferRef("arena", 0, 0),), 1, True, "inner", loop=inner),
        ),
        5,
        arena(128),
        (Moving(arena(0)), Moving(BufferRef("input", 0), 16, 16)),
        (Moving(arena(512), 64, -64), Moving(BufferRef("output", 0, 64), -16, -16)),
        arena(0),
        ((BufferRef("output", 0), 80),),
        ((arena(512), BufferRef("input", 1), 64),),
        ((BufferRef("output", 1), Moving(arena(576), -64, 64), 64),),
        BufferRef("input", 2),
        BufferRef("input", 3),
        arena(8),
        BufferRef("output", 2),
    )
    return Plan(
        [
            TensorSpec("rows", (5, 4), "float32"),
            TensorSpec("state", (16,), "float32"),
            TensorSpec("count", (), "int64"),
            TensorSpec("go", (), "bool"),
        ],
        [
            TensorSpec("rows out", (5, 4), "float32"),
            TensorSpec("state", (16,), "float32"),
            TensorSpec("done", (), "int64"),
        ],
        [
            Launch(first, (arena(0), BufferRef("input", 0)), 4, False, "first", (), 100, 200),
            Launch(second, (BufferRef("output", 0),), 1, True, "outer", loop=outer),
        ],
        [np.arange(3, dtype=np.int64), np.arange(5, dtype=np.float32)],
        1024,
    )


def section_of(plan: Plan, store: WeightStore) -> PlanSection:
    """The plan with a kernel every 16 bytes of imagined code."""
    offsets = {key: KERNEL_BYTES * number for number, key in enumerate(kernel_sources(plan.launches))}
    return PlanSection("x86_64", 8, 1, plan, [store.add(x) for x in plan.parameters], offsets)


def sections_of(plans: dict[str, Plan], store: WeightStore | None = None) -> list[Section]:
    """A bundle's sections with one target for each plan."""
    store = store if store is not None else WeightStore()
    sections = [Section("MANI", b'{"model":{"name":"sample"}}')]
    for group, (name, plan) in enumerate(plans.items(), 1):
        section = section_of(plan, store)
        code = bytes(range(KERNEL_BYTES)) * len(section.offsets)
        sections += [Section("PLAN", write_plan(section), group, name), Section("CODE", code, group, name)]
    return [*sections, Section("WIDX", store.index()), Section("WGHT", store.content())]


def normal_launch(launch: Launch, offsets: dict[str, int]) -> Launch:
    """What a bundle keeps of a launch: its kernel is known by where its code lies."""
    loop = launch.loop
    if loop is not None:
        loop = replace(loop, launches=tuple(normal_launch(x, offsets) for x in loop.launches))
    kernel = KernelSource(str(offsets[launch.kernel.key]), launch.kernel.name, _printed)
    return replace(launch, kernel=kernel, origin=(), loop=loop)


def rehashed(data: bytes, **header: int) -> bytes:
    """The bundle with all hashes made right again, whatever was done to it. `header` replaces the fields
    `major` and `minor`."""
    content = bytearray(data)
    magic, major, minor, count, size, zero, _ = HEADER.unpack_from(content)
    for at in range(HEADER.size, HEADER.size + ENTRY.size * count, ENTRY.size):
        kind, flags, offset, length, group, pad, _, name = ENTRY.unpack_from(content, at)
        digest = hashlib.sha256(content[offset : offset + length]).digest()
        ENTRY.pack_into(content, at, kind, flags, offset, length, group, pad, digest, name)
    table = bytes(content[HEADER.size : HEADER.size + ENTRY.size * count])
    version = header.get("major", major), header.get("minor", minor)
    head = HEADER.pack(magic, *version, count, size, zero, bytes(32))[:HASHED_HEADER_BYTES]
    content[: HEADER.size] = head + hashlib.sha256(head + table).digest()
    return bytes(content)
