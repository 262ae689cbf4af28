"""Sessions: onnxruntime's calls, shapes that change, and the errors that users meet."""

import json
import threading

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import (
    AFFINE_BIAS,
    AFFINE_WEIGHTS,
    affine,
    model,
    one_node,
    overridable,
    reshape_by_input,
    sum_of_two,
    unsupported,
)

import tinyinfer
from tinyinfer import InferenceSession, InvalidArgument, SessionOptions

DEVICES = ["CPU", "REFERENCE"]


def expected(x):
    return x @ AFFINE_WEIGHTS + AFFINE_BIAS


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def random(*shape):
    return np.random.default_rng(sum(shape)).random(shape, dtype=np.float32)


def test_paths_bytes_and_protos_are_models(tmp_path, device):
    proto = affine()
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    x = random(2, 3)
    for source in (str(path), path, proto.SerializeToString(), proto):
        y, z = InferenceSession(source, providers=[device]).run(None, {"x": x})
        np.testing.assert_allclose(y, expected(x), rtol=1e-6)
        np.testing.assert_array_equal(z, -y)


def test_outputs_are_chosen_by_name_in_the_order_asked():
    session = InferenceSession(affine())
    x = random(1, 3)
    y, z = session.run(None, {"x": x})
    for names, values in ((["z"], [z]), (["z", "y", "z"], [z, y, z]), ([], [y, z]), (("y",), [y])):
        for _ in range(2):
            for a, b in zip(session.run(names, {"x": x}), values, strict=True):
                np.testing.assert_array_equal(a, b)
    with pytest.raises(InvalidArgument, match="Invalid output name: 'w'; the model's outputs: 'y', 'z'"):
        session.run(["y", "w"], {"x": x})
    with pytest.raises(InvalidArgument, match="list of names"):
        session.run("y", {"x": x})


def test_results_of_one_run_survive_the_next():
    session = InferenceSession(affine())
    first = session.run(["y"], {"x": np.zeros((1, 3), np.float32)})[0]
    kept = first.copy()
    session.run(["y"], {"x": np.ones((1, 3), np.float32)})
    np.testing.assert_array_equal(first, kept)


def test_other_shapes_on_the_same_session_just_work(device):
    session = InferenceSession(affine(), providers=[device])
    for batch in (1, 4, 1, 2, 4):
        x = random(batch, 3)
        np.testing.assert_allclose(session.run(["y"], {"x": x})[0], expected(x), rtol=1e-6)


def test_unusual_memory_gives_the_same_result_after_the_usual_one():
    session = InferenceSession(affine())
    x = random(4, 3)
    y = session.run(["y"], {"x": x})[0]
    read_only = x.copy()
    read_only.flags.writeable = False
    for same in (np.asfortranarray(x), x.astype(">f4"), x.tolist(), np.repeat(x, 2, 0)[::2], read_only):
        np.testing.assert_array_equal(session.run(["y"], {"x": same})[0], y)


def test_a_reshape_driven_by_an_input_just_works(device):
    session = InferenceSession(reshape_by_input(), providers=[device])
    x = random(2, 6)
    for shape in ([3, 4], [6, 2], [3, 4], [-1, 1]):
        y = session.run(None, {"x": x, "shape": np.array(shape, np.int64)})[0]
        np.testing.assert_array_equal(y, x.reshape(shape))


def test_overridable_initializers_may_be_fed(device):
    session = InferenceSession(overridable(), providers=[device])
    assert [a.name for a in session.get_inputs()] == ["x"]
    assert [a.name for a in session.get_overridable_initializers()] == ["w"]
    x = np.array([10, 20], np.float32)
    for _ in range(2):
        assert session.run(None, {"x": x})[0].tolist() == [11, 22]
        assert session.run(None, {"x": x, "w": x})[0].tolist() == [20, 40]


def test_signature_and_metadata():
    session = InferenceSession(affine())
    (x,) = session.get_inputs()
    assert (x.name, x.type, x.shape) == ("x", "tensor(float)", ["batch", 3])
    assert str(x) == "NodeArg(name='x', type='tensor(float)', shape=['batch', 3])"
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("y", ["batch", 2]), ("z", ["batch", 2])]
    meta = session.get_modelmeta()
    assert (meta.producer_name, meta.graph_name, meta.version) == ("tests", "test", 7)
    assert meta.description == "what it is for" and meta.custom_metadata_map == {}


def test_signature_equals_onnxruntimes(shared_models):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = str(shared_models / "silero_vad_v5.onnx")
    theirs, ours = onnxruntime.InferenceSession(path), InferenceSession(path)
    for call in ("get_inputs", "get_outputs", "get_overridable_initializers"):
        assert [(a.name, a.type, a.shape) for a in getattr(ours, call)()] == [
            (a.name, a.type, a.shape) for a in getattr(theirs, call)()
        ]
    for field in ("producer_name", "graph_name", "domain", "description", "graph_description"):
        assert getattr(ours.get_modelmeta(), field) == getattr(theirs.get_modelmeta(), field)
    assert ours.get_modelmeta().custom_metadata_map == theirs.get_modelmeta().custom_metadata_map


