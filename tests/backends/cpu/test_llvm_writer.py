"""LLVM text: literals, vectors, loops."""

import math
import struct

import pytest

from tinyinfer.backends.cpu.llvm_expression import tail_mask
from tinyinfer.backends.cpu.llvm_writer import ITEM_BYTES, LLVM_TYPES, Value, Writer, literal, memory_type


@pytest.mark.parametrize(
    "value, dtype, text",
    [
        (True, "bool", "true"),
        (0, "bool", "false"),
        (-3, "int8", "-3"),
        (200, "uint8", "200"),
        (1.0, "float64", "0x3FF0000000000000"),
        (1.0, "float32", "0x3FF0000000000000"),
        (0.1, "float32", "0x3FB99999A0000000"),
        (-0.0, "float32", "0x8000000000000000"),
        (math.inf, "float32", "0x7FF0000000000000"),
        (1e300, "float32", "0x7FF0000000000000"),
        (-1e300, "float32", "0xFFF0000000000000"),
        (1.0, "float16", "0xH3C00"),
        (-1e9, "float16", "0xHFC00"),
        (65504.0, "float16", "0xH7BFF"),
        (1.0, "bfloat16", "0xR3F80"),
    ],
)
def test_literals_are_exact(value, dtype, text):
    assert literal(value, dtype) == text


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_nan_is_nan(dtype):
    text = literal(math.nan, dtype)
    if dtype == "float16":
        assert math.isnan(struct.unpack("<e", int(text[3:], 16).to_bytes(2, "little"))[0])
    else:
        assert math.isnan(struct.unpack("<d", int(text, 16).to_bytes(8, "little"))[0])


def test_every_type_has_a_size():
    assert set(LLVM_TYPES) == set(ITEM_BYTES)
    assert memory_type("bool") == "i8" and memory_type("float16") == "half"


def test_values_are_spread_once_and_literals_without_code():
    w = Writer(4)
    assert w.splat(Value("3", "int32", False)).text == "splat (i32 3)" and not w.lines
    spread = w.splat(Value("%a", "float32", False))
    assert spread.vector and len(w.lines) == 2 and w.splat(spread) is spread


def test_a_loop_is_one_block_with_a_counter():
    w = Writer(4)
    with w.loop(0, 8, 2) as counter:
        w.do(f"call void @f(i64 {counter})")
    text = w.function("define void @g()")
    assert "phi i64 [0, %entry]" in text and "add nuw nsw i64" in text and text.count("icmp slt") == 1


def test_loops_of_unknown_length_may_be_empty():
    w = Writer(4)
    with w.loop("%first", "%last"):
        pass
    assert "icmp slt i64 %first, %last" in w.function("define void @g(i64 %first, i64 %last)")


def test_tail_masks():
    assert tail_mask(4, 1) == "<i1 true, i1 false, i1 false, i1 false>"
    assert tail_mask(2, 2) == "<i1 true, i1 true>"


def test_intrinsics_are_declared_with_the_types_of_their_arguments():
    w = Writer(4)
    w.call("llvm.abs.v4i32", "<4 x i32>", "<4 x i32> %a", "i1 false")
    assert w.declarations == {"declare <4 x i32> @llvm.abs.v4i32(<4 x i32>, i1)"}
