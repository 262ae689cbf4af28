"""The real open, ioctl and mmap, with a kernel's side that is preloaded into the process."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from kgsl_kernels import fake, scale
from pm4_decoder import packets

from tinyinfer.backends.qcom.kgsl import KgslDevice, PlanStream

FOLDER = Path(__file__).parent
PROGRAM = """
import json, sys
import numpy as np
from kgsl_kernels import scale
from tinyinfer.backends.qcom.kgsl import KgslDevice, KgslError, PlanStream, unavailable_reason

assert unavailable_reason() is None
with KgslDevice() as device:
    x, y, z = (device.allocate(size) for size in (4096, 4096, 10000))
    z.view(8192, (4,), np.uint32)[:] = [1, 2, 3, 4]
    stream = PlanStream(device, [scale(y, x, 100, 2.0), scale(z, y, 100, 3.0)])
    for _ in range(2):
        stream.run(timeout=10)
    said = {
        "gpu": device.gpu.name, "model": device.capabilities.model, "retired": device.retired(),
        "sizes": [x.size, y.size, z.size], "words": [int(word) for word in stream.words()],
        "kept": z.view(8192, (4,), np.uint32).tolist(),
    }
    try:
        device.import_dmabuf(0)
    except KgslError as error:
        said["error"] = str(error)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not sys.platform.startswith("linux") or sys.maxsize < 1 << 32:
        pytest.skip("the preloaded kernel's side is for 64-bit Linux")
    if compiler is None:
        reason = "no C compiler (cc, gcc or clang)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    library = tmp_path_factory.mktemp("shim") / "kgsl_shim.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, FOLDER / "kgsl_shim.c"]
    subprocess.run(command, check=True)
    return library


def test_a_process_with_a_preloaded_kernel(shim, tmp_path):
    log = tmp_path / "submissions"
    environment = {**os.environ, "LD_PRELOAD": str(shim), "KGSL_SHIM_LOG": str(log)}
    environment["PYTHONPATH"] = os.pathsep.join([str(FOLDER), *filter(None, sys.path)])
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["gpu"], said["model"], said["retired"]) == ("a630", None, 2)
    assert said["sizes"] == [4096, 4096, 12288] and said["kept"] == [1, 2, 3, 4]
    assert (
        said["error"]
        == "KGSL GPUOBJ_IMPORT: the driver does not know this call (its version may be too old) (ENOTTY)"
    )

    submitted = log.read_bytes()
    address, size = struct.unpack_from("<QQ", submitted)
    assert address >= 0x1_0000_0000 and len(submitted) == 2 * (16 + size)
    words = list(struct.unpack_from(f"<{size // 4}I", submitted, 16))
    assert words == said["words"] == list(struct.unpack_from(f"<{size // 4}I", submitted, 32 + size))

    with KgslDevice(system=fake("a630")) as device:
        x, y, z = (device.allocate(size) for size in (4096, 4096, 10000))
        other = PlanStream(device, [scale(y, x, 100, 2.0), scale(z, y, 100, 3.0)]).words()
    # The two kernels place objects at other addresses; everything else is the same stream.
    assert [(p.position, p.operation, p.register) for p in packets(words)] == [
        (p.position, p.operation, p.register) for p in packets([int(word) for word in other])
    ]
    assert sum(a != b for a, b in zip(words, other)) <= 2 * 5
