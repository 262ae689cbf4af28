"""The examples, built and run with the commands at their top."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from c_tools import REPOSITORY, needed
from onnx import TensorProto, helper
from small_models import model

from tinyinfer import InferenceSession

EXAMPLES = REPOSITORY / "examples"


def classifier() -> onnx.ModelProto:
    """scores[1, 1000] = means of the channels of image[1, 3, 224, 224] · W."""
    weights = np.random.default_rng(5).standard_normal((3, 1000)).astype(np.float32)
    return model(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["means"]),
            helper.make_node("Flatten", ["means"], ["flat"]),
            helper.make_node("MatMul", ["flat", "W"], ["scores"]),
        ],
        [("image", TensorProto.FLOAT, [1, 3, 224, 224])],
        [("scores", TensorProto.FLOAT, [1, 1000])],
        [("W", weights)],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the commands want it: sources, a model, two pictures, and the command line on its path."""
    made = tmp_path_factory.mktemp("examples")
    for name in ("examples", "tinyinfer"):
        (made / name).symlink_to(REPOSITORY / name)
    onnx.save(classifier(), made / "classifier.onnx")
    random = np.random.default_rng(6)
    for name in ("image", "other"):
        random.standard_normal((1, 3, 224, 224)).astype(np.float32).tofile(made / f"{name}.bin")
    programs = made / "bin"
    programs.mkdir()
    for name, command in {"tinyinfer": "-m cli", "python": ""}.items():
        script = programs / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {command} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    return made


@pytest.fixture(scope="module")
def scores(folder: Path) -> dict[str, np.ndarray]:
    """What the session computes for each picture."""
    session = InferenceSession(str(folder / "classifier.onnx"))
    shape = (1, 3, 224, 224)
    pictures = {n: np.fromfile(folder / f"{n}.bin", np.float32).reshape(shape) for n in ("image", "other")}
    return {name: session.run(None, {"image": picture})[0][0] for name, picture in pictures.items()}


def commands(example: str) -> list[str]:
    """The indented lines of the comment or docstring at the top of an example."""
    text = (EXAMPLES / example).read_text(encoding="utf-8")
    head = text.split('"""')[1] if example.endswith(".py") else text.split("*/")[0]
    found = re.findall(r"^(?: \*   |    )(\S.*)$", head, re.MULTILINE)
    assert found, example
    return found


def run_all(example: str, folder: Path) -> list[str]:
    """What each of the commands prints."""
    needed("cc", "c++")
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(REPOSITORY)}
    printed = []
    for command in commands(example):
        done = subprocess.run(
            ["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        printed.append(done.stdout)
    return printed


def best(scores: np.ndarray) -> str:
    places = np.argsort(-scores, kind="stable")[:5]
    return "".join(f"{place} {scores[place]:.6g}\n" for place in places)


def test_classify_in_c(folder: Path, scores: dict[str, np.ndarray]):
    printed = run_all("classify.c", folder)
    assert [text for text in printed if re.match(r"\d", text)] == [best(scores["image"])] * 2


def test_classify_in_cpp(folder: Path, scores: dict[str, np.ndarray]):
    lines = run_all("classify.cpp", folder)[-1].splitlines()
    for line, (name, wanted) in zip(lines, scores.items(), strict=True):
        place = int(wanted.argmax())
        assert line == f"{name}.bin: class {place}, score {wanted[place]:.6f}"


def test_classify_in_python(folder: Path, scores: dict[str, np.ndarray]):
    assert run_all("classify.py", folder)[-1] == best(scores["image"])


def test_run_bundle_in_cpp(folder: Path, scores: dict[str, np.ndarray]):
    run_all("run_bundle.cpp", folder)
    np.testing.assert_array_equal(np.fromfile(folder / "scores.bin", np.float32), scores["image"])


@pytest.mark.parametrize("example", ["classify.c", "classify.cpp", "classify.py", "run_bundle.cpp"])
def test_examples_are_short(example: str):
    assert len((EXAMPLES / example).read_text(encoding="utf-8").splitlines()) < 80