def test_feeds_are_checked_also_after_a_good_run():
    session = InferenceSession(sum_of_two())
    a = random(2, 4)
    session.run(None, {"a": a, "b": a})
    for feed, words in (
        ({"a": a}, "missing.*'b'"),
        ({"a": a, "b": a, "d": a}, "Invalid input name: 'd'"),
        ({"a": a, "d": a}, "Invalid input name: 'd'.*missing.*'b'"),
        ({"a": a, "b": a[0]}, "rank.*'b'"),
        ({"a": a, "b": random(3, 4)}, "'b'.*dimension 0 is 3, but 'n' is 2"),
        ({"a": a, "b": random(2, 5)}, "'b'.*dimension 1 is 5, expected 4"),
        ({"a": a, "b": a.astype(np.float64)}, "'b'.*tensor.double"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            session.run(None, feed)


def test_free_dimensions_can_be_settled():
    options = SessionOptions()
    options.add_free_dimension_override_by_name("n", 3)
    session = InferenceSession(sum_of_two(), options)
    assert session.run(None, {"a": random(3, 4), "b": random(3, 4)})[0].shape == (3, 4)
    with pytest.raises(InvalidArgument, match="dimension 0 is 2, expected 3"):
        session.run(None, {"a": random(2, 4), "b": random(2, 4)})


def test_free_dimensions_can_be_settled_by_denotation():
    proto = sum_of_two()
    for value in proto.graph.input:
        value.type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    options = SessionOptions()
    options.add_free_dimension_override_by_denotation("DATA_BATCH", 3)
    with pytest.raises(InvalidArgument, match="dimension 0 is 2, expected 3"):
        InferenceSession(proto, options).run(None, {"a": random(2, 4), "b": random(2, 4)})


def test_compiling_happens_at_construction_where_only_the_batch_is_open(monkeypatch):
    compiled = []
    from tinyinfer.backends.reference.device import ReferenceDevice

    original = ReferenceDevice.compile

    def compile(self, graph, options, threads):
        compiled.append({name: node.shape for name, node in graph.inputs.items()})
        return original(self, graph, options, threads)

    monkeypatch.setattr(ReferenceDevice, "compile", compile)
    session = InferenceSession(affine(), providers=["REFERENCE"])
    assert compiled == [{"x": (1, 3)}]
    session.run(None, {"x": random(1, 3)})
    assert len(compiled) == 1
    InferenceSession(sum_of_two("n", "m"), providers=["REFERENCE"])
    assert len(compiled) == 1
    options = SessionOptions()
    options.add_input_shape("a", (5, 6))
    InferenceSession(sum_of_two("n", "m"), options, providers=["REFERENCE"])
    assert compiled[1:] == [{"a": (5, 6), "b": (5, 6)}]


def test_a_batch_that_is_not_1_is_found_at_the_first_run():
    # the weights fix the batch to 4, although the input says nothing of it
    proto = model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [("x", TensorProto.FLOAT, ["n", 3])],
        [("y", TensorProto.FLOAT, [2, 6])],
        [("shape", np.array([2, 6], np.int64))],
    )
    session = InferenceSession(proto)
    x = random(4, 3)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], x.reshape(2, 6))


def test_unsupported_nodes_are_told_at_construction_all_at_once():
    with pytest.raises(tinyinfer.NotImplemented) as caught:
        InferenceSession(unsupported())
    assert "'/blocks.3/foo'" in str(caught.value) and "'/blocks.3/bar'" in str(caught.value)
    assert isinstance(caught.value, NotImplementedError)


@pytest.mark.parametrize(
    "source, error",
    [
        ("no/such/file.onnx", tinyinfer.NoSuchFile),
        (b"this is no protobuf at all", tinyinfer.InvalidProtobuf),
        (3, tinyinfer.InvalidArgument),
    ],
)
def test_bad_models(source, error):
    with pytest.raises(error):
        InferenceSession(source)


def test_truncated_files_are_errors_at_every_length(tmp_path):
    whole = affine().SerializeToString()
    for length in range(0, len(whole), 7):
        with pytest.raises(tinyinfer.TinyInferError):
            InferenceSession(whole[:length])


