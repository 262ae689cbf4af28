"""What is derived from LLVM's names for a CPU."""

import dataclasses

import pytest

from tinyinfer.backends.cpu.target import host_target, make_target, named_target


@pytest.mark.parametrize(
    ("triple", "features", "expected"),
    [
        ("x86_64-unknown-linux-gnu", "+sse2", (4, 16, False)),
        ("x86_64-unknown-linux-gnu", "+sse2,+avx", (8, 16, False)),
        ("x86_64-unknown-linux-gnu", "+avx,+avx2,+fma,-avx512f", (8, 16, True)),
        ("x86_64-unknown-linux-gnu", "+avx,+avx2,+fma,+avx512f", (16, 32, True)),
        ("x86_64-unknown-linux-gnu", "+avx512f,-avx512f,+avx,+fma", (8, 16, True)),
        ("aarch64-unknown-linux-gnu", "+neon", (4, 32, True)),
        ("armv7-unknown-linux-gnueabihf", "", (4, 16, True)),
        ("riscv64-unknown-linux-gnu", "", (4, 32, True)),
        ("wasm32-unknown-unknown", "", (4, 16, False)),
    ],
)
def test_vector_shape(triple, features, expected):
    target = make_target(triple, "", features)
    assert (target.lanes, target.registers, target.fma) == expected


def test_512_bit_vectors_stay_whole():
    assert "-prefer-256-bit" in make_target("x86_64", "", "+avx512f,+prefer-256-bit").features.split(",")
    assert "-prefer-256-bit" in make_target("x86_64", "skylake-avx512", "+avx512f").features.split(",")
    assert "prefer-256-bit" not in make_target("x86_64", "", "+avx2").features


def test_host():
    target = host_target()
    assert target is host_target() and target == named_target("host") and target.name == "host"
    assert target.lanes in (4, 8, 16) and target.architecture in target.triple
    assert hash(target) == hash(dataclasses.replace(target))


def test_keys_differ_where_code_may():
    keys = {named_target(name).key() for name in ("x86_64", "x86_64-v3", "x86_64-v4", "aarch64")}
    assert len(keys) == 4
    assert named_target("x86_64:znver4").key() != named_target("x86_64-v4").key()


def test_features_and_names():
    assert named_target("aarch64-v8.2").has("dotprod") and not named_target("aarch64").has("dotprod")
    with pytest.raises(ValueError, match="z80.*x86_64-v3"):
        named_target("z80")
