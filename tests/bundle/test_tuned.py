"""Bundles with tuned schedules: what is recorded, that it is taken up again, and that what is wrong in a
record changes nothing."""

import json

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import affine, model

from tinyinfer import InferenceSession
from tinyinfer.backends.cpu.measure import KernelTimer
from tinyinfer.backends.cpu.target import host_target
from tinyinfer.backends.qcom import tune as ranking
from tinyinfer.bundle.build import BuildOptions, build_bundle
from tinyinfer.bundle.container import Container, Section, save_bundle
from tinyinfer.bundle.manifest import canonical_json
from tinyinfer.bundle.targets import find_targets
from tinyinfer.bundle.tuned import TuneOptions, read_tunings
from tinyinfer.errors import InvalidArgument
from tinyinfer.kernels.tuning import Tuning

OTHER = "cpu:riscv64" if host_target().architecture != "riscv64" else "cpu:aarch64"


@pytest.fixture(autouse=True)
def fake_times(monkeypatch):
    """One vector and no unrolling are fastest; returns how often anything was measured."""
    asked = []

    def seconds(timer, choice, schedules):
        asked.append(choice.key)
        return [1.0 - 0.2 * (s.vectors == 1) - 0.2 * (s.unroll == 1) for s in schedules]

    monkeypatch.setattr(KernelTimer, "__call__", seconds)
    return asked


def two_layers():
    weights = [
        np.random.default_rng(i).standard_normal(s).astype(np.float32)
        for i, s in enumerate([(40, 96), (96, 33)])
    ]
    return model(
        [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("MatMul", ["h", "b"], ["y"])],
        [("x", TensorProto.FLOAT, [19, 40])],
        [("y", TensorProto.FLOAT, [19, 33])],
        [("a", weights[0]), ("b", weights[1])],
    )


def build(path, devices=("CPU",), seconds=None, known=None, made=None, golden=True):
    options = BuildOptions(tune=TuneOptions(seconds, known), golden=golden)
    return build_bundle(made or two_layers(), find_targets(devices), path, options)


def kernels_of(path):
    container = Container.open(path)
    (entry,) = container.all("TUNE")
    return json.loads(container.data(entry).tobytes())["kernels"]


def test_what_is_measured_is_used_recorded_and_reproduces_the_bytes(tmp_path, fake_times):
    build(tmp_path / "plain.tinf")
    assert not fake_times
    report = build(tmp_path / "tuned.tinf", seconds=60)
    tunings = read_tunings(tmp_path / "tuned.tinf")
    names = [t.name for t in report.targets]
    assert list(tunings) == sorted(names)
    assert all(len(t.entries) == 2 and t.machine == host_target().cpu for t in tunings.values())
    for name in names:
        assert all("x1v" in k and "_k1" in k for k in kernels_of(tmp_path / "tuned.tinf")[name])
        assert f"{name}: 2 kernels with measured schedules" in report.notes
    fake_times.clear()
    build(tmp_path / "again.tinf", known=tunings)
    build(tmp_path / "more.tinf", seconds=60, known=tunings)
    assert not fake_times
    tuned = (tmp_path / "tuned.tinf").read_bytes()
    assert tuned == (tmp_path / "again.tinf").read_bytes() == (tmp_path / "more.tinf").read_bytes()
    assert tuned != (tmp_path / "plain.tinf").read_bytes()


def test_tuned_and_plain_compute_the_same_bits(tmp_path):
    build(tmp_path / "plain.tinf")
    build(tmp_path / "tuned.tinf", seconds=60)
    x = np.random.default_rng(3).standard_normal((19, 40)).astype(np.float32)
    results = [
        InferenceSession(str(tmp_path / name)).run(None, {"x": x})[0] for name in ("plain.tinf", "tuned.tinf")
    ]
    assert results[0].tobytes() == results[1].tobytes()


