"""Words of command streams: headers, fields, and whole streams against committed ones."""

from __future__ import annotations

import pytest
from kgsl_kernels import CHIPS, GOLDEN, golden_stream
from pm4_decoder import BadStream, listed_words, listing, ones_are_odd, packets

from tinyinfer.backends.qcom.kgsl import Address, CommandStream
from tinyinfer.backends.qcom.kgsl import registers as reg
from tinyinfer.backends.qcom.kgsl.gpus import GPUS, find_chip
from tinyinfer.backends.qcom.kgsl.registers import REGISTERS, encode
from tinyinfer.backends.qcom.kgsl.stream import odd_parity, type4_header, type7_header

# Words that were read out of GPUs: Mesa's crash dumps of a6xx, and the load of code by the vendor's OpenCL
# driver on a630 that tinygrad's pull request 17289 shows.
CAPTURED_TYPE_7 = [
    (0x10, 0, 0x70108000),
    (0x1D, 1, 0x709D0001),
    (0x26, 0, 0x70268000),
    (0x2C, 1, 0x702C0001),
    (0x3E, 3, 0x703E8003),
    (0x3F, 3, 0x70BF8003),
    (0x43, 3, 0x70438003),
    (0x46, 1, 0x70460001),
    (0x46, 4, 0x70460004),
    (0x65, 1, 0x70E50001),
]


@pytest.mark.parametrize(("operation", "count", "header"), CAPTURED_TYPE_7)
def test_type_7_headers_are_those_seen_on_hardware(operation, count, header):
    assert type7_header(operation, count) == header


def test_words_seen_on_hardware():
    assert encode("counter", reg.REGISTER_TO_MEMORY, register=0x400, count=2, wide=1) == 0x40080400
    assert encode("event", reg.EVENT, event=reg.EVENT_CACHE_INVALIDATE) == 0x31
    code = encode(
        "load", reg.LOAD_STATE, type=0, source=reg.SOURCE_INDIRECT, block=reg.BLOCK_COMPUTE_SHADER, units=2
    )
    assert code == 0x00B60000
    mode = encode("mode", REGISTERS["SP_MODE_CNTL"].fields, constant_demotion=1, isam_mode=2)
    assert mode == 5


def test_parity_is_the_kernels_table():
    """KGSL folds a word into a nibble and looks it up in 0x9669."""
    for value in [0, 1, 2, 3, 0x7F, 0xA9B0, 0xB990, 0xBB08, 0x3FFFF, *range(4, 128)]:
        folded, rest = 0, value
        while rest:
            folded, rest = folded ^ rest & 15, rest >> 4
        assert odd_parity(value) == 0x9669 >> folded & 1
        assert ones_are_odd(value) != bool(odd_parity(value))


def test_type_4_headers():
    # 0xb990 has seven ones and 12 has two; 0xa9b0 has seven and 3 two; 0xbb08 seven, 0xab00 five, and 1 one.
    assert type4_header(0xB990, 12) == 0x40B9908C
    assert type4_header(0xA9B0, 3) == 0x40A9B083
    assert type4_header(0xBB08, 1) == 0x40BB0801
    assert type4_header(0xA9B4, 2) == 0x48A9B402


@pytest.mark.parametrize(
    ("register", "values", "word"),
    [
        # Values less one, at shifts 2, 12 and 22.
        ("SP_CS_NDRANGE_0", {"dimensions": 3, "local_x": 32, "local_y": 4, "local_z": 2},
         3 | 31 << 2 | 3 << 12 | 1 << 22),
        # Units of four vectors: 256 without its unit would set the bit above, "enabled", and encode zero.
        ("SP_CS_CONST_CONFIG", {"vectors": 256, "enabled": 1}, 0x140),
        ("SP_CS_CNTL_1", {"local_bytes": 32768, "constant_mode": 3}, 0x7F),
        ("SP_CS_PVT_MEM_PARAM", {"bytes_per_item": 1024}, 2),
        ("SP_CS_PVT_MEM_SIZE", {"bytes_per_processor": 1 << 20, "per_wave": 1}, 0x80000100),
        ("SP_CS_PVT_MEM_STACK_OFFSET", {"bytes": 4096}, 2),
        ("SP_CS_INSTR_SIZE", {"bytes": 384}, 3),
        ("SP_CS_CONFIG", {"enabled": 1, "textures": 3, "samplers": 2, "uavs": 1},
         0x100 | 3 << 9 | 2 << 17 | 1 << 22),
        ("SP_CS_CNTL_0", {"half_registers": 3, "full_registers": 5, "branch_stack": 2, "merged_registers": 1},
         3 << 1 | 5 << 7 | 2 << 14 | 1 << 31),
    ],
)  # fmt: skip
def test_fields(register, values, word):
    assert encode(register, REGISTERS[register].fields, **values) == word


