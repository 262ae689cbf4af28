"""ImageDecoder: formats without loss give the pixels back; what is no image gives none."""

import io

import numpy as np
import pytest
from onnx_models import one_op

import tinyinfer

Image = pytest.importorskip("PIL.Image")
PIXELS = np.random.default_rng(3).integers(0, 255, (5, 7, 3)).astype(np.uint8)


def decoded(data, **attributes):
    encoded = np.frombuffer(data, np.uint8)
    model = one_op("ImageDecoder", [encoded], opset=20, **attributes)
    return tinyinfer.InferenceSession(model, providers=["CPU"]).run(None, {"x0": encoded})[0]


def encoded(kind, pixels=PIXELS, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_pixels_come_back(kind):
    np.testing.assert_array_equal(decoded(encoded(kind)), PIXELS)
    np.testing.assert_array_equal(decoded(encoded(kind), pixel_format="BGR"), PIXELS[:, :, ::-1])


def test_gray_images():
    gray = decoded(encoded("PNG"), pixel_format="Grayscale")
    np.testing.assert_array_equal(gray[:, :, 0], np.asarray(Image.fromarray(PIXELS).convert("L")))
    of_gray = decoded(encoded("PNG", PIXELS[:, :, 0]))
    np.testing.assert_array_equal(of_gray, np.repeat(PIXELS[:, :, :1], 3, 2))


def test_what_is_no_image_has_no_pixels():
    assert decoded(b"not an image").shape == (0, 0, 3)
    assert decoded(encoded("PNG")[:40], pixel_format="Grayscale").shape == (0, 0, 1)
    assert decoded(encoded("GIF")).shape == (0, 0, 3)


def test_refusals():
    with pytest.raises(ValueError, match="must be one of"):
        decoded(b"", pixel_format="CMYK")
    model = one_op("ImageDecoder", [np.zeros((2, 2), np.uint8)], opset=20)
    with pytest.raises(ValueError, match="bytes of a file"):
        tinyinfer.InferenceSession(model, providers=["CPU"])
