"""The file itself: header, table of contents, sections and their hashes (`docs/bundle.md`).

Writing: a list of `Section` goes through `write_bundle` (bytes) or `save_bundle` (a file). Reading:
`Container.open` maps the file and checks all of it; the modules that know a section's content take
`Container.data(entry)`, which is a view of the mapping:

    container = Container.open("model.tinf")
    weights = Weights(container)
    for entry in container.all("PLAN"):                       # best target first
        code = container.get("CODE", entry.group)
        section = read_plan(container.data(entry), code.size, weights.stored, entry.title)
        section.plan.parameters = weights.load(section.tensors)
"""

from __future__ import annotations

import hashlib
import mmap
import os
import secrets
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyinfer.errors import InvalidBundle, NoSuchFile

MAGIC = b"\x89TINF\r\n\x1a"
MAJOR, MINOR = 1, 1
HEADER = struct.Struct("<8sHHIQQ32s")
ENTRY = struct.Struct("<4sIQQII32s32s")
HASHED_HEADER_BYTES = 32
"""The part of the header that its hash covers, before the table of contents."""
SIGNED_HEADER_BYTES = 12
SIGNATURE_CONTEXT = b"tinyinfer bundle signature 1\0"
SIGNATURE_BYTES = 96
MOST_SECTIONS = 1024
ALIGNMENT = 64
LARGE_BYTES = 1 << 20
"""Sections from this size on may be hashed beside other work."""

CRITICAL, HELD = 1, 2
"""Bits of an entry's flags."""

Buffer = Any
"""bytes, or anything else with the buffer interface."""
Signer = Callable[[bytes], bytes]
"""From the digest that is signed to the 96 bytes of `SIGN`; `signature.signer` makes one."""


@dataclass(frozen=True)
class Kind:
    """What a section kind demands. `rank` is its place in files written here: what is looked at first stands
    first, and sections that begin on a page stand together at the end."""

    rank: int
    alignment: int = ALIGNMENT
    critical: bool = True
    target: bool = False
    """One for each target instead of one for all."""
    needed: bool = False


KINDS = {
    "MANI": Kind(0, needed=True),
    "PLAN": Kind(1, target=True),
    "WIDX": Kind(2, needed=True),
    "GOLD": Kind(3),
    "PROV": Kind(4, critical=False),
    "TUNE": Kind(5, critical=False),
    "KVAL": Kind(6, critical=False),
    "TRNG": Kind(6, critical=False),
    "CLBN": Kind(7, critical=False, target=True),
    "CODE": Kind(8, alignment=16384, target=True),
    "WGHT": Kind(9, alignment=16384, needed=True),
    "SIGN": Kind(10),
}
_UNKNOWN = Kind(7, critical=False)


@dataclass(frozen=True)
class Section:
    """A section to be written. `data` is a buffer or several that follow each other; `group` and `name` are
    those of the target for `PLAN` and `CODE`, else 0 and ""; `CLBN` has the group. `held` leaves the bytes
    to the loader's caller.
    """

    kind: str
    data: Buffer | Sequence[Buffer]
    group: int = 0
    name: str = ""
    critical: bool | None = None
    """None: as `KINDS` says; kinds that it does not name are not critical."""
    held: bool = False


@dataclass(frozen=True)
class Entry:
    """A section as the table of contents has it."""

    kind: str
    flags: int
    offset: int
    size: int
    group: int
    name: str
    sha256: bytes

    @property
    def title(self) -> str:
        """What messages call it: "WGHT", "PLAN (x86_64-v4)"."""
        return f"{self.kind} ({self.name or self.group})" if self.name or self.group else self.kind

    @property
    def held(self) -> bool:
        """Whether its bytes are elsewhere than in the file."""
        return bool(self.flags & HELD)


def signed_digest(header: bytes, entries: Iterable[bytes]) -> bytes:
    """What a signature signs, from the header's bytes and the raw entries without that of `SIGN`."""
    return hashlib.sha256(SIGNATURE_CONTEXT + header[:SIGNED_HEADER_BYTES] + b"".join(entries)).digest()


# ---- writing


def write_bundle(sections: Iterable[Section], signer: Signer | None = None, minor: int = 0) -> bytes:
    """The bytes of a bundle: the same ones for the same sections, which may come in any order but that of the
    targets, whose best is first. `minor` is the version whose readers know all of them. ValueError where they
    break the format's rules."""
    return b"".join(bytes(part) for part in _file_parts(list(sections), signer, minor))


