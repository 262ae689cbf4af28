"""Real ir3 compilers where this machine has a Mesa tree (TINYINFER_MESA), an OpenCL device with images."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tinyinfer import config
from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.backends.opencl.device import OpenclDevice
from tinyinfer.backends.qcom.capabilities import find_gpu
from tinyinfer.backends.qcom.ir3 import Ir3Compiler, find_compiler

TESTS = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TESTS / "kernels"), str(TESTS / "backends" / "opencl")]


@pytest.fixture(scope="session")
def ir3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Ir3Compiler]]:
    """`ir3("a630")`: its compiler, with an empty cache. Skips without a tree, fails with a broken one."""
    cache = KernelCache(tmp_path_factory.mktemp("ir3"))
    started: dict[str, Ir3Compiler] = {}

    def get(name: str) -> Ir3Compiler:
        if name not in started:
            compiler, reason = find_compiler(find_gpu(name), cache=cache)
            if compiler is None:
                if config.mesa_tree() is not None:
                    pytest.fail(reason)
                pytest.skip(reason)
            started[name] = compiler
        return started[name]

    yield get
    for compiler in started.values():
        compiler.close()


@pytest.fixture(scope="session")
def images() -> OpenclDevice:
    """An OpenCL device with images; without one, tests fail in CI and are skipped elsewhere."""
    device = OpenclDevice()
    reason = device.available()
    if reason is None and not device.capabilities.images:
        reason = f"{device.capabilities.name} has no images"
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return device
