"""The JavaScript loader under Node: a bundle runs and verifies itself, and what is wrong with one is told."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

import numpy as np
import pytest
from small_bundle import COLUMNS, ELSEWHERE, ROWS, Section, bundle, expected, plan, rehashed, small_sections
from wasm_tools import Cases, module_of

from tinyinfer.bundle import container, signature

_HEAD = "define void @kernel(ptr %arguments, i64 %chunk) #0 {\n"
_TAIL = 'ret void\n}\nattributes #0 = { nounwind "no-builtins" }\n'


def _argument(number: int) -> str:
    place = f"%p{number} = getelementptr ptr, ptr %arguments, i64 {number}\n"
    return f"{place}%a{number} = load ptr, ptr %p{number}\n"


def _place(name: str, base: str, index: str) -> str:
    return f"%{name}.at = getelementptr <8 x float>, ptr {base}, i64 {index}\n"


def _load(name: str, base: str, index: str) -> str:
    return f"{_place(name, base, index)}%{name} = load <8 x float>, ptr %{name}.at, align 4\n"


def scale() -> str:
    """y[row] = x[row] * w, where w has a gap of two elements in its middle."""
    text = _HEAD + "".join(map(_argument, range(3))) + "%w.high = getelementptr float, ptr %a2, i64 2\n"
    text += "%i0 = mul i64 %chunk, 2\n%i1 = add i64 %i0, 1\n"
    for half, weights in enumerate(("%a2", "%w.high")):
        text += _load(f"x{half}", "%a1", f"%i{half}") + _load(f"w{half}", weights, str(half))
        text += f"%y{half} = fmul <8 x float> %x{half}, %w{half}\n" + _place(f"y{half}", "%a0", f"%i{half}")
        text += f"store <8 x float> %y{half}, ptr %y{half}.at, align 4\n"
    return text + _TAIL


def step() -> str:
    """next = state + row; out = 2 next"""
    text = _HEAD + "".join(map(_argument, range(4)))
    for half in range(2):
        text += _load(f"s{half}", "%a2", str(half)) + _load(f"r{half}", "%a3", str(half))
        text += f"%n{half} = fadd <8 x float> %s{half}, %r{half}\n"
        text += f"%o{half} = fadd <8 x float> %n{half}, %n{half}\n"
        for name, base in (("n", "%a0"), ("o", "%a1")):
            text += _place(f"{name}{half}", base, str(half))
            text += f"store <8 x float> %{name}{half}, ptr %{name}{half}.at, align 4\n"
    return text + _TAIL


def count() -> str:
    """total += 1 + b, eight elements a chunk"""
    text = (
        _HEAD + "".join(map(_argument, range(2))) + _load("t", "%a0", "%chunk") + _load("b", "%a1", "%chunk")
    )
    text += "%s = fadd <8 x float> %b, splat (float 1.0)\n%n = fadd <8 x float> %t, %s\n"
    return text + "store <8 x float> %n, ptr %t.at, align 4\n" + _TAIL


TARGET = "wasm32"


@pytest.fixture(scope="module")
def code() -> bytes:
    return module_of([scale(), step(), count()])


@pytest.fixture(scope="module")
def sections(code: bytes) -> list[Section]:
    text = plan("wasm32", {"scale": 0, "step": 1, "count": 2}, features=1)
    return small_sections([(TARGET, "wasm32", text, code)])


@pytest.fixture(scope="module")
def small(sections: list[Section]) -> bytes:
    return bundle(sections)


def error_of(data: bytes, folder: Path, **options: object) -> str:
    """The message of the BundleError that opening a bundle must give."""
    cases = Cases(folder)
    cases.add(data, options=options)
    (result,) = cases.run()
    assert result.get("error") == "BundleError", result
    return result["message"]


def entry_of(data: bytes, kind: str) -> int:
    """Where a section's entry in the table of contents is."""
    count = struct.unpack_from("<I", data, 12)[0]
    return next(at for at in range(64, 64 + 96 * count, 96) if data[at : at + 4] == kind.encode())


def place_of(data: bytes, kind: str) -> int:
    return struct.unpack_from("<Q", data, entry_of(data, kind) + 8)[0]


