"""The graphs of the kernel tests serve here as well, and an OpenCL device runs them."""

import os
import sys
from pathlib import Path

import pytest

from tinyinfer.backends.opencl.device import OpenclDevice

TESTS = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TESTS / "kernels"), str(TESTS / "backends" / "clike")]


@pytest.fixture(scope="session")
def opencl() -> OpenclDevice:
    """The first OpenCL device; without one, tests fail in CI and are skipped elsewhere."""
    device = OpenclDevice()
    reason = device.available()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return device
