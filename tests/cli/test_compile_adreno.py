"""`tinyinfer compile --device QCOM`: bundles and OpenCL C for Adreno GPUs, and the check of their kernels."""

import json

import onnx
import pytest
from click.testing import CliRunner
from small_models import channel_means

from cli.main import main
from tinyinfer import config
from tinyinfer.bundle import kernel_check
from tinyinfer.errors import EPFail

NO_TREE = pytest.mark.skipif(config.mesa_tree() is None, reason="no Mesa tree (TINYINFER_MESA)")


def call(*arguments):
    return CliRunner().invoke(main, ["compile", "picture.onnx", *arguments])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    onnx.save(channel_means(), tmp_path / "picture.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_tree(monkeypatch):
    monkeypatch.delenv(config.MESA_VARIABLE, raising=False)


def test_a_bundle_says_that_nothing_was_checked(folder, no_tree):
    result = call("--device", "QCOM", "--no-golden")
    assert result.exit_code == 0, result.output
    said = [line for line in result.stdout.splitlines() if "this check was not made" in line]
    assert len(said) == 1 and "TINYINFER_MESA" in said[0]
    assert said[0].startswith("  qcom:a740, qcom:a660, qcom:a630, qcom:a702: ")
    shown = CliRunner().invoke(main, ["inspect", "picture.tinf"]).stdout
    assert "its kernels were not compiled for the GPU when it was made" in shown


def test_flags_of_bundles_mean_what_they_do_elsewhere(folder, no_tree):
    arguments = ["--device", "qcom:630", "--device", "CPU", "--stored-weights", "expanded", "--json"]
    result = call(*arguments, "-o", "two.tinf")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (folder / "two.tinf").stat().st_size == facts["size"]
    assert [t["name"] for t in facts["targets"]][0] == "qcom:a630"
    assert facts["targets"][0]["check"]["reason"] and list(facts["in_halves"]) == ["qcom:a630"]


def test_tuning_without_a_compiler_says_so_and_keeps_the_fixed_rules(folder, no_tree):
    plain = call("--emit", "opencl", "--device", "qcom:a630", "-o", "plain")
    tuned = call("--emit", "opencl", "--device", "qcom:a630", "-o", "tuned", "--tune", "1")
    assert plain.exit_code == tuned.exit_code == 0, tuned.output
    assert "qcom:a630: kernels cannot be tuned here: no compiler for Adreno GPUs" in tuned.stdout
    plain_text, tuned_text = ((folder / name / "qcom-a630.cl").read_text() for name in ("plain", "tuned"))
    assert plain_text == tuned_text


def test_source_in_a_folder(folder, no_tree):
    result = call("--emit", "opencl", "--device", "qcom:a630", "--device", "OPENCL")
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (folder / "picture_opencl").iterdir())
    assert names == ["opencl.cl", "qcom-a630.cl"]
    assert "__kernel" in (folder / "picture_opencl" / "qcom-a630.cl").read_text()
    facts = json.loads(call("--emit", "opencl", "--json", "-o", "plain").stdout)
    assert [t["name"] for t in facts["targets"]] == ["opencl"]
    assert "__kernel" in (folder / "plain" / "opencl.cl").read_text()


@NO_TREE
def test_each_kernel_has_a_line_with_its_onnx_names():
    result = call("--device", "qcom:a740", "--no-golden", "-v")
    assert result.exit_code == 0, result.output
    assert "registers" in result.stdout and "kernels compile for a740" in result.stdout
    facts = json.loads(call("--device", "qcom:a740", "--no-golden", "--json").stdout)
    kernels = facts["targets"][0]["check"]["by_kernel"]
    assert all(k["waves"] > 0 and k["instructions"] > 0 for k in kernels)
    assert any(k["computes"] for k in kernels)
    assert "kernels compile for a740 (mesa" in CliRunner().invoke(main, ["inspect", "picture.tinf"]).stdout


def test_a_kernel_that_does_not_compile_is_an_error(folder, monkeypatch):
    class Compiler:
        version = "none"

        def close(self):
            pass

    def refuse(plan, gpu):
        raise EPFail(f"kernel of mean does not compile for {gpu.name}:\nthe log")

    monkeypatch.setattr(kernel_check, "find_compiler", lambda gpu: (Compiler(), ""))
    monkeypatch.setattr(kernel_check, "compile_check", refuse)
    for emit in ("bundle", "opencl"):
        result = call("--device", "qcom:a630", "--emit", emit)
        assert result.exit_code == 2 and "mean does not compile for a630" in result.stderr
    assert [path.name for path in folder.iterdir()] == ["picture.onnx"]


@pytest.mark.parametrize(
    "arguments,words",
    [
        (("--device", "qcom:a999"), ("a999", "a630")),
        (("--device", "qcom:"), ("unknown Adreno GPU",)),
        (("--device", "QCOM", "--emit", "so"), ("processors", "qcom:a740")),
        (("--device", "QCOM", "--emit", "opencl", "--no-golden"), ("--no-golden", "--emit opencl")),
        (("--device", "CPU", "--emit", "opencl"), ("OPENCL and QCOM",)),
    ],
)
def test_what_cannot_be_is_refused(arguments, words, folder):
    result = call(*arguments)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1, result.output
    assert all(word in result.stderr for word in words)
    assert [path.name for path in folder.iterdir()] == ["picture.onnx"]
