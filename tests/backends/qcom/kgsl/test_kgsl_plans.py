"""Whole plans as command streams: a fake GPU finds everything through them and runs the kernels in OpenCL."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from compiled import graph_of
from fake_kgsl import FakeKgsl
from image_graphs import image_case
from image_runs import plan_of, run_plan
from kgsl_kernels import CHIPS
from loop_graphs import counted
from opencl_gpu import OpenclGpu, stand_ins
from opencl_runs import quick_builds

from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.backends.qcom import direct_device
from tinyinfer.backends.qcom.capabilities import find_gpu
from tinyinfer.backends.qcom.device import QcomDevice
from tinyinfer.backends.qcom.direct_device import DirectDevice
from tinyinfer.backends.qcom.kgsl import GpuFault, KgslDevice
from tinyinfer.backends.qcom.kgsl.executable import KgslExecutable, plan_kernels
from tinyinfer.backends.qcom.kgsl.mesa_compiler import compile_kernels
from tinyinfer.backends.qcom.kgsl.mesa_kernel import MesaKernel
from tinyinfer.backends.registry import find_device
from tinyinfer.config import CompileOptions
from tinyinfer.errors import EPFail
from tinyinfer.frontend.onnx import import_graph, load_model
from tinyinfer.ir import build
from tinyinfer.ir.loop import BodyResults, loop
from tinyinfer.ir.node import Graph, Node
from tinyinfer.runtime.plan import Plan


def check_plan(
    plan: Plan, feeds: Mapping[str, np.ndarray], kernels: Mapping[str, MesaKernel], device, gpu: str
) -> OpenclGpu:
    """Two runs of a plan's stream give the bits of the same plan through OpenCL."""
    fake = OpenclGpu(CHIPS[gpu], device.context(), plan_kernels(plan), kernels)
    made = KgslExecutable(plan, KgslDevice(system=fake), kernels)
    arrays = [np.ascontiguousarray(feeds[x.name]).reshape(x.shape) for x in plan.inputs]
    first, second = made.run(arrays), made.run(arrays)
    for got, again, wanted in zip(first, second, run_plan(plan, dict(feeds), device), strict=True):
        np.testing.assert_array_equal(got, wanted)
        np.testing.assert_array_equal(again, wanted)
    made.close()
    assert not fake.objects and not fake.open_files
    return fake


def compiled(plan: Plan, gpu: str, cache: KernelCache) -> dict[str, MesaKernel]:
    texts = plan_kernels(plan)
    return dict(zip(texts, compile_kernels(list(texts.values()), find_gpu(gpu), cache=cache)))


def small_plan() -> tuple[Plan, dict[str, np.ndarray]]:
    chosen = image_case("convolutions", 1)
    return plan_of(graph_of(*chosen.outputs), "a630", "float16"), chosen.feeds


def test_a_plan_of_stand_ins(images):
    """Memory, images and their pitch, offsets and waits, without a compiler."""
    plan, feeds = small_plan()
    assert plan.images and plan.parameter_images
    with quick_builds():
        fake = check_plan(plan, feeds, stand_ins(plan), images, "a630")
    assert len(fake.launched) == len(plan.launches) + sum(not x.once for x in plan.launches)


def test_a_plan_of_mesas_kernels(images, ir3, tmp_path):
    ir3("a630")
    plan, feeds = small_plan()
    with quick_builds():
        check_plan(plan, feeds, compiled(plan, "a630", KernelCache(tmp_path)), images, "a630")


@pytest.mark.sweep
@pytest.mark.parametrize("gpu", ["a630", "a660"])
@pytest.mark.parametrize("name", ["mobilenetv2_fp32_real_b", "driving_like_gru"])
def test_models(name, gpu, images, ir3, tmp_path, shared_models, filled_model, model_feeds):
    ir3(gpu)
    path = shared_models / f"{name}.onnx"
    feeds = model_feeds(name)
    model = load_model(path if path.exists() else filled_model(name))
    plan = plan_of(import_graph(model, {n: x.shape for n, x in feeds.items()}), gpu, "float16")
    check_plan(plan, feeds, compiled(plan, gpu, KernelCache(tmp_path)), images, gpu)


def doubled() -> Graph:
    x = build.input_node("x", (4, 40), "float32")
    return graph_of(build.elementwise("ADD", x, x))


