"""Pictures as model inputs: decoding, size, channel order and normalisation, each chosen in one place and
told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cli.errors import BadInput
from cli.options import PictureChoice, parse_numbers

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROP_RATIO = 256 / 224
"""torchvision's classification preset: the shorter side is resized to 256 for a crop of 224."""

MAX_PIXELS = 1 << 28


@dataclass(frozen=True)
class PictureInput:
    """How an input takes a picture: rank, where its axes are, and the sizes that are fixed (None = open)."""

    layout: str
    channels: int
    height: int | None
    width: int | None
    rank: int


def picture_input(name: str, shape: tuple[int | None, ...], dtype: str, layout: str | None) -> PictureInput:
    """How input `name` takes a picture; BadInput where its shape or dtype cannot."""
    kind = None
    sizes = shape[1:] if len(shape) == 4 else shape
    if len(sizes) == 3:
        if layout is None:
            first, last = sizes[0] in (1, 3), sizes[2] in (1, 3)
            layout = "NCHW" if first else "NHWC" if last else None
        if layout is not None:
            layout = layout.upper()
            channels, height, width = sizes if layout == "NCHW" else (sizes[2], sizes[0], sizes[1])
            if channels in (1, 3, None):
                kind = PictureInput(layout, channels or 3, height, width, len(shape))
    elif len(shape) == 2 and None not in shape and 1 not in shape:
        kind = PictureInput("HW", 1, shape[0], shape[1], 2)
    if kind is None or dtype not in ("float32", "float16", "float64", "uint8"):
        described = "x".join("?" if size is None else str(size) for size in shape)
        raise BadInput(
            f"input {name!r} ({dtype} {described}) takes no picture:"
            f" 1 or 3 channels in NCHW or NHWC, float or uint8, are needed (see --layout)"
        )
    return kind


def load_picture(
    path: str, target: PictureInput, dtype: str, imagenet: bool, choice: PictureChoice
) -> tuple[np.ndarray, str]:
    """The picture in `path` as an array for `target`, and what was done to it, in words.

    Pixels become `(pixel · scale − mean) / std`. ImageNet classifiers get torchvision's preset (resize, crop,
    mean and standard deviation of ImageNet), other float inputs 0 … 1, uint8 inputs the pixels as they are.
    """
    picture = _open(path, "RGB" if target.channels == 3 else "L")
    preset = imagenet and target.channels == 3 and dtype != "uint8"
    picture, told = _resize(picture, target, choice.fit or ("crop" if preset else "stretch"))
    done = [told, "RGB" if target.channels == 3 else "greyscale"]
    pixels = np.asarray(picture, dtype=np.uint8)
    if choice.invert:
        pixels = 255 - pixels
        done.append("inverted")
    pixels = pixels.reshape(*pixels.shape[:2], target.channels)
    values, told = _normalise(pixels, dtype, preset, choice)
    done.append(told)
    if target.layout == "NCHW":
        values = values.transpose(2, 0, 1)
    if target.layout == "HW":
        values = values[:, :, 0]
    if target.rank == 4:
        values = values[None]
        done.append(target.layout)
    return np.ascontiguousarray(values), ", ".join(done)


def _open(path: str, mode: str) -> Any:
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise BadInput(f"{path}: pictures need Pillow (pip install 'tinyinfer[images]')") from None
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise BadInput(f"{path}: {picture.width} x {picture.height} pixels are too many")
            upright = ImageOps.exif_transpose(picture)
            if upright.mode in ("LA", "PA", "RGBA") or "transparency" in upright.info:
                # what is transparent shows white, as on a page
                upright = upright.convert("RGBA")
                page = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(page, upright)
            return upright.convert(mode)
    except UnidentifiedImageError:
        raise BadInput(f"{path}: not a picture that can be read") from None
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise BadInput(f"{path}: the picture is damaged: {error}") from None


def _resize(picture: Any, target: PictureInput, fit: str) -> tuple[Any, str]:
    from PIL import Image

    height, width = target.height or picture.height, target.width or picture.width
    if (picture.width, picture.height) == (width, height):
        return picture, f"{width}x{height} as it is"
    if fit == "stretch":
        return picture.resize((width, height), Image.Resampling.BILINEAR), f"stretched to {width}x{height}"
    scale = max(round(height * CROP_RATIO) / picture.height, round(width * CROP_RATIO) / picture.width)
    size = max(width, round(picture.width * scale)), max(height, round(picture.height * scale))
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    resized = picture.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))
    return resized, f"resized to {size[0]}x{size[1]}, middle {width}x{height}"


def _normalise(pixels: np.ndarray, dtype: str, preset: bool, choice: PictureChoice) -> tuple[np.ndarray, str]:
    plain = choice.mean is None and choice.std is None and choice.scale is None
    if dtype == "uint8":
        if not plain:
            raise BadInput("--mean, --std and --scale are for float inputs; this one takes uint8 pixels")
        return pixels, "pixels 0…255"
    counts = (1, 3) if pixels.shape[2] == 3 else (1,)
    mean: tuple[float, ...] = IMAGENET_MEAN if preset and plain else (0.0,)
    std: tuple[float, ...] = IMAGENET_STD if preset and plain else (1.0,)
    if choice.mean is not None:
        mean = parse_numbers("--mean", choice.mean, counts)
    if choice.std is not None:
        std = parse_numbers("--std", choice.std, counts)
        if 0 in std:
            raise BadInput(f"--std {choice.std!r}: division by zero")
    scale = 1 / 255 if choice.scale is None else choice.scale
    if not np.isfinite(scale):
        raise BadInput(f"--scale {scale}: expected a finite number")
    shift, divisor = np.array(mean, np.float32), np.array(std, np.float32)
    values = (pixels.astype(np.float32) * np.float32(scale) - shift) / divisor
    if preset and plain:
        told = "ImageNet mean and deviation"
    elif plain:
        told = "0…1"
    else:
        told = f"pixel*{scale:.6g}, mean {list(mean)}, std {list(std)}"
    return values.astype(dtype), told
