"""What is known of each Adreno GPU, as data."""

from __future__ import annotations

from dataclasses import dataclass

_PREFIX = "qcom:"


@dataclass(frozen=True)
class AdrenoGpu:
    """One GPU. Sizes in bytes unless they say otherwise; a register is a vector of four 32-bit components.

    Register file, wave and local memory sizes are those of Mesa's device table, and checked against the
    statistics of its compiler where that knows the GPU (`ir3_id`). Image rules are those of Qualcomm's OpenCL
    driver.
    """

    name: str
    ir3_id: int | None
    """The number by which Mesa's stand-in device is asked for this GPU; None where it has none."""

    generation: int
    shader_processors: int
    registers: int
    """Registers of each slot for a work-item: waves of `wave_size` share them."""

    wave_size: int
    """Work-items of a single wave. A double wave has twice as many and takes twice the registers."""

    wave_banks: int
    """Waves come and go in groups of this many, each group with a register file of its own."""

    max_waves: int = 16
    double_waves: bool = True
    """Whether kernels are compiled for double waves where registers allow it."""

    local_bytes: int = 32 * 1024
    max_work_group: int = 1024
    image_side: int = 16384
    """Largest width, and largest height, of a two-dimensional image in texels."""

    row_pitch_texels: int = 64
    """A row of an image in linear memory begins at a multiple of this many texels."""

    single_row_pitch: int = 64
    """The same for an image of one row, in bytes."""

    half_rate: int = 2
    """Half-precision operations in the time of a single-precision one."""

    @property
    def number(self) -> str:
        """What drivers tell it by: "630"."""
        return self.name.removeprefix("a")

    @property
    def device(self) -> str:
        """The name that a user gives: "qcom:a630"."""
        return _PREFIX + self.name

    def row_pitch(self, width: int, height: int, texel_bytes: int) -> int:
        """Bytes from one row to the next of an image in linear memory."""
        if not 0 < width <= self.image_side or not 0 < height <= self.image_side:
            raise ValueError(
                f"an image of {width} x {height} texels: {self.name} takes 1 to {self.image_side} each way"
            )
        if height == 1:
            return _round_up(width * texel_bytes, self.single_row_pitch)
        return _round_up(width, self.row_pitch_texels) * texel_bytes


ADRENO_GPUS = {
    gpu.name: gpu
    for gpu in (
        AdrenoGpu(
            "a610",
            None,
            6,
            shader_processors=1,
            registers=48,
            wave_size=64,
            wave_banks=1,
            double_waves=False,
            local_bytes=16 * 1024,
        ),
        AdrenoGpu("a618", 618, 6, shader_processors=1, registers=96, wave_size=64, wave_banks=2),
        AdrenoGpu("a619", None, 6, shader_processors=1, registers=96, wave_size=64, wave_banks=2),
        AdrenoGpu("a630", 630, 6, shader_processors=2, registers=96, wave_size=64, wave_banks=2),
        AdrenoGpu("a640", None, 6, shader_processors=2, registers=96, wave_size=64, wave_banks=2),
        AdrenoGpu("a643", None, 6, shader_processors=2, registers=64, wave_size=64, wave_banks=2),
        AdrenoGpu("a650", None, 6, shader_processors=3, registers=64, wave_size=64, wave_banks=2),
        AdrenoGpu("a660", 660, 6, shader_processors=3, registers=64, wave_size=64, wave_banks=2),
        AdrenoGpu("a690", None, 6, shader_processors=8, registers=64, wave_size=64, wave_banks=2),
        AdrenoGpu(
            "a702",
            702,
            6,
            shader_processors=1,
            registers=48,
            wave_size=16,
            wave_banks=1,
            local_bytes=16 * 1024,
        ),
        AdrenoGpu("a725", None, 7, shader_processors=4, registers=96, wave_size=64, wave_banks=2),
        AdrenoGpu("a730", 730, 7, shader_processors=4, registers=96, wave_size=64, wave_banks=2),
        AdrenoGpu("a740", 740, 7, shader_processors=6, registers=96, wave_size=64, wave_banks=2),
        AdrenoGpu("a750", 750, 7, shader_processors=6, registers=96, wave_size=64, wave_banks=2),
        AdrenoGpu(
            "a810", 810, 8, shader_processors=1, registers=96, wave_size=64, wave_banks=2, double_waves=False
        ),
        AdrenoGpu(
            "a830", 830, 8, shader_processors=6, registers=96, wave_size=64, wave_banks=2, double_waves=False
        ),
    )
}


def find_gpu(name: str) -> AdrenoGpu:
    """The GPU called `name`: "a630", "qcom:a630", "630", in any case. ValueError listing those known."""
    wanted = name.strip().lower().removeprefix(_PREFIX)
    gpu = ADRENO_GPUS.get(wanted) or ADRENO_GPUS.get(f"a{wanted}")
    if gpu is None:
        raise ValueError(f"unknown Adreno GPU {name!r}; known: {', '.join(ADRENO_GPUS)}")
    return gpu


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