def test_profile_feeds_and_close(images):
    plan = QcomDevice("a630").plan(doubled(), CompileOptions())
    kernels = stand_ins(plan)
    fake = OpenclGpu(CHIPS["a630"], images.context(), plan_kernels(plan), kernels)
    made = KgslExecutable(plan, KgslDevice(system=fake), kernels)
    x = np.arange(160, dtype=np.float32).reshape(4, 40)
    assert all(time.seconds > 0 for time in made.profile([x], 2))
    with pytest.raises(ValueError, match="must be a C-contiguous array of 640 bytes"):
        made.run([x[:2]])
    with pytest.raises(ValueError, match="1 inputs are needed"):
        made.run([])
    fake.known.clear()
    with pytest.raises(GpuFault):
        made.run([x])
    made.close()
    with pytest.raises(RuntimeError, match="closed"):
        made.run([x])


def test_the_device(monkeypatch, tmp_path, images):
    """From a graph to results; the device file and the compiled code are stand-ins."""
    plan = QcomDevice("a630").plan(doubled(), CompileOptions())
    texts, kernels = plan_kernels(plan), stand_ins(plan)
    by_source = {texts[key].text.source: kernels[key] for key in texts}
    monkeypatch.setattr(direct_device, "find_tree", lambda gpu, tree: (tmp_path, ""))
    monkeypatch.setattr(
        direct_device,
        "compile_kernels",
        lambda texts, gpu, tree: [by_source[text.text.source] for text in texts],
    )
    fake = OpenclGpu(CHIPS["a630"], images.context(), texts, kernels)
    device = DirectDevice("a630", system=fake).with_options({"priority": "low"})
    assert device.available() is None and not fake.open_files
    made = device.compile(doubled(), CompileOptions(), 1)
    x = np.arange(160, dtype=np.float32).reshape(4, 40)
    np.testing.assert_array_equal(made.run([x])[0], x + x)
    assert fake.power_level == 1
    made.close()
    assert not fake.open_files and not fake.objects


def test_what_is_missing_is_said_at_once(monkeypatch):
    for name in ("QCOM-KGSL", "qcom-kgsl:a630"):
        if DirectDevice().available() is not None:
            with pytest.raises(ValueError, match="QCOM-KGSL.* cannot be used: .*/dev/kgsl-3d0"):
                find_device(name)
    fake = FakeKgsl(CHIPS["a660"])
    assert "is a660, not the a630" in str(DirectDevice("a630", system=fake).available())
    assert "a6xx only" in str(DirectDevice(system=FakeKgsl(CHIPS["a740"])).available())
    monkeypatch.delenv("TINYINFER_MESA", raising=False)
    with pytest.raises(EPFail, match="needs a compiler on this machine"):
        DirectDevice(system=fake).compile(doubled(), CompileOptions(), 1)
    assert not fake.open_files
    with pytest.raises(ValueError, match="'a999'.*a630"):
        DirectDevice("a999")


def test_a_loop_is_written_out(images):
    """Three iterations over rows, backwards, with the iteration's number; too large for one wave."""
    random = np.random.default_rng(3)
    weights = build.constant((random.normal(size=(256, 256)) / 16).astype(np.float32))
    x = build.input_node("x", (3, 2, 256), "float32")
    start = build.input_node("start", (2, 256), "float32")

    def body(number: Node, carried: list[Node], rows: list[Node]) -> BodyResults:
        total = build.elementwise("ADD", rows[0], build.matmul(carried[0], weights))
        counted = build.elementwise("ADD", total, build.expand(build.cast(number, "float32"), (2, 256)))
        return BodyResults([counted], [total])

    made = loop(body, [start], 3, [(x, True)], lambda i: True)
    outputs = {"last": made.final[0], "y": made.stacked[0], "n": made.done}
    plan = QcomDevice("a630").plan(Graph({"x": x, "start": start}, outputs), CompileOptions())
    assert any(launch.loop is not None for launch in plan.launches)
    feeds = {n: random.random(v.shape, np.float32) for n, v in (("x", x), ("start", start))}
    with quick_builds():
        fake = check_plan(plan, feeds, stand_ins(plan), images, "a630")
    assert len(fake.launched) > 2 * len(plan.launches)


def test_loops_that_end_by_a_condition_are_refused():
    plan = QcomDevice("a630").plan(counted(), CompileOptions())
    with pytest.raises(EPFail, match="no loops that end by a condition"):
        plan_kernels(plan)
