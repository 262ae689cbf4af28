"""The module `tinyinfer` itself: its names, what importing it costs, and its version."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import tinyinfer


def test_every_public_name_is_there():
    for name in tinyinfer.__all__:
        assert getattr(tinyinfer, name) is not None
        assert name in dir(tinyinfer)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        tinyinfer.nonsense  # noqa: B018


def test_names_are_the_ones_of_their_modules():
    assert tinyinfer.InferenceSession is import_module("tinyinfer.runtime.session").InferenceSession
    assert tinyinfer.InvalidArgument is import_module("tinyinfer.errors").InvalidArgument


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, tinyinfer; "
        "print([m for m in ('onnx', 'llvmlite', 'click', 'numpy', 'google.protobuf') if m in sys.modules])"
    )
    root = Path(__file__).resolve().parents[1]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_exceptions_are_also_the_natural_ones():
    for name, builtin in (
        ("NoSuchFile", FileNotFoundError), ("InvalidProtobuf", ValueError), ("InvalidArgument", ValueError),
        ("InvalidGraph", ValueError), ("NotImplemented", NotImplementedError), ("Fail", RuntimeError),
        ("RuntimeException", RuntimeError), ("EPFail", RuntimeError), ("NotFound", LookupError),
    ):  # fmt: skip
        error = getattr(tinyinfer, name)
        assert issubclass(error, builtin) and issubclass(error, tinyinfer.TinyInferError)


def test_the_version_is_the_packages():
    if sys.version_info < (3, 11):
        pytest.skip("tomllib is from Python 3.11 on")
    import tomllib

    project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"]
    assert "version" in project.get("dynamic", []) or project["version"] == tinyinfer.__version__


def test_devices():
    available = tinyinfer.get_available_providers()
    assert available[0] == "CPU" and available[-1] == "REFERENCE"
    assert set(tinyinfer.get_available_providers()) <= set(tinyinfer.get_all_providers())
    assert tinyinfer.get_device() == "CPU"


def test_log_severity_and_seed():
    from tinyinfer.runtime.defaults import LOGGER, default_seed

    before = LOGGER.level
    try:
        tinyinfer.set_default_logger_severity(3)
        assert LOGGER.level == 40
        with pytest.raises(ValueError, match="0 .verbose. to 4"):
            tinyinfer.set_default_logger_severity(9)
    finally:
        LOGGER.setLevel(before)
    tinyinfer.set_seed(5)
    assert default_seed() == 5
