"""More of what can be wrong with a command line or the files that it names: one line, exit code 2, no trace.

`test_errors.py` has the common mistakes; here are files of every kind where a model belongs, models that end
too early, flags at their limits, folders that cannot be written, and caches that cannot be used.
"""

import os
import sys

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, numpy_helper
from small_models import affine, channel_means, one_node, unsupported

from cli.main import main
from tinyinfer.config import CACHE_VARIABLE

COMMANDS = ["run", "inspect", "explain", "compare", "bench"]


def call(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def assert_refused(result, *words):
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("tinyinfer: error: ") and result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with models in it; afterwards it must hold what it held."""
    for name, model in {
        "affine": affine(),
        "picture": channel_means(),
        "integer": one_node("Neg", TensorProto.INT64),
        "byte": one_node("Identity", TensorProto.UINT8),
        "unsupported": unsupported(),
    }.items():
        onnx.save(model, tmp_path / f"{name}.onnx")
    (tmp_path / "file").write_text("some text")
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir())
    yield tmp_path
    assert sorted(set(os.listdir()) - {"given"}) == before


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("path", ["", ".", "file", "file/a.onnx", "no/such/a.onnx", os.devnull])
def test_what_is_no_model_file(folder, command, path):
    assert_refused(call(command, path))


@pytest.mark.parametrize("command", COMMANDS)
def test_random_bytes(folder, command):
    generator = np.random.default_rng(1)
    (folder / "given").mkdir()
    for size in (1, 7, 64, 5000):
        (folder / "given" / "random.onnx").write_bytes(generator.bytes(size))
        assert_refused(call(command, folder / "given" / "random.onnx"), "random.onnx")


@pytest.mark.parametrize("name", ["affine", "mnist_cntk", "if_branch"])
def test_models_that_end_too_early(folder, name, request):
    place = folder if name == "affine" else request.getfixturevalue("shared_models")
    content = (place / f"{name}.onnx").read_bytes()
    path = folder / "given"
    for length in sorted({*range(0, 64, 9), *np.linspace(64, len(content) - 1, 24).astype(int).tolist()}):
        path.write_bytes(content[:length])
        assert_refused(call("inspect", path), "given")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "flags, words",
    [
        (["--device", ""], []),
        (["--shape", ""], ["NAME:SIZExSIZE"]),
        (["--shape", ":1x3"], ["NAME:SIZExSIZE"]),
        (["--shape", "x:1x3", "--shape", "x:2x3"], ["--shape x", "given twice"]),
        (["--shape", "x:99999999999x3"], []),
        (["--shape", "x:99999999999999999999999x3"], []),
        (["--threads", "-1"], ["--threads"]),
        (["--max-memory", "much"], ["--max-memory", "512M"]),
        (["--max-memory", "-1"], ["--max-memory"]),
        (["--max-memory", "1"], ["max_bytes = 1"]),
    ],
)
def test_flags_of_sessions(folder, command, flags, words):
    if command == "inspect":
        pytest.skip("it opens no session")
    assert_refused(call(command, "affine.onnx", *flags), *words)


@pytest.mark.parametrize("source", ["-inf:inf", "0:inf", "nan:1", "2:1", "1:1", "1:2:3", ":", "a:b"])
@pytest.mark.parametrize("model", ["affine", "integer"])
def test_random_numbers_from_no_range(folder, model, source):
    assert_refused(call("run", f"{model}.onnx", "--input", f"x=random:{source}"), "LOW")


@pytest.mark.parametrize("model, source", [("integer", "1e30:2e30"), ("byte", "300:400"), ("byte", "-9:-3")])
def test_random_integers_that_the_type_does_not_have(folder, model, source):
    assert_refused(call("run", f"{model}.onnx", "--input", f"x=random:{source}"), "lies there")


def test_random_integers_stay_in_their_range(folder):
    result = call("run", "integer.onnx", "--input", "x=random:-1e30:1e30")
    assert result.exit_code == 0


def tensor(**fields):
    made = numpy_helper.from_array(np.zeros((1, 3), np.float32))
    for name, value in fields.items():
        if name == "dims":
            made.dims[:] = value
        else:
            setattr(made, name, value)
    return made.SerializeToString()


@pytest.mark.parametrize(
    "name, content",
    [
        ("dims.pb", tensor(dims=[7, 3])),
        ("negative.pb", tensor(dims=[-1, 3])),
        ("type.pb", tensor(data_type=99)),
        ("untyped.pb", tensor(data_type=0)),
        ("external.pb", tensor(data_location=TensorProto.EXTERNAL)),
        ("picture.png", b"\x89PNG\r\n\x1a\nrubbish"),
        ("picture.jpg", b""),
        ("noend", b""),
    ],
)
def test_inputs_that_cannot_be_read(folder, name, content):
    (folder / "given").mkdir()
    file = folder / "given" / name
    file.write_bytes(content)
    model = "picture.onnx" if name.startswith("picture") else "affine.onnx"
    feed = "image" if name.startswith("picture") else "x"
    assert_refused(call("run", model, "--input", f"{feed}={file}"), name)


@pytest.mark.parametrize("name", ["picture.png", "picture.gif"])
def test_pictures_that_end_too_early(folder, name):
    image = pytest.importorskip("PIL.Image")
    (folder / "given").mkdir()
    file = folder / "given" / name
    image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(file)
    content = file.read_bytes()
    for part in (0.01, 0.3, 0.6):
        file.write_bytes(content[: int(len(content) * part)])
        assert_refused(call("run", "picture.onnx", file), name)


@pytest.mark.parametrize(
    "flags",
    [
        ["--scale", "nan"],
        ["--scale", "inf"],
        ["--std", "nan,1,1"],
        ["--std", "0,1,1"],
        ["--mean", "inf,0,0"],
        ["--mean", ""],
    ],
)
def test_numbers_for_pictures(folder, flags):
    image = pytest.importorskip("PIL.Image")
    (folder / "given").mkdir()
    image.new("RGB", (5, 4)).save(folder / "given" / "black.png")
    assert_refused(call("run", "picture.onnx", "given/black.png", *flags), flags[0])


@pytest.mark.parametrize("place", ["file", "file/below", ""])
def test_output_folders_that_cannot_be(folder, place):
    assert_refused(call("run", "affine.onnx", "--output", place), "--output")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a folder that nobody can write to")
def test_an_output_folder_that_nobody_can_write_to(folder):
    assert_refused(call("run", "affine.onnx", "--output", "/proc/tinyinfer"), "--output")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is read-only for root")
def test_an_output_folder_without_permission(folder):
    (folder / "given").mkdir(mode=0o500)
    assert_refused(call("run", "affine.onnx", "--output", folder / "given"), "given")
    assert_refused(call("run", "affine.onnx", "--output", folder / "given" / "more"), "given")


def test_nothing_is_written_where_the_feed_is_wrong(folder):
    (folder / "given").mkdir()
    np.save(folder / "given" / "x.npy", np.zeros((1, 4), np.float32))
    assert_refused(call("run", "affine.onnx", "--input", "x=given/x.npy", "--output", "out"), "dimension 1")


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/none"])
def test_a_cache_that_cannot_be_written_costs_only_time(folder, monkeypatch, place):
    monkeypatch.setenv(CACHE_VARIABLE, place)
    result = call("run", "affine.onnx")
    assert result.exit_code == 0 and result.stderr == ""


@pytest.mark.parametrize("command", ["run", "explain", "compare", "bench"])
def test_unsupported_models_name_every_node(folder, command):
    """The one error of several lines: each node has its own."""
    result = call(command, "unsupported.onnx")
    assert result.exit_code == 2 and result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith("tinyinfer: error: Could not find an implementation for nobody.Foo")
    assert "/blocks.3/foo" in first and "/blocks.3/bar" in second
