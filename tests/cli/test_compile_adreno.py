"""`tinyinfer compile --device qcom:GPU`: OpenCL C, and the check of its kernels."""

import json

import onnx
import pytest
from click.testing import CliRunner
from small_models import channel_means

from cli.main import main
from tinyinfer import config


def call(*arguments):
    return CliRunner().invoke(main, ["compile", "picture.onnx", *arguments])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    onnx.save(channel_means(), tmp_path / "picture.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_a_mesa_tree_the_output_says_that_nothing_was_checked(folder, monkeypatch):
    monkeypatch.delenv(config.MESA_VARIABLE, raising=False)
    result = call("--device", "qcom:a630")
    assert result.exit_code == 0, result.output
    assert "this check was not made" in result.stdout and "TINYINFER_MESA" in result.stdout
    assert "__kernel" in (folder / "picture.qcom-a630.cl").read_text()
    facts = json.loads(call("--device", "qcom:660", "--json", "-o", "other.cl").stdout)
    assert facts["gpu"] == "a660" and not facts["checked"] and facts["reason"] and facts["kernels"] == []


@pytest.mark.skipif(config.mesa_tree() is None, reason="no Mesa tree (TINYINFER_MESA)")
def test_each_kernel_has_a_line_with_its_onnx_names():
    result = call("--device", "qcom:a740")
    assert result.exit_code == 0, result.output
    assert "registers" in result.stdout and "kernels, 0 that spill" in result.stdout
    facts = json.loads(call("--device", "qcom:a740", "--json").stdout)
    assert facts["checked"] and all(k["waves"] > 0 and k["instructions"] > 0 for k in facts["kernels"])
    assert any(k["computes"] for k in facts["kernels"])


@pytest.mark.parametrize(
    "arguments,words",
    [
        (("--device", "qcom:a999"), ("a999", "a630")),
        (("--device", "qcom:a630", "--device", "CPU"), ("qcom:a630", "no other --device")),
        (("--device", "qcom:a630", "--no-golden"), ("--no-golden", "bundles")),
    ],
)
def test_what_cannot_be_is_refused(arguments, words, folder):
    result = call(*arguments)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1, result.output
    assert all(word in result.stderr for word in words)
    assert not list(folder.glob("*.cl"))
