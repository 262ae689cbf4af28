"""Mesa's machine code as ShaderBinary, from launches on its stand-in device; our stream against Mesa's."""

from __future__ import annotations

import base64
import dataclasses
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from fake_kgsl import FakeKgsl
from kgsl_kernels import CHIPS
from pm4_decoder import A6XX_REGISTERS, Launched

from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.backends.qcom.capabilities import find_gpu
from tinyinfer.backends.qcom.ir3 import KernelText, Worker, find_tree
from tinyinfer.backends.qcom.kgsl import (
    Access,
    BufferArgument,
    BufferSlot,
    Dispatch,
    ImageArgument,
    ImageSlot,
    KgslDevice,
    PlanStream,
    ScalarArgument,
    ScalarSlot,
    StorageImageSlot,
)
from tinyinfer.backends.qcom.kgsl.mesa_compiler import WORKER, GroupKernel, compile_kernels
from tinyinfer.backends.qcom.kgsl.mesa_kernel import MesaKernel, mesa_kernel
from tinyinfer.backends.qcom.kgsl.mesa_launch import GpuMemory, MesaLaunch, find_launch
from tinyinfer.errors import EPFail

RECORDED = Path(__file__).parent / "recorded" / "mixed.json"
"""MIXED for an a630: what `MesaKernel.to_json` says of it."""

HEAD = "__kernel __attribute__((reqd_work_group_size(16, 2, 1))) void "

MIXED = (
    HEAD
    + r"""mixed(__global float *a, ulong a_at, __global float *b, ulong b_at,
    __read_only image2d_t first, __global float *unused, __read_only image2d_t second,
    __write_only image2d_t out, __write_only image2d_t other, int n) {
  __local float t[32];
  int i = get_local_id(0) + 16 * get_local_id(1), x = get_global_id(0), y = get_global_id(1);
  t[i] = b[b_at / 4 + x] * 3.7f;
  barrier(CLK_LOCAL_MEM_FENCE);
  float4 v = read_imagef(second, (int2)(x, y)), w = read_imagef(first, (int2)(y, x));
  if (x < n) a[a_at / 4 + x] = t[31 - i] + v.x + get_num_groups(1);
  write_imagef(other, (int2)(x, y), v * 1.25f);
  write_imagef(out, (int2)(x, y), w);
}
"""
)

SPILLING = (
    HEAD
    + r"""spilling(__global float *a, __global int *b) {
  float t[300];
  for (int i = 0; i < 300; i++) t[i] = a[i * 7];
  a[get_global_id(0)] = t[b[get_global_id(0)]];
}
"""
)

LOCAL = (16, 2, 1)


@pytest.fixture(scope="module")
def launches(tmp_path_factory, ir3):
    """`launches(gpu, source)`: the answer of the worker, and the state of both launches."""
    workers: dict[str, Worker] = {}

    def get(gpu: str, source: str) -> tuple[dict, GpuMemory, list[MesaLaunch]]:
        ir3(gpu)
        if gpu not in workers:
            tree, _ = find_tree(find_gpu(gpu))
            assert tree is not None
            workers[gpu] = Worker(tree, find_gpu(gpu), WORKER)
        answer, _ = workers[gpu].ask({"source": source, "options": [], "local": LOCAL})
        assert "error" not in answer
        memory = GpuMemory(zlib.decompress(base64.b64decode(answer["memory"])))
        return answer, memory, [find_launch(memory, x["groups"]) for x in answer["launches"]]

    yield get
    for worker in workers.values():
        worker.close()


def test_what_a_launch_needs(launches):
    answer, memory, _ = launches("a630", MIXED)
    made = mesa_kernel("mixed", memory, answer["launches"], answer["local_bytes"])
    by_argument = dict(zip(made.takes, made.shader.slots))
    assert {n: type(slot) for n, slot in by_argument.items()} == {
        0: BufferSlot, 1: ScalarSlot, 2: BufferSlot, 3: ScalarSlot, 4: ImageSlot, 6: ImageSlot,
        7: StorageImageSlot, 8: StorageImageSlot, 9: ScalarSlot,
    }  # fmt: skip
    assert by_argument[1].size == 8 and by_argument[9].size == 4
    assert made.shader.local_bytes == 128 and made.shader.group_count_offset is not None
    assert made.shader.bindless_uavs is not None and made.shader.branch_stack
    assert np.float32(3.7).tobytes() in [content for _, content in made.shader.immediates]
    assert MesaKernel.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_private_memory(launches):
    answer, memory, _ = launches("a630", SPILLING)
    shader = mesa_kernel("spilling", memory, answer["launches"], 0).shader
    assert shader.private_bytes >= 1200 and shader.private_per_wave


def test_what_is_not_understood_is_refused(launches):
    answer, memory, _ = launches("a630", MIXED)
    first, second = answer["launches"]

    def without(launch: dict, number: int) -> dict:
        arguments = list(launch["arguments"])
        arguments[number] = {"kind": "a secret of the driver's"}
        return {**launch, "arguments": arguments}

    for changed, message in (
        ([without(first, 9), without(second, 9)], "what its driver puts into constant"),
        ([first, without(second, 1)], "their arguments in different places"),
        ([without(first, 4), second], "an image that is none of its arguments"),
    ):
        with pytest.raises(EPFail, match=f"kernel mixed: .*{message}"):
            mesa_kernel("mixed", memory, changed, 0)
    with pytest.raises(EPFail, match="no launch of"):
        find_launch(memory, (1, 2, 3))


def test_newer_gpus_are_refused():
    with pytest.raises(EPFail, match="a6xx only, a740 is none"):
        compile_kernels([], find_gpu("a740"))


