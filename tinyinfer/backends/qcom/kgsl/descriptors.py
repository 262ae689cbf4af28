"""Descriptors of images, buffer views and samplers, as a6xx and a7xx read them from memory."""

from __future__ import annotations

from dataclasses import dataclass

from tinyinfer.backends.qcom.kgsl.registers import Field, Word, encode
from tinyinfer.backends.qcom.kgsl.stream import Address, WordList

IMAGE_BYTES = 64
SAMPLER_BYTES = 16
ADDRESS_ALIGNMENT = 64
PITCH_ALIGNMENT = 64


@dataclass(frozen=True)
class Format:
    """How a texel lies in memory: the GPU's number, and bytes."""

    number: int
    texel_bytes: int


FORMATS = {
    "r8_unorm": Format(3, 1),
    "r16_float": Format(23, 2),
    "rgba8_unorm": Format(48, 4),
    "r32_float": Format(74, 4),
    "r32_uint": Format(75, 4),
    "rgba16_float": Format(98, 8),
    "rgba32_float": Format(130, 16),
}

_WORD_0: Word = {
    "swizzle_x": Field(4, 6),
    "swizzle_y": Field(7, 9),
    "swizzle_z": Field(10, 12),
    "swizzle_w": Field(13, 15),
    "format": Field(22, 29),
}
_WORD_1: Word = {"width": Field(0, 14), "height": Field(15, 29)}
_WORD_2_IMAGE: Word = {"pitch_alignment": Field(0, 3), "pitch": Field(7, 28), "type": Field(29, 31)}
_WORD_2_BUFFER: Word = {"struct_texels": Field(4, 15), "start_texel": Field(16, 21), "type": Field(29, 31)}
_WORD_3: Word = {"layer_bytes": Field(0, 22, unit=4096)}
_WORD_5: Word = {"depth": Field(17, 29)}
_SAMPLER_0: Word = {"wrap_x": Field(5, 7), "wrap_y": Field(8, 10), "wrap_z": Field(11, 13)}
_SAMPLER_1: Word = {"no_seamless_cube": Field(4, 4), "unnormalised": Field(5, 5)}

_TYPE_2D, _TYPE_BUFFER = 1, 4
_CLAMP_TO_BORDER = 3
_ZERO_ONE_OR_CHANNEL = {1: (0, 4, 4, 5), 4: (0, 1, 2, 3)}
"""What the four components read, by the channels of the format: a channel's number, 4 for zero, 5 for one."""


def image(words: WordList, address: Address, width: int, height: int, pitch: int, format_name: str) -> None:
    """Append the descriptor of a two-dimensional image in linear memory; `pitch` is bytes from row to row."""
    form = _format(format_name)
    if pitch % PITCH_ALIGNMENT or pitch < width * form.texel_bytes:
        raise ValueError(
            f"rows of {width} texels of {form.texel_bytes} bytes need a pitch that holds them and is a "
            f"multiple of {PITCH_ALIGNMENT}, not {pitch}"
        )
    if address.value % ADDRESS_ALIGNMENT:
        raise ValueError(
            f"an image begins at a multiple of {ADDRESS_ALIGNMENT} bytes, not at {address.offset}"
        )
    layer = -(-pitch * height // 4096) * 4096
    alignment = (pitch & -pitch).bit_length() - PITCH_ALIGNMENT.bit_length()
    words.append(
        (
            _first_word(form, format_name),
            encode("image word 1", _WORD_1, width=width, height=height),
            encode(
                "image word 2", _WORD_2_IMAGE, pitch_alignment=min(alignment, 15), pitch=pitch, type=_TYPE_2D
            ),
            encode("image word 3", _WORD_3, layer_bytes=layer),
        )
    )
    words.append_address(address, encode("image word 5", _WORD_5, depth=1))
    words.append([0] * (IMAGE_BYTES // 4 - 6))


def buffer_view(words: WordList, address: Address, size: int, format_name: str) -> None:
    """Append the descriptor of `size` bytes of a buffer as texels in a row, without pitch and padding."""
    form = _format(format_name)
    ahead = address.value % ADDRESS_ALIGNMENT
    if ahead % form.texel_bytes or size % form.texel_bytes:
        raise ValueError(f"a view of {format_name} begins and ends at multiples of {form.texel_bytes} bytes")
    texels = size // form.texel_bytes
    if not 0 < texels < 1 << 30:
        raise ValueError(f"a view of {texels} texels: the GPU takes 1 to {(1 << 30) - 1}")
    words.append(
        (
            _first_word(form, format_name),
            encode("view word 1", _WORD_1, width=texels & 0x7FFF, height=texels >> 15),
            encode(
                "view word 2",
                _WORD_2_BUFFER,
                struct_texels=1,
                start_texel=ahead // form.texel_bytes,
                type=_TYPE_BUFFER,
            ),
            0,
        )
    )
    words.append_address(Address(address.buffer, address.offset - ahead))
    words.append([0] * (IMAGE_BYTES // 4 - 6))


def sampler(words: WordList) -> None:
    """Append OpenCL's nearest sampler with pixel coordinates, which reads zeros outside of the image."""
    words.append(
        (
            encode(
                "sampler word 0",
                _SAMPLER_0,
                wrap_x=_CLAMP_TO_BORDER,
                wrap_y=_CLAMP_TO_BORDER,
                wrap_z=_CLAMP_TO_BORDER,
            ),
            encode("sampler word 1", _SAMPLER_1, no_seamless_cube=1, unnormalised=1),
            0,
            0,
        )
    )


def _format(name: str) -> Format:
    form = FORMATS.get(name)
    if form is None:
        raise ValueError(f"unknown image format {name!r}; known: {', '.join(FORMATS)}")
    return form


def _first_word(form: Format, name: str) -> int:
    x, y, z, w = _ZERO_ONE_OR_CHANNEL[4 if name.startswith("rgba") else 1]
    return encode(
        "image word 0", _WORD_0, swizzle_x=x, swizzle_y=y, swizzle_z=z, swizzle_w=w, format=form.number
    )
