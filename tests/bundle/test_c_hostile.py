"""The C runtime against damaged and hostile bundles, bad signatures, and threads: with sanitizers."""

from __future__ import annotations

import hashlib
import random
import struct
from pathlib import Path

import pytest
from c_tools import REPOSITORY, RUNTIME, compiled, needed, run
from small_bundle import Section, bundle, bundle_for_fuzzers, kernel_code, plan, rehashed, small_sections

HOSTILE = REPOSITORY / "tests" / "bundle" / "c" / "hostile.c"
FUZZER = REPOSITORY / "tests" / "fuzz" / "bundle_fuzzer.c"
INCLUDES = ["-std=gnu11", "-g", "-O1", "-I", str(HOSTILE.parent)]
SANITIZED = [*INCLUDES, "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
LIMITS = {"ASAN_OPTIONS": "allocator_may_return_null=1"}
ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("c_hostile")


@pytest.fixture(scope="module")
def hostile(folder: Path) -> Path:
    return compiled(folder / "hostile", "gcc", [HOSTILE], *SANITIZED)


@pytest.fixture(scope="module")
def runner(folder: Path) -> Path:
    sources = [REPOSITORY / "examples" / "run_bundle.c", RUNTIME / "tinyinfer.c"]
    return compiled(folder / "run_bundle", "gcc", sources, *SANITIZED)


@pytest.fixture(scope="module")
def real_sections(folder: Path) -> list[Section]:
    """Of a bundle that runs."""
    code, offsets = kernel_code(["gcc"], folder)
    return small_sections([("x86_64-test", "x86_64", plan("x86_64", offsets), code)])


@pytest.fixture(scope="module")
def small(folder: Path) -> Path:
    path = folder / "small.tinf"
    path.write_bytes(bundle_for_fuzzers())
    return path


def test_every_truncation_and_every_changed_byte_is_refused(hostile: Path, small: Path):
    done = run(hostile, "damage", small, **LIMITS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"{3 * small.stat().st_size + 1} tried, 0 wrongly accepted or refused\n"


@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_numbers_behind_right_hashes(hostile: Path, small: Path, seed: int):
    done = run(hostile, "mutants", small, str(seed), "8000", **LIMITS)
    assert done.returncode == 0, done.stderr
    tried, ran = (int(word) for word in done.stdout.split() if word.isdigit())
    assert tried == 8000 and tried // 10 < ran < tried  # most are harmless, and some are refused


def test_a_fuzzer_finds_nothing(folder: Path, small: Path):
    needed("clang-14")
    flags = [*INCLUDES, "-fsanitize=fuzzer,address,undefined"]
    fuzzer = compiled(folder / "fuzzer", "clang-14", [FUZZER], *flags)
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "small").write_bytes(small.read_bytes())
    done = run(
        fuzzer, "-max_total_time=10", "-max_len=20000", "-seed=1", f"-artifact_prefix={folder}/", corpus
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_threads_and_contexts_do_not_race(folder: Path, small: Path):
    program = compiled(folder / "race", "gcc", [HOSTILE], *INCLUDES, "-fsanitize=thread")
    done = run(program, "race", small, "4", "300")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "the same results\n" and "WARNING" not in done.stderr


def test_sha256(hostile: Path, folder: Path):
    data = random.Random(5).randbytes(2000)
    path = folder / "bytes"
    path.write_bytes(data)
    done = run(hostile, "sha256", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [hashlib.sha256(data[:n]).hexdigest() for n in range(301)]


def valid(hostile: Path, cases: list[tuple[bytes, bytes, bytes]]) -> list[bool]:
    lines = "".join(f"{k.hex()} {s.hex()} {m.hex() or '-'}\n" for k, s, m in cases)
    feed = hostile.parent / "cases.txt"
    feed.write_text(lines, encoding="ascii")
    done = run("sh", "-c", f'"{hostile}" ed25519 < "{feed}"')
    assert done.returncode == 0, done.stderr
    return [word == "1" for word in done.stdout.split()]


RFC_8032 = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
        "",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
        "72",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
        "af82",
    ),
]
"""Section 7.1, tests 1 to 3."""


def test_signatures_of_the_standard(hostile: Path):
    cases = [tuple(bytes.fromhex(part) for part in case) for case in RFC_8032]
    assert valid(hostile, cases) == [True] * 3  # type: ignore[arg-type]


def test_signatures_as_another_library(hostile: Path):
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    chance = random.Random(8)
    cases, wanted = [], []
    for _ in range(40):
        private = ed25519.Ed25519PrivateKey.from_private_bytes(chance.randbytes(32))
        key, message = private.public_key().public_bytes_raw(), chance.randbytes(chance.randrange(1, 33))
        good = private.sign(message)
        changed = bytearray(good)
        changed[chance.randrange(64)] ^= 1 << chance.randrange(8)
        larger = int.from_bytes(good[32:], "little") + ORDER  # the same number, which the standard refuses
        cases += [(key, good, message), (key, bytes(changed), message), (key, good, message[::-1] + b"x")]
        cases += [(key, good[:32] + larger.to_bytes(32, "little"), message)]
        wanted += [True, False, False, False]
    cases = [(k, s, m[:32]) for k, s, m in cases]
    cases.append((b"\xed" + b"\xff" * 30 + b"\x7f", cases[0][1], b"y"))  # y = p: no canonical point
    cases.append(((2).to_bytes(32, "little"), cases[0][1], b"y"))  # y = 2: no point of the curve
    assert valid(hostile, cases) == [*wanted, False, False]


def signed(sections: list[Section], private) -> bytes:
    """A bundle with its signature, made as docs/bundle.md says."""
    plain = bundle([*sections, Section("SIGN", bytes(96))])
    count = struct.unpack_from("<I", plain, 12)[0]
    text = b"tinyinfer bundle signature 1\0" + plain[:12] + plain[64 : 64 + 96 * (count - 1)]
    signature = private.sign(hashlib.sha256(text).digest())
    return bundle([*sections, Section("SIGN", private.public_key().public_bytes_raw() + signature)])


def test_signed_bundles(folder: Path, runner: Path, real_sections: list[Section]):
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    sections = real_sections
    private = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    stranger = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    path = folder / "signed.tinf"

    def opened(data: bytes, *options: str) -> str:
        path.write_bytes(data)
        done = run(runner, path, "verify", *options)
        assert done.returncode == (2 if "signed.tinf: " in done.stderr else 0)
        return done.stderr.rpartition("signed.tinf: ")[2].strip() if done.returncode else "good"

    mine, others = (("--key", k.public_key().public_bytes_raw().hex()) for k in (private, stranger))
    good, unsigned = signed(sections, private), bundle(sections)
    assert opened(good) == opened(good, "--require-signature") == opened(good, *mine) == "good"
    assert opened(good, *others) == "signed with a key that is not trusted"
    assert opened(unsigned) == "good"
    assert opened(unsigned, "--require-signature") == "not signed, and a signature is required"
    assert opened(unsigned, *mine) == "not signed, and a signature is required"
    changed = bytearray(good)
    changed[-1] ^= 1
    assert opened(rehashed(bytes(changed))) == "the signature is not one of this bundle"
    # another manifest under the old signature
    other = [Section("MANI", b"{}"), *sections[1:], Section("SIGN", good[-96:])]
    assert opened(bundle(other)) == "the signature is not one of this bundle"


def messages(folder: Path, runner: Path, data: bytes) -> str:
    path = folder / "wrong.tinf"
    path.write_bytes(data)
    return run(runner, path, "info").stderr.rpartition("wrong.tinf: ")[2].strip()


def with_header(data: bytes, at: int, form: str, value: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, at, value)
    return rehashed(bytes(changed))


def test_what_is_wrong_with_a_bundle(folder: Path, runner: Path, real_sections: list[Section]):
    sections = real_sections
    good = bundle(sections)

    def said(data: bytes) -> str:
        return messages(folder, runner, data)

    assert said(b"x" * 100) == "no bundle: it does not begin as one"
    assert said(good[:50]) == "no bundle: it has 50 bytes, and a header alone has 64"
    assert said(good[:-1]) == f"cut or grown: it has {len(good) - 1} bytes, not {len(good)}"
    newer = "version 2.0 of the format, and this runtime reads version 1"
    assert said(with_header(good, 8, "<H", 2)) == newer
    assert said(good[:100] + b"\xff" + good[101:]) == "damaged: its header or table of contents was changed"
    changed = bytearray(good)
    changed[-1] ^= 1
    assert said(bytes(changed)) == "damaged: section 6 (PROV) was changed"
    assert said(bundle([*sections, Section("NEXT", b"?")])) == (
        "section 7 is a NEXT, which this runtime cannot skip"
    )
    assert said(bundle(sections[1:])) == "the manifest is not the first section"
    assert said(bundle([*sections, sections[5]])) == "section 7: a second GOLD"
    assert said(bundle(sections[:3] + sections[4:])) == "no section WIDX"
    assert said(bundle(sections[:2] + sections[3:])) == "x86_64-test has no code"
    assert said(bundle([*sections[:1], Section("CODE", b"", 1, "", 3), *sections[2:]])).startswith("section")
    assert (
        said(bundle([Section("MANI", b"{}", flags=3), *sections[1:]])) == "section 0 (MANI): held elsewhere"
    )


def test_a_newer_minor_version_loads(folder: Path, runner: Path, real_sections: list[Section]):
    sections = real_sections
    path = folder / "newer.tinf"
    path.write_bytes(with_header(bundle([*sections, Section("MORE", b"?", flags=0)]), 10, "<H", 9))
    assert run(runner, path, "verify").returncode == 0
