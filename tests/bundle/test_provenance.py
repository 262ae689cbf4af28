"""The nodes behind each launch come back, of loops too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bundle_samples import loop_plan, network_plan

from tinyinfer.bundle.plan_section import launches_in_order
from tinyinfer.bundle.provenance import read_provenance, write_provenance
from tinyinfer.errors import InvalidBundle


def test_origins_come_back() -> None:
    first, second = network_plan(), loop_plan()
    second.launches[0] = replace(second.launches[0], origin=("/a/Conv", "é"))
    first.launches[0] = replace(first.launches[0], origin=("/a/Conv",))
    data = np.frombuffer(write_provenance([first, second]), np.uint8)
    wanted = [[x.origin for x in launches_in_order(plan.launches)] for plan in (first, second)]
    assert read_provenance(data, "PROV") == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100000,
        '{"nodes":[1],"targets":[]}',
        '{"nodes":["a"],"targets":3}',
        '{"nodes":[],"targets":[[[0]]]}',
        '{"nodes":["a"],"targets":[[[-1]]]}',
        '{"nodes":["a"],"targets":[[["a"]]]}',
    ],
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidBundle, match="PROV: no provenance"):
        read_provenance(np.frombuffer(bytearray(text.encode()), np.uint8), "PROV")
