"""Where a device begins to differ from the oracle: every value that its kernels store, in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tinyinfer.backends.base import Device
from tinyinfer.config import CompileOptions
from tinyinfer.errors import NotImplemented
from tinyinfer.ir.node import Graph
from tinyinfer.ir.oracle import evaluate_virtual
from tinyinfer.runtime.comparison import Comparison, compare_arrays


@dataclass(frozen=True)
class StoredValue:
    """A value that a kernel stores, and how far it is from what it should be. `op` is what computes it last,
    `names` are the ONNX nodes that it comes from."""

    op: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    found: Comparison


def compare_stored(
    graph: Graph,
    device: Device,
    options: CompileOptions,
    feeds: Mapping[str, np.ndarray],
    tolerance: float | None = None,
    threads: int = 0,
) -> list[StoredValue]:
    """Compile and run `graph` keeping all that is stored, and compare that with the oracle, in the order in
    which it is computed. Outputs, and on some devices what lies in images, are not among it. NotImplemented
    where the device keeps nothing."""
    executable = device.compile(graph, replace(options, keep_values=True), threads)
    try:
        kept_values = getattr(executable, "kept_values", None)
        if kept_values is None:
            raise NotImplemented(  # noqa: F901 - the exception of tinyinfer.errors
                f"{device.name} does not keep what its kernels store"
            )
        executable.run([np.ascontiguousarray(feeds[spec.name]) for spec in executable.inputs])
        stored = [(node, np.array(value)) for node, value in kept_values()]
    finally:
        executable.close()
    wanted = evaluate_virtual([node for node, _ in stored], feeds)
    return [
        StoredValue(
            node.op,
            tuple(sorted(node.origin)),
            node.shape,
            compare_arrays(value, np.asarray(want), tolerance),
        )
        for (node, value), want in zip(stored, wanted)
    ]
