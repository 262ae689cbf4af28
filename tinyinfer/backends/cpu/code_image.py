"""Linked machine code as data. What only runs it needs nothing of the linker (`image`)."""

from __future__ import annotations

from dataclasses import dataclass

ALIGNMENT = 4096
"""Where an image may be mapped: multiples of this."""


@dataclass(frozen=True)
class CodeImage:
    """Position-independent machine code: its bytes, and where in them each kernel begins, by its key. The
    functions of the driver have their own names as keys."""

    code: bytes
    entries: dict[str, int]
