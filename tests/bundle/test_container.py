"""The file: what is written is read again, and whatever was done to it is refused in words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundle_samples import loop_plan, network_plan, rehashed, sections_of

from tinyinfer.bundle.container import (
    ENTRY,
    HEADER,
    Container,
    Section,
    save_bundle,
    write_bundle,
)
from tinyinfer.bundle.plan_reader import read_plan
from tinyinfer.bundle.weights import Weights
from tinyinfer.errors import InvalidBundle, NoSuchFile


def load(source) -> Container:
    """All that a loader does before it runs anything."""
    container = Container.open(source)
    weights = Weights(container)
    for entry in container.all("PLAN"):
        code = container.get("CODE", entry.group)
        section = read_plan(container.data(entry), code.size, weights.stored, entry.title)
        weights.load(section.tensors)
    return container


def small_sections() -> list[Section]:
    """A bundle whose pages are mostly shared: no code, few weights."""
    return [
        Section("MANI", b'{"a":1}'),
        Section("PLAN", b"plan", 1, "one"),
        Section("CODE", b"", 1, "one"),
        Section("WIDX", b"index"),
        Section("WGHT", b"weights"),
        Section("PROV", b"{}"),
    ]


@pytest.fixture(scope="module")
def small() -> bytes:
    return write_bundle(small_sections())


def test_sections_come_back(tmp_path: Path) -> None:
    path = tmp_path / "model.tinf"
    size = save_bundle(path, sections_of({"x86_64-v4": network_plan(), "loops": loop_plan()}))
    assert size == path.stat().st_size
    container = load(path)
    assert [(e.kind, e.group, e.name) for e in container.all("PLAN")] == [
        ("PLAN", 1, "x86_64-v4"),
        ("PLAN", 2, "loops"),
    ]
    assert container.entries[0].kind == "MANI"
    assert container.data(container.entries[0]).tobytes() == b'{"model":{"name":"sample"}}'
    assert container.get("GOLD") is None and container.get("CODE", 2).name == "loops"
    assert container.all("CODE")[0].offset % 16384 == 0
    assert not container.data(container.entries[0]).flags.writeable
    assert os.listdir(tmp_path) == ["model.tinf"]


def test_from_memory_at_any_address() -> None:
    data = write_bundle(sections_of({"a": network_plan()}))
    for shift in (0, 1, 32):
        moved = np.zeros(len(data) + 64, np.uint8)[shift : shift + len(data)]
        moved[:] = np.frombuffer(data, np.uint8)
        container = load(moved)
        assert all(container.data(e).ctypes.data % 64 == 0 for e in container.entries if e.size)


def test_same_bytes_every_time() -> None:
    script = (
        "import hashlib, bundle_samples as s; from tinyinfer.bundle.container import write_bundle; "
        "data = write_bundle(s.sections_of({'a': s.network_plan(), 'b': s.loop_plan()})); "
        "print(hashlib.sha256(data).hexdigest())"
    )
    root = Path(__file__).resolve().parents[2]
    digests = set()
    for seed in ("0", "12345"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        environment["PYTHONPATH"] = os.pathsep.join([str(root), str(root / "tests" / "bundle")])
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        digests.add(done.stdout)
    assert len(digests) == 1
    sections = sections_of({"a": network_plan()})
    assert write_bundle(sections) == write_bundle(list(reversed(sections)))


def test_every_truncation_is_refused(small: bytes) -> None:
    assert len(small) < 20000
    lengths = [*range(HEADER.size + 6 * ENTRY.size + 200), *range(0, len(small), 97), len(small) - 1]
    for length in lengths:
        with pytest.raises(InvalidBundle, match="cut short"):
            Container.open(small[:length])


def test_every_flipped_byte_is_refused(small: bytes) -> None:
    Container.open(small)
    changed = bytearray(small)
    for position in range(len(small)):
        changed[position] ^= 1 << position % 8
        with pytest.raises(InvalidBundle):
            Container.open(changed)
        changed[position] ^= 1 << position % 8


def test_what_is_wrong_is_said(small: bytes, tmp_path: Path) -> None:
    def message(data: bytes) -> str:
        path = tmp_path / "model.tinf"
        path.write_bytes(data)
        with pytest.raises(InvalidBundle) as caught:
            Container.open(path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
        return str(caught.value).removeprefix(f"{path}: ")

    assert message(b"") == "cut short: the header of a bundle has 64 bytes, the file has 0"
    assert message(small[:1234]) == f"cut short: the header says {len(small)} bytes, the file has 1234"
    assert "something was appended" in message(small + b"x")
    assert message(b"PK\3\4" + bytes(100)).startswith("not a bundle (it begins with 50 4b 03 04")
    assert "copied as text" in message(small.replace(b"\r\n", b"\n", 1))
    assert message(rehashed(small, major=2)).startswith(
        "format version 2.0 is newer than this version of tinyinfer reads (1.x): "
    )
    damaged = bytearray(small)
    damaged[-1] ^= 1
    assert message(bytes(damaged)).startswith("section WGHT does not match its SHA-256")
    at = Container.open(small).all("PLAN")[0].offset
    damaged = bytearray(small)
    damaged[at] ^= 1
    assert message(bytes(damaged)).startswith("section PLAN (one) does not match its SHA-256")
    damaged = bytearray(small)
    damaged[at + 10] = 1
    assert message(bytes(damaged)).startswith("bytes outside of all sections")
    with pytest.raises(NoSuchFile):
        Container.open(tmp_path / "none.tinf")


def _changed_entry(data: bytes, number: int, **fields) -> bytes:
    """The bundle with fields of an entry replaced and all hashes right."""
    content = bytearray(data)
    at = HEADER.size + ENTRY.size * number
    names = ("kind", "flags", "offset", "size", "group", "zero", "sha256", "name")
    values = dict(zip(names, ENTRY.unpack_from(content, at))) | fields
    ENTRY.pack_into(content, at, *values.values())
    return rehashed(bytes(content))


def test_tables_of_contents_that_break_the_rules(small: bytes) -> None:
    kinds = [e.kind for e in Container.open(small).entries]
    plan, prov = kinds.index("PLAN"), kinds.index("PROV")
    offset = Container.open(small).entries[plan].offset
    cases = [
        (plan, {"offset": 0}, "before"),
        (plan, {"offset": offset + 1}, "no multiple of 64"),
        (plan, {"size": 1 << 63}, "outside of the file"),
        (plan, {"size": 65}, "before"),
        (plan, {"flags": 5}, "unknown flags"),
        (plan, {"flags": 3}, "and yet has a place"),
        (plan, {"group": 0}, "must belong to a target"),
        (plan, {"group": 2}, "has no CODE"),
        (plan, {"name": b"other"}, "has no CODE"),
        (plan, {"name": b"caf\xe9"}, "printable ASCII"),
        (plan, {"kind": b"PL\0N"}, "printable ASCII"),
        (plan, {"kind": b"MANI"}, "must not belong to a target"),
        (prov, {"kind": b"MANI"}, "is there twice"),
        (prov, {"kind": b"SIGN"}, "not in its place"),
        (prov, {"kind": b"NEWS", "flags": 1}, "needs to know"),
        (kinds.index("WIDX"), {"kind": b"NEWS", "flags": 0}, "there is no section WIDX"),
    ]
    for number, fields, wanted in cases:
        with pytest.raises(InvalidBundle, match=wanted):
            Container.open(_changed_entry(small, number, **fields))
    swapped = bytearray(small)
    one, two = (HEADER.size + ENTRY.size * n for n in (plan, plan + 1))
    swapped[one : one + ENTRY.size], swapped[two : two + ENTRY.size] = (
        small[two : two + ENTRY.size],
        small[one : one + ENTRY.size],
    )
    with pytest.raises(InvalidBundle, match="before"):
        Container.open(rehashed(bytes(swapped)))


def test_a_newer_minor_version_loads() -> None:
    sections = [*small_sections(), Section("NEWS", b"from the future"), Section("MORE", b"", 7, "x")]
    container = Container.open(rehashed(write_bundle(sections), minor=7))
    assert container.minor == 7
    assert container.data(container.get("NEWS")).tobytes() == b"from the future"


def test_sections_held_elsewhere() -> None:
    weights = os.urandom(1000)
    sections = [s for s in small_sections() if s.kind != "WGHT"]
    data = write_bundle([*sections, Section("WGHT", weights, held=True)])
    container = Container.open(data, held={"WGHT": weights})
    assert container.data(container.get("WGHT")).tobytes() == weights
    for held, wanted in (
        (None, "was not handed over"),
        ({"WGHT": weights[1:]}, "has 1000 bytes, not 999"),
        ({"WGHT": weights[::-1]}, "SHA-256"),
    ):
        with pytest.raises(InvalidBundle, match=wanted):
            Container.open(data, held=held)


def test_writing_refuses_what_reading_would(tmp_path: Path) -> None:
    good = small_sections()
    for sections, wanted in (
        (good[1:], "MANI is the first"),
        ([*good, Section("PROV", b"")], "is there twice"),
        ([s for s in good if s.kind != "CODE"], "has no CODE"),
        ([*good, Section("NEWS", b"", critical=True)], "needs to know"),
    ):
        with pytest.raises(ValueError, match=wanted):
            save_bundle(tmp_path / "model.tinf", sections)
    assert not os.listdir(tmp_path)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.tinf"
    path.write_bytes(b"old")

    def refuse(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError):
        save_bundle(path, small_sections())
    assert os.listdir(tmp_path) == ["model.tinf"] and path.read_bytes() == b"old"
