"""ONNX models as libraries: the session's bits here, golden vectors under emulation, types and names."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from c_tools import MACHINES, STRICT, Machine, compiled, needed, run
from onnx import TensorProto, helper
from small_models import affine, model, reshape_by_input

from tinyinfer import InferenceSession
from tinyinfer.bundle.build import BuildOptions, build_bundle
from tinyinfer.bundle.targets import find_targets
from tinyinfer.emit.library import emit_library

Feeds = Callable[[str], dict[str, np.ndarray]]

OTHERS = MACHINES[1:]
MODELS = {
    "mobilenetv2_qop_u8s8": (),
    "dtln_model_1": (),
    "silero_vad_op18_ifless": ("sr",),
    "tiny_gpt2_past_fp32": (),
}
"""Models, and the inputs that each must know the value of."""


def built(source: onnx.ModelProto | Path, folder: Path, device: str = "CPU", **options) -> Path:
    """The bundle of a model for a device's first target."""
    path = folder / "model.tinf"
    given = source if isinstance(source, onnx.ModelProto) else str(source)
    build_bundle(given, find_targets([device])[:1], path, BuildOptions(**options))
    return path


def called(library: ctypes.CDLL, function: str, arrays: list[np.ndarray]) -> int:
    run_model = getattr(library, function)
    return run_model(*(array.ctypes.data_as(ctypes.c_void_p) for array in arrays))


def check_bits(bundle: Path, feeds: dict[str, np.ndarray], folder: Path) -> None:
    """The library of a bundle computes what a session with the bundle does, to the bit."""
    session = InferenceSession(str(bundle))
    wanted = session.run(None, feeds)
    emit_library(bundle, "so", folder / "libmodel.so")
    library = ctypes.CDLL(str(folder / "libmodel.so"))
    library.model_error.restype = ctypes.c_char_p
    for threads in (1, 3):
        assert library.model_init(threads) == 0, library.model_error()
        inputs = [np.ascontiguousarray(feeds[value.name]) for value in session.get_inputs()]
        outputs = [np.empty_like(array, order="C") for array in wanted]
        assert called(library, "model_run", [*inputs, *outputs]) == 0, library.model_error()
        for got, right in zip(outputs, wanted, strict=True):
            assert got.tobytes() == right.tobytes()
        assert library.model_verify() == 0, library.model_error()
        assert library.model_close() == 0


@pytest.mark.parametrize("name", MODELS)
def test_the_bits_of_the_session(name: str, shared_models: Path, model_feeds: Feeds, tmp_path: Path):
    needed("cc")
    feeds = model_feeds(name)
    shapes = {key: array.shape for key, array in feeds.items()}
    values = {key: feeds[key] for key in MODELS[name]}
    bundle = built(shared_models / f"{name}.onnx", tmp_path, shapes=shapes, values=values)
    check_bits(bundle, feeds, tmp_path)


@pytest.mark.parametrize("machine", OTHERS, ids=lambda m: m.architecture)
@pytest.mark.parametrize("kind", ["so", "obj"])
def test_golden_vectors_under_emulation(machine: Machine, kind: str, tmp_path: Path):
    needed(machine.compiler, *machine.runner[:1])
    bundle = built(affine(), tmp_path, f"cpu:{machine.architecture}")
    library, _ = emit_library(bundle, kind, tmp_path / ("libaffine.so" if kind == "so" else "affine.o"))
    source = tmp_path / "main.c"
    source.write_text('#include "affine.h"\nint main(void) { return affine_verify(); }\n', encoding="ascii")
    link = [f"-Wl,-rpath,{tmp_path}"] if kind == "so" else ["-static"]
    program = compiled(
        tmp_path / "main", machine.compiler, [source, library], *STRICT, f"-I{tmp_path}", *link
    )
    root = ["-L", f"/usr/{machine.compiler.removesuffix('-gcc')}"] if kind == "so" else []
    done = run(*machine.runner, *root, program)
    assert done.returncode == 0, done.stderr


def test_types_and_names(tmp_path: Path):
    needed("cc", "g++")
    chosen = model(
        [
            helper.make_node("Where", ["arena", "x", "X"], ["context"]),
            helper.make_node("Cast", ["int"], ["a/b"], to=TensorProto.DOUBLE),
            helper.make_node("Not", ["arena"], ["*/ not"]),
            helper.make_node("Neg", ["8 bits"], ["model_run"]),
        ],
        [
            ("arena", TensorProto.BOOL, [2, 3]),
            ("x", TensorProto.FLOAT16, [2, 3]),
            ("X", TensorProto.FLOAT16, [2, 3]),
            ("int", TensorProto.INT64, [4]),
            ("8 bits", TensorProto.INT8, [5]),
        ],
        [
            ("context", TensorProto.FLOAT16, [2, 3]),
            ("a/b", TensorProto.DOUBLE, [4]),
            ("*/ not", TensorProto.BOOL, [2, 3]),
            ("model_run", TensorProto.INT8, [5]),
        ],
    )
    random = np.random.default_rng(1)
    feeds = {
        "arena": random.integers(0, 2, (2, 3)).astype(bool),
        "x": random.standard_normal((2, 3)).astype(np.float16),
        "X": random.standard_normal((2, 3)).astype(np.float16),
        "int": np.array([1, -2, 3, 1 << 40]),
        "8 bits": np.array([1, -2, 3, -128, 127], np.int8),
    }
    check_bits(built(chosen, tmp_path), feeds, tmp_path)
    header = (tmp_path / "model.h").read_text(encoding="ascii")
    parameters = "uint8_t *arena_2, const uint16_t *x, const uint16_t *X_2, const int64_t *value_int"
    parameters += ", const int8_t *value_8_bits, uint16_t *context_2, double *a_b, uint8_t *value_not"
    assert f"int model_run(const {parameters}, int8_t *model_run_2);" in header
    strict = ["-std=c++17", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror", "-fsyntax-only"]
    done = run("g++", *strict, "-xc++", tmp_path / "model.h")
    assert done.returncode == 0, done.stderr


def test_an_input_of_one_value(tmp_path: Path):
    needed("cc")
    bundle = built(reshape_by_input(), tmp_path, shapes={"x": (2, 3)}, values={"shape": [3, 2]})
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    check_bits(bundle, {"x": x, "shape": np.array([3, 2])}, tmp_path)
    library = ctypes.CDLL(str(tmp_path / "libmodel.so"))
    arrays = [x, np.array([6, 1]), np.zeros(6, np.float32)]
    assert called(library, "model_run", arrays) == 8
    library.model_error.restype = ctypes.c_char_p
    assert b"'shape' is not the value" in library.model_error()