def test_errors_name_the_kernel(ir3, tmp_path):
    ir3("a630")
    broken = GroupKernel(KernelText("broken (conv1)", HEAD + "f(__global int *a) { a[0] = b; }"), LOCAL)
    with pytest.raises(EPFail, match=r"kernel broken \(conv1\) does not compile for a630"):
        compile_kernels([broken], find_gpu("a630"), cache=KernelCache(tmp_path))


def dispatched(gpu: str, made: MesaKernel, launch: dict) -> Launched:
    """The kernel launched by a stream of ours with as many groups, as the fake GPU decodes it."""
    fake = FakeKgsl(CHIPS[gpu])
    fake.shaders[made.shader.code[:8]] = lambda launched, memory: None
    with KgslDevice(system=fake) as device:
        given = []
        for argument in launch["arguments"]:
            if argument["kind"] == "number":
                given.append(ScalarArgument(bytes.fromhex(argument["content"])))
            elif argument["kind"] == "buffer":
                given.append(BufferArgument(device.allocate(4096)))
            else:
                pitch = -(-argument["width"] // 64) * 512
                access = Access.WRITE if argument["writes"] else Access.READ
                size = (argument["width"], argument["height"])
                given.append(ImageArgument(device.allocate(pitch * size[1]), 0, *size, pitch, access=access))
        arguments = [given[number] for number in made.takes]
        PlanStream(device, [Dispatch(made.shader, arguments, tuple(launch["groups"]), LOCAL)]).run(timeout=1)
    (launched,) = fake.launched
    return launched


# Where our own memory lies, a fresh start of state, no table of UAVs beside the set, and how coordinates of
# samplers are rounded.
OWN = {
    "SP_UPDATE_CNTL", "SP_PERFCTR_SHADER_MASK", "SP_CS_USIZE", "SP_NC_MODE_CNTL_2", "SP_CS_BASE.lo",
    "SP_CS_BASE.hi", "SP_CS_PVT_MEM_BASE.lo", "SP_CS_PVT_MEM_BASE.hi", "SP_CS_SAMPLER_BASE.lo",
    "SP_CS_SAMPLER_BASE.hi", "SP_CS_TEXMEMOBJ_BASE.lo", "SP_CS_TEXMEMOBJ_BASE.hi", "SP_CS_BINDLESS_BASE.lo",
    "SP_CS_BINDLESS_BASE.hi", "HLSQ_CS_BINDLESS_BASE.lo", "HLSQ_CS_BINDLESS_BASE.hi",
    "TPL1_MODE_CNTL",
}  # fmt: skip


@pytest.mark.parametrize("source", [MIXED, SPILLING], ids=["mixed", "spilling"])
@pytest.mark.parametrize("gpu", ["a630", "a660"])
def test_our_stream_against_mesas(gpu, source, launches):
    """All registers that both write but OWN, the constants that Mesa loads and the images' sizes."""
    answer, memory, sent = launches(gpu, source)
    made = mesa_kernel("kernel", memory, answer["launches"], answer["local_bytes"])
    for theirs, launch in zip(sent, answer["launches"]):
        ours = dispatched(gpu, made, launch)
        named = {
            A6XX_REGISTERS[number]: value
            for number, value in theirs.registers.items()
            if number in A6XX_REGISTERS
        }
        both = (named.keys() & ours.registers.keys()) - OWN
        assert len(both) >= 19
        assert {name: f"{ours.registers[name]:08x}" for name in both} == {
            name: f"{named[name]:08x}" for name in both
        }
        pointers = {s.offset for s in made.shader.slots if isinstance(s, BufferSlot)}
        for vector, content in theirs.constants.items():
            for offset in range(16 * vector, 16 * vector + 16, 4):
                if offset not in pointers and offset - 4 not in pointers:
                    at = offset - 16 * vector
                    assert ours.constants[offset : offset + 4] == content[at : at + 4]
        sizes = [(words[1] & 0x7FFF, words[1] >> 15 & 0x7FFF) for words in theirs.textures]
        assert [(view.width, view.height) for view in ours.textures] == sizes
        assert len(ours.uavs) == len(theirs.uavs)


def test_a_recorded_kernel_is_launched_as_mesa_would():
    """Where there is no tree: `record` below wrote it."""
    data = json.loads(RECORDED.read_text(encoding="utf-8"))
    made = MesaKernel.from_json(data["kernel"])
    ours = dispatched("a630", made, data["launch"])
    assert ours.code == made.shader.code and ours.local == LOCAL
    found = {name: f"{ours.registers[name]:08x}" for name in data["registers"]}
    assert found == data["registers"]
    assert dataclasses.asdict(made.shader)["bindless_uavs"] == 32


def record() -> None:
    """Write RECORDED anew."""
    tree, reason = find_tree(find_gpu("a630"))
    assert tree is not None, reason
    worker = Worker(tree, find_gpu("a630"), WORKER)
    answer, _ = worker.ask({"source": MIXED, "options": [], "local": LOCAL})
    worker.close()
    memory = GpuMemory(zlib.decompress(base64.b64decode(answer["memory"])))
    launch = answer["launches"][0]
    theirs = find_launch(memory, launch["groups"])
    registers = {
        A6XX_REGISTERS[number]: f"{value:08x}"
        for number, value in sorted(theirs.registers.items())
        if number in A6XX_REGISTERS and A6XX_REGISTERS[number] not in OWN
    }
    made = mesa_kernel("mixed", memory, answer["launches"], answer["local_bytes"])
    data = {"launch": launch, "registers": registers, "kernel": made.to_json()}
    RECORDED.parent.mkdir(exist_ok=True)
    RECORDED.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()
