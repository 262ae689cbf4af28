"""Compiled kernels kept on disk, addressed by what made them.

One file an entry: a header with magic, payload length and checksum, then the object. Files appear by
renaming, so that any number of processes may share a folder. A file that is short, changed or unreadable
counts as missing and is written anew; a folder that cannot be written means no caching, never an error.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct("<8sQ16s")
_MAGIC = b"TINYKRN1"
_SUFFIX = ".kernel"
_DAY = 86400.0
DEFAULT_LIMIT = 1 << 30
PRUNE_TO = 0.8
"""Part of the limit that is left after dropping the oldest entries."""


@dataclass(frozen=True)
class CacheInfo:
    """Number of entries, their size in bytes with headers, and where they lie."""

    directory: Path
    entries: int
    bytes: int


class KernelCache:
    """A folder of compiled kernels of at most `limit` bytes (the oldest entries go first)."""

    def __init__(self, directory: str | os.PathLike[str], limit: int = DEFAULT_LIMIT):
        self.directory = Path(directory)
        self.limit = limit
        self._folder = os.path.join(self.directory, "kernels")
        self._bytes: int | None = None

    def get(self, key: str) -> bytes | None:
        """The object kept under `key` (letters, digits, "-", "_"), or None."""
        try:
            descriptor = os.open(self._path(key), os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError:
            return None
        try:
            status = os.fstat(descriptor)
            data = os.read(descriptor, status.st_size)
            if time.time() - status.st_mtime > _DAY:
                # entries in use stay young; once a day is enough for that
                with suppress(OSError):
                    os.utime(self._path(key))
        except OSError:
            return None
        finally:
            os.close(descriptor)
        if len(data) < _HEADER.size:
            return None
        magic, size, checksum = _HEADER.unpack_from(data)
        payload = data[_HEADER.size :]
        if magic != _MAGIC or size != len(payload) or checksum != _checksum(key, payload):
            return None
        return payload

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Those of `keys` that are kept."""
        return {key: data for key in keys if (data := self.get(key)) is not None}

    def put(self, key: str, data: bytes) -> None:
        """Keep `data` under `key`, in place of what was there."""
        self.put_many({key: data})

    def put_many(self, items: Mapping[str, bytes]) -> None:
        """Keep several objects."""
        for key, data in items.items():
            if not self._write(key, data):
                return
            if self._bytes is not None:
                self._bytes += len(data) + _HEADER.size
        if self._bytes is None:
            self._bytes = sum(size for _, size, _ in self._entries())
        if self._bytes > self.limit:
            self._prune()

    def info(self) -> CacheInfo:
        """What the folder holds now."""
        sizes = [size for _, size, _ in self._entries()]
        return CacheInfo(self.directory, len(sizes), sum(sizes))

    def clear(self) -> None:
        """Remove every entry."""
        for path, _, _ in self._entries():
            with suppress(OSError):
                os.unlink(path)
        self._bytes = None

    def _path(self, key: str) -> str:
        if not key or not key.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"a cache key of letters, digits, '-' and '_' is needed, not {key!r}")
        return os.path.join(self._folder, key[:2], key + _SUFFIX)

    def _write(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        folder = os.path.dirname(path)
        temporary = None
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=folder)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_HEADER.pack(_MAGIC, len(data), _checksum(key, data)) + data)
            os.replace(temporary, path)
        except OSError:
            if temporary is not None:
                with suppress(OSError):
                    os.unlink(temporary)
            return False
        return True

    def _entries(self) -> Iterator[tuple[str, int, float]]:
        """(path, bytes, modification time) of every entry, leftovers of writers that died included."""
        with suppress(OSError):
            for folder in os.scandir(self._folder):
                with suppress(OSError):
                    for entry in os.scandir(folder.path):
                        with suppress(OSError):
                            status = entry.stat()
                            yield entry.path, status.st_size, status.st_mtime

    def _prune(self) -> None:
        entries = sorted(self._entries(), key=lambda entry: entry[2])
        total = sum(size for _, size, _ in entries)
        for path, size, _ in entries:
            if total <= self.limit * PRUNE_TO:
                break
            with suppress(OSError):
                os.unlink(path)
            total -= size
        self._bytes = total


def _checksum(key: str, data: bytes) -> bytes:
    digest = hashlib.blake2b(data, digest_size=16, key=b"tinyinfer kernel")
    digest.update(key.encode())
    return digest.digest()
