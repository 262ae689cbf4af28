"""Images from encoded files. The host decodes them, through Pillow (the extra `images`)."""

from __future__ import annotations

import importlib.util
import io
import warnings

import numpy as np

from tinyinfer.frontend.onnx.context import NodeContext
from tinyinfer.frontend.onnx.op_table import EXACT, onnx_op
from tinyinfer.frontend.onnx.values import HostCall
from tinyinfer.ir.node import Node

FORMATS = ("BMP", "JPEG", "JPEG2000", "TIFF", "PNG", "WEBP", "PPM")
"""What ONNX names, in Pillow's words; nothing else that Pillow reads is tried."""

_CHANNELS = {"RGB": 3, "BGR": 3, "Grayscale": 1}


def decode(encoded: np.ndarray, pixels: str) -> np.ndarray:
    """The uint8 pixels [height, width, channels] of a file's bytes; an empty array if they are no image.

    Pillow refuses images of more pixels than any real one has.
    """
    from PIL import Image

    empty = np.zeros((0, 0, _CHANNELS[pixels]), np.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(encoded.tobytes()), formats=FORMATS) as image:
                array = np.asarray(image.convert("L" if pixels == "Grayscale" else "RGB"))
    except Exception:  # decoders raise whatever a broken file makes them meet
        return empty
    if pixels == "Grayscale":
        return array[:, :, None]
    return array[:, :, ::-1].copy() if pixels == "BGR" else array


@onnx_op("ImageDecoder", since=20, tolerance=EXACT)
def image_decoder(ctx: NodeContext, encoded: Node) -> HostCall:
    """The pixels of an encoded image; none if it cannot be decoded."""
    pixels = ctx.string("pixel_format", "RGB", tuple(_CHANNELS))
    ctx.require(
        encoded.dtype == "uint8" and len(encoded.shape) == 1,
        f"takes the bytes of a file, not {encoded.dtype}{list(encoded.shape)}",
    )
    if importlib.util.find_spec("PIL") is None:
        ctx.unsupported("images are decoded by Pillow, which is not installed (the extra 'images' brings it)")
    return ctx.host_call(lambda data: (decode(data, pixels),), [encoded])
