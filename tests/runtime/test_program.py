"""The tree of segments that a program keeps: one compilation per path, bounded, closed when it leaves."""

import logging
import threading

import numpy as np
import pytest

from tinyinfer import errors
from tinyinfer.config import CompileOptions
from tinyinfer.frontend.onnx import load_model
from tinyinfer.frontend.onnx.trace import start
from tinyinfer.frontend.onnx.values import signature
from tinyinfer.runtime import program as programs
from tinyinfer.runtime.plan import TensorSpec
from tinyinfer.runtime.program import Program


class CountingDevice:
    """Interprets graphs, and remembers what was made and closed."""

    name = "COUNTING"

    def __init__(self):
        self.made = []

    def available(self):
        return None

    def compile(self, graph, options, threads):
        self.made.append(Interpreted(graph))
        return self.made[-1]


class Interpreted:
    def __init__(self, graph):
        self.graph, self.closed, self.peak_bytes = graph, False, 0
        self.inputs = [TensorSpec(name, x.shape, x.dtype) for name, x in graph.inputs.items()]
        self.outputs: list[TensorSpec] = []

    def run(self, feeds):
        from tinyinfer.ir.oracle import evaluate

        assert not self.closed
        return evaluate(list(self.graph.outputs.values()), dict(zip(self.graph.inputs, feeds)))

    def profile(self, feeds, runs):
        return []

    def stages(self):
        return {}

    def close(self):
        self.closed = True


HEADER = '<ir_version: 8, opset_import: ["": 17]>'
PLAIN = f"{HEADER} g (float[n] x) => (float[n] y) {{ y = Relu(x) }}"
CUT = f"""{HEADER} g (float[n] x) => (float[m] y, int64[1, m] z) {{
  a = Exp(x)  z = NonZero(x)  p = Transpose(z)  q = GatherND(a, p)  y = Neg(q) }}"""
DECIDED = f"{HEADER} g (float[n] x, int64[k] s) => (float[m] y) {{ a = Exp(x)  y = Reshape(a, s) }}"


def program_of(text, device, roots=2):
    import onnx

    model = load_model(onnx.parser.parse_model(text))
    options, logger = CompileOptions(), logging.getLogger("test")
    made = Program(lambda key: start(model, dict(key)), device, options, 0, "test", logger, roots=roots)
    made.ranges = None  # every size is compiled for itself
    return made


def run(program, **feeds):
    return program.run(tuple((n, signature(x)) for n, x in feeds.items()), feeds)


def floats(*values):
    return np.array(values, np.float32)


def test_each_set_of_shapes_is_compiled_once():
    device = CountingDevice()
    program = program_of(PLAIN, device)
    for size in (1, 2, 1, 2):
        (y,) = run(program, x=floats(*range(size)))
        assert y.shape == (size,)
    assert len(device.made) == 2


def test_the_least_recently_used_shapes_leave_and_are_closed():
    device = CountingDevice()
    program = program_of(PLAIN, device)
    for size in (1, 2, 1, 3):
        run(program, x=floats(*range(size)))
    assert len(program) == 2 and [e.closed for e in device.made] == [False, True, False]
    program.close()
    assert all(e.closed for e in device.made) and len(program) == 0


def test_results_of_data_dependent_shape_and_what_follows_them():
    device = CountingDevice()
    program = program_of(CUT, device)
    for values in ((0, 1, 2), (3, 0, 0), (0, 0, 0), (0, 5, 6)):
        x = floats(*values)
        y, z = run(program, x=x)
        np.testing.assert_array_equal(z, [np.flatnonzero(x)])
        np.testing.assert_allclose(y, -np.exp(x[x != 0]), 1e-6)
    # the stage before the cut, and one for each number of elements (small ones are interpreted at first)
    assert len(device.made) == 1 and len(program) == 4


def test_a_cheap_stage_is_compiled_when_it_comes_again():
    device = CountingDevice()
    program = program_of(CUT, device)
    for _ in range(programs.PATIENCE + 2):
        run(program, x=floats(1, 0, 2))
    assert len(device.made) == 2


def test_decisions_are_kept_by_value():
    device = CountingDevice()
    program = program_of(DECIDED, device)
    for shape in ([2, 3], [3, 2], [6, 1], [2, 3]):
        (y,) = run(program, x=floats(*range(6)), s=np.array(shape))
        assert y.shape == tuple(shape)
    assert len(program) == 4


def test_stages_are_bounded(monkeypatch):
    monkeypatch.setattr(programs, "STAGES", 4)
    device = CountingDevice()
    program = program_of(CUT, device)
    for _ in range(2):
        for ones in range(12):
            y, _ = run(program, x=floats(*[1] * ones, *[0] * (12 - ones)))
            assert y.shape == (ones,)
    assert len(program) <= 5
    assert not device.made[0].closed, "the root is used by every run"


def test_threads_that_want_the_same_shapes_compile_once():
    device = CountingDevice()
    program = program_of(PLAIN, device)
    begin = threading.Barrier(8)

    def work():
        begin.wait()
        run(program, x=floats(1, 2))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(device.made) == 1


def test_a_host_function_that_fails_names_its_node():
    device = CountingDevice()
    program = program_of(
        f"{HEADER} g (float[n] x, bool[k] c) => (float[m] y) {{ y = Compress <axis = 0> (x, c) }}", device
    )
    (y,) = run(program, x=floats(1, 2, 3), c=np.array([True, False, True]))
    np.testing.assert_array_equal(y, [1, 3])
    stage = next(iter(program._roots.values()))

    def broken(*arguments):
        raise ValueError("no")

    object.__setattr__(stage.segment.action.call, "function", broken)
    with pytest.raises(errors.Fail, match="Compress.*no"):
        run(program, x=floats(1, 2, 3), c=np.array([True, False, True]))
