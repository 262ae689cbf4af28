"""What an autotuner found, as data: schedules by the kernels that they are for.

A record says what to try first, never what is right: `schedule_space` takes from it only schedules that it
could have proposed itself, so a record of any origin changes how fast kernels are and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Fields = tuple[tuple[str, int], ...]
"""A schedule's fields and their values, sorted by name."""


@dataclass(frozen=True)
class Tuning:
    """Schedules by key of a kernel, and the processor (LLVM's name) on which they were measured.

    Equal tunings are equal values with the same text, whatever the order in which kernels were measured.
    """

    machine: str = ""
    entries: tuple[tuple[str, Fields], ...] = ()

    @classmethod
    def make(cls, machine: str, schedules: Mapping[str, Mapping[str, int]]) -> Tuning:
        """A tuning of schedules given as fields by key."""
        made = (
            (key, tuple(sorted((name, int(v)) for name, v in fields.items())))
            for key, fields in schedules.items()
        )
        return cls(machine, tuple(sorted(made)))

    @classmethod
    def from_json(cls, value: Any) -> Tuning:
        """What `as_json` gave; of anything else, as much as has that form."""
        if not isinstance(value, dict):
            return cls()
        machine, schedules = value.get("machine"), value.get("schedules")
        good = {
            key: fields
            for key, fields in (schedules if isinstance(schedules, dict) else {}).items()
            if isinstance(fields, dict) and all(isinstance(v, int) for v in fields.values())
        }
        return cls.make(machine if isinstance(machine, str) and machine.isascii() else "", good)

    def as_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"machine": self.machine, "schedules": {key: dict(fields) for key, fields in self.entries}}

    def get(self, key: str) -> Mapping[str, int] | None:
        """The fields of the schedule recorded for a kernel, unchecked, or None."""
        fields = self._by_key.get(key)
        return None if fields is None else dict(fields)

    def __bool__(self) -> bool:
        return bool(self.entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_key)

    @cached_property
    def _by_key(self) -> dict[str, Fields]:
        return dict(self.entries)
