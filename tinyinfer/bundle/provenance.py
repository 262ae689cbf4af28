"""`PROV`: which ONNX nodes each launch computes, for people who look at a bundle or profile it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from tinyinfer.bundle.manifest import canonical_json
from tinyinfer.bundle.plan_section import launches_in_order
from tinyinfer.errors import InvalidBundle
from tinyinfer.runtime.plan import Plan

Origins = list[tuple[str, ...]]
"""The names of the nodes of each launch, in the order of `launches_in_order`."""


def write_provenance(plans: Sequence[Plan]) -> bytes:
    """The section for the plans of all targets, in order of their groups."""
    numbers: dict[str, int] = {}
    targets = [
        [
            [numbers.setdefault(name, len(numbers)) for name in launch.origin]
            for launch in launches_in_order(plan.launches)
        ]
        for plan in plans
    ]
    return canonical_json({"nodes": list(numbers), "targets": targets})


def read_provenance(data: np.ndarray, where: str) -> list[Origins]:
    """What the section says of each target, in order of groups. `where` begins messages of InvalidBundle."""
    try:
        content = json.loads(data.tobytes())
        nodes, targets = content["nodes"], content["targets"]
        if not all(isinstance(name, str) for name in nodes):
            raise TypeError("a node's name is no string")
        return [[_names(nodes, launch) for launch in target] for target in targets]
    except (ValueError, RecursionError, KeyError, TypeError, IndexError) as error:
        raise InvalidBundle(f"{where}: no provenance: {error}") from None


def _names(nodes: Sequence[str], numbers: Sequence[int]) -> tuple[str, ...]:
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise TypeError("a node's number is none")
    return tuple(nodes[number] for number in numbers)
