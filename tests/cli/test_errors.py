"""Bad input of every kind: one line on standard error, exit code 2, no traceback, nothing written."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from small_models import affine, sum_of_two, unsupported

from cli.main import main

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ["run", "inspect", "explain", "compare", "bench"]


@pytest.fixture
def model(tmp_path):
    onnx.save(affine(), tmp_path / "affine.onnx")
    return str(tmp_path / "affine.onnx")


def call(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def assert_one_line(result, *words):
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("tinyinfer: error: ") and result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("content", [None, b"", b"<html>no model</html>", "truncated", b"\0" * 100])
def test_files_that_are_no_models(tmp_path, model, command, content):
    path = tmp_path / "bad.onnx"
    if content is not None:
        path.write_bytes(Path(model).read_bytes()[:60] if content == "truncated" else content)
    assert_one_line(call(command, path), str(path))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_is_no_model(tmp_path, command):
    assert_one_line(call(command, tmp_path))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--shape", "x=1x3"], ["--shape", "NAME:SIZExSIZE"]),
        (["--shape", "x:1xq"], ["--shape 'x:1xq'"]),
        (["--shape", "x:-1x3"], ["--shape"]),
        (["--shape", "q:1x3"], ["'q'", "'x'"]),
        (["--shape", "x:1x4"], ["dimension 1 is 4, expected 3"]),
        (["--shape", "x:1x3x3"], ["rank"]),
        (["--input", "x"], ["--input 'x'", "NAME=FILE"]),
        (["--input", "q=random"], ["q", "no such input", "'x'"]),
        (["--input", "x=random", "--input", "x=random"], ["given twice"]),
        (["--input", "x=random:2:1"], ["LOW"]),
        (["--input", "x=random:a:b"], ["random:LOW:HIGH"]),
        (["--input", "x=nothing.npy"], ["nothing.npy", "No such file"]),
        (["--input", "x=nothing.npz"], ["nothing.npz", "No such file"]),
        (["--input", "x=nothing.pb"], ["nothing.pb", "No such file"]),
        (["--input", "x=nothing.txt"], ["nothing.txt", ".npy"]),
        (["--device", "QCOMM"], ["QCOMM", "available here: CPU, "]),
        (["--threads", "many"], ["--threads"]),
        (["--labels", "nothing.txt"], ["nothing.txt"]),
        (["--nonsense"], ["--nonsense"]),
    ],
)
def test_flags_of_run(model, arguments, words):
    assert_one_line(call("run", model, *arguments), *words)


@pytest.mark.parametrize(
    "array, words",
    [
        (np.zeros((1, 3)), ["tensor(double)", "tensor(float)"]),
        (np.zeros((1, 4), np.float32), ["dimension 1 is 4, expected 3"]),
        (np.zeros(3, np.float32), ["rank", "got 1"]),
        (np.array([{}], object), ["pickle"]),
    ],
)
def test_wrong_arrays_write_nothing(model, tmp_path, array, words):
    np.save(tmp_path / "x.npy", array)
    result = call("run", model, "--input", f"x={tmp_path}/x.npy", "--output", tmp_path / "out")
    assert_one_line(result, *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pb"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 no archive", b"\x93NUMPY\x01"])
def test_damaged_arrays(model, tmp_path, suffix, content):
    file = tmp_path / f"x{suffix}"
    file.write_bytes(content)
    assert_one_line(call("run", model, "--input", f"x={file}"), str(file))


def test_inputs_without_a_value_are_named(tmp_path):
    onnx.save(sum_of_two(), tmp_path / "sum.onnx")
    assert_one_line(call("run", tmp_path / "sum.onnx", "--input", "a=random"), "'b'", "--input b=FILE")


def test_unsupported_nodes_are_all_listed(tmp_path):
    onnx.save(unsupported(), tmp_path / "foo.onnx")
    result = call("run", tmp_path / "foo.onnx")
    assert result.exit_code == 2 and "Traceback" not in result.stderr
    assert "/blocks.3/foo" in result.stderr and "/blocks.3/bar" in result.stderr


def test_weights_that_are_not_beside_the_model(shared_models, tmp_path):
    lonely = tmp_path / "lonely.onnx"
    lonely.write_bytes((shared_models / "mnist_external.onnx").read_bytes())
    assert_one_line(call("run", lonely), "mnist.onnx.data")


def test_an_output_folder_that_is_a_file(model):
    assert_one_line(call("run", model, "--output", model), "--output")


def test_missing_arguments_and_unknown_commands():
    for arguments in (["run"], ["frobnicate"], ["bench", "--runs", "0", "x"], ["cache", "frobnicate"]):
        assert_one_line(call(*arguments))


def test_no_command_shows_the_help():
    result = call()
    assert result.exit_code == 2 and "Commands" in result.stderr


def test_tracebacks_are_for_those_who_ask_twice(tmp_path):
    quiet, loud = (call("run", tmp_path / "x.onnx", *flags) for flags in (["-v"], ["-v", "-v"]))
    assert "Traceback" not in quiet.stderr
    assert "Traceback" in loud.stderr and "tinyinfer: error: " in loud.stderr and loud.exit_code == 2


@pytest.mark.parametrize("arguments, code", [(["devices"], 0), (["run", "no.onnx"], 2), (["nonsense"], 2)])
def test_exit_codes_of_the_process(arguments, code):
    done = subprocess.run([sys.executable, "-m", "cli", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "run", "--help"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait()
