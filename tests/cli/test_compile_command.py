"""`tinyinfer compile`, `verify`, and the other commands on bundles."""

import json
import os
import shutil

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from small_models import affine, channel_means, model, reshape_by_input, sum_of_two

from cli.main import main
from tinyinfer.bundle.targets import find_targets


def call(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def assert_refused(result, *words):
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("tinyinfer: error: ") and result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with models in it."""
    for name, made in {
        "affine": affine(),
        "sum": sum_of_two(),
        "shape": reshape_by_input(),
        "picture": channel_means(),
    }.items():
        onnx.save(made, tmp_path / f"{name}.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def bundle(folder):
    assert call("compile", "affine.onnx", "-o", "affine.tinf").exit_code == 0
    return folder / "affine.tinf"


def test_compile_says_what_it_made(folder):
    result = call("compile", "affine.onnx")
    assert result.exit_code == 0, result.output
    assert "open dimensions were taken as 1: x [1, 3]" in result.stdout
    for word in ("affine.tinf", "WGHT", "golden y", "golden z", "at peak"):
        assert word in result.stdout
    assert result.stderr == ""


def test_compile_json(folder):
    targets = ["--device", "cpu:x86_64-v3", "--device", "cpu:aarch64:cortex-a76"]
    result = call("compile", "affine.onnx", "-o", "a.tinf", *targets, "--shape", "x:4x3", "--json")
    facts = json.loads(result.stdout)
    assert facts["size"] == os.path.getsize("a.tinf")
    assert [t["name"] for t in facts["targets"]] == ["x86_64-v3", "aarch64:cortex-a76"]
    assert facts["notes"] == [] and {e["name"] for e in facts["errors"]} == {"y", "z"}
    assert call("compile", "affine.onnx", "--no-golden", "--stored-weights", "expanded").exit_code == 0


def test_fixed_values_and_golden_inputs(folder):
    np.save("x.npy", np.arange(6, dtype=np.float32).reshape(2, 3))
    result = call(
        "compile", "shape.onnx", "--value", "shape=[3, 2]", "--input", "x=x.npy", "--shape", "x:2x3"
    )
    assert result.exit_code == 0, result.output
    result = call("run", "shape.tinf", "--input", "x=x.npy", "--json")
    assert json.loads(result.stdout)["outputs"][0]["shape"] == [3, 2]
    np.save("s.npy", np.array([2, 3]))
    assert_refused(
        call("run", "shape.tinf", "x.npy", "--input", "shape=s.npy"), "'shape'", "[3, 2]", "[2, 3]"
    )
    assert call("compile", "shape.onnx", "--value", "shape=s.npy", "--shape", "x:2x3").exit_code == 0


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["shape.onnx"], ["'reshape'", "--value shape="]),
        (["none.onnx"], ["none.onnx"]),
        (["affine.onnx", "--device", "GPU"], ["--device", "GPU"]),
        (["affine.onnx", "--device", "cpu:z80"], ["--device", "z80"]),
        (["affine.onnx", "--shape", "x:4"], ["'x'"]),
        (["affine.onnx", "--shape", "x:1x3", "--shape", "x:2x3"], ["x", "twice"]),
        (["affine.onnx", "--shape", "q:1"], ["'q'"]),
        (["affine.onnx", "--value", "x"], ["--value", "NAME="]),
        (["affine.onnx", "--value", "x=y"], ["--value", "number"]),
        (["affine.onnx", "--value", "x=[[1], 2]"], ["--value"]),
        (["affine.onnx", "--input", "x=none.npy"], ["none.npy"]),
        (["affine.onnx", "--input", "x=affine.onnx"], ["affine.onnx"]),
        (["affine.onnx", "--max-memory", "10"], ["limit of 10"]),
        (["affine.onnx", "--max-memory", "much"], ["--max-memory"]),
        (["affine.onnx", "--sign", "none.pem"], ["none.pem"]),
        (["affine.onnx", "--tune", "soon"], ["--tune", "soon"]),
        (["affine.onnx", "--tune=0"], ["--tune"]),
        (["affine.onnx", "--tune-from", "none.tinf"], ["none.tinf"]),
        (["affine.onnx", "--tune-from", "sum.onnx"], ["sum.onnx", "no bundle"]),
        (["affine.onnx", "--emit", "c", "--tune"], ["--tune", "--emit c"]),
        (["affine.onnx", "--precision", "fp16"], ["--precision fp16", "fp32"]),
        (["affine.onnx", "-o", "no/such/a.tinf"], ["no/such"]),
        (["affine.onnx", "-o", "."], ["directory"]),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(folder, arguments, words):
    before = sorted(os.listdir())
    assert_refused(call("compile", *arguments), *words)
    assert sorted(os.listdir()) == before


def test_c_sources(folder):
    result = call("compile", "affine.onnx", "--emit", "c", "--shape", "x:2x3")
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir("affine_c")) == ["affine.c", "affine.h", "affine_weights.c"]
    assert "static RAM" in result.stdout and "weights 32 bytes" in result.stdout
    facts = json.loads(
        call("compile", "affine.onnx", "--emit", "c", "-o", "other", "--c-weights", "binary", "--json").stdout
    )
    assert sorted(os.listdir("other")) == sorted(facts["files"])
    assert facts["weight_bytes"] == 32 and "x [1, 3]" in facts["notes"][0]
    for wrong in (["--device", "CPU"], ["--sign", "key"], ["--no-golden"], ["-o", "affine.onnx"]):
        assert_refused(call("compile", "affine.onnx", "--emit", "c", *wrong))
    assert_refused(call("compile", "affine.onnx", "--c-arena", "caller"), "--c-arena", "bundle")


def test_c_sources_say_what_a_compiler_makes_of_them(folder):
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed")
    flags = ["--emit", "c", "--c-machine", "microcontroller", "--cc", f"{compiler} -Os"]
    facts = json.loads(call("compile", "affine.onnx", *flags, "--json").stdout)
    assert facts["compiled"]["compiler"] == "gcc -Os"
    assert facts["compiled"]["data"] + facts["compiled"]["bss"] == facts["ram_bytes"]
    for command, word in (("none-such", "none-such"), ("", "no compiler"), ("'cc", "quotation")):
        result = call("compile", "affine.onnx", "--emit", "c", "-o", "failed", "--cc", command)
        assert result.exit_code and word in result.stderr and not os.path.exists("failed")
    assert_refused(call("compile", "affine.onnx", "--cc", "cc"), "--cc", "bundle")


def test_an_input_that_shapes_depend_on_is_checked_in_c(folder):
    arguments = ["shape.onnx", "--emit", "c", "--shape", "x:2x6", "--value", "shape=[3,4]"]
    result = call("compile", *arguments)
    assert result.exit_code == 0, result.output
    text = open("shape_c/shape.c").read()
    assert "INT64_C(3), INT64_C(4)" in text and "SHAPE_OTHER_VALUE" in text


def test_measured_schedules_are_said_and_taken_up_again(folder):
    weights = np.random.default_rng(0).standard_normal((8, 40)).astype(np.float32)
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    floats = onnx.TensorProto.FLOAT
    made = model([node], [("x", floats, [5, 8])], [("y", floats, [5, 40])], [("w", weights)])
    onnx.save(made, "product.onnx")
    target = find_targets(["CPU"])[0].name
    result = call("compile", "product.onnx", "--tune", "--device", f"cpu:{target}", "-o", "a.tinf")
    assert result.exit_code == 0, result.output
    assert f"{target}: 1 kernel with measured schedules" in result.stdout
    again = ["--tune-from", "a.tinf", "--device", f"cpu:{target}", "-o", "b.tinf"]
    assert call("compile", "product.onnx", *again).exit_code == 0
    assert (folder / "a.tinf").read_bytes() == (folder / "b.tinf").read_bytes()
    assert call("compile", "affine.onnx", "-o", "c.tinf").exit_code == 0
    assert_refused(call("compile", "product.onnx", "--tune-from", "c.tinf"), "c.tinf", "--tune")


def test_a_bundle_is_no_model_to_compile(bundle):
    assert_refused(call("compile", bundle, "-o", "b.tinf"), "is a bundle already")


def test_an_old_bundle_survives_a_failing_compilation(bundle):
    before = bundle.read_bytes()
    assert_refused(call("compile", "affine.onnx", "-o", bundle, "--max-memory", "1"))
    assert bundle.read_bytes() == before


def test_verify(bundle):
    result = call("verify", bundle)
    assert result.exit_code == 0 and "verified" in result.stdout
    facts = json.loads(call("verify", bundle, "--json").stdout)
    assert facts["passed"] and [o["name"] for o in facts["outputs"]] == ["y", "z"]
    assert facts["signed_by"] is None
    assert_refused(call("verify", bundle, "--require-signature"), "not signed")
    assert_refused(call("verify", "affine.onnx"), "not a bundle")
    assert_refused(call("verify", "none.tinf"), "none.tinf")
    cut = bundle.with_name("cut.tinf")
    cut.write_bytes(bundle.read_bytes()[:-100])
    assert_refused(call("verify", cut), "cut short")


def test_verify_fails_where_the_machine_computes_something_else(bundle, monkeypatch):
    from tinyinfer.backends.cpu.executable import CpuExecutable

    real = CpuExecutable.run
    monkeypatch.setattr(CpuExecutable, "run", lambda self, feeds: [x + 1 for x in real(self, feeds)])
    result = call("verify", bundle)
    assert result.exit_code == 1 and "FAILED" in result.stdout and "WRONG" in result.stdout


def test_signed_bundles(folder):
    pytest.importorskip("cryptography", reason="the extra `sign` is not installed")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    (folder / "private.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (folder / "public.pem").write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    assert call("compile", "affine.onnx", "-o", "a.tinf", "--sign", "private.pem").exit_code == 0
    result = call("verify", "a.tinf", "--key", "public.pem")
    assert result.exit_code == 0 and "signed by" in result.stdout
    assert_refused(call("verify", "a.tinf", "--key", "affine.onnx"), "key")
    assert "signed by" in call("inspect", "a.tinf").stdout


def test_a_target_for_opencl_devices(bundle):
    result = call("compile", "affine.onnx", "--device", "OPENCL", "-o", "gpu.tinf")
    assert result.exit_code == 0, result.output
    assert "  opencl: " in result.stdout
    assert "opencl: is for OpenCL devices" in call("inspect", "gpu.tinf").stdout
    assert_refused(call("verify", "gpu.tinf"), "runs where one is asked for")
    assert_refused(call("verify", "gpu.tinf", "--device", "opencl:none-such"), "--device", "OPENCL:NONE-SUCH")
    assert_refused(call("verify", bundle, "--device", "TOASTER"), "unknown device 'TOASTER'")
    refused = call("compile", "affine.onnx", "--device", "OPENCL", "--emit", "so", "-o", "gpu.so")
    assert_refused(refused, "holds code for processors")
    assert_refused(call("compile", "affine.onnx", "--device", "METAL"), "neither CPU, cpu:TARGET, OPENCL")


def test_other_commands_take_bundles(bundle):
    for command in (["run"], ["bench", "--runs", "2", "--warmup", "1"], ["inspect"], ["inspect", "-v"]):
        result = call(command[0], bundle, *command[1:])
        assert result.exit_code == 0, result.output
    facts = json.loads(call("inspect", bundle, "--json").stdout)
    assert {s["kind"] for s in facts["sections"]} >= {"MANI", "PLAN", "CODE", "WIDX", "WGHT", "GOLD"}
    assert any(t["chosen"] for t in facts["targets"])
    assert_refused(call("inspect", bundle, "--target", "z80"), "z80")
    assert_refused(call("inspect", "affine.onnx", "--target", "x86_64-v3"), "no bundle")
    assert_refused(call("run", bundle, "--shape", "x:2x3"), "compiled for x [1, 3]")
    assert_refused(call("run", bundle, "--unfused"), "compiled already")
    assert_refused(call("run", bundle, "--device", "REFERENCE"), "run on the CPU")
    assert_refused(call("explain", bundle), "no graph")
