"""What a session keeps compiled: per shapes, bounded, closed when it leaves, safe between threads."""

import logging
import threading

import numpy as np
import pytest

from tinyinfer.config import CompileOptions
from tinyinfer.frontend.onnx import NeedsValue
from tinyinfer.ir import build
from tinyinfer.ir.node import Graph
from tinyinfer.runtime.plan import TensorSpec
from tinyinfer.runtime.specialise import Specialiser


class FakeExecutable:
    def __init__(self, graph):
        self.inputs = [TensorSpec(name, x.shape, x.dtype) for name, x in graph.inputs.items()]
        self.outputs: list[TensorSpec] = []
        self.peak_bytes = 0
        self.closed = False

    def run(self, feeds):
        assert not self.closed
        return list(feeds)

    def profile(self, feeds, runs):
        return []

    def stages(self):
        return {}

    def close(self):
        self.closed = True


class FakeDevice:
    name = "FAKE"

    def __init__(self):
        self.made = []

    def available(self):
        return None

    def compile(self, graph, options, threads):
        self.made.append(FakeExecutable(graph))
        return self.made[-1]


def make_graph(shapes, known):
    return Graph({name: build.input_node(name, shape, "float32") for name, shape in shapes.items()}, {})


def specialiser(device, limit=2, make=make_graph):
    return Specialiser(make, device, CompileOptions(), 0, "test", logging.getLogger("test"), limit)


def shapes(size):
    return (("x", (size,)),)


def test_each_set_of_shapes_is_compiled_once():
    device = FakeDevice()
    kept = specialiser(device)
    assert kept.get(shapes(1)) is kept.get(shapes(1))
    assert kept.get(shapes(2)) is not kept.get(shapes(1))
    assert len(device.made) == 2


def test_the_least_recently_used_one_leaves_and_is_closed():
    device = FakeDevice()
    kept = specialiser(device)
    first, second = kept.get(shapes(1)), kept.get(shapes(2))
    kept.get(shapes(1))
    kept.get(shapes(3))
    assert len(kept) == 2
    assert [e.closed for e in device.made] == [False, True, False]
    assert second.run([]) is None and first.run([]) == []
    assert second.profile([], 1) == []


def test_close_frees_everything():
    device = FakeDevice()
    kept = specialiser(device)
    kept.get(shapes(1))
    kept.close()
    assert device.made[0].closed and len(kept) == 0


def test_values_that_decide_shapes_are_part_of_the_key():
    device = FakeDevice()
    asked = []

    def make(given, known):
        asked.append({name: array.tolist() for name, array in known.items()})
        if "n" not in known:
            raise NeedsValue("a shape depends on n", ["n"])
        return make_graph(given, known)

    kept = specialiser(device, 8, make)
    given = (("x", (4,)), ("n", (1,)))

    def feeds(value):
        return {"x": np.zeros(4, np.float32), "n": np.array([value])}

    with pytest.raises(NeedsValue):
        kept.get(given)
    first = kept.get(given, feeds(1))
    assert first.by_value and kept.get(given, feeds(1)) is first
    assert kept.get(given, feeds(2)) is not first
    assert len(device.made) == 2 and asked[-1] == {"n": [2]}


def test_values_are_bounded_like_shapes():
    device = FakeDevice()

    def make(given, known):
        if "n" not in known:
            raise NeedsValue("a shape depends on n", ["n"])
        return make_graph(given, known)

    kept = specialiser(device, 2, make)
    for size in range(1, 5):
        for value in range(5):
            kept.get((("x", (size,)), ("n", (1,))), {"x": np.zeros(size, np.float32), "n": np.array([value])})
    assert len(kept) == 2 and len(device.made) == 20 and sum(not e.closed for e in device.made) == 2
    assert len(kept._deciding) == 1


def test_threads_that_want_the_same_shapes_compile_once():
    device = FakeDevice()
    kept = specialiser(device)
    start = threading.Barrier(8)
    found = []

    def work():
        start.wait()
        found.append(kept.get(shapes(1)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(device.made) == 1 and len(set(map(id, found))) == 1