@pytest.mark.parametrize(
    ("register", "values", "words"),
    [
        ("SP_CS_NDRANGE_0", {"local_x": 0}, "SP_CS_NDRANGE_0.local_x cannot hold 0"),
        ("SP_CS_NDRANGE_0", {"local_x": 1025}, "cannot hold 1025: 10 bits"),
        ("SP_CS_CONST_CONFIG", {"vectors": 6}, "in steps of 4"),
        ("SP_CS_CNTL_0", {"full_registers": 64}, "6 bits"),
        ("SP_CS_CNTL_0", {"registers": 1}, "has no field registers; it has half_registers"),
    ],
)
def test_what_a_field_cannot_hold_is_refused(register, values, words):
    with pytest.raises(ValueError, match=words):
        encode(register, REGISTERS[register].fields, **values)


def test_fields_of_a_word_do_not_overlap():
    words = {name: register.fields for name, register in REGISTERS.items()}
    words |= {"load": reg.LOAD_STATE, "memory": reg.REGISTER_TO_MEMORY, "thread": reg.THREAD_CONTROL}
    for name, word in words.items():
        taken = 0
        for field in word.values():
            bits = (1 << field.high + 1) - (1 << field.low)
            assert not taken & bits, name
            taken |= bits
        assert taken < 1 << 32, name


@pytest.mark.parametrize("generation", [6, 7])
def test_registers_do_not_overlap(generation):
    taken: dict[int, str] = {}
    for name, register in REGISTERS.items():
        offset = register.offset(generation)
        for word in range(register.words if offset is not None else 0):
            assert taken.setdefault(offset + word, name) == name
    assert len(taken) > 50


def test_neighbours_share_a_packet():
    stream = CommandStream(6)
    stream.write({"SP_CS_NDRANGE_1": 10, "SP_CS_NDRANGE_2": 11, "SP_CS_NDRANGE_4": 12, "SP_CS_BASE": 0})
    assert [(p.register, p.payload) for p in packets(stream.words)] == [
        (0xB991, [10, 11]),
        (0xB994, [12]),
        (0xA9B4, [0, 0]),
    ]


def test_registers_that_a_generation_lacks():
    with pytest.raises(ValueError, match="generation 7 has no register SP_CS_CONST_CONFIG_0"):
        CommandStream(7).write({"SP_CS_CONST_CONFIG_0": 0})
    with pytest.raises(ValueError, match="SP_CS_BASE holds an address"):
        CommandStream(7).write({"SP_CS_BASE": 5})
    with pytest.raises(ValueError, match="SP_CS_TSIZE holds a number"):
        CommandStream(7).write({"SP_CS_TSIZE": Address(None)})  # type: ignore[arg-type]


@pytest.mark.parametrize("chip", CHIPS)
def test_golden_streams(chip):
    """`python kgsl_kernels.py` writes the files anew; a difference is to be read, not accepted."""
    words, generation = golden_stream(chip)
    text = (GOLDEN / f"{chip}.txt").read_text(encoding="utf-8")
    assert listed_words(text) == words
    assert listing(words, generation) == text


def test_the_decoder_refuses_damage():
    words, generation = golden_stream("a660")
    starts = [packet.position for packet in packets(words)]
    for start in starts:
        for bit in range(32):
            damaged = list(words)
            damaged[start] ^= 1 << bit
            with pytest.raises(BadStream):
                listing(damaged, generation)


def test_chip_ids():
    expected = {
        0x06010000: "a610", 0x06010800: "a618", 0x06030001: "a630", 0x06030500: "a643", 0x06040001: "a640",
        0x06050002: "a650", 0x06060001: "a660", 0x06090000: "a690", 0x07030001: "a730", 0x07030002: "a725",
        0x43050A01: "a740", 0x43050B00: "a740", 0x43051401: "a750",
    }  # fmt: skip
    for chip, name in expected.items():
        gpu = find_chip(chip)
        assert gpu is not None and gpu.name == name
        assert gpu.generation == int(name[1])
    for unknown in (0x05030002, 0x06070000, 0x44050001, 0x07000200, 0):
        assert find_chip(unknown) is None
    for gpu in GPUS.values():
        assert all(REGISTERS[name].offset(gpu.generation) is not None for name in gpu.setup)
