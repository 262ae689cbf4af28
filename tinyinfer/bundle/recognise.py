"""Whether something is a bundle, told by its first bytes."""

from __future__ import annotations

import os
import stat
from typing import Any

MAGIC = b"\x89TINF\r\n\x1a"


def is_bundle(source: Any) -> bool:
    """Whether a path (of a regular file) or bytes begin as bundles do. What cannot be read is none."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source[: len(MAGIC)]) == MAGIC
    if not isinstance(source, (str, os.PathLike)):
        return False
    try:
        # the first bytes of a pipe can be read only once
        if not stat.S_ISREG(os.stat(source).st_mode):
            return False
        with open(source, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return False