def test_a_bundle_runs_and_verifies_itself(small: bytes, tmp_path: Path):
    x = np.random.default_rng(3).standard_normal((ROWS, COLUMNS)).astype(np.float32)
    cases = Cases(tmp_path)
    cases.add(small, {"x": x}, verify=True)
    (result,) = cases.run()
    assert result["target"] == TARGET
    assert result["inputs"][0] == {"name": "x", "dtype": "float32", "shape": [ROWS, COLUMNS]}
    for name, wanted in zip(("y", "state", "n"), expected(x), strict=True):
        got = np.frombuffer(base64.b64decode(result["outputs"][name]), wanted.dtype).reshape(wanted.shape)
        np.testing.assert_allclose(got, wanted, 1e-5, 1e-4)
    assert [v["output"] for v in result["verified"]] == ["y", "state", "n"]
    assert all(v["passed"] and 0 <= v["error"] <= v["tolerance"] for v in result["verified"])


def test_golden_vectors_that_fail(small: bytes, tmp_path: Path):
    changed = bytearray(small)
    wanted = (
        place_of(small, "GOLD") + struct.unpack_from("<Q", small, place_of(small, "GOLD") + 16 + 96 + 40)[0]
    )
    changed[wanted : wanted + 4] = struct.pack("<f", 1e6)
    cases = Cases(tmp_path)
    cases.add(rehashed(bytes(changed)), verify=True)
    (result,) = cases.run()
    assert [v["passed"] for v in result["verified"]] == [False, True, True]
    assert result["verified"][0]["error"] > 9e5


def test_inputs_are_checked(small: bytes, tmp_path: Path):
    x = np.zeros((ROWS, COLUMNS), np.float32)
    cases = Cases(tmp_path)
    for feeds in ({"x": x[1:]}, {}, {"x": x, "mode": np.int32([4])}, {"x": x, "mode": np.int32([3])}):
        cases.add(small, feeds)
    short, missing, other, right = cases.run()
    assert short == {"error": "RangeError", "message": "input x of shape [8, 16] has 128 numbers, not 112"}
    assert missing["message"] == "input x is missing"
    assert other["message"] == "the bundle was made for another value of input mode"
    assert set(right["outputs"]) == {"y", "state", "n"}


def test_every_change_is_noticed(small: bytes, tmp_path: Path):
    heads = 64 + 96 * struct.unpack_from("<I", small, 12)[0]
    flips = [*range(heads), *range(heads, len(small), 41)]
    cuts = [*range(0, heads, 5), *range(heads, len(small), 997), len(small) - 1]
    cases = Cases(tmp_path)
    cases.add(small, changes=[*(("flip", at) for at in flips), *(("cut", at) for at in cuts)])
    (result,) = cases.run()
    # the minor version may be any
    assert [x for x in result["unnoticed"] if x[1] not in (10, 11)] == []


def test_damaged_plans_are_refused_or_run(small: bytes, tmp_path: Path):
    """With right hashes, a changed plan is refused in words or harmless; the loader itself never fails."""
    start, size = struct.unpack_from("<QQ", small, entry_of(small, "PLAN") + 8)
    cases = Cases(tmp_path)
    for at in range(start, start + size, 3):
        changed = bytearray(small)
        changed[at] ^= 1 << (at % 8)
        cases.add(rehashed(bytes(changed)))
    kinds = {result.get("error", "") for result in cases.run()}
    assert kinds == {"", "BundleError"}


def test_versions(small: bytes, tmp_path: Path):
    newer = bytearray(small)
    struct.pack_into("<HH", newer, 8, 1, 7)
    cases = Cases(tmp_path)
    cases.add(rehashed(bytes(newer)))
    assert cases.run()[0]["target"] == TARGET
    struct.pack_into("<H", newer, 8, 2)
    message = "the bundle has format version 2; this loader reads version 1"
    assert error_of(rehashed(bytes(newer)), tmp_path) == message


def test_what_is_no_bundle(small: bytes, tmp_path: Path):
    assert "shorter than a header" in error_of(b"\x89TINF", tmp_path)
    assert "does not begin as one" in error_of(b"PK\3\4" + bytes(200), tmp_path)
    assert error_of(small[:-64], tmp_path) == f"the bundle is cut: {len(small) - 64} of {len(small)} bytes"
    assert "64 bytes follow it" in error_of(small + bytes(64), tmp_path)


