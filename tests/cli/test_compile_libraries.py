"""`tinyinfer compile --emit so` and `--emit obj`."""

import ctypes
import json
import os
import shutil

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from small_models import AFFINE_BIAS, AFFINE_WEIGHTS, affine

from cli.main import main


def call(*arguments):
    return CliRunner().invoke(main, ["compile", "affine.onnx", *arguments])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a model in it."""
    onnx.save(affine(), tmp_path / "affine.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_emit_libraries(folder):
    result = call("--emit", "so", "--json")
    assert result.exit_code == 0, result.output
    files = json.loads(result.stdout)["files"]
    assert files == {name: os.path.getsize(name) for name in ("libaffine.so", "affine.h")}
    x, y, z = np.ones((1, 3), np.float32), np.empty((1, 2), np.float32), np.empty((1, 2), np.float32)
    library = ctypes.CDLL(str(folder / "libaffine.so"))
    assert library.affine_run(*(ctypes.c_void_p(array.ctypes.data) for array in (x, y, z))) == 0
    np.testing.assert_allclose(y, x @ AFFINE_WEIGHTS + AFFINE_BIAS, rtol=1e-6)
    np.testing.assert_array_equal(z, -y)
    result = call("--emit", "obj", "-o", "other.o")
    assert result.exit_code == 0 and "other.o: " in result.stdout and "other.h: " in result.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["--device", "cpu:x86_64-v3", "--device", "cpu:aarch64"],
            "--device: a library is made for one architecture, not for x86_64 and aarch64",
        ),
        (["--cc", "no-cc"], "no C compiler 'no-cc' on this machine"),
        (["--c-arena", "caller"], "--c-arena has no meaning for --emit so"),
        (["--device", "cpu:wasm32"], "no libraries are made for wasm32, only for "),
        (["-o", "none/libaffine.so"], "none/libaffine.so: no such directory"),
    ],
)
def test_libraries_that_cannot_be_made(arguments, message, folder):
    result = call("--emit", "so", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"tinyinfer: error: {message}") and result.stderr.count("\n") == 1
    assert os.listdir(folder) == ["affine.onnx"]
