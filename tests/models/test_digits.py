"""The digit classifier: pictures, gradients, and the model in the repository, run by the engine."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import tinyinfer
from models.digits import network
from models.digits.glyphs import GLYPHS, segments
from models.digits.render import draw
from models.digits.train import HERE, NAMES, accuracy, drawn, to_onnx

MODEL = HERE / "digits.onnx"
SAMPLES = sorted((HERE / "samples").glob("*.png"))


def read(path: Path) -> np.ndarray:
    """A picture as the model takes it: [28, 28], 0..1."""
    picture = Image.open(path).convert("L").resize((28, 28), Image.Resampling.BILINEAR)
    return np.asarray(picture, np.float32) / 255


@pytest.fixture(scope="module")
def session():
    return tinyinfer.InferenceSession(MODEL)


def test_every_glyph_stays_near_the_unit_square():
    assert sorted(GLYPHS) == list(range(10))
    for variants in GLYPHS.values():
        for glyph in variants:
            pieces = segments(glyph)
            assert pieces.shape[1:] == (2, 2) and pieces.min() > -0.1 and pieces.max() < 1.1


@pytest.mark.parametrize("size", [28, 56])
def test_drawing_is_reproducible_and_white_on_black(size):
    labels = np.arange(10).repeat(3)
    first = draw(labels, np.random.default_rng(3), size)
    assert np.array_equal(first, draw(labels, np.random.default_rng(3), size))
    assert first.shape == (30, size, size) and first.dtype == np.float32
    assert first.min() >= 0 and first.max() <= 1
    border = np.concatenate([first[:, 0], first[:, -1], first[:, :, 0], first[:, :, -1]], axis=1)
    assert border.mean() < 0.1 < first.mean() * 2 and (first.max(axis=(1, 2)) > 0.6).all()


def test_gradients_agree_with_finite_differences():
    generator = np.random.default_rng(0)
    parameters = network.initial(generator)
    for name in ("bias1", "bias2"):
        parameters[name] += generator.uniform(-0.2, 0.3, parameters[name].shape).astype(np.float32)
    images, labels = drawn(4, 1)
    _, gradients = network.loss_and_gradients(parameters, images, labels)
    for name, gradient in gradients.items():
        slope = np.linalg.norm(gradient)
        step = 3e-3 * gradient / slope
        above, below = (
            network.loss_and_gradients({**parameters, name: parameters[name] + s}, images, labels)[0]
            for s in (step, -step)
        )
        assert (above - below) / 6e-3 == pytest.approx(slope, rel=0.02), name


def test_training_steps_reduce_the_loss():
    images, labels = drawn(100, 2)
    parameters = network.initial(np.random.default_rng(0))
    optimizer = network.Adam(parameters)
    losses = []
    for _ in range(15):
        loss, gradients = network.loss_and_gradients(parameters, images, labels)
        optimizer.step(gradients, 0.003)
        losses.append(loss)
    assert losses[-1] < 0.7 * losses[0]


def test_exported_model_computes_what_the_numpy_network_computes():
    parameters = network.initial(np.random.default_rng(7))
    images, _ = drawn(3, 5)
    exported = tinyinfer.InferenceSession(to_onnx(parameters).SerializeToString())
    (scores,) = exported.run(None, {"image": images[:, None]})
    np.testing.assert_allclose(scores, network.logits(parameters, images), rtol=1e-4, atol=1e-4)


def test_model_file_is_small_and_as_documented():
    assert MODEL.stat().st_size <= 300_000
    model = onnx.load(MODEL)
    onnx.checker.check_model(model, full_check=True)
    assert [o.version for o in model.opset_import] == [17]
    assert (HERE / "labels.txt").read_text(encoding="utf-8").split() == list(NAMES)


def test_there_is_a_sample_of_every_digit_and_some_are_large():
    assert [path.stem for path in SAMPLES] == [str(digit) for digit in range(10)]
    assert {Image.open(path).size for path in SAMPLES} == {(28, 28), (56, 56)}


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_sample_is_classified(session, path):
    (scores,) = session.run(["logits"], {"image": read(path)[None, None]})
    assert scores.shape == (1, 10) and scores.argmax() == int(path.stem)


def test_accuracy_on_digits_that_training_never_saw(session):
    images, labels = drawn(1000, 987654)
    (scores,) = session.run(None, {"image": images[:, None]})
    assert (scores.argmax(axis=1) == labels).mean() >= 0.98


def test_accuracy_counts_right_answers():
    parameters = network.initial(np.random.default_rng(0))
    parameters["bias3"][4] = 1000
    images = np.zeros((700, 28, 28), np.float32)
    assert accuracy(parameters, images, np.arange(700) % 10) == pytest.approx(0.1)