def test_sections_in_another_order(sections: list[Section], small: bytes, tmp_path: Path):
    swapped = bytearray(small)
    first, second = entry_of(small, "WIDX"), entry_of(small, "WGHT")
    swapped[first : first + 96], swapped[second : second + 96] = (
        small[second : second + 96],
        small[first : first + 96],
    )
    assert "overlaps or lies outside" in error_of(rehashed(bytes(swapped)), tmp_path)
    assert "PLAN (wasm32) is misplaced" in error_of(
        bundle([sections[1], sections[0], *sections[2:]]), tmp_path
    )
    assert "there is no section WGHT" in error_of(bundle([s for s in sections if s.kind != "WGHT"]), tmp_path)
    assert "PLAN (wasm32) stands alone" in error_of(
        bundle([s for s in sections if s.kind != "CODE"]), tmp_path
    )


def test_unknown_sections(sections: list[Section], tmp_path: Path):
    cases = Cases(tmp_path)
    cases.add(bundle([*sections, Section("NEWS", b"later", flags=0)]))
    assert cases.run()[0]["target"] == TARGET
    message = error_of(bundle([*sections, Section("NEWS", b"later", flags=1)]), tmp_path)
    assert message == "the bundle needs a newer loader: it has a section NEWS"


def test_targets_that_do_not_run_here(sections: list[Section], code: bytes, tmp_path: Path):
    offsets = {"scale": 0, "step": 1, "count": 2}
    other = ("x86_64-v3", "x86_64", plan("x86_64", offsets), b"\xc3")
    future = ("wasm32-next", "wasm32", plan("wasm32", offsets, features=1 << 9), code)
    right = (TARGET, "wasm32", plan("wasm32", offsets, features=1), code)
    cases = Cases(tmp_path)
    cases.add(bundle(small_sections([other, future, right])))
    assert cases.run()[0]["target"] == TARGET
    message = error_of(bundle(small_sections([other, future])), tmp_path)
    assert message == (
        "no target of the bundle runs on this WebAssembly engine (wasm32): x86_64-v3 is for another "
        "architecture; wasm32-next needs features that this loader does not know"
    )
    assert "wasm32 is not wasm32-fast" in error_of(bundle(sections), tmp_path, target="wasm32-fast")
    broken = ("wasm32", "wasm32", plan("wasm32", offsets), b"\0asm\1\0\0\0\xff")
    assert "is not WebAssembly that this engine runs" in error_of(bundle(small_sections([broken])), tmp_path)


def test_kernels_that_are_not_there(code: bytes, tmp_path: Path):
    text = plan("wasm32", {"scale": 0, "step": 1, "count": 3})
    message = error_of(bundle(small_sections([(TARGET, "wasm32", text, code)])), tmp_path)
    assert message.endswith("its code lacks a kernel")


def test_signatures(sections: list[Section], tmp_path: Path):
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    form = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    key, other = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
    mine, theirs = (k.public_key().public_bytes_raw().hex() for k in (key, other))
    parts = [container.Section(s.kind, s.data, s.group, s.name) for s in sections]
    pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    signed = container.write_bundle(parts, signature.signer(pem))
    unsigned = container.write_bundle(parts)
    cases = Cases(tmp_path)
    for options in ({}, {"requireSignature": True}, {"trustedKeys": [theirs, mine]}):
        cases.add(signed, options=options)
    assert [result.get("target") for result in cases.run()] == [TARGET] * 3
    message = "the bundle is not signed, and a signature is required"
    assert error_of(unsigned, tmp_path, requireSignature=True) == message
    assert error_of(unsigned, tmp_path, trustedKeys=[mine]) == message
    message = "the bundle is signed with a key that is not trusted"
    assert error_of(signed, tmp_path, trustedKeys=[theirs]) == message
    for place in (0, 40):
        forged = bytearray(signed)
        forged[place_of(signed, "SIGN") + place] ^= 1
        assert "signature" in error_of(rehashed(bytes(forged)), tmp_path)
    # a section that was exchanged, with all hashes made right
    changed = bytearray(signed)
    changed[place_of(signed, "PROV")] ^= 1
    assert error_of(rehashed(bytes(changed)), tmp_path) == "the bundle's signature is wrong"


def test_sections_held_elsewhere(sections: list[Section], tmp_path: Path):
    outside = [Section(s.kind, s.data, flags=1 | ELSEWHERE) if s.kind == "WGHT" else s for s in sections]
    message = error_of(bundle(outside), tmp_path)
    assert message == "the bundle's section WGHT is kept outside of it: hand it over as sections.WGHT"
