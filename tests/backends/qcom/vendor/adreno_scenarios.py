"""What the QCOM device does with its driver's extensions, on the driver of `fake_adreno.c`.

    FAKE_DRIVER=… OCL_ICD_VENDORS=… FAKE_LOG=… python adreno_scenarios.py

prints a JSON object: for each scenario null, or how it failed. `test_qcom_vendor.py` builds the driver and
runs this in a process of its own, because loaders of OpenCL look for drivers once. The driver reads its
variables at each call, so that scenarios set them.
"""

from __future__ import annotations

import json
import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
from loop_graphs import recurrent

import tinyinfer
from tinyinfer.backends.opencl.executable import OpenclExecutable
from tinyinfer.backends.opencl.launches import HostLoop
from tinyinfer.backends.qcom import model, recording
from tinyinfer.backends.qcom.device import QcomDevice
from tinyinfer.bundle.build import build_bundle
from tinyinfer.bundle.targets import find_targets
from tinyinfer.config import CompileOptions
from tinyinfer.ir import build
from tinyinfer.ir.oracle import evaluate
from tinyinfer.kernels.schedule_gpu import LoopCosts

MODEL = Path(__file__).resolve().parents[4] / "models" / "digits" / "digits.onnx"
LAUNCHES = 6
SCENARIOS: dict[str, Callable[[], None]] = {}


def scenario(function: Callable[[], None]) -> Callable[[], None]:
    SCENARIOS[function.__name__] = function
    return function


def said(since: int = 0) -> list[str]:
    """The driver's log, from a length on."""
    return Path(os.environ["FAKE_LOG"]).read_text().splitlines()[since:]


class Digits:
    """The model on QCOM and its answers on the CPU."""

    def __init__(self, **options: str):
        self.before = len(said()) if os.path.exists(os.environ["FAKE_LOG"]) else 0
        self.session = tinyinfer.InferenceSession(str(MODEL), providers=[("QCOM", options)])
        self.cpu = tinyinfer.InferenceSession(str(MODEL), providers=["CPU"])
        self.name = self.session.get_inputs()[0].name

    def check(self, start: int, feed: np.ndarray | None = None) -> None:
        """One run; `start` makes its numbers, which go into `feed` where that is shared memory."""
        x = np.random.default_rng(start).random((1, 1, 28, 28), np.float32)
        if feed is not None:
            os.pwrite(feed.memory.descriptor, x.tobytes(), feed.offset)  # type: ignore[attr-defined]
        got = self.session.run(None, {self.name: x if feed is None else feed})[0]
        wanted = self.cpu.run(None, {self.name: x})[0]
        # values are stored as halves
        assert np.abs(got - wanted).max() <= 2e-3 * np.abs(wanted).max()

    def said(self) -> list[str]:
        return said(self.before)


@scenario
def launches_are_recorded_once_and_replayed() -> None:
    digits = Digits()
    for start in range(3):
        digits.check(start)
    told = [line for line in digits.said() if "record" in line or "replay" in line]
    assert told == [f"recorded {LAUNCHES}"] + [f"replayed {LAUNCHES} updates=0"] * 3, told


@scenario
def functions_whose_addresses_are_kept_back_are_found_by_name() -> None:
    os.environ["FAKE_REFUSES"] = "addresses"
    digits = Digits()
    digits.check(1)
    assert any("replayed" in line for line in digits.said())


@scenario
def recording_can_be_turned_off() -> None:
    digits = Digits(recording="off")
    digits.check(1)
    assert not any("record" in line or "replay" in line for line in digits.said())


@scenario
def recordings_are_as_long_as_the_device_allows() -> None:
    os.environ["FAKE_MOST"] = str(LAUNCHES - 1)
    digits = Digits()
    digits.check(1), digits.check(2)
    told = [line for line in digits.said() if "recorded" in line]
    assert told == [f"recorded {LAUNCHES - 1}"], told


@scenario
def a_device_without_the_extensions_is_used_without_them() -> None:
    os.environ["FAKE_EXTENSIONS"] = ""
    digits = Digits(performance="low", priority="low")
    digits.check(1)
    digits.check(2, frame())
    assert all("replay" not in line and "import" not in line for line in digits.said())


@scenario
def what_the_driver_refuses_is_done_without() -> None:
    for refused in ("queues", "recordings", "hints"):
        os.environ["FAKE_REFUSES"] = refused
        digits = Digits(priority="normal" if refused == "hints" else "default")
        digits.check(1), digits.check(2)
        assert any("replay" in line for line in digits.said()) == (refused == "hints")


@scenario
def a_replay_that_differs_from_the_launches_is_not_used_again() -> None:
    os.environ["FAKE_LEAVES_OUT"] = "1"
    digits = Digits()
    for start in range(3):
        digits.check(start)
    assert sum("replay" in line for line in digits.said()) == 1


@scenario
def hints_are_properties_of_the_context() -> None:
    for options, wanted in (
        ({}, "performance=40c3 priority=0"),
        ({"performance": "normal", "priority": "high"}, "performance=40c4 priority=40ca"),
        ({"performance": "default", "priority": "low"}, "performance=0 priority=40cc"),
    ):
        Digits(**options).check(1)
        assert f"context {wanted}" in said(), said()


