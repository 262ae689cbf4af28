"""Bundles as sessions run them: what they say of themselves, what they refuse, and what they do without."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_models import affine, model

from tinyinfer import GraphOptimizationLevel, InferenceSession, Limits, SessionOptions
from tinyinfer.bundle.build import BuildOptions, build_bundle
from tinyinfer.bundle.container import LARGE_BYTES, Container
from tinyinfer.bundle.describe import describe_bundle
from tinyinfer.bundle.devices import NoTarget
from tinyinfer.bundle.recognise import is_bundle
from tinyinfer.bundle.targets import find_targets
from tinyinfer.bundle.verify import verify_bundle
from tinyinfer.errors import Fail, InvalidArgument, InvalidBundle, NoSuchFile, NotImplemented

REPOSITORY = Path(__file__).resolve().parents[2]
X = np.array([[1, 2, 3]], np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A bundle of y = x W + b and z = -y, for this machine."""
    made = tmp_path_factory.mktemp("bundles") / "affine.tinf"
    proto = affine()
    proto.metadata_props.add(key="stage", value="test")
    build_bundle(proto, find_targets(["CPU"]), made)
    return made


def test_recognised_by_its_first_bytes(path, tmp_path):
    assert is_bundle(path) and is_bundle(str(path)) and is_bundle(path.read_bytes())
    (tmp_path / "model.tinf").write_bytes(affine().SerializeToString())
    assert not is_bundle(tmp_path / "model.tinf") and not is_bundle(tmp_path / "none") and not is_bundle(None)
    assert not is_bundle(b"\x89TINF") and not is_bundle(tmp_path)


def test_session_from_a_path_and_from_bytes(path):
    wanted = InferenceSession(affine().SerializeToString()).run(None, {"x": X})
    for source in (path, str(path), path.read_bytes(), bytearray(path.read_bytes())):
        session = InferenceSession(source)
        for _ in range(2):
            got = session.run(None, {"x": X})
            assert all(np.array_equal(a, b) for a, b in zip(got, wanted, strict=True))
        assert np.array_equal(session.run(["z"], {"x": X})[0], wanted[1])


def test_what_it_says_of_itself(path):
    session = InferenceSession(path)
    (x,) = session.get_inputs()
    assert (x.name, x.type, x.shape) == ("x", "tensor(float)", [1, 3])
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("y", [1, 2]), ("z", [1, 2])]
    meta = session.get_modelmeta()
    assert (meta.producer_name, meta.version, meta.description) == ("tests", 7, "what it is for")
    assert meta.custom_metadata_map == {"stage": "test"}
    assert session.get_providers() == ["CPU"] and session.get_overridable_initializers() == []
    assert session.compile().peak_bytes > 0
    assert "plan" not in session.compile().stages() or session.compile().stages()
    assert len(session.profile({"x": X}, 2)) >= 1


def test_other_shapes_are_refused_with_those_it_holds(path):
    session = InferenceSession(path)
    session.run(None, {"x": X})
    with pytest.raises(InvalidArgument, match=r"dimension 0 is 2, expected 1.*compiled for x \[1, 3\]"):
        session.run(None, {"x": np.zeros((2, 3), np.float32)})
    with pytest.raises(InvalidArgument, match=r"compiled for x \[1, 3\]"):
        session.compile({"x": (2, 3)})
    with pytest.raises(InvalidArgument, match="no input is called 'q'"):
        session.compile({"q": (1,)})
    options = SessionOptions()
    options.add_input_shape("x", (4, 3))
    with pytest.raises(InvalidArgument, match="compiled for"):
        InferenceSession(path, options)


def test_devices_and_options(path):
    assert InferenceSession(path, providers=["CUDAExecutionProvider", "CPUExecutionProvider"]).run(
        None, {"x": X}
    )
    with pytest.raises(ValueError, match="run on the CPU"):
        InferenceSession(path, providers=["REFERENCE"])
    with pytest.raises(ValueError, match="unknown device"):
        InferenceSession(path, providers=["TOASTER"])
    options = SessionOptions(graph_optimization_level=GraphOptimizationLevel.ORT_DISABLE_ALL)
    with pytest.raises(InvalidArgument, match="compiled already"):
        InferenceSession(path, options)
    with pytest.raises(Fail, match="max_bytes = 10"):
        InferenceSession(path, limits=Limits(max_bytes=10))
    with pytest.raises(NotImplemented, match="no graph"):
        InferenceSession(path).graph()


def test_profiling(path, tmp_path):
    options = SessionOptions(enable_profiling=True, profile_file_prefix=str(tmp_path / "trace"))
    session = InferenceSession(path, options)
    session.run(None, {"x": X})
    assert "model_run" in Path(session.end_profiling()).read_text()


