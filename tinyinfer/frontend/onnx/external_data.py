"""The one reader of external tensor data: contained below the model's folder, mapped, never copied.

A location is untrusted: it must be relative, stay below the folder without `..`, and no part of it may be a
symbolic link; the file must be regular and, unless hard links are allowed, have one name only (another could
be outside of the folder).
Each folder is opened below its parent's descriptor without following links, and checks are made on the
descriptor that is mapped, so that nothing can be swapped in between.

Source: ONNX "External Data" (keys location, offset, length, checksum); other keys are ignored.
"""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path, PurePosixPath

from onnx import TensorProto

from tinyinfer.frontend.onnx.errors import InvalidGraph, NoSuchFile

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)
_KEYS = ("location", "offset", "length")


class ExternalData:
    """The external files of one model, each opened and mapped once."""

    def __init__(self, folder: Path | None, hard_links: bool = False):
        self._folder, self._hard_links = folder, hard_links
        self._maps: dict[str, tuple[memoryview, tuple[object, ...]]] = {}

    def read(self, tensor: TensorProto, wanted_bytes: int) -> tuple[memoryview, tuple[object, ...]]:
        """The bytes of `tensor` and a key that identifies them.

        Raises InvalidGraph for a location that is not allowed or a range outside the file, NoSuchFile for no
        file.
        """
        what = f"tensor '{tensor.name}'"
        if self._folder is None:
            raise InvalidGraph(f"{what} is stored in another file, but the model was given without a path")
        entries = {e.key: e.value for e in tensor.external_data if e.key in _KEYS}
        location = entries.get("location", "")
        offset = _number(entries.get("offset", "0"), f"{what}: external data offset")
        length = (
            _number(entries["length"], f"{what}: external data length")
            if "length" in entries
            else wanted_bytes
        )
        if length != wanted_bytes:
            raise InvalidGraph(
                f"{what} needs {wanted_bytes} bytes, but its external data has length {length}"
            )
        content, identity = self._open(location, what)
        if offset + length > len(content):
            raise InvalidGraph(
                f"{what}: external data '{location}' has {len(content)} bytes, not the {offset + length} "
                "that the model names"
            )
        return content[offset : offset + length], (*identity, offset, length)

    def _open(self, location: str, what: str) -> tuple[memoryview, tuple[object, ...]]:
        found = self._maps.get(location)
        if found is None:
            found = self._maps[location] = _map_contained(
                self._folder or Path(), location, what, self._hard_links
            )
        return found


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise InvalidGraph(f"{what} must be a non-negative number, not {text[:40]!r}")
    return int(text)


def _parts(location: str, what: str) -> tuple[str, ...]:
    normal = location.replace("\\", "/")
    parts = PurePosixPath(normal).parts
    bad = (
        not parts
        or "\0" in location
        or normal.startswith("/")
        or ".." in parts
        or (len(normal) > 1 and normal[1] == ":")
    )
    if bad:
        raise InvalidGraph(
            f"{what}: external data location {location[:200]!r} must be a relative path below the "
            "model's folder"
        )
    return parts


def _map_contained(
    folder: Path, location: str, what: str, hard_links: bool
) -> tuple[memoryview, tuple[object, ...]]:
    parts = _parts(location, what)
    descriptor = _open_below(folder, parts, location, what)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidGraph(f"{what}: external data '{location}' is no regular file")
        if status.st_nlink > 1 and not hard_links:
            raise InvalidGraph(
                f"{what}: external data '{location}' has {status.st_nlink} hard links; a file with "
                "other names is refused unless Limits.hard_links allows it"
            )
        if status.st_size == 0:
            return memoryview(b""), (status.st_dev, status.st_ino, 0)
        mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        return memoryview(mapped), (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    finally:
        os.close(descriptor)


def _open_below(folder: Path, parts: tuple[str, ...], location: str, what: str) -> int:
    """A descriptor of the file, opened part by part without following a link."""
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        if os.open not in os.supports_dir_fd:
            path = folder.joinpath(*parts)
            if any(folder.joinpath(*parts[: i + 1]).is_symlink() for i in range(len(parts))):
                raise InvalidGraph(
                    f"{what}: external data '{location}' goes through a symbolic link, which is refused"
                )
            return os.open(path, flags)
        # non-blocking, so that opening a named pipe cannot hang before its type is checked
        current = os.open(folder, flags | _DIRECTORY)
        for position, part in enumerate(parts):
            last = position == len(parts) - 1
            try:
                following = os.open(
                    part, flags | _NO_FOLLOW | (os.O_NONBLOCK if last else _DIRECTORY), dir_fd=current
                )
            finally:
                os.close(current)
            current = following
        return current
    except FileNotFoundError:
        raise NoSuchFile(f"{what}: external data '{location}' does not exist in {folder}") from None
    except OSError as error:
        raise InvalidGraph(
            f"{what}: external data '{location}' cannot be opened below the model's folder "
            f"({error.strerror}; symbolic links are refused)"
        ) from None