def save_bundle(
    path: str | os.PathLike[str], sections: Iterable[Section], signer: Signer | None = None, minor: int = 0
) -> int:
    """As `write_bundle`, to a file; returns its size. The file appears whole and under its name at once, in
    place of what was there, or not at all."""
    parts = _file_parts(list(sections), signer, minor)
    target = os.path.abspath(os.fspath(path))
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name[:100]}.{secrets.token_hex(8)}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o666)
    try:
        with open(descriptor, "wb") as file:
            size = sum(file.write(part) for part in parts)
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    return size


def _file_parts(sections: list[Section], signer: Signer | None, minor: int) -> list[Buffer]:
    """The file, in pieces that follow each other."""
    if signer is not None:
        sections = [*sections, Section("SIGN", bytes(SIGNATURE_BYTES))]
    sections = sorted(sections, key=lambda s: (KINDS.get(s.kind, _UNKNOWN).rank, s.group))
    contents = [_pieces(section.data) for section in sections]
    position = HEADER.size + ENTRY.size * len(sections)
    entries = []
    for section, pieces in zip(sections, contents):
        kind = KINDS.get(section.kind, _UNKNOWN)
        size = sum(len(piece) for piece in pieces)
        critical = kind.critical if section.critical is None else section.critical
        flags = (CRITICAL if critical else 0) | (HELD if section.held else 0)
        offset = 0 if section.held else _aligned(position, kind.alignment)
        position = position if section.held else offset + size
        digest = hashlib.sha256()
        for piece in pieces:
            digest.update(piece)
        entries.append(Entry(section.kind, flags, offset, size, section.group, section.name, digest.digest()))
    try:
        _check_entries("the bundle", entries, position)
    except InvalidBundle as error:
        raise ValueError(str(error)) from None
    head = HEADER.pack(MAGIC, MAJOR, minor, len(entries), position, 0, bytes(32))
    if signer is not None:
        signature = signer(signed_digest(head, map(_pack_entry, entries[:-1])))
        contents[-1] = [memoryview(signature)]
        sha256 = hashlib.sha256(signature).digest()
        last = entries[-1]
        entries[-1] = Entry(last.kind, last.flags, last.offset, len(signature), 0, "", sha256)
        if len(signature) != SIGNATURE_BYTES:
            raise ValueError(f"a signature has {SIGNATURE_BYTES} bytes, not {len(signature)}")
    table = b"".join(map(_pack_entry, entries))
    covered = head[:HASHED_HEADER_BYTES]
    parts: list[Buffer] = [covered, hashlib.sha256(covered + table).digest(), table]
    position = HEADER.size + len(table)
    for entry, pieces in zip(entries, contents):
        if not entry.held:
            parts += [bytes(entry.offset - position), *pieces]
            position = entry.offset + entry.size
    return parts


def _pieces(data: Buffer | Sequence[Buffer]) -> list[memoryview]:
    """A section's content as views of bytes; empty ones are left out."""
    buffers: Sequence[Buffer] = data if isinstance(data, (list, tuple)) else [data]
    views = [memoryview(buffer) for buffer in buffers]
    return [view.cast("B") for view in views if view.nbytes]


def _pack_entry(entry: Entry) -> bytes:
    kind, name = entry.kind.encode("ascii"), entry.name.encode("ascii")
    return ENTRY.pack(kind, entry.flags, entry.offset, entry.size, entry.group, 0, entry.sha256, name)


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


# ---- reading