def test_no_target_for_this_machine(tmp_path):
    path = tmp_path / "a.tinf"
    build_bundle(affine(), find_targets(["cpu:aarch64", "cpu:riscv64"]), path)
    if find_targets(["CPU"])[0].architecture != "x86_64":
        pytest.skip("the machine of this test must be an x86-64")
    with pytest.raises(
        NoTarget, match=r"aarch64: is for aarch64.*riscv64: is for riscv64.*This machine: x86_64"
    ):
        InferenceSession(path)
    facts = describe_bundle(Container.open(path))
    assert [(t["name"], t["runs_here"]) for t in facts["targets"]] == [("aarch64", False), ("riscv64", False)]


def test_the_best_target_is_taken(path):
    assert verify_bundle(path).target == find_targets(["CPU"])[0].name


def test_damage_is_refused(path, tmp_path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    with pytest.raises(InvalidBundle):
        InferenceSession(bytes(content))
    with pytest.raises(InvalidBundle):
        InferenceSession(path.read_bytes()[:-1])
    with pytest.raises(NoSuchFile):
        InferenceSession(tmp_path / "none.tinf")


def test_damage_of_large_weights_is_found_before_anything_runs(tmp_path):
    from onnx import TensorProto, helper

    size = 600
    weights = np.random.default_rng(0).random((size, size), np.float32)
    large = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", TensorProto.FLOAT, [1, size])],
        [("y", TensorProto.FLOAT, [1, size])],
        [("w", weights)],
    )
    path = tmp_path / "a.tinf"
    build_bundle(large, find_targets(["CPU"]), path, BuildOptions(golden=False))
    entry = Container.open(path).get("WGHT")
    assert entry is not None and entry.size > LARGE_BYTES
    content = bytearray(path.read_bytes())
    content[entry.offset + entry.size // 2] ^= 1
    for damaged in (bytes(content), bytes(content) + b"x"):
        with pytest.raises(InvalidBundle):
            InferenceSession(damaged)
    with pytest.raises(InvalidBundle, match="WGHT does not match"):
        InferenceSession(bytes(content))


def test_signatures(path, tmp_path):
    pytest.importorskip("cryptography", reason="the extra `sign` is not installed")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from tinyinfer.bundle.signature import signer

    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    signed = tmp_path / "signed.tinf"
    build_bundle(affine(), find_targets(["CPU"]), signed, BuildOptions(signer=signer(pem)))
    assert InferenceSession(signed, trusted_keys=[public], require_signature=True).run(None, {"x": X})
    assert verify_bundle(signed, [public]).signed_by == public.hex()
    with pytest.raises(InvalidBundle, match="trusted"):
        InferenceSession(signed, trusted_keys=[bytes(32)])
    for options in ({"require_signature": True}, {"trusted_keys": [public]}):
        with pytest.raises(InvalidBundle, match="not signed"):
            InferenceSession(path, **options)
        with pytest.raises(InvalidArgument, match="no signature"):
            InferenceSession(affine(), **options)


_WITHOUT_COMPILER = """
import sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("onnx", "llvmlite", "google", "cryptography"):
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Forbidden())
import numpy as np
import tinyinfer
session = tinyinfer.InferenceSession(sys.argv[1])
print(session.run(None, {"x": np.array([[1, 2, 3]], np.float32)})[0].tolist())
from cli.main import main
for command in (["run", sys.argv[1]], ["verify", sys.argv[1]], ["inspect", sys.argv[1]],
                ["bench", sys.argv[1], "--runs", "2"]):
    try:
        main(command)
    except SystemExit as stop:
        assert not stop.code, command
"""


def test_runs_where_neither_onnx_nor_a_compiler_is(path):
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_COMPILER, str(path)],
        capture_output=True,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(REPOSITORY)),
    )
    assert done.returncode == 0, done.stderr
    wanted = InferenceSession(affine()).run(None, {"x": X})[0].tolist()
    assert done.stdout.startswith(str(wanted))
    assert "verified" in done.stdout


def test_launches_are_described(path):
    facts = describe_bundle(Container.open(path))
    assert {node for launch in facts["launches"] for node in launch["nodes"]} == {"gemm", "negate"}
    assert sum(launch["weight_bytes"] for launch in facts["launches"]) > 0
    code = sum(launch["code_bytes"] for launch in facts["launches"])
    assert 0 < code < next(t["code_bytes"] for t in facts["targets"] if t["chosen"])
    shown = facts["targets"][-1]["name"]
    assert describe_bundle(Container.open(path), shown)["shown_target"] == shown
    with pytest.raises(LookupError, match="z80"):
        describe_bundle(Container.open(path), "z80")


def test_a_model_without_inputs(tmp_path):
    from onnx import TensorProto, helper

    constant = model(
        [helper.make_node("Identity", ["c"], ["y"], name="same")],
        [],
        [("y", TensorProto.FLOAT, [2])],
        [("c", np.array([1, 2], np.float32))],
    )
    build_bundle(constant, find_targets(["CPU"]), tmp_path / "a.tinf")
    assert InferenceSession(tmp_path / "a.tinf").run(None, {})[0].tolist() == [1, 2]
    assert verify_bundle(tmp_path / "a.tinf").passed
