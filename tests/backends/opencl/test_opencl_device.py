"""OPENCL as a device: choosing one, errors in words, the cache of programs, memory, profiles."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from compiled import graph_of

from tinyinfer.backends import registry
from tinyinfer.backends.clike.item_printer import ItemPrinter
from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.backends.opencl import platforms, programs
from tinyinfer.backends.opencl.capabilities import capabilities_of
from tinyinfer.backends.opencl.device import OpenclDevice
from tinyinfer.backends.opencl.executable import OpenclExecutable
from tinyinfer.config import CompileOptions
from tinyinfer.errors import EPFail
from tinyinfer.ir import build
from tinyinfer.kernels.plan import build_plan


@pytest.fixture
def layer():
    """A small convolution with an activation: (graph, feeds)."""
    rng = np.random.default_rng(0)
    x = build.input_node("x", (1, 3, 8, 8), "float32")
    w = build.constant(rng.standard_normal((8, 3, 3, 3)).astype(np.float32))
    y = build.convolution(x, w, [1, 1], [1, 1], [1, 1], [1, 1])
    y = build.elementwise("TANH", y)
    return graph_of(y), {"x": rng.standard_normal(x.shape).astype(np.float32)}


def executable_of(graph, device, cache=None, capabilities=None):
    capabilities = capabilities or device.capabilities
    plan = build_plan(graph, ItemPrinter(capabilities.model()), CompileOptions())
    return OpenclExecutable(plan, device.context(), capabilities, cache)


# ---- choosing a device


def test_devices_are_chosen_by_number_and_by_a_part_of_their_name(opencl):
    first = platforms.list_devices()[0]
    for selector in ("", "0", first.name[2:9], first.platform.name.upper()):
        assert platforms.choose_device(selector) == first
        assert OpenclDevice(selector).available() is None
    name = first.name.split()[0]
    assert registry.find_device(f"opencl:{name}").capabilities == opencl.capabilities


@pytest.mark.parametrize("selector", ["99", "no such device"])
def test_a_device_that_is_not_there_is_an_error_that_lists_what_is(selector, opencl):
    reason = OpenclDevice(selector).available()
    assert selector in reason and platforms.list_devices()[0].name.strip() in reason
    with pytest.raises(ValueError, match=f"{selector.upper()}.*available here: CPU"):
        registry.find_device(f"opencl:{selector}")


def test_only_devices_of_which_there_are_several_have_numbers():
    with pytest.raises(ValueError, match="unknown device 'cpu:1'"):
        registry.find_device("cpu:1")


def test_without_pyopencl_the_reason_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyopencl", None)
    assert "pip install 'tinyinfer[opencl]'" in OpenclDevice().available()
    assert OpenclDevice().found() == []


def test_without_a_platform_the_reason_says_what_to_install(monkeypatch, opencl):
    import pyopencl

    monkeypatch.setattr(pyopencl, "get_platforms", lambda: [])
    assert "apt-get install pocl-opencl-icd" in OpenclDevice().available()


def test_capabilities_are_what_the_driver_says(opencl):
    found = capabilities_of(platforms.choose_device(""))
    model = found.model()
    assert model.group_limit <= found.group_limit and model.local_bytes <= found.local_bytes
    assert all(a <= b for a, b in zip(model.group_sizes, found.group_sizes))
    assert "-cl-std=CL1.2" in found.build_options()


# ---- programs


def test_programs_are_kept_and_found_again(layer, opencl, tmp_path, monkeypatch):
    graph, feeds = layer
    cache = KernelCache(tmp_path)
    first = executable_of(graph, opencl, cache).run([feeds["x"]])[0]
    assert cache.info().entries == 1

    def refuse(*arguments):
        raise AssertionError("the source was built again")

    monkeypatch.setattr(programs.KernelCache, "put", refuse)
    again = executable_of(graph, opencl, cache).run([feeds["x"]])[0]
    np.testing.assert_array_equal(first, again)


def test_a_spoiled_binary_is_built_anew(layer, opencl, tmp_path, monkeypatch):
    graph, feeds = layer
    cache = KernelCache(tmp_path)
    wanted = executable_of(graph, opencl, cache).run([feeds["x"]])[0]
    monkeypatch.setattr(programs.KernelCache, "get", lambda self, key: b"not a program")
    np.testing.assert_array_equal(executable_of(graph, opencl, cache).run([feeds["x"]])[0], wanted)


def test_a_refused_program_names_the_kernels_of_the_model(layer, opencl, monkeypatch):
    graph, _ = layer
    capabilities = opencl.capabilities
    plan = build_plan(graph, ItemPrinter(capabilities.model()), CompileOptions())
    contraction = next(x for x in plan.launches if x.kernel.name.startswith("contract"))
    object.__setattr__(contraction, "origin", ("the_convolution",))
    text = contraction.kernel.text
    object.__setattr__(contraction.kernel, "text", lambda: text().replace("{", "{ mistake;", 1))
    with pytest.raises(programs.ProgramError, match="computes the_convolution"):
        OpenclExecutable(plan, opencl.context(), capabilities, None)


def test_doubles_are_refused_where_the_device_has_none(opencl, monkeypatch):
    x = build.input_node("x", (4,), "float64")
    graph = graph_of(build.elementwise("ADD", x, x))
    lacking = replace(opencl.capabilities, fp64=False)
    monkeypatch.setattr(OpenclDevice, "capabilities", lacking)
    with pytest.raises(EPFail, match="cl_khr_fp64"):
        opencl.plan(graph, CompileOptions())


# ---- memory


def test_parameters_may_need_several_buffers(layer, opencl):
    graph, feeds = layer
    plan = build_plan(graph, ItemPrinter(opencl.capabilities.model()), CompileOptions())
    size = max(plan.arena_bytes, *(p.nbytes for p in plan.parameters), 768)
    plan.parameters += [np.zeros(size // 4, np.float32)] * 3
    made = OpenclExecutable(plan, opencl.context(), replace(opencl.capabilities, largest_buffer=size))
    places = made._memory.parameters
    assert len({id(p.buffer) for p in places}) > 1
    np.testing.assert_allclose(
        made.run([feeds["x"]])[0], executable_of(graph, opencl).run([feeds["x"]])[0], rtol=1e-6
    )
    with pytest.raises(EPFail, match="buffers of"):
        OpenclExecutable(plan, opencl.context(), replace(opencl.capabilities, largest_buffer=size - 1))


# ---- running


def test_a_profile_has_each_launch(layer, opencl):
    graph, feeds = layer
    made = executable_of(graph, opencl)
    times = made.profile([feeds["x"]], 3)
    assert len(times) == len(made.launches) and all(t.seconds >= 0 for t in times)
    assert sum(t.flops for t in times) > 2 * 8 * 64 * 27


def test_wrong_feeds_and_closed_executables_are_errors(layer, opencl):
    graph, feeds = layer
    made = executable_of(graph, opencl)
    with pytest.raises(ValueError, match="1 inputs are needed, not 0"):
        made.run([])
    with pytest.raises(ValueError, match="'x' must be a C-contiguous array of 768 bytes"):
        made.run([feeds["x"][:, :1]])
    made.close()
    with pytest.raises(RuntimeError, match="closed"):
        made.run([feeds["x"]])