class Container:
    """A bundle whose header, table of contents and sections have been checked.

    `entries` are its sections in order of file, `minor` its minor version, and `signed_by` the public key
    (32 bytes) whose signature was found to be right, or None.
    """

    def __init__(
        self, label: str, content: np.ndarray, held: Mapping[str, Buffer], hash_beside: bool = False
    ):
        self.label = label
        self.size = content.size
        self._content = content
        self.minor, self.entries, raw_entries = _read_table(label, content)
        _check_entries(label, self.entries, content.size)
        _check_gaps(label, self.entries, content)
        self._data = [self._find(entry, held) for entry in self.entries]
        self._digests: dict[int, bytes] = {}
        large = [n for n, data in enumerate(self._data) if hash_beside and data.size >= LARGE_BYTES]
        self._hashing: threading.Thread | None = None
        if large:
            self._hashing = threading.Thread(target=self._hash, args=(large,), daemon=True)
            self._hashing.start()
        self._hash([n for n in range(len(self._data)) if n not in large])
        self._compare_digests()
        self.signed_by: bytes | None = None
        header = content[:SIGNED_HEADER_BYTES].tobytes()
        unsigned = [raw for entry, raw in zip(self.entries, raw_entries) if entry.kind != "SIGN"]
        self.signed_digest = signed_digest(header, unsigned)

    @classmethod
    def open(
        cls,
        source: str | os.PathLike[str] | Buffer,
        *,
        trusted_keys: Iterable[Any] | None = None,
        require_signature: bool = False,
        held: Mapping[str, Buffer] | None = None,
        hash_beside: bool = False,
    ) -> Container:
        """The bundle in a file, which is mapped, or in memory, which is copied only where it is not aligned.

        `trusted_keys` (see `signature.public_key`) accepts a bundle that one of them signed and no other;
        `require_signature` accepts whoever signed it. `held` has the sections that are not in the file, by
        kind. Raises InvalidBundle for whatever is wrong with the bytes, and NoSuchFile. A mapped file must
        not be changed in place while it is used; replacing it by renaming another one is fine.

        With `hash_beside`, sections of at least LARGE_BYTES are hashed on another thread while the caller
        goes on with the others; `finish` must then have returned before anything comes of them.
        """
        if isinstance(source, (str, os.PathLike)):
            label = os.fspath(source)
            content = _mapped(label)
        else:
            label, content = "bundle", _aligned_bytes(source)
        container = cls(label, content, held or {}, hash_beside)
        signed = container.get("SIGN")
        if signed is not None or require_signature or trusted_keys is not None:
            from tinyinfer.bundle.signature import check

            container.signed_by = check(
                label,
                container.data(signed).tobytes() if signed is not None else None,
                container.signed_digest,
                trusted_keys,
                require_signature,
            )
        return container

    def finish(self) -> None:
        """Wait for hashes that are computed beside. InvalidBundle where one is wrong."""
        if self._hashing is not None:
            self._hashing.join()
            self._hashing = None
        self._compare_digests()

    def _hash(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._digests[number] = hashlib.sha256(self._data[number].data).digest()

    def _compare_digests(self) -> None:
        """InvalidBundle for a section that does not match its hash, as far as hashes are known."""
        for number, digest in sorted(dict(self._digests).items()):
            if digest != self.entries[number].sha256:
                title = self.entries[number].title
                raise InvalidBundle(
                    f"{self.label}: section {title} does not match its SHA-256: the file is damaged or was "
                    "changed"
                )

    def all(self, kind: str) -> list[Entry]:
        """Every section of a kind, in order of file."""
        return [entry for entry in self.entries if entry.kind == kind]

    def get(self, kind: str, group: int = 0) -> Entry | None:
        """The section of a kind and target (0: of all targets), or None."""
        return next((e for e in self.entries if e.kind == kind and e.group == group), None)

    def data(self, entry: Entry) -> np.ndarray:
        """The bytes of one of `entries`: a read-only view that keeps the mapping alive."""
        return self._data[self.entries.index(entry)]

    def _find(self, entry: Entry, held: Mapping[str, Buffer]) -> np.ndarray:
        if not entry.held:
            return self._content[entry.offset : entry.offset + entry.size]
        if entry.kind not in held:
            raise InvalidBundle(
                f"{self.label}: section {entry.title} is held outside of the file and was not handed over"
            )
        data = _aligned_bytes(held[entry.kind])
        if data.size != entry.size:
            raise InvalidBundle(
                f"{self.label}: section {entry.title} has {entry.size} bytes, not {data.size}"
            )
        return data


def _mapped(path: str) -> np.ndarray:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise NoSuchFile(f"no such file: {path}") from None
    try:
        size = os.fstat(descriptor).st_size
        if size < HEADER.size:
            return np.frombuffer(os.read(descriptor, HEADER.size), np.uint8)
        mapping = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
    return np.frombuffer(mapping, np.uint8)


def _aligned_bytes(source: Buffer) -> np.ndarray:
    """A read-only array of bytes at a multiple of 64, as sections and tensors need it."""
    data = np.frombuffer(source, np.uint8)
    if data.ctypes.data % ALIGNMENT:
        block = np.empty(data.size + ALIGNMENT, np.uint8)
        start = -block.ctypes.data % ALIGNMENT
        block[start : start + data.size] = data
        data = block[start : start + data.size]
    data = data.view()
    data.flags.writeable = False
    return data


def _read_table(label: str, content: np.ndarray) -> tuple[int, list[Entry], list[bytes]]:
    """Steps 1 and 2 of reading: minor version, and the entries decoded and as they are."""
    start = content[: HEADER.size].tobytes()
    if start[:8] != MAGIC[: len(start)]:
        if start[:6] == b"\x89TINF\n":
            raise InvalidBundle(f"{label}: line ends were changed: the file was copied as text")
        raise InvalidBundle(f"{label}: not a bundle (it begins with {start[:8].hex(' ')})")
    if len(start) < HEADER.size:
        raise InvalidBundle(
            f"{label}: cut short: the header of a bundle has {HEADER.size} bytes, the file has {len(start)}"
        )
    _, major, minor, count, size, reserved, digest = HEADER.unpack(start)
    if major != MAJOR:
        age = "newer" if major > MAJOR else "older"
        raise InvalidBundle(
            f"{label}: format version {major}.{minor} is {age} than this version of tinyinfer reads "
            f"({MAJOR}.x): compile the model again, or use a matching tinyinfer"
        )
    if not 1 <= count <= MOST_SECTIONS:
        raise InvalidBundle(f"{label}: the header tells of {count} sections, not 1 to {MOST_SECTIONS}")
    if size != content.size:
        what = "cut short" if size > content.size else "something was appended"
        raise InvalidBundle(f"{label}: {what}: the header says {size} bytes, the file has {content.size}")
    end = HEADER.size + ENTRY.size * count
    if end > content.size:
        raise InvalidBundle(f"{label}: the table of contents of {count} sections ends outside of the file")
    table = content[HEADER.size : end].tobytes()
    if hashlib.sha256(start[:HASHED_HEADER_BYTES] + table).digest() != digest:
        raise InvalidBundle(
            f"{label}: header and table of contents do not match their SHA-256: the file is damaged or was "
            "changed"
        )
    raw = [table[at : at + ENTRY.size] for at in range(0, len(table), ENTRY.size)]
    return minor, [_unpack_entry(label, number, entry) for number, entry in enumerate(raw)], raw


def _unpack_entry(label: str, number: int, raw: bytes) -> Entry:
    kind, flags, offset, size, group, _, sha256, name = ENTRY.unpack(raw)
    name = name.rstrip(b"\0")
    for text in (kind, name):
        if not all(32 < byte < 127 for byte in text):
            raise InvalidBundle(f"{label}: section {number} is named {text!r}, which is not printable ASCII")
    return Entry(kind.decode("ascii"), flags, offset, size, group, name.decode("ascii"), sha256)


def _check_entries(label: str, entries: Sequence[Entry], file_size: int) -> None:
    """Step 3 of reading but for the bytes: kinds, groups, order and places."""
    end = HEADER.size + ENTRY.size * len(entries)
    seen: set[tuple[str, int]] = set()
    for number, entry in enumerate(entries):
        where = f"{label}: section {entry.title}"
        kind = KINDS.get(entry.kind, _UNKNOWN)
        if kind is _UNKNOWN and entry.flags & CRITICAL:
            raise InvalidBundle(
                f"{where} is of a kind that this version of tinyinfer needs to know and does not"
            )
        if entry.flags & ~(CRITICAL | HELD):
            raise InvalidBundle(f"{where} has unknown flags ({entry.flags:#x})")
        if kind is not _UNKNOWN:
            if kind.target != (entry.group > 0):
                wanted = "must belong to a target" if kind.target else "must not belong to a target"
                raise InvalidBundle(f"{where} {wanted}")
            if (entry.kind, entry.group) in seen:
                raise InvalidBundle(f"{where} is there twice")
            seen.add((entry.kind, entry.group))
        if (entry.kind == "MANI") != (number == 0) or entry.kind == "SIGN" and number != len(entries) - 1:
            raise InvalidBundle(f"{where} is not in its place: MANI is the first section, SIGN the last one")
        if entry.held:
            if entry.offset:
                raise InvalidBundle(f"{where} is held outside of the file and yet has a place in it")
            continue
        if entry.offset % kind.alignment:
            raise InvalidBundle(f"{where} begins at {entry.offset}, no multiple of {kind.alignment}")
        if entry.offset < end:
            raise InvalidBundle(
                f"{where} begins at {entry.offset}, before {end}, where the one before it ends"
            )
        end = entry.offset + entry.size
        if end > file_size:
            raise InvalidBundle(f"{where} ends at {end}, outside of the file of {file_size} bytes")
        if entry.kind == "SIGN" and entry.size != SIGNATURE_BYTES:
            raise InvalidBundle(f"{where} has {entry.size} bytes, not {SIGNATURE_BYTES}")
    for name, kind in KINDS.items():
        if kind.needed and (name, 0) not in seen:
            raise InvalidBundle(f"{label}: there is no section {name}")
    names = {(e.kind, e.group): e.name for e in entries if e.kind in ("PLAN", "CODE")}
    for (name, group), target in names.items():
        other = "CODE" if name == "PLAN" else "PLAN"
        if names.get((other, group)) != target:
            raise InvalidBundle(f"{label}: section {name} ({target or group}) has no {other} of that name")


def _check_gaps(label: str, entries: Sequence[Entry], content: np.ndarray) -> None:
    """Nothing may lie outside of the sections."""
    position = HEADER.size + ENTRY.size * len(entries)
    places = [(e.offset, e.offset + e.size) for e in entries if not e.held]
    for start, end in (*places, (content.size, content.size)):
        if content[position:start].any():
            raise InvalidBundle(f"{label}: bytes outside of all sections, between {position} and {start}")
        position = end
