"""Options of the QCOM device: `provider_options` in Python, `--device-option NAME=VALUE` in commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinyinfer.errors import InvalidArgument

DEFAULT = "default"
LEVELS = ("high", "normal", "low", DEFAULT)

VALUES = {"performance": LEVELS, "priority": LEVELS, "recording": ("on", "off")}


@dataclass(frozen=True)
class QcomOptions:
    """What the driver is asked for. None of it changes a result; where the driver lacks the extension, it
    means nothing."""

    performance: str = "high"
    """How fast the GPU is to be clocked (cl_qcom_perf_hint); "default" leaves it to the driver."""

    priority: str = DEFAULT
    """Whether others' work, the screen's for example, goes first (cl_qcom_priority_hint)."""

    recording: str = "on"
    """Whether launches are recorded once and replayed (cl_qcom_recordable_queues)."""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> QcomOptions:
        """The options of a mapping; InvalidArgument for a name or value that there is not."""
        chosen = {}
        for name, value in given.items():
            if name not in VALUES:
                raise InvalidArgument(f"QCOM has no option {name!r}; it has {', '.join(VALUES)}")
            text = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value).lower()
            if text not in VALUES[name]:
                raise InvalidArgument(f"QCOM: {name} is one of {', '.join(VALUES[name])}, not {value!r}")
            chosen[name] = text
        return cls(**chosen)