@pytest.fixture
def fake_ranking(monkeypatch):
    """A compiler for Adreno GPUs that likes single rows and nothing else."""

    class Compiler:
        version = "nobody's"

        def close(self):
            pass

    def cycles(made, choice, schedules):
        return [float(s.rows) for s in schedules]

    monkeypatch.setattr(ranking, "find_compiler", lambda gpu: (Compiler(), ""))
    monkeypatch.setattr(ranking.Ranking, "__call__", cycles)


def test_schedules_for_an_adreno_are_ranked_recorded_and_taken_up_again(tmp_path, fake_ranking):
    """Its inputs come as buffers, and the order of sums stays."""
    options = {"devices": ("qcom:a630", "OPENCL"), "golden": False}
    build(tmp_path / "plain.tinf", **options)
    report = build(tmp_path / "tuned.tinf", seconds=60, **options)
    assert "qcom:a630: 2 kernels with ranked schedules" in report.notes
    assert "opencl: kernels for OpenCL devices are not measured" in report.notes
    found = read_tunings(tmp_path / "tuned.tinf")
    assert list(found) == ["qcom:a630"] and found["qcom:a630"].machine == "a630, nobody's"
    plain, tuned = (kernels_of(tmp_path / name)["qcom:a630"] for name in ("plain.tinf", "tuned.tinf"))
    assert all("contract_1x1v4" in name for name in tuned if name.startswith("contract")) and plain != tuned
    build(tmp_path / "again.tinf", known=found, **options)
    assert (tmp_path / "again.tinf").read_bytes() == (tmp_path / "tuned.tinf").read_bytes()


def test_a_target_of_another_machine_says_that_it_cannot_be_tuned(tmp_path, fake_times):
    report = build(tmp_path / "other.tinf", (OTHER,), seconds=60)
    assert not fake_times
    assert any("cannot be tuned here" in note and "this machine is" in note for note in report.notes)
    with pytest.raises(InvalidArgument, match="no tuned schedules"):
        read_tunings(tmp_path / "other.tinf")


def test_schedules_of_another_machine_name_no_kernel(tmp_path):
    build(tmp_path / "plain.tinf", (OTHER,))
    build(tmp_path / "here.tinf", seconds=60)
    (name,) = (t.name for t in find_targets([OTHER]))
    here = next(iter(read_tunings(tmp_path / "here.tinf").values()))
    build(tmp_path / "wrong.tinf", (OTHER,), known={name: here})
    assert (tmp_path / "wrong.tinf").read_bytes() == (tmp_path / "plain.tinf").read_bytes()


def test_what_is_wrong_in_a_record_is_dropped(tmp_path):
    build(tmp_path / "plain.tinf")
    build(tmp_path / "tuned.tinf", seconds=60)
    wrong = {
        name: Tuning.make(
            t.machine, {key: {**dict(fields), "vectors": 64, "tile_x": -1} for key, fields in t.entries}
        )
        for name, t in read_tunings(tmp_path / "tuned.tinf").items()
    }
    build(tmp_path / "wrong.tinf", known=wrong)
    assert (tmp_path / "wrong.tinf").read_bytes() == (tmp_path / "plain.tinf").read_bytes()


@pytest.mark.parametrize("tuned", [3, {"CPU": []}, {"CPU": {"schedules": {"a": {"b": "c"}}}}], ids=str)
def test_sections_that_hold_no_tuning(tmp_path, tuned):
    build(tmp_path / "plain.tinf", made=affine())
    container = Container.open(tmp_path / "plain.tinf")
    sections = [
        Section(
            e.kind,
            canonical_json({"tuned": tuned}) if e.kind == "TUNE" else container.data(e).tobytes(),
            e.group,
            e.name,
        )
        for e in container.entries
    ]
    save_bundle(tmp_path / "odd.tinf", sections, None)
    with pytest.raises(InvalidArgument, match="no tuned schedules"):
        read_tunings(tmp_path / "odd.tinf")


def test_a_model_is_no_source_of_schedules(tmp_path):
    (tmp_path / "model.onnx").write_bytes(affine().SerializeToString())
    with pytest.raises(InvalidArgument, match="is no bundle"):
        read_tunings(tmp_path / "model.onnx")
