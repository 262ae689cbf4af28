"""Options of the QCOM device: `provider_options` in Python, `--device-option NAME=VALUE` in commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinyinfer.errors import InvalidArgument

DEFAULT = "default"
LEVELS = ("high", "normal", "low", DEFAULT)

AUTO, FP16, FP32 = "auto", "fp16", "fp32"
PRECISIONS = (AUTO, FP16, FP32)

STORAGE = {AUTO: "float16", FP16: "float16", FP32: "float32"}
"""What images hold by precision."""

VALUES = {"precision": PRECISIONS, "performance": LEVELS, "priority": LEVELS, "recording": ("on", "off")}


@dataclass(frozen=True)
class QcomOptions:
    """How values are stored, and what the driver is asked for: that changes no result, and where the driver
    lacks the extension, it means nothing."""

    precision: str = AUTO
    """How values are stored: "fp16" as halves, "fp32" as float32, "auto" as halves but for those that halves
    are too coarse or too small for (`islands`). Sums are float32. Bundles were compiled with one."""

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
