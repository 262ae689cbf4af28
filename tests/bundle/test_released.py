"""Every bundle that a released version made loads, and computes what it says."""

from pathlib import Path

import numpy as np
import pytest

from tinyinfer import InferenceSession
from tinyinfer.backends.cpu.machine import choose
from tinyinfer.backends.registry import unavailable_reason
from tinyinfer.bundle.container import MINOR, Container
from tinyinfer.bundle.describe import describe_bundle
from tinyinfer.bundle.devices import describe_targets
from tinyinfer.bundle.verify import verify_bundle

RELEASED = sorted(Path(__file__).with_name("released").glob("*.tinf"))


def test_there_is_one_of_this_version():
    assert f"1.{MINOR}.tinf" in [path.name for path in RELEASED]


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
def test_released_bundles(path):
    container = Container.open(path)
    names = [target["name"] for target in describe_bundle(container)["targets"]]
    assert names == ["x86_64-v3", "aarch64", *(["opencl"] if container.minor else [])]
    if choose(describe_targets(container))[0] is None:
        pytest.skip("this machine is neither x86-64-v3 nor aarch64")
    report = verify_bundle(path)
    assert report.passed and report.vectors == 2
    if container.minor and unavailable_reason("OPENCL") is None:
        assert verify_bundle(path, devices=["OPENCL"]).passed
    session = InferenceSession(path)
    feeds = {"x": np.linspace(-1, 1, 48, dtype=np.float32).reshape(6, 1, 8), "mode": np.array(1)}
    logits, best = session.run(None, feeds)
    assert logits.shape == (1, 80) and best[0] == logits.argmax()
