"""`CLBN`: programs of an OpenCL target as drivers built them (`docs/bundle.md`, "Programs of drivers").

A program belongs to one device and driver: its digest (`backends.opencl.programs.program_digest`) covers
both, the options and the source. `write_programs` and `read_programs` are the section; `add_program` puts one
into a bundle that exists.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping

import numpy as np

from tinyinfer.bundle.container import CRITICAL, Container, Section, Signer, save_bundle
from tinyinfer.errors import InvalidArgument

HEADER = struct.Struct("<I12x")
RECORD = struct.Struct("<32sQQ")


def write_programs(programs: Mapping[bytes, bytes]) -> bytes:
    """The section with these binaries, by their digests."""
    position = HEADER.size + RECORD.size * len(programs)
    records = [HEADER.pack(len(programs))]
    for digest, binary in programs.items():
        records.append(RECORD.pack(digest, position, len(binary)))
        position += len(binary)
    return b"".join((*records, *programs.values()))


def read_programs(data: np.ndarray) -> dict[bytes, bytes]:
    """The binaries in a section by their digests. Whatever is not there is left out: a program can always be
    built from its source."""
    content = data.tobytes()
    if len(content) < HEADER.size:
        return {}
    (count,) = HEADER.unpack_from(content)
    count = min(count, (len(content) - HEADER.size) // RECORD.size)
    found = {}
    for number in range(count):
        digest, offset, size = RECORD.unpack_from(content, HEADER.size + RECORD.size * number)
        if size and offset + size <= len(content):
            found[digest] = content[offset : offset + size]
    return found


def add_program(
    path: str | os.PathLike[str], target: str, digest: bytes, binary: bytes, signer: Signer | None = None
) -> int:
    """Put a program of a target into the bundle in a file, beside those of other devices and drivers; returns
    the file's new size. A signature covers the sections that there were, so a signed bundle needs a `signer`:
    InvalidArgument without, and for a target that it does not hold."""
    container = Container.open(path)
    group = next((entry.group for entry in container.all("PLAN") if entry.name == target), None)
    if group is None:
        raise InvalidArgument(f"{container.label} holds no target {target!r}")
    refuse_signed(container, signer)
    programs, sections = {digest: binary}, []
    for entry in container.entries:
        data = container.data(entry)
        if (entry.kind, entry.group) == ("CLBN", group):
            programs = {**read_programs(data), **programs}
        elif entry.kind != "SIGN":
            critical = bool(entry.flags & CRITICAL)
            sections.append(Section(entry.kind, data, entry.group, entry.name, critical))
    sections.append(Section("CLBN", write_programs(programs), group))
    return save_bundle(path, sections, signer, container.minor)


def refuse_signed(container: Container, signer: Signer | None) -> None:
    """InvalidArgument for a signed bundle that is to be changed and not signed again."""
    if container.get("SIGN") is not None and signer is None:
        raise InvalidArgument(
            f"{container.label} is signed, and its signature does not cover what would be added: sign it"
            " again (--sign KEY)"
        )
