"""The kernels behind the table of docs/qcom.md, and the figures on which its advice rests."""

import pytest

from benchmarks.adreno_contractions import Block, Row, best, blocks, opencl, row_of
from tinyinfer import config
from tinyinfer.backends.cpu.cache import KernelCache
from tinyinfer.backends.qcom.capabilities import find_gpu
from tinyinfer.backends.qcom.ir3 import KernelText, find_compiler
from tinyinfer.backends.qcom.occupancy import Candidate, fastest


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """`compiled(gpu, *blocks)`: their rows."""
    cache = KernelCache(tmp_path_factory.mktemp("ir3"))
    started = {}

    def rows(name, *wanted):
        gpu = find_gpu(name)
        if name not in started:
            compiler, reason = find_compiler(gpu, cache=cache)
            if compiler is None:
                (pytest.skip if config.mesa_tree() is None else pytest.fail)(reason)
            started[name] = compiler
        kernels = started[name].compile([KernelText(block.name, opencl(block)) for block in wanted])
        return [row_of(block, kernel, gpu) for block, kernel in zip(wanted, kernels)]

    yield rows
    for compiler in started.values():
        compiler.close()


@pytest.mark.parametrize(
    "block", {(b.kind, b.accumulate): b for b in blocks()}.values(), ids=lambda b: b.name
)
def test_a_kernel_multiplies_what_its_block_says(block):
    taps = 3 if block.kind in ("3x3", "depthwise") else 1
    vectors = 1 if block.kind == "depthwise" else 4
    text = opencl(block)
    assert text.count(" = mad(") == block.pixels * block.quads * taps * vectors * block.unroll
    assert text.count("write_image") == block.pixels * block.quads
    assert text.count("{") == text.count("}")


def test_names_tell_blocks_apart():
    assert len({block.name for block in blocks()}) == len(blocks())


def test_the_best_are_the_fewest_slots_for_enough_waves():
    def row(pixels, waves, slots, spills=False):
        return Row(Block("1x1", pixels), 8, waves, 64, slots, 0.1, spills)

    rows = [row(1, 16, 2.0), row(2, 12, 1.5), row(3, 8, 1.4), row(4, 4, 1.6), row(5, 16, 1.0, spills=True)]
    assert [found.block.pixels for found in best(rows)] == [2, 3]


@pytest.mark.parametrize("gpu", ["a630", "a660", "a740"])
def test_half_blocks_of_four_pixels_reach_twelve_waves(gpu, compiled):
    for kind in ("1x1", "taps"):
        row = compiled(gpu, Block(kind, 4, accumulate="half", work_group=(16, 4)))[0]
        assert row.waves >= 12 and row.slots < 1.9 and not row.spills, row.text


@pytest.mark.parametrize("gpu", ["a630", "a740"])
def test_float_sums_of_four_pixels_reach_twelve_waves(gpu, compiled):
    row = compiled(gpu, Block("1x1", 4))[0]
    assert row.waves >= 12 and row.slots < 1.9 and not row.spills, row.text


def test_the_cost_model_wants_large_blocks_for_large_maps_only():
    gpu = find_gpu("a740")
    compiler, reason = find_compiler(gpu)
    if compiler is None:
        pytest.skip(reason)
    wanted = [
        b for b in blocks() if (b.kind, b.accumulate, b.weights, b.unroll) == ("1x1", "half", "image", 1)
    ]
    kernels = compiler.compile([KernelText(block.name, opencl(block)) for block in wanted])
    compiler.close()

    def outputs_an_item(width, height, channels, outputs):
        candidates = [
            Candidate(
                kernel,
                (channels // 4,),
                -(-width // block.pixels) * -(-outputs // (4 * block.quads)) * height,
                block.work_group[0] * block.work_group[1],
            )
            for block, kernel in zip(wanted, kernels)
        ]
        block = wanted[candidates.index(fastest(gpu, candidates))]
        return block.pixels * block.quads

    assert outputs_an_item(112, 112, 16, 64) >= 8
    assert outputs_an_item(7, 7, 960, 320) <= 4


def test_what_the_texture_unit_converts_costs_no_instructions(compiled):
    by_texture, by_instructions = compiled("a630", Block("1x1", 4), Block("1x1", 4, accumulate="converted"))
    assert by_texture.slots < 0.85 * by_instructions.slots


def test_weights_in_buffers_cost_more_slots_than_in_images(compiled):
    image, buffer = compiled("a630", Block("1x1", 4, 2), Block("1x1", 4, 2, weights="global"))
    assert image.slots < 0.7 * buffer.slots


def test_fma_is_emulated(compiled):
    gpu = find_gpu("a630")
    compiler, reason = find_compiler(gpu)
    if compiler is None:
        pytest.skip(reason)
    text = opencl(Block("1x1", 1, accumulate="half"))
    mad, fma = compiler.compile([KernelText("mad", text), KernelText("fma", text.replace("mad(", "fma("))])
    compiler.close()
    assert fma.statistics.instructions > 20 * mad.statistics.instructions
