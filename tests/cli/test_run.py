"""`tinyinfer run`: inputs from everywhere, outputs for people, programs and files."""

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, numpy_helper
from small_models import AFFINE_BIAS, AFFINE_WEIGHTS, affine, channel_means, sum_of_two

from cli.main import main


@pytest.fixture
def path(tmp_path):
    """A function that writes a model and gives its path."""

    def write(proto, name="model.onnx"):
        onnx.save(proto, tmp_path / name)
        return str(tmp_path / name)

    return write


def run(*arguments):
    return CliRunner().invoke(main, ["run", *map(str, arguments)])


def run_json(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_model_alone_runs_on_random_numbers(path):
    result = run(path(affine()))
    assert result.exit_code == 0, result.stderr
    assert "input x: 1x3 float32, random, seed 0" in result.stdout
    assert "at peak" in result.stdout and result.stdout.index("at peak") < result.stdout.index("output y")
    assert "output y: 1x2 float32, min" in result.stdout and "output z" in result.stdout


def test_the_seed_decides_the_numbers(path):
    model = path(affine())
    one, same, other = (run_json(model, "--seed", seed)["outputs"] for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize("suffix", ["npy", "npz", "pb"])
def test_arrays_come_from_files(path, tmp_path, suffix):
    x = np.array([[1, 2, 3]], np.float32)
    file = tmp_path / f"x.{suffix}"
    if suffix == "npy":
        np.save(file, x)
    elif suffix == "npz":
        np.savez(file, x=x, other=x[0])
    else:
        file.write_bytes(numpy_helper.from_array(x).SerializeToString())
    for arguments in (("--input", f"x={file}"), (file,)):
        outputs = run_json(path(affine()), *arguments)["outputs"]
        np.testing.assert_allclose(outputs[0]["values"], (x @ AFFINE_WEIGHTS + AFFINE_BIAS)[0], rtol=1e-6)


def test_one_archive_may_hold_all_inputs(path, tmp_path):
    a = np.ones((2, 4), np.float32)
    np.savez(tmp_path / "feeds.npz", a=a, b=2 * a)
    assert run_json(path(sum_of_two()), tmp_path / "feeds.npz")["outputs"][0]["mean"] == 3


def test_shapes_of_random_inputs(path):
    outputs = run_json(path(sum_of_two("n", "m")), "--shape", "a:5x6")["outputs"]
    assert outputs[0]["shape"] == [5, 6]


def test_random_inputs_may_have_a_range(path):
    top = run_json(path(sum_of_two()), "--input", "a=random:7:8", "--input", "b=random:0:1")["outputs"][0]
    assert 7 <= top["min"] <= top["max"] <= 9


def test_outputs_are_written_as_npy(path, tmp_path):
    x = np.array([[1, 2, 3]], np.float32)
    np.save(tmp_path / "x.npy", x)
    result = run(path(affine()), tmp_path / "x.npy", "--output", tmp_path / "out" / "deep")
    assert result.exit_code == 0
    y, z = (np.load(tmp_path / "out" / "deep" / f"{name}.npy") for name in "yz")
    np.testing.assert_allclose(y, x @ AFFINE_WEIGHTS + AFFINE_BIAS, rtol=1e-6)
    np.testing.assert_array_equal(z, -y)


def test_output_names_that_are_no_file_names(path, tmp_path):
    proto = sum_of_two()
    proto.graph.output[0].name = proto.graph.node[0].output[0] = "../up/c:0"
    result = run(path(proto), "--output", tmp_path / "out")
    assert result.exit_code == 0
    (file,) = (tmp_path / "out").iterdir()
    assert file.suffix == ".npy"


def test_nothing_but_json_is_on_stdout(path):
    result = run(path(affine()), "--json", "-v")
    found = json.loads(result.stdout)
    assert found["device"] == "CPU" and found["peak_bytes"] > 0 and found["seconds"] > 0
    assert "input x" in result.stderr


@pytest.mark.parametrize("device", ["CPU", "REFERENCE", "CPUExecutionProvider"])
def test_devices(path, device):
    assert run_json(path(affine()), "--device", device)["device"] in device


def test_unfused_gives_the_same(path):
    x = run_json(path(affine()), "--unfused", "--threads", 1)["outputs"]
    assert x == run_json(path(affine()))["outputs"]


class TestPictures:
    """The four-by-five picture below has a red, a green and a blue part."""

    PIXELS = np.zeros((4, 5, 3), np.uint8)
    PIXELS[:, :, 0], PIXELS[:, 1:, 1], PIXELS[2:, :, 2] = 255, 255, 255

    @pytest.fixture
    def picture(self, tmp_path):
        image = pytest.importorskip("PIL.Image")
        file = tmp_path / "p.png"
        image.fromarray(self.PIXELS).save(file)
        return file

    @pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
    def test_colours_become_channels(self, path, picture, layout):
        values = run_json(path(channel_means(layout=layout)), picture)["outputs"][0]["values"]
        np.testing.assert_allclose(values, [1, 0.8, 0.5], rtol=1e-6)

    def test_bytes_stay_bytes(self, path, picture):
        values = run_json(path(channel_means(element=TensorProto.UINT8)), picture)["outputs"][0]["values"]
        np.testing.assert_allclose(values, [255, 204, 127.5], rtol=1e-6)

    def test_grey_and_inverted(self, path, picture):
        values = run_json(path(channel_means(channels=1)), picture)["outputs"][0]
        inverted = run_json(path(channel_means(channels=1)), picture, "--invert")["outputs"][0]
        assert 0 < values["mean"] < 1
        assert values["mean"] + inverted["mean"] == pytest.approx(1, abs=1e-6)

    def test_mean_deviation_and_scale(self, path, picture):
        flags = ("--scale", 1, "--mean", "255,0,0", "--std", "1,255,0.5")
        values = run_json(path(channel_means()), picture, *flags)["outputs"][0]["values"]
        np.testing.assert_allclose(values, [0, 0.8, 255], rtol=1e-6, atol=1e-6)

    def test_other_sizes_are_stretched_or_cut(self, path, picture):
        stretched = run(path(channel_means(2, 2)), picture)
        assert "stretched to 2x2" in stretched.stdout
        cut = run(path(channel_means(2, 2)), picture, "--fit", "crop")
        assert "middle 2x2" in cut.stdout

    def test_open_sizes_take_the_pictures_own(self, path, picture):
        result = run(path(channel_means("h", "w")), picture)
        assert result.exit_code == 0, result.stderr
        assert "input image: 1x3x4x5 float32" in result.stdout

    def test_what_is_transparent_is_white(self, path, tmp_path):
        image = pytest.importorskip("PIL.Image")
        image.new("RGBA", (5, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
        values = run_json(path(channel_means()), tmp_path / "clear.png")["outputs"][0]["values"]
        np.testing.assert_allclose(values, [1, 1, 1])

    @pytest.mark.parametrize("content", [b"", b"no picture", "truncated"])
    def test_unreadable_pictures(self, path, picture, content):
        picture.write_bytes(picture.read_bytes()[:-30] if content == "truncated" else content)
        result = run(path(channel_means()), picture)
        assert result.exit_code == 2 and result.stderr.startswith("tinyinfer: error: ")
        assert str(picture) in result.stderr and result.stderr.count("\n") == 1

    def test_inputs_that_take_no_picture(self, path, picture):
        result = run(path(affine()), picture)
        assert result.exit_code == 2 and "takes no picture" in result.stderr

    def test_without_pillow_one_line_says_what_to_install(self, path, picture, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "PIL", None)
        result = run(path(channel_means()), picture)
        assert result.exit_code == 2 and "pip install 'tinyinfer[images]'" in result.stderr


@pytest.mark.parametrize("device", ["CPU", "REFERENCE"])
@pytest.mark.parametrize("file, word", [("goldfish.jpg", "goldfish"), ("pelican.jpeg", "pelican")])
def test_photographs_are_recognised(shared_models, device, file, word):
    samples = shared_models.parent / "samples"
    model = shared_models / "mobilenetv2_fp32_real_b.onnx"
    flags = ("--labels", samples / "imagenet_labels.txt", "--device", device)
    top = run_json(model, samples / file, *flags)["outputs"][0]["top"]
    assert word in top[0]["label"] and top[0]["probability"] > 0.2


def test_a_handwritten_seven_is_a_seven(shared_models):
    top = run_json(shared_models / "mnist_cntk.onnx", shared_models.parent / "samples" / "mnist_7.jpg")
    assert top["outputs"][0]["top"][0]["class"] == 7
