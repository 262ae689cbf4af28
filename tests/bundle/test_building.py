"""Bundles from models: what is refused, what is in them, that they are the same each time, and that real ones
compute what a session does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_models import affine, model, one_node, overridable, reshape_by_input, sum_of_two, unsupported

from tinyinfer import InferenceSession, SessionOptions
from tinyinfer.bundle.build import BuildOptions, build_bundle
from tinyinfer.bundle.container import Container
from tinyinfer.bundle.load import BundleModel
from tinyinfer.bundle.source import model_digest, read_source
from tinyinfer.bundle.targets import find_targets
from tinyinfer.bundle.verify import verify_bundle
from tinyinfer.errors import Fail, InvalidArgument, NotImplemented
from tinyinfer.frontend.onnx import load_model

REPOSITORY = Path(__file__).resolve().parents[2]


def build(made, path, targets=("cpu:x86_64-v3",), **options):
    return build_bundle(made, find_targets(targets), path, BuildOptions(**options))


def manifest_of(path):
    container = Container.open(path)
    return json.loads(container.data(container.entries[0]).tobytes())


def embedding(vocabulary=50, width=4):
    """y[n, width] = rows of a table, where a mask says so."""
    table = np.arange(vocabulary * width, dtype=np.float32).reshape(vocabulary, width)
    return model(
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"], name="embed"),
            helper.make_node("Cast", ["mask"], ["factor"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["rows", "factor"], ["y"]),
        ],
        [("ids", TensorProto.INT64, [3]), ("mask", TensorProto.INT32, [3, 1])],
        [("y", TensorProto.FLOAT, [3, width])],
        [("table", table)],
    )


def picks_branch():
    """y is x doubled or a square of a part of it, as the input `mode` says."""
    then = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["a"])],
        "then",
        [],
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, [4])],
    )
    other = helper.make_graph(
        [helper.make_node("Slice", ["x", "zero", "two"], ["b"])],
        "else",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, [2])],
    )
    return model(
        [
            helper.make_node("Equal", ["mode", "one"], ["condition"]),
            helper.make_node("If", ["condition"], ["y"], name="choose", then_branch=then, else_branch=other),
        ],
        [("x", TensorProto.FLOAT, [4]), ("mode", TensorProto.INT64, [])],
        [("y", TensorProto.FLOAT, [None])],
        [
            ("one", np.array(1, np.int64)),
            ("zero", np.array([0], np.int64)),
            ("two", np.array([2], np.int64)),
        ],
    )


# ---- what is refused


def test_a_shape_that_data_decides_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(NotImplemented, match=r"'reshape'.*shape.*--value shape=") as caught:
        build(reshape_by_input(), tmp_path / "a.tinf")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_branch_that_data_decides_is_refused_and_a_fixed_value_decides_it(tmp_path):
    path = tmp_path / "a.tinf"
    with pytest.raises(NotImplemented, match=r"'choose' \(If.*--value mode="):
        build(picks_branch(), path)
    build(picks_branch(), path, values={"mode": 1})
    session = InferenceSession(path)
    x = np.arange(4, dtype=np.float32)
    (y,) = session.run(None, {"x": x, "mode": np.array(1)})
    assert np.array_equal(y, 2 * x)
    with pytest.raises(InvalidArgument, match="'mode'.*value 1, not 0"):
        session.run(None, {"x": x, "mode": np.array(0)})
    # also where the session has seen these shapes before
    with pytest.raises(InvalidArgument, match="'mode'"):
        session.run(None, {"x": x, "mode": np.array(7)})
    assert session.get_inputs()[1].value == 1
    assert manifest_of(path)["inputs"][1]["value"] == 1
    assert verify_bundle(path).passed


@pytest.mark.parametrize(
    "value, words",
    [(1.5, "no int64"), ("one", "no int64"), ([1, 1], r"not \[2\]"), (float("nan"), "no int64")],
)
def test_values_that_an_input_cannot_have(tmp_path, value, words):
    with pytest.raises(InvalidArgument, match=words):
        build(picks_branch(), tmp_path / "a.tinf", values={"mode": value})


def test_what_the_host_computes_is_refused(tmp_path):
    made = one_node("NonZero")
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(NotImplemented, match="the_node"):
        build(made, tmp_path / "a.tinf")


def test_unsupported_operators_are_counted_in_one_line(tmp_path):
    with pytest.raises(NotImplemented, match="/blocks.3/foo.*1 more") as caught:
        build(unsupported(), tmp_path / "a.tinf")
    assert "\n" not in str(caught.value)


def test_strings_are_refused(tmp_path):
    with pytest.raises(NotImplemented, match="'x' is a tensor\\(string\\)"):
        build(one_node("Identity", TensorProto.STRING), tmp_path / "a.tinf")


def test_unknown_names(tmp_path):
    for options in ({"shapes": {"q": (1, 3)}}, {"values": {"q": 1}}, {"inputs": {"q": np.zeros(3)}}):
        with pytest.raises(InvalidArgument, match="'q'.*'x'"):
            build(affine(), tmp_path / "a.tinf", **options)
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory(tmp_path):
    with pytest.raises(Fail, match=r"x86_64-v3 takes \d+ bytes.*limit of 10"):
        build(affine(), tmp_path / "a.tinf", max_bytes=10)


# ---- what was chosen


def test_open_dimensions_are_one_and_said_so(tmp_path):
    report = build(affine(), tmp_path / "a.tinf")
    assert report.notes == ["open dimensions were taken as 1: x [1, 3]"]
    report = build(affine(), tmp_path / "a.tinf", shapes={"x": (5, 3)})
    assert report.notes == []
    assert InferenceSession(tmp_path / "a.tinf").get_inputs()[0].shape == [5, 3]


def test_a_symbol_has_one_size_everywhere():
    source = read_source(load_model(sum_of_two()), {"a": (6, 4)})
    assert source.shapes == {"a": (6, 4), "b": (6, 4)} and not source.assumed


def test_an_initializer_that_could_be_fed_is_a_weight(tmp_path):
    build(overridable(), tmp_path / "a.tinf")
    (y,) = InferenceSession(tmp_path / "a.tinf").run(None, {"x": np.ones(2, np.float32)})
    assert y.tolist() == [2, 3]


def test_targets_by_name():
    assert [t.name for t in find_targets(["cpu:aarch64:cortex-a76", "CPU:x86_64-v3"])] == [
        "aarch64:cortex-a76",
        "x86_64-v3",
    ]
    assert len(find_targets(["CPU"])) >= 1
    for wrong in ("GPU", "cpu:", "cpu:z80"):
        with pytest.raises(ValueError):
            find_targets([wrong])


def test_manifest(tmp_path):
    made = affine()
    made.metadata_props.add(key="license", value="CC0-1.0")
    onnx.save(made, tmp_path / "a.onnx")
    build(tmp_path / "a.onnx", tmp_path / "a.tinf", ("cpu:x86_64-v3", "cpu:aarch64"))
    said = manifest_of(tmp_path / "a.tinf")
    assert said["model"]["sha256"] == _sha256(tmp_path / "a.onnx")
    assert said["model"]["opsets"] == {"": 17}
    assert (said["model"]["producer"], said["model"]["license"]) == ("tests", "CC0-1.0")
    assert said["inputs"] == [
        {"name": "x", "dtype": "float32", "shape": [1, 3], "declared_shape": ["batch", 3]}
    ]
    assert [o["name"] for o in said["outputs"]] == ["y", "z"]
    assert [(t["name"], t["group"]) for t in said["targets"]] == [("x86_64-v3", 1), ("aarch64", 2)]
    assert said["numerics"] and said["compiler"]["name"] == "tinyinfer"


def _sha256(path):
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_external_data_is_part_of_what_a_model_is(tmp_path):
    made = affine()
    onnx.save(made, tmp_path / "a.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    before = model_digest(load_model(tmp_path / "a.onnx"))
    content = bytearray((tmp_path / "w.bin").read_bytes())
    content[0] ^= 1
    (tmp_path / "w.bin").write_bytes(content)
    assert model_digest(load_model(tmp_path / "a.onnx")) != before


# ---- golden vectors


def test_ids_are_drawn_from_the_vocabulary_and_outputs_are_the_oracles(tmp_path):
    path = tmp_path / "a.tinf"
    report = build(embedding(), path)
    assert [(e.name, e.seen) for e in report.errors] == [("y", 0.0)]
    assert verify_bundle(path).passed
    assert os.path.getsize(path) < 60_000


def test_given_inputs_are_the_first_vector(tmp_path):
    ids = np.array([49, 0, 7])
    report = build(embedding(), tmp_path / "a.tinf", inputs={"ids": ids, "mask": np.ones((3, 1), np.int32)})
    assert report.errors[0].high >= 49 * 4 + 3
    with pytest.raises(InvalidArgument, match="golden input 'ids' is int64\\[2\\]"):
        build(embedding(), tmp_path / "b.tinf", inputs={"ids": ids[:2]})


def test_without_golden_vectors(tmp_path):
    report = build(affine(), tmp_path / "a.tinf", golden=False)
    assert report.errors == [] and "GOLD" not in report.sections
    with pytest.raises(Fail, match="no golden vectors"):
        verify_bundle(tmp_path / "a.tinf")


def test_code_that_computes_something_else_makes_no_bundle(tmp_path, monkeypatch):
    from tinyinfer.bundle import vectors

    monkeypatch.setattr(
        vectors, "evaluate", lambda outputs, feeds: [np.full(n.shape, 9, n.dtype) for n in outputs]
    )
    with pytest.raises(Fail, match="output 'y'.*differs from the oracle"):
        build(affine(), tmp_path / "a.tinf")
    assert list(tmp_path.iterdir()) == []


def test_a_negative_range_that_makes_nan_is_not_drawn_from(tmp_path):
    report = build(one_node("Log"), tmp_path / "a.tinf")
    assert np.isfinite(report.errors[0].low)
    assert verify_bundle(tmp_path / "a.tinf").passed


# ---- the same bytes each time

_SCRIPT = """
import sys
from tinyinfer.bundle.build import build_bundle
from tinyinfer.bundle.targets import find_targets
build_bundle(sys.argv[1], find_targets(["cpu:x86_64-v3", "cpu:aarch64"]), sys.argv[2])
"""


def test_builds_are_reproducible(tmp_path):
    onnx.save(embedding(), tmp_path / "a.onnx")
    contents = set()
    for number, (seed, cache) in enumerate([("1", "cold"), ("2", "cold"), ("3", "other")]):
        folder = tmp_path / f"folder{number}"
        folder.mkdir()
        environment = dict(
            os.environ,
            PYTHONHASHSEED=seed,
            TINYINFER_CACHE=str(tmp_path / cache),
            PYTHONPATH=str(REPOSITORY),
        )
        arguments = [sys.executable, "-c", _SCRIPT, str(tmp_path / "a.onnx"), "out.tinf"]
        subprocess.run(arguments, check=True, cwd=folder, env=environment)
        contents.add((folder / "out.tinf").read_bytes())
    assert len(contents) == 1


# ---- real models

OPTIONS = {
    "silero_vad_op18_ifless": {"values": {"sr": 16000}, "shapes": {"input": (1, 576)}},
    "tiny_gpt2_past_fp32": {
        "shapes": {"input_ids": (1, 8), "attention_mask": (1, 12), "past_0": (2, 1, 4, 4, 8)}
    },
}


@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv2_fp32_real_b",
        "yolox_nano",
        "ultraface_rfb_320",
        "silero_vad_op18_ifless",
        "dtln_model_1",
        "kws_dscnn_l",
        "mobilenetv2_qop_u8s8",
        "tiny_gpt2_past_fp32",
    ],
)
def test_real_models(name, tmp_path, shared_models, model_index, model_feeds, filled_model):
    skeleton = model_index[name].get("skeleton")
    source = filled_model(name) if skeleton else shared_models / f"{name}.onnx"
    path = tmp_path / f"{name}.tinf"
    target = find_targets(["CPU"])[:1]
    report = build_bundle(source, target, path, BuildOptions(**OPTIONS.get(name, {})))
    assert report.size == path.stat().st_size <= 1.1 * _weight_bytes(source) + 400_000
    verified = verify_bundle(path)
    assert verified.passed and verified.target == target[0].name
    feeds = model_feeds(name)
    options = SessionOptions()
    for feed, array in feeds.items():
        options.add_input_shape(feed, array.shape)
    wanted = InferenceSession(source, options).run(None, feeds)
    got = InferenceSession(path).run(None, feeds)
    for a, b in zip(got, wanted, strict=True):
        assert np.array_equal(a, b, equal_nan=True)
    assert BundleModel(path).section.plan.arena_bytes == report.targets[0].arena_bytes


def _weight_bytes(source):
    from tinyinfer.frontend.onnx.contents import count_weights

    return count_weights(load_model(source)).bytes