def test_providers():
    session = InferenceSession(affine(), providers=["CPUExecutionProvider"])
    assert session.get_providers() == ["CPU"]
    assert InferenceSession(affine()).get_providers() == [tinyinfer.get_device()]
    assert InferenceSession(affine(), providers=["cpu"]).get_providers() == ["CPU"]
    both = InferenceSession(affine(), providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert both.get_providers() == ["CPU"]
    tuned = InferenceSession(affine(), providers=[("REFERENCE", {"a": 1})])
    assert tuned.get_provider_options() == {"REFERENCE": {"a": 1}}
    tuned.set_providers(["CPU"])
    x = random(2, 3)
    np.testing.assert_allclose(tuned.run(["y"], {"x": x})[0], expected(x), rtol=1e-6)
    assert tuned.get_providers() == ["CPU"]


@pytest.mark.parametrize("names", [["QCOMM"], ["CUDAExecutionProvider"], ["QCOMM", "CPU"]])
def test_unknown_and_absent_devices_are_errors_that_list_what_is_there(names):
    with pytest.raises(ValueError, match="available here: CPU, .*REFERENCE"):
        InferenceSession(affine(), providers=names)


def test_unknown_arguments_are_errors():
    with pytest.raises(TypeError, match="sesion_options"):
        InferenceSession(affine(), sesion_options=None)


def test_terminate_stops_a_run():
    session = InferenceSession(affine())
    options = tinyinfer.RunOptions()
    options.terminate = True
    with pytest.raises(tinyinfer.Fail, match="terminate"):
        session.run(None, {"x": random(1, 3)}, options)


@pytest.mark.parametrize("level", list(tinyinfer.GraphOptimizationLevel))
def test_levels_do_not_change_results(level):
    options = SessionOptions(graph_optimization_level=level)
    x = random(2, 3)
    y = InferenceSession(affine(), options).run(["y"], {"x": x})[0]
    np.testing.assert_allclose(y, expected(x), rtol=1e-6)


def test_profiling_writes_a_chrome_trace(tmp_path, device):
    options = SessionOptions(enable_profiling=True, profile_file_prefix=str(tmp_path / "profile_"))
    session = InferenceSession(affine(), options, providers=[device])
    assert session.get_profiling_start_time_ns() > 0
    x = random(1, 3)
    for _ in range(3):
        session.run(None, {"x": x})
    path = session.end_profiling()
    events = json.loads(open(path, encoding="utf-8").read())
    names = [event["name"] for event in events]
    assert names.count("model_run") == 3 and "model_loading" in names and "session_initialization" in names
    assert all({"ph", "ts", "dur", "pid", "tid", "cat", "args"} <= set(event) for event in events)
    kernels = [event for event in events if event["cat"] == "Node"]
    assert kernels and any("gemm" in event["args"]["onnx"] for event in kernels)
    assert session.end_profiling() == ""


def test_a_profile_is_written_also_when_the_session_just_goes(tmp_path):
    options = SessionOptions(enable_profiling=True, profile_file_prefix=str(tmp_path / "profile_"))
    session = InferenceSession(affine(), options)
    session.run(None, {"x": random(1, 3)})
    del session
    assert len(list(tmp_path.glob("profile_*.json"))) == 1


def test_threads_may_share_a_session(device):
    session = InferenceSession(affine(), providers=[device])
    wrong = []

    def work(seed):
        for number in range(40):
            x = random(1 + (seed + number) % 3, 3)
            y = session.run(["y"], {"x": x})[0]
            if not np.allclose(y, expected(x), rtol=1e-6):
                wrong.append((seed, number))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_executable_says_what_it_is(device):
    session = InferenceSession(affine(), providers=[device])
    executable = session.compile({"x": (2, 3)})
    assert executable.peak_bytes > 0 and executable.stages()
    assert [(o.name, o.shape, o.dtype) for o in executable.outputs] == [
        ("y", (2, 2), "float32"),
        ("z", (2, 2), "float32"),
    ]
    with pytest.raises(InvalidArgument, match="no input is called 'q'"):
        session.compile({"q": (1,)})
    with pytest.raises(InvalidArgument, match="rank"):
        session.compile({"x": (1,)})
    assert sum(launch.seconds for launch in session.profile({"x": random(2, 3)}, 3)) > 0


@pytest.mark.parametrize("element", ["FLOAT16", "DOUBLE", "INT32", "INT64", "INT8"])
def test_dtypes_pass_through(element, device):
    proto = one_node("Neg", getattr(TensorProto, element))
    session = InferenceSession(proto, providers=[device])
    dtype = helper.tensor_dtype_to_np_dtype(getattr(TensorProto, element))
    x = np.arange(6).reshape(2, 3).astype(dtype)
    y = session.run(None, {"x": x})[0]
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, -x)


@pytest.mark.parametrize("severity, heard", [(-1, False), (1, True), (3, False)])
def test_a_session_may_have_a_level_of_its_own(caplog, severity, heard):
    options = SessionOptions(log_severity_level=severity, logid="mine")
    InferenceSession(affine(), options)
    assert ("compiled" in caplog.text) is heard
    assert not heard or caplog.records[0].name == "tinyinfer.mine"


def test_a_bad_severity_is_an_error():
    with pytest.raises(ValueError, match="severity"):
        InferenceSession(affine(), SessionOptions(log_severity_level=7))