@scenario
def unknown_options_are_errors() -> None:
    for options, message in (
        ({"performance": "top"}, "performance is one of high, normal, low, default, not 'top'"),
        ({"speed": "high"}, "QCOM has no option 'speed'; it has precision, performance, priority, recording"),
    ):
        try:
            Digits(**options)
        except tinyinfer.InvalidArgument as error:
            assert message in str(error)
        else:
            raise AssertionError(options)


def frame(offset: int = 0) -> np.ndarray:
    """An input of the model in memory as a camera's."""
    descriptor = os.memfd_create("frame")
    os.ftruncate(descriptor, 16384)
    array = tinyinfer.dma_buffer(descriptor, (1, 1, 28, 28), "float32", offset)
    os.close(descriptor)
    return array


@scenario
def frames_are_imported_once_and_the_recording_follows_them() -> None:
    digits = Digits()
    ring = [frame(), frame(), frame(4096)]
    for start in range(7):
        digits.check(start, ring[start % 3])
    told = digits.said()
    assert sum("import kind=411d policy=40a9" in line for line in told) == 3, told
    assert sum("recorded" in line for line in told) == 1, told
    # the buffer, and the offset from when it first moved
    updates = [line.split("updates=")[1] for line in told if "replay" in line]
    assert updates == ["0", "1", "2", "2", "2", "2", "2"], told


@scenario
def where_arguments_cannot_be_updated_only_the_others_are_recorded() -> None:
    os.environ["FAKE_REFUSES"] = "updates"
    digits = Digits()
    for start in range(5):
        digits.check(start, frame())
    # the first launch reads the input, the last one writes the output
    assert [line for line in digits.said() if "record" in line][:2] == [
        f"recorded {LAUNCHES}",
        f"recorded {LAUNCHES - 2}",
    ]


@scenario
def memory_is_imported_as_what_the_driver_takes() -> None:
    for refused, kind in (("dmabuf", "40a8"), ("ion", "411d"), ("dmabuf ion", None)):
        os.environ["FAKE_REFUSES"] = refused
        digits = Digits()
        digits.check(1, feed := frame())
        digits.check(2, feed)
        imports = [line for line in digits.said() if "import" in line]
        assert imports == ([] if kind is None else [f"import kind={kind} policy=40a9"]), imports


@scenario
def memory_of_a_device_without_coherent_caches_is_uncached() -> None:
    os.environ["FAKE_EXTENSIONS"] = "cl_qcom_ext_host_ptr cl_qcom_ion_host_ptr"
    digits = Digits()
    digits.check(1, frame())
    assert digits.said()[-1] == "import kind=40a8 policy=40a4"


@scenario
def what_cannot_be_imported_is_copied() -> None:
    digits = Digits()
    digits.check(1, frame(4))  # no vector begins there
    digits.check(2, frame(16384 - 28 * 28 * 4))  # the padding after it is missing
    assert not any("import" in line for line in digits.said())


@scenario
def loops_stay_between_recordings() -> None:
    graph = recurrent(False)
    rng = np.random.default_rng(1)
    for number in range(recording.LEAST):
        weights = build.constant(rng.standard_normal((7, 5)).astype(np.float32))
        graph.outputs[f"product{number}"] = build.matmul(graph.inputs["start"], weights)
    feeds = {name: rng.standard_normal(node.shape).astype(np.float32) for name, node in graph.inputs.items()}
    with mock.patch.object(model, "LOOP_COSTS", LoopCosts(launch=0.0)):
        executable = QcomDevice("a630", "float32").compile(graph, CompileOptions(), 1)
    assert isinstance(executable, OpenclExecutable) and executable._replay is not None
    assert any(isinstance(launch, HostLoop) for launch in executable.launches)
    wanted = evaluate(list(graph.outputs.values()), feeds)
    for _ in range(2):
        got = executable.run([feeds["start"], feeds["x"]])
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert executable._replay is not None


@scenario
def a_bundle_takes_the_extensions_too() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.tinf"
        build_bundle(MODEL, find_targets(["qcom:a630"]), path)
        before = len(said())
        session = tinyinfer.InferenceSession(str(path), providers=[("QCOM", {"priority": "high"})])
        cpu = tinyinfer.InferenceSession(str(MODEL), providers=["CPU"])
        x = np.random.default_rng(3).random((1, 1, 28, 28), np.float32)
        for _ in range(2):
            got, wanted = (s.run(None, {"image": x})[0] for s in (session, cpu))
            assert np.abs(got - wanted).max() <= 2e-3 * np.abs(wanted).max()
        told = said(before)
        assert "context performance=40c3 priority=40ca" in said() and any("replay" in x for x in told), told


@scenario
def the_extensions_are_listed() -> None:
    os.environ["FAKE_EXTENSIONS"] = "cl_qcom_perf_hint"
    listed = {name: there for name, there, _ in QcomDevice().extensions()}
    assert listed.pop("cl_qcom_perf_hint") and not any(listed.values()) and len(listed) == 6


def main() -> None:
    results = {}
    for name, run in SCENARIOS.items():
        for variable in ("FAKE_EXTENSIONS", "FAKE_REFUSES", "FAKE_LEAVES_OUT", "FAKE_MOST"):
            os.environ.pop(variable, None)
        try:
            run()
            results[name] = None
        except BaseException:
            results[name] = traceback.format_exc()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
