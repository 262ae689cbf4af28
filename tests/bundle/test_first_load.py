"""Bundles on a driver that is new to them: verified once, and the kernel that is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from c_tools import REPOSITORY
from click.testing import CliRunner
from opencl_tools import needed_opencl

from cli.main import main
from tinyinfer import InferenceSession, config
from tinyinfer.bundle import first_load, load
from tinyinfer.bundle.build import build_bundle
from tinyinfer.bundle.container import Container, Section, save_bundle
from tinyinfer.bundle.kernel_values import KernelValues, read_kernel_values, write_kernel_values
from tinyinfer.bundle.targets import find_targets
from tinyinfer.bundle.verify import verify_bundle
from tinyinfer.errors import EPFail, InvalidArgument, InvalidBundle

DIGITS = REPOSITORY / "models" / "digits" / "digits.onnx"
POOL = "/pool1"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needed_opencl()
    path = tmp_path_factory.mktemp("first") / "digits.tinf"
    build_bundle(DIGITS, find_targets(["OPENCL", "CPU"]), path)
    return path


def changed(bundle: Path, path: Path, leave_out: str = "", broken: bool = True) -> Path:
    """The bundle without some kind of section, and with a kernel that finds too large a maximum."""
    container = Container.open(bundle)
    sections = []
    for entry in container.entries:
        data = container.data(entry).tobytes()
        if entry.kind == "CODE" and entry.name == "opencl" and broken:
            assert data.count(b"= -INFINITY;") == 2  # two poolings, of which the first is changed
            data = data.replace(b"= -INFINITY;", b"= 900000000;", 1)
        if entry.kind != leave_out:
            sections.append(Section(entry.kind, data, entry.group, entry.name))
    save_bundle(path, sections, minor=1)
    return path


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often golden vectors were replayed, with a cache that is empty."""
    monkeypatch.setenv(config.CACHE_VARIABLE, str(tmp_path / "cache"))
    calls: list[int] = []
    golden = load.BundleModel.golden

    def noted(self: load.BundleModel) -> list:
        calls.append(1)
        return golden(self)

    monkeypatch.setattr(load.BundleModel, "golden", noted)
    return calls


def test_a_driver_is_verified_once(bundle: Path, counted: list[int], monkeypatch: pytest.MonkeyPatch):
    for _ in range(2):
        InferenceSession(bundle, providers=["OPENCL"])
    assert len(counted) == 1
    assert len(list((config.cache_directory() / first_load.FOLDER).iterdir())) == 1
    from tinyinfer.bundle.devices import OpenclTargetDevice

    monkeypatch.setattr(OpenclTargetDevice, "identity", property(lambda self: "a newer driver"))
    InferenceSession(bundle, providers=["OPENCL"])
    assert len(counted) == 2
    InferenceSession(bundle)  # the processor's code is the same on every machine
    InferenceSession(DIGITS, providers=["OPENCL"])  # what is compiled here is no bundle
    assert len(counted) == 2


def test_what_is_wrong_is_an_error_that_names_the_kernel(
    bundle: Path, tmp_path: Path, counted: list[int], monkeypatch: pytest.MonkeyPatch
):
    path = changed(bundle, tmp_path / "wrong.tinf")
    for _ in range(2):  # failures are not remembered
        with pytest.raises(EPFail, match=rf"'logits' differs by .* computes .*{POOL}"):
            InferenceSession(path, providers=["OPENCL"])
    with pytest.raises(EPFail, match="it does not tell"):
        InferenceSession(changed(bundle, tmp_path / "untold.tinf", "KVAL"), providers=["OPENCL"])
    monkeypatch.setenv(config.TRUST_VARIABLE, "1")
    image = np.zeros((1, 1, 28, 28), np.float32)
    assert InferenceSession(path, providers=["OPENCL"]).run(None, {"image": image})


def test_without_golden_vectors_a_bundle_runs_unverified(
    bundle: Path, tmp_path: Path, counted: list[int], caplog: pytest.LogCaptureFixture
):
    InferenceSession(changed(bundle, tmp_path / "none.tinf", "GOLD", broken=False), providers=["OPENCL"])
    assert "no golden vectors" in caplog.text


def test_bisect_names_the_first_kernel_that_is_off(bundle: Path, tmp_path: Path):
    good = verify_bundle(bundle, devices=["OPENCL"], bisect=True)
    assert good.passed and len(good.kernels) >= 4 and good.first_wrong is None
    path = changed(bundle, tmp_path / "wrong.tinf")
    report = verify_bundle(path, devices=["OPENCL"], bisect=True)
    assert not report.passed and report.first_wrong is not None
    assert report.first_wrong.names == (POOL,) and report.first_wrong.error > report.first_wrong.allowed
    assert report.kernels[0].passed and not report.kernels[-1].passed
    told = CliRunner().invoke(main, ["verify", str(path), "--device", "opencl", "--bisect"])
    assert told.exit_code == 1 and "WRONG FIRST" in told.output
    assert f"that is off is {report.first_wrong.kernel}, which computes {POOL}" in told.output
    plain = CliRunner().invoke(main, ["verify", str(path), "--device", "opencl", "--bisect", "--json"])
    assert json.loads(plain.output)["kernels"][0]["names"]


def test_bisect_against_another_device_needs_nothing_recorded(bundle: Path, tmp_path: Path):
    path = changed(bundle, tmp_path / "bare.tinf", "KVAL", broken=False)
    with pytest.raises(InvalidArgument, match="--against"):
        verify_bundle(path, devices=["OPENCL"], bisect=True)
    report = verify_bundle(path, devices=["OPENCL"], bisect=True, against="opencl:0")
    assert report.passed and all(kernel.error == 0 for kernel in report.kernels)
    with pytest.raises(InvalidArgument, match="OpenCL devices"):
        verify_bundle(bundle, bisect=True)


def test_values_of_kernels_are_read_as_they_were_written_and_damage_is_refused():
    values = [KernelValues(3, "float16", (0, 7), (1.5, -2.0), 0.25)]
    data = np.frombuffer(write_kernel_values({"opencl": values}), np.uint8)
    assert read_kernel_values(data, "opencl", "x") == values
    assert read_kernel_values(data, "qcom:a630", "x") == []
    for text in (
        b"[",
        b"{}",
        b'{"targets":[]}',
        b'{"targets":{"opencl":[1]}}',
        bytes(data).replace(b"float16", b"float99"),
        bytes(data).replace(b"[0,7]", b"[0,-7]"),
        bytes(data).replace(b"[0,7]", b"[0]"),
        bytes(data).replace(b"[0,7]", b"[0,1e999]"),
    ):
        with pytest.raises(InvalidBundle, match="x: no values of kernels"):
            read_kernel_values(np.frombuffer(text, np.uint8), "opencl", "x")
